//! The modules applied to moto, which keeps what it is told as AWS does: applied, planned again without a change, destroyed. In long form
//! alone (`INFRASTRUCTURE=all`): it takes minutes, because the provider waits for S3.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use executor::config::env::Environment;
use serde_json::{Value, json};

use super::planned::{assert_linted, assert_policies, outputs};
use super::terraform::Terraform;
use crate::conformance::{shown, skipped};

const ACCOUNT: &str = "111122223333";

/// A moto of its own, on a port of the system's choice.
pub(super) struct Moto {
    server: Child,
    pub(super) endpoint: String,
}

impl Moto {
    /// None where the machine has no `moto_server`.
    pub(super) fn start() -> Option<Self> {
        let mut server = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("MOTO_ACCOUNT_ID", ACCOUNT)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        // It listens when it has said where.
        let mut lines = BufReader::new(server.stderr.take()?).lines();
        let said =
            lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("Running on ")?.1.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        let Some(endpoint) = said else {
            server.wait().ok();
            return None;
        };
        Some(Self { server, endpoint: endpoint.trim().to_owned() })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// The provider of a caller, at moto, and with few repetitions: moto answers an operation that it lacks with status 500.
fn provider(endpoint: &str, region: &str) -> String {
    let services = [
        "autoscaling",
        "cloudwatch",
        "ec2",
        "ecr",
        "events",
        "iam",
        "kms",
        "logs",
        "s3",
        "sagemaker",
        "sns",
        "sqs",
        "sts",
    ];
    let endpoints = services.map(|service| format!("    {service} = \"{endpoint}\"\n")).concat();
    format!(
        "provider \"aws\" {{\n  region = \"{region}\"\n  access_key = \"testing\"\n  secret_key = \"testing\"\n  max_retries = 2\n  \
        skip_credentials_validation = true\n  skip_metadata_api_check = \"true\"\n  skip_region_validation = true\n  s3_use_path_style = true\n  \
        endpoints {{\n{endpoints}  }}\n}}\n"
    )
}

fn inputs(partition: &str, region: &str) -> Value {
    json!({
        "name": "ml",
        "gitlab_url": "https://gitlab.example.com",
        "runner": {
            "bucket": "ci-exchange-7",
            "ami_id": "ami-0123456789abcdef0",
            "executor": {"url": "https://downloads.example.com/sagemaker-executor", "sha256": "a".repeat(64)},
            "gitlab_runner": {"url": "https://downloads.example.com/gitlab-runner", "sha256": "b".repeat(64)},
            "runners": {"sagemaker": {"token_arn": format!("arn:{partition}:ssm:{region}:{ACCOUNT}:parameter/gitlab/sagemaker")}},
            "instance_types": ["ml.m5.xlarge", "ml.g5.*"],
            "availability_zones": [format!("{region}a"), format!("{region}b")],
            "several_nodes": true
        },
        "model_bucket": "ci-models-7",
        "training_repositories": ["train"],
        "serving_repositories": ["serve"],
        "model_groups": {"wine": "Tells wines apart"},
        "environments": {
            "production": {
                "subjects": ["project_path:ml/wine:ref_type:branch:ref:main"],
                "commands": ["endpoint-deploy", "endpoint-status", "model-register"],
                "endpoint": "wine-production",
                "model_group": "wine",
                "watch": {}
            }
        },
        "approval_events": {
            "project_id": 42,
            "connection_arn": format!("arn:{partition}:events:{region}:{ACCOUNT}:connection/gitlab/11111111-2222-3333-4444-555555555555")
        },
        "force_destroy": true
    })
}

/// Values that moto gives back otherwise than it got them, and what follows from that. It also lacks `PutModelPackageGroupPolicy`
/// and `DeleteModelPackageGroup`; the mocked provider has them.
const OTHERWISE: [(&str, &[&str]); 4] = [
    ("aws_launch_template", &["default_version", "latest_version", "tag_specifications"]),
    ("aws_autoscaling_group", &["capacity_reservation_specification", "launch_template"]),
    ("aws_vpc_security_group_egress_rule", &["description"]),
    ("aws_vpc_security_group_ingress_rule", &["description"]),
];

/// The changes of a plan that moto is not to blame for.
fn changes(plan: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for change in plan["resource_changes"].as_array().into_iter().flatten() {
        if change["mode"] != "managed" || change["change"]["actions"] == json!(["no-op"]) {
            continue;
        }
        let (before, after) = (&change["change"]["before"], &change["change"]["after"]);
        let known = OTHERWISE.iter().find(|(kind, _)| change["type"] == *kind).map_or(&[][..], |(_, keys)| keys);
        let keys = before.as_object().into_iter().flatten().filter(|(key, value)| after[key.as_str()] != **value);
        let others: Vec<_> = keys.map(|(key, _)| key.as_str()).filter(|key| !known.contains(key)).collect();
        if change["change"]["actions"] != json!(["update"]) || !others.is_empty() {
            found.push(format!("{}: {} {others:?}", change["address"], change["change"]["actions"]));
        }
    }
    found
}

#[test]
fn all_modules_are_applied_planned_again_and_destroyed() {
    let name = "the OpenTofu modules at moto";
    if Environment::of_process().get("INFRASTRUCTURE") != Some("all") {
        return skipped(name, "INFRASTRUCTURE=all runs them");
    }
    let Some(terraform) = Terraform::new(name) else { return };
    let Some(moto) = Moto::start() else { return skipped(name, "no moto_server (package moto[server])") };
    terraform.init("complete");
    for (partition, region) in [("aws", "eu-west-1"), ("aws-us-gov", "us-gov-west-1")] {
        let module = terraform.module("complete");
        std::fs::write(module.join("provider.tf"), provider(&moto.endpoint, region)).unwrap();
        std::fs::write(module.join("terraform.tfvars.json"), inputs(partition, region).to_string()).unwrap();
        terraform.passes("complete", &["apply", "-auto-approve", "-no-color", "-input=false"]);
        let state: Value = serde_json::from_str(&terraform.passes("complete", &["output", "-json"])).unwrap();
        let outputs: BTreeMap<_, _> = outputs(&state);
        assert_policies(&outputs);
        let text = std::fs::read_to_string(module.join("terraform.tfstate")).unwrap();
        assert_linted(&policies_of_roles(&serde_json::from_str(&text).unwrap()));
        assert!(!text.contains("glrt-"), "a token is in the state");
        assert!(partition == "aws" || !outputs["policies"].to_string().contains("arn:aws:"));

        terraform.passes("complete", &["plan", "-no-color", "-input=false", "-out=again"]);
        let plan = serde_json::from_str(&terraform.passes("complete", &["show", "-json", "again"])).unwrap();
        assert_eq!(changes(&plan), Vec::<String>::new(), "{partition}: a second plan changes something");

        // Over resources that are there: the first one that is named is the error.
        second_state_is_refused(&terraform, &module);
        terraform
            .passes("complete", &["state", "rm", "module.registry.aws_sagemaker_model_package_group.models[\"wine\"]"]);
        terraform.passes("complete", &["destroy", "-auto-approve", "-no-color", "-input=false"]);
    }
}

/// The policies of all roles in a state, by the addresses of their resources.
fn policies_of_roles(state: &Value) -> BTreeMap<String, String> {
    let of_roles =
        |resource: &&Value| ["aws_iam_role_policy", "aws_iam_policy"].contains(&resource["type"].as_str().unwrap());
    let mut found = BTreeMap::new();
    for resource in state["resources"].as_array().unwrap().iter().filter(of_roles) {
        for instance in resource["instances"].as_array().unwrap() {
            let name = format!("{}{}{}", resource["module"], resource["name"], instance["index_key"]);
            found.insert(name, instance["attributes"]["policy"].as_str().unwrap().to_owned());
        }
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

/// Without the state, the same names are those of somebody else: nothing of them is changed.
#[track_caller]
fn second_state_is_refused(terraform: &Terraform, module: &Path) {
    let state = module.join("terraform.tfstate");
    let kept = std::fs::read(&state).unwrap();
    std::fs::remove_file(&state).unwrap();
    let ended = terraform.call(
        "complete",
        &["apply", "-auto-approve", "-no-color", "-input=false", "-target=module.runner.aws_iam_role.host"],
    );
    assert!(!ended.status.success() && shown(&ended).contains("EntityAlreadyExists"), "{}", shown(&ended));
    std::fs::write(state, kept).unwrap();
}
