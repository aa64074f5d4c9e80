//! The session's note on disk: one small versioned file in `runner.state_dir`, replaced atomically.
//!
//! It saves look-ups between the processes of one job and tells `cleanup` what may exist. Losing it costs requests, not
//! jobs: the training job's name is the session id, and everything else can be read again from AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::session::SessionId;
use crate::session::cursor::Cursor;
use crate::workspace::Selection;

const VERSION: u32 = 1;

/// What the next process of the job needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each says that one thing has happened; none excludes another")]
pub struct SessionRecord {
    pub version: u32,
    pub session: String,
    /// [`crate::session::job_key`]: which GitLab job this belongs to.
    pub job_key: String,
    /// The training job's ARN; absent until `CreateTrainingJob` has answered.
    #[serde(default)]
    pub arn: Option<String>,
    /// `CreateTrainingJob` was called and its answer is not known.
    #[serde(default)]
    pub creating: bool,
    #[serde(default)]
    pub instance_type: String,
    /// Number of orders sent.
    #[serde(default)]
    pub orders: u32,
    /// Number of container stages begun.
    #[serde(default)]
    pub runs: u32,
    /// Number of reports read, by node.
    #[serde(default)]
    pub reports: BTreeMap<String, u32>,
    /// `algo-1` ... `algo-n`: their names in the mailbox.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Nodes whose agent has told that it is ready.
    #[serde(default)]
    pub ready: BTreeSet<String>,
    /// Nodes whose agent has left, or ended with the training job.
    #[serde(default)]
    pub left: BTreeSet<String>,
    /// The leader has told that the results are in the store; a report is read once, whoever reads it.
    #[serde(default)]
    pub collected: bool,
    /// When the training job was created: seconds since 1970 by this host's clock.
    #[serde(default)]
    pub created: u64,
    /// The run that is followed, or was when its process was killed.
    #[serde(default)]
    pub current: Option<CurrentRun>,
    /// Nodes whose receipt of the project was told.
    #[serde(default)]
    pub told: BTreeSet<String>,
    /// By log stream, the time (milliseconds since 1970) up to which its events are known.
    #[serde(default)]
    pub log_floors: BTreeMap<String, u64>,
    /// Ids of the newest log events of other writers that were shown.
    #[serde(default)]
    pub shown_events: Vec<String>,
    #[serde(default)]
    pub workspace_sent: bool,
    /// What the container was told that later stages read; what comes back is held against it.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// How often sending was begun.
    #[serde(default)]
    pub workspace_attempt: u32,
    /// `Finish` was sent.
    #[serde(default)]
    pub finished: bool,
    /// The results are in the project directory, or there are none.
    #[serde(default)]
    pub results_applied: bool,
}

/// A script that was ordered and whose end has not been seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentRun {
    pub run: u32,
    pub stage: String,
    /// BLAKE3 of the script, in hex: the same script again is the same run, begun anew by its caller.
    pub script: String,
    /// The order was sent.
    #[serde(default)]
    pub ordered: bool,
    /// The script's exit code, once it is known and only the results are still to be brought back.
    #[serde(default)]
    pub code: Option<i32>,
    /// Number of reports read by node when it began: its own follow.
    #[serde(default)]
    pub reports: BTreeMap<String, u32>,
}

/// The folder of all records of this host.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Makes the folder (mode 0700) when it is missing.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = state_dir.join("sessions");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| not_writable(&dir, error))?;
        Ok(Self { dir })
    }

    fn file(&self, id: &SessionId, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// The record, or `None` when there is none.
    pub fn load(&self, id: &SessionId) -> anyhow::Result<Option<SessionRecord>> {
        let path = self.file(id, "json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read the session record {}", path.display()));
            }
        };
        let record: SessionRecord = serde_json::from_slice(&text)
            .with_context(|| format!("failed to understand the session record {}", path.display()))?;
        anyhow::ensure!(
            record.version <= VERSION,
            "the session record {} has version {}; this program knows {VERSION}",
            path.display(),
            record.version
        );
        Ok(Some(record))
    }

    /// Writes the record whole.
    pub fn save(&self, id: &SessionId, record: &SessionRecord) -> anyhow::Result<()> {
        let path = self.file(id, "json");
        let record = SessionRecord { version: VERSION, session: id.to_string(), ..record.clone() };
        let write = || -> std::io::Result<()> {
            let name = format!("{id}.");
            let mut file = tempfile::Builder::new().prefix(&name).suffix(".tmp").tempfile_in(&self.dir)?;
            file.write_all(&serde_json::to_vec_pretty(&record)?)?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| not_writable(&path, error))
    }

    /// Where results wait to be judged; they may hold the job's secrets. It goes with the session, whatever happens to the
    /// process. What is to lie in it is made by whoever uses it.
    pub fn staging(&self, id: &SessionId) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = self.file(id, "scratch");
        let made = match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // What is a link now was not made here.
                let is_directory = fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir());
                if is_directory { Ok(()) } else { Err(error) }
            }
            made => made,
        };
        made.map(|()| dir.join("results")).map_err(|error| not_writable(&dir, error))
    }

    /// How far the output of the session's runs was printed.
    pub fn cursor(&self, id: &SessionId, run: u32) -> anyhow::Result<Cursor> {
        let path = self.file(id, "cursor");
        Cursor::open(&path, run).map_err(|error| not_writable(&path, error))
    }

    /// Forgets the session: its record and every other file of it, those too that a killed stage left.
    pub fn remove(&self, id: &SessionId) -> anyhow::Result<()> {
        let scratch = self.file(id, "scratch");
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_writable(&scratch, error)),
            _ => {}
        }
        let own = format!("{id}.");
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|error| not_writable(&self.dir, error))? {
            let entry = entry.map_err(|error| not_writable(&self.dir, error))?;
            if entry.file_name().as_encoded_bytes().starts_with(own.as_bytes()) {
                paths.push(entry.path());
            }
        }
        for path in paths {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_writable(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Time since the record was written last; `None` when there is none.
    pub fn untouched_for(&self, id: &SessionId) -> anyhow::Result<Option<Duration>> {
        let path = self.file(id, "json");
        match fs::metadata(&path).and_then(|meta| meta.modified()) {
            // A clock that was set back makes it fresh, which is the safe side.
            Ok(modified) => Ok(Some(modified.elapsed().unwrap_or_default())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to look at {}", path.display())),
        }
    }

    /// Sessions that have a record, for sweeps.
    pub fn sessions(&self) -> anyhow::Result<Vec<SessionId>> {
        let entries = fs::read_dir(&self.dir).with_context(|| format!("failed to read {}", self.dir.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<_> = names.filter_map(|name| SessionId::parse(name.strip_suffix(".json")?)).collect();
        ids.sort();
        Ok(ids)
    }

    /// Takes the session's lock while a container stage lives; `None` when another process holds it.
    pub fn lock(&self, id: &SessionId) -> anyhow::Result<Option<File>> {
        let path = self.file(id, "lock");
        let file = File::options().create(true).append(true).open(&path).map_err(|error| not_writable(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(not_writable(&path, error)),
        }
    }

    /// Tells a stage that may still live that the session is being closed.
    pub fn mark_closing(&self, id: &SessionId) -> anyhow::Result<()> {
        let path = self.file(id, "closing");
        fs::write(&path, b"").map_err(|error| not_writable(&path, error))
    }

    pub fn is_closing(&self, id: &SessionId) -> bool {
        self.file(id, "closing").exists()
    }
}

fn not_writable(path: &Path, error: std::io::Error) -> anyhow::Error {
    Failure::system(format!("failed to write {}", path.display()))
        .hint("make `runner.state_dir` a directory that the runner's user can write")
        .caused_by(error)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
        assert_eq!(records.load(&id).unwrap(), None);
        let record = SessionRecord { job_key: "k".into(), runs: 1, ..SessionRecord::default() };
        records.save(&id, &record).unwrap();
        let loaded = records.load(&id).unwrap().unwrap();
        assert_eq!((loaded.job_key.as_str(), loaded.runs, loaded.version), ("k", 1, VERSION));
        assert_eq!(records.sessions().unwrap(), std::slice::from_ref(&id));
        // A stage that was killed leaves its packs, and a record that is half written.
        let left = records.staging(&id).unwrap();
        fs::create_dir(&left).unwrap();
        fs::write(records.file(&id, "Xy12.tmp"), "{").unwrap();
        records.remove(&id).unwrap();
        assert!(!left.exists());
        assert_eq!(fs::read_dir(&records.dir).unwrap().count(), 0);
        records.remove(&id).unwrap();
        assert!(records.sessions().unwrap().is_empty());
    }

    #[test]
    fn one_stage_at_a_time_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
        let held = records.lock(&id).unwrap();
        assert!(held.is_some());
        assert!(records.lock(&id).unwrap().is_none());
        drop(held);
        assert!(records.lock(&id).unwrap().is_some());
    }

    #[test]
    fn a_record_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
        fs::write(records.file(&id, "json"), r#"{"version": 9, "session": "x", "job_key": "k"}"#).unwrap();
        assert!(records.load(&id).unwrap_err().to_string().contains("version 9"));
    }
}
