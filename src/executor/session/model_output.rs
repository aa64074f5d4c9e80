//! The model that SageMaker uploads from `/opt/ml/model` when the training job ends: waits for the upload, and tells later stages of it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::base::backoff::backoff;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::{JobStatus, SecondaryStatus, TrainingJob};
use crate::config::policy::ModelOutput;
use crate::protocol::mailbox::Order;
use crate::protocol::project::Trees;
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::failure_reasons::{self, LossKind};
use crate::session::record::LostResults;
use crate::session::refusals::{self, Refusals};
use crate::session::wanted_files::{self, ENV_FILE};
use crate::workspace;

/// Section name in the job log.
const SECTION: &str = "sagemaker_model";
/// Pauses between two looks at the training job.
const PAUSES: ExponentialBuilder = backoff(Duration::from_secs(1), Duration::from_secs(10));

/// The inputs besides the session.
#[derive(Clone, Copy)]
pub struct ModelInputs<'a> {
    pub trees: &'a Trees,
    /// The job's script has succeeded, so a training job that failed has lost the model.
    pub has_succeeded: bool,
    pub cancel: &'a Cancellation,
}

/// Waits until SageMaker has uploaded the model, and writes what later stages need to `sagemaker.env` when the job selects that file.
///
/// # Errors
/// The failure of the upload; it is noted in the state too, because the runner ignores a failed `after_script`.
pub async fn finish(session: &mut Session<'_>, inputs: ModelInputs<'_>) -> anyhow::Result<()> {
    let output = session.state.request().model_output.clone();
    let (has_model, has_file) =
        (session.state.has_model(), wanted_files::names_file(session.state.selection(), inputs.trees, ENV_FILE));
    let job = if output.is_some() {
        Some(upload(session, inputs).await?)
    } else if has_file {
        session.jobs.describe(&session.job_name()).await.ok().flatten()
    } else {
        None
    };
    let is_uploaded = job.as_ref().is_some_and(|job| job.status == JobStatus::Completed);
    let uri = output.filter(|_| has_model && is_uploaded).map(|output| model_uri(&output, &session.job_name()));
    tell(session, uri.as_deref(), is_uploaded);
    if has_file {
        let lines = env_lines(session, job.as_ref(), uri.as_deref());
        workspace::set_variables(inputs.trees, ENV_FILE, &lines)?;
    }
    if is_uploaded { session.apply(SessionEvent::ModelSettled) } else { Ok(()) }
}

fn tell(session: &Session<'_>, uri: Option<&str>, is_uploaded: bool) {
    let has_model = session.state.has_model();
    match (uri, &session.state.request().model_output) {
        (Some(uri), _) => session.printer.line(format!("Model: {uri}")),
        (None, Some(_)) if has_model && !is_uploaded => {
            session.printer.line("No model is named: the training job has failed");
        }
        (None, Some(_)) => session.printer.line("There is no model: /opt/ml/model is empty"),
        (None, None) if has_model => session.printer.warn(
            "the files in /opt/ml/model go nowhere; set `SAGEMAKER_MODEL_OUTPUT` to a folder in S3, or save what you need as artifacts",
        ),
        (None, None) => {}
    }
}

/// Waits for the upload, in a section of the job log.
async fn upload(session: &mut Session<'_>, inputs: ModelInputs<'_>) -> anyhow::Result<TrainingJob> {
    if !session.state.is_finished() {
        refusals::order(session, &Order::Finish { collect: false }, inputs.cancel).await?;
    }
    session.printer.begin_section(SECTION, session.clock.now(), "Uploading the model");
    let uploaded = uploaded(session, inputs).await;
    session.printer.end_section(SECTION, session.clock.now());
    uploaded
}

/// Where SageMaker puts the model: the archive, or the folder of its files.
fn model_uri(output: &ModelOutput, job: &str) -> String {
    let name = if output.is_archive { "model.tar.gz" } else { "model" };
    format!("{}{job}/output/{name}", output.folder)
}

/// Waits for the end of the training job, which comes after its upload.
async fn uploaded(session: &mut Session<'_>, inputs: ModelInputs<'_>) -> anyhow::Result<TrainingJob> {
    let (mut pauses, mut refusals) = (PAUSES.build(), Refusals::default());
    let job = loop {
        match session.jobs.describe_once(&session.job_name()).await {
            Ok(Some(job)) if job.status.is_terminal() => break job,
            Ok(Some(_)) => refusals.passed(session),
            Ok(None) => return Err(Failure::system("the training job is gone, so its model may be too").into()),
            Err(error) => refusals.bear(session, error)?,
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))) => {}
            () = inputs.cancel.token().cancelled() => {
                return Err(Failure::canceled("canceled while SageMaker uploaded the model").into());
            }
        }
    };
    let was_interrupted = was_interrupted(&job);
    if job.status == JobStatus::Completed && !was_interrupted {
        return Ok(job);
    }
    let why = job.failure_reason.clone().or(job.message.clone()).unwrap_or_else(|| job.secondary.to_string());
    let mut diagnosis = failure_reasons::diagnose(&why, true);
    if !inputs.has_succeeded && matches!(diagnosis.by, LossKind::Script { .. }) {
        // The stage of that script has told it.
        return Ok(job);
    }
    if was_interrupted {
        "the spot instance was interrupted meanwhile, and its files are gone".clone_into(&mut diagnosis.reason);
        diagnosis.by = LossKind::System;
    }
    let why = format!("SageMaker did not upload the model: {}", diagnosis.reason);
    let lost = LostResults { why: why.clone(), by_job: diagnosis.by != LossKind::System };
    session.apply(SessionEvent::ResultsLost(&lost))?;
    let failure = if lost.by_job { Failure::user(why) } else { Failure::system(why) };
    let failure = if was_interrupted {
        failure.hint("retry the job; with `SAGEMAKER_CHECKPOINTS` its script resumes")
    } else {
        failure.hint("check that the role of the training job may write to `SAGEMAKER_MODEL_OUTPUT`, and that the bucket is in the job's region")
    };
    Err(failure.into())
}

/// The instances were taken away during the upload: the container that was started again has no model.
fn was_interrupted(job: &TrainingJob) -> bool {
    let mut since = job.transitions.iter().skip_while(|transition| transition.status != SecondaryStatus::Uploading);
    since.any(|transition| transition.status == SecondaryStatus::Interrupted)
}

/// The variables of a dotenv report, each with its value, or without one when it is not there.
fn env_lines(
    session: &Session<'_>,
    job: Option<&TrainingJob>,
    model: Option<&str>,
) -> [(&'static str, Option<String>); 6] {
    let ended = job.filter(|job| job.status.is_terminal());
    let seconds = |seconds: fn(&TrainingJob) -> Option<u64>| ended.and_then(seconds).map(|seconds| seconds.to_string());
    [
        ("SAGEMAKER_TRAINING_JOB_NAME", Some(session.job_name())),
        ("SAGEMAKER_TRAINING_JOB_ARN", session.state.arn().map(str::to_owned)),
        ("SAGEMAKER_MODEL_URI", model.map(str::to_owned)),
        ("SAGEMAKER_IMAGE_DIGEST", session.state.request().image_digest().map(str::to_owned)),
        ("SAGEMAKER_TRAINING_SECONDS", seconds(|job| job.training_seconds)),
        ("SAGEMAKER_BILLABLE_SECONDS", seconds(|job| job.billable_seconds)),
    ]
}

#[cfg(test)]
mod tests;
