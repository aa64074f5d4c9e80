//! The counts of this process. They go to the disk every 15 seconds and at its end; a process that is killed loses those since.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::catalog::Metric;
use super::sample::Sums;
use super::spool::{self, CountsPlace, Unwritten};

/// Time between two writes; Prometheus mostly reads the file as often.
const WRITTEN_EVERY: Duration = Duration::from_secs(15);

/// Counts that are not on the disk yet.
struct Counts {
    place: CountsPlace,
    sums: Sums,
    written: Instant,
}

/// One table a process: requests to AWS are counted in threads that know no session.
static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);

/// Counts from now on. The first call of a process decides where.
pub fn begin(place: CountsPlace) {
    COUNTS.lock().get_or_insert_with(|| Counts { place, sums: Sums::default(), written: Instant::now() });
}

/// `true` when the operator asks for metrics.
pub fn is_on() -> bool {
    COUNTS.lock().is_some()
}

/// `true` when the operator asks for the paths of projects among the labels.
pub fn shows_projects() -> bool {
    COUNTS.lock().as_ref().is_some_and(|counts| counts.place.by_project)
}

/// Adds to a counter.
pub fn add(metric: &Metric, labels: &[&str], amount: f64) {
    change(|sums| sums.add(metric, labels, amount));
}

/// Adds a value to a histogram.
pub fn observe(metric: &Metric, labels: &[&str], value: f64) {
    change(|sums| sums.observe(metric, labels, value));
}

fn change(change: impl FnOnce(&mut Sums)) {
    let due = {
        let mut counts = COUNTS.lock();
        let Some(counts) = counts.as_mut() else { return };
        change(&mut counts.sums);
        if counts.written.elapsed() < WRITTEN_EVERY {
            return;
        }
        take(counts)
    };
    // The log has it.
    let _ = write(due);
}

/// Brings the counts of this process to the disk, and writes the file anew.
///
/// # Errors
/// The place that cannot be written; the log has it already. Metrics fail no job and no command.
pub fn flush() -> Result<(), Unwritten> {
    let due = {
        let mut counts = COUNTS.lock();
        let Some(counts) = counts.as_mut() else { return Ok(()) };
        take(counts)
    };
    write(due)
}

fn take(counts: &mut Counts) -> (CountsPlace, Sums) {
    counts.written = Instant::now();
    (counts.place.clone(), std::mem::take(&mut counts.sums))
}

/// The file of counts `file` becomes part of the sums in one rename, under a `name` that nothing else has. Without metrics it is removed.
///
/// # Errors
/// Errors are the system's. The file is where it was then.
pub fn adopt(file: &Path, name: &str) -> std::io::Result<()> {
    let place = COUNTS.lock().as_ref().map(|counts| counts.place.clone());
    match place {
        Some(place) => spool::adopt(&place, file, name),
        None => std::fs::remove_file(file),
    }
}

/// Without the lock: the disk may be slow. The log is told once a process.
fn write((place, sums): (CountsPlace, Sums)) -> Result<(), Unwritten> {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    let written = spool::write(&place, &sums);
    if let Err(unwritten) = &written
        && !IS_TOLD.swap(true, Ordering::Relaxed)
    {
        let Unwritten { key, path, error } = unwritten;
        tracing::warn!(%error, file = %path.display(), key, "failed to write the metrics");
    }
    written
}
