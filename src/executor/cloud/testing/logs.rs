//! Fake of the training jobs' log: streams that tests append to. No delays, no limits.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::faults::Fake;
use crate::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, LogEvent, StreamPage};

/// Log streams that tests append to.
pub type MemoryLogs = Fake<LogsState>;

#[derive(Debug)]
pub struct LogsState {
    streams: BTreeMap<String, Vec<LogEvent>>,
    page: usize,
    pushed: u64,
}

impl Default for LogsState {
    fn default() -> Self {
        Self { streams: BTreeMap::new(), page: 10_000, pushed: 0 }
    }
}

impl MemoryLogs {
    /// Appends a message; the stream is `<job>/algo-<n>-<epoch>` and is created by its first message. The timestamp is
    /// the number of messages pushed so far.
    pub fn push(&self, stream: &str, message: impl Into<String>) {
        let timestamp = self.inner().service.pushed + 1;
        self.push_at(stream, timestamp, message);
    }

    /// Appends a message with this timestamp, in epoch milliseconds; it may be older than others of the stream.
    pub fn push_at(&self, stream: &str, timestamp: u64, message: impl Into<String>) {
        let mut inner = self.inner();
        let state = &mut inner.service;
        state.pushed += 1;
        let id = format!("{:020}", state.pushed);
        let event = LogEvent { stream: stream.to_owned(), timestamp, id, message: message.into() };
        state.streams.entry(stream.to_owned()).or_default().push(event);
    }

    /// Removes a stream, as its retention does.
    pub fn remove(&self, stream: &str) {
        self.inner().service.streams.remove(stream);
    }

    /// Limits the messages per page; with 0 every page is empty, as some of AWS's are.
    pub fn set_page(&self, messages: usize) {
        self.inner().service.page = messages;
    }
}

impl LogsState {
    fn page_of(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        if let Some(absent) = streams.iter().find(|stream| !self.streams.contains_key(*stream)) {
            return Err(CloudError {
                kind: CloudErrorKind::NotFound,
                operation: format!("read log stream {absent}"),
                message: "The specified log stream does not exist.".to_owned(),
                action: "",
            });
        }
        let mut events: Vec<&LogEvent> = streams
            .iter()
            .filter_map(|stream| self.streams.get(stream))
            .flatten()
            .filter(|event| event.timestamp >= since_ms)
            .collect();
        events.sort_by_key(|event| (event.timestamp, &event.id));
        // The token is the position of the last event; an empty page keeps it.
        let after = token.and_then(|token| token.split_once('/')).map(|(time, id)| (time.parse().unwrap_or(0), id));
        let from =
            after.map_or(0, |place| events.partition_point(|event| (event.timestamp, event.id.as_str()) <= place));
        let page: Vec<LogEvent> = events.iter().skip(from).take(self.page).map(|event| (*event).clone()).collect();
        let more = from + page.len() < events.len();
        let place = page.last().map(|event| format!("{}/{}", event.timestamp, event.id));
        Ok(FilterPage {
            ingested: page.iter().map(|event| event.timestamp).max(),
            token: more.then(|| place.or_else(|| token.map(str::to_owned)).unwrap_or_else(|| "0/".to_owned())),
            events: page,
        })
    }

    fn newest(&self, token: Option<&str>) -> StreamPage {
        let mut streams: Vec<_> = self
            .streams
            .iter()
            .map(|(stream, events)| (events.iter().map(|event| event.timestamp).max(), stream.clone()))
            .collect();
        streams.sort();
        let from = token.and_then(|token| token.parse().ok()).unwrap_or(0);
        let page: Vec<String> = streams.into_iter().rev().map(|(_, stream)| stream).skip(from).take(50).collect();
        let more = from + page.len() < self.streams.len();
        StreamPage { token: more.then(|| (from + page.len()).to_string()), streams: page }
    }
}

#[async_trait]
impl JobLogs for MemoryLogs {
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError> {
        let prefix = format!("{job_name}/algo-");
        let is_containers = |stream: &&String| stream.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        let act = |service: &mut LogsState| Ok(service.streams.keys().filter(is_containers).cloned().collect());
        self.call("streams", job_name, act).await
    }

    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        let act = |service: &mut LogsState| service.page_of(streams, since_ms, token);
        self.call("filter", &format!("{} {since_ms}", streams.join(",")), act).await
    }

    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError> {
        self.call("newest_streams", "", |service| Ok(service.newest(token))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_logs_are_read_by_time_and_an_absent_one_fails_the_call() {
        let logs = MemoryLogs::default();
        logs.push_at("a/algo-1-1", 20, "later");
        logs.push_at("b/algo-1-1", 10, "before");
        logs.push_at("a/algo-1-1", 15, "late");
        logs.push_at("a/algo-1-1", 5, "old");
        logs.set_page(2);
        let streams = ["a/algo-1-1".to_owned(), "b/algo-1-1".to_owned()];
        let first = logs.filter(&streams, 10, None).await.unwrap();
        let second = logs.filter(&streams, 10, first.token.as_deref()).await.unwrap();
        let messages: Vec<_> = first.events.iter().chain(&second.events).map(|event| event.message.as_str()).collect();
        assert_eq!(messages, ["before", "late", "later"]);
        assert_eq!((second.token, second.ingested), (None, Some(20)));
        assert_eq!(logs.newest_streams(None).await.unwrap().streams, streams);
        logs.remove("b/algo-1-1");
        assert_eq!(logs.filter(&streams, 10, None).await.unwrap_err().kind, CloudErrorKind::NotFound);
        logs.set_page(0);
        let empty = logs.filter(&streams[..1], 10, None).await.unwrap();
        assert!(empty.events.is_empty() && empty.token.is_some());
    }
}
