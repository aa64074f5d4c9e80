//! The constraints of every request that the emulator understands, as tables.
//!
//! Source: the public service models. Only data stands here, and the rules between two members that no table can say.

use serde_json::Value;

use super::protocol::{ApiError, text as member};
use super::validate::{Member, Rule, matching, may, must, text};

const MANY: i64 = i64::MAX;
const NAME: Rule = matching(1, 63, "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}");
const S3_URI: Rule = matching(0, 1024, "(https|s3)://([^/]+)/?(.*)");
const KMS_KEY: Rule = matching(0, 2048, "[a-zA-Z0-9:/_-]*");
const INPUT_MODE: Rule = Rule::Enum(&["Pipe", "File", "FastFile"]);
const INSTANCE_TYPE: Rule = Rule::GrowingEnum(instance_types);
const LINE_256: Rule = matching(0, 256, ".*");
const RULE_256: Rule = text(0, 256);
const TAGS: Rule = Rule::List {
    min: 0,
    max: 50,
    each: &Rule::Struct(&[
        must("Key", matching(1, 128, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")),
        must("Value", matching(0, 256, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")),
    ]),
};
const ARN_OF_ANYTHING: Rule = matching(0, 256, r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*/.*");

const CHANNEL: &[Member] = &[
    must("ChannelName", matching(1, 64, r"[A-Za-z0-9\.\-_]+")),
    must(
        "DataSource",
        Rule::Struct(&[
            may(
                "S3DataSource",
                Rule::Struct(&[
                    must("S3DataType", Rule::Enum(&["ManifestFile", "S3Prefix", "AugmentedManifestFile", "Converse"])),
                    must("S3Uri", S3_URI),
                    may("S3DataDistributionType", Rule::Enum(&["FullyReplicated", "ShardedByS3Key"])),
                    may("AttributeNames", Rule::List { min: 0, max: 16, each: &text(1, 256) }),
                    may("InstanceGroupNames", Rule::List { min: 0, max: 5, each: &text(1, 64) }),
                    may("ModelAccessConfig", Rule::Struct(&[must("AcceptEula", Rule::Flag)])),
                    may("HubAccessConfig", Rule::Struct(&[must("HubContentArn", text(0, 255))])),
                ]),
            ),
            may(
                "FileSystemDataSource",
                Rule::Struct(&[
                    must("FileSystemId", matching(11, 21, "(fs-[0-9a-f]{8,})")),
                    must("FileSystemAccessMode", Rule::Enum(&["rw", "ro"])),
                    must("FileSystemType", Rule::Enum(&["EFS", "FSxLustre"])),
                    must("DirectoryPath", text(0, 4096)),
                ]),
            ),
            may("DatasetSource", Rule::Struct(&[must("DatasetArn", text(0, 2048))])),
        ]),
    ),
    may("ContentType", LINE_256),
    may("CompressionType", Rule::Enum(&["None", "Gzip"])),
    may("RecordWrapperType", Rule::Enum(&["None", "RecordIO"])),
    may("InputMode", INPUT_MODE),
    may("ShuffleConfig", Rule::Struct(&[must("Seed", Rule::Integer { min: i64::MIN, max: MANY })])),
];

const ALGORITHM: &[Member] = &[
    may("TrainingImage", matching(0, 255, ".*")),
    may(
        "AlgorithmName",
        matching(
            1,
            170,
            r"(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*/)?([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)",
        ),
    ),
    must("TrainingInputMode", INPUT_MODE),
    may("ContainerEntrypoint", Rule::List { min: 1, max: 100, each: &LINE_256 }),
    may("ContainerArguments", Rule::List { min: 1, max: 100, each: &LINE_256 }),
    may(
        "MetricDefinitions",
        Rule::List {
            min: 0,
            max: 40,
            each: &Rule::Struct(&[must("Name", matching(1, 255, ".+")), must("Regex", matching(1, 500, ".+"))]),
        },
    ),
    may("EnableSageMakerMetricsTimeSeries", Rule::Flag),
    may(
        "TrainingImageConfig",
        Rule::Struct(&[
            must("TrainingRepositoryAccessMode", Rule::Enum(&["Platform", "Vpc"])),
            may(
                "TrainingRepositoryAuthConfig",
                Rule::Struct(&[must(
                    "TrainingRepositoryCredentialsProviderArn",
                    matching(1, 2048, r"arn:[[:alnum:]\-]+:lambda:[[:alnum:]\-]+:[0-9]{12}:function:.*"),
                )]),
            ),
        ]),
    ),
];

const RESOURCES: &[Member] = &[
    may("InstanceType", INSTANCE_TYPE),
    may("InstanceCount", Rule::Integer { min: 0, max: MANY }),
    may("VolumeSizeInGB", Rule::Integer { min: 0, max: MANY }),
    may("VolumeKmsKeyId", KMS_KEY),
    may("KeepAlivePeriodInSeconds", Rule::Integer { min: 0, max: 21_600 }),
    may(
        "InstanceGroups",
        Rule::List {
            min: 0,
            max: 5,
            each: &Rule::Struct(&[
                must("InstanceType", INSTANCE_TYPE),
                must("InstanceCount", Rule::Integer { min: 0, max: MANY }),
                must("InstanceGroupName", text(1, 64)),
            ]),
        },
    ),
    may("TrainingPlanArn", matching(50, 2048, r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:training-plan/.*")),
    may(
        "InstancePreferences",
        Rule::List {
            min: 1,
            max: 5,
            each: &Rule::Struct(&[
                must("InstanceType", INSTANCE_TYPE),
                may("InstanceCount", Rule::Integer { min: 1, max: MANY }),
                may("TrainingPlanArns", Rule::List { min: 1, max: 1, each: &text(50, 2048) }),
            ]),
        },
    ),
];

const EXPERIMENT_NAME: Rule = matching(1, 120, "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}");

/// `CreateTrainingJob`.
pub(crate) const CREATE: &[Member] = &[
    must("TrainingJobName", NAME),
    may("HyperParameters", Rule::Map { max: 100, key: &LINE_256, value: &matching(0, 2500, ".*") }),
    may("AlgorithmSpecification", Rule::Struct(ALGORITHM)),
    must("RoleArn", matching(20, 2048, r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")),
    may("InputDataConfig", Rule::List { min: 1, max: 20, each: &Rule::Struct(CHANNEL) }),
    must(
        "OutputDataConfig",
        Rule::Struct(&[
            must("S3OutputPath", S3_URI),
            may("KmsKeyId", KMS_KEY),
            may("CompressionType", Rule::Enum(&["GZIP", "NONE"])),
        ]),
    ),
    may("ResourceConfig", Rule::Struct(RESOURCES)),
    may(
        "VpcConfig",
        Rule::Struct(&[
            must("SecurityGroupIds", Rule::List { min: 1, max: 5, each: &matching(0, 32, "[-0-9a-zA-Z]+") }),
            must("Subnets", Rule::List { min: 1, max: 16, each: &matching(0, 32, "[-0-9a-zA-Z]+") }),
        ]),
    ),
    may(
        "StoppingCondition",
        Rule::Struct(&[
            may("MaxRuntimeInSeconds", Rule::Integer { min: 1, max: MANY }),
            may("MaxWaitTimeInSeconds", Rule::Integer { min: 1, max: MANY }),
            may("MaxPendingTimeInSeconds", Rule::Integer { min: 1800, max: 2_419_200 }),
        ]),
    ),
    may("Tags", TAGS),
    may("EnableNetworkIsolation", Rule::Flag),
    may("EnableInterContainerTrafficEncryption", Rule::Flag),
    may("EnableManagedSpotTraining", Rule::Flag),
    may("CheckpointConfig", Rule::Struct(&[must("S3Uri", S3_URI), may("LocalPath", text(0, 4096))])),
    may(
        "Environment",
        Rule::Map { max: 100, key: &matching(0, 512, "[a-zA-Z_][a-zA-Z0-9_]*"), value: &matching(0, 512, r"[\S\s]*") },
    ),
    may("RetryStrategy", Rule::Struct(&[must("MaximumRetryAttempts", Rule::Integer { min: 1, max: 30 })])),
    may("RemoteDebugConfig", Rule::Struct(&[may("EnableRemoteDebug", Rule::Flag)])),
    may("InfraCheckConfig", Rule::Struct(&[may("EnableInfraCheck", Rule::Flag)])),
    may("SessionChainingConfig", Rule::Struct(&[may("EnableSessionTagChaining", Rule::Flag)])),
    may(
        "ExperimentConfig",
        Rule::Struct(&[
            may("ExperimentName", EXPERIMENT_NAME),
            may("TrialName", EXPERIMENT_NAME),
            may("TrialComponentDisplayName", EXPERIMENT_NAME),
            may("RunName", EXPERIMENT_NAME),
        ]),
    ),
    may(
        "DebugHookConfig",
        Rule::Struct(&[
            may("S3OutputPath", S3_URI),
            may("HookParameters", Rule::Map { max: 20, key: &text(1, 256), value: &RULE_256 }),
        ]),
    ),
    may("DebugRuleConfigurations", Rule::List { min: 0, max: 20, each: &Rule::Anything }),
    may("ProfilerRuleConfigurations", Rule::List { min: 0, max: 20, each: &Rule::Anything }),
    may(
        "MlflowConfig",
        Rule::Struct(&[
            must("MlflowResourceArn", text(0, 2048)),
            may("MlflowExperimentName", text(1, 256)),
            may("MlflowRunName", text(1, 256)),
        ]),
    ),
    may(
        "ModelPackageConfig",
        Rule::Struct(&[must("ModelPackageGroupArn", text(1, 2048)), may("SourceModelPackageArn", text(1, 2048))]),
    ),
];

/// `DescribeTrainingJob`, `StopTrainingJob` and `DeleteTrainingJob`.
pub(crate) const ONE_JOB: &[Member] = &[must("TrainingJobName", NAME)];

/// `UpdateTrainingJob`.
pub(crate) const UPDATE: &[Member] = &[
    must("TrainingJobName", NAME),
    may("ResourceConfig", Rule::Struct(&[must("KeepAlivePeriodInSeconds", Rule::Integer { min: 0, max: 21_600 })])),
    may("RemoteDebugConfig", Rule::Struct(&[may("EnableRemoteDebug", Rule::Flag)])),
];

/// `ListTrainingJobs`.
pub(crate) const LIST: &[Member] = &[
    may("NextToken", matching(0, 8192, ".*")),
    may("MaxResults", Rule::Integer { min: 1, max: 100 }),
    may("CreationTimeAfter", Rule::Time),
    may("CreationTimeBefore", Rule::Time),
    may("LastModifiedTimeAfter", Rule::Time),
    may("LastModifiedTimeBefore", Rule::Time),
    may("NameContains", matching(0, 63, r"[a-zA-Z0-9\-]+")),
    may("StatusEquals", Rule::Enum(&["InProgress", "Completed", "Failed", "Stopping", "Stopped", "Deleting"])),
    may("SortBy", Rule::Enum(&["Name", "CreationTime", "Status"])),
    may("SortOrder", Rule::Enum(&["Ascending", "Descending"])),
    may("WarmPoolStatusEquals", Rule::Enum(&["Available", "Terminated", "Reused", "InUse"])),
];

/// `AddTags`.
pub(crate) const ADD_TAGS: &[Member] = &[must("ResourceArn", ARN_OF_ANYTHING), must("Tags", TAGS)];
/// `ListTags`.
pub(crate) const LIST_TAGS: &[Member] = &[
    must("ResourceArn", ARN_OF_ANYTHING),
    may("NextToken", text(0, 8192)),
    may("MaxResults", Rule::Integer { min: 50, max: MANY }),
];
/// `DeleteTags`.
pub(crate) const DELETE_TAGS: &[Member] = &[
    must("ResourceArn", ARN_OF_ANYTHING),
    must("TagKeys", Rule::List { min: 1, max: 50, each: &matching(1, 128, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)") }),
];

const GROUP: Rule = matching(1, 512, r"[\.\-_/#A-Za-z0-9]+");
const STREAM: Rule = matching(1, 512, "[^:*]*");
const TOKEN: Rule = text(1, 8192);
const MILLIS: Rule = Rule::Integer { min: 0, max: MANY };

/// `GetLogEvents`.
pub(crate) const GET_LOG_EVENTS: &[Member] = &[
    may("logGroupName", GROUP),
    may("logGroupIdentifier", text(1, 2048)),
    must("logStreamName", STREAM),
    may("startTime", MILLIS),
    may("endTime", MILLIS),
    may("nextToken", TOKEN),
    may("limit", Rule::Integer { min: 1, max: 10_000 }),
    may("startFromHead", Rule::Flag),
];
/// `FilterLogEvents`.
pub(crate) const FILTER_LOG_EVENTS: &[Member] = &[
    may("logGroupName", GROUP),
    may("logGroupIdentifier", text(1, 2048)),
    may("logStreamNames", Rule::List { min: 1, max: 100, each: &STREAM }),
    may("logStreamNamePrefix", STREAM),
    may("startTime", MILLIS),
    may("endTime", MILLIS),
    may("filterPattern", text(0, 1024)),
    may("nextToken", TOKEN),
    may("limit", Rule::Integer { min: 1, max: 10_000 }),
];
/// `DescribeLogStreams`.
pub(crate) const DESCRIBE_LOG_STREAMS: &[Member] = &[
    may("logGroupName", GROUP),
    may("logGroupIdentifier", text(1, 2048)),
    may("logStreamNamePrefix", STREAM),
    may("orderBy", Rule::Enum(&["LogStreamName", "LastEventTime"])),
    may("descending", Rule::Flag),
    may("nextToken", TOKEN),
    may("limit", Rule::Integer { min: 1, max: 50 }),
];
/// `DescribeLogGroups`.
pub(crate) const DESCRIBE_LOG_GROUPS: &[Member] = &[
    may("logGroupNamePrefix", GROUP),
    may("logGroupNamePattern", text(0, 512)),
    may("nextToken", TOKEN),
    may("limit", Rule::Integer { min: 1, max: 50 }),
];
/// `CreateLogGroup` and `DeleteLogGroup`.
pub(crate) const ONE_GROUP: &[Member] = &[must("logGroupName", GROUP)];
/// `CreateLogStream` and `DeleteLogStream`.
pub(crate) const ONE_STREAM: &[Member] = &[must("logGroupName", GROUP), must("logStreamName", STREAM)];
/// `PutLogEvents`.
pub(crate) const PUT_LOG_EVENTS: &[Member] = &[
    must("logGroupName", GROUP),
    must("logStreamName", STREAM),
    must(
        "logEvents",
        Rule::List {
            min: 1,
            max: 10_000,
            each: &Rule::Struct(&[must("timestamp", MILLIS), must("message", text(1, 1_048_576))]),
        },
    ),
];

/// Families with their sizes (a number is that many `xlarge`, 1 is `xlarge`); the set ages as the real one grows.
const FAMILIES: &[(&str, &str)] = &[
    ("m4", "1 2 4 10 16"),
    ("m5", "large 1 2 4 12 24"),
    ("m6i", "large 1 2 4 8 12 16 24 32"),
    ("m7i", "large 1 2 4 8 12 16 24 48"),
    ("c4", "1 2 4 8"),
    ("c5", "1 2 4 9 18"),
    ("c5n", "1 2 4 9 18"),
    ("c6i", "1 2 4 8 12 16 24 32"),
    ("c7i", "large 1 2 4 8 12 16 24 48"),
    ("r5", "large 1 2 4 8 12 16 24"),
    ("r5d", "large 1 2 4 8 12 16 24"),
    ("r7i", "large 1 2 4 8 12 16 24 48"),
    ("t3", "medium large 1 2"),
    ("p2", "1 8 16"),
    ("p3", "2 8 16"),
    ("p3dn", "24"),
    ("p4d", "24"),
    ("p4de", "24"),
    ("p5", "4 48"),
    ("p5e", "48"),
    ("p5en", "48"),
    ("p6-b200", "48"),
    ("p6-b300", "48"),
    ("p6e-gb200", "36"),
    ("g4dn", "1 2 4 8 12 16"),
    ("g5", "1 2 4 8 12 16 24 48"),
    ("g6", "1 2 4 8 12 16 24 48"),
    ("g6e", "1 2 4 8 12 16 24 48"),
    ("g7e", "2 4 8 12 24 48"),
    ("trn1", "2 32"),
    ("trn1n", "32"),
    ("trn2", "48"),
];

/// Families with a local disk, where a key for the volume is refused.
const LOCAL_DISK: &[&str] =
    &["g4dn", "g5", "g6", "g6e", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "r5d", "trn1", "trn1n", "trn2"];

fn instance_types() -> Vec<String> {
    let sized = |family: &str, size: &str| match size {
        "1" => format!("ml.{family}.xlarge"),
        word if word.starts_with(|first: char| first.is_ascii_digit()) => format!("ml.{family}.{word}xlarge"),
        word => format!("ml.{family}.{word}"),
    };
    FAMILIES.iter().flat_map(|(family, sizes)| sizes.split(' ').map(move |size| sized(family, size))).collect()
}

/// The rules of `CreateTrainingJob` between two members.
pub(crate) fn check_create(request: &Value) -> Result<(), ApiError> {
    let fail = |message: &str| Err(ApiError::validation(message));
    let Some(algorithm) = request.get("AlgorithmSpecification") else {
        return fail("AlgorithmSpecification must be specified for this training job.");
    };
    match (member(algorithm, "TrainingImage"), member(algorithm, "AlgorithmName")) {
        (Some(_), Some(_)) => return fail("Only one of TrainingImage and AlgorithmName can be specified."),
        (None, None) => return fail("Either TrainingImage or AlgorithmName must be specified."),
        _ => {}
    }
    let Some(resources) = request.get("ResourceConfig") else {
        return fail("ResourceConfig must be specified for this training job.");
    };
    check_resources(request, resources)?;
    let Some(stopping) = request.get("StoppingCondition") else {
        return fail("StoppingCondition must be specified for this training job.");
    };
    let spot = request.get("EnableManagedSpotTraining").and_then(Value::as_bool).unwrap_or(false);
    let run = stopping.get("MaxRuntimeInSeconds").and_then(Value::as_i64).unwrap_or(86_400);
    if run > 2_419_200 {
        return fail("MaxRuntimeInSeconds must be at most 2419200 seconds.");
    }
    match stopping.get("MaxWaitTimeInSeconds").and_then(Value::as_i64) {
        Some(_) if !spot => return fail("MaxWaitTimeInSeconds is supported only with managed spot training."),
        Some(wait) if wait < run => {
            return fail(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
            );
        }
        None if spot => {
            return fail(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
            );
        }
        _ => {}
    }
    check_channels(request)?;
    check_tags(request.get("Tags"))
}

/// Keys of a tag list must differ and must not begin with `aws:`.
pub(crate) fn check_tags(tags: Option<&Value>) -> Result<(), ApiError> {
    let mut seen = std::collections::BTreeSet::new();
    for tag in tags.and_then(Value::as_array).into_iter().flatten() {
        let key = member(tag, "Key").unwrap_or_default();
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::validation("Tag keys with the prefix aws: are reserved for system use."));
        }
        if !seen.insert(key) {
            return Err(ApiError::validation(format!("Tag keys must be unique. Duplicate key: {key}")));
        }
    }
    Ok(())
}

fn check_resources(request: &Value, resources: &Value) -> Result<(), ApiError> {
    let fail = |message: String| Err(ApiError::validation(message));
    for refused in ["SelectedInstanceType", "SelectedInstanceCount"] {
        if resources.get(refused).is_some_and(|value| !value.is_null()) {
            return fail(format!("{refused} cannot be specified in CreateTrainingJob."));
        }
    }
    let count = resources.get("InstanceCount").and_then(Value::as_i64);
    let instance_type = member(resources, "InstanceType");
    let preferences = resources.get("InstancePreferences").and_then(Value::as_array);
    let groups = resources.get("InstanceGroups").and_then(Value::as_array).filter(|groups| !groups.is_empty());
    if let Some(preferences) = preferences {
        let spot = request.get("EnableManagedSpotTraining").and_then(Value::as_bool).unwrap_or(false);
        if instance_type.is_some() || groups.is_some() || spot {
            return fail("InstancePreferences cannot be combined with InstanceType, InstanceGroups or EnableManagedSpotTraining.".into());
        }
        let types: Vec<_> = preferences.iter().filter_map(|item| member(item, "InstanceType")).collect();
        if types.iter().enumerate().any(|(index, one)| types.iter().skip(index + 1).any(|other| one == other)) {
            return fail("Each InstanceType can be specified only once in InstancePreferences.".into());
        }
        let counted = preferences.iter().filter(|item| item.get("InstanceCount").is_some()).count();
        let consistent = if count.is_some() { counted == 0 } else { counted == preferences.len() };
        if !consistent {
            return fail(
                "InstanceCount must be specified either in ResourceConfig or in every instance preference.".into(),
            );
        }
        return Ok(());
    }
    if groups.is_some() {
        return Ok(());
    }
    let Some(instance_type) = instance_type else {
        return fail("InstanceType must be specified in ResourceConfig.".into());
    };
    if count.unwrap_or(0) < 1 {
        return fail("InstanceCount must be greater than or equal to 1 in ResourceConfig.".into());
    }
    let family = instance_type.split('.').nth(1).unwrap_or_default();
    if LOCAL_DISK.contains(&family) {
        if resources.get("VolumeKmsKeyId").is_some() {
            return fail(format!(
                "VolumeKmsKeyId is not supported for instance type {instance_type} with local storage."
            ));
        }
    } else if resources.get("VolumeSizeInGB").and_then(Value::as_i64).unwrap_or(0) < 1 {
        return fail(format!("VolumeSizeInGB must be specified for instance type {instance_type}."));
    }
    Ok(())
}

fn check_channels(request: &Value) -> Result<(), ApiError> {
    let job_mode = request.pointer("/AlgorithmSpecification/TrainingInputMode").and_then(Value::as_str);
    let mut names = std::collections::BTreeSet::new();
    for channel in request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten() {
        let name = member(channel, "ChannelName").unwrap_or_default();
        if !names.insert(name) {
            return Err(ApiError::validation(format!("Channel names must be unique. Duplicate channel: {name}")));
        }
        let mode = member(channel, "InputMode").or(job_mode);
        if member(channel, "CompressionType") == Some("Gzip") && mode != Some("Pipe") {
            return Err(ApiError::validation("Gzip compression is supported only in Pipe mode."));
        }
        let sources = channel.get("DataSource").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        if sources != 1 {
            return Err(ApiError::validation(format!("Exactly one data source must be specified for channel {name}.")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validate::check;
    use super::*;

    fn good() -> Value {
        json!({
            "TrainingJobName": "job-1",
            "AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"},
            "RoleArn": "arn:aws:iam::000000000000:role/test",
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        })
    }

    fn set(pointer: &str, value: Value) -> Value {
        let mut request = good();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        request.pointer_mut(parent).unwrap()[name] = value;
        request
    }

    fn verdict(request: &Value) -> Result<(), ApiError> {
        check(request, CREATE).and_then(|()| check_create(request))
    }

    #[test]
    fn every_pattern_of_the_tables_compiles() {
        fn walk(rule: &Rule) {
            match rule {
                Rule::Text { pattern: Some(pattern), .. } => {
                    regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
                }
                Rule::List { each, .. } => walk(each),
                Rule::Map { key, value, .. } => [key, value].into_iter().for_each(|rule| walk(rule)),
                Rule::Struct(members) => members.iter().for_each(|member| walk(&member.rule)),
                _ => {}
            }
        }
        for table in [
            CREATE,
            ONE_JOB,
            UPDATE,
            LIST,
            ADD_TAGS,
            LIST_TAGS,
            DELETE_TAGS,
            GET_LOG_EVENTS,
            FILTER_LOG_EVENTS,
            DESCRIBE_LOG_STREAMS,
            DESCRIBE_LOG_GROUPS,
            ONE_GROUP,
            ONE_STREAM,
            PUT_LOG_EVENTS,
        ] {
            walk(&Rule::Struct(table));
        }
    }

    #[test_case::test_case("/TrainingJobName", json!("a".repeat(63)), true; "longest name")]
    #[test_case::test_case("/TrainingJobName", json!("a".repeat(64)), false; "name too long")]
    #[test_case::test_case("/TrainingJobName", json!(format!("a{}b", "-".repeat(62))), false; "hyphens do not hide the length")]
    #[test_case::test_case("/TrainingJobName", json!("a_b"), false; "underscore")]
    #[test_case::test_case("/TrainingJobName", json!("ab-"), false; "trailing hyphen")]
    #[test_case::test_case("/Environment", json!({"A": "x".repeat(512), "B": "two\nlines"}), true; "longest value")]
    #[test_case::test_case("/Environment", json!({"A": "x".repeat(513)}), false; "value too long")]
    #[test_case::test_case("/Environment", json!({"1A": "x"}), false; "bad key")]
    #[test_case::test_case("/ResourceConfig/InstanceType", json!("ml.g5.48xlarge"), true; "known type")]
    #[test_case::test_case("/ResourceConfig/InstanceType", json!("ml.g5.3xlarge"), false; "unknown size")]
    #[test_case::test_case("/ResourceConfig/SelectedInstanceType", json!("ml.m5.large"), false; "selected type")]
    #[test_case::test_case("/ResourceConfig/VolumeSizeInGB", json!(0), false; "no volume")]
    #[test_case::test_case("/StoppingCondition/MaxWaitTimeInSeconds", json!(60), false; "wait without spot")]
    #[test_case::test_case("/StoppingCondition/MaxPendingTimeInSeconds", json!(1799), false; "pending too short")]
    #[test_case::test_case("/AlgorithmSpecification/ContainerArguments", json!(["a\nb"]), false; "newline in argument")]
    #[test_case::test_case("/AlgorithmSpecification/ContainerArguments", json!([]), false; "empty list")]
    #[test_case::test_case("/RoleArn", json!("role"), false; "role")]
    #[test_case::test_case("/Tags", json!([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]), false; "same tag twice")]
    #[test_case::test_case("/Tags", json!([{"Key": "a!", "Value": ""}]), false; "tag characters")]
    #[test_case::test_case("/Tags", json!([{"Key": "aws:x", "Value": ""}]), false; "reserved tag")]
    fn limits_of_create(pointer: &str, value: Value, accepted: bool) {
        let verdict = verdict(&set(pointer, value));
        assert_eq!(verdict.is_ok(), accepted, "{verdict:?}");
    }

    #[test]
    fn a_twenty_first_channel_is_refused() {
        let channel = |index: usize| {
            json!({"ChannelName": format!("c{index}"),
                   "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/x"}}})
        };
        let channels = |count| Value::Array((0..count).map(channel).collect());
        assert_eq!(verdict(&set("/InputDataConfig", channels(20))), Ok(()));
        let error = verdict(&set("/InputDataConfig", channels(21))).unwrap_err();
        assert!(error.message.ends_with("Member must have length less than or equal to 20"), "{error:?}");
    }

    #[test]
    fn an_unknown_type_answers_with_the_set_of_known_ones() {
        let error = verdict(&set("/ResourceConfig/InstanceType", json!("ml.q1.large"))).unwrap_err();
        assert!(error.message.starts_with(
            "1 validation error detected: Value 'ml.q1.large' at 'resourceConfig.instanceType' failed to satisfy \
             constraint: Member must satisfy enum value set: [ml.m4.xlarge, "
        ));
    }
}
