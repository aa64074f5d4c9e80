//! Rules on instances, their volumes, preferences, groups, training plans and warm pools.

use serde_json::Value;

use super::request::{CreateRequest, breach, twice};
use super::rule::{CreateRule, LONGEST_KEEP};
use crate::protocol::text;

/// Instance families with a local disk, where a key for the volume is refused.
const LOCAL_DISK: &[&str] =
    &["g4dn", "g5", "g6", "g6e", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "r5d", "trn1", "trn1n", "trn2"];

const RESOURCES: &str = "API reference, ResourceConfig";
const PREFERENCES: &str = "API reference, InstancePreferences of ResourceConfig";
const COUNTS: &str = "API reference, InstanceCount of InstancePreference";
const GROUPS: &str = "developer guide, Train Using a Heterogeneous Cluster";
const POOLS: &str = "developer guide, SageMaker AI Managed Warm Pools";
const PLANS: &str = "developer guide, Use training plans for SageMaker training jobs";

pub(super) const KEPT_SPOT: &str = "KeepAlivePeriodInSeconds is not supported with managed spot training.";
pub(super) const KEPT_TOO_LONG: &str = "KeepAlivePeriodInSeconds must be at most 3600 seconds.";

pub(super) const RULES: &[CreateRule] = &[
    CreateRule {
        name: "resources are given",
        source: "API reference, ServerlessJobConfig: only serverless jobs have none",
        message: "ResourceConfig must be specified for this training job.",
        breach: |request| breach(!request.has("/ResourceConfig")),
    },
    CreateRule {
        name: "the selected type is read-only",
        source: "API reference, SelectedInstanceType of ResourceConfig",
        message: "SelectedInstanceType cannot be specified in CreateTrainingJob.",
        breach: |request| breach(request.has("/ResourceConfig/SelectedInstanceType")),
    },
    CreateRule {
        name: "the selected count is read-only",
        source: "API reference, SelectedInstanceCount of ResourceConfig",
        message: "SelectedInstanceCount cannot be specified in CreateTrainingJob.",
        breach: |request| breach(request.has("/ResourceConfig/SelectedInstanceCount")),
    },
    CreateRule {
        name: "preferences exclude a type",
        source: PREFERENCES,
        message: "InstancePreferences cannot be combined with InstanceType.",
        breach: |request| breach(has_preferences(request) && request.has("/ResourceConfig/InstanceType")),
    },
    CreateRule {
        name: "preferences exclude groups",
        source: PREFERENCES,
        message: "InstancePreferences cannot be combined with InstanceGroups.",
        breach: |request| breach(has_preferences(request) && has_groups(request)),
    },
    CreateRule {
        name: "preferences exclude a placement",
        source: PREFERENCES,
        message: "InstancePreferences cannot be combined with InstancePlacementConfig.",
        breach: |request| breach(has_preferences(request) && request.has("/ResourceConfig/InstancePlacementConfig")),
    },
    CreateRule {
        name: "preferences exclude spot",
        source: PREFERENCES,
        message: "InstancePreferences cannot be combined with EnableManagedSpotTraining.",
        breach: |request| breach(has_preferences(request) && is_spot(request)),
    },
    CreateRule {
        name: "a type is preferred once",
        source: "API reference, InstanceType of InstancePreference",
        message: "Each InstanceType can be specified only once in InstancePreferences.",
        breach: |request| twice(preferences(request), "InstanceType"),
    },
    CreateRule {
        name: "all preferences have a count or none",
        source: COUNTS,
        message: "InstanceCount must be specified either in ResourceConfig or in every instance preference.",
        breach: |request| breach((1..preferences(request).len()).contains(&counted(request))),
    },
    CreateRule {
        name: "the count is in one place",
        source: COUNTS,
        message: "InstanceCount cannot be specified both in ResourceConfig and in instance preferences.",
        breach: |request| breach(counted(request) > 0 && request.has("/ResourceConfig/InstanceCount")),
    },
    CreateRule {
        name: "the count of preferences is given",
        source: COUNTS,
        message: "InstanceCount must be specified in ResourceConfig or in every instance preference.",
        breach: |request| {
            let is_given = counted(request) > 0 || request.has("/ResourceConfig/InstanceCount");
            breach(has_preferences(request) && !is_given)
        },
    },
    CreateRule {
        name: "a plan is the job's or a preference's",
        source: "API reference, TrainingPlanArns of InstancePreference",
        message: "TrainingPlanArns of an instance preference cannot be combined with TrainingPlanArn of ResourceConfig.",
        breach: |request| {
            let planned = preferences(request).iter().any(|one| one.get("TrainingPlanArns").is_some());
            breach(planned && request.has("/ResourceConfig/TrainingPlanArn"))
        },
    },
    CreateRule {
        name: "groups exclude a type",
        source: GROUPS,
        message: "InstanceType cannot be specified with InstanceGroups.",
        breach: |request| breach(has_groups(request) && request.has("/ResourceConfig/InstanceType")),
    },
    CreateRule {
        name: "groups exclude a count",
        source: GROUPS,
        message: "InstanceCount cannot be specified with InstanceGroups.",
        breach: |request| breach(has_groups(request) && request.has("/ResourceConfig/InstanceCount")),
    },
    CreateRule {
        name: "the names of groups differ",
        source: GROUPS,
        message: "InstanceGroupName must be unique. Duplicate name: {}",
        breach: |request| twice(request.list("/ResourceConfig/InstanceGroups"), "InstanceGroupName"),
    },
    CreateRule {
        name: "a channel names groups of the job",
        source: "API reference, InstanceGroupNames of S3DataSource",
        message: "InstanceGroupNames must be names of InstanceGroups in ResourceConfig. Unknown name: {}",
        breach: unknown_group,
    },
    CreateRule {
        name: "the type is given",
        source: RESOURCES,
        message: "InstanceType must be specified in ResourceConfig.",
        breach: |request| breach(is_plain(request) && !request.has("/ResourceConfig/InstanceType")),
    },
    CreateRule {
        name: "there is an instance",
        source: RESOURCES,
        message: "InstanceCount must be greater than or equal to 1 in ResourceConfig.",
        breach: |request| breach(is_plain(request) && request.number("/ResourceConfig/InstanceCount").unwrap_or(0) < 1),
    },
    CreateRule {
        name: "a volume without a local disk has a size",
        source: "API reference, VolumeSizeInGB of ResourceConfig",
        message: "VolumeSizeInGB must be specified for instance type {}.",
        breach: |request| {
            let size = request.number("/ResourceConfig/VolumeSizeInGB").unwrap_or(0);
            let instance_type = request.text("/ResourceConfig/InstanceType")?;
            (size < 1 && !has_local_disk(instance_type)).then(|| instance_type.to_owned())
        },
    },
    CreateRule {
        name: "a local disk has no key",
        source: "API reference, VolumeKmsKeyId of ResourceConfig",
        message: "VolumeKmsKeyId is not supported for instance type {} with local storage.",
        breach: |request| {
            let instance_type = request.text("/ResourceConfig/InstanceType").filter(|one| has_local_disk(one))?;
            request.has("/ResourceConfig/VolumeKmsKeyId").then(|| instance_type.to_owned())
        },
    },
    CreateRule {
        name: "a placement has an instance",
        source: "API reference, InstanceCount of PlacementSpecification",
        message: "InstanceCount of a placement specification must be greater than or equal to 1.",
        breach: |request| {
            let specifications = request.list("/ResourceConfig/InstancePlacementConfig/PlacementSpecifications");
            breach(specifications.iter().any(|one| one["InstanceCount"].as_i64().is_some_and(|count| count < 1)))
        },
    },
    CreateRule {
        name: "a plan excludes spot",
        source: PLANS,
        message: "A training plan cannot be used with managed spot training.",
        breach: |request| breach(is_spot(request) && request.has("/ResourceConfig/TrainingPlanArn")),
    },
    CreateRule {
        name: "a warm pool excludes spot",
        source: POOLS,
        message: KEPT_SPOT,
        breach: |request| breach(is_spot(request) && kept(request) > 0),
    },
    CreateRule {
        name: "a warm pool excludes groups",
        source: POOLS,
        message: "KeepAlivePeriodInSeconds is not supported with InstanceGroups.",
        breach: |request| breach(has_groups(request) && kept(request) > 0),
    },
    CreateRule {
        name: "a warm pool stays an hour at most",
        source: POOLS,
        message: KEPT_TOO_LONG,
        breach: |request| breach(kept(request) > LONGEST_KEEP),
    },
];

fn is_spot(request: &CreateRequest<'_>) -> bool {
    request.is_on("/EnableManagedSpotTraining")
}

fn preferences<'a>(request: &CreateRequest<'a>) -> &'a [Value] {
    request.list("/ResourceConfig/InstancePreferences")
}

fn has_preferences(request: &CreateRequest<'_>) -> bool {
    !preferences(request).is_empty()
}

/// Preferences with a count of their own.
fn counted(request: &CreateRequest<'_>) -> usize {
    preferences(request).iter().filter(|one| one.get("InstanceCount").is_some()).count()
}

fn has_groups(request: &CreateRequest<'_>) -> bool {
    !request.list("/ResourceConfig/InstanceGroups").is_empty()
}

/// Whether the request has one type and one count.
fn is_plain(request: &CreateRequest<'_>) -> bool {
    !has_preferences(request) && !has_groups(request)
}

fn kept(request: &CreateRequest<'_>) -> u64 {
    request.at("/ResourceConfig/KeepAlivePeriodInSeconds").and_then(Value::as_u64).unwrap_or(0)
}

fn has_local_disk(instance_type: &str) -> bool {
    LOCAL_DISK.contains(&instance_type.split('.').nth(1).unwrap_or_default())
}

fn unknown_group(request: &CreateRequest<'_>) -> Option<String> {
    let groups = request.list("/ResourceConfig/InstanceGroups");
    let is_known = |name: &str| groups.iter().any(|group| text(group, "InstanceGroupName") == Some(name));
    let lists =
        request.channels().iter().filter_map(|channel| channel.pointer("/DataSource/S3DataSource/InstanceGroupNames"));
    let mut names = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    names.find(|name| !is_known(name)).map(str::to_owned)
}
