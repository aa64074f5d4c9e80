//! Versions and their labels, deletion, selection, and who may read.

use serde_json::{Value, json};

use super::*;
use crate::caller::Caller;
use crate::config::EmulatorConfig;
use crate::protocol::Answer;
use crate::shared::Shared;

fn vault() -> Arc<SecretVault> {
    let folder = tempfile::tempdir().unwrap();
    Arc::new(SecretVault::new(&Arc::new(Shared::new(EmulatorConfig::new(folder.path()), String::new()).unwrap())))
}

fn call(vault: &Arc<SecretVault>, operation: &str, request: &Value) -> Answer {
    crate::service::answer(vault, operation, request, &Caller::administrator())
}

fn ok(vault: &Arc<SecretVault>, operation: &str, request: &Value) -> Value {
    call(vault, operation, request).unwrap().unwrap_or_default()
}

fn code(vault: &Arc<SecretVault>, operation: &str, request: &Value) -> String {
    call(vault, operation, request).unwrap_err().code
}

#[test]
fn a_new_value_moves_the_labels() {
    let vault = vault();
    let created = ok(&vault, "CreateSecret", &json!({"Name": "ci/db", "SecretString": "one"}));
    let arn = created["ARN"].as_str().unwrap().to_owned();
    assert!(arn.starts_with("arn:aws:secretsmanager:us-east-1:000000000000:secret:ci/db-") && arn.len() == 65, "{arn}");
    ok(&vault, "PutSecretValue", &json!({"SecretId": "ci/db", "SecretString": "two"}));
    let read = |more: &Value| {
        let mut request = json!({"SecretId": "ci/db"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ok(&vault, "GetSecretValue", &request)["SecretString"].clone()
    };
    assert_eq!(read(&json!({})), "two");
    assert_eq!(read(&json!({"VersionStage": "AWSPREVIOUS"})), "one");
    assert_eq!(read(&json!({"VersionId": created["VersionId"]})), "one");
    ok(&vault, "PutSecretValue", &json!({"SecretId": arn, "SecretBinary": "AAE=", "VersionStages": ["NEXT"]}));
    assert_eq!(read(&json!({})), "two", "a label of its own leaves the current value");
    let next = ok(&vault, "GetSecretValue", &json!({"SecretId": &arn[..arn.len() - 7], "VersionStage": "NEXT"}));
    assert_eq!((&next["SecretBinary"], &next["SecretString"]), (&json!("AAE="), &Value::Null));
    assert_eq!(
        code(&vault, "GetSecretValue", &json!({"SecretId": arn, "VersionStage": "NONE"})),
        "ResourceNotFoundException"
    );
    let described = ok(&vault, "DescribeSecret", &json!({"SecretId": arn}));
    assert_eq!(described["VersionIdsToStages"].as_object().unwrap().len(), 3);
    assert!(!described.to_string().contains("two"), "{described}");
}

#[test]
fn the_same_token_is_the_same_version() {
    let vault = vault();
    ok(&vault, "CreateSecret", &json!({"Name": "x"}));
    assert_eq!(code(&vault, "GetSecretValue", &json!({"SecretId": "x"})), "ResourceNotFoundException");
    let token = "0123456789abcdef0123456789abcdef";
    let put = json!({"SecretId": "x", "SecretString": "one", "ClientRequestToken": token});
    assert_eq!(ok(&vault, "PutSecretValue", &put), ok(&vault, "PutSecretValue", &put));
    let other = json!({"SecretId": "x", "SecretString": "two", "ClientRequestToken": token});
    assert_eq!(code(&vault, "PutSecretValue", &other), "ResourceExistsException");
    let both = json!({"SecretId": "x", "SecretString": "a", "SecretBinary": "AAE="});
    assert_eq!(code(&vault, "PutSecretValue", &both), "InvalidParameterException");
    assert_eq!(code(&vault, "PutSecretValue", &json!({"SecretId": "x"})), "InvalidParameterException");
    let large = json!({"SecretId": "x", "SecretString": "a".repeat(65_537)});
    assert_eq!(code(&vault, "PutSecretValue", &large), "ValidationException");
}

#[test]
fn a_deleted_secret_can_be_restored_within_its_time() {
    let vault = vault();
    ok(&vault, "CreateSecret", &json!({"Name": "x", "SecretString": "one"}));
    ok(&vault, "DeleteSecret", &json!({"SecretId": "x", "RecoveryWindowInDays": 7}));
    assert_eq!(code(&vault, "GetSecretValue", &json!({"SecretId": "x"})), "InvalidRequestException");
    assert_eq!(code(&vault, "CreateSecret", &json!({"Name": "x"})), "InvalidRequestException");
    assert_eq!(ok(&vault, "ListSecrets", &json!({}))["SecretList"], json!([]));
    ok(&vault, "RestoreSecret", &json!({"SecretId": "x"}));
    assert_eq!(ok(&vault, "GetSecretValue", &json!({"SecretId": "x"}))["SecretString"], "one");
    ok(&vault, "DeleteSecret", &json!({"SecretId": "x", "ForceDeleteWithoutRecovery": true}));
    assert_eq!(code(&vault, "DescribeSecret", &json!({"SecretId": "x"})), "ResourceNotFoundException");
    ok(&vault, "CreateSecret", &json!({"Name": "x"}));
    let odd = json!({"SecretId": "x", "RecoveryWindowInDays": 3});
    assert_eq!(code(&vault, "DeleteSecret", &odd), "InvalidParameterException");
}

#[test]
fn lists_have_filters_pages_and_tags() {
    let vault = vault();
    for name in ["ci/a", "ci/b", "other"] {
        let tags = json!([{"Key": "team", "Value": name}]);
        ok(&vault, "CreateSecret", &json!({"Name": name, "SecretString": name, "Tags": tags}));
    }
    let names = |request: &Value| {
        let list = ok(&vault, "ListSecrets", request)["SecretList"].clone();
        list.as_array().unwrap().iter().map(|one| one["Name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let filter = |key: &str, value: &str| json!({"Filters": [{"Key": key, "Values": [value]}]});
    assert_eq!(names(&filter("name", "ci/")), ["ci/a", "ci/b"]);
    assert_eq!(names(&filter("name", "!ci/")), ["other"]);
    assert_eq!(names(&filter("tag-value", "ci/b")), ["ci/b"]);
    ok(&vault, "UntagResource", &json!({"SecretId": "ci/b", "TagKeys": ["team"]}));
    assert_eq!(names(&filter("tag-key", "team")), ["ci/a", "other"]);
    let first = ok(&vault, "ListSecrets", &json!({"MaxResults": 2}));
    let rest = ok(&vault, "ListSecrets", &json!({"NextToken": first["NextToken"]}));
    assert_eq!(rest["SecretList"].as_array().unwrap().len(), 1);
    let batch = ok(&vault, "BatchGetSecretValue", &json!({"SecretIdList": ["ci/a", "absent"]}));
    assert_eq!(batch["SecretValues"][0]["SecretString"], "ci/a");
    assert_eq!(batch["Errors"][0]["ErrorCode"], "ResourceNotFoundException");
    assert_eq!(code(&vault, "BatchGetSecretValue", &json!({})), "InvalidParameterException");
}

#[test]
fn a_label_moves_only_from_the_version_that_is_named() {
    let vault = vault();
    let one = ok(&vault, "CreateSecret", &json!({"Name": "x", "SecretString": "1"}))["VersionId"].clone();
    let two = ok(&vault, "PutSecretValue", &json!({"SecretId": "x", "SecretString": "2"}))["VersionId"].clone();
    let mut request = json!({"SecretId": "x", "VersionStage": "AWSCURRENT", "MoveToVersionId": one});
    assert_eq!(code(&vault, "UpdateSecretVersionStage", &request), "InvalidParameterException");
    request["RemoveFromVersionId"] = two;
    ok(&vault, "UpdateSecretVersionStage", &request);
    assert_eq!(ok(&vault, "GetSecretValue", &json!({"SecretId": "x"}))["SecretString"], "1");
    let previous = json!({"SecretId": "x", "VersionStage": "AWSPREVIOUS"});
    assert_eq!(ok(&vault, "GetSecretValue", &previous)["SecretString"], "2");
}

#[test]
fn a_policy_is_kept_as_it_was_sent() {
    let vault = vault();
    let arn = ok(&vault, "CreateSecret", &json!({"Name": "x"}))["ARN"].clone();
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "secretsmanager:GetSecretValue", "Resource": "*"});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    ok(&vault, "PutResourcePolicy", &json!({"SecretId": "x", "ResourcePolicy": policy}));
    assert_eq!(ok(&vault, "GetResourcePolicy", &json!({"SecretId": "x"}))["ResourcePolicy"], policy);
    assert!(vault.resource_policy(arn.as_str().unwrap()).is_some());
    ok(&vault, "DeleteResourcePolicy", &json!({"SecretId": "x"}));
    assert!(vault.resource_policy(arn.as_str().unwrap()).is_none());
    let wrong = json!({"SecretId": "x", "ResourcePolicy": "{}"});
    assert_eq!(code(&vault, "PutResourcePolicy", &wrong), "MalformedPolicyDocumentException");
}
