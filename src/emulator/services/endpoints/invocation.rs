//! `InvokeEndpoint`, `InvokeEndpointWithResponseStream` and `InvokeEndpointAsync`: finds the instance for a request, and hands it to the container.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::json;

use super::asynchronous::AsyncRequest;
use super::container_http::{ContainerAnswer, OpenAnswer, content_type, open};
use super::names::{ServingKind, ServingName};
use super::records::Endpoints;
use super::request_metrics::record;
use super::response_stream::streamed;
use super::routing::{Chosen, RoutingRefusal, route};
use crate::authorization::NeededAction;
use crate::caller::{Caller, Signing, WireProtocol};
use crate::partition::partition;
use crate::protocol::{ApiError, Reply, json_reply, reply};
use crate::service::{ApiCall, Service, read};
use crate::services::training::LogPlace;

/// Limit of a request's body in bytes, as in the service's model.
const LARGEST_BODY: usize = 6_291_456;
/// Time that a container has for an answer.
const LIMIT: Duration = Duration::from_mins(1);
const TARGET_VARIANT: &str = "x-amzn-sagemaker-target-variant";
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";
const CUSTOM: &str = "x-amzn-sagemaker-custom-attributes";
/// Headers of the request that the container gets.
const HANDED_ON: &[&str] = &["content-type", "accept", CUSTOM];

/// An answer, or its head when the rest goes on to the caller.
enum Answered {
    Begun(OpenAnswer),
    Whole(ContainerAnswer),
}

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
        "invocations-response-stream" => "InvokeEndpointWithResponseStream",
        "async-invocations" => "InvokeEndpointAsync",
        _ => return None,
    };
    Some((operation, name))
}

#[async_trait::async_trait]
impl Service for Runtime {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: Some("sagemaker") }
    }

    async fn call(&self, call: ApiCall) -> anyhow::Result<Reply> {
        let begun = Instant::now();
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
            ("InvokeEndpoint" | "InvokeEndpointWithResponseStream", None) => {}
            ("InvokeEndpointAsync", Some(config)) => {
                let request = AsyncRequest::read(config, &parts.headers, body, self.0.platform.shared.next_id());
                return Ok(request.map_or_else(
                    |error| json_reply(Err(error)),
                    |request| {
                        let reply = request.accepted();
                        self.0.platform.shared.tasks.spawn(request.answer(Arc::clone(&self.0.platform), chosen));
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
        // The answer of a stream has its own header for this.
        if let Some(accepted) = parts.headers.get("x-amzn-sagemaker-accept") {
            headers.insert(ACCEPT, accepted.clone());
        }
        let is_stream = call.operation == "InvokeEndpointWithResponseStream";
        let asked = Instant::now();
        let exchange = async {
            let answer = open(&chosen.socket, (Method::POST, "/invocations"), headers, body).await?;
            let status = answer.status;
            if is_stream && status.is_success() {
                return Ok((status, Answered::Begun(answer)));
            }
            Ok((status, Answered::Whole(answer.whole().await?)))
        };
        let answer = tokio::time::timeout(LIMIT, exchange).await.context("the container did not answer in time");
        let answer = answer.and_then(|answer| answer);
        let status = answer.as_ref().ok().map(|(status, _)| *status);
        record(&self.0.platform.cloudwatch, &chosen, status, [asked.elapsed(), asked - begun]);
        Ok(match answer {
            Ok((_, Answered::Begun(answer))) => streamed(chosen, answer),
            Ok((_, Answered::Whole(answer))) => answered(&name, &chosen, Ok(answer)),
            Err(error) => answered(&name, &chosen, Err(error)),
        })
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
        let shared = &self.0.platform.shared;
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
        refuse_target_model(name, headers)?;
        let target = headers.get(TARGET_VARIANT).and_then(|value| value.to_str().ok());
        route(name, record, target).map_err(|refusal| match refusal {
            RoutingRefusal::NotInService => absent(),
            RoutingRefusal::NoVariant(variant) => ApiError::new(
                "ValidationError",
                format!("Variant {variant} does not exist for endpoint {}.", name.name),
            ),
            RoutingRefusal::NotReady => ApiError {
                status: 429,
                ..ApiError::new("ModelNotReadyException", "The model of the endpoint is not ready. Try again later.")
            },
        })
    }
}

/// No endpoint has several models here.
fn refuse_target_model(name: &ServingName, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(model) = headers.get(TARGET_MODEL) else { return Ok(()) };
    let model = String::from_utf8_lossy(model.as_bytes());
    let message = format!(
        "Endpoint {} is not a multi-model endpoint and does not support target model header {model}.",
        name.name
    );
    Err(ApiError::new("ValidationError", message))
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
        "LogStreamArn": format!("arn:{}:logs:{region}:{account}:log-group:{group}:log-stream:{stream}", partition(region)),
    });
    let mut reply = reply(StatusCode::FAILED_DEPENDENCY, "application/json", body.to_string());
    reply.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static("ModelError"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_an_endpoint_with_one_model_is_refused() {
        let name = ServingName::new(ServingKind::Endpoint, "one", &Caller::anonymous("1"));
        let mut headers = HeaderMap::new();
        assert!(refuse_target_model(&name, &headers).is_ok());
        headers.insert(TARGET_MODEL, HeaderValue::from_static("a.tar.gz"));
        let error = refuse_target_model(&name, &headers).unwrap_err();
        let message = "Endpoint one is not a multi-model endpoint and does not support target model header a.tar.gz.";
        assert_eq!((error.code.as_str(), error.message.as_str()), ("ValidationError", message));
    }

    #[test]
    fn paths_name_an_endpoint() {
        assert_eq!(invoked("/endpoints/one/invocations"), Some(("InvokeEndpoint", "one")));
        let streamed = Some(("InvokeEndpointWithResponseStream", "one"));
        assert_eq!(invoked("/endpoints/one/invocations-response-stream"), streamed);
        assert_eq!(invoked("/endpoints/one/async-invocations"), Some(("InvokeEndpointAsync", "one")));
        assert_eq!(invoked("/endpoints/one/two/invocations"), None);
        assert_eq!(invoked("/bucket/one/invocations"), None);
    }
}
