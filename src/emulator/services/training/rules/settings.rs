//! Rules on the algorithm, the time limits, debugging and checkpoints.

use super::request::{CreateRequest, breach, twice};
use super::rule::CreateRule;

const SPOT: &str = "developer guide, Managed Spot Training; API reference, MaxWaitTimeInSeconds of StoppingCondition";
const DEBUG: &str = "developer guide, Access a training container through AWS Systems Manager";

/// 28 days in seconds.
const LONGEST_RUN: i64 = 2_419_200;
/// A day in seconds: the time limit when a request has none.
const DAY: i64 = 86_400;
/// Times between two samples of the profiler, in milliseconds.
const INTERVALS: &[i64] = &[100, 200, 500, 1000, 5000, 60_000];

pub(super) const ALGORITHM: &[CreateRule] = &[
    CreateRule {
        name: "the algorithm is given",
        source: "API reference, ServerlessJobConfig: only serverless jobs have none",
        message: "AlgorithmSpecification must be specified for this training job.",
        breach: |request| breach(!request.has("/AlgorithmSpecification")),
    },
    CreateRule {
        name: "an image excludes an algorithm's name",
        source: "API reference, AlgorithmName of AlgorithmSpecification",
        message: "Only one of TrainingImage and AlgorithmName can be specified.",
        breach: |request| breach(has_image(request) && has_algorithm(request)),
    },
    CreateRule {
        name: "an image or an algorithm's name is given",
        source: "API reference, TrainingImage of AlgorithmSpecification",
        message: "Either TrainingImage or AlgorithmName must be specified.",
        breach: |request| breach(!has_image(request) && !has_algorithm(request)),
    },
    CreateRule {
        name: "a private registry needs a VPC",
        source: "developer guide, Use a private Docker registry for training",
        message: "VpcConfig must be specified when TrainingRepositoryAccessMode is Vpc.",
        breach: |request| {
            let mode = request.text("/AlgorithmSpecification/TrainingImageConfig/TrainingRepositoryAccessMode");
            breach(mode == Some("Vpc") && !request.has("/VpcConfig"))
        },
    },
];

pub(super) const RULES: &[CreateRule] = &[
    CreateRule {
        name: "the time limit is given",
        source: "API reference, ServerlessJobConfig: only serverless jobs have none",
        message: "StoppingCondition must be specified for this training job.",
        breach: |request| breach(!request.has("/StoppingCondition")),
    },
    CreateRule {
        name: "a job runs 28 days at most",
        source: "API reference, MaxRuntimeInSeconds of StoppingCondition",
        message: "MaxRuntimeInSeconds must be at most 2419200 seconds.",
        breach: |request| breach(run(request) > LONGEST_RUN),
    },
    CreateRule {
        name: "only spot jobs wait",
        source: SPOT,
        message: "MaxWaitTimeInSeconds is supported only with managed spot training.",
        breach: |request| breach(wait(request).is_some() && !is_spot(request)),
    },
    CreateRule {
        name: "a spot job waits",
        source: SPOT,
        message: "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
        breach: |request| breach(is_spot(request) && wait(request).is_none()),
    },
    CreateRule {
        name: "a spot job waits as long as it runs",
        source: SPOT,
        message: "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
        breach: |request| breach(is_spot(request) && wait(request).is_some_and(|wait| wait < run(request))),
    },
    CreateRule {
        name: "an isolated job has no remote debugging",
        source: DEBUG,
        message: "EnableRemoteDebug is not supported with EnableNetworkIsolation.",
        breach: |request| breach(is_debugged(request) && request.is_on("/EnableNetworkIsolation")),
    },
    CreateRule {
        name: "an algorithm of others has no remote debugging",
        source: DEBUG,
        message: "EnableRemoteDebug is not supported with AlgorithmName.",
        breach: |request| breach(is_debugged(request) && has_algorithm(request)),
    },
    CreateRule {
        name: "the profiler's interval is one of six",
        source: "API reference, ProfilingIntervalInMilliseconds of ProfilerConfig",
        message: "ProfilingIntervalInMilliseconds must be one of 100, 200, 500, 1000, 5000 and 60000.",
        breach: |request| {
            let interval = request.number("/ProfilerConfig/ProfilingIntervalInMilliseconds");
            breach(interval.is_some_and(|interval| !INTERVALS.contains(&interval)))
        },
    },
    CreateRule {
        name: "the names of debug rules differ",
        source: "API reference, RuleConfigurationName of DebugRuleConfiguration",
        message: "RuleConfigurationName must be unique. Duplicate name: {}",
        breach: |request| twice(request.list("/DebugRuleConfigurations"), "RuleConfigurationName"),
    },
    CreateRule {
        name: "the names of profiler rules differ",
        source: "API reference, RuleConfigurationName of ProfilerRuleConfiguration",
        message: "RuleConfigurationName must be unique. Duplicate name: {}",
        breach: |request| twice(request.list("/ProfilerRuleConfigurations"), "RuleConfigurationName"),
    },
    CreateRule {
        name: "the names of tensor collections differ",
        source: "API reference, CollectionName of CollectionConfiguration",
        message: "CollectionName must be unique. Duplicate name: {}",
        breach: |request| twice(request.list("/DebugHookConfig/CollectionConfigurations"), "CollectionName"),
    },
    CreateRule {
        name: "checkpoints have a folder of their own",
        source: "developer guide, SageMaker AI storage folders: the other folders of /opt/ml are the platform's",
        message: "LocalPath of CheckpointConfig must be an absolute path outside the reserved folders: {}",
        breach: |request| {
            let path = request.text("/CheckpointConfig/LocalPath")?;
            is_reserved(path.trim_end_matches('/')).then(|| path.to_owned())
        },
    },
];

fn has_image(request: &CreateRequest<'_>) -> bool {
    request.has("/AlgorithmSpecification/TrainingImage")
}

fn has_algorithm(request: &CreateRequest<'_>) -> bool {
    request.has("/AlgorithmSpecification/AlgorithmName")
}

fn is_spot(request: &CreateRequest<'_>) -> bool {
    request.is_on("/EnableManagedSpotTraining")
}

fn is_debugged(request: &CreateRequest<'_>) -> bool {
    request.is_on("/RemoteDebugConfig/EnableRemoteDebug")
}

fn run(request: &CreateRequest<'_>) -> i64 {
    request.number("/StoppingCondition/MaxRuntimeInSeconds").unwrap_or(DAY)
}

fn wait(request: &CreateRequest<'_>) -> Option<i64> {
    request.number("/StoppingCondition/MaxWaitTimeInSeconds")
}

/// Whether a folder is the platform's, or no plain absolute path.
fn is_reserved(path: &str) -> bool {
    let is_plain = path.starts_with('/') && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    let below = |folder: &str| path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    !is_plain
        || path == "/opt"
        || path == "/opt/ml"
        || ["/opt/ml/input", "/opt/ml/model", "/opt/ml/output"].iter().any(|one| below(one))
}
