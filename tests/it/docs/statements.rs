//! Statements of the shipped policies against what was called: each allows something that a row of this suite asked for.
//!
//! The rows leave records in the folder of `IAM_RECORD`, also those of the demonstrations; `IAM_JUDGE=1` reads them, after the rows.

use std::collections::{BTreeMap, BTreeSet};

use executor::config::env::Environment;
use serde_json::Value;

use crate::support::iam::{CREATOR_ROLE, HOST_ROLE, TRAINING_ROLE};
use crate::support::used_statements::{folder, records};
use crate::support::waiting::{find_program, tell};

/// Actions that no row asks for, with the file or the role, and why each is granted.
const NOT_ASKED_FOR: [(&str, &[&str], &str); 12] = [
    (
        "prune.json",
        &["sagemaker:DescribeInferenceComponent", "sagemaker:ListInferenceComponents"],
        "an endpoint with inference components, which the emulator has not; unit tests play it on fakes",
    ),
    (
        "image-scan.json",
        &["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        "trivy pulls the image; a stand-in does not",
    ),
    (
        "train",
        &["s3:AbortMultipartUpload"],
        "at AWS SageMaker uploads output, models and checkpoints in parts, and gives up an upload that failed",
    ),
    (
        "train",
        &["s3:DeleteObject"],
        "at AWS SageMaker keeps the checkpoints in the bucket as they are in the container's folder, and deletes there what is gone here",
    ),
    (
        "train",
        &["elasticfilesystem:DescribeMountTargets", "fsx:DescribeFileSystems"],
        "SageMaker looks for a file system before it mounts it; the emulator's is a folder",
    ),
    (
        "train",
        &[
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
        ],
        "the agent of Systems Manager in a container with remote debugging, which the emulator has not",
    ),
    (
        "endpoint-deploy.json",
        &["iam:CreateServiceLinkedRole"],
        "Application Auto Scaling asks for it at its first use in an account",
    ),
    ("endpoint-rollback.json", &["iam:CreateServiceLinkedRole"], "as for a deployment"),
    (
        "endpoint-deploy.json",
        &["application-autoscaling:DeleteScalingPolicy", "application-autoscaling:DeregisterScalableTarget"],
        "a version whose manifest has no scaling any more; unit tests play it on fakes",
    ),
    (
        "endpoint-deploy.json",
        &["sagemaker:InvokeEndpointAsync", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        "the test of an asynchronous endpoint, which a row plays with the policy of `endpoint test`",
    ),
    (
        "endpoint-rollback.json",
        &["sagemaker:InvokeEndpointAsync", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        "as for a deployment",
    ),
    (
        "endpoint-rollback.json",
        &[
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
            "logs:DescribeLogStreams",
            "logs:GetLogEvents",
            "sagemaker:UpdateEndpointWeightsAndCapacities",
        ],
        "a rollback to a configuration with other scaling, or one that fails; unit tests play both on fakes",
    ),
];

/// The role of the jobs of whole pipelines.
const OF_FLOWS: &str = "lifecycle";

/// `Sid` and action.
type Used = BTreeSet<(String, String)>;

/// One text, or a list.
fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The actions that the statements of a policy allow.
fn granted(policy: &Value) -> Used {
    let all = policy["Statement"].as_array().map_or(std::slice::from_ref(&policy["Statement"]), Vec::as_slice);
    let statements = all.iter().filter(|one| one["Effect"] == "Allow");
    let of = |one: &Value| {
        let sid = one["Sid"].as_str().unwrap_or_default().to_owned();
        texts(&one["Action"]).into_iter().map(move |action| (sid.clone(), action))
    };
    statements.flat_map(of).collect()
}

/// The pairs of an entry that the emulator tells.
fn pairs(entry: &Value) -> Used {
    let sid = entry["statement"].as_str().unwrap();
    texts(&entry["actions"]).into_iter().map(|action| (sid.to_owned(), action)).collect()
}

/// A policy of a bucket, which allows requests without a signature; a row reads by it what is refused before.
const OF_BUCKET: &str = "issuer-bucket-policy.json";

/// The actions that the shipped policies of commands allow, by the names of their files.
fn shipped() -> BTreeMap<String, Used> {
    let folder = super::root().join("runner-config/iam/lifecycle");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let is_of_role = |name: &str| !name.ends_with("-trust.json") && !name.ends_with(OF_BUCKET);
    let of_roles = files.filter(|path| is_of_role(path.to_str().unwrap()));
    let read = |path: std::path::PathBuf| {
        let policy: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), granted(&policy))
    };
    of_roles.map(read).collect()
}

/// The names of a policy: the shipped files that allow the same, else those that allow less, else the role that `policy iam` makes it
/// for. Two files may allow the same, and tests add a statement to some.
fn names(role: &str, policy: &Used, shipped: &BTreeMap<String, Used>) -> Vec<String> {
    let of = |is: &dyn Fn(&Used) -> bool| -> Vec<String> {
        shipped.iter().filter(|(_, one)| is(one)).map(|(file, _)| file.clone()).collect()
    };
    let made =
        [HOST_ROLE, TRAINING_ROLE, CREATOR_ROLE].iter().filter(|made| **made == role).map(|made| (*made).to_owned());
    let ways = [of(&|one| one == policy), of(&|one| one.is_subset(policy)), made.collect()];
    ways.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
}

#[test]
fn every_statement_of_a_shipped_policy_allowed_something() {
    let is_asked = Environment::of_process().get("IAM_JUDGE").is_some();
    let Some(folder) = folder().filter(|_| is_asked) else {
        return tell(
            "SKIPPED: statements of policies against calls: judged with IAM_RECORD and IAM_JUDGE, see docs/CONTRIBUTING.md",
        );
    };
    let (shipped, records) = (shipped(), records(&folder));
    let has_role = |record: &Value| record["accounts"].to_string().contains(&format!("\"RoleName\":\"{OF_FLOWS}\""));
    if !records.iter().any(has_role) {
        return tell(
            "SKIPPED: statements of policies against calls: no pipeline was played, whose rows need `.ci/compiler`",
        );
    }
    if !rustix::process::geteuid().is_root() || find_program("buildah").is_none() {
        return tell(
            "SKIPPED: statements of policies against calls: no image was built, whose rows need root and buildah",
        );
    }
    let mut granted_by = shipped.clone();
    let mut used_by = BTreeMap::<String, Used>::new();
    for record in &records {
        let accounts = record["accounts"].as_array().into_iter().flatten();
        for role in accounts.filter_map(|one| one["RoleDetailList"].as_array()).flatten() {
            let name = role["RoleName"].as_str().unwrap();
            let used = record["used"][role["Arn"].as_str().unwrap()].as_array().cloned().unwrap_or_default();
            for (number, policy) in role["RolePolicyList"].as_array().into_iter().flatten().enumerate() {
                let policy = granted(&policy["PolicyDocument"]);
                let pairs: Used = used.iter().filter(|one| one["policy"] == number).flat_map(pairs).collect();
                for name in names(name, &policy, &shipped) {
                    if !shipped.contains_key(&name) {
                        granted_by.entry(name.clone()).or_default().extend(policy.clone());
                    }
                    used_by.entry(name).or_default().extend(pairs.clone());
                }
            }
        }
    }
    let mut unused = Vec::new();
    for (name, granted) in &granted_by {
        let used = used_by.get(name).cloned().unwrap_or_default();
        for (sid, action) in granted.difference(&used) {
            // A key's actions are asked of KMS by other services.
            let is_known = NOT_ASKED_FOR.iter().any(|(of, known, _)| of == name && known.contains(&action.as_str()));
            // Statements for a second folder are as those for the first. Those of a test's own role have no Sid.
            let first = sid.trim_end_matches(char::is_numeric);
            let is_known = is_known || sid.is_empty() || used.contains(&(first.to_owned(), action.clone()));
            if !is_known && !action.starts_with("kms:") {
                unused.push(format!("{name}: {sid}: {action}"));
            }
        }
    }
    assert!(unused.is_empty(), "{} records; nothing used:\n{}", records.len(), unused.join("\n"));
}
