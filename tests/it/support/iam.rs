//! An account whose roles have the policies that `policy iam` makes from the operator's file.

use std::process::Command;

use serde_json::{Value, json};

use super::driver::Driver;
use super::world::Dirs;

/// The role of the runner host, as the operator's file of the tests names it.
pub(crate) const HOST_ROLE: &str = "host";
/// The role of training jobs there.
pub(crate) const TRAINING_ROLE: &str = "train";

/// What `policy iam` prints for a driver's operator's file.
pub(crate) fn policies(dirs: &Dirs, driver: &Driver) -> Value {
    let file = dirs.root().join("operator-for-policies.toml");
    let content = dirs.fill(&driver.operator_config).replace("{emulator}", "http://127.0.0.1:1");
    std::fs::write(&file, content).unwrap();
    let output = Command::new(&driver.program)
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
pub(crate) fn account(policies: &Value) -> Value {
    let role = |name: &str, trust: &Value, policy: &Value| {
        json!({
            "RoleName": name,
            "RoleId": format!("AROA{}", name.to_uppercase()),
            "Arn": format!("arn:aws:iam::000000000000:role/{name}"),
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
        roles.push(role("creator", &policies["creator-trust.json"], &policies["creator.json"]));
    }
    json!({ "RoleDetailList": roles })
}
