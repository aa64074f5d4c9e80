//! Samples the use of the machine while a script runs.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at};

use super::Recorder;
use super::gpu::GpuWatch;
use super::machine::{Machine, MachineFiles};
use crate::config::env::Environment;
use crate::protocol::bootstrap;

/// Time between two samples. A series merges its points when there are many.
const EVERY: Duration = Duration::from_secs(10);
/// The first samples come sooner, so that a short script has some.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Records the use of the machine until it is dropped.
pub(in crate::agent) async fn sample(recorder: Recorder, env: &Environment) -> Infallible {
    let (proc, cgroup) = (PathBuf::from("/proc"), PathBuf::from("/sys/fs/cgroup"));
    let files = MachineFiles { proc, cgroup, volume: bootstrap::channel_dir() };
    let mut machine = Machine::new(files, Instant::now());
    let variables =
        ["PATH", "LD_LIBRARY_PATH"].map(|name| env.get(name).map(|value| (name.to_owned(), value.to_owned())));
    let mut gpus = GpuWatch::start(env.path(), &variables.into_iter().flatten().collect::<Vec<_>>(), EVERY);
    let mut record =
        || machine.read(Instant::now()).into_iter().for_each(|(gauge, value)| recorder.gauge(gauge, value));
    for pause in FIRST {
        tokio::time::sleep(pause).await;
        record();
    }
    let mut ticks = interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => record(),
            reading = next(&mut gpus) => match reading {
                Some(reading) => recorder.gpus(reading),
                None => gpus = None,
            },
        }
    }
}

/// Waits for ever without GPUs.
async fn next(gpus: &mut Option<GpuWatch>) -> Option<super::gpu::GpuReading> {
    match gpus {
        Some(gpus) => gpus.next().await,
        None => std::future::pending().await,
    }
}
