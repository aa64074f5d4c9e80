//! The CloudWatch log of a training job over the SDK: lists its streams and reads pages of events.
//!
//! The executor's `logs` decodes the messages and chooses when to read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::operation::describe_log_streams::builders::DescribeLogStreamsFluentBuilder;
use aws_sdk_cloudwatchlogs::types::OrderBy;

use super::clients::{Clients, timeouts};
use super::errors::AwsCall;
use executor::base::stream::{GROUP, StreamName};
use executor::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, LogEvent, StreamPage};

/// Time limit of one page, which is 1 MB at most; it is requested again after that.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Events per page: 10,000 short ones would be a reply of several MB, since each carries its stream and an id.
const EVENTS: i32 = 5000;

#[derive(Debug)]
pub(super) struct AwsLogs {
    clients: Arc<Clients>,
}

impl AwsLogs {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

/// One attempt without SDK retries: the reader has a budget of requests, which would not count them.
fn once() -> Builder {
    let limits = timeouts(TIMEOUT).to_builder().operation_timeout(TIMEOUT).build();
    Builder::new().retry_config(RetryConfig::disabled()).timeout_config(limits)
}

impl AwsLogs {
    /// One page of `DescribeLogStreams`, with containers' streams alone; empty when the group does not exist yet.
    async fn page(&self, call: &AwsCall, request: DescribeLogStreamsFluentBuilder) -> Result<StreamPage, CloudError> {
        match request.log_group_name(GROUP).customize().config_override(once()).send().await {
            Ok(page) => {
                let names = page.log_streams.unwrap_or_default().into_iter();
                let streams =
                    names.filter_map(|stream| stream.log_stream_name).filter(|name| StreamName::parse(name).is_some());
                Ok(StreamPage { streams: streams.collect(), token: page.next_token })
            }
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound { Ok(StreamPage::default()) } else { Err(error) }
            }
        }
    }
}

#[async_trait]
impl JobLogs for AwsLogs {
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError> {
        let call = AwsCall::new("list", format!("log streams of {GROUP}/{job_name}"), "logs:DescribeLogStreams");
        let mut streams = Vec::new();
        let mut token = None;
        loop {
            let request = self.clients.logs().describe_log_streams();
            let request = request.log_stream_name_prefix(StreamName::prefix(job_name)).set_next_token(token.clone());
            let page = self.page(&call, request).await?;
            streams.extend(page.streams);
            // A service that repeats its token would cause an endless loop.
            if page.token.is_none() || page.token == token {
                return Ok(streams);
            }
            token = page.token;
        }
    }

    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        // Without stream names: the text is shown to all jobs of the host, and one project must not see another's names.
        let call = AwsCall::new("read", format!("{} log streams of {GROUP}", streams.len()), "logs:FilterLogEvents");
        let reply = self
            .clients
            .logs()
            .filter_log_events()
            .log_group_name(GROUP)
            .set_log_stream_names(Some(streams.to_vec()))
            .limit(EVENTS)
            .start_time(i64::try_from(since_ms).unwrap_or(i64::MAX))
            .set_next_token(token.map(str::to_owned))
            .customize()
            .config_override(once())
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        let events = reply.events.unwrap_or_default();
        let time = |time: Option<i64>| time.and_then(|time| u64::try_from(time).ok());
        Ok(FilterPage {
            ingested: events.iter().filter_map(|event| time(event.ingestion_time)).max(),
            events: events
                .into_iter()
                .filter_map(|event| {
                    Some(LogEvent {
                        stream: event.log_stream_name?,
                        timestamp: time(event.timestamp).unwrap_or(0),
                        id: event.event_id?,
                        message: event.message?,
                    })
                })
                .collect(),
            token: reply.next_token,
        })
    }

    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError> {
        let call = AwsCall::new("list", format!("log streams of {GROUP}"), "logs:DescribeLogStreams");
        let request = self.clients.logs().describe_log_streams().order_by(OrderBy::LastEventTime).descending(true);
        self.page(&call, request.set_next_token(token.map(str::to_owned))).await
    }
}

#[cfg(test)]
mod tests;
