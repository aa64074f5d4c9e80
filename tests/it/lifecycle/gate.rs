//! `gate`: what a CI job sees of it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::run;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::snapshot::assert_snapshot;

const MANIFEST: &str = r#"{"model": {"group": "wine", "image": "000000000000.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "metrics": ["metrics.json"], "require": ["accuracy>=0.8", "f1>=0.7"]}}"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

const EVIDENCE: [&str; 7] = ["gate", "--junit", "gate.xml", "--openmetrics", "gate.txt", "--dotenv", "gate.env"];

#[test]
fn a_model_that_reaches_its_bars_passes() {
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", r#"{"accuracy": 0.80, "f1": 0.70}"#)]);
    let ended = run(folder.path(), &[], &EVIDENCE);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "The model passes the gate: 2 of 2 rules hold\n"));
    assert_snapshot("gate_passed", &ended.stdout);
    let env = read(folder.path(), "gate.env");
    assert_eq!(env.lines().count(), 2, "{env}");
    assert!(env.starts_with("GATE_METRICS_SHA256=") && env.ends_with("\nGATE_RESULT=passed\n"), "{env}");
    assert_eq!(env.lines().next().unwrap().len(), "GATE_METRICS_SHA256=".len() + 64);
    let expected = "# TYPE gate_passed gauge\ngate_passed 1\n# TYPE gate_value gauge\n\
                    gate_value{metric=\"accuracy\"} 0.8\ngate_value{metric=\"f1\"} 0.7\n# EOF\n";
    assert_eq!(read(folder.path(), "gate.txt"), expected);
}

#[test]
fn a_model_below_a_bar_ends_with_10_and_leaves_the_evidence() {
    let metrics = r#"{"accuracy": 0.79999999999999999999, "f1": NaN, "auc": 0.9}"#;
    let old = "accuracy 0.9\nf1 0.7\nauc 0.905\n# EOF\n";
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", metrics), ("old.txt", old)]);
    let more = ["--baseline", "old.txt", "--max-regression", "higher:auc=0.005", "--require", "precision>0"];
    let ended = run(folder.path(), &[], &[&EVIDENCE[..], &more].concat());
    assert_eq!(ended.code, 10, "{}", ended.stderr);
    assert_snapshot("gate_failed", &format!("{}{}", ended.stdout, ended.stderr));
    assert_snapshot("gate_failed_junit", &read(folder.path(), "gate.xml"));
    assert!(read(folder.path(), "gate.env").ends_with("\nGATE_RESULT=failed\n"));
    assert!(read(folder.path(), "gate.txt").contains("\ngate_passed 0\n"));
    let json = run(folder.path(), &[], &[&["gate", "--output", "json"][..], &more].concat());
    assert_eq!(json.code, 10);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json["result"].as_str(), json["baseline"].as_str()), (Some("failed"), Some("old.txt")));
    let results: Vec<_> =
        json["rules"].as_array().unwrap().iter().map(|rule| rule["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["failed", "failed", "failed", "passed"]);
    assert_eq!(json["rules"][3]["baseline"], 0.905);
    assert_eq!(json["rules"][0]["value"], "0.79999999999999999999");
}

#[test]
fn a_wrong_request_is_one_error_with_1_and_leaves_nothing() {
    let metrics = r#"{"accuracy": 0.9, "f1": 0.9}"#;
    let rows: &[(&str, &[&str])] = &[
        ("no rule", &["--manifest", "empty.json", "--metrics", "metrics.json"]),
        ("no metrics", &["--manifest", "empty.json", "--require", "a>1"]),
        ("no such file", &["--metrics", "absent.json"]),
        ("a folder", &["--metrics", "."]),
        ("no JSON", &["--metrics", "broken.json"]),
        ("no OpenMetrics", &["--metrics", "broken.txt"]),
        ("no rule's form", &["--require", "accuracy=0.8"]),
        ("a looser rule", &["--require", "accuracy>=0.5"]),
        ("no direction", &["--max-regression", "auc=0.1", "--baseline", "metrics.json"]),
        ("no limit", &["--baseline", "metrics.json"]),
        ("no such baseline", &["--max-regression", "f1=0.1", "--baseline", "absent.json"]),
        ("no JSONPath", &["--metric", "f2=report.f2"]),
        ("no version", &["--max-regression", "f1=0.1", "--baseline", "arn:aws:s3:::x"]),
        ("no environment", &["--max-regression", "f1=0.1"]),
        ("a file for two", &["--junit", "gate.env"]),
        ("an input", &["--openmetrics", "./metrics.json"]),
        ("no such folder", &["--junit", "absent/gate.xml"]),
    ];
    let folder = folder(&[
        ("manifest.json", MANIFEST),
        ("metrics.json", metrics),
        ("empty.json", "{}"),
        ("broken.json", "{\n  \"accuracy\": 0.9,\n}\n"),
        ("broken.txt", "accuracy=0.9\n"),
    ]);
    let mut shown = String::new();
    for (name, arguments) in rows {
        let ended = run(folder.path(), &[], &[&["gate", "--dotenv", "gate.env"], *arguments].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{name}: {}", ended.stderr);
        assert!(!folder.path().join("gate.env").exists(), "{name}");
        shown.extend([name, ":\n", &ended.stderr]);
    }
    assert_snapshot("gate_refused", &shown);
}

#[test]
fn a_gate_needs_no_manifest_and_a_reader_that_goes_is_no_error() {
    let folder = folder(&[("m.txt", "acc{split=\"test\"} 0.9\nacc{split=\"train\"} 1\n")]);
    let rule = "acc{split=\"test\"} >= 0.9";
    let ended = run(folder.path(), &[], &["gate", "--require", rule, "--metrics", "m.txt"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("There is no manifest.json"), "{}", ended.stderr);
    let absent =
        run(folder.path(), &[], &["gate", "--manifest", "absent.json", "--require", rule, "--metrics", "m.txt"]);
    assert_eq!(absent.code, 1, "{}", absent.stderr);
    let prod = run(folder.path(), &[], &["gate", "--environment", "prod", "--require", rule, "--metrics", "m.txt"]);
    assert_eq!(prod.code, 1, "{}", prod.stderr);
    assert!(prod.stderr.contains("no manifest.json with the environment prod"), "{}", prod.stderr);
    let doubled = run(folder.path(), &[], &["gate", "--require", "acc>=0.9", "--metrics", "m.txt"]);
    assert_eq!(doubled.code, 10, "{}", doubled.stderr);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
    program.args(["gate", "--require", rule, "--metrics", "m.txt"]).current_dir(folder.path()).env_clear();
    let output = program.stdout(Stdio::from(writer)).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("panic"), "{stderr}");
}

/// The shipped policy, for the emulator's account and bucket.
fn account() -> Value {
    let policy = include_str!("../../../runner-config/iam/lifecycle/gate.json");
    let policy = policy.replace("eu-west-1:123456789012", "us-east-1:000000000000").replace("example-models", BUCKET);
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}]});
    json!({"RoleDetailList": [{
        "RoleName": "gate",
        "RoleId": "AROAGATE",
        "Arn": "arn:aws:iam::000000000000:role/gate",
        "AssumeRolePolicyDocument": trust,
        "RolePolicyList": [{"PolicyName": "gate", "PolicyDocument": serde_json::from_str::<Value>(&policy).unwrap()}],
    }]})
}

#[test]
fn the_latest_approved_version_is_the_baseline_under_the_shipped_policy() {
    let mut manifest: Value = serde_json::from_str(MANIFEST).unwrap();
    let image = manifest["model"]["image"].as_str().unwrap().replace("eu-west-1", "us-east-1");
    manifest["model"]["image"] = json!(image);
    manifest["model"]["max_regression"] = json!(["f1=0.01"]);
    manifest["environments"] = json!({"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}});
    let folder = folder(&[
        ("manifest.json", &manifest.to_string()),
        ("metrics.json", r#"{"accuracy": 0.9, "f1": 0.88}"#),
        ("account.json", &account().to_string()),
    ]);
    let file = folder.path().join("account.json");
    let mut emulator = Emulator::start(&folder.path().join("data"), &["--iam".to_owned(), file.display().to_string()]);
    emulator.call_driver_as("role/gate");
    let mut variables = emulator.environment();
    variables.push(("AWS_ENDPOINT_URL".to_owned(), emulator.endpoint.clone()));
    variables.push(("CI_ENVIRONMENT_NAME".to_owned(), "prod".to_owned()));
    let gate = || {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let ended = run(folder.path(), &variables, &["gate"]);
        (ended.code, ended.stderr)
    };
    let (code, stderr) = gate();
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.starts_with("The group wine has no approved version to compare with\n"), "{stderr}");
    emulator.put_object("metrics/first.json", br#"{"f1": 0.90}"#);
    emulator.call("SageMaker.CreateModelPackageGroup", &json!({"ModelPackageGroupName": "wine"}));
    let version = json!({
        "ModelPackageGroupName": "wine",
        "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {"Containers": [{"Image": image}]},
        "ModelMetrics": {"ModelQuality": {"Statistics":
            {"ContentType": "application/json", "S3Uri": format!("s3://{BUCKET}/metrics/first.json")}}},
    });
    emulator.call("SageMaker.CreateModelPackage", &version);
    let (code, stderr) = gate();
    assert_eq!(code, 10, "{stderr}");
    assert!(stderr.contains("(it is 0.88, and the baseline's is 0.9)"), "{stderr}");
    emulator.put_object("metrics/first.json", br#"{"f1": 0.89}"#);
    let (code, stderr) = gate();
    assert_eq!((code, stderr.as_str()), (0, "The model passes the gate: 3 of 3 rules hold\n"));
    assert_eq!(emulator.decided("gate")["denied"], json!({}));
}
