//! The workspace: the project directory on its way to the training container, and what later stages read on its way back.
//!
//! The interface says *what* moves; how (today one compressed pack per direction, see `docs/WIRE-FORMATS.md`) is
//! private. On the way up everything travels as it is. On the way back nothing a container says is trusted: the host
//! checks all of it before it changes anything, writes through no link, and never writes into `.git`. This module
//! knows no session, no job and no AWS.

mod artifacts;
mod entry;
mod pack;
mod restore;
mod selection;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cloud::ObjectStore;
use crate::failure::Failure;
pub use selection::Selection;

use entry::{Entry, Kind, Mark, Place};
use tree::Root;

/// The trees that travel: the project directory and, beside it, its temporary directory `<project>.tmp`. Absolute, and
/// the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    pub project: PathBuf,
    pub tmp: PathBuf,
}

/// How much a container may send back. The operator sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of uncompressed content. Default 100 GiB.
    pub max_bytes: u64,
    /// Entries: files, directories, links and deletions. Default 1,000,000.
    pub max_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 100 << 30, max_files: 1_000_000 }
    }
}

impl Limits {
    /// For what comes from the host itself.
    fn none() -> Self {
        Self { max_bytes: u64::MAX, max_files: u64::MAX }
    }
}

/// What one transfer did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files and links.
    pub files: u64,
    /// Deletions, on the way back.
    pub deleted: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes that went through the object store.
    pub sent: u64,
    pub elapsed: Duration,
    /// What did not travel, and why; a line each, safe to print, at most 101 lines.
    pub warnings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {}", self.files, Bytes(self.bytes))?;
        if self.deleted > 0 {
            write!(f, ", {} deleted", self.deleted)?;
        }
        write!(f, " ({} transferred) in {:.1} s", Bytes(self.sent), self.elapsed.as_secs_f64())?;
        match self.warnings.len() {
            0 => Ok(()),
            1 => write!(f, ", 1 warning"),
            more => write!(f, ", {more} warnings"),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut tenths = self.0 / 100;
        let mut unit = 0;
        while tenths >= 10_000 && unit + 1 < UNITS.len() {
            tenths /= 1000;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// What was there when the workspace arrived; [`send_changes`] finds what changed since.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    marks: Arc<HashMap<(Place, Vec<u8>), Mark>>,
}

/// Host: packs both trees and uploads them under the key prefix `key`. A missing temporary tree is empty.
///
/// Fails, naming the file, when one cannot be read or keeps changing. `scratch` is a directory with room for the pack.
pub async fn send(store: &dyn ObjectStore, key: &str, trees: &Trees, scratch: &Path) -> anyhow::Result<Summary> {
    let work = {
        let trees = trees.clone();
        move |pack: &Path, stop: &Stop| {
            let mut warnings = Warnings::default();
            let roots = Roots::open(&trees)?;
            let entries = restore::list_all(&roots, &mut warnings, stop)?;
            write_pack(pack, &roots, &entries, restore::Unsteady::Refuse, warnings, stop)
        }
    };
    upload(store, key, scratch, work).await.context("failed to send the workspace")
}

/// Container: fetches and unpacks what [`send`] stored, and returns the state of every entry for [`send_changes`].
/// Whatever is there already and does not travel stays.
pub async fn receive(
    store: &dyn ObjectStore,
    key: &str,
    trees: &Trees,
    scratch: &Path,
) -> anyhow::Result<(Snapshot, Summary)> {
    let work = {
        let trees = trees.clone();
        move |pack: &Path, stop: &Stop| {
            let roots = Roots { project: Root::create(&trees.project)?, tmp: Some(Root::create(&trees.tmp)?) };
            let mut reader = pack::Reader::new(open(pack)?, &Limits::none())?;
            let entries = reader.manifest()?;
            let everything = vec![true; entries.len()];
            let mut summary = Summary::default();
            let marks =
                restore::write(&mut reader, &entries, &everything, &roots, restore::Manner::Fresh, &mut summary, stop)?;
            summary.warnings = reader.finish()?;
            Ok((Snapshot { marks: Arc::new(marks) }, summary))
        }
    };
    let received = download(store, key, scratch, work).await.context("failed to receive the workspace")?;
    // File systems tell time in ticks of up to 10 ms: a script that starts within the same tick could change a file
    // without a trace.
    tokio::time::sleep(Duration::from_millis(12)).await;
    Ok(received)
}

/// Container: finds what changed since `snapshot`, keeps what `selection` wants, and uploads it under the key prefix `key`.
///
/// Deletions are changes. Nothing in a `.git` goes back, and of the temporary tree only `gitlab_runner_env`.
/// A file that changes while it is read goes back as it was read, with a warning.
pub async fn send_changes(
    store: &dyn ObjectStore,
    key: &str,
    trees: &Trees,
    snapshot: &Snapshot,
    selection: &Selection,
    scratch: &Path,
) -> anyhow::Result<Summary> {
    let work = {
        let (trees, snapshot, selection) = (trees.clone(), snapshot.clone(), selection.clone());
        move |pack: &Path, stop: &Stop| {
            let mut warnings = Warnings::default();
            let roots = Roots::open(&trees)?;
            let entries = artifacts::changes(&roots, &snapshot, &selection, &mut warnings, stop)?;
            write_pack(pack, &roots, &entries, restore::Unsteady::Keep, warnings, stop)
        }
    };
    upload(store, key, scratch, work).await.context("failed to send the results of the job")
}

/// Host: fetches what [`send_changes`] stored and applies it.
///
/// Everything is checked first, contents included: on an offending entry the error names it and the host's trees are
/// as they were. Only a failing disk can end in between. Links that point outside the project are left out with a warning.
pub async fn apply_changes(
    store: &dyn ObjectStore,
    key: &str,
    trees: &Trees,
    limits: &Limits,
    scratch: &Path,
) -> anyhow::Result<Summary> {
    let work = {
        let (trees, limits) = (trees.clone(), limits.clone());
        move |pack: &Path, stop: &Stop| artifacts::apply(pack, &trees, &limits, stop)
    };
    download(store, key, scratch, work).await.context("failed to bring back the results of the job")
}

/// The one object below `key` of this version.
fn object(key: &str) -> String {
    format!("{key}/pack")
}

async fn upload(
    store: &dyn ObjectStore,
    key: &str,
    scratch: &Path,
    work: impl FnOnce(&Path, &Stop) -> anyhow::Result<Summary> + Send + 'static,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let folder = folder(scratch)?;
    let pack = folder.path().join("pack");
    let mut summary = on_thread({
        let pack = pack.clone();
        move |stop| work(&pack, stop)
    })
    .await?;
    store.put_file(&object(key), &pack).await?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

async fn download<T: Finished>(
    store: &dyn ObjectStore,
    key: &str,
    scratch: &Path,
    work: impl FnOnce(&Path, &Stop) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let folder = folder(scratch)?;
    let pack = folder.path().join("pack");
    if !store.get_to_file(&object(key), &pack).await? {
        return Err(Failure::system(format!("the object {} does not exist", store.uri(&object(key))))
            .hint("check that no lifecycle rule of the bucket deletes objects of running jobs")
            .into());
    }
    let sent = std::fs::metadata(&pack).context("failed to look at the fetched pack")?.len();
    let mut done = on_thread(move |stop| work(&pack, stop)).await?;
    let summary = done.summary();
    summary.sent = sent;
    summary.elapsed = started.elapsed();
    Ok(done)
}

trait Finished: Send + 'static {
    fn summary(&mut self) -> &mut Summary;
}

impl Finished for Summary {
    fn summary(&mut self) -> &mut Summary {
        self
    }
}

impl Finished for (Snapshot, Summary) {
    fn summary(&mut self) -> &mut Summary {
        &mut self.1
    }
}

fn folder(scratch: &Path) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("workspace-")
        .tempdir_in(scratch)
        .with_context(|| format!("failed to make a temporary directory in {}", scratch.display()))
}

fn open(pack: &Path) -> anyhow::Result<File> {
    File::open(pack).context("failed to open the fetched pack")
}

fn write_pack(
    pack: &Path,
    roots: &Roots,
    entries: &[Entry],
    unsteady: restore::Unsteady,
    mut warnings: Warnings,
    stop: &Stop,
) -> anyhow::Result<Summary> {
    let file = File::create_new(pack).context("failed to create the pack")?;
    let mut writer = pack::Writer::new(file, entries).context("failed to write the pack")?;
    let mut summary = Summary::default();
    restore::read(&mut writer, entries, roots, unsteady, &mut summary, &mut warnings, stop)?;
    summary.sent = writer.finish(&warnings).context("failed to write the pack")?;
    summary.warnings = warnings.lines();
    Ok(summary)
}

/// Both trees, open.
struct Roots {
    project: Root,
    tmp: Option<Root>,
}

impl Roots {
    fn open(trees: &Trees) -> anyhow::Result<Self> {
        let project = Root::open(&trees.project)?
            .with_context(|| format!("the project directory {} does not exist", trees.project.display()))?;
        Ok(Self { project, tmp: Root::open(&trees.tmp)? })
    }

    fn get(&self, place: Place) -> Option<&Root> {
        match place {
            Place::Project => Some(&self.project),
            Place::Tmp => self.tmp.as_ref(),
        }
    }

    fn project_bytes(&self) -> &[u8] {
        self.project.path.as_os_str().as_bytes()
    }
}

/// Lines for people, not endlessly many.
#[derive(Debug, Default)]
struct Warnings {
    lines: Vec<String>,
    more: u64,
}

impl Warnings {
    const MOST: usize = 100;

    fn add(&mut self, line: String) {
        if self.lines.len() < Self::MOST {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}

/// Tells work on another thread that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.load(Ordering::Relaxed), "the transfer was canceled");
        Ok(())
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that keeps a processor or a disk busy. When the caller stops waiting, the work ends at its next check.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    tokio::task::spawn_blocking(move || work(&stop)).await.context("the transfer's thread ended early")?
}

/// Counts what one entry adds to a summary, content aside.
fn count(summary: &mut Summary, entry: &Entry) {
    match entry.kind {
        Kind::File | Kind::Link => summary.files += 1,
        Kind::Deleted => summary.deleted += 1,
        Kind::Directory => {}
    }
}
