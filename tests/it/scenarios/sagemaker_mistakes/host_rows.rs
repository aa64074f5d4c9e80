//! Mistakes of the runner's host and of the AWS account, a row each.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::rows::{
    Administrator, Aws, BUCKET, Config, Disk, Env, File, Line, Make, Mistake, Ordinary, Prepare, of_job, row,
};

/// The agent is sent anew: calls that an earlier row has spared.
const ANEW: Make = Line("storage", "prefix = \"anew\"");

/// A file in the place of a directory.
fn block(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
    std::fs::write(path, "").unwrap();
}

/// A directory that its owner may not write.
fn close(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555)).unwrap();
}

/// The runner's service, its host, and the job.
pub(super) const HOST: &[Mistake] = &[
    row(
        "region absent",
        &[File("region = \"us-east-1\"\n", ""), Env("AWS_EC2_METADATA_DISABLED", Some("true"))],
        Prepare,
        &["no AWS region is known", "`aws.region`", "`AWS_REGION`"],
    ),
    row(
        "no credentials",
        &[
            Env("AWS_ACCESS_KEY_ID", None),
            Env("AWS_SECRET_ACCESS_KEY", None),
            Env("AWS_EC2_METADATA_DISABLED", Some("true")),
        ],
        Prepare,
        &["credentials", "instance profile", "`AWS_ACCESS_KEY_ID`"],
    ),
    row(
        "half of the credentials",
        &[Env("AWS_SECRET_ACCESS_KEY", None), Env("AWS_EC2_METADATA_DISABLED", Some("true"))],
        Prepare,
        &["both `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`"],
    ),
    row(
        "nobody at the endpoint",
        &[File("endpoint_url = \"http://127.0.0.1:", "endpoint_url = \"http://127.0.0.1:1/")],
        Prepare,
        &["`aws.endpoint_url`"],
    ),
    row(
        "state_dir is a file",
        &[Disk(|root| block(&root.join("state")))],
        Config,
        &["/state", "make `runner.state_dir` a directory that the runner's user can write"],
    ),
    row(
        "state_dir that the runner's user cannot write",
        &[Ordinary(|root| close(&root.join("state")))],
        Config,
        &["Permission denied", "make `runner.state_dir` a directory that the runner's user can write"],
    ),
    row(
        "builds_dir is a file",
        &[Disk(|root| block(&root.join("builds")))],
        Prepare,
        &["/builds", "make `runner.builds_dir` a directory"],
    ),
    row(
        "cache_dir is a file",
        &[Disk(|root| block(&root.join("cache")))],
        Prepare,
        &["/cache", "make `runner.cache_dir` a directory"],
    ),
    row(
        "PATH without programs",
        &[Env("PATH", Some("/nowhere"))],
        Prepare,
        &["`bash` is not in the runner's PATH", "install `bash` on the runner host"],
    ),
    row(
        "a log filter that is none",
        &[Env("SAGEMAKER_EXECUTOR_LOG", Some("executor=loud"))],
        Config,
        &["set `SAGEMAKER_EXECUTOR_LOG` to"],
    ),
    row(
        "started by hand",
        &[Env("JOB_RESPONSE_FILE", None)],
        Config,
        &["`JOB_RESPONSE_FILE`", "`sagemaker-executor try -- COMMAND`"],
    ),
    of_job(
        "a type that is none",
        &[Make::Job("SAGEMAKER_INSTANCE_TYPE", "g5.xlarge")],
        &["`g5.xlarge`", "set `SAGEMAKER_INSTANCE_TYPE`"],
    ),
    of_job(
        "a role that is none",
        &[Make::Job("SAGEMAKER_ROLE_ARN", "train")],
        &["`SAGEMAKER_ROLE_ARN`", "arn:aws:iam::<account>:role/<name>"],
    ),
];

/// What AWS refuses.
pub(super) const OF_AWS: &[Mistake] = &[
    row(
        "bucket that is not there",
        &[File(BUCKET, "\"another-bucket\""), Administrator],
        Prepare,
        &["NoSuchBucket", "set `storage.bucket`"],
    ),
    row(
        "bucket of another region",
        &[
            Aws("HeadObject", "PermanentRedirect", "", 301),
            Aws("GetObject", "PermanentRedirect", "use the specified endpoint", 301),
        ],
        Prepare,
        &["set `aws.region`", "`storage.bucket`"],
    ),
    row(
        "bucket of others",
        &[Aws("HeadObject", "AccessDenied", "", 403), Aws("GetObject", "AccessDenied", "Access Denied", 403)],
        Prepare,
        &["need `s3:GetObject`", "s3://ci-bucket/"],
    ),
    row(
        "KMS key that is not there",
        &[ANEW, Aws("*", "KMS.NotFoundException", "Alias x is not found.", 400)],
        Prepare,
        &["set `storage.kms_key_id`"],
    ),
    row(
        "KMS key of others",
        &[
            ANEW,
            Aws("*", "AccessDenied", "User: x is not authorized to perform: kms:GenerateDataKey on resource: y", 403),
        ],
        Prepare,
        &["need `kms:GenerateDataKey`"],
    ),
    row(
        "expired credentials",
        &[Aws("*", "ExpiredToken", "The provided token has expired.", 400)],
        Prepare,
        &["does not accept the credentials", "instance profile"],
    ),
    row(
        "clock of S3",
        &[Aws("*", "RequestTimeTooSkewed", "The difference is too large.", 403)],
        Prepare,
        &["set the clock of the host"],
    ),
    row(
        "clock of SageMaker",
        &[Aws("CreateTrainingJob", "InvalidSignatureException", "Signature expired: a is now earlier than b", 400)],
        Prepare,
        &["set the clock of the host"],
    ),
    row(
        "no permission",
        &[Aws(
            "CreateTrainingJob",
            "AccessDeniedException",
            "not authorized to perform: sagemaker:CreateTrainingJob on",
            400,
        )],
        Prepare,
        &["role `sagemaker:CreateTrainingJob`", "`runner-config/iam/`"],
    ),
    row(
        "no permission to pass the role",
        &[Aws("CreateTrainingJob", "AccessDeniedException", "not authorized to perform: iam:PassRole on", 400)],
        Prepare,
        &["`iam:PassRole` for `arn:aws:iam::000000000000:role/train`"],
    ),
    row(
        "role of another account",
        &[Aws("CreateTrainingJob", "ValidationException", "RoleArn: Cross-account pass role is not allowed.", 400)],
        Prepare,
        &["check `job.role_arn`", "account of the runner host"],
    ),
    row(
        "role that trusts nobody",
        &[Aws("CreateTrainingJob", "ValidationException", "Could not assume role x.", 400)],
        Prepare,
        &["`job.role_arn`", "trust `sagemaker.amazonaws.com`"],
    ),
    row(
        "volume's KMS key",
        &[Aws("CreateTrainingJob", "ValidationException", "The KMS key ID provided is not valid.", 400)],
        Prepare,
        &["check `job.volume_kms_key_id` and `storage.kms_key_id`"],
    ),
    row(
        "subnet that is not there",
        &[Aws("CreateTrainingJob", "ValidationException", "Subnet ID subnet-1 does not exist", 400)],
        Prepare,
        &["check `job.subnets` and `job.security_group_ids`"],
    ),
    of_job(
        "type that the region has not",
        &[Aws("CreateTrainingJob", "ValidationException", "InstanceType ml.x is not supported for Training.", 400)],
        &["set `SAGEMAKER_INSTANCE_TYPE` to a type"],
    ),
];
