//! `validate`: what a CI job sees of it, alone and against an account in the emulator.

use std::path::Path;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::snapshot::assert_snapshot;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ARM: &str = "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const POLICY: &str = include_str!("../../../runner-config/iam/lifecycle/validate-connect.json");

/// A manifest with an environment that has all, and one that has nothing of what it names.
fn manifest() -> Value {
    let image = |digest: &str| format!("000000000000.dkr.ecr.eu-west-1.amazonaws.com/serve@{digest}");
    json!({
        "model": {"group": "wine", "image": image(DIGEST), "metrics": ["metrics.json"], "require": ["accuracy>=0.8"]},
        "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large", "count": 2}},
        "environments": {
            "bad": {
                "region": "eu-west-1",
                "account": "123456789012",
                "role": "arn:aws:iam::123456789012:role/nobody",
                "bucket": "elsewhere",
                "patch": {"model": {"image": image(ARM)}, "endpoint": {"instances": {"count": 5}, "alarms": {"names": ["nobody"]}}},
            },
            "good": {
                "region": "eu-west-1",
                "account": "000000000000",
                "role": "arn:aws:iam::000000000000:role/serve",
                "bucket": BUCKET,
                "prefix": "wine",
            },
        },
    })
}

#[test]
fn every_mistake_has_a_line_and_the_job_fails() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\n  \"model\": {\"group\": \"wine\", \"imagine\": 1, \"require\": [\"accuracy=0.8\"]},\n  \"environments\": {\n    \
                \"prod\": {\"account\": 1},\n    \"staging\": {\"region\": \"${REGION}\"}\n  }\n}\n";
    std::fs::write(folder.path().join("manifest.json"), text).unwrap();
    let all = run(folder.path(), &[], &["validate"]);
    assert_eq!(all.code, 1);
    assert_snapshot("validate_mistakes", &format!("{}{}", all.stdout, all.stderr));
    let one = run(folder.path(), &[("REGION", "eu-west-1")], &["validate", "--targets", "staging", "--output", "json"]);
    let data: Value = serde_json::from_str(&one.stdout).unwrap();
    let keys: Vec<_> = data["findings"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!((one.code, keys), (1, vec!["model.image", "model.imagine", "model.require.0"]));
    let over = run(folder.path(), &[], &["validate", "--junit", "manifest.json"]);
    assert_eq!((over.code, over.stdout.as_str()), (1, ""), "{}", over.stderr);
    assert_eq!(std::fs::read_to_string(folder.path().join("manifest.json")).unwrap(), text);
    let absent = run(folder.path(), &[], &["validate", "--manifest", "absent.json"]);
    assert_eq!((absent.code, absent.stdout.as_str()), (1, ""));
    assert!(absent.stderr.contains("`--manifest FILE`"), "{}", absent.stderr);
}

/// Mistakes that the first deployment after a training would refuse: the manifests of two scaffolds in one, without their files and roles.
#[test]
fn an_endpoint_needs_its_samples_and_a_role() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = manifest();
    manifest["endpoint"]["test"] = json!({"samples": ["samples.jsonl", "more/samples.jsonl"]});
    manifest["environments"]["bad"] = json!({"region": "eu-west-1", "account": "123456789012"});
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::write(folder.path().join("samples.jsonl"), "").unwrap();
    let ended = run(folder.path(), &[], &["validate", "--output", "json"]);
    let data: Value = serde_json::from_str(&ended.stdout).unwrap();
    let told =
        |key: &str| data["findings"].as_array().unwrap().iter().map(|one| one[key].to_string()).collect::<Vec<_>>();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(told("key"), ["\"endpoint.test.samples.1\"", "\"environments.bad\"", "\"environments.bad\""]);
    let messages = told("message");
    for (message, named) in messages.iter().zip(["commit it", "`bucket`", "`role`"]) {
        assert!(message.contains(named), "{messages:?}");
    }
    // Without a deployment nothing is needed.
    manifest["environments"]["bad"]["patch"] = json!({"endpoint": null});
    std::fs::create_dir(folder.path().join("more")).unwrap();
    std::fs::write(folder.path().join("more/samples.jsonl"), "").unwrap();
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    let ended = run(folder.path(), &[], &["validate"]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
}

/// Roles of the account: the caller with the shipped policy, the one of the endpoint, and a caller that may do nothing.
fn account() -> String {
    let policy = POLICY.replace("123456789012", "000000000000").replace("example-models", BUCKET);
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    let pass = json!({"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::000000000000:role/serve",
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}});
    policy["Statement"].as_array_mut().unwrap().push(pass);
    let role = |path: &str, name: &str, service: &str, policies: Vec<Value>| {
        json!({
            "RoleName": name,
            "RoleId": format!("AROA{}", name.to_uppercase()),
            "Arn": format!("arn:aws:iam::000000000000:role{path}{name}"),
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement":
                {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}},
            "RolePolicyList": policies,
        })
    };
    let given = vec![json!({"PolicyName": "given", "PolicyDocument": policy})];
    json!({"RoleDetailList": [
        role("/ci/", "deployer", "ec2.amazonaws.com", given),
        role("/", "serve", "sagemaker.amazonaws.com", Vec::new()),
        role("/", "stranger", "ec2.amazonaws.com", Vec::new()),
    ]})
    .to_string()
}

fn connect(folder: &Path, emulator: &Emulator, environment: &str) -> Ended {
    let variables = emulator.environment();
    let mut variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.push(("AWS_ENDPOINT_URL", &emulator.endpoint));
    run(folder, &variables, &["describe", "--connect", "--environment", environment, "--junit", "validate.xml"])
}

#[test]
fn an_account_is_compared_under_the_shipped_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("manifest.json"), manifest().to_string()).unwrap();
    std::fs::write(file("account.json"), account()).unwrap();
    let images = [format!("serve@{DIGEST}=linux/amd64"), format!("serve@{ARM}=linux/arm64,unknown/unknown")];
    let account = file("account.json");
    let args = ["--iam", account.to_str().unwrap(), "--ecr", &images[0], "--ecr", &images[1]];
    let quotas = ["--quota", "endpoint:ml.m5.large=4", "--quota", "ml.m5.large=1"];
    let args: Vec<_> = args.into_iter().chain(quotas).map(str::to_owned).collect();
    let mut emulator = Emulator::start(&file("data"), &args);
    emulator.create_bucket("elsewhere", "eu-west-3");
    emulator.call_driver_as("role/deployer");

    let good = connect(folder.path(), &emulator, "good");
    assert_eq!(
        (good.code, good.stderr.as_str()),
        (0, "The manifest manifest.json has no mistake\n"),
        "{}",
        good.stdout
    );
    assert_snapshot("validate_connect_good", &good.stdout);
    let decided = emulator.decided("ci/deployer");
    assert_eq!(decided["denied"], json!({}), "the shipped policy is enough");

    let bad = connect(folder.path(), &emulator, "bad");
    assert_eq!(bad.code, 1, "{}", bad.stderr);
    assert_snapshot("validate_connect_bad", &format!("{}{}", bad.stdout, bad.stderr));
    let junit = std::fs::read_to_string(file("validate.xml")).unwrap();
    assert!(junit.contains("tests=\"9\"") && junit.contains("failures=\"7\""), "{junit}");

    emulator.call_driver_as("role/stranger");
    let stranger = connect(folder.path(), &emulator, "good");
    assert_eq!(stranger.code, 1);
    assert_snapshot("validate_connect_stranger", &stranger.stdout);
}
