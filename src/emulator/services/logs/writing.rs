//! Creates and deletes groups and streams, and puts events into them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::groups::{Group, Logs, named_group, named_stream, no_group, no_stream, number};
use super::stream::{LogStream, PAGE_BYTES};
use crate::caller::Caller;
use crate::clock;
use crate::event::InputLogEvent;
use crate::protocol::{Answer, ApiError, text};

pub(super) fn create_group(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let name = text(request, "logGroupName").unwrap_or_default();
    let mut groups = logs.groups.lock();
    if groups.contains_key(name) {
        return Err(ApiError::new("ResourceAlreadyExistsException", "The specified log group already exists"));
    }
    groups.insert(name.to_owned(), Group { created: clock::now_ms(), ..Group::default() });
    Ok(None)
}

pub(super) fn delete_group(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let name = text(request, "logGroupName").unwrap_or_default();
    logs.groups.lock().remove(name).map(|_| None).ok_or_else(no_group)
}

pub(super) fn create_stream(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let name = text(request, "logStreamName").unwrap_or_default();
    let mut groups = logs.groups.lock();
    let group = named_group(&mut groups, request)?;
    if group.streams.contains_key(name) {
        return Err(ApiError::new("ResourceAlreadyExistsException", "The specified log stream already exists"));
    }
    group.streams.insert(name.to_owned(), LogStream::new(clock::now_ms()));
    Ok(None)
}

pub(super) fn delete_stream(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let name = text(request, "logStreamName").unwrap_or_default();
    let mut groups = logs.groups.lock();
    named_group(&mut groups, request)?.streams.remove(name).map(|_| None).ok_or_else(no_stream)
}

pub(super) fn put(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let events: Vec<InputLogEvent> = request
        .get("logEvents")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|event| InputLogEvent {
            timestamp: number(event, "timestamp").unwrap_or_default(),
            message: text(event, "message").unwrap_or_default().to_owned(),
        })
        .collect();
    let invalid = |message: &str| Err(ApiError::new("InvalidParameterException", message));
    if events.iter().zip(events.iter().skip(1)).any(|(one, next)| one.timestamp > next.timestamp) {
        return invalid("Log events in a single PutLogEvents request must be in chronological order.");
    }
    if events.iter().map(|event| event.message.len() + 26).sum::<usize>() > PAGE_BYTES {
        return invalid("Upload too large: the batch exceeds 1048576 bytes");
    }
    let mut groups = logs.groups.lock();
    let now = clock::now_ms();
    let stream = named_stream(named_group(&mut groups, request)?, request)?;
    logs.insert(stream, events, now);
    Ok(Some(json!({"nextSequenceToken": format!("{:056}", logs.arrivals.load(Ordering::Relaxed))})))
}
