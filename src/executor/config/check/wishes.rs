//! Checks of the keys of `[job]` that have a job variable or concern capacity, data and images. Pure.

use std::collections::BTreeSet;

use super::values::{Checked, in_range, need, refuse};
use crate::cloud::ChannelSource;
use crate::config::forms;
use crate::config::input_channels::{self, CHANNELS};
use crate::config::settings::{RepositoryAccess, Settings};

pub(super) fn check_wishes(settings: &Settings) -> Checked {
    let job = &settings.job;
    in_range("job.retries", job.retries, 0, forms::RETRIES)?;
    in_range("job.keep_alive_seconds", job.keep_alive_seconds, 0, forms::KEEP_ALIVE)?;
    in_range("job.queue_timeout_seconds", job.queue_timeout_seconds, 0, forms::QUEUE_TIMEOUT)?;
    if job.max_pending_seconds > 0 {
        let (least, most) = (*forms::MAX_PENDING.start(), *forms::MAX_PENDING.end());
        in_range("job.max_pending_seconds", job.max_pending_seconds, least, most)?;
    }
    if let Some(plan) = &job.training_plan {
        let change = "set `job.training_plan` as in `arn:aws:sagemaker:<region>:<account>:training-plan/<name>`";
        need(forms::is_training_plan(plan), "job.training_plan", "is not the ARN of a training plan", change)?;
    }
    let against_spot =
        [("job.keep_alive_seconds", job.keep_alive_seconds > 0), ("job.training_plan", job.training_plan.is_some())];
    for (key, is_set) in against_spot {
        let change = format!("remove `{key}`, or set `job.spot = false`");
        need(!(job.spot && is_set), key, "cannot go together with `job.spot = true`", &change)?;
    }
    let against_isolation = [
        ("job.checkpoints", job.checkpoints),
        ("job.model_output", job.model_output.is_some()),
        ("job.spot", job.spot),
        ("job.retries", job.retries > 0),
    ];
    for (key, is_set) in against_isolation {
        let change = format!("remove `{key}`, or set `job.network_isolation = false`");
        need(
            !(job.network_isolation && is_set),
            key,
            "cannot go together with `job.network_isolation = true`",
            &change,
        )?;
    }
    check_data(settings)?;
    check_registry(settings)
}

fn check_data(settings: &Settings) -> Checked {
    let job = &settings.job;
    if let Some(Err(wrong)) = job.model_output.as_deref().map(input_channels::model_output) {
        return refuse("job.model_output", &wrong.why, &wrong.change);
    }
    let own = settings.own_place();
    let inputs = job.inputs.iter().map(|(name, uri)| (format!("job.inputs.{name}"), uri));
    for (key, uri) in inputs.chain(job.model_output.iter().map(|uri| ("job.model_output".to_owned(), uri))) {
        let folder = uri.split('?').next().unwrap_or_default().trim();
        let why = format!("is `{folder}`, and the executor's own objects are in `s3://{}/{}`", own.bucket, own.prefix);
        need(!own.meets(folder), &key, &why, "set it to a folder of another bucket, or to one beside them")?;
    }
    let change = format!("keep {CHANNELS} at most");
    need(job.inputs.len() <= CHANNELS, "job.inputs", &format!("has {} channels", job.inputs.len()), &change)?;
    let mut names = BTreeSet::new();
    for (name, uri) in &job.inputs {
        let key = format!("job.inputs.{name}");
        let channel = match input_channels::channel(name, uri) {
            Ok(channel) => channel,
            Err(wrong) => return refuse(&key, &wrong.why, &wrong.change),
        };
        let is_file_system = matches!(channel.source, ChannelSource::FileSystem { .. });
        let change = "set `job.subnets` and `job.security_group_ids`, from which the file system is reached";
        need(
            !is_file_system || is_in_a_vpc(settings),
            &key,
            "is a file system, and not all jobs are in a VPC",
            change,
        )?;
        let change = "give each channel a name of its own; upper and lower case are the same";
        need(names.insert(channel.name), &key, "is the channel of another key too", change)?;
    }
    Ok(())
}

fn check_registry(settings: &Settings) -> Checked {
    let job = &settings.job;
    let is_vpc = job.image_repository_access == RepositoryAccess::Vpc;
    let change = "set `job.subnets` and `job.security_group_ids`, from which the registry is reached";
    need(
        !is_vpc || is_in_a_vpc(settings),
        "job.image_repository_access",
        "is `vpc`, and not all jobs are in a VPC",
        change,
    )?;
    let Some(lambda) = &job.image_credentials_lambda_arn else { return Ok(()) };
    let key = "job.image_credentials_lambda_arn";
    let change = format!("set `{key}` as in `arn:aws:lambda:<region>:<account>:function:<name>`");
    need(forms::is_lambda(lambda), key, "is not the ARN of a Lambda function", &change)?;
    let change = "set `job.image_repository_access = \"vpc\"`, or remove this key";
    need(is_vpc, key, "is for registries in the VPC alone", change)
}

/// Whether every job has subnets.
fn is_in_a_vpc(settings: &Settings) -> bool {
    let by_rule = !settings.rules.is_empty() && settings.rules.iter().all(|rule| rule.allow.subnets.is_some());
    !settings.job.subnets.is_empty() || by_rule
}
