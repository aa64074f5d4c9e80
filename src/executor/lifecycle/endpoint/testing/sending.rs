//! Sends one request to the endpoint, and waits for its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::asynchronous::AsynchronousWay;
use super::sample::EndpointSample;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, Inference, InferenceReply, InferenceRequest};

/// Time in which a serverless container must be ready.
const READY_LIMIT: Duration = Duration::from_mins(3);
/// Pause before a request whose container was not ready is sent again.
const READY_PAUSE: Duration = Duration::from_millis(500);

/// Time that SageMaker gives a container for an answer.
const LIMIT: Duration = Duration::from_mins(1);
/// The same of an asynchronous endpoint.
const ASYNCHRONOUS_LIMIT: Duration = Duration::from_mins(15);
/// An error after this time tells that the container did not answer in its time.
const LATE: Duration = Duration::from_secs(59);

/// The way of requests to an endpoint.
pub(super) struct Sender {
    pub(super) inference: Arc<dyn Inference>,
    pub(super) endpoint: String,
    /// Of an endpoint that answers in objects.
    pub(super) asynchronous: Option<AsynchronousWay>,
    /// Limit of one answer.
    pub(super) limit: Duration,
    /// Limit of a request with the waits until a container is ready.
    pub(super) whole: Duration,
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
    /// No answer came in time.
    Late(String),
}

impl SentRequest {
    /// Whether the time of a failed request counts beside those of the answers: a faster endpoint would have answered.
    pub(super) fn is_late(&self) -> bool {
        let is_told = matches!(&self.outcome, SendOutcome::Late(_) | SendOutcome::Reply(InferenceReply::NotReady));
        is_told || self.took >= LATE
    }
}

impl Sender {
    /// `limit` is that of each request with all its waits; without it SageMaker's own limits hold.
    pub(super) fn new(
        inference: Arc<dyn Inference>,
        endpoint: String,
        asynchronous: Option<AsynchronousWay>,
        limit: Option<Duration>,
    ) -> Self {
        let usual = if asynchronous.is_some() { ASYNCHRONOUS_LIMIT } else { LIMIT };
        let whole = limit.unwrap_or(READY_LIMIT + usual);
        Self { inference, endpoint, asynchronous, limit: limit.unwrap_or(usual), whole }
    }

    /// Sends the sample, again while no container is ready. The time includes these waits.
    ///
    /// # Errors
    /// Errors that are no answer of the endpoint: no permission, no such endpoint.
    pub(super) async fn send(&self, sample: &EndpointSample, number: usize) -> Result<SentRequest, CloudError> {
        let started = Instant::now();
        let mut not_ready = 0;
        loop {
            let limit = self.limit.min(self.whole.saturating_sub(started.elapsed()));
            let reply = match &self.asynchronous {
                Some(way) => way.send(&*self.inference, &self.endpoint, sample, number, limit).await,
                None => self.invoke(sample, limit).await,
            };
            let outcome = match reply {
                Ok(Some(InferenceReply::NotReady)) if started.elapsed() + READY_PAUSE < READY_LIMIT.min(self.whole) => {
                    not_ready += 1;
                    sleep(READY_PAUSE).await;
                    continue;
                }
                Ok(Some(reply)) => SendOutcome::Reply(reply),
                Ok(None) => SendOutcome::Late(format!("no answer within {} s", self.limit.as_secs_f64())),
                Err(error) if is_of_the_endpoint(error.kind) => {
                    SendOutcome::Failed(plain::line(&error.message, super::assertions::LONGEST))
                }
                Err(error) => return Err(error),
            };
            let is_unready = matches!(outcome, SendOutcome::Reply(InferenceReply::NotReady));
            let least = if is_unready { self.limit } else { Duration::ZERO };
            return Ok(SentRequest { took: started.elapsed().max(least), outcome, not_ready });
        }
    }

    /// `None` without an answer in time.
    async fn invoke(&self, sample: &EndpointSample, limit: Duration) -> Result<Option<InferenceReply>, CloudError> {
        let request = InferenceRequest {
            endpoint: self.endpoint.clone(),
            content_type: sample.content_type.clone(),
            accept: sample.accept.clone(),
            body: sample.body.clone(),
        };
        timeout(limit, self.inference.invoke(&request)).await.ok().transpose()
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
