//! The report of a sweep: lines for people, and one JSON object.

use std::time::Duration;

use serde::Serialize;

use crate::base::human::human_duration;
use crate::base::plain;
use crate::metrics::{self, Unwritten};
use crate::session::SessionId;
use crate::session::close::Closed;
use crate::session::lost_sessions::{Evidence, LostEnd};

/// Everything that one sweep found.
#[derive(Debug, Default, Serialize)]
pub(super) struct SweepReport {
    pub(super) sessions: Vec<Row>,
    /// Parts of the search that failed.
    pub(super) errors: Vec<String>,
}

impl SweepReport {
    pub(super) fn failed(&self) -> usize {
        self.sessions.iter().filter(|row| row.outcome == SweepOutcome::Failed).count()
    }

    /// Counts the sweep and the sessions that it ended, and writes them into the log.
    ///
    /// # Errors
    /// The metrics cannot be written.
    pub(super) fn count(&self) -> Result<(), Unwritten> {
        let is_whole = self.failed() == 0 && self.errors.is_empty();
        let outcome = if is_whole { "succeeded" } else { "failed" };
        metrics::add(&metrics::SWEEPS, &[outcome], 1.0);
        for row in self.sessions.iter().filter(|row| row.outcome != SweepOutcome::Failed) {
            metrics::add(&metrics::ORPHANS, &[row.found_by.label()], 1.0);
        }
        for row in &self.sessions {
            tracing::info!(session = row.session, found_by = row.found_by.label(), outcome = ?row.outcome, "the sweep found a session");
        }
        tracing::info!(outcome, sessions = self.sessions.len(), failed = self.failed(), "the sweep has ended");
        metrics::flush()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) session: String,
    pub(super) found_by: FoundBy,
    /// Seconds since a stage touched it; absent when that could not be found out.
    pub(super) untouched_for: Option<u64>,
    pub(super) outcome: SweepOutcome,
    /// The error's own text, for [`SweepOutcome::Failed`].
    pub(super) error: Option<String>,
}

/// The evidence that showed the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FoundBy {
    /// A record of this host.
    Record,
    /// Objects in the bucket; this host has no record.
    Objects,
    /// The tags of a training job; there is neither a record nor an object.
    Tags,
}

impl FoundBy {
    fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Objects => "objects",
            Self::Tags => "tags",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SweepOutcome {
    WouldEnd,
    Ended,
    /// SageMaker is about to end its training job.
    KeptLeaving,
    /// SageMaker may still create the training job that it asked for.
    KeptMayCome,
    /// Its objects are deleted; a training job with its name is not its own.
    ObjectsDeleted,
    /// It is ended; another training job with its name is not its own.
    EndedBesideAnother,
    Failed,
}

impl From<Closed> for SweepOutcome {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Whole => Self::Ended,
            Closed::Leaving => Self::KeptLeaving,
            Closed::MayAppear => Self::KeptMayCome,
        }
    }
}

impl From<LostEnd> for SweepOutcome {
    fn from(end: LostEnd) -> Self {
        match end {
            LostEnd::Closed(closed) => closed.into(),
            LostEnd::ObjectsAlone => Self::ObjectsDeleted,
            LostEnd::BesideAnother => Self::EndedBesideAnother,
        }
    }
}

impl From<Evidence> for FoundBy {
    fn from(evidence: Evidence) -> Self {
        match evidence {
            Evidence::Objects => Self::Objects,
            Evidence::Tags => Self::Tags,
        }
    }
}

impl Row {
    pub(super) fn failed(
        session: &SessionId,
        found_by: FoundBy,
        untouched: Option<Duration>,
        error: &anyhow::Error,
    ) -> Self {
        Self {
            session: session.to_string(),
            found_by,
            untouched_for: untouched.map(|time| time.as_secs()),
            outcome: SweepOutcome::Failed,
            error: Some(plain::lines(&format!("{error:#}")).into_owned()),
        }
    }

    pub(super) fn of(session: &SessionId, found_by: FoundBy, untouched: Duration, outcome: SweepOutcome) -> Self {
        let untouched_for = Some(untouched.as_secs());
        Self { session: session.to_string(), found_by, untouched_for, outcome, error: None }
    }

    pub(super) fn line(&self) -> String {
        let session = &self.session;
        let age = human_duration(Duration::from_secs(self.untouched_for.unwrap_or_default()));
        let why = match self.found_by {
            FoundBy::Record => format!("untouched for {age}"),
            FoundBy::Objects => format!("found by its objects: no host has written any for {age}"),
            FoundBy::Tags => format!("found by the tags of its training job, which was created {age} ago"),
        };
        match self.outcome {
            SweepOutcome::WouldEnd => format!("Would end {session}, {why}"),
            SweepOutcome::Ended => format!("Ended {session}, {why}"),
            SweepOutcome::KeptLeaving => format!("Kept {session}: SageMaker is about to end its training job"),
            SweepOutcome::KeptMayCome => {
                format!("Kept {session}: SageMaker may still create the training job that it asked for")
            }
            SweepOutcome::ObjectsDeleted => {
                format!(
                    "Deleted the objects of {session}; a training job of this name is not the session's and goes on"
                )
            }
            SweepOutcome::EndedBesideAnother => {
                format!("Ended {session}, {why}; another training job with its name is not the session's and goes on")
            }
            SweepOutcome::Failed => format!("Failed to end {session}"),
        }
    }
}
