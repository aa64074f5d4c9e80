//! `InvokeEndpoint` and `InvokeEndpointAsync`: finds the instance for a request, and hands it to the container.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::{Value, json};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::asynchronous::AsyncRequest;
use super::container_http::{ContainerAnswer, content_type, send};
use super::instance::ServingInstance;
use super::names::{ServingKind, ServingName};
use super::records::{EndpointRecord, Endpoints};
use crate::authorization::{NeededAction, RoleSession};
use crate::caller::{Caller, Signing, WireProtocol};
use crate::protocol::{ApiError, Reply, json_reply, reply};
use crate::service::{ApiCall, Service, read};
use crate::services::training::LogPlace;

/// Limit of a request's body in bytes, as in the service's model.
const LARGEST_BODY: usize = 6_291_456;
/// Time that a container has for an answer.
const LIMIT: Duration = Duration::from_mins(1);
const TARGET_VARIANT: &str = "x-amzn-sagemaker-target-variant";
const CUSTOM: &str = "x-amzn-sagemaker-custom-attributes";
/// Headers of the request that the container gets.
const HANDED_ON: &[&str] = &["content-type", "accept", CUSTOM];

/// The runtime of endpoints: a service of its own, in REST.
pub(crate) struct Runtime(pub(crate) Arc<Endpoints>);

/// The operation of a request to the runtime, by its method and path; `None` for a request to another service, as S3 has the same
/// paths. The scope of the signature tells them apart.
pub(crate) fn operation(request: &Request<Body>) -> Option<&'static str> {
    let authorization = request.headers().get("authorization")?.to_str().ok()?;
    if !authorization.contains("/sagemaker/aws4_request") {
        return None;
    }
    let invoked = invoked(request.uri().path()).filter(|_| request.method() == Method::POST);
    Some(invoked.map_or("UnknownRuntimeOperation", |(operation, _)| operation))
}

/// The operation and the endpoint's name in `/endpoints/NAME/invocations`.
fn invoked(path: &str) -> Option<(&'static str, &str)> {
    let (name, action) = path.strip_prefix("/endpoints/")?.split_once('/')?;
    let operation = match action {
        "invocations" => "InvokeEndpoint",
        "async-invocations" => "InvokeEndpointAsync",
        _ => return None,
    };
    Some((operation, name))
}

/// The instance that answers a request.
pub(super) struct Chosen {
    variant: String,
    pub(super) socket: PathBuf,
    log: LogPlace,
    /// The session of the model's role.
    pub(super) role: RoleSession,
    pub(super) region: String,
    /// `AsyncInferenceConfig` of the endpoint.
    asynchronous: Option<Value>,
    /// Keeps the instance until the request is answered.
    _request: TaskTrackerToken,
}

#[async_trait::async_trait]
impl Service for Runtime {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: Some("sagemaker") }
    }

    async fn call(&self, call: ApiCall) -> anyhow::Result<Reply> {
        let (parts, body) = call.request.into_parts();
        let Some((_, name)) = invoked(parts.uri.path()).filter(|(operation, _)| *operation == call.operation) else {
            return Ok(json_reply(Err(ApiError::unknown_operation())));
        };
        let name = ServingName::new(ServingKind::Endpoint, name, &call.caller);
        let body = Bytes::from(read(body).await?);
        let chosen = self.check((&call.operation, &call.caller), &name, &parts.headers, body.len());
        let chosen = match chosen.and_then(|()| self.choose(&name, &parts.headers)) {
            Ok(chosen) => chosen,
            Err(error) => return Ok(json_reply(Err(error))),
        };
        match (call.operation.as_str(), &chosen.asynchronous) {
            ("InvokeEndpoint", None) => {}
            ("InvokeEndpointAsync", Some(config)) => {
                let request = AsyncRequest::read(config, &parts.headers, body, self.0.shared.next_id());
                return Ok(request.map_or_else(
                    |error| json_reply(Err(error)),
                    |request| {
                        let reply = request.accepted();
                        self.0.shared.tasks.spawn(request.answer(Arc::clone(&self.0), chosen));
                        reply
                    },
                ));
            }
            (operation, _) => {
                let message = format!("Endpoint {} does not support {operation}.", name.name);
                return Ok(json_reply(Err(ApiError::new("ValidationError", message))));
            }
        }
        let mut headers = HeaderMap::new();
        for handed in HANDED_ON {
            if let Some(value) = parts.headers.get(*handed) {
                headers.insert(*handed, value.clone());
            }
        }
        let path = (Method::POST, "/invocations");
        let answer = send(&chosen.socket, path, headers, body, LIMIT).await;
        Ok(answered(&name, &chosen, answer))
    }
}

impl Runtime {
    /// Refuses what the caller may not do, and what is too large.
    fn check(
        &self,
        (operation, caller): (&str, &Caller),
        name: &ServingName,
        headers: &HeaderMap,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let shared = &self.0.shared;
        let tags = shared.tags.with(&name.arn(), |one| one.tags.clone()).unwrap_or_default();
        let needed = NeededAction::new(format!("sagemaker:{operation}"), name.arn()).resource_tags("sagemaker", &tags);
        let variant = headers.get(TARGET_VARIANT).and_then(|value| value.to_str().ok());
        let needed = needed.key("sagemaker:TargetVariant", variant);
        let allowed = shared.authority.allows(caller, &needed, None);
        allowed.map_err(|message| ApiError { status: 403, ..ApiError::new("AccessDeniedException", message) })?;
        if bytes > LARGEST_BODY {
            return Err(ApiError {
                status: 413,
                ..ApiError::new(
                    "ValidationError",
                    format!("Request size {bytes} exceeds the limit of {LARGEST_BODY} bytes."),
                )
            });
        }
        Ok(())
    }

    fn choose(&self, name: &ServingName, headers: &HeaderMap) -> Result<Chosen, ApiError> {
        let mut records = self.0.records();
        let absent = || {
            ApiError::new("ValidationError", format!("Endpoint {} of account {} not found.", name.name, name.account))
        };
        let record = records.endpoints.get_mut(name).ok_or_else(absent)?;
        let target = headers.get(TARGET_VARIANT).and_then(|value| value.to_str().ok());
        route(record, target).map_err(|refusal| match refusal {
            Refusal::NotInService => absent(),
            Refusal::NoVariant(variant) => ApiError::new(
                "ValidationError",
                format!("Variant {variant} does not exist for endpoint {}.", name.name),
            ),
            Refusal::NotReady => ApiError {
                status: 429,
                ..ApiError::new("ModelNotReadyException", "The model of the endpoint is not ready. Try again later.")
            },
        })
    }
}

/// Why no instance answers.
enum Refusal {
    NotInService,
    NoVariant(String),
    NotReady,
}

/// The next instance in turn: first of the new or the old ones, then of a variant by weight.
fn route(record: &mut EndpointRecord, target: Option<&str>) -> Result<Chosen, Refusal> {
    let number = record.routed;
    record.routed += 1;
    let is_green = is_in_share(number, record.progress.share());
    let fleet = record.green.as_ref().filter(|_| is_green).or(record.blue.as_ref()).ok_or(Refusal::NotInService)?;
    let variants = fleet.variants();
    let index = match target {
        Some(target) => {
            let found = variants.iter().position(|one| one.name == target);
            found.ok_or_else(|| Refusal::NoVariant(target.to_owned()))?
        }
        None => by_weight(number, &variants.iter().map(|one| one.weight).collect::<Vec<_>>()),
    };
    let variant = variants.get(index).ok_or(Refusal::NotReady)?;
    let ready: Vec<(&Arc<ServingInstance>, PathBuf)> =
        variant.instances.iter().filter_map(|one| Some((one, one.socket()?))).collect();
    let turn = usize::try_from(number).unwrap_or(0).checked_rem(ready.len()).ok_or(Refusal::NotReady)?;
    let (instance, socket) = ready.into_iter().nth(turn).ok_or(Refusal::NotReady)?;
    Ok(Chosen {
        variant: variant.name.clone(),
        socket,
        log: instance.log.clone(),
        role: variant.order.role.clone(),
        region: variant.order.region.clone(),
        asynchronous: fleet.config.get("AsyncInferenceConfig").cloned(),
        _request: instance.requests.token(),
    })
}

/// Whether a request is one of those that make up a share in percent, evenly spread.
fn is_in_share(number: u64, share: u64) -> bool {
    let number = number % 100;
    (number + 1) * share / 100 > number * share / 100
}

/// The variant of a request: each gets its part of a hundred requests.
#[expect(clippy::cast_precision_loss, reason = "below 100")]
fn by_weight(number: u64, weights: &[f64]) -> usize {
    let sum: f64 = weights.iter().sum();
    // 37 has no factor in common with 100, so a short run of requests is spread as well.
    let mut point = ((number * 37) % 100) as f64 / 100.0 * sum;
    for (index, weight) in weights.iter().enumerate() {
        if point < *weight {
            return index;
        }
        point -= weight;
    }
    0
}

/// The reply with the container's answer, or the error that stands for it.
fn answered(name: &ServingName, chosen: &Chosen, answer: anyhow::Result<ContainerAnswer>) -> Reply {
    let answer = match answer {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(answer) => {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            return model_error(name, chosen, answer.status.as_u16(), &body);
        }
        Err(error) => {
            tracing::info!(error = format!("{error:#}"), endpoint = name.name, "a container did not answer");
            return model_error(name, chosen, 0, "Invocation timed out or the connection to the model was closed.");
        }
    };
    let kind = content_type(&answer).cloned();
    let custom = answer.headers.get(CUSTOM).cloned();
    let mut reply = reply(StatusCode::OK, "application/octet-stream", answer.body);
    let headers = reply.headers_mut();
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
    }
    if let Some(custom) = custom {
        headers.insert(CUSTOM, custom);
    }
    if let Ok(variant) = HeaderValue::from_str(&chosen.variant) {
        headers.insert("x-amzn-invoked-production-variant", variant);
    }
    reply
}

fn model_error(name: &ServingName, chosen: &Chosen, status: u16, body: &str) -> Reply {
    let LogPlace { group, stream } = &chosen.log;
    let ServingName { account, region, .. } = name;
    let link = format!(
        "See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} in account \
         {account} for more information."
    );
    let message = format!("Received server error ({status}) from primary with message \"{body}\". {link}");
    let kind = if (400..500).contains(&status) { message.replacen("server error", "client error", 1) } else { message };
    let body = json!({
        "Message": kind,
        "OriginalStatusCode": status,
        "OriginalMessage": body,
        "LogStreamArn": format!("arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"),
    });
    let mut reply = reply(StatusCode::FAILED_DEPENDENCY, "application/json", body.to_string());
    reply.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static("ModelError"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_in_each_hundred_requests_and_spread() {
        for share in [0, 1, 10, 33, 50, 100] {
            assert_eq!((0..100).filter(|number| is_in_share(*number, share)).count() as u64, share);
        }
        assert_eq!((0..10).filter(|number| is_in_share(*number, 10)).count(), 1);
    }

    #[test]
    fn variants_get_their_weights() {
        let count = |weights: &[f64], index| (0..100).filter(|number| by_weight(*number, weights) == index).count();
        assert_eq!((count(&[3.0, 1.0], 0), count(&[3.0, 1.0], 1)), (75, 25));
        assert_eq!((count(&[0.0, 1.0], 0), count(&[0.0, 1.0], 1)), (0, 100));
        assert_eq!(count(&[0.0], 0), 100, "an only variant without a weight");
    }

    #[test]
    fn paths_name_an_endpoint() {
        assert_eq!(invoked("/endpoints/one/invocations"), Some(("InvokeEndpoint", "one")));
        assert_eq!(invoked("/endpoints/one/async-invocations"), Some(("InvokeEndpointAsync", "one")));
        assert_eq!(invoked("/endpoints/one/two/invocations"), None);
        assert_eq!(invoked("/bucket/one/invocations"), None);
    }
}
