//! Samples the use of the machine while a script runs.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval_at};

use super::gpu::{GpuReading, GpuWatch};
use super::machine::{Machine, MachineFiles};
use super::recorder::Recorder;
use crate::config::env::Environment;
use crate::protocol::bootstrap;
use crate::protocol::measurements::{FIRST_SAMPLES, SAMPLED_EVERY};

/// Records the use of the machine until it is dropped; without a recorder, only waits.
pub(crate) async fn sample(recorder: Option<Recorder>, env: &Environment) -> Infallible {
    let Some(recorder) = recorder else { return std::future::pending().await };
    let (proc, cgroup) = (PathBuf::from("/proc"), PathBuf::from("/sys/fs/cgroup"));
    let files = MachineFiles { proc, cgroup, volume: bootstrap::channel_dir() };
    let mut machine = Machine::new(files, Instant::now());
    let variables =
        ["PATH", "LD_LIBRARY_PATH"].map(|name| env.get(name).map(|value| (name.to_owned(), value.to_owned())));
    let mut gpus = GpuWatch::start(env.path(), &variables.into_iter().flatten().collect::<Vec<_>>(), SAMPLED_EVERY);
    let mut record =
        || machine.read(Instant::now()).into_iter().for_each(|(gauge, value)| recorder.gauge(gauge, value));
    for pause in FIRST_SAMPLES {
        tokio::time::sleep(pause).await;
        record();
    }
    let mut ticks = interval_at(tokio::time::Instant::now() + SAMPLED_EVERY, SAMPLED_EVERY);
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
async fn next(gpus: &mut Option<GpuWatch>) -> Option<GpuReading> {
    match gpus {
        Some(gpus) => gpus.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::measurements::Gauge;

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_taken_every_ten_seconds_and_sooner_at_first() {
        let (recorder, env) = (Recorder::default(), Environment::default());
        let hour = Duration::from_secs(3605);
        assert!(tokio::time::timeout(hour, sample(Some(recorder.clone()), &env)).await.is_err());
        let measured = recorder.measured();
        let memory = measured.gauge(Gauge::Memory).unwrap();
        assert!((360..=362).contains(&memory.count()), "{}", memory.count());
        assert!(memory.is_sound() && memory.max().unwrap() <= 100.0);
        let unwanted = tokio::time::timeout(hour, sample(None, &env)).await;
        assert!(unwanted.is_err());
    }
}
