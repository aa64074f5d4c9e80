//! The CloudWatch log of a training job over the SDK: which streams there are, and one page after another.
//!
//! Neither reads the messages nor chooses how often to ask: `logs` of the executor does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::operation::describe_log_streams::builders::DescribeLogStreamsFluentBuilder;
use aws_sdk_cloudwatchlogs::types::OrderBy;

use super::clients::{Clients, timeouts};
use super::errors::Call;
use executor::base::stream::{GROUP, StreamName};
use executor::cloud::{CloudError, CloudErrorKind, FilterPage, JobLogs, LogEvent, StreamPage};

/// A page is 1 MB at most; a reply that takes longer than this is asked for again.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Events a page: 10,000 short ones would be a reply of several MB, since each carries its stream and an id.
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

/// One try: the reader that makes these calls keeps to a budget, in which tries of the SDK's own would not be counted.
fn once() -> Builder {
    let limits = timeouts(TIMEOUT).to_builder().operation_timeout(TIMEOUT).build();
    Builder::new().retry_config(RetryConfig::disabled()).timeout_config(limits)
}

impl AwsLogs {
    /// One page of `DescribeLogStreams`, containers' streams alone; none when the group does not exist yet.
    async fn page(&self, call: &Call, request: DescribeLogStreamsFluentBuilder) -> Result<StreamPage, CloudError> {
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
        let call = Call::new("list", format!("log streams of {GROUP}/{job_name}"), "logs:DescribeLogStreams");
        let mut streams = Vec::new();
        let mut token = None;
        loop {
            let request = self.clients.logs().describe_log_streams();
            let request = request.log_stream_name_prefix(StreamName::prefix(job_name)).set_next_token(token.clone());
            let page = self.page(&call, request).await?;
            streams.extend(page.streams);
            // A service that repeats its token would be asked for ever.
            if page.token.is_none() || page.token == token {
                return Ok(streams);
            }
            token = page.token;
        }
    }

    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        // Without their names: the text is shown to all jobs of the host, whose projects are none of each other's business.
        let call = Call::new("read", format!("{} log streams of {GROUP}", streams.len()), "logs:FilterLogEvents");
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
        let call = Call::new("list", format!("log streams of {GROUP}"), "logs:DescribeLogStreams");
        let request = self.clients.logs().describe_log_streams().order_by(OrderBy::LastEventTime).descending(true);
        self.page(&call, request.set_next_token(token.map(str::to_owned))).await
    }
}

#[cfg(test)]
mod tests;
