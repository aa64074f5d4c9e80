//! The state of `CloudWatch` Logs: groups with their streams, and how a request names them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::stream::{EventPosition, LogStream};
use crate::clock;
use crate::event::InputLogEvent;
use crate::protocol::{ApiError, text};
use crate::quirks::{Quirks, unlucky};

/// The log group of training jobs.
pub(crate) const JOB_GROUP: &str = "/aws/sagemaker/TrainingJobs";

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) created: u64,
    pub(super) streams: BTreeMap<String, LogStream>,
}

/// All log groups of the account.
#[derive(Debug)]
pub(crate) struct Logs {
    seed: u64,
    pub(super) empty_pages: bool,
    pub(super) overlapping_pages: bool,
    pub(super) groups: Mutex<BTreeMap<String, Group>>,
    pub(super) arrivals: AtomicU64,
    pages: AtomicU64,
}

impl Logs {
    pub(crate) fn new(seed: u64, quirks: &Quirks) -> Self {
        Self {
            seed,
            empty_pages: quirks.empty_pages,
            overlapping_pages: quirks.overlapping_pages,
            groups: Mutex::default(),
            arrivals: AtomicU64::new(0),
            pages: AtomicU64::new(0),
        }
    }

    /// Adds events, creating group and stream as the log agent does. They are ingested, and so visible, at `visible` (epoch ms).
    pub(crate) fn append(&self, group: &str, stream: &str, events: Vec<InputLogEvent>, visible: u64) {
        let now = clock::now_ms();
        let mut groups = self.groups.lock();
        let group = groups.entry(group.to_owned()).or_insert_with(|| Group { created: now, ..Group::default() });
        let stream = group.streams.entry(stream.to_owned()).or_insert_with(|| LogStream::new(now));
        self.insert(stream, events, visible);
    }

    pub(super) fn insert(&self, stream: &mut LogStream, events: Vec<InputLogEvent>, ingested: u64) {
        for InputLogEvent { timestamp, message } in events {
            let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
            stream.insert(EventPosition { timestamp, ingested, arrival }, message);
        }
    }

    /// All events of training jobs' streams with this prefix as JSON lines, including those not yet visible.
    pub(crate) fn dump(&self, prefix: &str) -> String {
        let groups = self.groups.lock();
        let streams = groups.get(JOB_GROUP).into_iter().flat_map(|group| &group.streams);
        let mut text = String::new();
        for (name, stream) in streams.filter(|(name, _)| name.starts_with(prefix)) {
            for event in stream.events() {
                let EventPosition { timestamp, ingested, .. } = event.place;
                let line = json!({"stream": name, "timestamp": timestamp, "ingestionTime": ingested, "message": event.message});
                text.push_str(&line.to_string());
                text.push('\n');
            }
        }
        text
    }

    pub(super) fn unlucky_page(&self) -> bool {
        unlucky(self.seed, "pages", self.pages.fetch_add(1, Ordering::Relaxed))
    }
}

/// The group that a request names.
pub(super) fn named_group<'a>(
    groups: &'a mut BTreeMap<String, Group>,
    request: &Value,
) -> Result<&'a mut Group, ApiError> {
    named_group_and_name(groups, request).map(|(_, group)| group)
}

pub(super) fn named_group_and_name<'a, 'r>(
    groups: &'a mut BTreeMap<String, Group>,
    request: &'r Value,
) -> Result<(&'r str, &'a mut Group), ApiError> {
    let name = match (text(request, "logGroupName"), text(request, "logGroupIdentifier")) {
        (Some(name), None) => name,
        (None, Some(identifier)) => identifier.split(":log-group:").last().unwrap_or(identifier),
        _ => {
            return Err(ApiError::new(
                "InvalidParameterException",
                "Exactly one of logGroupName and logGroupIdentifier must be specified.",
            ));
        }
    };
    groups.get_mut(name).map(|group| (name, group)).ok_or_else(no_group)
}

pub(super) fn named_stream<'a>(group: &'a mut Group, request: &Value) -> Result<&'a mut LogStream, ApiError> {
    group.streams.get_mut(text(request, "logStreamName").unwrap_or_default()).ok_or_else(no_stream)
}

pub(super) fn no_group() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The specified log group does not exist.")
}

pub(super) fn no_stream() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The specified log stream does not exist.")
}

pub(super) fn invalid_token() -> ApiError {
    ApiError::new("InvalidParameterException", "The specified nextToken is invalid.")
}

pub(super) fn number(request: &Value, name: &str) -> Option<u64> {
    request.get(name).and_then(Value::as_u64)
}

pub(super) fn limit(request: &Value, most: usize) -> usize {
    number(request, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(most).min(most)
}
