//! The trait of the emulated services. Each has its own state.
//!
//! A service of the JSON protocol lists its operations; each gets only requests that satisfy the service's model.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use s3s::Body;
use serde_json::Value;

use super::authorization::json_actions;
use super::caller::{Caller, Signing, WireProtocol};
use super::iam::Document;
use super::model::Model;
use super::protocol::{Answer, ApiError, Reply, json_reply};
use super::shared::Shared;
use super::validate::check;

/// Largest body of a request, in bytes; S3 has no such limit.
const LARGEST_BODY: usize = 8 << 20;

/// A request with its operation and caller, and the state of the emulator.
#[derive(Debug)]
pub(crate) struct ApiCall {
    pub(crate) operation: String,
    pub(crate) request: Request<Body>,
    pub(crate) caller: Caller,
    pub(crate) request_id: String,
    pub(crate) shared: Arc<Shared>,
}

/// One AWS service, or a part of one, with its own state.
#[async_trait::async_trait]
pub(crate) trait Service: Send + Sync {
    /// Answers a request; an error drops the connection without an answer.
    async fn call(&self, call: ApiCall) -> anyhow::Result<Reply>;

    /// How its requests must be signed.
    fn signing(&self) -> Signing;

    /// Whether requests for an operation must be signed.
    fn needs_signature(&self, _operation: &str) -> bool {
        true
    }

    /// Whether an operation of the JSON protocol is for this service.
    fn serves(&self, _target: &str, _operation: &str) -> bool {
        false
    }

    /// Formats an error that was found before the operation as this service does.
    fn refuse(&self, error: ApiError) -> Reply {
        json_reply(Err(error))
    }
}

/// One operation of a JSON service; its request satisfies the model.
pub(crate) type Operation<T> = fn(&Arc<T>, &Value, &Caller) -> Answer;

/// A service of the awsJson protocol.
pub(crate) trait JsonService: Sized + Send + Sync + 'static {
    /// Each operation by its name; the generated tables hold the shape of its request.
    const OPERATIONS: &'static [(&'static str, Operation<Self>)];
    /// The service in the scope of a credential.
    const SIGNING_NAME: &'static str;
    /// The code of the error for a request that breaks a constraint.
    const INVALID: &'static str = "ValidationException";

    fn model() -> &'static Model;

    /// The policy that a resource of the service has by itself.
    fn resource_policy(&self, _resource: &str) -> Option<Arc<Document>> {
        None
    }
}

#[async_trait::async_trait]
impl<T: JsonService> Service for Arc<T> {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: Some(T::SIGNING_NAME) }
    }

    fn serves(&self, target: &str, operation: &str) -> bool {
        T::model().target == target && T::OPERATIONS.iter().any(|(name, _)| *name == operation)
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        let body = if body.is_empty() { b"{}".as_slice() } else { &body };
        let request = serde_json::from_slice::<Value>(body)
            .map_err(|error| ApiError::serialization(format!("the body is not JSON: {error}")));
        Ok(json_reply(request.and_then(|request| {
            let ApiCall { operation, caller, shared, .. } = &call;
            authorize(&**self, shared, operation, &request, caller)?;
            answer(self, operation, &request, caller)
        })))
    }
}

/// Checks that the caller may do all that the request needs.
pub(crate) fn authorize<T: JsonService>(
    service: &T,
    shared: &Shared,
    operation: &str,
    request: &Value,
    caller: &Caller,
) -> Result<(), ApiError> {
    for needed in json_actions(T::SIGNING_NAME, operation, request, caller, &shared.tags) {
        let policy = service.resource_policy(&needed.resource);
        let allowed = shared.authority.allows(caller, &needed, policy.as_deref());
        allowed.map_err(|message| ApiError::new("AccessDeniedException", message))?;
    }
    Ok(())
}

/// Checks the request and runs the operation.
pub(crate) fn answer<T: JsonService>(service: &Arc<T>, operation: &str, request: &Value, caller: &Caller) -> Answer {
    let known = T::OPERATIONS.iter().find(|(name, _)| *name == operation);
    let (name, run) = known.ok_or_else(ApiError::unknown_operation)?;
    check(request, T::model(), name).map_err(|error| match error.code.as_str() {
        "ValidationException" => ApiError { code: T::INVALID.to_owned(), ..error },
        _ => error,
    })?;
    run(service, request, caller)
}

/// Reads the whole body of a request.
pub(crate) async fn read(body: Body) -> anyhow::Result<Vec<u8>> {
    let body = Limited::new(body, LARGEST_BODY).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("failed to read a request's body: {error}"))?;
    Ok(body.to_bytes().to_vec())
}
