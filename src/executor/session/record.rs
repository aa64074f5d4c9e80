//! Session records on disk: one small versioned JSON file per session in `runner.state_dir`, replaced atomically.
//!
//! A record saves requests between the processes of one job, and tells `cleanup` which resources may exist. Losing it
//! costs requests, not jobs: the names of the training jobs follow from the session id, and everything else can be read
//! again from AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::base::failure::Failure;
use crate::base::files::{self, Durability};
use crate::base::node::{NodeId, Nodes};
use crate::protocol::keys::SessionPlace;
use crate::protocol::project::Selection;
use crate::session::current_run::CurrentRun;
use crate::session::cursor::Cursor;
use crate::session::figures::JobFigures;
use crate::session::id::SessionId;
use crate::session::node_record::{self, NodeRecord};
use crate::session::pool_match::WarmPools;
use crate::session::requested_job::RequestedJob;
use crate::session::restarts::Restarts;
use crate::session::stage_jobs::StageJobs;
use crate::session::stamp::Stamp;

const VERSION: u32 = 2;
/// Of a session without a place: a version before this began it, and may go on with it.
const VERSION_WITHOUT_PLACE: u32 = 1;
/// Upper bound of every count; real ones stay far below ...
const MOST: u32 = 1_000_000_000;
/// ... and of every time: the year 9999.
const LATEST: u64 = 253_402_300_800;

/// The saved form of a [`SessionState`](crate::session::state::SessionState), for the next process of the job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each says that one thing has happened; none excludes another")]
pub struct SessionRecord {
    pub version: u32,
    pub session: String,
    /// [`crate::session::job_key`]: the GitLab job that the record belongs to.
    pub job_key: String,
    /// Absent in a session that a version without it began, and until `prepare` is about to use it.
    #[serde(default)]
    pub place: Option<SessionPlace>,
    /// [`crate::session::project_scope`] of the job; absent in a session that a version without it began.
    #[serde(default)]
    pub scope: Option<String>,
    /// Short token of the runner and its number for the job: two jobs at once with one such pair have two runner processes.
    #[serde(default)]
    pub runner_slot: Option<String>,
    /// The training job's ARN; absent until `CreateTrainingJob` has answered.
    #[serde(default)]
    pub arn: Option<String>,
    /// `CreateTrainingJob` was called and its answer is unknown.
    #[serde(default)]
    pub creating: bool,
    /// Key prefix of the agent's files, the same for all training jobs of the session.
    #[serde(default)]
    pub agent: String,
    /// When `CreateTrainingJob` was last called.
    #[serde(default)]
    pub requested: Option<Stamp>,
    /// Number of the current training job in the session, from 1: the first has the session's name, each further one a
    /// name of its own ([`crate::session::spec::job_name`]).
    #[serde(default)]
    pub job_number: u32,
    #[serde(default)]
    pub instance_type: String,
    /// Instance types to request next if this one is refused, in order.
    #[serde(default)]
    pub types_left: Vec<String>,
    /// Instance types that were refused or had no capacity, each with the reason.
    #[serde(default)]
    pub types_tried: Vec<String>,
    /// Instance types that were refused because others use their quota, before another type was granted.
    #[serde(default)]
    pub types_waiting: Vec<String>,
    /// The same type was requested once more after an internal error of SageMaker.
    #[serde(default)]
    pub repeated: bool,
    /// Others use the quota of the job's instance types, so no training job is requested yet.
    #[serde(default)]
    pub queued: Option<Queued>,
    #[serde(default)]
    pub warm_pools: Option<WarmPools>,
    /// Present when the training jobs have no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_jobs: Option<StageJobs>,
    /// Number of orders sent.
    #[serde(default)]
    pub orders: u32,
    /// Number of container stages begun.
    #[serde(default)]
    pub runs: u32,
    #[serde(flatten, with = "node_record")]
    pub nodes: Nodes<NodeRecord>,
    /// The leader has reported that the results are in the store; each report is read only once.
    #[serde(default)]
    pub collected: bool,
    #[serde(default)]
    pub restarts: Restarts,
    /// The nodes that had files in `/opt/ml/model` when their last script ended.
    #[serde(default)]
    pub models: BTreeSet<NodeId>,
    /// SageMaker has uploaded the model, and nothing of it is left to do.
    #[serde(default)]
    pub model_settled: bool,
    /// The current training job as it was requested.
    #[serde(default)]
    pub request: RequestedJob,
    /// When the training job was created: seconds since 1970 by this host's clock.
    #[serde(default)]
    pub created: u64,
    /// The run that is followed, or was followed by a process that was killed.
    #[serde(default)]
    pub current: Option<CurrentRun>,
    /// By log stream, the time (milliseconds since 1970) up to which its events are known.
    #[serde(default)]
    pub log_floors: BTreeMap<String, u64>,
    /// Ids of the newest printed log events of other writers.
    #[serde(default)]
    pub shown_events: Vec<String>,
    /// Bytes of other writers' text that were printed.
    #[serde(default)]
    pub foreign_bytes: u64,
    #[serde(default)]
    pub workspace_sent: bool,
    /// Paths that later stages read, as sent to the container; received results are checked against it.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// Number of attempts to send the project.
    #[serde(default)]
    pub workspace_attempt: u32,
    /// The training job was stopped before any script began: no stage waits for it.
    #[serde(default)]
    pub given_up: bool,
    /// When `cleanup` had finished all but waiting for the training job's end.
    #[serde(default)]
    pub leaving: Option<Stamp>,
    /// The reason of the training job's loss was printed.
    #[serde(default)]
    pub loss_told: bool,
    /// The order `Finish` was sent.
    #[serde(default)]
    pub finished: bool,
    /// The results are in the project directory, or there are none.
    #[serde(default)]
    pub results_applied: bool,
    /// The results were lost with the training job.
    #[serde(default)]
    pub results_lost: Option<LostResults>,
    #[serde(default)]
    pub figures: JobFigures,
}

impl SessionRecord {
    /// `true` when all numbers are small enough to count on from.
    fn is_possible(&self) -> bool {
        let counts = [self.job_number, self.orders, self.runs, self.workspace_attempt];
        let mut counts = counts.into_iter().chain(self.nodes.rows().map(|node| node.reports));
        counts.all(|count| count < MOST) && self.created < LATEST && self.request.most_seconds < LATEST
    }
}

/// A job without a training job, because others use the quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Types that SageMaker may grant later, in order of preference.
    pub types: Vec<String>,
    pub since: Stamp,
}

/// Results lost with the training job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostResults {
    pub why: String,
    /// A retry would lose them too.
    pub by_job: bool,
}

/// The directory of all records of this host.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Opens the directory, and makes it (mode 0700) when it is missing.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let records = Self::at(state_dir);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&records.dir);
        made.map_err(|error| not_writable(&records.dir, error))?;
        Ok(records)
    }

    /// Uses the directory as it is, for a pass that must go on when nothing can be written. It may be absent.
    pub fn at(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("sessions") }
    }

    pub(super) fn file(&self, id: &SessionId, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// Reads the record; `None` when there is none.
    pub fn load(&self, id: &SessionId) -> anyhow::Result<Option<SessionRecord>> {
        let path = self.file(id, "json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read the session record {}", path.display()));
            }
        };
        let unusable = |why: &str| {
            Failure::system(format!("the session record {} {why}", path.display())).hint(
                "leave `runner.state_dir` as it is while jobs run, and do not go back to an older program between the stages of a job; \
                 `cleanup` ends the training job all the same",
            )
        };
        if text.is_empty() {
            return Err(unusable("is empty").into());
        }
        // Checks the version first: the record of a newer program may not fit the fields below.
        let version = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok()?.get("version")?.as_u64();
        if let Some(version) = version(&text).filter(|version| *version > VERSION.into()) {
            return Err(unusable(&format!("has version {version}; this program knows {VERSION}")).into());
        }
        // Without serde's text, which repeats values: one may be the session's key.
        let record: SessionRecord = serde_json::from_slice(&text).map_err(|_| unusable("cannot be understood"))?;
        if !record.is_possible() {
            return Err(unusable("holds impossible numbers").into());
        }
        Ok(Some(record))
    }

    /// Replaces the record atomically.
    pub fn save(&self, id: &SessionId, record: &SessionRecord) -> anyhow::Result<()> {
        self.write(id, record, Durability::Eventual)
    }

    /// Removes all files of the session but those that a later pass needs: the record and the closing mark.
    pub fn keep_record_alone(&self, id: &SessionId) -> anyhow::Result<()> {
        let kept = [self.file(id, "json"), self.file(id, "closing")];
        self.remove_but(id, &kept)
    }

    /// Replaces the record atomically and durably, so that it survives a power failure.
    pub fn save_for_good(&self, id: &SessionId, record: &SessionRecord) -> anyhow::Result<()> {
        self.write(id, record, Durability::Synced)
    }

    fn write(&self, id: &SessionId, record: &SessionRecord, durability: Durability) -> anyhow::Result<()> {
        let path = self.file(id, "json");
        let version = if record.place.is_some() { VERSION } else { VERSION_WITHOUT_PLACE };
        let record = SessionRecord { version, session: id.to_string(), ..record.clone() };
        let text = serde_json::to_vec_pretty(&record).context("failed to encode the session record")?;
        files::replace(&path, &text, durability).map_err(|error| not_writable(&path, error))
    }

    /// Directory where results wait to be checked; they may hold the job's secrets. It is removed with the session,
    /// even after a kill. The caller makes the directory inside it.
    pub fn staging(&self, id: &SessionId) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = self.file(id, "scratch");
        let made = match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // A link was not made by this program.
                let is_directory = fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir());
                if is_directory { Ok(()) } else { Err(error) }
            }
            made => made,
        };
        made.map(|()| dir.join("results")).map_err(|error| not_writable(&dir, error))
    }

    /// Opens the print positions of a run on so many nodes, with room for all of them.
    pub fn cursor(&self, id: &SessionId, run: u32, nodes: usize) -> anyhow::Result<Cursor> {
        let path = self.file(id, "cursor");
        let opened = Cursor::open(&path, run).and_then(|cursor| cursor.reserve(nodes).map(|()| cursor));
        opened.map_err(|error| not_writable(&path, error))
    }

    /// Removes the session's files, including those of a killed stage. The record goes last, so that a pass that fails
    /// half-way finds the session again.
    pub fn remove(&self, id: &SessionId) -> anyhow::Result<()> {
        let record = self.file(id, "json");
        self.remove_but(id, std::slice::from_ref(&record))?;
        match fs::remove_file(&record) {
            Err(error) if !is_absent(&error) => Err(not_writable(&record, error)),
            _ => Ok(()),
        }
    }

    fn remove_but(&self, id: &SessionId, kept: &[PathBuf]) -> anyhow::Result<()> {
        let scratch = self.file(id, "scratch");
        match fs::remove_dir_all(&scratch) {
            Err(error) if !is_absent(&error) => return Err(not_writable(&scratch, error)),
            _ => {}
        }
        let paths = self.files(id).map_err(|error| not_writable(&self.dir, error))?;
        for path in paths.into_iter().filter(|path| !kept.contains(path)) {
            match fs::remove_file(&path) {
                Err(error) if !is_absent(&error) => return Err(not_writable(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every file of the session.
    pub(super) fn files(&self, id: &SessionId) -> std::io::Result<Vec<PathBuf>> {
        let own = format!("{id}.");
        let mut paths = Vec::new();
        for name in self.names()? {
            if name.starts_with(&own) {
                paths.push(self.dir.join(name));
            }
        }
        Ok(paths)
    }

    /// Sessions with at least one file here, for sweeps.
    pub fn sessions(&self) -> anyhow::Result<Vec<SessionId>> {
        let names = self.names().with_context(|| format!("failed to read {}", self.dir.display()))?;
        let ids = names.iter().filter_map(|name| SessionId::parse(name.split('.').next()?));
        Ok(ids.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Other sessions of the GitLab job that has this session: earlier attempts. Reads few records, however many there are.
    pub fn attempts(&self, id: &SessionId, job_key: &str) -> anyhow::Result<Vec<SessionId>> {
        let mut others = self.sessions()?;
        others.retain(|other| other != id && other.has_numbers_of(id));
        // One that cannot be read is found by a sweep.
        let is_of_job = |other: &SessionId| self.load(other).ok().flatten().is_some_and(|one| one.job_key == job_key);
        others.retain(is_of_job);
        Ok(others)
    }

    fn names(&self) -> std::io::Result<Vec<String>> {
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
            }
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Takes the session's lock for a container stage; `None` when another process holds it.
    pub fn lock(&self, id: &SessionId) -> anyhow::Result<Option<File>> {
        let path = self.file(id, "lock");
        let file = File::options().create(true).append(true).open(&path).map_err(|error| not_writable(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(not_writable(&path, error)),
        }
    }

    /// Notes that the session's lease was renewed, unless the session has no record any more.
    pub fn note_renewal(&self, id: &SessionId, at: &Stamp) -> anyhow::Result<()> {
        if !self.file(id, "json").exists() {
            return Ok(());
        }
        let path = self.file(id, "lease");
        let text = serde_json::to_vec(at).context("failed to encode a time")?;
        files::replace(&path, &text, Durability::Eventual).map_err(|error| not_writable(&path, error))
    }

    /// When the session's lease was last renewed; `None` when nobody knows.
    pub fn renewed(&self, id: &SessionId) -> Option<Stamp> {
        serde_json::from_slice(&fs::read(self.file(id, "lease")).ok()?).ok()
    }

    /// Marks the session as closing, for a stage that may still run.
    pub fn mark_closing(&self, id: &SessionId) -> anyhow::Result<()> {
        let path = self.file(id, "closing");
        fs::write(&path, b"").map_err(|error| not_writable(&path, error))
    }

    pub fn is_closing(&self, id: &SessionId) -> bool {
        self.file(id, "closing").exists()
    }
}

/// Nothing exists under the name, or a parent is not a directory.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

pub(super) fn not_writable(path: &Path, error: std::io::Error) -> anyhow::Error {
    Failure::system(format!("failed to write {}", path.display()))
        .hint("make `runner.state_dir` a directory that the runner's user can write")
        .caused_by(error)
        .into()
}

#[cfg(test)]
mod tests;
