//! Sends one request to the endpoint, and waits for its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::asynchronous::AsynchronousWay;
use super::late::late;
use super::sample::EndpointSample;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, Inference, InferenceReply, InferenceRequest};

/// Time in which a serverless container must be ready.
const READY_LIMIT: Duration = Duration::from_mins(3);
/// Pause before a request whose container was not ready is sent again.
const READY_PAUSE: Duration = Duration::from_millis(500);

/// The way of requests to an endpoint.
pub(super) struct Sender {
    pub(super) inference: Arc<dyn Inference>,
    pub(super) endpoint: String,
    /// Of an endpoint that answers in objects.
    pub(super) asynchronous: Option<AsynchronousWay>,
    /// Limit of one answer.
    pub(super) limit: Duration,
}

/// A request that was sent.
pub(super) struct SentRequest {
    pub(super) took: Duration,
    pub(super) outcome: SendOutcome,
    /// How often no container was ready.
    pub(super) not_ready: u32,
}

pub(super) enum SendOutcome {
    Reply(InferenceReply),
    /// No answer came, as any client of the endpoint may see.
    Failed(String),
}

impl Sender {
    /// Sends the sample, again while no container is ready. The time includes these waits.
    ///
    /// # Errors
    /// Errors that are no answer of the endpoint: no permission, no such endpoint.
    pub(super) async fn send(&self, sample: &EndpointSample, number: usize) -> Result<SentRequest, CloudError> {
        let started = Instant::now();
        let mut not_ready = 0;
        loop {
            let outcome = match &self.asynchronous {
                Some(way) => way.send(&*self.inference, &self.endpoint, sample, number, self.limit).await,
                None => self.invoke(sample).await,
            };
            let outcome = match outcome {
                Ok(InferenceReply::NotReady) if started.elapsed() + READY_PAUSE < READY_LIMIT => {
                    not_ready += 1;
                    sleep(READY_PAUSE).await;
                    continue;
                }
                Ok(reply) => SendOutcome::Reply(reply),
                Err(error) if is_of_the_endpoint(error.kind) => {
                    SendOutcome::Failed(plain::line(&error.message, super::assertions::LONGEST))
                }
                Err(error) => return Err(error),
            };
            return Ok(SentRequest { took: started.elapsed(), outcome, not_ready });
        }
    }

    async fn invoke(&self, sample: &EndpointSample) -> Result<InferenceReply, CloudError> {
        let request = InferenceRequest {
            endpoint: self.endpoint.clone(),
            content_type: sample.content_type.clone(),
            accept: sample.accept.clone(),
            body: sample.body.clone(),
        };
        let answer = timeout(self.limit, self.inference.invoke(&request)).await;
        answer.unwrap_or_else(|_| Err(late(&self.endpoint, self.limit)))
    }
}

/// Errors that tell how the endpoint serves its clients.
fn is_of_the_endpoint(kind: CloudErrorKind) -> bool {
    matches!(
        kind,
        CloudErrorKind::Throttled
            | CloudErrorKind::Transient
            | CloudErrorKind::Capacity
            | CloudErrorKind::Quota
            | CloudErrorKind::Other
    )
}
