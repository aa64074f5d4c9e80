//! No request leaves the driver that a documented rule refuses, whatever operator and job write.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;
use super::documented::broken;
use crate::cloud::TrainingJobSpec;
use crate::cloud::testing::Memory;
use crate::config::env::Environment;
use crate::config::operator_file;
use crate::config::policy::decide;

/// Texts of a variable, right and wrong ones.
const WISHES: &[(&str, &[&str])] = &[
    ("SAGEMAKER_INSTANCE_TYPE", &["ml.g5.xlarge", "ml.g5.xlarge, ml.m5.large", "g5", "ml.g5"]),
    ("SAGEMAKER_INSTANCE_COUNT", &["0", "1", "100", "101", "-1"]),
    ("SAGEMAKER_VOLUME_SIZE_GB", &["0", "1", "16384", "16385", "4294967296"]),
    ("SAGEMAKER_MAX_RUNTIME", &["0", "1", "28d", "2419201", "18446744073709551615"]),
    ("SAGEMAKER_ROLE_ARN", &["arn:aws:iam::000000000000:role/train", "role"]),
    ("SAGEMAKER_SPOT", &["true", "1", "false", "maybe"]),
    ("SAGEMAKER_SPOT_MAX_WAIT", &["0", "1h", "30d", "31d", "18446744073709551615"]),
    ("SAGEMAKER_CHECKPOINTS", &["true", "false"]),
    ("SAGEMAKER_CHECKPOINTS_REF", &["main", "feature/ü/../x", "a\nb", LONG]),
    ("SAGEMAKER_RETRIES", &["0", "1", "30", "31"]),
    ("SAGEMAKER_KEEP_ALIVE", &["0", "15m", "3600", "3601", "6h"]),
    (
        "SAGEMAKER_TRAINING_PLAN",
        &[
            "arn:aws:sagemaker:us-east-1:000000000000:training-plan/may",
            "arn:aws:sagemaker:r:000000000000:training-plan/a",
        ],
    ),
    ("SAGEMAKER_QUEUE_TIMEOUT", &["0", "7d", "8d"]),
    ("SAGEMAKER_MAX_PENDING", &["0", "1799", "30m", "28d", "29d"]),
    ("SAGEMAKER_RERUN", &["true", "false"]),
    ("SAGEMAKER_INPUT_TRAIN", URIS),
    ("SAGEMAKER_INPUT_train", URIS),
    ("SAGEMAKER_INPUT_X-Y", URIS),
    ("SAGEMAKER_INPUT_SHARED", URIS),
    ("SAGEMAKER_MODEL_OUTPUT", &["s3://models", "s3://models/a/", "models"]),
    ("SAGEMAKER_ENV_HF_HOME", &["/tmp", LONG]),
    ("SAGEMAKER_ENV_1A", &["x"]),
];
const URIS: &[&str] = &[
    "s3://data/churn",
    "s3://data/churn/?mode=FastFile&distribution=ShardedByS3Key&content_type=text/csv",
    "s3://data/churn?mode=Pipe",
    "s3://data/\u{1}",
    "s3://DATA",
    "s3://data/a//b",
    "efs://fs-01234567/a?access=rw",
    "efs://fs-1/a",
    "fsx://fs-0123456789abcdef0/fsx/a",
    "fsx://fs-01234567/a?mode=Pipe",
    LONG,
];
/// Longer than every limit of a text but those of ARNs.
const LONG: &str = include_str!("documented.rs");

/// Lines of `[job]`.
const KEYS: &[&str] = &[
    "spot = true",
    "checkpoints = true",
    "retries = 30",
    "retries = 31",
    "keep_alive_seconds = 3600",
    "keep_alive_seconds = 3601",
    "training_plan = \"arn:aws:sagemaker:us-east-1:000000000000:training-plan/may\"",
    "inputs = { train = \"s3://data/x?mode=FastFile\" }",
    "inputs = { a = \"efs://fs-01234567/a\", A = \"s3://data\" }",
    "model_output = \"s3://models\"",
    "subnets = [\"subnet-1\"]\nsecurity_group_ids = [\"sg-1\"]",
    "subnets = [\"subnet-1\"]\nsecurity_group_ids = [\"sg-1\", \"sg-2\", \"sg-3\", \"sg-4\", \"sg-5\", \"sg-6\"]",
    "subnets = [\"subnet-0123456789abcdef0123456789abcdef\"]\nsecurity_group_ids = [\"sg-1\"]",
    "subnets = [\"subnet-_\"]\nsecurity_group_ids = [\"sg-1\"]",
    "image_repository_access = \"vpc\"",
    "image_credentials_lambda_arn = \"arn:aws:lambda:us-east-1:000000000000:function:login\"",
    "tags = { \"a!\" = \"b\" }",
    "tags = { a = \"<b>\" }",
    "tags = { team = \"ml\" }",
    "environment = { A = \"b\" }",
    "volume_kms_key_id = \"alias/x\"",
];

const RULE: &str = "[[rules]]\nname = \"all\"\n[rules.allow]\ninstance_types = [\"*\"]\nmax_instance_count = 100\nmax_volume_size_gb = 16384\n\
                    max_runtime_seconds = 2419200\nspot = \"allow\"\ncheckpoints = \"allow\"\nmax_retries = 30\nmax_keep_alive_seconds = 3600\n\
                    training_plans = [\"arn:aws:sagemaker:*:000000000000:training-plan/*\"]\nmax_queue_timeout_seconds = 604800\nmax_pending_seconds = 2419200\ninputs = [\"s3://data/**\", \"efs://**\", \"fsx://**\"]\n\
                    model_outputs = [\"s3://models/**\"]\n";

/// The request of a job for which operator and job wrote this; `None` when one of them is refused.
fn request(has_rule: bool, keys: &[&str], variables: &[(&str, &str)], name: &str) -> Option<TrainingJobSpec> {
    let text = format!(
        "{}[aws]\nregion = \"us-east-1\"\ncreator_role_arn = \"arn:aws:iam::000000000000:role/creator\"\n[storage]\nbucket = \"own-bucket\"\n\
         [job]\nrole_arn = \"arn:aws:iam::000000000000:role/train\"\n{}\n",
        if has_rule { RULE } else { "" },
        keys.join("\n")
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let settings = operator_file::load(file.path()).ok()?;
    let pairs = variables.iter().map(|(name, value)| (format!("CUSTOM_ENV_{name}").into(), value.into()));
    let wishes = Environment::from_pairs(pairs).job_variables().ok()?;
    let job = serde_json::json!({
        "id": 4711, "job_info": {"name": name, "project_id": 231, "project_full_path": name}, "image": {"name": "r.example/a:1"},
        "git_info": {"ref": name, "protected": true}, "runner_info": {"timeout": 3600},
    });
    let job = serde_json::from_value(job).unwrap();
    let decision = decide(&job, &wishes, &settings).ok()?;
    let id = SessionId::parse("gitlab-231-4711-abcdef12").unwrap();
    let (keys, memory) = (session_keys(&id, None), Memory::new());
    let agent =
        AgentInputs { keys: &keys, files: "agents/0a", scope: "231-0a", checkpoints: Some("231-0b"), stage: None };
    let mut spec = training_job(&id, &job, &decision, &settings, &*memory.objects, agent);
    spec.name = job_name(&id, 2);
    Some(spec)
}

#[test]
fn wishes_reach_the_request() {
    let variables = [
        ("SAGEMAKER_SPOT", "true"),
        ("SAGEMAKER_MAX_RUNTIME", "2h"),
        ("SAGEMAKER_CHECKPOINTS", "yes"),
        ("SAGEMAKER_RETRIES", "2"),
        ("SAGEMAKER_INPUT_TRAIN", "s3://data/churn?mode=FastFile"),
    ];
    let spec = request(true, &[], &variables, "train").unwrap();
    assert_eq!((spec.spot_max_wait, spec.retries, spec.keep_alive), (Some(3 * 3600), 2, 0));
    assert!(spec.checkpoints_uri.unwrap().starts_with("s3://memory/checkpoints/231-0b/train-"));
    assert_eq!(spec.channels[1].name, "train");
    assert_eq!(spec.environment["SM_CHANNEL_TRAIN"], "/opt/ml/input/data/train");
    assert_eq!(spec.creator.unwrap().tags["sme-checkpoints"], "231-0b");
    let waits = [("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge, ml.m5.large"), ("SAGEMAKER_MAX_PENDING", "2h")];
    let spec = request(true, &[], &waits, "train").unwrap();
    assert_eq!(spec.preferred_types, ["ml.g5.xlarge", "ml.m5.large"]);
    assert_eq!(spec.max_pending.map(Duration::from_secs), Some(Duration::from_hours(2)));
    for alone in
        [("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_KEEP_ALIVE", "15m"), ("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge")]
    {
        let spec = request(true, &[], &[waits[0], alone], "train").unwrap();
        assert_eq!(spec.preferred_types, Vec::<String>::new(), "{alone:?}");
    }
    let plan = "arn:aws:sagemaker:us-east-1:000000000000:training-plan/may";
    let kept = [("SAGEMAKER_KEEP_ALIVE", "15m"), ("SAGEMAKER_TRAINING_PLAN", plan)];
    let spec = request(true, &[], &kept, "train").unwrap();
    assert_eq!(
        (Duration::from_secs(spec.keep_alive), spec.training_plan_arn.as_deref()),
        (Duration::from_mins(15), Some(plan))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::config::env::short_or_long(500, 5_000)))]

    #[test]
    fn no_request_breaks_a_documented_rule(
        has_rule in prop::bool::weighted(0.9),
        keys in proptest::sample::subsequence(KEYS, 0..3),
        chosen in prop::collection::vec((select(WISHES), any::<prop::sample::Index>()), 0..5),
        name in select(vec!["train", "train 1/3", "", "ü<>\n", LONG]),
    ) {
        let variables: Vec<(&str, &str)> = chosen.iter().map(|((name, values), at)| (*name, values[at.index(values.len())])).collect();
        if let Some(spec) = request(has_rule, &keys, &variables, name) {
            prop_assert_eq!(broken(&spec), Vec::<String>::new());
        }
    }
}
