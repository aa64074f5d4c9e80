//! The mistakes, a row each: how it is made, which call must refuse it, and the words that must appear.

use std::path::Path;

use crate::scenarios::sagemaker_desk::{BUILD_FAILURE, SYSTEM_FAILURE};

/// How a mistake is made.
#[derive(Clone, Copy)]
pub(super) enum Make {
    /// A text of the operator's file stands there otherwise.
    File(&'static str, &'static str),
    /// A line more in a section.
    Line(&'static str, &'static str),
    /// A variable of the runner's service; `None` takes it away.
    Env(&'static str, Option<&'static str>),
    /// All arguments of the call in place of `--config FILE STAGE`; `FILE` and `SCRIPT` stand for the paths.
    Args(&'static [&'static str]),
    /// The operation's answer: code, text and HTTP status.
    Aws(&'static str, &'static str, &'static str, u16),
    /// Something on the disk, in the world's directory.
    Disk(fn(&Path)),
    /// As `Disk`, and the runner is an ordinary user.
    Ordinary(fn(&Path)),
    /// The driver may do everything in the account.
    Administrator,
    /// A variable of the job.
    Job(&'static str, &'static str),
}
pub(super) use Make::{Administrator, Args, Aws, Disk, Env, File, Line, Ordinary};

/// The call that must fail; those before it pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Config,
    Prepare,
    Run,
}
pub(super) use At::{Config, Prepare, Run};

pub(super) struct Mistake {
    pub(super) name: &'static str,
    pub(super) make: &'static [Make],
    pub(super) at: At,
    /// Whose failure: the code of the call.
    pub(super) code: i32,
    pub(super) words: &'static [&'static str],
}

pub(super) const fn row(name: &'static str, make: &'static [Make], at: At, words: &'static [&'static str]) -> Mistake {
    Mistake { name, make, at, code: SYSTEM_FAILURE, words }
}

pub(super) const fn of_job(name: &'static str, make: &'static [Make], words: &'static [&'static str]) -> Mistake {
    Mistake { name, make, at: Prepare, code: BUILD_FAILURE, words }
}

pub(super) const BUCKET: &str = "\"ci-bucket\"";
const ROLE: &str = "arn:aws:iam::000000000000:role/train";

/// `[[runners]]` and `[runners.custom]` in `config.toml`.
pub(super) const RUNNERS_FILE: &[Mistake] = &[
    row(
        "config_args forgotten",
        &[Args(&[])],
        Config,
        &["`config_args` in the runner's `config.toml`", "`config_args = ["],
    ),
    row("config_args in one string", &[Args(&["--config FILE config"])], Config, &["`config_args`", "\"config\"]`"]),
    row(
        "run_args forgotten",
        &[Args(&["SCRIPT", "get_sources"])],
        Run,
        &["`run_args` in the runner's", "\"run\"]` in `[runners.custom]`"],
    ),
    row("run_args without run", &[Args(&["--config", "FILE", "SCRIPT", "get_sources"])], Run, &["`run_args = ["]),
    row(
        "run_args of prepare",
        &[Args(&["--config", "FILE", "prepare", "SCRIPT", "get_sources"])],
        Run,
        &["`run_args = ["],
    ),
    row(
        "prepare_args of run",
        &[Args(&["--config", "FILE", "run"])],
        Prepare,
        &["`prepare_args = [", "`cleanup_args = ["],
    ),
    row(
        "prepare_args of config",
        &[Args(&["--config", "FILE", "config"])],
        Prepare,
        &["the runner calls `config`", "`prepare_args`"],
    ),
    row(
        "--config in the args twice",
        &[Args(&["--config", "FILE", "--config", "FILE", "prepare"])],
        Prepare,
        &["`prepare_args"],
    ),
    row(
        "relative --config",
        &[Args(&["--config", "operator.toml", "config"])],
        Config,
        &["operator.toml", "give `--config` an absolute path"],
    ),
    row(
        "--config of an absent file",
        &[Args(&["--config", "/nowhere/x.toml", "config"])],
        Config,
        &["/nowhere/x.toml", "`--config`"],
    ),
    row(
        "--config of a directory",
        &[Args(&["--config", "/usr", "config"])],
        Config,
        &["name the file in it with `--config`"],
    ),
    row(
        "--config of config.toml",
        &[File("[aws]", "concurrent = 20\n[aws]")],
        Config,
        &["GitLab Runner's own `config.toml`", "`--config`"],
    ),
    row(
        "operator's file for root alone",
        &[Ordinary(|root| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(root.join("operator.toml"), std::fs::Permissions::from_mode(0o0)).unwrap();
        })],
        Config,
        &["Permission denied", "let the user that GitLab Runner runs as read the file"],
    ),
    row(
        "operator's file in another encoding",
        &[Disk(|root| {
            std::fs::write(root.join("operator.toml"), b"\xff\xfea").unwrap();
        })],
        Config,
        &["UTF-8"],
    ),
    row(
        "config_exec forgotten",
        &[
            Env("SAGEMAKER_EXECUTOR_SESSION", None),
            Env("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", Some("/builds/ml/churn.tmp")),
        ],
        Prepare,
        &["`prepare` without `config`", "`config_exec` and `config_args`"],
    ),
    row(
        "shell = \"pwsh\"",
        &[Args(&["--config", "FILE", "run", "SCRIPT.ps1", "get_sources"])],
        Run,
        &["PowerShell", "`shell = \"bash\"` in `[[runners]]`"],
    ),
    row(
        "FF_POSIXLY_CORRECT_ESCAPES",
        &[Env("CUSTOM_ENV_FF_POSIXLY_CORRECT_ESCAPES", Some("true"))],
        Prepare,
        &["`FF_POSIXLY_CORRECT_ESCAPES = false` in `[runners.feature_flags]`"],
    ),
];

/// Keys of the operator's file.
pub(super) const OPERATORS_FILE: &[Mistake] = &[
    row("no TOML", &[Line("storage", "kms_key_id = arn:aws")], Config, &["line 6 is not TOML", "double quotes"]),
    row("a key twice", &[Line("storage", "bucket = \"b\"")], Config, &["duplicate key", "each key once"]),
    row(
        "an empty file",
        &[Disk(|root| std::fs::write(root.join("operator.toml"), "").unwrap())],
        Config,
        &["set `storage.bucket`"],
    ),
    row(
        "bucket missing",
        &[File("bucket = \"ci-bucket\"\n", "")],
        Config,
        &["`storage.bucket`: missing", "set `storage.bucket`"],
    ),
    row(
        "misspelt key",
        &[Line("job", "instance_typ = \"ml.m5.large\"")],
        Config,
        &["`job.instance_typ`", "did you mean `job.instance_type`?"],
    ),
    row("misspelt section", &[File("[limits]", "[limit]")], Config, &["`limit`", "did you mean `limits`?"]),
    row("key of another section", &[Line("aws", "bucket = \"b\"")], Config, &["`aws.bucket`", "`docs/CONFIG.md`"]),
    row(
        "text for a number",
        &[Line("job", "instance_count = \"two\"")],
        Config,
        &["`job.instance_count`", "expected a whole number"],
    ),
    row(
        "text for a truth value",
        &[Line("trace", "live_copy = \"yes\"")],
        Config,
        &["`trace.live_copy`", "expected a boolean"],
    ),
    row("text for a list", &[Line("job", "subnets = \"subnet-1\"")], Config, &["`job.subnets`", "expected a list"]),
    row(
        "the sample's bucket",
        &[File(BUCKET, "\"example-ci-sagemaker\"")],
        Config,
        &["`storage.bucket` still has the sample's value", "set `storage.bucket`"],
    ),
    row("a placeholder", &[File(ROLE, "arn:aws:iam::CHANGE-ME:role/x")], Config, &["`job.role_arn`"]),
    row(
        "bucket as a URL",
        &[File(BUCKET, "\"s3://ci-bucket\"")],
        Config,
        &["`storage.bucket` is `s3://ci-bucket`", "the name alone"],
    ),
    row("bucket with a prefix", &[File(BUCKET, "\"ci-bucket/ci\"")], Config, &["`storage.bucket`", "the name alone"]),
    row(
        "bucket in upper case",
        &[File(BUCKET, "\"CI-Bucket\"")],
        Prepare,
        &["InvalidBucketName", "set `storage.bucket`"],
    ),
    row(
        "prefix with a slash",
        &[Line("storage", "prefix = \"/ci\"")],
        Config,
        &["`storage.prefix` needs", "set `storage.prefix`"],
    ),
    row(
        "KMS key with blanks",
        &[Line("storage", "kms_key_id = \"my key\"")],
        Config,
        &["`storage.kms_key_id`", "`alias/<name>`"],
    ),
    row(
        "region that is none",
        &[File("us-east-1", "europe-west")],
        Config,
        &["`aws.region` is `europe-west`", "such as `eu-west-1`"],
    ),
    row(
        "availability zone for a region",
        &[File("us-east-1", "us-east-1a")],
        Config,
        &["`aws.region` is `us-east-1a`"],
    ),
    row(
        "endpoint without scheme",
        &[Line("aws", "container_endpoint_url = \"10.0.0.5:4566\"")],
        Config,
        &["`aws.container_endpoint_url`", "http://"],
    ),
    row(
        "authorities that are not there",
        &[Line("aws", "ca_bundle = \"/nowhere.pem\""), File("endpoint_url = \"http:", "endpoint_url = \"https:")],
        Prepare,
        &["/nowhere.pem", "set `aws.ca_bundle`"],
    ),
    row(
        "role missing",
        &[File("role_arn = \"arn:aws:iam::000000000000:role/train\"\n", "")],
        Prepare,
        &["set `job.role_arn`"],
    ),
    row(
        "role's name alone",
        &[File(ROLE, "train")],
        Config,
        &["`job.role_arn` is not the ARN", "`arn:aws:iam::<account>:role/<name>`"],
    ),
    row(
        "role of another partition",
        &[File("arn:aws:iam", "arn:aws-cn:iam")],
        Config,
        &["`job.role_arn` is of the partition `aws-cn`", "`aws.region`"],
    ),
    row(
        "instance type without ml.",
        &[Line("job", "instance_type = \"m5.large\"")],
        Config,
        &["`job.instance_type` is `m5.large`", "`ml.m5.large`"],
    ),
    row(
        "no instances",
        &[Line("job", "instance_count = 0")],
        Config,
        &["`job.instance_count` is 0", "between 1 and 100"],
    ),
    row(
        "no volume",
        &[Line("job", "volume_size_gb = 0")],
        Config,
        &["`job.volume_size_gb` is 0", "between 1 and 16384"],
    ),
    row(
        "a run time of a year",
        &[Line("job", "max_runtime_seconds = 31536000")],
        Config,
        &["`job.max_runtime_seconds`", "2419200"],
    ),
    row("an empty image", &[File("image = \"host\"", "image = \"\"")], Config, &["`job.image` is empty"]),
    row(
        "subnets alone",
        &[Line("job", "subnets = [\"subnet-1\"]")],
        Config,
        &["`job.subnets` and `job.security_group_ids`", "set both or none"],
    ),
    row(
        "group in place of a subnet",
        &[Line("job", "subnets = [\"sg-1\"]\nsecurity_group_ids = [\"sg-1\"]")],
        Config,
        &["`job.subnets` has `sg-1`", "`subnet-`"],
    ),
    row("tag of AWS", &[Line("job", "tags = { \"aws:x\" = \"y\" }")], Config, &["`job.tags.aws:x`", "`aws:`"]),
    row(
        "name of no variable",
        &[Line("job", "environment = { \"a-b\" = \"y\" }")],
        Config,
        &["`job.environment.a-b`", "letters, digits and `_`"],
    ),
    row(
        "the executor's own variable",
        &[Line("job", "environment = { SAGEMAKER_EXECUTOR_BUCKET = \"y\" }")],
        Config,
        &["`job.environment.SAGEMAKER_EXECUTOR_BUCKET`"],
    ),
    row(
        "runner.shell of Windows",
        &[Line("runner", "shell = \"pwsh\"")],
        Config,
        &["`runner.shell` is `pwsh`", "`shell = \"bash\"` in `[[runners]]`"],
    ),
    row(
        "shell that is not there",
        &[Line("runner", "shell = \"/nowhere/bash\"")],
        Prepare,
        &["`/nowhere/bash` is not in", "`runner.shell`"],
    ),
    row(
        "directory in the home",
        &[File("builds_dir = \"/", "builds_dir = \"~/")],
        Config,
        &["`runner.builds_dir` is not an absolute path", "begins with `/`"],
    ),
    row(
        "directory of SageMaker",
        &[File("builds_dir = \"/", "builds_dir = \"/opt/ml/")],
        Config,
        &["`runner.builds_dir`", "a directory of its own"],
    ),
    row(
        "state among the builds",
        &[File("/state\"", "/builds/state\"")],
        Config,
        &["`runner.state_dir`", "`runner.builds_dir`", "beside each other"],
    ),
    row(
        "a short lease",
        &[Line("limits", "lease_seconds = 5")],
        Config,
        &["`limits.lease_seconds` is below 60", "60 or more"],
    ),
    row(
        "a long grace",
        &[File("cancel_grace_seconds = 2", "cancel_grace_seconds = 6000")],
        Config,
        &["`limits.cancel_grace_seconds` is 6000"],
    ),
    row(
        "no time to start",
        &[Line("limits", "provisioning_seconds = 0")],
        Config,
        &["`limits.provisioning_seconds` is 0"],
    ),
    row(
        "no log requests",
        &[Line("trace", "log_requests_per_second = 0")],
        Config,
        &["`trace.log_requests_per_second` is 0"],
    ),
];
