//! Looks up, once the agents are ready, when each phase of the training job began and when they came up.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::base::node::Nodes;
use crate::cloud::{CloudError, TrainingJob};
use crate::session::Session;
use crate::session::exchange::Exchange as _;
use crate::session::output::NodeOutput;

/// Longest time for both requests: the script's output waits for them.
const WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(400);

/// Times of a training job whose agents are ready.
pub(super) struct LookBack {
    /// SageMaker's answer, or why there is none.
    pub(super) job: Result<TrainingJob, String>,
    /// When the last agent reported ready, by the store's clock.
    pub(super) ready: Option<SystemTime>,
}

/// Requests the training job's status and the times of the agents' reports.
pub(super) async fn look_back(session: &Session<'_>, nodes: &Nodes<NodeOutput>) -> LookBack {
    let deadline = Instant::now() + WITHIN;
    let ready = tokio::time::timeout(WITHIN, ready_at(session, nodes));
    let (job, ready) = tokio::join!(describe(session, deadline), ready);
    let ready = ready.unwrap_or(Ok(None)).unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to look when the agents came up");
        None
    });
    LookBack { job, ready }
}

/// Describes the job, and retries while throttled.
async fn describe(session: &Session<'_>, deadline: Instant) -> Result<TrainingJob, String> {
    let name = session.job_name();
    loop {
        let look = session.jobs.describe_once(&name);
        let Ok(answer) = tokio::time::timeout_at(deadline, look).await else {
            return Err(format!("DescribeTrainingJob has not answered within {} s", WITHIN.as_secs()));
        };
        match answer {
            Ok(Some(job)) => return Ok(job),
            Ok(None) => return Err("SageMaker does not show the training job".to_owned()),
            Err(error) if error.kind.may_pass() && Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn ready_at(session: &Session<'_>, nodes: &Nodes<NodeOutput>) -> Result<Option<SystemTime>, CloudError> {
    let reports: Vec<_> = nodes.iter().map(|(id, node)| (id, node.ready_report)).collect();
    session.exchange().last_reported(&reports).await
}
