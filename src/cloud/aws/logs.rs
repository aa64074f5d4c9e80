//! The CloudWatch log of a training job over the SDK: which streams there are, and one page after another.
//!
//! What the messages mean, and how often to ask, is decided elsewhere.

use std::sync::Arc;

use async_trait::async_trait;

use super::Clients;
use super::errors::Call;
use crate::cloud::{CloudError, CloudErrorKind, JobLogs, LogPage};

/// The group of every training job of an account and region.
const GROUP: &str = "/aws/sagemaker/TrainingJobs";

#[derive(Debug)]
pub(super) struct AwsLogs {
    clients: Arc<Clients>,
}

impl AwsLogs {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl JobLogs for AwsLogs {
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError> {
        let call = Call::new("list", format!("log streams of {GROUP}/{job_name}"), "logs:DescribeLogStreams");
        let mut pages = self
            .clients
            .logs()
            .describe_log_streams()
            .log_group_name(GROUP)
            .log_stream_name_prefix(format!("{job_name}/"))
            .into_paginator()
            .send();
        let mut streams = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => streams.extend(
                    page.log_streams
                        .unwrap_or_default()
                        .into_iter()
                        .filter_map(|stream| stream.log_stream_name)
                        .filter(|stream| is_container_stream(job_name, stream)),
                ),
                Err(error) => {
                    let error = call.failed(&error);
                    return if error.kind == CloudErrorKind::NotFound { Ok(streams) } else { Err(error) };
                }
            }
        }
        Ok(streams)
    }

    async fn read(&self, stream: &str, position: Option<&str>) -> Result<LogPage, CloudError> {
        let call = Call::new("read", format!("log stream {GROUP}/{stream}"), "logs:GetLogEvents");
        let reply = self
            .clients
            .logs()
            .get_log_events()
            .log_group_name(GROUP)
            .log_stream_name(stream)
            .start_from_head(true)
            .set_next_token(position.map(str::to_owned))
            .send()
            .await;
        match reply {
            Ok(reply) => {
                let next = reply.next_forward_token;
                let end = next.is_none() || next.as_deref() == position;
                let messages = reply.events.unwrap_or_default();
                Ok(LogPage {
                    messages: messages.into_iter().filter_map(|event| event.message).collect(),
                    position: next.or_else(|| position.map(str::to_owned)),
                    end,
                })
            }
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound {
                    return Ok(LogPage { messages: Vec::new(), position: position.map(str::to_owned), end: true });
                }
                Err(error)
            }
        }
    }
}

/// `<job>/algo-<n>-<epoch>` and nothing after it: remote debugging adds streams that end in `/ssm`.
fn is_container_stream(job_name: &str, stream: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    stream
        .strip_prefix(job_name)
        .and_then(|rest| rest.strip_prefix("/algo-"))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(node, epoch)| is_number(node) && is_number(epoch))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("job-1/algo-1-1700000000" => true; "first node")]
    #[test_case("job-1/algo-12-1700000000" => true; "twelfth node")]
    #[test_case("job-1/algo-1-1700000000/ssm" => false; "remote debug")]
    #[test_case("job-12/algo-1-1700000000" => false; "longer job name")]
    #[test_case("job-1/algo-1-" => false; "no epoch")]
    #[test_case("job-1/profiler-1-17" => false; "other container")]
    fn only_container_streams_count(stream: &str) -> bool {
        is_container_stream("job-1", stream)
    }
}
