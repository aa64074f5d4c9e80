//! Notes about the jobs of this host for people and metrics: one small file a job in the folder `jobs` of `runner.state_dir`, from the begin of
//! `prepare` to the end of the session. No stage depends on one: a note that cannot be read or written changes nothing for its job.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::files::{self, Durability};
use crate::cloud::TrainingJob;
use crate::config::prices::PriceSource;
use crate::metrics::{self, Sums};
use crate::session::Session;
use crate::session::bill::Bill;
use crate::session::id::SessionId;
use crate::session::phase::InstancePhase;

const VERSION: u32 = 1;
/// Longest file of a note.
const LONGEST: u64 = 1 << 20;
/// Most training jobs of one session whose bills are noted.
const MOST_BILLS: usize = 100;

/// One job. Times are seconds since 1970 by this host's clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobNote {
    pub version: u32,
    pub gitlab: String,
    pub project: String,
    pub job_id: u64,
    pub job_name: String,
    pub pipeline_id: u64,
    pub git_ref: String,
    pub begun: u64,
    /// The stage that runs or ran last, as `prepare` or `run build_script`.
    pub stage: String,
    pub stage_begun: u64,
    /// A failed `after_script` fails the job, by its variable `AFTER_SCRIPT_IGNORE_ERRORS`.
    pub after_script_counts: bool,
    /// That stage has ended by itself.
    pub stage_over: bool,
    /// The last state that SageMaker told of the training job, and its begin.
    pub status: Option<NotedStatus>,
    /// The first stage whose failure fails the job.
    pub failure: Option<NotedFailure>,
    /// Bills of the session's training jobs so far, by their names.
    pub bills: BTreeMap<String, NotedBill>,
}

/// The state of a training job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedStatus {
    pub training_job: String,
    pub phase: String,
    pub since: u64,
    /// When the first instance was up.
    pub billed_since: Option<u64>,
    pub is_spot: bool,
    /// By type and number.
    pub instances: Vec<(String, u32)>,
}

/// The first failure of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedFailure {
    pub stage: String,
    pub reason: FailureReason,
}

/// The class of a failure, as in `docs/EXIT-CODES.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    Script,
    User,
    System,
    Canceled,
}

/// The bill of one training job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NotedBill {
    /// By type and number.
    pub instances: Vec<(String, u32)>,
    pub waited: u64,
    /// Billed seconds of one instance; absent while they are not known.
    pub billable: Option<u64>,
    pub cost: Option<f64>,
    /// `list` or `operator`.
    pub source: Option<String>,
}

impl FailureReason {
    pub fn word(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::User => "user",
            Self::System => "system",
            Self::Canceled => "canceled",
        }
    }
}

impl JobNote {
    /// Result and reason of a job that has ended: labels of the metric. A stage that never ended was killed.
    pub fn result(&self) -> (&'static str, &'static str) {
        match &self.failure {
            Some(NotedFailure { reason: FailureReason::Canceled, .. }) => ("canceled", "canceled"),
            Some(failure) => ("failed", failure.reason.word()),
            None if self.stage != CLEANUP => ("abandoned", "killed"),
            None => ("succeeded", "none"),
        }
    }

    /// Notes that a stage begins. A stage before the cleanup that did not end was killed, which a cancel does after a while.
    pub fn begin_stage(&mut self, stage: &str, now: u64) {
        let was_killed = !self.stage.is_empty() && !self.stage_over && self.stage != stage;
        if stage == CLEANUP && was_killed && self.failure.is_none() {
            self.failure = Some(NotedFailure { stage: self.stage.clone(), reason: FailureReason::Canceled });
        }
        (self.stage, self.stage_begun, self.stage_over) = (stage.to_owned(), now, false);
    }

    /// Notes that the stage ended. GitLab Runner calls some stages again when they fail, as `GET_SOURCES_ATTEMPTS` says: one that succeeds in the
    /// end has not failed. The failures of others fail no job.
    pub fn end_stage(&mut self, failure: Option<FailureReason>) {
        self.stage_over = true;
        match failure {
            None => drop(self.failure.take_if(|before| before.stage == self.stage)),
            Some(reason) if self.failure.is_none() && !self.ignores(reason) => {
                self.failure = Some(NotedFailure { stage: self.stage.clone(), reason });
            }
            Some(_) => {}
        }
    }

    /// GitLab Runner ignores that the current stage failed so.
    fn ignores(&self, reason: FailureReason) -> bool {
        match self.stage.as_str() {
            CLEANUP => true,
            CLEANUP_OF_VARIABLES => reason != FailureReason::Canceled,
            AFTER_SCRIPT => reason != FailureReason::Canceled && !self.after_script_counts,
            _ => false,
        }
    }

    /// Counts that the job adds to the metrics.
    fn sums(&self, now: u64, by_project: bool) -> Sums {
        let (result, reason) = self.result();
        let project = if by_project { self.project.as_str() } else { "" };
        let mut sums = Sums::default();
        sums.add(&metrics::JOBS, &[result, reason, project], 1.0);
        sums.observe(&metrics::JOB_SECONDS, &[], as_value(now.saturating_sub(self.begun)));
        for bill in self.bills.values() {
            sums.observe(&metrics::PROVISIONING_SECONDS, &[], as_value(bill.waited));
            for (name, count) in &bill.instances {
                let seconds = as_value(bill.billable.unwrap_or_default()) * f64::from(*count);
                sums.add(&metrics::BILLED_SECONDS, &[instance_label(name)], seconds);
            }
            if let (Some(cost), Some(source)) = (bill.cost, &bill.source) {
                sums.add(&metrics::COST, &[source], cost);
            }
        }
        sums
    }
}

/// Name of the stage that ends a job.
pub const CLEANUP: &str = "cleanup";
/// Stages whose failure GitLab Runner ignores.
const AFTER_SCRIPT: &str = "run after_script";
const CLEANUP_OF_VARIABLES: &str = "run cleanup_file_variables";
/// Result and reason of a job whose note cannot be read, as after a power failure.
const UNREADABLE: (&str, &str) = ("unknown", "unreadable");

/// Names of instance types come from AWS; one of another form is no label.
fn instance_label(name: &str) -> &str {
    let is_type = name.starts_with("ml.") && name.len() < 40;
    let is_type = is_type && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if is_type { name } else { "other" }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a job are far below 2^52")]
fn as_value(seconds: u64) -> f64 {
    seconds as f64
}

pub fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The folder of all notes of this host.
#[derive(Debug, Clone)]
pub struct JobNotes {
    dir: PathBuf,
}

impl JobNotes {
    /// The folder may be absent.
    pub fn at(state_dir: &Path) -> Self {
        Self { dir: Self::folder(state_dir) }
    }

    pub fn folder(state_dir: &Path) -> PathBuf {
        state_dir.join("jobs")
    }

    fn file(&self, id: &SessionId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// Sessions with a note.
    ///
    /// # Errors
    /// Errors are the system's; a folder that is absent has no notes.
    pub fn sessions(&self) -> io::Result<Vec<SessionId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(SessionId::parse));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads a note; `None` when there is none.
    ///
    /// # Errors
    /// A note that cannot be read, is too long, or was written by a newer program.
    pub fn load(&self, id: &SessionId) -> anyhow::Result<Option<JobNote>> {
        let path = self.file(id);
        let text = match files::read_small(&path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow::Error::new(error).context(format!("failed to read {}", path.display()))),
        };
        // Without serde's text, which repeats values.
        let note: JobNote = serde_json::from_slice(&text)
            .map_err(|_| anyhow::anyhow!("the note about a job {} cannot be understood", path.display()))?;
        let is_known = (1..=VERSION).contains(&note.version);
        anyhow::ensure!(is_known, "{} has version {}; this program knows {VERSION}", path.display(), note.version);
        Ok(Some(note))
    }

    /// When a stage of the job last began, or when a note that cannot be read was written. `None` without a note.
    pub fn touched(&self, id: &SessionId) -> Option<u64> {
        match self.load(id) {
            Ok(note) => note.map(|note| note.begun.max(note.stage_begun)),
            Err(_) => fs::symlink_metadata(self.file(id)).and_then(|meta| meta.modified()).ok().map(seconds_of),
        }
    }

    /// Writes the first note of a job.
    pub fn begin(&self, id: &SessionId, note: JobNote) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        let note = JobNote { version: VERSION, ..note };
        if let Err(error) = made.and_then(|()| self.write(id, &note)) {
            tracing::info!(%error, "failed to write the note about the job");
        }
    }

    /// Changes the note, if there is one.
    pub fn change(&self, id: &SessionId, change: impl FnOnce(&mut JobNote)) {
        let Ok(Some(mut note)) = self.load(id) else { return };
        let before = note.clone();
        change(&mut note);
        if note != before
            && let Err(error) = self.write(id, &note)
        {
            tracing::info!(%error, "failed to write the note about the job");
        }
    }

    fn write(&self, id: &SessionId, note: &JobNote) -> io::Result<()> {
        files::replace(&self.file(id), &serde_json::to_vec(note)?, Durability::Eventual)
    }

    /// Counts a job that has ended, and removes its note. Its counts wait in a file `<session>.counted` beside the note until the note is gone;
    /// then one rename makes them part of all. A process that is killed in between leaves files that the next job's end brings on.
    pub fn conclude(&self, id: &SessionId, now: SystemTime) {
        if let Err(error) = self.try_conclude(id, seconds_of(now)) {
            tracing::info!(%error, "failed to count a job that has ended");
        }
    }

    fn try_conclude(&self, id: &SessionId, now: u64) -> io::Result<()> {
        let counted = self.dir.join(format!("{id}.counted"));
        // One that cannot be read is counted too: nobody could ever read it.
        let note = self.load(id).transpose();
        if let Some(note) = &note {
            if !counted.exists() {
                let sums = match note {
                    Ok(note) => note.sums(now, metrics::shows_projects()),
                    Err(_) => unreadable(),
                };
                files::replace(&counted, &serde_json::to_vec(&sums)?, Durability::Eventual)?;
                match note {
                    Ok(note) => log_end(id, note, now),
                    Err(error) => {
                        tracing::info!(session = %id, result = UNREADABLE.0, reason = UNREADABLE.1, %error, "the job has ended");
                    }
                }
            }
            gone(fs::remove_file(self.file(id)))?;
        }
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".counted"));
            // One whose note is still there belongs to a process at work.
            if let Some(name) = name.filter(|name| !self.dir.join(format!("{name}.json")).exists()) {
                gone(metrics::adopt(&path, &format!("job-{name}")))?;
            }
        }
        Ok(())
    }
}

fn log_end(id: &SessionId, note: &JobNote, now: u64) {
    let (result, reason) = note.result();
    let cost: f64 = note.bills.values().filter_map(|bill| bill.cost).sum();
    let seconds = now.saturating_sub(note.begun);
    tracing::info!(session = %id, project = note.project, job = note.job_id, result, reason, seconds, cost, "the job has ended");
}

/// Counts that a job adds to the metrics when its note cannot be read.
fn unreadable() -> Sums {
    let mut sums = Sums::default();
    sums.add(&metrics::JOBS, &[UNREADABLE.0, UNREADABLE.1, ""], 1.0);
    sums
}

/// Another process was faster.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Notes what SageMaker says of a training job.
pub(super) fn saw(session: &Session<'_>, job: &TrainingJob) {
    let now = session.clock.now();
    let bill = Bill::of(job, now, &session.settings.prices);
    let phase =
        InstancePhase::of(&job.secondary).map_or_else(|| job.secondary.to_string(), |phase| phase.words().to_owned());
    notes(session).change(&session.id, |note| {
        let before = note.status.as_ref().filter(|status| status.training_job == job.name && status.phase == phase);
        let since = before.map_or_else(|| seconds_of(now), |status| status.since);
        if before.is_none() {
            tracing::info!(training_job = job.name, phase, "the training job is in another phase");
        }
        note.status = Some(NotedStatus {
            training_job: job.name.clone(),
            phase,
            since,
            billed_since: bill.billed_since().map(seconds_of),
            is_spot: job.is_spot,
            instances: job.instances.clone(),
        });
    });
}

/// Notes the bill of a training job as far as it is known.
pub(super) fn billed(session: &Session<'_>, job: &TrainingJob, bill: &Bill) {
    notes(session).change(&session.id, |note| {
        if note.bills.len() < MOST_BILLS || note.bills.contains_key(&job.name) {
            let source = bill.price.map(|price| if price.source == PriceSource::List { "list" } else { "operator" });
            let noted = NotedBill {
                instances: bill.instances.clone(),
                waited: bill.waited(),
                billable: bill.billable,
                cost: bill.cost(),
                source: source.map(str::to_owned),
            };
            note.bills.insert(job.name.clone(), noted);
        }
    });
}

fn notes(session: &Session<'_>) -> JobNotes {
    JobNotes::at(&session.settings.runner.state_dir)
}

/// Time since a moment of a note.
pub fn since(moment: u64, now: SystemTime) -> Duration {
    Duration::from_secs(seconds_of(now).saturating_sub(moment))
}
