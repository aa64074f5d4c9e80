//! Decisions about single values, with and without rules. `property` tries all combinations.

mod property;

use test_case::test_case;

use super::*;
use crate::base::failure::Kind;

fn job() -> JobContext {
    serde_json::from_str(
        r#"{"id": 1, "token": "glcbt-secret", "job_info": {"project_id": 2}, "runner_info": {"timeout": 3600},
            "image": {"name": "img:1"}, "variables": [{"key": "PASSWORD", "value": "hunter22", "masked": true}]}"#,
    )
    .unwrap()
}

fn settings() -> Settings {
    toml::from_str("[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws-cn:iam::123456789012:role/x/y\"\n").unwrap()
}

fn env(name: &str, value: &str) -> JobVariables {
    JobVariables { environment: [(name.to_owned(), value.to_owned())].into(), ..JobVariables::default() }
}

#[test]
fn defaults_come_from_the_operator_and_the_payload() {
    let decision = decide(&job(), &JobVariables::default(), &settings()).unwrap();
    assert_eq!(decision.image, "img:1");
    assert_eq!(decision.instance_types, ["ml.m5.large"]);
    assert_eq!(decision.max_runtime, 3600);
    assert_eq!(decision.instance_count, 1);
}

#[test_case(&JobVariables { instance_types: vec!["g5.xlarge".into()], ..Default::default() }, "SAGEMAKER_INSTANCE_TYPE")]
#[test_case(&JobVariables { instance_count: Some(0), ..Default::default() }, "SAGEMAKER_INSTANCE_COUNT")]
#[test_case(&JobVariables { volume_size_gb: Some(20_000), ..Default::default() }, "SAGEMAKER_VOLUME_SIZE_GB")]
#[test_case(&JobVariables { max_runtime: Some(std::time::Duration::from_hours(25)), ..Default::default() }, "SAGEMAKER_MAX_RUNTIME")]
#[test_case(&JobVariables { role_arn: Some("arn:aws:iam::1:role/x".into()), ..Default::default() }, "SAGEMAKER_ROLE_ARN")]
#[test_case(&env("PW", "x-hunter22"), "SAGEMAKER_ENV_PW")]
#[test_case(&env("SAGEMAKER_EXECUTOR_BUCKET", "mine"), "SAGEMAKER_ENV_SAGEMAKER_EXECUTOR_BUCKET")]
#[test_case(&env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"), "SAGEMAKER_ENV_AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")]
#[test_case(&env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/x"), "SAGEMAKER_ENV_AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")]
#[test_case(&env("1A", "x"), "SAGEMAKER_ENV_1A")]
#[test_case(&env("LONG", &"x".repeat(513)), "SAGEMAKER_ENV_LONG")]
fn a_wrong_wish_is_the_users_and_names_its_variable(wishes: &JobVariables, variable: &str) {
    let failure = decide(&job(), wishes, &settings()).unwrap_err();
    assert_eq!(failure.kind, Kind::User);
    let text = crate::base::failure::render(&failure.into());
    assert!(text.contains(&format!("`{variable}`")) && !text.contains("hunter22"), "{text}");
}

#[test]
fn a_resolved_secret_does_not_reach_the_environment() {
    let secrets = ["from-a-vault".to_owned()];
    let failure = refuse_secrets(&env("PW", "x from-a-vault"), &secrets).unwrap_err();
    assert_eq!(failure.kind, Kind::User);
    let text = crate::base::failure::render(&failure.into());
    assert!(text.contains("`SAGEMAKER_ENV_PW`") && !text.contains("from-a-vault"), "{text}");
    assert!(refuse_secrets(&env("LR", "0.1"), &secrets).is_ok());
    let metrics = JobVariables { metrics: Some("loss=from-a-vault (.*)".to_owned()), ..JobVariables::default() };
    let failure = crate::base::failure::render(&refuse_secrets(&metrics, &secrets).unwrap_err().into());
    assert!(failure.contains("`SAGEMAKER_METRICS`") && !failure.contains("environment"), "{failure}");
}

#[test]
fn a_missing_role_is_the_operators() {
    let mut settings = settings();
    settings.job.role_arn = None;
    let failure = decide(&job(), &JobVariables::default(), &settings).unwrap_err();
    assert_eq!(failure.kind, Kind::System);
    assert!(crate::base::failure::render(&failure.into()).contains("`job.role_arn`"));
}

/// The operator's file with rules, and a job of `ml/churn`.
fn with_rules(rules: &str) -> Settings {
    let text = format!(
        "{rules}\n[storage]\nbucket = \"own-bucket\"\n[job]\nrole_arn = \"arn:aws:iam::123456789012:role/x\"\ninstance_count = 2\n[aws]\nregion = \"eu-west-1\"\n"
    );
    toml::from_str(&text).unwrap()
}

fn payload(changes: &serde_json::Value) -> JobContext {
    let mut job = serde_json::json!({
        "id": 1, "job_info": {"project_id": 2, "project_full_path": "ml/churn"}, "image": {"name": "r.example/train:1"},
        "git_info": {"ref": "main", "protected": true, "repo_url": "https://t:t@gitlab.example.com/ml/churn.git"}
    });
    job.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(job).unwrap()
}

fn refusal(job: &JobContext, wishes: &JobVariables, rules: &str) -> String {
    let failure = decide(job, wishes, &with_rules(rules)).unwrap_err();
    assert_eq!(failure.kind, Kind::User);
    crate::base::failure::render(&failure.into())
}

fn wish(name: &str, value: &str) -> JobVariables {
    let pairs = [(format!("CUSTOM_ENV_{name}").into(), value.into())];
    crate::config::env::Environment::from_pairs(pairs).job_variables().unwrap()
}

const ONE: &str = "[[rules]]\nname = \"one\"\n[rules.allow]\n";

#[test_case("SAGEMAKER_INSTANCE_TYPE", "ml.p5.48xlarge", "", &["`ml.p5.48xlarge`", "the rule `one` allows `ml.m5.large`", "`allow.instance_types`"]; "type")]
#[test_case("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge, ml.p5.48xlarge", "instance_types = [\"ml.g5.*\"]", &["`ml.p5.48xlarge`", "allows `ml.g5.*`"]; "one of two types")]
#[test_case("SAGEMAKER_INSTANCE_COUNT", "3", "", &["asks for 3", "at most 2", "`allow.max_instance_count`"]; "count")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "a=ml.m5.large x 1, b=ml.p5.48xlarge x 1", "", &["`ml.p5.48xlarge`", "allows `ml.m5.large`", "`allow.instance_types`"]; "type of a group")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "a=ml.m5.large x 2, b=ml.m5.large", "", &["asks for 3 instances", "at most 2", "`allow.max_instance_count`"]; "all groups together")]
#[test_case("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge, ml.p6e-gb200.36xlarge", "instance_types = [\"*\"]", &["`ml.p6e-gb200.36xlarge` has Arm processors", "`SAGEMAKER_INSTANCE_TYPE`"]; "processors of another kind")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "a=ml.m5.large, b=ml.p6e-gb200.36xlarge", "instance_types = [\"*\"]", &["`ml.p6e-gb200.36xlarge` has Arm processors"]; "processors of another kind in a group")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "a=ml.m5.large, a=ml.m5.large", "", &["names the group `a` twice"]; "two groups of one name")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "two=ml.m5.large x two", "", &["`SAGEMAKER_INSTANCE_GROUPS` has a part", "as in `data=ml.c5.2xlarge x 2, train=ml.g5.xlarge x 1`"]; "no group")]
#[test_case("SAGEMAKER_INSTANCE_GROUPS", "a=ml.m5.large,b=ml.m5.large,c=ml.m5.large,d=ml.m5.large,e=ml.m5.large,f=ml.m5.large", "max_instance_count = 9", &["has 6 groups; SageMaker takes 5"]; "too many groups")]
#[test_case("SAGEMAKER_VOLUME_SIZE_GB", "51", "", &["asks for 51", "at most 50"]; "volume")]
#[test_case("SAGEMAKER_MAX_RUNTIME", "2h", "max_runtime_seconds = 3600", &["asks for 7200 s", "at most 3600 s"]; "run time")]
#[test_case("SAGEMAKER_ROLE_ARN", "arn:aws:iam::123456789012:role/y", "", &["role/y`", "allows `arn:aws:iam::123456789012:role/x`"]; "role")]
#[test_case("SAGEMAKER_ENV_PATH", "x", "environment = [\"HF_*\"]", &["`SAGEMAKER_ENV_PATH` asks for the name `PATH`", "allows `HF_*`"]; "environment")]
#[test_case("SAGEMAKER_ENV_AWS_DEFAULT_REGION", "x", "environment = [\"*\"]", &["`SAGEMAKER_ENV_AWS_DEFAULT_REGION` cannot be set"]; "AWS")]
#[test_case("SAGEMAKER_ENV_LD_PRELOAD", "x", "", &["`SAGEMAKER_ENV_LD_PRELOAD` cannot be set"]; "loader")]
#[test_case("SAGEMAKER_SPOT", "true", "", &["`SAGEMAKER_SPOT` asks for `true`", "allows `false` alone", "`allow.spot`"]; "spot")]
#[test_case("SAGEMAKER_SPOT", "false", "spot = \"only\"", &["`SAGEMAKER_SPOT` asks for `false`", "allows `true` alone"]; "on demand")]
#[test_case("SAGEMAKER_CHECKPOINTS", "true", "checkpoints = \"refuse\"", &["`SAGEMAKER_CHECKPOINTS` asks for `true`", "`allow.checkpoints`"]; "checkpoints")]
#[test_case("SAGEMAKER_RETRIES", "2", "max_retries = 1", &["asks for 2", "at most 1", "`allow.max_retries`"]; "retries")]
#[test_case("SAGEMAKER_RETRIES", "31", "max_retries = 30", &["`SAGEMAKER_RETRIES` is 31; it goes from 0 to 30"]; "too many retries")]
#[test_case("SAGEMAKER_KEEP_ALIVE", "15m", "", &["asks for 900 s", "at most 0 s", "`allow.max_keep_alive_seconds`"]; "keep alive")]
#[test_case("SAGEMAKER_KEEP_ALIVE", "2h", "max_keep_alive_seconds = 3600", &["is 7200 s; it goes from 0 to 3600 s"]; "too long alive")]
#[test_case("SAGEMAKER_TRAINING_PLAN", "arn:aws:sagemaker:us-east-1:123456789012:training-plan/may", "", &["asks for `arn:aws:sagemaker:us-east-1:123456789012:training-plan/may`", "allows none", "`allow.training_plans`"]; "plan")]
#[test_case("SAGEMAKER_TRAINING_PLAN", "may", "training_plans = [\"**\"]", &["is not the ARN of a training plan"]; "no plan")]
#[test_case("SAGEMAKER_MAX_PENDING", "2h", "", &["asks for 7200 s", "at most 0 s", "`allow.max_pending_seconds`"]; "wait for instances")]
#[test_case("SAGEMAKER_MAX_PENDING", "60", "", &["is 60 s", "from 1800 to", "`1800s` or more"]; "short wait for instances")]
#[test_case("SAGEMAKER_MAX_PENDING", "2h", "max_pending_seconds = 14400", &["no effect on `ml.m5.large`", "`ml.trn*`"]; "wait for instances without an accelerator")]
#[test_case("SAGEMAKER_REMOTE_DEBUG", "true", "", &["`SAGEMAKER_REMOTE_DEBUG` asks for `true`", "`allow.remote_debug`"]; "remote debug")]
#[test_case("SAGEMAKER_KEEP_ON_FAILURE", "30m", "", &["asks for 1800 s", "at most 0 s", "`allow.max_keep_on_failure_seconds`"]; "kept on failure")]
#[test_case("SAGEMAKER_KEEP_ON_FAILURE", "2d", "max_keep_on_failure_seconds = 3600", &["is 172800 s; it goes from 0 to 86400 s"]; "kept for too long")]
#[test_case("SAGEMAKER_QUEUE_TIMEOUT", "2h", "", &["asks for 7200 s", "at most 3600 s", "`allow.max_queue_timeout_seconds`"]; "queue")]
#[test_case("SAGEMAKER_INPUT_TRAIN", "s3://data/churn?mode=Pipe", "", &["`SAGEMAKER_INPUT_TRAIN` asks for `s3://data/churn`", "allows none", "`allow.inputs`"]; "input")]
#[test_case("SAGEMAKER_INPUT_TRAIN", "s3://data/churn-secret", "inputs = [\"s3://data/churn\", \"s3://data/churn/**\"]", &["asks for `s3://data/churn-secret`"]; "a folder beside")]
#[test_case("SAGEMAKER_INPUT_TRAIN", "s3://data/churn?mode=Fast", "inputs = [\"**\"]", &["`SAGEMAKER_INPUT_TRAIN` has `mode`", "`s3://<bucket>/<folder>[?mode=File|FastFile|Pipe"]; "mode")]
#[test_case("SAGEMAKER_INPUT_TRAIN", "efs://fs-01234567/a", "inputs = [\"**\"]", &["`SAGEMAKER_INPUT_TRAIN` is a file system", "`job.subnets`"]; "no VPC")]
#[test_case("SAGEMAKER_MODEL_OUTPUT", "s3://models/x", "model_outputs = [\"s3://models/churn/**\"]", &["asks for `s3://models/x`", "`allow.model_outputs`"]; "model")]
#[test_case("SAGEMAKER_INPUT_X", "s3://own-bucket/sagemaker-executor/hosts", "inputs = [\"s3://*/**\"]", &["`SAGEMAKER_INPUT_X` asks for `s3://own-bucket/sagemaker-executor/hosts`", "own objects are in `s3://own-bucket/sagemaker-executor`"]; "own objects as input")]
#[test_case("SAGEMAKER_INPUT_X", "s3://own-bucket", "inputs = [\"**\"]", &["`SAGEMAKER_INPUT_X` asks for `s3://own-bucket`", "own objects"]; "a folder that holds own objects")]
#[test_case("SAGEMAKER_INPUT_X", "s3://own-bucket/data", "inputs = [\"s3://*/**\"]", &["for which `s3://*/**` does not hold", "`allow.inputs`, as in `s3://own-bucket/data/**`"]; "the own bucket by a wide pattern")]
#[test_case("SAGEMAKER_MODEL_OUTPUT", "s3://own-bucket/sagemaker-executor/agents", "model_outputs = [\"s3://*/**\"]", &["`SAGEMAKER_MODEL_OUTPUT` asks for `s3://own-bucket/sagemaker-executor/agents`", "own objects"]; "own objects as model")]
#[test_case("SAGEMAKER_INSTANCE_TYPE", "ml.a.a,ml.b.b,ml.c.c,ml.d.d,ml.e.e,ml.f.f,ml.g.g,ml.h.h,ml.i.i,ml.j.j,ml.k.k", "instance_types = [\"*\"]", &["`SAGEMAKER_INSTANCE_TYPE` names 11 instance types; 10 fit"]; "eleven types")]
#[test_case("X", "", "images = [\"r.example/other\"]", &["`image` asks for `r.example/train:1`", "allows `r.example/other`"]; "image")]
#[test_case("X", "", "image_tags = \"refuse\"", &["a tag", "@sha256:"]; "tag")]
#[test_case("X", "", "regions = [\"us-east-1\"]", &["`eu-west-1`", "allows `us-east-1`"]; "region")]
#[test_case("X", "", "instance_types = [\"ml.g5.*\"]", &["names no instance type", "`ml.g5.*`"]; "no default type")]
fn a_refusal_names_the_value_the_bound_and_the_rule(name: &str, value: &str, allow: &str, words: &[&str]) {
    let text = refusal(&payload(&serde_json::json!({})), &wish(name, value), &format!("{ONE}{allow}"));
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn wishes(pairs: &[(&str, &str)]) -> JobVariables {
    let pairs = pairs.iter().map(|(name, value)| (format!("CUSTOM_ENV_{name}").into(), value.into()));
    crate::config::env::Environment::from_pairs(pairs).job_variables().unwrap()
}

const ALL_WISHES: &str = "spot = \"allow\"\ncheckpoints = \"allow\"\nmax_retries = 9\nmax_keep_alive_seconds = 3600\ninputs = [\"s3://data/**\"]\n\
                          training_plans = [\"arn:aws:sagemaker:*:123456789012:training-plan/*\"]\n";

#[test_case(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_MAX_RUNTIME", "2h"), ("SAGEMAKER_SPOT_MAX_WAIT", "1h")], &["`SAGEMAKER_SPOT_MAX_WAIT` is 3600 s", "set `SAGEMAKER_SPOT_MAX_WAIT` to `10800s` or more"]; "wait shorter than the run time")]
#[test_case(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_SPOT_MAX_WAIT", "31d")], &["`SAGEMAKER_SPOT_MAX_WAIT` is 2678400 s", "30 days"]; "wait too long")]
#[test_case(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_KEEP_ALIVE", "15m")], &["`SAGEMAKER_KEEP_ALIVE` and `SAGEMAKER_SPOT` cannot go together", "set `SAGEMAKER_KEEP_ALIVE` to `0`"]; "keep alive with spot")]
#[test_case(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_TRAINING_PLAN", "arn:aws:sagemaker:us-east-1:123456789012:training-plan/may")], &["`SAGEMAKER_TRAINING_PLAN` and `SAGEMAKER_SPOT` cannot go together", "remove `SAGEMAKER_TRAINING_PLAN`"]; "plan with spot")]
#[test_case(&[("SAGEMAKER_INPUT_A", "s3://data/x"), ("SAGEMAKER_INPUT_a", "s3://data/y")], &["`SAGEMAKER_INPUT_A` and `SAGEMAKER_INPUT_a` are the same channel, `a`"]; "a channel twice")]
#[test_case(&[("SAGEMAKER_INPUT_SAGEMAKER-EXECUTOR", "s3://data/x")], &["`SAGEMAKER_INPUT_SAGEMAKER-EXECUTOR` does not end in the name of a channel"]; "our own channel")]
#[test_case(&[("SAGEMAKER_CHECKPOINTS", "true"), ("SAGEMAKER_CHECKPOINTS_REF", "a\nb")], &["`SAGEMAKER_CHECKPOINTS_REF` is not the name of a branch"]; "no ref")]
fn wishes_that_contradict_each_other_are_refused(pairs: &[(&str, &str)], words: &[&str]) {
    let text = refusal(&payload(&serde_json::json!({})), &wishes(pairs), &format!("{ONE}{ALL_WISHES}"));
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn twenty_channels_are_one_too_many() {
    let names: Vec<String> = (0..20).map(|number| format!("SAGEMAKER_INPUT_I{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "s3://data/x")).collect();
    let job = payload(&serde_json::json!({}));
    let rules = format!("{ONE}{ALL_WISHES}");
    assert!(refusal(&job, &wishes(&pairs), &rules).contains("has 20 input channels; 19 fit"));
    assert_eq!(decide(&job, &wishes(&pairs[1..]), &with_rules(&rules)).unwrap().data.inputs.len(), 19);
}

#[test]
fn a_spot_job_waits_an_hour_and_its_script_may_run_again() {
    let (job, settings) = (payload(&serde_json::json!({})), with_rules(&format!("{ONE}{ALL_WISHES}")));
    let decided = |pairs: &[(&str, &str)]| decide(&job, &wishes(pairs), &settings).unwrap();
    let spot = decided(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_MAX_RUNTIME", "2h")]).capacity;
    assert_eq!((spot.spot_max_wait, spot.rerun), (Some(3 * 3600), true));
    assert!(!decided(&[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_RERUN", "false")]).capacity.rerun);
    let plain = decided(&[("SAGEMAKER_SPOT_MAX_WAIT", "9h"), ("SAGEMAKER_CHECKPOINTS_REF", "main")]);
    assert_eq!((plain.capacity.spot_max_wait, plain.capacity.rerun, plain.warnings.len()), (None, false, 2));
    assert!(decided(&[("SAGEMAKER_RETRIES", "1")]).capacity.rerun);
}

/// Parts of `image:` that cannot act are told; those that ask for what happens anyway are not; a platform that does not exist is refused.
#[test]
fn an_image_with_entrypoint_user_or_platform() {
    let of = |image: serde_json::Value| {
        decide(&payload(&serde_json::json!({ "image": image })), &JobVariables::default(), &with_rules(ONE))
    };
    let image = |entrypoint: &[&str], user: &str, platform: &str| {
        let docker = serde_json::json!({"docker": {"user": user, "platform": platform}});
        serde_json::json!({"name": "r.example/train:1", "entrypoint": entrypoint, "executor_opts": docker})
    };
    for plain in [image(&[], "", ""), image(&[""], "", "linux/amd64")] {
        assert_eq!(of(plain).unwrap().warnings, Vec::<String>::new());
    }
    for (entrypoint, user, words) in [
        (&["python"][..], "", "`image:entrypoint` has no effect"),
        (&[], "1000", "`image:docker:user` has no effect"),
        (&["/bin/sh", "-c"], "1000", "`image:entrypoint` and `image:docker:user` have no effect"),
    ] {
        let warnings = of(image(entrypoint, user, "")).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(words), "{warnings:?}");
    }
    let refused = crate::base::failure::render(&of(image(&[], "", "linux/arm64")).unwrap_err().into());
    assert!(refused.contains("asks for `linux/arm64`") && refused.contains("`linux/amd64`"), "{refused}");
}

#[test]
fn the_operators_values_hold_for_jobs_that_say_nothing() {
    let text = "[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws:iam::123456789012:role/x\"\nspot = true\ncheckpoints = true\nretries = 2\n\
                inputs = { Train = \"s3://data/x\" }\nmodel_output = \"s3://models/a?compression=none\"\n";
    let settings = toml::from_str(text).unwrap();
    let decision = decide(&payload(&serde_json::json!({})), &JobVariables::default(), &settings).unwrap();
    assert!(decision.capacity.spot_max_wait.is_some() && decision.capacity.retries == 2);
    assert_eq!(decision.data.checkpoints_ref.as_deref(), Some("main"));
    let output = decision.data.model_output.unwrap();
    assert_eq!((output.folder.as_str(), output.is_archive), ("s3://models/a/", false));
    assert_eq!(
        (decision.data.inputs[0].set_by.as_str(), decision.data.inputs[0].channel.name.as_str()),
        ("job.inputs.Train", "train")
    );
}

#[test]
fn data_beside_the_executors_own_objects_is_free() {
    let job = payload(&serde_json::json!({}));
    let decided = |name: &str, value: &str, allow: &str| {
        decide(&job, &wish(name, value), &with_rules(&format!("{ONE}{allow}"))).map(|decision| decision.data)
    };
    assert!(
        decided("SAGEMAKER_INPUT_X", "s3://own-bucket/data", "inputs = [\"s3://*/**\", \"s3://own-bucket/data/**\"]")
            .is_ok()
    );
    assert!(decided("SAGEMAKER_INPUT_X", "s3://other/sagemaker-executor/hosts", "inputs = [\"s3://*/**\"]").is_ok());
    assert!(
        decided("SAGEMAKER_MODEL_OUTPUT", "s3://own-bucket/models/", "model_outputs = [\"s3://own-bucket/models/**\"]")
            .is_ok()
    );
}

#[test]
fn a_type_that_is_named_twice_is_asked_for_once() {
    let wish = wish("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge,ml.m5.large,ml.g5.xlarge");
    let settings = with_rules(&format!("{ONE}instance_types = [\"*\"]"));
    let decision = decide(&payload(&serde_json::json!({})), &wish, &settings).unwrap();
    assert_eq!(decision.instance_types, ["ml.g5.xlarge", "ml.m5.large"]);
}

#[test]
fn a_job_may_decline_the_operators_training_plan() {
    let mut settings = with_rules("");
    settings.job.training_plan = Some("arn:aws:sagemaker:eu-west-1:123456789012:training-plan/may".to_owned());
    let job = payload(&serde_json::json!({}));
    let plan = |wishes: &JobVariables| decide(&job, wishes, &settings).unwrap().capacity.training_plan;
    assert_eq!(plan(&JobVariables::default()), settings.job.training_plan);
    assert_eq!(plan(&wish("SAGEMAKER_TRAINING_PLAN", "none")), None);
}

#[test]
fn a_fork_chooses_no_checkpoints_of_another_ref() {
    let git = serde_json::json!({"git_info": {"ref": "refs/merge-requests/3/head"}});
    let wishes =
        wishes(&[("SAGEMAKER_CHECKPOINTS", "true"), ("SAGEMAKER_CHECKPOINTS_REF", "refs/merge-requests/4/head")]);
    let text = refusal(&payload(&git), &wishes, &format!("{ONE}checkpoints = \"allow\""));
    assert!(text.contains("`SAGEMAKER_CHECKPOINTS_REF` is not for the merge requests of forks"), "{text}");
}

#[test]
fn without_rules_a_job_gets_the_operators_values_alone() {
    let job = payload(&serde_json::json!({}));
    let text = refusal(&job, &wish("SAGEMAKER_INSTANCE_TYPE", "ml.m5.xlarge"), "");
    assert!(text.contains("allows `ml.m5.large`") && text.contains("`[[rules]]`"), "{text}");
    let decision = decide(&job, &wish("SAGEMAKER_INSTANCE_COUNT", "1"), &with_rules("")).unwrap();
    assert_eq!((decision.instance_count, decision.rule), (1, None));
    assert_eq!(decision.image, "r.example/train:1", "images are free");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = "[[rules]]\nname = \"protected\"\n[rules.match]\nnamespaces = [\"ML\"]\nrefs = [\"main\", \"release/*\"]\nprotected = true\ninstances = [\"gitlab.example.com\"]\nfork = false\n\
                 [rules.allow]\nroles = [\"arn:aws:iam::123456789012:role/prod\", \"arn:aws:iam::123456789012:role/other\"]\n\
                 subnets = [\"subnet-1\"]\nsecurity_group_ids = [\"sg-1\"]\nmax_jobs = 3\n\
                 [[rules]]\nname = \"rest\"\n[rules.match]\nprojects = [\"ml/*\"]\n";
    let rule = |changes: serde_json::Value| {
        let decided = decide(&payload(&changes), &JobVariables::default(), &with_rules(rules));
        decided.map(|decision| {
            (decision.rule.unwrap(), decision.role_arn, decision.network.is_some(), decision.warnings.len())
        })
    };
    let git = |name: &str, protected: Option<bool>| serde_json::json!({"git_info": {"ref": name, "protected": protected, "repo_url": "https://gitlab.example.com/x.git"}});
    let arn = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    assert_eq!(rule(git("release/1", Some(true))).unwrap(), ("protected".to_owned(), arn("prod"), true, 0));
    assert_eq!(rule(git("main", None)).unwrap(), ("rest".to_owned(), arn("x"), false, 1));
    assert_eq!(rule(git("feature", Some(true))).unwrap().0, "rest");
    assert_eq!(rule(git("release/1/2", Some(true))).unwrap().0, "rest", "`*` stops at slashes");
    let elsewhere = serde_json::json!({"job_info": {"project_id": 2, "project_full_path": "ml/sub/churn"}});
    let failure = rule(elsewhere).map(|found| found.0);
    assert_eq!(failure.unwrap(), "protected", "a namespace holds its subgroups");
    let other = serde_json::json!({"job_info": {"project_id": 2, "project_full_path": "mlx/churn"}});
    let text = crate::base::failure::render(&rule(other).unwrap_err().into());
    assert!(text.contains("no rule of the operator's file is for this job") && text.contains("`mlx/churn`"), "{text}");
}

#[test]
fn a_cost_is_that_of_the_dearest_type() {
    let rules = format!(
        "[prices]\n\"ml.g5.xlarge\" = 1.5\n\"ml.g5.2xlarge\" = 3.0\n{ONE}instance_types = [\"ml.g5.*\"]\nmax_instance_count = 4\nmax_cost = 12.0\n"
    );
    let job = payload(&serde_json::json!({"runner_info": {"timeout": 7200}}));
    let types = |types: &str| wish("SAGEMAKER_INSTANCE_TYPE", types);
    assert!(decide(&job, &types("ml.g5.xlarge"), &with_rules(&rules)).is_ok());
    assert!(decide(&job, &types("ml.g5.2xlarge"), &with_rules(&rules)).is_ok());
    let mut four = types("ml.g5.xlarge, ml.g5.2xlarge");
    four.instance_count = Some(4);
    let text = refusal(&job, &four, &rules);
    assert!(text.contains("up to 24.00 (4 x `ml.g5.2xlarge` for 7200 s)") && text.contains("allows 12.00"), "{text}");
    let text = refusal(&job, &types("ml.g5.4xlarge"), &rules);
    assert!(text.contains("the price of `ml.g5.4xlarge` is not known") && text.contains("`[prices]`"), "{text}");
}

#[test]
fn the_cost_of_groups_is_their_sum() {
    let rules = format!(
        "[prices]\n\"ml.g5.xlarge\" = 1.5\n\"ml.c5.xlarge\" = 0.5\n{ONE}instance_types = [\"ml.*\"]\nmax_instance_count = 9\nmax_cost = 5.0\n"
    );
    let job = payload(&serde_json::json!({"runner_info": {"timeout": 7200}}));
    let groups = |groups: &str| wish("SAGEMAKER_INSTANCE_GROUPS", groups);
    let decision = decide(&job, &groups("a=ml.c5.xlarge x 2, b=ml.g5.xlarge"), &with_rules(&rules)).unwrap();
    assert_eq!((decision.instance_count, decision.instance_groups.len()), (3, 2));
    assert_eq!(decision.requests(), ["2 x ml.c5.xlarge (a) and 1 x ml.g5.xlarge (b)"]);
    let text = refusal(&job, &groups("a=ml.c5.xlarge x 3, b=ml.g5.xlarge"), &rules);
    assert!(text.contains("up to 6.00 (3 x `ml.c5.xlarge` and 1 x `ml.g5.xlarge` for 7200 s)"), "{text}");
}

/// A property that each group has of its own cannot be set for all of them.
#[test]
fn groups_go_with_no_type_number_pool_or_plan() {
    let job = payload(&serde_json::json!({}));
    for (name, value) in [
        ("SAGEMAKER_INSTANCE_TYPE", "ml.m5.large"),
        ("SAGEMAKER_INSTANCE_COUNT", "1"),
        ("SAGEMAKER_KEEP_ALIVE", "5m"),
        ("SAGEMAKER_TRAINING_PLAN", "arn:aws:sagemaker:eu-west-1:123456789012:training-plan/may"),
    ] {
        let wishes = JobVariables { instance_groups: vec!["a=ml.m5.large".to_owned()], ..wish(name, value) };
        let text = refusal(&job, &wishes, "");
        assert!(text.contains(&format!("`SAGEMAKER_INSTANCE_GROUPS` and `{name}` cannot go together")), "{text}");
    }
}

#[test]
fn try_may_have_all() {
    let settings = Settings { allows_all: true, ..with_rules("") };
    let wishes = JobVariables {
        instance_types: vec!["ml.p5.48xlarge".to_owned()],
        role_arn: Some("arn:aws:iam::123456789012:role/mine".to_owned()),
        ..JobVariables::default()
    };
    assert_eq!(
        decide(&payload(&serde_json::json!({})), &wishes, &settings).unwrap().role_arn,
        wishes.role_arn.unwrap()
    );
}
