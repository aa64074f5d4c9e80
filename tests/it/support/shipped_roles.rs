//! Roles with the policies that this project ships for commands about models and endpoints, as `--iam` takes them.

use serde_json::{Value, json};

use super::emulator::BUCKET;

const TRUST: &str = include_str!("../../../runner-config/iam/lifecycle/model-approve-trust.json");

/// A shipped document with the example's account, region, bucket and endpoint replaced by the emulator's and the tests'.
pub(crate) fn of_test_account(document: &str) -> Value {
    let document = document.replace("123456789012", "000000000000").replace("eu-west-1", "us-east-1");
    let document = document.replace("example-models", BUCKET).replace("example-endpoint", "wine");
    serde_json::from_str(&document).unwrap()
}

/// A role of this name with the policy, which takes id tokens.
pub(crate) fn shipped_role((name, policy): (&str, &str)) -> Value {
    shipped_role_with(name, &[(name, policy)])
}

/// A role with these policies, which takes id tokens.
pub(crate) fn shipped_role_with(name: &str, policies: &[(&str, &str)]) -> Value {
    let policy = |(name, policy): &(&str, &str)| json!({"PolicyName": name, "PolicyDocument": of_test_account(policy)});
    json!({
        "RoleName": name,
        "RoleId": format!("AROA{}", name.to_uppercase()),
        "Arn": format!("arn:aws:iam::000000000000:role/{name}"),
        "AssumeRolePolicyDocument": of_test_account(TRUST),
        "RolePolicyList": policies.iter().map(policy).collect::<Vec<_>>(),
    })
}
