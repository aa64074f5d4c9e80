//! Brings the counts of many short processes together.
//!
//! Each process puts its counts into a file of its own in the folder `new`. Whoever has the lock adds these files to the totals, notes their
//! names with the totals in one rename, removes them, and writes the file for Prometheus. Nobody waits for the lock: its holder looks once
//! more when it has let go. A process that is killed anywhere leaves files that the next one adds, and none that it adds twice.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::catalog::UNREADABLE;
use super::sample::Sums;
use super::text;
use crate::base::files::{self, Durability};

/// Most files that are added at once.
const MOST_AT_ONCE: usize = 5000;
/// Longest file of counts; those of this program have some KB.
const LONGEST: u64 = 4 << 20;
/// Times that the holder of the lock looks for files that came while it had it.
const LOOKS: usize = 20;

/// Where the counts are, and the file that they go to.
#[derive(Debug, Clone)]
pub struct CountsPlace {
    /// `metrics` in `runner.state_dir`.
    pub folder: PathBuf,
    /// The file for Prometheus.
    pub file: PathBuf,
    /// The folder with one note for each job of this host.
    pub jobs: PathBuf,
    /// The paths of projects are among the labels.
    pub by_project: bool,
}

impl CountsPlace {
    pub(super) fn new_files(&self) -> PathBuf {
        self.folder.join("new")
    }
}

/// Counts or a file of metrics that could not be written.
#[derive(Debug)]
pub struct Unwritten {
    /// The key of the operator's file for `path`.
    pub key: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "failed to write the metrics into {}: {}", self.path.display(), self.error)
    }
}

/// The sums of all processes so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Totals {
    sums: Sums,
    /// Names of the files that were added last: those of them that are still there are not added again.
    added: Vec<String>,
}

/// Brings the counts of a process to the disk, and writes the file for Prometheus.
pub(super) fn write(place: &CountsPlace, sums: &Sums) -> Result<(), Unwritten> {
    let of_folder = |error| Unwritten { key: "runner.state_dir", path: place.folder.clone(), error };
    put(place, sums).map_err(of_folder)?;
    // The totals have the counts whatever becomes of the file.
    let of_file = |error| Unwritten { key: "metrics.file", path: place.file.clone(), error };
    fold(place).map_err(of_folder)?.map_err(of_file)
}

/// Stores the counts of this process. Does nothing without any.
fn put(place: &CountsPlace, sums: &Sums) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if sums.is_empty() {
        return Ok(());
    }
    make(&place.new_files())?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}-{:016x}.json", std::process::id(), fastrand::u64(..));
    files::replace(&place.new_files().join(name), &serde_json::to_vec(sums)?, Durability::Eventual)
}

/// Stores counts that another file holds, under a name that nothing else has: the file moves as it is.
pub(super) fn adopt(place: &CountsPlace, file: &Path, name: &str) -> io::Result<()> {
    make(&place.new_files())?;
    fs::rename(file, place.new_files().join(format!("{name}.json")))
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Adds what is new to the totals and writes the file, unless another process does. The inner result is that of the file.
fn fold(place: &CountsPlace) -> io::Result<io::Result<()>> {
    make(&place.folder)?;
    let (mut before, mut written) = (Vec::new(), Ok(()));
    for _ in 0..LOOKS {
        let lock = File::options().create(true).append(true).open(place.folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => written = fold_locked(place)?,
            Err(TryLockError::WouldBlock) => return Ok(written),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        drop(lock);
        let left = names(place)?;
        if left.is_empty() || left == before {
            break;
        }
        before = left;
    }
    Ok(written)
}

fn fold_locked(place: &CountsPlace) -> io::Result<io::Result<()>> {
    let path = place.folder.join("totals.json");
    let mut totals = read_totals(&path)?;
    let names = names(place)?;
    for name in names.iter().filter(|name| !totals.added.contains(name)) {
        match read_sums(&place.new_files().join(name)) {
            Some(sums) => totals.sums.merge(&sums),
            None => totals.sums.add(&UNREADABLE, &[], 1.0),
        }
    }
    totals.added = names;
    files::replace(&path, &serde_json::to_vec(&totals)?, Durability::Eventual)?;
    let running =
        fs::read_dir(&place.jobs).map_or(0, |entries| entries.flatten().filter(|entry| is_json(&entry.path())).count());
    let written = files::replace_public(&place.file, text::render(&totals.sums, running, place.by_project).as_bytes());
    // A name that cannot be removed, such as that of a folder, is not added again.
    for name in &totals.added {
        let _ = fs::remove_file(place.new_files().join(name));
    }
    Ok(written)
}

/// The totals; new ones when the file is absent or damaged. Prometheus takes that for a restart of the counters.
fn read_totals(path: &Path) -> io::Result<Totals> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_else(|_| {
            let mut totals = Totals::default();
            totals.sums.add(&UNREADABLE, &[], 1.0);
            totals
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Totals::default()),
        Err(error) => Err(error),
    }
}

fn read_sums(path: &Path) -> Option<Sums> {
    serde_json::from_slice(&files::read_small(path, LONGEST).ok()?).ok()
}

/// The files of counts that wait, in order.
fn names(place: &CountsPlace) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(place.new_files()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_name().filter(|_| is_json(&path)).and_then(|name| Some(name.to_str()?.to_owned())));
    }
    names.sort_unstable();
    names.truncate(MOST_AT_ONCE);
    Ok(names)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::JOBS;

    fn place(dir: &Path) -> CountsPlace {
        CountsPlace { folder: dir.join("metrics"), file: dir.join("x.prom"), jobs: dir.join("jobs"), by_project: false }
    }

    fn one() -> Sums {
        let mut sums = Sums::default();
        sums.add(&JOBS, &["succeeded", "none", ""], 1.0);
        sums
    }

    fn jobs(place: &CountsPlace) -> String {
        let text = fs::read_to_string(&place.file).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("sagemaker_executor_jobs_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>().to_string()
    }

    #[test]
    fn counts_of_many_threads_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        write(&place, &one()).unwrap();
                    }
                });
            }
        });
        assert_eq!(jobs(&place), "200");
        assert_eq!(names(&place).unwrap(), Vec::<String>::new());
    }

    /// A process that was killed after the totals were written leaves the files that it has added.
    #[test]
    fn nothing_is_added_twice_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        put(&place, &one()).unwrap();
        let (name, text) = (names(&place).unwrap().remove(0), serde_json::to_vec(&one()).unwrap());
        fold(&place).unwrap().unwrap();
        fs::write(place.new_files().join(name), &text).unwrap();
        put(&place, &one()).unwrap();
        fold(&place).unwrap().unwrap();
        assert_eq!(jobs(&place), "2");
        // Nor is anything lost when it was killed before.
        fs::write(dir.path().join("note"), text).unwrap();
        adopt(&place, &dir.path().join("note"), "job-1").unwrap();
        fs::write(place.folder.join("totals.json.x.tmp"), "{").unwrap();
        fold(&place).unwrap().unwrap();
        assert_eq!(jobs(&place), "3");
    }

    #[test]
    fn a_damaged_file_is_counted_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        make(&place.new_files()).unwrap();
        fs::write(place.new_files().join("1.json"), "").unwrap();
        put(&place, &one()).unwrap();
        fold(&place).unwrap().unwrap();
        let text = fs::read_to_string(&place.file).unwrap();
        assert!(text.contains("sagemaker_executor_unreadable_counts_total 1\n"), "{text}");
        assert_eq!(jobs(&place), "1");
    }

    #[test]
    fn what_cannot_be_removed_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        fs::create_dir_all(place.new_files().join("a.json/full")).unwrap();
        for number in 1..4 {
            put(&place, &one()).unwrap();
            fold(&place).unwrap().unwrap();
            assert_eq!(jobs(&place), number.to_string());
            assert_eq!(names(&place).unwrap(), ["a.json"]);
        }
        let text = fs::read_to_string(&place.file).unwrap();
        assert!(text.contains("sagemaker_executor_unreadable_counts_total 1\n"), "{text}");
    }

    #[test]
    fn a_lock_that_another_process_has_delays_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        put(&place, &one()).unwrap();
        let held = File::options().create(true).append(true).open(place.folder.join("lock")).unwrap();
        held.lock().unwrap();
        fold(&place).unwrap().unwrap();
        assert!(!place.file.exists());
        drop(held);
        fold(&place).unwrap().unwrap();
        assert_eq!(jobs(&place), "1");
    }

    /// The counts wait in the totals, and are in the file once it can be written.
    #[test]
    fn a_file_that_cannot_be_written_is_told_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let place = CountsPlace { file: dir.path().join("absent/x.prom"), ..place(dir.path()) };
        let told = write(&place, &one()).unwrap_err();
        assert_eq!((told.key, &told.path), ("metrics.file", &place.file));
        assert!(told.to_string().starts_with(&format!("failed to write the metrics into {}", place.file.display())));
        fs::create_dir(dir.path().join("absent")).unwrap();
        write(&place, &one()).unwrap();
        assert_eq!(jobs(&place), "2");
        let place = CountsPlace { folder: place.file.clone(), ..place };
        let told = write(&place, &one()).unwrap_err();
        assert_eq!((told.key, told.path), ("runner.state_dir", place.folder));
    }
}
