//! The emulator's secrets with clients of others: boto3 and the AWS CLI, as the administrator and as a user with a policy.

use serde_json::json;

use super::registry::{client, run};
use super::{clients, skipped};
use crate::support::emulator::Emulator;

#[test]
fn secrets_are_made_read_rotated_deleted_and_kept_from_others() {
    let Some(clients) = clients() else {
        return skipped("secrets", "neither the machine nor the package index has the clients");
    };
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, account) = (folder.path().join("data"), folder.path().join("account.json"));
    let statement = json!({
        "Effect": "Allow", "Action": "secretsmanager:GetSecretValue",
        "Resource": "arn:aws:secretsmanager:eu-west-1:000000000000:secret:ci/*-??????",
        "Condition": {"StringEquals": {"aws:ResourceTag/team": "ml"}},
    });
    let policy = json!({"PolicyName": "read", "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]}});
    let user = json!({
        "UserName": "reader", "UserId": "AIDAREADER", "Arn": "arn:aws:iam::000000000000:user/reader", "UserPolicyList": [policy],
    });
    std::fs::write(&account, json!({"UserDetailList": [user]}).to_string()).unwrap();
    let emulator = Emulator::start(&data_dir, &["--iam".to_owned(), account.display().to_string()]);
    let mut command = client(&emulator, &data_dir, &clients.join("python3"));
    run(command.args(["tests/fixtures/conformance/secret_values.py", &emulator.endpoint]));
}
