//! A stage as operators see it: its begin and end in the log, in the metrics and in the note about its job.

use std::time::SystemTime;

use serde_json::Value;

use crate::base::failure::{self, Kind};
use crate::config::policy::JobIdentity;
use crate::gitlab::JobContext;
use crate::metrics;
use crate::session::SessionId;
use crate::session::job_note::{CLEANUP, FailureReason, JobNote, JobNotes, seconds_of};
use crate::stages::context::Context;
use crate::telemetry;
use crate::ui::operator_log;

/// The call that the runner made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageName {
    Config,
    Prepare,
    /// With the build stage.
    Run(String),
    Cleanup,
}

impl StageName {
    /// As people read it: `run build_script`.
    fn words(&self) -> String {
        match self {
            Self::Run(build) => {
                format!("run {}", build.chars().filter(|char| !char.is_control()).take(60).collect::<String>())
            }
            Self::Config | Self::Prepare | Self::Cleanup => self.label().to_owned(),
        }
    }

    /// The label of the metric.
    fn label(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Prepare => "prepare",
            Self::Run(_) => "run",
            Self::Cleanup => CLEANUP,
        }
    }
}

/// The job's variable by which GitLab Runner ignores a failed `after_script`, which it does without the variable.
const IGNORE_ERRORS: &str = "AFTER_SCRIPT_IGNORE_ERRORS";

/// As GitLab Runner reads a variable that is false.
fn is_no(value: &str) -> bool {
    ["0", "f", "F", "false", "FALSE", "False"].contains(&value)
}

/// A stage that runs.
pub(super) struct Watched {
    name: StageName,
    /// Absent in `config`, and when the payload cannot be read.
    session: Option<(JobNotes, SessionId)>,
    begun: SystemTime,
    /// Values of masked variables, the longest first: an error may name what a job asked for.
    masks: Vec<String>,
}

impl Watched {
    /// Begins log and metrics, and notes that the stage runs. Nothing here fails a stage.
    pub(super) fn begin(context: &Context, name: StageName) -> Self {
        telemetry::begin(&context.settings, &context.clock);
        let begun = context.clock.now();
        // The stage tells what is wrong with the payload.
        let job = context.payload_path().ok().and_then(|path| JobContext::read(path).ok());
        let of_job = |job: &JobContext| context.session(job).ok();
        let known = context.contract.session.as_deref().and_then(SessionId::parse);
        let id = known.or_else(|| job.as_ref().and_then(of_job)).filter(|_| name != StageName::Config);
        let value = |name: &str| context.env.job_variable(name).map(str::to_owned);
        let mut masks = job.as_ref().map(|job| job.masked_values(value)).unwrap_or_default();
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
        let mut fields: Vec<(&str, Value)> = vec![("stage", name.words().into())];
        if let Some(job) = &job {
            fields.push(("job", job.id.0.into()));
            fields.push(("project", job.job_info.project_full_path.as_str().into()));
            fields.push(("pipeline", job.job_info.pipeline_id.into()));
        }
        fields.extend(id.as_ref().map(|id| ("session", id.as_str().into())));
        operator_log::set_context(fields);
        let session = id.map(|id| (JobNotes::at(&context.settings.runner.state_dir), id));
        if let Some((notes, id)) = &session {
            // Without `config` before it the stage is refused, and no `cleanup` would know the same session.
            let is_told = context.contract.session.is_some();
            if let (StageName::Prepare, true, Some(job), Ok(None)) = (&name, is_told, &job, notes.load(id)) {
                let after_script_counts = context.env.job_variable(IGNORE_ERRORS).is_some_and(is_no);
                notes.begin(id, JobNote { after_script_counts, ..note(job, begun) });
            }
            notes.change(id, |note| note.begin_stage(&name.words(), seconds_of(begun)));
        }
        let config = context.config.display().to_string();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config,
            "the stage begins with the operator's file as it is now"
        );
        Self { name, session, begun, masks }
    }

    /// Notes how the stage ended.
    pub(super) fn end(self, context: &Context, result: &anyhow::Result<()>) {
        let reason = result.as_ref().err().map(|error| reason(failure::kind_of(error)));
        let outcome = reason.map_or("succeeded", FailureReason::word);
        let seconds = context.clock.now().duration_since(self.begun).unwrap_or_default().as_secs_f64();
        match result {
            Ok(()) => tracing::info!(outcome, seconds, "the stage has ended"),
            Err(error) => {
                // Without the output of the script that some errors quote.
                let masked = |text: String, mask: &String| text.replace(mask.as_str(), "[MASKED]");
                let error = self.masks.iter().fold(format!("{error:#}"), masked);
                tracing::info!(outcome, seconds, error, "the stage has ended");
            }
        }
        metrics::add(&metrics::STAGES, &[self.name.label(), outcome], 1.0);
        if let Some((notes, id)) = &self.session {
            notes.change(id, |note| note.end_stage(reason));
        }
        // The operator's log has it; the job's author could mend nothing.
        let _ = metrics::flush();
    }
}

fn reason(kind: Kind) -> FailureReason {
    match kind {
        Kind::Script { .. } => FailureReason::Script,
        Kind::User | Kind::Verdict { .. } => FailureReason::User,
        Kind::System => FailureReason::System,
        Kind::Canceled => FailureReason::Canceled,
    }
}

fn note(job: &JobContext, begun: SystemTime) -> JobNote {
    let identity = JobIdentity::of(job);
    JobNote {
        gitlab: identity.instance,
        project: job.job_info.project_full_path.clone(),
        job_id: job.id.0,
        job_name: job.job_info.name.clone(),
        pipeline_id: job.job_info.pipeline_id,
        git_ref: job.git_info.git_ref.clone(),
        begun: seconds_of(begun),
        ..JobNote::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_stage_is_in_the_words_and_not_in_the_label() {
        let stage = StageName::Run("build_script\n".to_owned());
        assert_eq!((stage.words().as_str(), stage.label()), ("run build_script", "run"));
        assert_eq!(StageName::Cleanup.words(), CLEANUP);
    }
}
