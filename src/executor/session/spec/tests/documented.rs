//! The documented rules of `CreateTrainingJob`, as far as a request of the executor could break them, each with its source. They use none of
//! the code under test.

use crate::base::metric::MetricDefinition;
use crate::cloud::testing::example_spec;
use crate::cloud::{
    CHECKPOINTS_DIR, Channel, ChannelMode, ChannelSource, CreatorSession, FileSystemKind, Network, TrainingJobSpec,
    VpcRegistry,
};

/// A demand of AWS, the place where it is written, the check, and a change of [`full`] that breaks the rule.
type DocumentedRule = (&'static str, &'static str, fn(&TrainingJobSpec) -> bool, fn(&mut TrainingJobSpec));

/// The service model `sagemaker` 2017-07-24, as in botocore 1.44.5.
const MODEL: &str = "service model";
const POOLS: &str = "developer guide, SageMaker AI Managed Warm Pools";
const SPOT: &str = "developer guide, Managed Spot Training";
const FILE_SYSTEMS: &str = "developer guide, Setting Up Training Jobs to Access Datasets";
const REFERENCE: &str = "API reference, CreateTrainingJob";
const PLANS: &str = "developer guide, training plans";
const PREFERENCES: &str = "API reference, InstancePreferences of ResourceConfig";
const STS: &str = "API reference, AssumeRole";

fn is_one_line(text: &str) -> bool {
    !text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
}

/// `^(https|s3)://([^/]+)/?(.*)$`, of which the executor sends `s3` alone.
fn is_uri(uri: &str) -> bool {
    uri.strip_prefix("s3://").is_some_and(|place| !place.is_empty() && !place.starts_with('/')) && is_one_line(uri)
}

/// `[a-zA-Z0-9](-*[a-zA-Z0-9])*`.
fn is_name(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`.
fn is_tag_text(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c))
}

/// Account and resource of an ARN of this service.
fn resource<'a>(arn: &'a str, service: &str) -> Option<(&'a str, &'a str)> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, of, _, account, resource] = parts[..] else { return None };
    (partition.starts_with("aws") && of == service).then_some((account, resource))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_key_id(key: Option<&String>) -> bool {
    key.is_none_or(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || ":/_-".contains(c)))
}

fn all_ids(spec: &TrainingJobSpec, holds: fn(&String) -> bool) -> bool {
    let network = spec.network.as_ref();
    network.is_none_or(|network| network.subnets.iter().chain(&network.security_group_ids).all(holds))
}

fn uris(spec: &TrainingJobSpec) -> Vec<&String> {
    let of_channel = |channel: &'_ Channel| matches!(channel.source, ChannelSource::S3 { .. });
    let channels = spec.channels.iter().filter(|channel| of_channel(channel));
    channels
        .filter_map(|channel| match &channel.source {
            ChannelSource::S3 { uri, .. } | ChannelSource::Listed { uri } => Some(uri),
            ChannelSource::FileSystem { .. } => None,
        })
        .collect()
}

fn file_systems(spec: &TrainingJobSpec) -> impl Iterator<Item = (&String, &String, ChannelMode)> {
    spec.channels.iter().filter_map(|channel| match &channel.source {
        ChannelSource::FileSystem { id, path, .. } => Some((id, path, channel.mode)),
        ChannelSource::S3 { .. } | ChannelSource::Listed { .. } => None,
    })
}

fn creators(spec: &TrainingJobSpec, holds: fn(&CreatorSession) -> bool) -> bool {
    spec.creator.as_ref().is_none_or(holds)
}

fn file_system(id: &str, path: &str) -> ChannelSource {
    let (id, path) = (id.to_owned(), path.to_owned());
    ChannelSource::FileSystem { kind: FileSystemKind::Efs, id, path, is_writable: false }
}

fn s3(uri: &str) -> ChannelSource {
    ChannelSource::S3 { uri: uri.to_owned(), is_sharded: false }
}

/// A request with everything in it, which keeps all rules.
pub(super) fn full() -> TrainingJobSpec {
    let mut spec = example_spec("gitlab-1-2-abcdef12");
    spec.network = Some(Network { subnets: vec!["subnet-1".to_owned()], security_group_ids: vec!["sg-1".to_owned()] });
    let channel = |name: &str, source, mode| Channel {
        name: name.to_owned(),
        source,
        mode,
        content_type: Some("text/csv".to_owned()),
    };
    spec.channels.push(channel("train", s3("s3://data/churn/"), ChannelMode::FastFile));
    spec.channels.push(channel("shared", file_system("fs-01234567", "/a"), ChannelMode::File));
    spec.checkpoints_uri = Some("s3://b/checkpoints/x/".to_owned());
    spec.metrics = vec![MetricDefinition { name: "loss".to_owned(), regex: "loss: (.*)".to_owned() }];
    (spec.retries, spec.keep_alive) = (3, 600);
    spec.training_plan_arn = Some("arn:aws:sagemaker:us-east-1:123456789012:training-plan/may".to_owned());
    let lambda = Some("arn:aws:lambda:us-east-1:123456789012:function:login".to_owned());
    spec.vpc_registry = Some(VpcRegistry { credentials_lambda_arn: lambda });
    (spec.output_kms_key_id, spec.volume_kms_key_id) = (Some("alias/a".to_owned()), Some("alias/b".to_owned()));
    spec.creator = Some(CreatorSession {
        role_arn: "arn:aws:iam::123456789012:role/creator".to_owned(),
        name: spec.name.clone(),
        tags: [("sme-project".to_owned(), "1-ab".to_owned())].into(),
    });
    spec
}

#[rustfmt::skip]
pub(super) const RULES: &[DocumentedRule] = &[
    ("TrainingJobName: 1 to 63 characters", MODEL, |spec| (1..=63).contains(&spec.name.len()), |spec| spec.name = "a".repeat(64)),
    ("TrainingJobName: letters, digits, hyphens within", MODEL, |spec| is_name(&spec.name), |spec| spec.name.push('-')),
    ("TrainingImage: 255 characters", MODEL, |spec| spec.image.chars().count() <= 255, |spec| spec.image = "i".repeat(256)),
    ("TrainingImage: one line", MODEL, |spec| is_one_line(&spec.image), |spec| spec.image.push('\n')),
    ("TrainingImage or AlgorithmName is needed", REFERENCE, |spec| !spec.image.is_empty(), |spec| spec.image.clear()),
    ("ContainerEntrypoint: 100 entries", MODEL, |spec| spec.entrypoint.len() <= 100, |spec| spec.entrypoint = vec!["x".to_owned(); 101]),
    ("ContainerEntrypoint: 256 characters", MODEL, |spec| spec.entrypoint.iter().all(|text| text.len() <= 256), |spec| spec.entrypoint[0] = "x".repeat(257)),
    ("ContainerEntrypoint: one line each", MODEL, |spec| spec.entrypoint.iter().all(|text| is_one_line(text)), |spec| spec.entrypoint[0].push('\n')),
    ("ContainerArguments: 100 entries", MODEL, |spec| spec.arguments.len() <= 100, |spec| spec.arguments = vec!["x".to_owned(); 101]),
    ("ContainerArguments: 256 characters", MODEL, |spec| spec.arguments.iter().all(|text| text.len() <= 256), |spec| spec.arguments = vec!["x".repeat(257)]),
    ("ContainerArguments: one line each", MODEL, |spec| spec.arguments.iter().all(|text| is_one_line(text)), |spec| spec.arguments = vec!["a\nb".to_owned()]),
    ("RoleArn: 20 to 2048 characters", MODEL, |spec| (20..=2048).contains(&spec.role_arn.len()), |spec| spec.role_arn = "arn:aws:iam::1:r".to_owned()),
    ("RoleArn: an IAM role of an account", MODEL, |spec| resource(&spec.role_arn, "iam").is_some_and(|(account, role)| is_account(account) && role.starts_with("role")), |spec| spec.role_arn = "arn:aws:iam::123456789012:user/x".to_owned()),
    ("InputDataConfig: 1 to 20 channels", MODEL, |spec| (1..=20).contains(&spec.channels.len()), |spec| spec.channels = vec![spec.channels[0].clone(); 21]),
    ("ChannelName: 1 to 64 characters", MODEL, |spec| spec.channels.iter().all(|channel| (1..=64).contains(&channel.name.len())), |spec| spec.channels[0].name = "n".repeat(65)),
    ("ChannelName: letters, digits, `.`, `-`, `_`", MODEL, |spec| spec.channels.iter().all(|channel| channel.name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))), |spec| spec.channels[0].name = "a b".to_owned()),
    ("Channel names are unique", REFERENCE, |spec| spec.channels.iter().map(|channel| &channel.name).collect::<std::collections::BTreeSet<_>>().len() == spec.channels.len(), |spec| spec.channels.push(spec.channels[0].clone())),
    ("S3Uri: 1024 characters", MODEL, |spec| uris(spec).iter().all(|uri| uri.len() <= 1024), |spec| spec.channels[1].source = s3(&format!("s3://b/{}/", "k".repeat(1024)))),
    ("S3Uri: a URI", MODEL, |spec| uris(spec).iter().all(|uri| is_uri(uri)), |spec| spec.channels[1].source = s3("data/churn/")),
    ("S3Prefix in FastFile mode names a whole folder", FILE_SYSTEMS, |spec| uris(spec).iter().all(|uri| uri.ends_with('/')), |spec| spec.channels[1].source = s3("s3://data/churn")),
    ("FileSystemId: 11 to 21 characters", MODEL, |spec| file_systems(spec).all(|(id, ..)| (11..=21).contains(&id.len())), |spec| spec.channels[2].source = file_system("fs-1", "/a")),
    ("FileSystemId: `fs-` and hex digits", MODEL, |spec| file_systems(spec).all(|(id, ..)| id.strip_prefix("fs-").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))), |spec| spec.channels[2].source = file_system("fs-0123456G", "/a")),
    ("DirectoryPath: 4096 characters", MODEL, |spec| file_systems(spec).all(|(_, path, _)| path.len() <= 4096), |spec| spec.channels[2].source = file_system("fs-01234567", &"/a".repeat(2049))),
    ("DirectoryPath: one line", MODEL, |spec| file_systems(spec).all(|(_, path, _)| is_one_line(path)), |spec| spec.channels[2].source = file_system("fs-01234567", "/a\nb")),
    ("DirectoryPath: a full path", "API reference, FileSystemDataSource", |spec| file_systems(spec).all(|(_, path, _)| path.starts_with('/')), |spec| spec.channels[2].source = file_system("fs-01234567", "a")),
    ("File systems: File mode alone", FILE_SYSTEMS, |spec| file_systems(spec).all(|(.., mode)| mode == ChannelMode::File), |spec| spec.channels[2].mode = ChannelMode::Pipe),
    ("File systems need a VPC", FILE_SYSTEMS, |spec| file_systems(spec).next().is_none() || spec.network.is_some(), |spec| spec.network = None),
    ("ContentType: 256 characters", MODEL, |spec| spec.channels.iter().all(|channel| channel.content_type.as_ref().is_none_or(|kind| kind.len() <= 256)), |spec| spec.channels[1].content_type = Some("t".repeat(257))),
    ("ContentType: one line", MODEL, |spec| spec.channels.iter().all(|channel| channel.content_type.as_ref().is_none_or(|kind| is_one_line(kind))), |spec| spec.channels[1].content_type = Some("a\nb".to_owned())),
    ("A script from a channel: File mode, all objects on each instance", "developer guide, How Amazon SageMaker Runs Your Training Image", |spec| spec.channels[0].mode == ChannelMode::File && matches!(spec.channels[0].source, ChannelSource::S3 { is_sharded: false, .. }), |spec| spec.channels[0].mode = ChannelMode::FastFile),
    ("S3OutputPath: 1024 characters", MODEL, |spec| spec.output_uri.len() <= 1024, |spec| spec.output_uri = format!("s3://b/{}", "k".repeat(1024))),
    ("S3OutputPath: a URI", MODEL, |spec| is_uri(&spec.output_uri), |spec| spec.output_uri = "s3:///x".to_owned()),
    ("Output KmsKeyId: 2048 characters", MODEL, |spec| spec.output_kms_key_id.as_ref().is_none_or(|key| key.len() <= 2048), |spec| spec.output_kms_key_id = Some("k".repeat(2049))),
    ("Output KmsKeyId: characters", MODEL, |spec| is_key_id(spec.output_kms_key_id.as_ref()), |spec| spec.output_kms_key_id = Some("a b".to_owned())),
    ("VolumeKmsKeyId: 2048 characters", MODEL, |spec| spec.volume_kms_key_id.as_ref().is_none_or(|key| key.len() <= 2048), |spec| spec.volume_kms_key_id = Some("k".repeat(2049))),
    ("VolumeKmsKeyId: characters", MODEL, |spec| is_key_id(spec.volume_kms_key_id.as_ref()), |spec| spec.volume_kms_key_id = Some("a b".to_owned())),
    ("InstanceType: `ml.<family>.<size>`", MODEL, |spec| spec.instance_type.starts_with("ml.") && spec.instance_type.split('.').count() == 3, |spec| spec.instance_type = "g5.xlarge".to_owned()),
    ("InstancePreferences: 1 to 5 types", MODEL, |spec| spec.preferred_types.len() <= 5, |spec| spec.preferred_types = vec!["ml.m5.large".to_owned(); 6]),
    ("InstancePreferences: each type once", PREFERENCES, |spec| spec.preferred_types.iter().collect::<std::collections::BTreeSet<_>>().len() == spec.preferred_types.len(), |spec| spec.preferred_types = vec!["ml.m5.large".to_owned(); 2]),
    ("InstancePreferences are not for spot", PREFERENCES, |spec| spec.preferred_types.is_empty() || spec.spot_max_wait.is_none(), |spec| (spec.preferred_types, spec.spot_max_wait) = (vec!["ml.m5.large".to_owned()], Some(7200))),
    ("MaxPendingTimeInSeconds: 1800 to 2419200", MODEL, |spec| spec.max_pending.is_none_or(|wait| (1800..=2_419_200).contains(&wait)), |spec| spec.max_pending = Some(1799)),
    ("InstanceCount: at least 1", REFERENCE, |spec| spec.instance_count >= 1, |spec| spec.instance_count = 0),
    ("VolumeSizeInGB: at least 1", REFERENCE, |spec| spec.volume_size_gb >= 1, |spec| spec.volume_size_gb = 0),
    ("VolumeSizeInGB: 16384", "developer guide, Training storage", |spec| spec.volume_size_gb <= 16_384, |spec| spec.volume_size_gb = 16_385),
    ("KeepAlivePeriodInSeconds: one hour", POOLS, |spec| spec.keep_alive <= 3600, |spec| spec.keep_alive = 3601),
    ("Keep-alive is not for spot", POOLS, |spec| spec.keep_alive == 0 || spec.spot_max_wait.is_none(), |spec| spec.spot_max_wait = Some(7200)),
    ("TrainingPlanArn: 50 to 2048 characters", MODEL, |spec| spec.training_plan_arn.as_ref().is_none_or(|arn| (50..=2048).contains(&arn.len())), |spec| spec.training_plan_arn = Some("arn:aws:sagemaker:r:123456789012:training-plan/a".to_owned())),
    ("TrainingPlanArn: of a plan", MODEL, |spec| spec.training_plan_arn.as_ref().is_none_or(|arn| resource(arn, "sagemaker").is_some_and(|(account, plan)| is_account(account) && plan.starts_with("training-plan/"))), |spec| spec.training_plan_arn = Some("arn:aws:sagemaker:us-east-1:123456789012:training-job/may".to_owned())),
    ("A training plan is not for spot", PLANS, |spec| spec.training_plan_arn.is_none() || spec.spot_max_wait.is_none(), |spec| (spec.keep_alive, spec.spot_max_wait) = (0, Some(7200))),
    ("Subnets: 1 to 16", MODEL, |spec| spec.network.as_ref().is_none_or(|network| (1..=16).contains(&network.subnets.len())), |spec| spec.network.as_mut().unwrap().subnets = vec!["subnet-1".to_owned(); 17]),
    ("SecurityGroupIds: 1 to 5", MODEL, |spec| spec.network.as_ref().is_none_or(|network| (1..=5).contains(&network.security_group_ids.len())), |spec| spec.network.as_mut().unwrap().security_group_ids.clear()),
    ("Ids of the VPC: 32 characters", MODEL, |spec| all_ids(spec, |id| id.len() <= 32), |spec| spec.network.as_mut().unwrap().subnets = vec!["s".repeat(33)]),
    ("Ids of the VPC: letters, digits, hyphens", MODEL, |spec| all_ids(spec, |id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')), |spec| spec.network.as_mut().unwrap().subnets = vec!["subnet_1".to_owned()]),
    ("MaxRuntimeInSeconds: at least 1", MODEL, |spec| spec.max_runtime >= 1, |spec| spec.max_runtime = 0),
    ("MaxRuntimeInSeconds: 28 days", REFERENCE, |spec| spec.max_runtime <= 2_419_200, |spec| spec.max_runtime = 2_419_201),
    ("MaxWaitTimeInSeconds: at least the run time", MODEL, |spec| spec.spot_max_wait.is_none_or(|wait| wait >= spec.max_runtime), |spec| spec.spot_max_wait = Some(spec.max_runtime - 1)),
    ("MaxWaitTimeInSeconds: an integer", SPOT, |spec| spec.spot_max_wait.is_none_or(|wait| i32::try_from(wait).is_ok()), |spec| spec.spot_max_wait = Some(1 << 31)),
    ("A job ends 30 days after its creation", REFERENCE, |spec| spec.spot_max_wait.is_none_or(|wait| wait <= 2_592_000), |spec| spec.spot_max_wait = Some(2_592_001)),
    ("Tags: 50", MODEL, |spec| spec.tags.len() <= 50, |spec| spec.tags.extend((0..50).map(|number| (format!("t{number}"), String::new())))),
    ("Tag keys: 1 to 128 characters", MODEL, |spec| spec.tags.keys().all(|key| (1..=128).contains(&key.chars().count())), |spec| drop(spec.tags.insert(String::new(), String::new()))),
    ("Tag keys: characters", MODEL, |spec| spec.tags.keys().all(|key| is_tag_text(key)), |spec| drop(spec.tags.insert("a!".to_owned(), String::new()))),
    ("Tag keys do not begin with `aws:`", "API reference, Tag", |spec| spec.tags.keys().all(|key| !key.to_ascii_lowercase().starts_with("aws:")), |spec| drop(spec.tags.insert("aws:x".to_owned(), String::new()))),
    ("Tag values: 256 characters", MODEL, |spec| spec.tags.values().all(|value| value.chars().count() <= 256), |spec| drop(spec.tags.insert("a".to_owned(), "v".repeat(257)))),
    ("Tag values: characters", MODEL, |spec| spec.tags.values().all(|value| is_tag_text(value)), |spec| drop(spec.tags.insert("a".to_owned(), "<b>".to_owned()))),
    ("Environment: 100 entries", MODEL, |spec| spec.environment.len() <= 100, |spec| spec.environment.extend((0..100).map(|number| (format!("E{number}"), String::new())))),
    ("Environment names: 512 characters", MODEL, |spec| spec.environment.keys().all(|name| name.len() <= 512), |spec| drop(spec.environment.insert("N".repeat(513), String::new()))),
    ("Environment names: letters, digits, `_`, no digit first", MODEL, |spec| spec.environment.keys().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())), |spec| drop(spec.environment.insert("1A".to_owned(), String::new()))),
    ("Environment values: 512 characters", MODEL, |spec| spec.environment.values().all(|value| value.chars().count() <= 512), |spec| drop(spec.environment.insert("A".to_owned(), "v".repeat(513)))),
    ("MetricDefinitions: 40 entries", MODEL, |spec| spec.metrics.len() <= 40, |spec| spec.metrics = vec![spec.metrics[0].clone(); 41]),
    ("MetricDefinitions: names of 1 to 255 characters", MODEL, |spec| spec.metrics.iter().all(|metric| (1..=255).contains(&metric.name.chars().count())), |spec| spec.metrics[0].name.clear()),
    ("MetricDefinitions: expressions of 1 to 500 characters", MODEL, |spec| spec.metrics.iter().all(|metric| (1..=500).contains(&metric.regex.chars().count())), |spec| spec.metrics[0].regex = "x".repeat(501)),
    ("MaximumRetryAttempts: 30", MODEL, |spec| spec.retries <= 30, |spec| spec.retries = 31),
    ("CheckpointConfig S3Uri: 1024 characters", MODEL, |spec| spec.checkpoints_uri.as_ref().is_none_or(|uri| uri.len() <= 1024), |spec| spec.checkpoints_uri = Some(format!("s3://b/{}", "k".repeat(1024)))),
    ("CheckpointConfig S3Uri: a URI", MODEL, |spec| spec.checkpoints_uri.as_ref().is_none_or(|uri| is_uri(uri)), |spec| spec.checkpoints_uri = Some("x".to_owned())),
    ("CheckpointConfig LocalPath: none that SageMaker uses for something else", "developer guide, Use checkpoints", |spec| spec.channels.iter().all(|channel| !CHECKPOINTS_DIR.starts_with(&format!("/opt/ml/input/data/{}", channel.name)) && channel.name != ".."), |spec| spec.channels[0].name = "..".to_owned()),
    ("TrainingRepositoryAccessMode Vpc needs a VPC", "developer guide, Use a Private Docker Registry", |spec| spec.vpc_registry.is_none() || spec.network.is_some(), |spec| (spec.network, spec.channels) = (None, spec.channels[..1].to_vec())),
    ("TrainingRepositoryCredentialsProviderArn: a Lambda function, 2048 characters", MODEL, |spec| spec.vpc_registry.as_ref().and_then(|registry| registry.credentials_lambda_arn.as_ref()).is_none_or(|arn| arn.len() <= 2048 && resource(arn, "lambda").is_some_and(|(account, function)| is_account(account) && function.starts_with("function:"))), |spec| spec.vpc_registry = Some(VpcRegistry { credentials_lambda_arn: Some("x".to_owned()) })),
    ("RoleSessionName: 2 to 64 characters", STS, |spec| creators(spec, |creator| (2..=64).contains(&creator.name.len())), |spec| spec.creator.as_mut().unwrap().name = "n".repeat(65)),
    ("RoleSessionName: characters", STS, |spec| creators(spec, |creator| creator.name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))), |spec| spec.creator.as_mut().unwrap().name = "a b".to_owned()),
    ("Session tags: 50 of 256 characters", STS, |spec| creators(spec, |creator| creator.tags.len() <= 50 && creator.tags.values().all(|value| value.len() <= 256 && is_tag_text(value))), |spec| drop(spec.creator.as_mut().unwrap().tags.insert("a".to_owned(), "v".repeat(257)))),
];

/// Refused rules, in words.
pub(super) fn broken(spec: &TrainingJobSpec) -> Vec<String> {
    RULES
        .iter()
        .filter(|(_, _, holds, _)| !holds(spec))
        .map(|(what, source, ..)| format!("{what} ({source})"))
        .collect()
}

#[test]
fn each_rule_is_kept_by_a_full_request_and_broken_by_a_wrong_one() {
    assert_eq!(broken(&full()), Vec::<String>::new());
    assert!(RULES.len() >= 60, "{}", RULES.len());
    for (what, source, holds, breaks) in RULES {
        let mut spec = full();
        breaks(&mut spec);
        assert!(!holds(&spec), "{what} ({source})");
    }
}
