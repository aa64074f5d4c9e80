//! The model that SageMaker uploads from `/opt/ml/model` when the training job ends: waits for the upload, and tells later stages of it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::base::backoff::backoff;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::{JobStatus, TrainingJob};
use crate::config::policy::ModelOutput;
use crate::gitlab::JobContext;
use crate::protocol::project::Trees;
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::failure_reasons::{self, LossKind};
use crate::session::record::LostResults;
use crate::session::results::ENV_FILE;
use crate::workspace;

/// Section name in the job log.
const SECTION: &str = "sagemaker_model";
/// Pauses between two looks at the training job.
const PAUSES: ExponentialBuilder = backoff(Duration::from_secs(1), Duration::from_secs(10));

/// The inputs besides the session.
#[derive(Clone, Copy)]
pub struct ModelInputs<'a> {
    pub job: &'a JobContext,
    pub trees: &'a Trees,
    /// Where the model goes; `None`: nowhere.
    pub output: Option<&'a ModelOutput>,
    pub cancel: &'a Cancellation,
}

/// Waits until SageMaker has uploaded the model, and appends what later stages need to `sagemaker.env` when the job selects that file.
///
/// # Errors
/// The failure of the upload; it is noted in the state too, because the runner ignores a failed `after_script`.
pub async fn finish(session: &mut Session<'_>, inputs: ModelInputs<'_>) -> anyhow::Result<()> {
    let has_model = session.state.has_model();
    let ended = if inputs.output.is_some() {
        session.printer.begin_section(SECTION, session.clock.now(), "Uploading the model");
        let uploaded = uploaded(session, inputs.cancel).await;
        session.printer.end_section(SECTION, session.clock.now());
        Some(uploaded?)
    } else {
        if has_model {
            session.printer.warn(
                "the files in /opt/ml/model go nowhere; set `SAGEMAKER_MODEL_OUTPUT` to a folder in S3, or save what you need as artifacts",
            );
        }
        None
    };
    let uri = inputs.output.filter(|_| has_model).map(|output| model_uri(output, &session.job_name()));
    match (&uri, inputs.output) {
        (Some(uri), _) => session.printer.line(format!("Model: {uri}")),
        (None, Some(_)) => session.printer.line("There is no model: /opt/ml/model is empty"),
        (None, None) => {}
    }
    if selects_env_file(inputs.job) {
        let lines = env_lines(&session.job_name(), session.state.arn(), ended.as_ref(), uri.as_deref());
        workspace::append_lines(inputs.trees, ENV_FILE, &lines)?;
    }
    Ok(())
}

/// Where SageMaker puts the model: the archive, or the folder of its files.
fn model_uri(output: &ModelOutput, job: &str) -> String {
    let name = if output.is_archive { "model.tar.gz" } else { "model" };
    format!("{}{job}/output/{name}", output.folder)
}

/// Waits for the end of the training job, which comes after its upload.
async fn uploaded(session: &mut Session<'_>, cancel: &Cancellation) -> anyhow::Result<TrainingJob> {
    let mut pauses = PAUSES.build();
    let job = loop {
        match session.jobs.describe_once(&session.job_name()).await {
            Ok(Some(job)) if job.status.is_terminal() => break job,
            Ok(Some(_)) => {}
            Ok(None) => return Err(Failure::system("the training job is gone, so its model may be too").into()),
            Err(error) if error.kind.may_pass() => tracing::warn!(%error, "failed to describe the training job"),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))) => {}
            () = cancel.token().cancelled() => {
                return Err(Failure::canceled("canceled while SageMaker uploaded the model").into());
            }
        }
    };
    if job.status == JobStatus::Completed {
        return Ok(job);
    }
    let why = job.failure_reason.clone().or(job.message.clone()).unwrap_or_else(|| job.secondary.to_string());
    let diagnosis = failure_reasons::diagnose(&why, true);
    if matches!(diagnosis.by, LossKind::Script { .. }) {
        // The stage of that script has told it.
        return Ok(job);
    }
    let why = format!("SageMaker did not upload the model: {}", diagnosis.reason);
    let lost = LostResults { why: why.clone(), by_job: diagnosis.by != LossKind::System };
    session.apply(SessionEvent::ResultsLost(&lost))?;
    let failure = if lost.by_job { Failure::user(why) } else { Failure::system(why) };
    Err(failure
        .hint("check that the role of the training job may write to `SAGEMAKER_MODEL_OUTPUT`, and that the bucket is in the job's region")
        .into())
}

/// `true` when the job has the file in its artifacts or reports.
fn selects_env_file(job: &JobContext) -> bool {
    let paths = job.artifacts.iter().flat_map(|artifact| &artifact.paths);
    paths.map(|path| path.trim_start_matches("./")).any(|path| path == ENV_FILE)
}

/// Lines of a dotenv report.
fn env_lines(name: &str, arn: Option<&str>, job: Option<&TrainingJob>, model: Option<&str>) -> String {
    let seconds = |seconds: Option<u64>| seconds.map(|seconds| seconds.to_string());
    let ended = job.filter(|job| job.status.is_terminal());
    [
        ("SAGEMAKER_TRAINING_JOB_NAME", Some(name.to_owned())),
        ("SAGEMAKER_TRAINING_JOB_ARN", arn.map(str::to_owned)),
        ("SAGEMAKER_MODEL_URI", model.map(str::to_owned)),
        ("SAGEMAKER_TRAINING_SECONDS", seconds(ended.and_then(|job| job.training_seconds))),
        ("SAGEMAKER_BILLABLE_SECONDS", seconds(ended.and_then(|job| job.billable_seconds))),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| format!("{name}={value}\n")))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::SecondaryStatus;
    use crate::cloud::testing::example_job;

    #[test]
    fn a_report_names_only_what_is_there() {
        let mut job = example_job("gitlab-1-2-abcdef12", JobStatus::Completed, SecondaryStatus::Completed);
        (job.training_seconds, job.billable_seconds) = (Some(60), Some(20));
        let mut output = ModelOutput { folder: "s3://models/churn/".to_owned(), is_archive: true };
        let uri = model_uri(&output, &job.name);
        let text = env_lines(&job.name, Some(&job.arn), Some(&job), Some(&uri));
        let expected = [
            "SAGEMAKER_TRAINING_JOB_NAME=gitlab-1-2-abcdef12",
            "SAGEMAKER_TRAINING_JOB_ARN=arn:aws:sagemaker:eu-west-1:123456789012:training-job/gitlab-1-2-abcdef12",
            "SAGEMAKER_MODEL_URI=s3://models/churn/gitlab-1-2-abcdef12/output/model.tar.gz",
            "SAGEMAKER_TRAINING_SECONDS=60",
            "SAGEMAKER_BILLABLE_SECONDS=20",
        ];
        assert!(text.lines().eq(expected), "{text}");
        output.is_archive = false;
        assert_eq!(model_uri(&output, "a"), "s3://models/churn/a/output/model");
        let running = example_job(&job.name, JobStatus::InProgress, SecondaryStatus::Training);
        assert_eq!(env_lines(&job.name, Some(&running.arn), Some(&running), None).lines().count(), 2);
        assert_eq!(env_lines(&job.name, None, None, None).lines().count(), 1);
    }

    #[test]
    fn the_file_is_written_only_for_a_job_that_selects_it() {
        let job = |paths: &[&str]| -> JobContext {
            let artifacts = [serde_json::json!({"paths": paths})];
            serde_json::from_value(serde_json::json!({"id": 1, "job_info": {"project_id": 2}, "artifacts": artifacts}))
                .unwrap()
        };
        assert!(selects_env_file(&job(&["out/", "sagemaker.env"])) && selects_env_file(&job(&["./sagemaker.env"])));
        assert!(!selects_env_file(&job(&["out/sagemaker.env"])) && !selects_env_file(&job(&[])));
    }
}
