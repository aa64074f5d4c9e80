//! The awsJson 1.1 replies that `SageMaker` and `CloudWatch` Logs give, and the errors of both.
//!
//! Only the wire format; the operations are in `services/`.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use s3s::Body;
use serde_json::{Value, json};

/// An HTTP reply of any service.
pub(crate) type Reply = Response<Body>;

/// An error as a client of the service sees it: code, text, status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) status: u16,
}

impl ApiError {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400 }
    }
    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }
    /// For malformed bodies and values of the wrong type.
    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }
    pub(crate) fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", "")
    }
    pub(crate) fn throttled() -> Self {
        Self::new("ThrottlingException", "Rate exceeded")
    }
}

/// The result of an operation of a JSON service; `None` is an empty body.
pub(crate) type Answer = Result<Option<Value>, ApiError>;

/// Turns an answer into a reply with the headers of the JSON protocol.
pub(crate) fn json_reply(answer: Answer) -> Reply {
    match answer {
        Ok(value) => {
            let body = value.map(|value| value.to_string()).unwrap_or_default();
            reply(StatusCode::OK, "application/x-amz-json-1.1", body)
        }
        Err(error) => {
            let body = json!({"__type": error.code, "message": error.message}).to_string();
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            let mut reply = reply(status, "application/x-amz-json-1.1", body);
            if let Ok(code) = error.code.parse() {
                reply.headers_mut().insert("x-amzn-errortype", code);
            }
            reply
        }
    }
}

/// An error in XML: of S3, or of a service of the query protocol with its namespace.
pub(crate) fn xml_error(error: &ApiError, namespace: Option<&str>) -> Reply {
    let (code, message) = (escape_xml(&error.code), escape_xml(&error.message));
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let error = format!("<Code>{code}</Code><Message>{message}</Message></Error>");
    let Some(namespace) = namespace else {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error>{error}");
        return reply(status, "application/xml", body);
    };
    let body = format!("<ErrorResponse xmlns=\"{namespace}\"><Error><Type>Sender</Type>{error}</ErrorResponse>");
    reply(status, "text/xml", body)
}

/// A reply with a whole body.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::from(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(content_type));
    reply
}

/// A text as XML 1.0 can hold it: control characters and others that it forbids, also as references, are replaced.
pub(crate) fn escape_xml(text: &str) -> String {
    let is_forbidden =
        |one: char| matches!(one, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    let text = text.replace(is_forbidden, "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Epoch seconds with milliseconds, as `SageMaker` writes its times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double exactly for 285,000 years")]
pub(crate) fn epoch_seconds(ms: u64) -> Value {
    json!(ms as f64 / 1000.0)
}

/// A time of a request in milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is right for a bound")]
pub(crate) fn milliseconds(request: &Value, name: &str) -> Option<u64> {
    request.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1000.0) as u64)
}

/// A text member of a request; absent and null are the same.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_leaves_an_error_readable() {
        assert_eq!(escape_xml("a\u{1b}[2J\0<b>&\n\u{e9}"), "a\u{fffd}[2J\u{fffd}&lt;b&gt;&amp;\n\u{e9}");
    }
}
