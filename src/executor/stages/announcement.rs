//! Lines of the job's log about a training job's capacity and data. Pure.

use std::time::Duration;

use crate::base::human::human_duration;
use crate::cloud::{CHECKPOINTS_DIR, Channel, ChannelSource, FileSystemKind, TrainingJobSpec};
use crate::protocol::bootstrap;

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
