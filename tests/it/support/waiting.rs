//! Polling with a deadline, the search for programs, and a limit for the number of scenarios at once.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Number of scenarios that run at the same time.
const SCENARIOS_AT_ONCE: usize = 5;
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until there is an answer; `None` after the deadline.
pub(crate) fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause(POLL_INTERVAL);
    }
}

/// Prints a line on standard error, past the test harness's capture.
pub(crate) fn tell(text: &str) {
    use std::io::Write as _;
    // A closed standard error is no failure.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The pause between two polls; never used in place of a poll.
#[expect(clippy::disallowed_methods, reason = "the tests' one pause, always inside a loop with a deadline")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The value of `PATH` of the test process.
#[expect(clippy::disallowed_methods, reason = "tests look for the tools of the machine")]
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

/// The path of a program on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    search_path().split(':').map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file())
}

static GATE: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// A permit to run a scenario; returned when dropped.
pub(crate) struct Place(());

/// Waits until fewer than the allowed number of scenarios run.
pub(crate) fn enter_gate() -> Place {
    let (count, changed) = &GATE;
    let running = count.lock().unwrap();
    let mut running = changed.wait_while(running, |running| *running >= SCENARIOS_AT_ONCE).unwrap();
    *running += 1;
    Place(())
}

impl Drop for Place {
    fn drop(&mut self) {
        let (count, changed) = &GATE;
        if let Ok(mut running) = count.lock() {
            *running -= 1;
        }
        changed.notify_one();
    }
}
