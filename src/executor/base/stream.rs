//! Names in CloudWatch Logs: the log group of training jobs, and the log streams of their containers.

use crate::base::node::NodeId;

/// Log group of all training jobs of an account and region.
pub const GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// The log stream of one container: `<job>/algo-<n>-<epoch>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamName<'a> {
    pub job: &'a str,
    pub node: NodeId,
}

impl<'a> StreamName<'a> {
    /// `None` for other streams: remote debugging adds some that end in `/ssm`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (job, container) = text.split_once('/')?;
        let (host, epoch) = container.rsplit_once('-')?;
        let is_number = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
        NodeId::parse(host).filter(|_| is_number).map(|node| Self { job, node })
    }

    /// Common prefix of a job's log streams.
    pub fn prefix(job: &str) -> String {
        format!("{job}/")
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("job-1/algo-1-1700000000" => Some(("job-1", 0)); "first node")]
    #[test_case("job-1/algo-12-1700000000" => Some(("job-1", 11)); "twelfth node")]
    #[test_case("job-1/algo-1-1700000000/ssm" => None; "remote debug")]
    #[test_case("job-1/algo-1-" => None; "no epoch")]
    #[test_case("job-1/profiler-1-17" => None; "other container")]
    #[test_case("algo-1-17" => None; "no job")]
    fn only_container_streams_count(stream: &str) -> Option<(&str, usize)> {
        StreamName::parse(stream).map(|stream| (stream.job, stream.node.index()))
    }
}
