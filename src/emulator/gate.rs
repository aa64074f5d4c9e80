//! Handles each authentic request before its service: counts it, applies the fault plan, keeps the quotas.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use s3s::Body;

use super::clock;
use super::faults::{CallFault, DropPoint, FaultPlan};
use super::protocol::{ApiError, Reply};
use super::quirks::Quotas;
use super::service::{ApiCall, Service, read};
use super::services::Services;
use super::shared::Shared;
use super::store::Store;

/// The services, with the checks that each request passes first.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) services: Services,
    quotas: Quotas,
    counts: Mutex<BTreeMap<String, u64>>,
    /// The last true answers to requests that a rule of the plan may answer by an older one.
    answers: Mutex<BTreeMap<RequestKey, KeptAnswer>>,
}

/// Operation, path and body of a request.
type RequestKey = (String, String, Vec<u8>);

/// An answer that can be given again.
#[derive(Debug, Clone)]
struct KeptAnswer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Gate {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let quotas = Quotas::new(&shared.config.quotas);
        quotas.change(&shared.config.faults.quotas);
        clock::set_ahead(shared.config.faults.clock_ms);
        Self {
            shared: Arc::clone(shared),
            services: Services::new(shared, store),
            quotas,
            counts: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// Replaces the fault plan; its counts begin at zero.
    pub(crate) fn set_faults(&self, plan: FaultPlan) {
        self.quotas.change(&plan.quotas);
        clock::set_ahead(plan.clock_ms);
        self.shared.faults.set(plan);
        self.answers.lock().clear();
    }

    /// Number of requests by operation, refused ones included.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    /// Hands a call to its service, or refuses it; an error drops the connection without an answer.
    pub(crate) async fn pass(&self, service: &Arc<dyn Service>, call: ApiCall) -> anyhow::Result<Reply> {
        let operation = call.operation.clone();
        *self.counts.lock().entry(operation.clone()).or_default() += 1;
        let fault = self.shared.faults.call(&operation, call.request.uri().path());
        if let Some(fault) = &fault {
            if fault.accepted {
                return self.accepted(Arc::clone(service), call, fault.delay_ms).await;
            }
            if let Some(error) = self.trouble(fault, &operation).await? {
                return Ok(service.refuse(error));
            }
        }
        let reply = if self.shared.config.quirks.throttling && !self.quotas.admit(&operation, Instant::now()) {
            service.refuse(ApiError::throttled())
        } else if self.shared.faults.repeats(&operation) {
            self.remembered(&**service, call, fault.as_ref().is_some_and(|fault| fault.stale)).await?
        } else {
            service.call(call).await?
        };
        let is_reset = fault.as_ref().is_some_and(|fault| fault.reset);
        match fault.and_then(|fault| fault.drop) {
            Some(DropPoint::After) => Err(dropped("after", &operation, is_reset)),
            Some(DropPoint::Within) => {
                let mut reply = broken_off(reply).await?;
                if is_reset {
                    reply.extensions_mut().insert(Reset);
                }
                Ok(reply)
            }
            Some(DropPoint::Before) | None => Ok(reply),
        }
    }

    /// Answers a request and keeps the answer, or answers as the last time.
    async fn remembered(&self, service: &dyn Service, mut call: ApiCall, is_stale: bool) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        let key = (call.operation.clone(), call.request.uri().to_string(), body.clone());
        let kept = self.answers.lock().get(&key).filter(|_| is_stale).cloned();
        let answer = if let Some(kept) = kept {
            kept
        } else {
            *call.request.body_mut() = Body::from(body);
            let (head, body) = service.call(call).await?.into_parts();
            let content_type = head.headers.get(CONTENT_TYPE).cloned();
            let answer = KeptAnswer { status: head.status, content_type, body: whole(body).await? };
            self.answers.lock().insert(key, answer.clone());
            answer
        };
        let mut reply = Reply::new(Body::from(answer.body));
        *reply.status_mut() = answer.status;
        if let Some(content_type) = answer.content_type {
            reply.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(reply)
    }

    /// Runs an operation after its delay, even if the caller no longer waits for the answer.
    async fn accepted(&self, service: Arc<dyn Service>, mut call: ApiCall, delay_ms: u64) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        *call.request.body_mut() = Body::from(body);
        let shutdown = self.shared.shutdown.clone();
        let answer = self.shared.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
                () = shutdown.cancelled() => {}
            }
            service.call(call).await
        });
        answer.await.context("failed to wait for the operation")?
    }

    /// Applies a fault before the operation: delays it, drops the connection, or answers with an error.
    async fn trouble(&self, fault: &CallFault, operation: &str) -> anyhow::Result<Option<ApiError>> {
        if fault.delay_ms > 0 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(fault.delay_ms)) => {}
                () = self.shared.faults.replaced() => {}
            }
        }
        if fault.drop == Some(DropPoint::Before) {
            return Err(dropped("before", operation, fault.reset));
        }
        Ok(fault.error.as_ref().map(|code| {
            let message = fault.message.clone().unwrap_or_else(|| "Injected by the fault plan".to_owned());
            ApiError { code: code.clone(), message, status: fault.status.unwrap_or(400) }
        }))
    }
}

/// Marks an error, or a reply that breaks off, whose connection is closed by a reset (RST).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reset;

impl Reset {
    pub(crate) fn is_asked_by(answer: &anyhow::Result<Reply>) -> bool {
        match answer {
            Ok(reply) => reply.extensions().get::<Self>().is_some(),
            Err(error) => error.downcast_ref::<Self>().is_some(),
        }
    }
}

impl Display for Reset {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("reset the connection")
    }
}

fn dropped(when: &str, operation: &str, is_reset: bool) -> anyhow::Error {
    let error = anyhow::anyhow!("dropped the connection {when} {operation}, as the fault plan says");
    if is_reset { error.context(Reset) } else { error }
}

async fn whole(body: Body) -> anyhow::Result<Bytes> {
    let body = BodyExt::collect(body).await.map_err(|error| anyhow::anyhow!("failed to read an answer: {error}"))?;
    Ok(body.to_bytes())
}

/// The reply with its whole head and the first half of its body, after which the connection is closed.
async fn broken_off(reply: Reply) -> anyhow::Result<Reply> {
    let (mut head, body) = reply.into_parts();
    let body = whole(body).await?;
    head.headers.insert("content-length", HeaderValue::from(body.len()));
    let half = body.slice(..body.len() / 2);
    let end = stream::once(async {
        // The server sends the half when the body has to be waited for.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken off, as the fault plan says"))
    });
    let frames = stream::iter([Ok(Frame::data(half))]).chain(end);
    Ok(Reply::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmulatorConfig;

    #[test]
    fn a_plan_eats_from_a_quota_until_the_next_one() {
        let start = Instant::now();
        let others_take_nine = r#"{"quotas": {"FilterLogEvents": 1}}"#;
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmulatorConfig::new(folder.path());
        config.faults = serde_json::from_str(others_take_nine).unwrap();
        let store = Arc::new(Store::open(folder.path().to_owned()).unwrap());
        let gate = Gate::new(&Arc::new(Shared::new(config, String::new()).unwrap()), store);
        let admitted = || (0..20).filter(|_| gate.quotas.admit("FilterLogEvents", start)).count();
        assert_eq!(admitted(), 1);
        gate.set_faults(FaultPlan::default());
        assert_eq!(admitted(), 10);
        gate.set_faults(serde_json::from_str(r#"{"quotas": {"FilterLogEvents": 0}}"#).unwrap());
        assert_eq!(admitted(), 20);
    }
}
