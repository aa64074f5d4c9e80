//! Lines of the job's log about a training job: its head, and its capacity and data. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use crate::base::arn::Arn;
use crate::base::human::human_duration;
use crate::base::stream::{self, StreamName};
use crate::cloud::{CHECKPOINTS_DIR, Channel, ChannelSource, FileSystemKind, InstanceGroup, TrainingJobSpec};
use crate::config::accelerators;
use crate::protocol::bootstrap;

/// First lines about a training job.
pub(super) struct Head<'a> {
    pub name: &'a str,
    /// Absent while the job waits for a quota.
    pub arn: Option<&'a str>,
    pub instances: String,
    pub image: &'a str,
    pub max_runtime: u64,
    /// A custom endpoint has none.
    pub has_console: bool,
}

impl Head<'_> {
    pub(super) fn lines(&self) -> Vec<String> {
        let (name, arn) = (self.name, self.arn.and_then(Arn::parse));
        let region = arn.map(|arn| format!(", in {}", arn.region)).unwrap_or_default();
        let most = human_duration(Duration::from_secs(self.max_runtime));
        let mut lines = vec![
            format!("SageMaker training job: {name}{region}"),
            format!("Instance: {}, image: {}, at most {most}", self.instances, self.image),
        ];
        if let Some(arn) = arn.filter(|_| self.has_console) {
            lines.extend(links(&arn, name));
        }
        lines
    }
}

/// `ml.g5.12xlarge x 2 (4 A10G GPUs each)`; `types` are those from which SageMaker selects one.
pub(super) fn instances(types: &[String], count: usize) -> String {
    let accelerators = match types {
        [one] => accelerators::words(one),
        _ => None,
    };
    let each = if count > 1 { " each" } else { "" };
    let accelerators = accelerators.map(|words| format!(" ({words}{each})")).unwrap_or_default();
    format!("{} x {count}{accelerators}", types.join(" or "))
}

/// `2 x ml.c5.2xlarge (data) and 1 x ml.g5.xlarge (train, 1 A10G GPU)`.
pub(super) fn groups(groups: &[InstanceGroup]) -> String {
    let one = |group: &InstanceGroup| {
        let each = if group.count > 1 { " each" } else { "" };
        let accelerators = accelerators::words(&group.instance_type).map(|words| format!(", {words}{each}"));
        let accelerators = accelerators.unwrap_or_default();
        format!("{} x {} ({}{accelerators})", group.count, group.instance_type, group.name)
    };
    groups.iter().map(one).collect::<Vec<_>>().join(" and ")
}

/// The addresses of the job and of its log in the console; none in partitions without a public console.
fn links(arn: &Arn<'_>, name: &str) -> Vec<String> {
    let region = encoded(arn.region, "%");
    let Some(console) = (Arn { region: &region, ..*arn }).console() else { return Vec::new() };
    let (group, filter) = (twice_encoded(stream::GROUP), twice_encoded(&StreamName::prefix(name)));
    let job = encoded(name, "%");
    vec![
        format!("Console: {console}/sagemaker/home?region={region}#/jobs/{job}"),
        format!(
            "Logs: {console}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{group}$3FlogStreamNameFilter$3D{filter}"
        ),
    ]
}

/// Text as part of an address; `escape` stands before the two digits of each byte that may have a meaning there.
fn encoded(text: &str, escape: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            // Writing to a text cannot fail.
            byte => drop(write!(encoded, "{escape}{byte:02X}")),
        }
        encoded
    })
}

/// The console of CloudWatch has its names encoded twice, with `$` for the outer `%`.
fn twice_encoded(text: &str) -> String {
    encoded(text, "$25")
}

/// One line for each wish that is not SageMaker's usual.
pub(super) fn lines(spec: &TrainingJobSpec) -> Vec<String> {
    let time = |seconds| human_duration(Duration::from_secs(seconds));
    let mut lines = Vec::new();
    lines.extend(spec.spot_max_wait.map(|wait| {
        format!(
            "Spot instances: {} at most for waiting and running, {} of it for running",
            time(wait),
            time(spec.max_runtime)
        )
    }));
    lines.extend(spec.training_plan_arn.as_ref().map(|plan| format!("Training plan: {plan}")));
    lines.extend(spec.max_pending.map(|wait| format!("SageMaker waits for the instances up to {}", time(wait))));
    lines.extend(spec.checkpoints_uri.as_ref().map(|uri| format!("Checkpoints: {CHECKPOINTS_DIR}, kept at {uri}")));
    let inputs = spec.channels.iter().filter(|channel| !channel.name.starts_with(bootstrap::CHANNEL));
    lines.extend(inputs.map(|channel| {
        let dir = bootstrap::data_dir().join(&channel.name);
        format!("Input {}: {}, from {}", channel.name, dir.display(), source(channel))
    }));
    if spec.keep_alive > 0 {
        lines.push(format!("Keep-alive: the instances stay for {} after the job", time(spec.keep_alive)));
    }
    lines
}

fn source(channel: &Channel) -> String {
    match &channel.source {
        ChannelSource::S3 { uri, is_sharded } => {
            let part = if *is_sharded { ", a part of it for each instance" } else { "" };
            format!("{uri} ({:?} mode{part})", channel.mode)
        }
        ChannelSource::Listed { uri } => uri.clone(),
        ChannelSource::FileSystem { kind, id, path, is_writable } => {
            let kind = match kind {
                FileSystemKind::Efs => "EFS",
                FileSystemKind::FsxLustre => "FSx for Lustre",
            };
            format!("{kind} {id}, {path} ({})", if *is_writable { "read and write" } else { "read-only" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::ChannelMode;
    use crate::cloud::testing::example_spec;

    fn head(arn: Option<&str>, has_console: bool) -> Vec<String> {
        let instances = instances(&["ml.g5.2xlarge".to_owned()], 1);
        let head = Head { name: "gitlab-1-2-ab", arn, instances, image: "train:2.4", max_runtime: 28_800, has_console };
        head.lines()
    }

    #[test]
    fn the_head_has_links_into_the_console_of_the_partition() {
        let arn = |partition: &str, region: &str| {
            format!("arn:{partition}:sagemaker:{region}:000000000000:training-job/gitlab-1-2-ab")
        };
        assert_eq!(
            head(Some(&arn("aws", "eu-west-1")), true),
            [
                "SageMaker training job: gitlab-1-2-ab, in eu-west-1",
                "Instance: ml.g5.2xlarge x 1 (1 A10G GPU), image: train:2.4, at most 8 h",
                "Console: https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/jobs/gitlab-1-2-ab",
                "Logs: https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/\
                 $252Faws$252Fsagemaker$252FTrainingJobs$3FlogStreamNameFilter$3Dgitlab-1-2-ab$252F",
            ]
        );
        let console = |partition, region| {
            let lines = head(Some(&arn(partition, region)), true);
            lines.get(2).map(|line| line.split('#').next().unwrap().to_owned())
        };
        let china = "Console: https://cn-north-1.console.amazonaws.cn/sagemaker/home?region=cn-north-1";
        assert_eq!(console("aws-cn", "cn-north-1").unwrap(), china);
        let gov = "Console: https://us-gov-west-1.console.amazonaws-us-gov.com/sagemaker/home?region=us-gov-west-1";
        assert_eq!(console("aws-us-gov", "us-gov-west-1").unwrap(), gov);
        assert_eq!(console("aws-iso", "us-iso-east-1"), None);
        assert_eq!(head(Some(&arn("aws", "eu-west-1")), false).len(), 2, "a custom endpoint has no console");
        assert_eq!(head(None, true)[0], "SageMaker training job: gitlab-1-2-ab");
    }

    #[test]
    fn every_part_of_a_link_is_encoded() {
        assert_eq!(encoded("a-b_c.d~9", "%"), "a-b_c.d~9");
        assert_eq!(encoded("a b/c?d=e&f#g%ü", "%"), "a%20b%2Fc%3Fd%3De%26f%23g%25%C3%BC");
        assert_eq!(twice_encoded("/x y"), "$252Fx$2520y");
        let arn = Arn::parse("arn:aws:sagemaker:eu west#1:000000000000:training-job/x").unwrap();
        let lines = links(&arn, "a/b c");
        assert!(lines[0].ends_with("?region=eu%20west%231#/jobs/a%2Fb%20c"), "{}", lines[0]);
        assert!(lines[1].ends_with("$3FlogStreamNameFilter$3Da$252Fb$2520c$252F"), "{}", lines[1]);
    }

    #[test]
    fn instances_are_told_with_their_accelerators() {
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(instances(&types(&["ml.g5.12xlarge"]), 2), "ml.g5.12xlarge x 2 (4 A10G GPUs each)");
        assert_eq!(instances(&types(&["ml.m5.large"]), 1), "ml.m5.large x 1");
        assert_eq!(instances(&types(&["ml.p4d.24xlarge", "ml.m5.large"]), 1), "ml.p4d.24xlarge or ml.m5.large x 1");
        let group = |name: &str, instance_type: &str, count| InstanceGroup {
            name: name.to_owned(),
            instance_type: instance_type.to_owned(),
            count,
        };
        assert_eq!(
            groups(&[group("data", "ml.c5.2xlarge", 2), group("train", "ml.g5.xlarge", 1)]),
            "2 x ml.c5.2xlarge (data) and 1 x ml.g5.xlarge (train, 1 A10G GPU)"
        );
    }

    #[test]
    fn a_plain_job_has_no_line() {
        let mut spec = example_spec("a");
        bootstrap::CHANNEL.clone_into(&mut spec.channels[0].name);
        assert_eq!(lines(&spec), Vec::<String>::new());
    }

    #[test]
    fn each_wish_has_a_line() {
        let mut spec = example_spec("a");
        (spec.spot_max_wait, spec.keep_alive) = (Some(7200), 600);
        spec.checkpoints_uri = Some("s3://b/c/".to_owned());
        let source = ChannelSource::FileSystem {
            kind: FileSystemKind::Efs,
            id: "fs-01234567".to_owned(),
            path: "/a".to_owned(),
            is_writable: false,
        };
        spec.channels = vec![
            Channel {
                source: ChannelSource::S3 { uri: "s3://d/".to_owned(), is_sharded: true },
                mode: ChannelMode::FastFile,
                ..spec.channels[0].clone()
            },
            Channel { name: "x".to_owned(), source, ..spec.channels[0].clone() },
        ];
        assert_eq!(
            lines(&spec),
            [
                "Spot instances: 2 h at most for waiting and running, 1 h of it for running",
                "Checkpoints: /opt/ml/checkpoints, kept at s3://b/c/",
                "Input agent: /opt/ml/input/data/agent, from s3://d/ (FastFile mode, a part of it for each instance)",
                "Input x: /opt/ml/input/data/x, from EFS fs-01234567, /a (read-only)",
                "Keep-alive: the instances stay for 10 min after the job",
            ]
        );
    }
}
