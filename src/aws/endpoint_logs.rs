//! Output of endpoints' containers in CloudWatch Logs, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_cloudwatchlogs::types::OrderBy;
use executor::base::plain;
use executor::cloud::{CloudError, CloudErrorKind, EndpointLogs};

use super::clients::Clients;

/// Longest line that is kept, in bytes.
const LONGEST_LINE: usize = 4096;
/// Streams among which the newest is looked for: the service's maximum.
const STREAMS: i32 = 50;
/// Pages that are read: AWS gives empty ones.
const MOST_PAGES: usize = 3;

#[derive(Debug)]
pub(super) struct AwsEndpointLogs {
    clients: Arc<Clients>,
}

impl AwsEndpointLogs {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    /// Of the streams with the newest events the one that began last: when a deployment fails, the old containers write on.
    async fn newest_stream(&self, group: &str) -> Result<Option<String>, CloudError> {
        let call = self.clients.call("list", format!("log streams of {group}"), "logs:DescribeLogStreams");
        let request = self.clients.logs().describe_log_streams().log_group_name(group);
        match request.order_by(OrderBy::LastEventTime).descending(true).limit(STREAMS).send().await {
            Ok(page) => {
                let streams = page.log_streams.unwrap_or_default().into_iter();
                let newest = streams.max_by_key(|stream| stream.creation_time);
                Ok(newest.and_then(|stream| stream.log_stream_name))
            }
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }
}

fn unless_absent(error: CloudError) -> Result<(), CloudError> {
    if error.kind == CloudErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[async_trait]
impl EndpointLogs for AwsEndpointLogs {
    async fn last_lines(&self, endpoint: &str, most: usize) -> Result<Vec<String>, CloudError> {
        let group = format!("/aws/sagemaker/Endpoints/{endpoint}");
        let Some(stream) = self.newest_stream(&group).await? else { return Ok(Vec::new()) };
        let call = self.clients.call("read", format!("log stream {stream} of {group}"), "logs:GetLogEvents");
        let mut token = None;
        for _ in 0..MOST_PAGES {
            let request = self.clients.logs().get_log_events().log_group_name(&group).log_stream_name(&stream);
            let request = request.start_from_head(false).limit(i32::try_from(most).unwrap_or(i32::MAX));
            let page = match request.set_next_token(token).send().await {
                Ok(page) => page,
                Err(error) => return unless_absent(call.failed(&error)).map(|()| Vec::new()),
            };
            let events = page.events.unwrap_or_default().into_iter();
            let lines: Vec<String> =
                events.filter_map(|event| event.message).map(|line| plain::line(&line, LONGEST_LINE)).collect();
            if !lines.is_empty() || page.next_backward_token.is_none() {
                return Ok(lines);
            }
            token = page.next_backward_token;
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    #[tokio::test]
    async fn the_last_lines_come_from_the_stream_that_began_last() {
        let stub = Stub::start().await;
        let port = AwsEndpointLogs::new(Arc::clone(&stub.clients));
        let streams = json!([
            {"logStreamName": "AllTraffic/i-0", "creationTime": 10},
            {"logStreamName": "AllTraffic/i-1", "creationTime": 20},
        ]);
        stub.push(reply(200, json!({ "logStreams": streams }).to_string()));
        stub.push(reply(200, json!({"events": [], "nextBackwardToken": "b"}).to_string()));
        let events = json!([{"message": "no module", "timestamp": 1}, {"message": "a\u{1b}[2J", "timestamp": 2}]);
        stub.push(reply(200, json!({"events": events, "nextBackwardToken": "c"}).to_string()));
        let lines = port.last_lines("churn", 50).await.unwrap();
        assert_eq!(lines[0], "no module");
        assert!(!lines[1].contains('\u{1b}'), "{lines:?}");
        let seen: Vec<Value> = stub.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
        let group = "/aws/sagemaker/Endpoints/churn";
        let newest = json!({"logGroupName": group, "orderBy": "LastEventTime", "descending": true, "limit": 50});
        assert_eq!(seen[0], newest);
        let read = json!({"logGroupName": group, "logStreamName": "AllTraffic/i-1", "startFromHead": false,
            "limit": 50, "nextToken": "b"});
        assert_eq!(seen[2], read);
    }

    #[tokio::test]
    async fn a_group_that_is_not_there_has_no_lines() {
        let stub = Stub::start().await;
        let port = AwsEndpointLogs::new(Arc::clone(&stub.clients));
        stub.push(refusal(400, "ResourceNotFoundException", "The specified log group does not exist."));
        assert_eq!(port.last_lines("churn", 50).await.unwrap(), Vec::<String>::new());
    }
}
