//! Each rule with a request that breaks it alone and one that keeps it, and limits of the service model.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check_create, rules};
use crate::model::Model;
use crate::protocol::ApiError;
use crate::validate::check;

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

/// Changes a request: null removes a member.
fn merge(into: &mut Value, change: &Value) {
    let (Some(members), Some(changes)) = (into.as_object_mut(), change.as_object()) else {
        into.clone_from(change);
        return;
    };
    for (name, value) in changes {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Adds to a change what another one changes.
fn join(into: &mut Value, change: &Value) {
    match (into.as_object_mut(), change.as_object()) {
        (Some(members), Some(changes)) => {
            for (name, value) in changes {
                join(members.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        _ => into.clone_from(change),
    }
}

fn changed(change: &Value) -> Value {
    let mut request = good();
    merge(&mut request, change);
    request
}

fn s3_source(change: &Value) -> Value {
    let mut source = json!({"S3DataType": "S3Prefix", "S3Uri": "s3://b/x"});
    merge(&mut source, change);
    json!({"S3DataSource": source})
}

/// A request with one channel that has these members.
fn channel(change: &Value) -> Value {
    let mut one = json!({"ChannelName": "c", "DataSource": s3_source(&json!({}))});
    merge(&mut one, change);
    json!({"InputDataConfig": [one]})
}

fn file_system(request: &Value, path: &str, mode: &str) -> Value {
    let source = json!({"FileSystemId": "fs-12345678", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": path});
    let mut all = json!({"InputDataConfig": [{"ChannelName": "c", "InputMode": mode, "DataSource": {"FileSystemDataSource": source}}]});
    join(&mut all, request);
    all
}

fn preferring(list: &Value, count: &Value) -> Value {
    json!({"ResourceConfig": {"InstanceType": null, "InstanceCount": count, "InstancePreferences": list}})
}

/// A request with these groups and other members of its resources.
fn grouped(names: &[&str], change: &Value) -> Value {
    let group = |name| json!({"InstanceGroupName": name, "InstanceType": "ml.m5.large", "InstanceCount": 1});
    let groups: Vec<Value> = names.iter().map(group).collect();
    let mut resources = json!({"InstanceType": null, "InstanceCount": null, "InstanceGroups": groups});
    for (name, value) in change.as_object().unwrap() {
        resources[name] = value.clone();
    }
    json!({"ResourceConfig": resources})
}

fn spot(change: &Value) -> Value {
    let mut request = json!({"EnableManagedSpotTraining": true, "StoppingCondition": {"MaxWaitTimeInSeconds": 60}});
    join(&mut request, change);
    request
}

const VPC: fn() -> Value = || json!({"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}});
const PLAN: &str = "arn:aws:sagemaker:eu-west-1:000000000000:training-plan/plan";

/// Name of a rule, a change that breaks it, and one that keeps it.
#[rustfmt::skip]
fn rows() -> Vec<(&'static str, Value, Value)> {
    let one = json!([{"InstanceType": "ml.m5.large"}]);
    let two = |first: Value, second: Value| {
        let mut list = json!([{"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.m5.xlarge"}]);
        merge(&mut list[0], &first);
        merge(&mut list[1], &second);
        list
    };
    let count = |count: u64| json!({"InstanceCount": count});
    let placement = |count: u64| json!({"ResourceConfig": {"InstancePlacementConfig": {"PlacementSpecifications": [{"InstanceCount": count}]}}});
    let with = |request: Value, more: Value| { let mut all = request; join(&mut all, &more); all };
    let debugged = || json!({"RemoteDebugConfig": {"EnableRemoteDebug": true}});
    let rule = |name: &str| json!({"RuleConfigurationName": name, "RuleEvaluatorImage": "x"});
    let algorithm = || json!({"AlgorithmSpecification": {"TrainingImage": null, "AlgorithmName": "own"}});
    let registry = || json!({"AlgorithmSpecification": {"TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"}}});
    let checkpoints = |path: &str| json!({"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": path}});
    let channels = |first: &str, second: &str| json!({"InputDataConfig": [
        {"ChannelName": first, "DataSource": s3_source(&json!({}))}, {"ChannelName": second, "DataSource": s3_source(&json!({}))}]});
    let source = |change: Value, mode: &str| channel(&json!({"InputMode": mode, "DataSource": s3_source(&change)}));
    vec![
        ("the algorithm is given", json!({"AlgorithmSpecification": null}), json!({})),
        ("an image excludes an algorithm's name", json!({"AlgorithmSpecification": {"AlgorithmName": "own"}}), algorithm()),
        ("an image or an algorithm's name is given", json!({"AlgorithmSpecification": {"TrainingImage": null}}), json!({})),
        ("a private registry needs a VPC", registry(), with(registry(), VPC())),
        ("resources are given", json!({"ResourceConfig": null}), json!({})),
        ("the selected type is read-only", json!({"ResourceConfig": {"SelectedInstanceType": "ml.m5.large"}}), json!({})),
        ("the selected count is read-only", json!({"ResourceConfig": {"SelectedInstanceCount": 1}}), json!({})),
        ("preferences exclude a type", json!({"ResourceConfig": {"InstancePreferences": one}}), preferring(&one, &json!(1))),
        ("preferences exclude groups", with(preferring(&one, &json!(1)), json!({"ResourceConfig": grouped(&["a"], &count(1))["ResourceConfig"]})), grouped(&["a"], &json!({}))),
        ("preferences exclude a placement", with(preferring(&one, &json!(1)), placement(1)), placement(1)),
        ("preferences exclude spot", spot(&preferring(&one, &json!(1))), spot(&json!({}))),
        ("a type is preferred once", preferring(&two(json!({}), json!({"InstanceType": "ml.m5.large"})), &json!(1)), preferring(&two(json!({}), json!({})), &json!(1))),
        ("all preferences have a count or none", preferring(&two(count(1), json!({})), &Value::Null), preferring(&two(count(1), count(2)), &Value::Null)),
        ("the count is in one place", preferring(&two(count(1), count(2)), &json!(1)), preferring(&two(json!({}), json!({})), &json!(1))),
        ("the count of preferences is given", preferring(&one, &Value::Null), preferring(&one, &json!(1))),
        ("a plan is the job's or a preference's", with(preferring(&two(json!({"TrainingPlanArns": [PLAN]}), json!({})), &json!(1)), json!({"ResourceConfig": {"TrainingPlanArn": PLAN}})), preferring(&two(json!({"TrainingPlanArns": [PLAN]}), json!({})), &json!(1))),
        ("groups exclude a type", grouped(&["a"], &json!({"InstanceType": "ml.m5.large"})), grouped(&["a"], &json!({}))),
        ("groups exclude a count", grouped(&["a"], &count(1)), grouped(&["a", "b"], &json!({}))),
        ("the names of groups differ", grouped(&["a", "a"], &json!({})), grouped(&["a", "b"], &json!({}))),
        ("a channel names groups of the job", source(json!({"InstanceGroupNames": ["a"]}), "File"), with(source(json!({"InstanceGroupNames": ["a"]}), "File"), grouped(&["a"], &json!({})))),
        ("the type is given", json!({"ResourceConfig": {"InstanceType": null}}), json!({})),
        ("there is an instance", json!({"ResourceConfig": {"InstanceCount": 0}}), json!({"ResourceConfig": {"InstanceCount": 2}})),
        ("a volume without a local disk has a size", json!({"ResourceConfig": {"VolumeSizeInGB": null}}), json!({"ResourceConfig": {"VolumeSizeInGB": null, "InstanceType": "ml.g5.xlarge"}})),
        ("a local disk has no key", json!({"ResourceConfig": {"VolumeKmsKeyId": "key", "InstanceType": "ml.g5.xlarge"}}), json!({"ResourceConfig": {"VolumeKmsKeyId": "key"}})),
        ("a placement has an instance", placement(0), placement(1)),
        ("a plan excludes spot", spot(&json!({"ResourceConfig": {"TrainingPlanArn": PLAN}})), json!({"ResourceConfig": {"TrainingPlanArn": PLAN}})),
        ("a warm pool excludes spot", spot(&json!({"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}})), spot(&json!({"ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}))),
        ("a warm pool excludes groups", grouped(&["a"], &json!({"KeepAlivePeriodInSeconds": 60})), grouped(&["a"], &json!({"KeepAlivePeriodInSeconds": 0}))),
        ("a warm pool stays an hour at most", json!({"ResourceConfig": {"KeepAlivePeriodInSeconds": 3601}}), json!({"ResourceConfig": {"KeepAlivePeriodInSeconds": 3600}})),
        ("the time limit is given", json!({"StoppingCondition": null}), json!({"StoppingCondition": {"MaxRuntimeInSeconds": null}})),
        ("a job runs 28 days at most", json!({"StoppingCondition": {"MaxRuntimeInSeconds": 2_419_201}}), json!({"StoppingCondition": {"MaxRuntimeInSeconds": 2_419_200}})),
        ("only spot jobs wait", json!({"StoppingCondition": {"MaxWaitTimeInSeconds": 60}}), spot(&json!({}))),
        ("a spot job waits", json!({"EnableManagedSpotTraining": true}), spot(&json!({}))),
        ("a spot job waits as long as it runs", spot(&json!({"StoppingCondition": {"MaxWaitTimeInSeconds": 59}})), spot(&json!({"StoppingCondition": {"MaxWaitTimeInSeconds": 61}}))),
        ("an isolated job has no remote debugging", with(debugged(), json!({"EnableNetworkIsolation": true})), debugged()),
        ("an algorithm of others has no remote debugging", with(debugged(), algorithm()), debugged()),
        ("the profiler's interval is one of six", json!({"ProfilerConfig": {"ProfilingIntervalInMilliseconds": 300}}), json!({"ProfilerConfig": {"ProfilingIntervalInMilliseconds": 500}})),
        ("the names of debug rules differ", json!({"DebugRuleConfigurations": [rule("a"), rule("a")]}), json!({"DebugRuleConfigurations": [rule("a"), rule("b")]})),
        ("the names of profiler rules differ", json!({"ProfilerRuleConfigurations": [rule("a"), rule("a")]}), json!({"ProfilerRuleConfigurations": [rule("a"), rule("b")]})),
        ("the names of tensor collections differ", json!({"DebugHookConfig": {"S3OutputPath": "s3://b/d", "CollectionConfigurations": [{"CollectionName": "a"}, {"CollectionName": "a"}]}}), json!({"DebugHookConfig": {"S3OutputPath": "s3://b/d", "CollectionConfigurations": [{"CollectionName": "a"}]}})),
        ("checkpoints have a folder of their own", checkpoints("/opt/ml/model/x"), checkpoints("/opt/ml/checkpoints/")),
        ("the names of channels differ", channels("a", "a"), channels("a", "b")),
        ("a channel has one source", json!({"InputDataConfig": [{"ChannelName": "c", "DataSource": {}}]}), channel(&json!({}))),
        ("only pipes unpack", channel(&json!({"CompressionType": "Gzip"})), channel(&json!({"CompressionType": "Gzip", "InputMode": "Pipe"}))),
        ("only pipes wrap records", channel(&json!({"RecordWrapperType": "RecordIO"})), channel(&json!({"RecordWrapperType": "RecordIO", "InputMode": "Pipe"}))),
        ("an augmented manifest needs a pipe", source(json!({"S3DataType": "AugmentedManifestFile"}), "FastFile"), source(json!({"S3DataType": "AugmentedManifestFile"}), "Pipe")),
        ("attributes are those of an augmented manifest", source(json!({"AttributeNames": ["a"]}), "Pipe"), source(json!({"AttributeNames": ["a"], "S3DataType": "AugmentedManifestFile"}), "Pipe")),
        ("the license of a model is accepted", source(json!({"ModelAccessConfig": {"AcceptEula": false}}), "File"), source(json!({"ModelAccessConfig": {"AcceptEula": true}}), "File")),
        ("a file system is read in file mode", file_system(&VPC(), "/data", "Pipe"), file_system(&VPC(), "/data", "File")),
        ("a file system needs a VPC", file_system(&json!({}), "/data", "File"), file_system(&VPC(), "/data", "File")),
        ("the directory of a file system is a full path", file_system(&VPC(), "data", "File"), file_system(&VPC(), "/", "File")),
    ]
}

#[test]
fn each_rule_refuses_what_breaks_it_alone() {
    let (rows, rules): (_, Vec<_>) = (rows(), rules().collect());
    let names = |names: Vec<&'static str>| -> BTreeSet<&str> { names.into_iter().collect() };
    let ours = rules.iter().map(|rule| rule.name).collect();
    assert_eq!(names(ours), names(rows.iter().map(|row| row.0).collect()));
    assert_eq!(rules.len(), rows.len(), "each rule has a name of its own and one row");
    for (name, bad, kept) in rows {
        let rule = rules.iter().find(|rule| rule.name == name).unwrap();
        assert!(!rule.source.is_empty(), "{name} has no source");
        let refused = verdict(&changed(&bad)).expect_err(name);
        let (start, end) = rule.message.split_once("{}").unwrap_or((rule.message, ""));
        assert!(refused.message.starts_with(start) && refused.message.ends_with(end), "{name}: {}", refused.message);
        assert_eq!(verdict(&changed(&kept)), Ok(()), "{name}");
    }
}

/// Rules of this table and of tags, and limits of the model below.
#[test]
fn sixty_documented_rules_have_a_row() {
    let limits = include_str!("tests.rs").matches("\n#[test_case::test_case(").count();
    assert!(rules().count() + limits >= 60, "{} and {limits}", rules().count());
}

fn verdict(request: &Value) -> Result<(), ApiError> {
    check(request, Model::sagemaker(), "CreateTrainingJob").and_then(|()| check_create(request))
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
