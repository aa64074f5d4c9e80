//! The workspace: the project directory on its way to the training container, and what later stages read on its way back.
//!
//! The interface says *what* moves; how (content-defined chunks in packs, and a manifest in parts, see
//! `docs/WIRE-FORMATS.md`) is private. On the way up everything travels as it is. On the way back nothing a container says is trusted: the host
//! checks all of it before it changes anything, writes through no link, and never writes into `.git`. This module
//! knows no session, no job and no AWS.

mod artifacts;
mod asked;
pub mod below;
mod chunk;
mod compression;
mod depot;
mod entry;
mod env_lines;
mod expansion;
mod fetching;
mod files_cache;
mod git_stat;
mod glob;
mod known;
mod pack;
mod part;
mod pattern;
mod placing;
mod reading;
mod restore;
mod selection;
mod sending;
mod source;
mod staging;
mod summary;
mod tree;
mod upkeep;
mod view;
mod walking;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::cloud::{CloudError, ObjectStore};
use crate::protocol::keys::Route;
use crate::protocol::project::{Selection, Trees};
pub use summary::Summary;
pub use upkeep::{Next, make_cache_usable, make_usable, remove_temporary};

use entry::{Entry, Mark, Place};
use files_cache::FilesCache;
use known::Known;
use placing::Placing;
use source::{Job, Source, Unsteady};
use staging::Staging;
use tree::Root;
use warnings::Warnings;

impl Trees {
    fn open(&self, path: &Path) -> anyhow::Result<Option<Root>> {
        self.base.as_ref().map_or_else(|| Root::open(path), |base| Root::open_below(base, path))
    }

    fn create(&self, path: &Path) -> anyhow::Result<Root> {
        self.base.as_ref().map_or_else(|| Root::create(path), |base| Root::create_below(base, path))
    }
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

/// What may come back from a container.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// What the job asks for: the host's own, never one that came from a container.
    pub selection: &'a Selection,
    pub limits: &'a Limits,
}

/// What was there when the workspace arrived; [`send_changes`] finds what changed since.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    marks: Arc<HashMap<(Place, Vec<u8>), Mark>>,
}

/// Whether all of a transfer is known to be in the store.
#[derive(Debug, Clone, Default)]
pub struct AllSent(Arc<AtomicBool>);

impl AllSent {
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How far a transfer is, for whoever shows it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// Threads that write.
    busy: AtomicU64,
    has_arrived: AtomicBool,
    total: AtomicU64,
    content: AtomicU64,
    transferred: AtomicU64,
}

impl Progress {
    /// Until nothing of a transfer that nobody waits for any more is written: its threads end at their next look.
    pub async fn at_rest(&self) {
        while self.busy.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All of it was received; what is left is to apply it, and that is better not ended.
    pub fn has_arrived(&self) -> bool {
        self.has_arrived.load(Ordering::Acquire)
    }

    /// A thread writes until the value is dropped.
    fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    fn found(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.content.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.transferred.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of content that are known of.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes of content that have travelled, or did not need to.
    pub fn content(&self) -> u64 {
        self.content.load(Ordering::Relaxed)
    }

    /// Bytes that went through the object store.
    pub fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }
}

struct Busy(Arc<Progress>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A pack is not in the store although the manifest counts on it, as after its expiry: sending again mends it.
#[derive(Debug, thiserror::Error)]
#[error("the object {uri} does not exist")]
pub struct MissingPacks {
    pub uri: String,
}

/// A chunk is not what its name says: somebody, or a fault, changed the pack.
#[derive(Debug, thiserror::Error)]
#[error("the chunk {chunk} in the pack {pack} is damaged")]
pub struct Damaged {
    /// Hexadecimal.
    pub pack: String,
    pub chunk: String,
}

/// Host: sends both trees. A missing temporary tree is empty. What may hold secrets of the job, the temporary tree and git's
/// configuration, goes into private packs. Chunks that the store has below the route's packs are not sent. `cache` is a directory of
/// this host that remembers which ones those are, and what the project's files held the last time; it may be lost or wrong. `now` is the
/// time of day, by which packs become too old to count on.
///
/// A receiver may work at the same time. Fails, naming the file, when one cannot be read or keeps changing.
pub async fn send(
    store: &dyn ObjectStore,
    route: &Route,
    trees: &Trees,
    cache: &Path,
    now: SystemTime,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    let sent = async {
        let roots = Roots::open(trees)?;
        let (indexes, notes, project) = (cache.join(INDEXES), cache.join("files"), trees.project.clone());
        let files = on_thread(move |_| Ok(Arc::new(FilesCache::open(&notes, &project))));
        let (known, files) = tokio::join!(Known::look(store, &route.packs, &indexes, now), files);
        let files = files?;
        let job = Job {
            roots,
            source: Source::Trees,
            unsteady: Unsteady::Refuse,
            warnings: Warnings::default(),
            files: files.clone(),
        };
        let summary = sending::send(store, route, job, known, progress).await?;
        on_thread(move |_| {
            files.save();
            Ok(summary)
        })
        .await
    };
    sent.await.context("failed to send the workspace")
}

/// Host: drops a pack that a receiver found [`Damaged`], so that its chunks are sent again by whoever needs them next.
pub async fn forget(store: &dyn ObjectStore, route: &Route, pack: &str, cache: &Path) -> anyhow::Result<()> {
    known::forget(store, &route.packs, pack.parse()?, &cache.join(INDEXES)).await
}

/// Container: receives what [`send`] sends, while it does, and returns the state of every entry for [`send_changes`].
/// Whatever is there already and does not travel stays. It waits for the sender without end: whoever calls ends it, and then
/// waits for [`Progress::at_rest`].
///
/// [`MissingPacks`] and [`Damaged`] are among the causes of its errors.
pub async fn receive(
    store: &dyn ObjectStore,
    route: &Route,
    trees: &Trees,
    progress: &Arc<Progress>,
) -> anyhow::Result<(Snapshot, Summary)> {
    let started = Instant::now();
    let received = async {
        let placing = Arc::new(Placing::new(Roots::create(trees)?));
        let all_sent = AllSent::default();
        let warnings = fetching::fetch(store, route, &all_sent, &Limits::none(), &placing, progress).await?;
        let busy = progress.busy();
        let finish = move |_: &Stop| {
            let _busy = busy;
            placing.finish()
        };
        let (snapshot, mut summary) = on_thread(finish).await?;
        summary.warnings = warnings;
        Ok((snapshot, summary))
    };
    let (snapshot, mut summary): (Snapshot, Summary) =
        received.await.map_err(|error: anyhow::Error| error.context("failed to receive the workspace"))?;
    // File systems tell time in ticks of up to 10 ms: a script that starts within the same tick could change a file
    // without a trace.
    tokio::time::sleep(Duration::from_millis(12)).await;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok((snapshot, summary))
}

/// Container: finds what changed since `snapshot`, keeps what `selection` wants, and sends it.
///
/// Deletions are changes; a project directory that is gone, or is no directory any more, is empty. Nothing in a `.git` goes back, and of the temporary tree only `gitlab_runner_env`.
/// A file that changes while it is read goes back as it was read, with a warning.
pub async fn send_changes(
    store: &dyn ObjectStore,
    route: &Route,
    trees: &Trees,
    snapshot: &Snapshot,
    selection: &Selection,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    let (trees, snapshot, selection) = (trees.clone(), snapshot.clone(), selection.clone());
    let sent = async {
        let job = on_thread(move |stop| {
            let mut warnings = Warnings::default();
            let roots = Roots::left(&trees, &mut warnings)?;
            let entries = artifacts::changes(&roots, &snapshot, &selection, &mut warnings, stop)?;
            let files = Arc::default();
            Ok(Job { roots, source: Source::Entries(entries), unsteady: Unsteady::Keep, warnings, files })
        });
        sending::send(store, route, job.await?, Known::nothing(), progress).await
    };
    sent.await.context("failed to send the results of the job")
}

/// Host: fetches what [`send_changes`] sends, while it does, and applies it. When `all_sent` was told, what is missing is an
/// error; before, it is waited for without end.
///
/// Everything is fetched into `staging` (a directory that need not exist, best on the file system of the trees) and checked
/// first, contents included: on an offending entry the error names it and the host's trees are as they were. Only a
/// failing disk can end in between. A call that was cut short leaves `staging`, and the next one goes on from it.
/// What the selection does not ask for, by the host's own search, is not applied, with a warning, and so it is with links that lead out of
/// the project unless the selection keeps them.
pub async fn apply_changes(
    store: &dyn ObjectStore,
    route: &Route,
    trees: &Trees,
    bounds: Bounds<'_>,
    all_sent: &AllSent,
    staging: &Path,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (trees, selection, limits) = (trees.clone(), bounds.selection.clone(), bounds.limits);
    let applied = async {
        let staging = Arc::new(Staging::open(staging)?);
        let warnings = match fetching::fetch(store, route, all_sent, limits, &staging, progress).await {
            Ok(warnings) => warnings,
            Err(error) => {
                // Of use to another try alone.
                if !CloudError::may_pass(&error) {
                    staging.remove();
                }
                return Err(error);
            }
        };
        progress.has_arrived.store(true, Ordering::Release);
        let busy = progress.busy();
        on_thread(move |stop| {
            let _busy = busy;
            let applied = artifacts::apply(&staging, &trees, &selection, warnings, stop);
            // Applied or refused, it is of no more use.
            staging.remove();
            applied
        })
        .await
    };
    let mut summary: Summary =
        applied.await.map_err(|error: anyhow::Error| error.context("failed to bring back the results of the job"))?;
    summary.sent = progress.transferred();
    summary.elapsed = started.elapsed();
    Ok(summary)
}

const FEWER: &str = "select less with the job's `artifacts` and `cache` paths, or ask the operator for a higher limit";

fn too_many(limits: &Limits) -> anyhow::Error {
    let message = format!("there are more than {} entries, which are the most that may come", limits.max_files);
    Failure::user(message).hint(FEWER).into()
}

fn too_large(entry: &Entry, limits: &Limits) -> anyhow::Error {
    let name = entry::shown(&entry.path);
    let message = format!("with {name} the content exceeds the {} bytes that may come", limits.max_bytes);
    Failure::user(message).hint(FEWER).into()
}

/// How long a call is tried again that may well succeed later, as under throttling; the SDK's own tries come first.
const PATIENCE: Duration = Duration::from_mins(2);

/// Calls until there is an answer.
async fn persist<T, F>(mut call: impl FnMut() -> F) -> Result<T, CloudError>
where
    F: Future<Output = Result<T, CloudError>>,
{
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        match call().await {
            Err(error) if error.kind.may_pass() && started.elapsed() < PATIENCE => {
                tracing::debug!(%error, "a transfer's call is tried again");
            }
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Where in a host's directory for one project its copies of the packs' indexes are.
const INDEXES: &str = "indexes";

/// Both trees, open.
struct Roots {
    path: PathBuf,
    /// `None` in a container alone, whose script has removed it.
    project: Option<Root>,
    tmp: Option<Root>,
}

impl Roots {
    fn open(trees: &Trees) -> anyhow::Result<Self> {
        let project = trees
            .open(&trees.project)?
            .with_context(|| format!("the project directory {} does not exist", trees.project.display()))?;
        Ok(Self { path: trees.project.clone(), project: Some(project), tmp: trees.open(&trees.tmp)? })
    }

    fn create(trees: &Trees) -> anyhow::Result<Self> {
        let (project, tmp) = (trees.create(&trees.project)?, trees.create(&trees.tmp)?);
        Ok(Self { path: trees.project.clone(), project: Some(project), tmp: Some(tmp) })
    }

    /// What a script has left of them: a directory that it removed, or put something else in the place of, is empty.
    fn left(trees: &Trees, warnings: &mut Warnings) -> anyhow::Result<Self> {
        let project = Root::left(&trees.project)?;
        if project.is_none() {
            warnings.add(format!(
                "{} is no directory any more: the script removed or replaced it, so its files count as deleted",
                trees.project.display()
            ));
        }
        Ok(Self { path: trees.project.clone(), project, tmp: Root::left(&trees.tmp)? })
    }

    fn project(&self) -> anyhow::Result<&Root> {
        self.project.as_ref().with_context(|| format!("the project directory {} does not exist", self.path.display()))
    }

    fn get(&self, place: Place) -> Option<&Root> {
        match place {
            Place::Project => self.project.as_ref(),
            Place::Tmp => self.tmp.as_ref(),
        }
    }

    fn project_bytes(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }
}

/// Tells work on another thread that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.load(Ordering::Relaxed), "the transfer was canceled");
        Ok(())
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
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
