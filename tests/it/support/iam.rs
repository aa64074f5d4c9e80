//! An account whose roles have the policies that `policy iam` makes from the operator's file.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::driver::Driver;
use super::emulator::Emulator;
use super::partition;

/// The role of the runner host, as the operator's file of the tests names it.
pub(crate) const HOST_ROLE: &str = "host";
/// The role of training jobs there.
pub(crate) const TRAINING_ROLE: &str = "train";
/// The role that creates training jobs, where the operator's file has one.
pub(crate) const CREATOR_ROLE: &str = "creator";

/// The file of the account in the folder of its emulator.
const ACCOUNT: &str = "account.json";

/// Starts an emulator in a folder of `root`, with the roles and policies that `policy iam` makes from the operator's file, and
/// gives the driver the runner host's key. The account has the driver's further roles, too. A driver may bring other policies.
pub(crate) fn start_emulator(root: &Path, driver: &Driver, operator_file: &str, args: &[String]) -> Emulator {
    let policies = driver.policies.clone().unwrap_or_else(|| policies(root, &driver.program, operator_file));
    let file = root.join(ACCOUNT);
    let is_elsewhere = operator_file.contains(partition::REGION);
    let mut account = account(&policies, if is_elsewhere { "aws-us-gov" } else { "aws" });
    account["RoleDetailList"].as_array_mut().unwrap().extend(driver.roles.iter().cloned());
    std::fs::write(&file, account.to_string()).unwrap();
    let iam = ["--iam".to_owned(), file.to_string_lossy().into_owned()];
    let mut emulator = Emulator::start(&root.join("emulator"), &[args, &iam].concat());
    if is_elsewhere {
        emulator = emulator.in_region(partition::REGION);
    }
    emulator.call_driver_as(&format!("role/{HOST_ROLE}"));
    emulator.put_bucket_policy(&policies["bucket-policy.json"]);
    emulator
}

/// What `policy iam` prints for an operator's file.
fn policies(root: &Path, program: &Path, operator_file: &str) -> Value {
    let file = root.join("operator-for-policies.toml");
    std::fs::write(&file, operator_file.replace("{emulator}", "http://127.0.0.1:1")).unwrap();
    let output = Command::new(program)
        .arg("--config")
        .arg(&file)
        .args(["policy", "iam"])
        .env_clear()
        .env("PATH", super::waiting::search_path())
        .output()
        .expect("the driver is a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("policies are JSON")
}

/// The account, in the form of `aws iam get-account-authorization-details`.
fn account(policies: &Value, partition: &str) -> Value {
    let role = |name: &str, trust: &Value, policy: &Value| {
        json!({
            "RoleName": name,
            "RoleId": format!("AROA{}", name.to_uppercase()),
            "Arn": format!("arn:{partition}:iam::000000000000:role/{name}"),
            "AssumeRolePolicyDocument": trust,
            "RolePolicyList": [{"PolicyName": name, "PolicyDocument": policy}],
        })
    };
    let of_machines = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}});
    let mut roles = vec![
        role(HOST_ROLE, &of_machines, &policies["runner-host.json"]),
        role(TRAINING_ROLE, &policies["training-job-trust.json"], &policies["training-job.json"]),
    ];
    if policies["creator.json"].is_object() {
        roles.push(role(CREATOR_ROLE, &policies["creator-trust.json"], &policies["creator.json"]));
    }
    json!({ "RoleDetailList": roles })
}

/// The actions that the policy of each role allows.
pub(crate) fn granted(root: &Path) -> Value {
    let account: Value = serde_json::from_slice(&std::fs::read(root.join(ACCOUNT)).unwrap()).unwrap();
    let roles = account["RoleDetailList"].as_array().expect("the account has roles").iter();
    let actions = |statement: &Value| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        one => vec![one.clone()],
    };
    let granted = roles.map(|role| {
        let statements = role["RolePolicyList"][0]["PolicyDocument"]["Statement"].as_array().expect("a policy");
        let allowing = statements.iter().filter(|statement| statement["Effect"] == "Allow");
        (role["RoleName"].as_str().expect("a name").to_owned(), allowing.flat_map(actions).collect::<Vec<_>>())
    });
    Value::Object(granted.map(|(name, actions)| (name, Value::Array(actions))).collect())
}
