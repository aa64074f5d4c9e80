//! Checks of the operator's file that its types cannot express. Each refusal names the key and what to change. Pure.

mod rules;
mod secrets;
mod values;
mod wishes;

use std::path::{Component, Path, PathBuf};

use self::rules::check_rules;
use self::secrets::check_secrets;
pub(super) use self::values::Refusal;
use self::values::{Checked, SECURITY_GROUPS, SUBNETS, check_ids, in_range, is_region, need, partition_of, refuse};
use self::wishes::check_wishes;
use crate::base::arn::Arn;
use crate::base::plain;
use crate::config::forms;
use crate::config::settings::{JOURNALD, Settings};
use crate::protocol::agent_env;

/// Placeholder account of AWS's documentation and of the sample file; no customer has it.
const SAMPLE_ACCOUNT: &str = "123456789012";
/// Placeholders in files that must be filled in.
const FILL_IN: [&str; 5] = ["example-ci-sagemaker", "REPLACE_ME", "CHANGE_ME", "CHANGE-ME", "CHANGEME"];
/// Shells that cannot run GitLab Runner's scripts for `bash` and `sh`.
const OTHER_SHELLS: [&str; 8] = ["pwsh", "powershell", "cmd", "fish", "csh", "tcsh", "nu", "elvish"];
/// Tags of a training job that the operator may set.
const TAGS: usize = 40;
/// File systems of the kernel, and the directory that SageMaker mounts in the container.
const FOREIGN_DIRS: [&str; 4] = ["/proc", "/sys", "/dev", "/opt/ml"];

/// Checks every value.
pub(super) fn check(settings: &Settings) -> Checked {
    check_aws(settings)?;
    check_storage(settings)?;
    check_job(settings)?;
    check_wishes(settings)?;
    check_network(settings)?;
    check_tags_and_environment(settings)?;
    check_directories(settings)?;
    check_shell(&settings.runner.shell)?;
    check_limits(settings)?;
    check_audit(settings)?;
    check_log(settings)?;
    check_iam(settings)?;
    check_secrets(settings)?;
    check_rules(settings)
}

/// Refuses placeholders of the sample file or another template. With an emulator the sample's account is accepted.
pub(super) fn check_samples(file: &toml::Table, has_endpoint: bool) -> Checked {
    let is_sample =
        |text: &str| FILL_IN.iter().any(|word| text.contains(word)) || (!has_endpoint && text.contains(SAMPLE_ACCOUNT));
    // Each with its key for people, and by its place.
    let mut values: Vec<(String, String, &toml::Value)> =
        file.iter().map(|(key, value)| (key.clone(), key.clone(), value)).collect();
    while let Some((key, place, value)) = values.pop() {
        match value {
            toml::Value::String(text) if is_sample(text) => {
                let change = format!("set `{key}` to a value of your own AWS account, or remove the key");
                return refuse(&key, &format!("still has the sample's value `{text}`"), &change)
                    .map_err(|refusal| refusal.moved(&key, &place));
            }
            toml::Value::Table(table) => {
                let below = |(name, value)| (format!("{key}.{name}"), format!("{place}.{name}"), value);
                values.extend(table.iter().map(below));
            }
            toml::Value::Array(items) => {
                let below = |(index, item)| (key.clone(), format!("{place}[{index}]"), item);
                values.extend(items.iter().enumerate().map(below));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_aws(settings: &Settings) -> Checked {
    let aws = &settings.aws;
    if let Some(region) = &aws.region {
        let change = "set `aws.region` to the name of a region, such as `eu-west-1`, or remove it";
        need(is_region(region), "aws.region", &format!("is `{region}`, which is not the name of a region"), change)?;
    }
    for (key, is_on) in
        [("aws.use_fips_endpoint", aws.use_fips_endpoint), ("aws.use_dualstack_endpoint", aws.use_dualstack_endpoint)]
    {
        let change = format!("remove `{key}`, or `aws.endpoint_url` to use AWS's own endpoints");
        need(!is_on || aws.endpoint_url.is_none(), key, "does not go together with `aws.endpoint_url`", &change)?;
    }
    check_role("aws.creator_role_arn", aws.creator_role_arn.as_deref(), settings)?;
    for (key, url) in
        [("aws.endpoint_url", &aws.endpoint_url), ("aws.container_endpoint_url", &aws.container_endpoint_url)]
    {
        if let Some(url) = url {
            let is_http = url.starts_with("http://") || url.starts_with("https://");
            let change = format!("write `{key}` as in `http://127.0.0.1:4566`; remove it for AWS itself");
            let why = format!("is `{}`; it needs to start with http:// or https://", plain::without_password(url));
            need(is_http, key, &why, &change)?;
        }
    }
    Ok(())
}

fn check_storage(settings: &Settings) -> Checked {
    let (bucket, prefix) = (&settings.storage.bucket, &settings.storage.prefix);
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    need(
        !bucket.is_empty() && bucket.chars().all(is_name),
        "storage.bucket",
        &match bucket.trim() {
            "" => "is empty".to_owned(),
            bucket => format!("is `{bucket}`, which is not a bucket's name"),
        },
        "set `storage.bucket` to the name alone, without `s3://`, ARN or prefix, of a bucket in the region of the training jobs",
    )?;
    let is_part = |part: &str| {
        !part.is_empty() && ![".", ".."].contains(&part) && part.chars().all(|c| is_name(c) || "!'()*=".contains(c))
    };
    need(
        prefix.split('/').all(is_part),
        "storage.prefix",
        "needs at least one character, no slash at its ends, no empty part and no blank",
        "set `storage.prefix` as in `team/ci`",
    )
}

fn check_job(settings: &Settings) -> Checked {
    let job = &settings.job;
    check_role("job.role_arn", job.role_arn.as_deref(), settings)?;
    if let Some(image) = &job.image {
        need(
            !image.trim().is_empty(),
            "job.image",
            "is empty",
            "remove `job.image`, or set it to the image of jobs without `image:`",
        )?;
    }
    need(
        forms::is_instance_type(&job.instance_type),
        "job.instance_type",
        &format!("is `{}`, which is not the name of one SageMaker instance type", job.instance_type),
        "set `job.instance_type` as in `ml.m5.large`",
    )?;
    in_range("job.instance_count", job.instance_count, 1, forms::INSTANCES)?;
    in_range("job.volume_size_gb", job.volume_size_gb, 1, forms::VOLUME_GB)?;
    in_range("job.max_runtime_seconds", job.max_runtime_seconds, 1, forms::MAX_RUNTIME)?;
    let keys = [
        ("storage.kms_key_id", &settings.storage.kms_key_id),
        ("job.volume_kms_key_id", &settings.job.volume_kms_key_id),
    ];
    for (key, value) in keys {
        let is_key = |c: char| c.is_ascii_alphanumeric() || ":/_-".contains(c);
        if let Some(value) = value {
            let change =
                format!("set `{key}` to the id or ARN of a KMS key, or to `alias/<name>`; remove it for the default");
            need(!value.is_empty() && value.chars().all(is_key), key, "is not the id of a KMS key", &change)?;
        }
    }
    Ok(())
}

/// Refuses what is no role's ARN, and a role of another partition than the region's.
fn check_role(key: &str, role: Option<&str>, settings: &Settings) -> Checked {
    let Some(role) = role else { return Ok(()) };
    let change = format!("set `{key}` as in `arn:aws:iam::<account>:role/<name>`");
    need(forms::is_role_arn(role), key, "is not the ARN of an IAM role", &change)?;
    let (role, region) =
        (Arn::parse(role).map(|arn| arn.partition).unwrap_or_default(), settings.aws.region.as_deref());
    let Some((region, partition)) = region.and_then(|region| Some((region, partition_of(region)?))) else {
        return Ok(());
    };
    let why = format!("is of the partition `{role}`, and the region `{region}` is of `{partition}`");
    let change = format!("set `{key}` to a role of the account that `aws.region` is used with");
    need(role == partition, key, &why, &change)
}

fn check_network(settings: &Settings) -> Checked {
    let job = &settings.job;
    need(
        job.subnets.is_empty() == job.security_group_ids.is_empty(),
        "job.subnets",
        "and `job.security_group_ids` belong together",
        "set both or none",
    )?;
    check_ids("job.subnets", &job.subnets, "subnet-", SUBNETS)?;
    check_ids("job.security_group_ids", &job.security_group_ids, "sg-", SECURITY_GROUPS)
}

fn check_tags_and_environment(settings: &Settings) -> Checked {
    let change = format!("keep {TAGS} at most: a training job has 50, and the executor sets the others");
    need(settings.job.tags.len() <= TAGS, "job.tags", &format!("has {} tags", settings.job.tags.len()), &change)?;
    for (name, value) in &settings.job.tags {
        let is_text = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "_.:/=+-@ ".contains(c));
        let is_right = (1..=128).contains(&name.chars().count()) && value.chars().count() <= 256;
        need(
            is_right && is_text(name) && is_text(value) && !name.to_ascii_lowercase().starts_with("aws:"),
            &format!("job.tags.{name}"),
            "is not a tag that AWS takes",
            "a key of `job.tags` has 1 to 128 characters and does not begin with `aws:`; a value has at most 256; both have letters, \
             digits, blanks and `_.:/=+-@` alone",
        )?;
    }
    for (name, value) in &settings.job.environment {
        let is_name = forms::is_environment_name(name)
            && !name.starts_with(agent_env::PREFIX)
            && !name.starts_with("AWS_CONTAINER_");
        need(
            is_name && value.chars().count() <= forms::ENVIRONMENT_VALUE,
            &format!("job.environment.{name}"),
            "cannot be set in a training container",
            "a name in `job.environment` has letters, digits and `_`, begins with no digit and neither with `SAGEMAKER_EXECUTOR_` nor \
             `AWS_CONTAINER_`; a value has at most 512 characters",
        )?;
    }
    Ok(())
}

fn check_directories(settings: &Settings) -> Checked {
    let runner = &settings.runner;
    let dirs = [
        ("runner.builds_dir", &runner.builds_dir),
        ("runner.cache_dir", &runner.cache_dir),
        ("runner.state_dir", &runner.state_dir),
    ];
    for (key, dir) in dirs {
        let is_plain = dir.is_absolute() && !dir.components().any(|part| part == Component::ParentDir);
        let change = format!("set `{key}` to a path that begins with `/`; `~`, `$HOME` and `..` are not replaced");
        need(is_plain, key, "is not an absolute path; scripts on the host and in the container contain it", &change)?;
        let is_foreign = dir == Path::new("/") || FOREIGN_DIRS.iter().any(|foreign| dir.starts_with(foreign));
        let change = format!("set `{key}` to a directory of its own, such as one below `/var/lib/sagemaker-executor`");
        need(!is_foreign, key, &format!("is `{}`, which the executor cannot have for itself", dir.display()), &change)?;
    }
    for (key, dir) in dirs {
        for (other, above) in dirs {
            if key != other && dir.starts_with(above) {
                let why = format!("is the same as `{other}`, or lies below it");
                return refuse(key, &why, &format!("set `{key}` and `{other}` to directories beside each other"));
            }
        }
    }
    check_path_of_builds(settings, &dirs.map(|(_, dir)| dir))
}

/// Directories of the sandbox itself.
const OF_SANDBOX: [&str; 9] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/tmp/home", "/sandbox-init"];

fn check_path_of_builds(settings: &Settings, dirs: &[&PathBuf]) -> Checked {
    const KEY: &str = "sandbox.builds_dir";
    const CHANGE: &str = "set `sandbox.builds_dir` to a path that only the projects have, such as `/tmp/builds`; below `/tmp` a container has \
                          the room of its volume";
    let dir = &settings.sandbox.builds_dir;
    let is_plain = dir.is_absolute() && !dir.components().any(|part| part == Component::ParentDir);
    let is_whole = ["/", "/tmp"].map(Path::new).contains(&dir.as_path());
    let is_taken = FOREIGN_DIRS.iter().chain(&OF_SANDBOX).any(|taken| dir.starts_with(taken));
    let overlaps = |other: &&PathBuf| dir.starts_with(other) || other.starts_with(dir);
    need(is_plain, KEY, "is not an absolute path; scripts on the host and in the container contain it", CHANGE)?;
    need(!is_whole && !is_taken, KEY, &format!("is `{}`, which the sandbox needs for itself", dir.display()), CHANGE)?;
    need(
        !settings.sandbox.enabled || !dirs.iter().any(overlaps),
        KEY,
        &format!("is `{}`, which overlaps a directory of `[runner]`", dir.display()),
        CHANGE,
    )
}

fn check_audit(settings: &Settings) -> Checked {
    let is_right = settings.audit.file.as_ref().is_none_or(|file| file.is_absolute());
    need(
        is_right,
        "audit.file",
        "is not an absolute path",
        "set `audit.file` to a path that begins with `/`, or remove it",
    )
}

fn check_log(settings: &Settings) -> Checked {
    let is_right = settings.log.file.as_ref().is_none_or(|file| file == JOURNALD || Path::new(file).is_absolute());
    need(
        is_right,
        "log.file",
        "is neither an absolute path nor `journald`",
        "set `log.file` to a path that begins with `/`, or to `journald`, or remove it",
    )?;
    let is_right = |file: &PathBuf| file.is_absolute() && file.extension().is_some_and(|ending| ending == "prom");
    need(
        settings.metrics.file.as_ref().is_none_or(is_right),
        "metrics.file",
        "is not an absolute path that ends in `.prom`; the node exporter reads no other file",
        "set `metrics.file` as in `/var/lib/node_exporter/textfile/sagemaker-executor.prom`, or remove it",
    )
}

fn check_iam(settings: &Settings) -> Checked {
    check_role("iam.host_role_arn", settings.iam.host_role_arn.as_deref(), settings)?;
    match settings.iam.vpc_endpoint_ids.iter().find(|id| !id.starts_with("vpce-")) {
        None => Ok(()),
        Some(wrong) => refuse(
            "iam.vpc_endpoint_ids",
            &format!("has `{wrong}`, which is no id"),
            "give ids of VPC endpoints for S3, which begin with `vpce-`",
        ),
    }
}

fn check_shell(shell: &str) -> Checked {
    let name = shell.rsplit('/').next().unwrap_or_default();
    let is_other = name.is_empty() || OTHER_SHELLS.contains(&name.trim_end_matches(".exe"));
    need(
        !is_other,
        "runner.shell",
        &format!("is `{shell}`; host stages and training containers run scripts of a POSIX shell"),
        "set `runner.shell = \"bash\"` in the operator's file, and `shell = \"bash\"` in `[[runners]]` of the runner's `config.toml`",
    )
}

fn check_limits(settings: &Settings) -> Checked {
    let limits = &settings.limits;
    need(
        limits.lease_seconds >= 60,
        "limits.lease_seconds",
        "is below 60; a slow host would lose its jobs",
        "set `limits.lease_seconds` to 60 or more",
    )?;
    need(
        limits.lease_seconds <= 86_400,
        "limits.lease_seconds",
        "is above a day; the training jobs of a host that is gone would run on",
        "set `limits.lease_seconds` to 86400 or less",
    )?;
    in_range("limits.cancel_grace_seconds", limits.cancel_grace_seconds, 0, 600)?;
    need(
        limits.provisioning_seconds > 0,
        "limits.provisioning_seconds",
        "is 0, so no training job could start in time",
        "set `limits.provisioning_seconds` to the longest wait for an instance, such as 3600",
    )?;
    in_range("trace.log_requests_per_second", settings.trace.log_requests_per_second, 0.2, 100.0)
}
