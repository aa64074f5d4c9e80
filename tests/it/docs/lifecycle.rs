//! Examples of the manifest, and the policies for the commands about models.

use std::collections::BTreeSet;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use super::{read, root};

/// Actions that need no permission.
const FREE: [&str; 1] = ["sts:GetCallerIdentity"];

/// A policy, the files of `src/aws` whose calls it allows, and actions of files that other commands use as well.
const POLICIES: &[(&str, &[&str], &[&str])] = &[
    (
        "validate-connect.json",
        &["identity", "images", "quotas", "roles"],
        &["cloudwatch:DescribeAlarms", "s3:GetObject", "s3:ListBucket"],
    ),
    (
        "gate.json",
        &[],
        &["s3:GetObject", "s3:ListBucket", "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"],
    ),
    (
        "report.json",
        &[],
        &["s3:GetObject", "s3:ListBucket", "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"],
    ),
    (
        "model-register.json",
        &["source_objects"],
        &[
            "s3:ListBucket",
            "s3:PutObject",
            "sagemaker:AddTags",
            "sagemaker:CreateModelPackage",
            "sagemaker:CreateModelPackageGroup",
            "sagemaker:DescribeModelPackage",
            "sagemaker:DescribeModelPackageGroup",
            "sagemaker:ListModelPackages",
        ],
    ),
    (
        "model-approve.json",
        &[],
        &[
            "sagemaker:DescribeModelPackage",
            "sagemaker:DescribeModelPackageGroup",
            "sagemaker:ListModelPackages",
            "sagemaker:UpdateModelPackage",
        ],
    ),
    ("model-approve-trust.json", &["web_identity"], &[]),
    ("image-build-codebuild.json", &["builds"], &["iam:PassRole", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]),
    (
        "codebuild-role.json",
        &[],
        &[
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:CompleteLayerUpload",
            "ecr:GetAuthorizationToken",
            "ecr:GetDownloadUrlForLayer",
            "ecr:InitiateLayerUpload",
            "ecr:PutImage",
            "ecr:UploadLayerPart",
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "s3:GetObject",
            "s3:GetObjectVersion",
        ],
    ),
    ("codebuild-role-trust.json", &[], &["sts:AssumeRole"]),
    (
        "image-build.json",
        &["tagged_images"],
        // Those of the builder.
        &[
            "ecr:BatchCheckLayerAvailability",
            "ecr:CompleteLayerUpload",
            "ecr:GetDownloadUrlForLayer",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
        ],
    ),
    (
        "image-scan.json",
        &["image_scans"],
        &["ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer"],
    ),
    ("credentials-publish-issuer.json", &[], &["s3:GetObject", "s3:ListBucket", "s3:PutObject"]),
    // Of a bucket: whom it lets read.
    ("issuer-bucket-policy.json", &[], &["s3:GetObject"]),
    ("package.json", &[], &["s3:GetObject", "s3:ListBucket", "s3:PutObject", "sagemaker:DescribeModelPackage"]),
    ("model-latest.json", &[], &["sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"]),
    (
        "endpoint-deploy.json",
        &["alarms", "endpoint_logs", "endpoints", "images", "inference", "quotas", "scaling"],
        &[
            "cloudwatch:TagResource",
            "iam:CreateServiceLinkedRole",
            "iam:PassRole",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
            "sagemaker:AddTags",
            "sagemaker:DescribeModelPackage",
            "sagemaker:ListModelPackages",
            "sagemaker:UpdateEndpointWeightsAndCapacities",
        ],
    ),
    (
        "endpoint-deploy-package.json",
        &[],
        &[
            "s3:GetObject",
            "s3:PutObject",
            "sagemaker:AddTags",
            "sagemaker:CreateModelPackage",
            "sagemaker:CreateModelPackageGroup",
            "sagemaker:DescribeModelPackageGroup",
        ],
    ),
    (
        "endpoint-rollback.json",
        &["endpoint_logs", "images", "inference", "quotas", "scaling"],
        &[
            "cloudwatch:DescribeAlarms",
            "iam:CreateServiceLinkedRole",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:DescribeModel",
            "sagemaker:DescribeModelPackage",
            "sagemaker:ListTags",
            "sagemaker:UpdateEndpoint",
            "sagemaker:UpdateEndpointWeightsAndCapacities",
            "sagemaker:UpdateModelPackage",
        ],
    ),
    ("token-secret.json", &[], &["secretsmanager:GetSecretValue"]),
    (
        "endpoint-test.json",
        &["inference"],
        &[
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
        ],
    ),
    (
        "endpoint-status.json",
        &[],
        &[
            "application-autoscaling:DescribeScalableTargets",
            "application-autoscaling:DescribeScalingPolicies",
            "cloudwatch:DescribeAlarms",
            "s3:GetObject",
            "s3:ListBucket",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:DescribeModel",
            "sagemaker:DescribeModelPackage",
        ],
    ),
    (
        "endpoint-delete.json",
        &[],
        &[
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:DescribeScalableTargets",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:ListTagsForResource",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
            "sagemaker:DeleteEndpoint",
            "sagemaker:DeleteEndpointConfig",
            "sagemaker:DeleteModel",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:DescribeModel",
            "sagemaker:ListEndpointConfigs",
            "sagemaker:ListEndpoints",
            "sagemaker:ListTags",
        ],
    ),
    (
        "prune.json",
        &["endpoints/listing", "images/stored", "jobs/ended"],
        &[
            "application-autoscaling:DeregisterScalableTarget",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:ListTagsForResource",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:ListBucket",
            "sagemaker:DeleteEndpoint",
            "sagemaker:DeleteEndpointConfig",
            "sagemaker:DeleteModel",
            "sagemaker:DeleteModelPackage",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:DescribeModel",
            "sagemaker:DescribeModelPackage",
            "sagemaker:ListModelPackages",
        ],
    ),
];

/// Calls that several commands share: each of them is in the policy of one.
const SHARED: &[&str] = &["registry"];

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().unwrap().iter();
    let list = |statement: &Value| match &statement["Action"] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    statements.flat_map(list).map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_policy_allows_what_its_command_calls_and_no_more() {
    let action = Regex::new(r#""((?:[a-z0-9-]+):[A-Z][A-Za-z]+)""#).unwrap();
    for (policy, files, others) in POLICIES {
        let mut called = BTreeSet::new();
        for file in *files {
            let text = read(&format!("src/aws/{file}.rs"));
            let code = text.split("#[cfg(test)]").next().unwrap();
            called.extend(action.captures_iter(code).map(|found| found[1].to_owned()));
        }
        // The name of a condition key in a simulation.
        called.retain(|action| {
            !FREE.contains(&action.as_str()) && !["iam:PassRole", "iam:PassedToService"].contains(&action.as_str())
        });
        called.extend(others.iter().map(|&action| action.to_owned()));
        let shipped: Value = serde_json::from_str(&read(&format!("runner-config/iam/lifecycle/{policy}"))).unwrap();
        assert_eq!(actions(&shipped), called, "{policy}");
    }
    let listed: BTreeSet<&str> = POLICIES.iter().flat_map(|(_, _, others)| others.iter().copied()).collect();
    for file in SHARED {
        let text = read(&format!("src/aws/{file}.rs"));
        let called: BTreeSet<&str> = action.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
        let missing: Vec<_> = called.difference(&listed).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
    let shipped = std::fs::read_dir(root().join("runner-config/iam/lifecycle")).unwrap().count();
    assert_eq!(shipped, POLICIES.len(), "every policy has its row");
}

/// The example, and each whole manifest of the page, has no mistake in any environment.
#[test]
fn the_examples_of_the_manifest_have_no_mistake() {
    let mut texts = vec![read("docs/examples/manifest.json")];
    let page = read("docs/LIFECYCLE.md");
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    texts.extend(blocks.filter(|block| block.starts_with('{')));
    assert!(texts.len() > 1, "the page has an example");
    for text in texts {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.json"), &text).unwrap();
        std::fs::write(folder.path().join("samples.jsonl"), "").unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
        let output = program.arg("validate").env_clear().current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stdout));
    }
}
