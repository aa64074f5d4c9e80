//! The rules of `CreateTrainingJob` that relate two members; the service model does not hold them.

use serde_json::Value;

use crate::protocol::{ApiError, text as member};
use crate::tags::check_tags;

/// Instance families with a local disk, where a key for the volume is refused.
const LOCAL_DISK: &[&str] =
    &["g4dn", "g5", "g6", "g6e", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "r5d", "trn1", "trn1n", "trn2"];

/// Checks a request that satisfies the model.
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
    let wait = stopping.get("MaxWaitTimeInSeconds").and_then(Value::as_i64);
    if wait.is_some() && !spot {
        return fail("MaxWaitTimeInSeconds is supported only with managed spot training.");
    }
    if spot && wait.is_none_or(|wait| wait < run) {
        return fail(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
        );
    }
    check_channels(request)?;
    check_tags(request.get("Tags"))
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

/// Checks a change of the time for which instances stay.
pub(crate) fn check_keep_alive(request: &Value, seconds: &Value) -> Result<(), ApiError> {
    if request["EnableManagedSpotTraining"] == true {
        return Err(ApiError::validation("KeepAlivePeriodInSeconds is not supported with managed spot training."));
    }
    if seconds.as_u64().unwrap_or(0) > 3600 {
        return Err(ApiError::validation("KeepAlivePeriodInSeconds must be at most 3600 seconds."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Model;
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
}
