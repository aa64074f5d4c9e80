//! The reply of `InvokeEndpointWithResponseStream`: the container's answer as it comes, in events of Amazon's event stream.

use bytes::Bytes;
use flate2::Crc;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use s3s::Body;
use serde_json::json;

use super::container_http::OpenAnswer;
use super::routing::Chosen;
use crate::protocol::{Reply, reply};

/// A reply that goes on while the container answers, and keeps its instance so long.
pub(super) fn streamed(chosen: Chosen, answer: OpenAnswer) -> Reply {
    let mut reply = reply(StatusCode::OK, "application/vnd.amazon.eventstream", Bytes::new());
    let kind = answer.headers.get("content-type").cloned();
    let headers = reply.headers_mut();
    if let Some(kind) = kind {
        headers.insert("x-amzn-sagemaker-content-type", kind);
    }
    if let Ok(variant) = HeaderValue::from_str(&chosen.variant) {
        headers.insert("x-amzn-invoked-production-variant", variant);
    }
    let events = futures::stream::unfold(Some((answer, chosen)), |state| async move {
        let (mut answer, chosen) = state?;
        loop {
            return match answer.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Some((part(&data), Some((answer, chosen)))),
                    // Trailers are no part of the answer.
                    Err(_) => continue,
                },
                Err(error) => Some((broken(&error.to_string()), None)),
            };
        }
    });
    *reply.body_mut() =
        Body::http_body_unsync(StreamBody::new(events.map(|event| Ok::<_, std::io::Error>(Frame::data(event)))));
    reply
}

/// A piece of the answer.
fn part(data: &[u8]) -> Bytes {
    let headers =
        [(":message-type", "event"), (":event-type", "PayloadPart"), (":content-type", "application/octet-stream")];
    message(&headers, data)
}

/// The end of an answer that its container broke off.
fn broken(error: &str) -> Bytes {
    let headers = [
        (":message-type", "exception"),
        (":exception-type", "ModelStreamError"),
        (":content-type", "application/json"),
    ];
    message(&headers, json!({"Message": error, "ErrorCode": "StreamBroken"}).to_string().as_bytes())
}

/// One message: lengths and their checksum, headers of text, the payload, and the checksum of all.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut packed = Vec::new();
    for (name, value) in headers {
        packed.extend(u8::try_from(name.len()).unwrap_or(u8::MAX).to_be_bytes());
        packed.extend(name.as_bytes());
        packed.push(7);
        packed.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        packed.extend(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut message = Vec::new();
    message.extend(length(packed.len() + payload.len() + 16));
    message.extend(length(packed.len()));
    message.extend(checksum(&message));
    message.extend(packed);
    message.extend(payload);
    message.extend(checksum(&message));
    message.into()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
