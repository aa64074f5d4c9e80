//! Waits for the end of a stage's own training job, in a job without network.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::session::Session;

const FIRST_LOOK: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time for the upload of outputs, after the training job's longest run time.
const UPLOAD: Duration = Duration::from_hours(1);

/// Waits until the current training job has ended: then SageMaker has stored what its containers wrote. Stops it if its script was not
/// followed to an end. Does nothing for other jobs.
pub(super) async fn wait_for_end(session: &Session<'_>, cancel: &Cancellation) -> anyhow::Result<()> {
    let Some(stages) = session.state.stage_jobs() else { return Ok(()) };
    let name = session.job_name();
    let deadline = Instant::now() + Duration::from_secs(session.state.request().most_seconds) + UPLOAD;
    let mut pause = FIRST_LOOK;
    loop {
        match session.jobs.describe_once(&name).await {
            Ok(job) if job.as_ref().is_none_or(|job| job.status.is_terminal()) => return Ok(()),
            // Again each time: a job that was requested a moment ago may appear late.
            Ok(_) if !stages.has_exited => session.stop_job().await,
            Ok(_) => {}
            Err(error) if error.kind.may_pass() => {
                tracing::debug!(%error, "failed to look at the training job");
            }
            Err(error) => return Err(error.into()),
        }
        if cancel.asked() || session.records.is_closing(&session.id) {
            return Err(Failure::canceled("canceled while SageMaker stored the files of the container").into());
        }
        anyhow::ensure!(Instant::now() < deadline, "the training job {name} has not ended in time");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.changed() => {}
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
