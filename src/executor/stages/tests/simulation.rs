//! Simulates whole sessions on fakes in virtual time: GitLab Runner's calls in their order, a SageMaker that goes
//! through its statuses, agents, faults, and processes that are killed. Everything follows from one seed.
//!
//! A kill drops the future of a stage: its memory is lost, the disk and the fakes stay. Not simulated: the log's
//! reader, whose thread has a runtime of its own (the log is empty here), and the timing of threads that read or write
//! files: no virtual time passes meanwhile.

mod agent;
mod judge;
mod plan;
mod runner;
mod single;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::plan::Plan;
use crate::config::env::{Environment, short_or_long};

/// Log of one session, in order.
type Trail = Vec<String>;

/// Number of processes killed, or the broken promise.
type Verdict = Result<usize, String>;

fn play(seed: u64) -> (Trail, Verdict) {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let plan = Plan::drawn(seed);
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(runner::play(&plan))));
    let (mut trail, verdict) = played.unwrap_or_else(|_| (Vec::new(), Err("a panic, see above".to_owned())));
    trail.insert(0, format!("{plan:?}"));
    (trail, verdict)
}

fn number(name: &str) -> Option<u64> {
    Environment::of_process().get(name).map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is no number")))
}

/// `SIMULATE=5000` plays that many sessions; `SIMULATE_SEED=17` plays only that one and prints its log.
#[test]
fn a_session_comes_to_its_documented_end_wherever_its_processes_are_killed() {
    if let Some(seed) = number("SIMULATE_SEED") {
        let (trail, verdict) = play(seed);
        println!("{}", trail.join("\n"));
        verdict.unwrap();
        return;
    }
    let (seeds, next) = (number("SIMULATE").unwrap_or(short_or_long(20, 200)), AtomicU64::new(1));
    let (failed, kills, reruns) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        break;
                    }
                    let (trail, verdict) = play(seed);
                    let repeated = trail.iter().filter(|line| line.contains("the script runs again (")).count();
                    reruns.fetch_add(repeated, Ordering::Relaxed);
                    match verdict {
                        Ok(killed) => drop(kills.fetch_add(killed, Ordering::Relaxed)),
                        Err(why) => failed.lock().push(format!("SIMULATE_SEED={seed}: {why}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of {seeds} sessions went wrong:\n{}", failed.len(), failed.join("\n"));
    let kills = kills.into_inner();
    assert!(kills as u64 >= seeds, "{kills} kills in {seeds} sessions");
    let reruns = reruns.into_inner();
    assert!(reruns as u64 >= seeds / 20, "{reruns} reruns in {seeds} sessions");
}

#[test]
fn the_same_seed_is_the_same_session() {
    for seed in 1..=short_or_long(2, 10) {
        let (first, second) = (play(seed), play(seed));
        // The times of AWS are simulated too: the waits that the trace tells do not come from this machine's clock.
        let of_years = |line: &&String| line.contains("The container runs") && line.contains(" h ");
        assert_eq!(first.0.iter().find(of_years), None, "seed {seed}");
        let pairs = first.0.iter().zip(&second.0);
        assert_eq!(pairs.filter(|(one, other)| one != other).take(3).collect::<Vec<_>>(), [], "seed {seed}");
        assert_eq!(first, second);
    }
}
