//! The three protocols of CloudWatch, with one set of operations: CBOR for the Rust SDK, JSON for boto3 and the AWS CLI, the query
//! protocol for older clients.

use std::io::Read as _;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::{Value, json};

use super::records::CloudWatch;
use super::{cbor, query};
use crate::caller::{Signing, WireProtocol};
use crate::model::Model;
use crate::protocol::{Answer, ApiError, Reply, reply, xml_error};
use crate::service::{ApiCall, JsonService, Service, answer, authorize, read};
use crate::services::form::Form;

/// Path of every operation in CBOR, before its name.
const CBOR_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";
const CBOR: &str = "application/cbor";
const XML_NAMESPACE: &str = "http://monitoring.amazonaws.com/doc/2010-08-01/";
/// Largest body that a compressed one may become, in bytes.
const LARGEST_BODY: u64 = 8 << 20;

/// How a request and its reply are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFormat {
    Cbor,
    Json,
    Query,
}

/// The service in one protocol.
pub(crate) struct CloudWatchWire {
    pub(crate) service: Arc<CloudWatch>,
    pub(crate) format: WireFormat,
}

/// The operation of a request in CBOR; `None` for any other request.
pub(crate) fn cbor_operation(request: &Request<Body>) -> Option<&str> {
    let operation = request.uri().path().strip_prefix(CBOR_PATH)?;
    let is_cbor = request.headers().get("smithy-protocol").is_some_and(|name| name == "rpc-v2-cbor");
    (is_cbor && request.method() == Method::POST).then_some(operation)
}

#[async_trait::async_trait]
impl Service for CloudWatchWire {
    fn signing(&self) -> Signing {
        let protocol = match self.format {
            WireFormat::Cbor | WireFormat::Json => WireProtocol::Json,
            WireFormat::Query => WireProtocol::Query,
        };
        Signing { protocol, service: Some(CloudWatch::SIGNING_NAME) }
    }

    fn serves(&self, target: &str, operation: &str) -> bool {
        let model = Model::cloudwatch();
        model.target == target && model.operations.contains_key(operation)
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        let ApiCall { operation, caller, shared, request_id, .. } = &call;
        let request = plain(&call.request, body).and_then(|body| self.request(&call, &body));
        let result = request.and_then(|request| {
            authorize(&*self.service, shared, operation, &request, caller)?;
            answer(&self.service, operation, &request, caller)
        });
        Ok(self.reply(operation, request_id, result))
    }

    fn refuse(&self, error: ApiError) -> Reply {
        error_reply(self.format, &error)
    }
}

impl CloudWatchWire {
    /// The members of a request.
    fn request(&self, call: &ApiCall, body: &[u8]) -> Result<Value, ApiError> {
        let model = Model::cloudwatch();
        if !model.operations.contains_key(&call.operation) {
            return Err(match self.format {
                WireFormat::Query => {
                    ApiError::new("InvalidAction", format!("Could not find operation {}", call.operation))
                }
                WireFormat::Cbor | WireFormat::Json => ApiError::unknown_operation(),
            });
        }
        let broken = |kind: &str, error: String| ApiError::serialization(format!("the body is not {kind}: {error}"));
        match self.format {
            WireFormat::Cbor | WireFormat::Json if body.is_empty() => Ok(json!({})),
            WireFormat::Cbor => cbor::decode(body).map_err(|error| broken("CBOR", error.to_string())),
            WireFormat::Json => serde_json::from_slice(body).map_err(|error| broken("JSON", error.to_string())),
            WireFormat::Query => {
                let form = Form::of(call.request.uri(), body);
                Ok(query::members(&form, model, model.request(&call.operation)))
            }
        }
    }

    fn reply(&self, operation: &str, request_id: &str, result: Answer) -> Reply {
        let result = match result {
            Ok(result) => result.unwrap_or_else(|| json!({})),
            Err(error) => return error_reply(self.format, &error),
        };
        let model = Model::cloudwatch();
        let shape = model.result(operation);
        match self.format {
            WireFormat::Json => reply(StatusCode::OK, "application/x-amz-json-1.0", result.to_string()),
            WireFormat::Cbor => of_cbor(reply(StatusCode::OK, CBOR, cbor::encode(&result, model, shape))),
            WireFormat::Query => {
                let inner = shape.map(|shape| query::xml(&result, model, shape));
                let inner = inner.map(|inner| format!("<{operation}Result>{inner}</{operation}Result>"));
                let body = format!(
                    "<{operation}Response xmlns=\"{XML_NAMESPACE}\">{}<ResponseMetadata><RequestId>{request_id}</RequestId>\
                     </ResponseMetadata></{operation}Response>",
                    inner.unwrap_or_default()
                );
                reply(StatusCode::OK, "text/xml", body)
            }
        }
    }
}

/// An error with the code of the query protocol, which its clients and those of the others read.
fn error_reply(format: WireFormat, error: &ApiError) -> Reply {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = json!({"__type": error.code, "message": error.message});
    let mut reply = match format {
        WireFormat::Query => return xml_error(error, Some(XML_NAMESPACE)),
        WireFormat::Json => reply(status, "application/x-amz-json-1.0", body.to_string()),
        WireFormat::Cbor => of_cbor(reply(status, CBOR, cbor::encode(&body, Model::cloudwatch(), None))),
    };
    if let Ok(code) = HeaderValue::from_str(&format!("{};Sender", error.code)) {
        reply.headers_mut().insert("x-amzn-query-error", code);
    }
    reply
}

fn of_cbor(mut reply: Reply) -> Reply {
    reply.headers_mut().insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    reply
}

/// The body without its compression, which clients use for large `PutMetricData`.
fn plain(request: &Request<Body>, body: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    if request.headers().get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let unpacked = flate2::read::GzDecoder::new(body.as_slice()).take(LARGEST_BODY).read_to_end(&mut plain);
    unpacked.map_err(|error| ApiError::serialization(format!("the body is not gzip: {error}")))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_query_protocol_is_one_of_cloudwatch() {
        let reply = error_reply(WireFormat::Query, &ApiError::new("ValidationError", "a<b"));
        assert_eq!(
            reply.body().bytes().unwrap(),
            "<ErrorResponse xmlns=\"http://monitoring.amazonaws.com/doc/2010-08-01/\"><Error><Type>Sender</Type>\
             <Code>ValidationError</Code><Message>a&lt;b</Message></Error></ErrorResponse>"
        );
    }
}
