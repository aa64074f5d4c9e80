//! `docs/EMULATOR.md` against the code: operations, quirks, keys of fault plans, the emulator's own paths, and its example.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use emulator::{FaultPlan, Quirks};
use regex::Regex;
use serde_json::{Value, json};

use super::{read, rows};
use crate::support::emulator::Emulator;
use crate::support::waiting::poll;

const PAGE: &str = "docs/EMULATOR.md";

/// The part of the page below a heading, up to the next one.
fn section(heading: &str) -> String {
    let page = read(PAGE);
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The words in backquotes.
fn quoted(text: &str) -> BTreeSet<String> {
    let word = Regex::new("`([^`]+)`").unwrap();
    word.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_operations_are_those_of_the_code() {
    let tables: Value = serde_json::from_str(&read("src/emulator/model/operations.json")).unwrap();
    let of_model = |service: &str| set(tables[service].as_array().unwrap().iter().map(|name| name.as_str().unwrap()));
    let function = Regex::new(r"(?m)^    async fn (\w+)\(").unwrap();
    let pascal = |name: &str| -> String {
        let parts = name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]);
        parts.collect()
    };
    let source = read("src/emulator/services/s3/operations.rs");
    let of_s3: BTreeSet<String> = function.captures_iter(&source).map(|found| pascal(&found[1])).collect();
    let rows = rows(&section("What it emulates"));
    let documented = |service: &str| quoted(&rows.iter().find(|row| row[0] == service).unwrap()[1]);
    assert_eq!(documented("SageMaker"), of_model("sagemaker"));
    assert_eq!(
        documented("SageMaker Runtime"),
        set(["InvokeEndpoint", "InvokeEndpointWithResponseStream", "InvokeEndpointAsync"])
    );
    assert_eq!(documented("CloudWatch Logs"), of_model("logs"));
    assert_eq!(documented("CloudWatch"), of_model("cloudwatch"));
    assert_eq!(documented("Application Auto Scaling"), of_model("application-autoscaling"));
    assert_eq!(documented("S3"), of_s3);
    assert_eq!(documented("ECR"), of_model("ecr"));
    assert_eq!(documented("CodeBuild"), of_model("codebuild"));
    assert_eq!(documented("Service Quotas"), of_model("service-quotas"));
    assert_eq!(documented("STS"), of_query("src/emulator/services/sts/mod.rs"));
    assert_eq!(documented("IAM"), of_query("src/emulator/services/iam.rs"));
    assert_eq!(documented("EC2"), of_query("src/emulator/services/ec2.rs"));
    assert_eq!(documented("KMS"), of_query("src/emulator/services/kms.rs"));
}

/// The operations of a service of the query protocol.
fn of_query(file: &str) -> BTreeSet<String> {
    let source = read(file);
    let (_, names) = source.split_once("const OPERATIONS: &[&str] =").expect("the operations are listed");
    let name = Regex::new("\"(\\w+)\"").unwrap();
    name.captures_iter(names.split("];").next().unwrap()).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_quirk_has_a_source() {
    let rows = rows(&section("Quirks"));
    let documented: BTreeSet<String> = rows.iter().skip(2).flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(documented, set(Quirks::NAMES));
    assert!(rows.iter().all(|row| !row[2].is_empty()));
}

/// The keys, or names of troubles, at a place of a plan, from the error about an unknown one.
fn known(plan: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<FaultPlan>(plan).expect_err("the key does not exist").to_string();
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("no list of names in: {error}"));
    quoted(expected)
}

#[test]
fn every_key_of_a_fault_plan_is_documented() {
    let page = section("Fault plans");
    let mut tables = Vec::new();
    for block in page.split("\n\n").filter(|block| block.trim_start().starts_with('|')) {
        let first = |row: &Vec<String>| row[0].trim_matches('`').to_owned();
        tables.push(rows(block).iter().skip(2).map(first).collect::<BTreeSet<_>>());
    }
    let name = Regex::new(r#"[^"]*"(\w+)".*"#).unwrap();
    let troubles: BTreeSet<String> = tables[3].iter().map(|text| name.replace(text, "$1").into_owned()).collect();
    assert_eq!(tables[0], known(r#"{"x": 1}"#));
    assert_eq!(tables[1], known(r#"{"calls": [{"x": 1}]}"#));
    assert_eq!(tables[2], known(r#"{"jobs": [{"x": 1}]}"#));
    assert_eq!(troubles, known(r#"{"jobs": [{"trouble": "x"}]}"#));
    assert_eq!(tables[4], known(r#"{"packages": [{"x": 1}]}"#));
    assert_eq!(tables[5], known(r#"{"endpoints": [{"x": 1}]}"#));
    assert_eq!(tables[6], known(r#"{"logs": {"x": 1}}"#));
    for text in quoted(&page).iter().filter(|text| text.starts_with("{\"")) {
        let plan = format!(r#"{{"jobs": [{{"trouble": {}}}]}}"#, text.replace("\"...\"", "\"x\""));
        serde_json::from_str::<FaultPlan>(&plan).unwrap_or_else(|error| panic!("{plan}: {error}"));
    }
}

/// The page's plan, given by `--faults`: the first request is throttled, and the job finds no capacity.
#[test]
fn the_example_of_a_fault_plan_does_what_the_page_says() {
    let page = section("Fault plans");
    let (_, example) = page.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    std::fs::write(&file, example).unwrap();
    let emulator =
        Emulator::start(&folder.path().join("data"), &["--faults".to_owned(), file.to_str().unwrap().to_owned()]);
    let request = json!({
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::000000000000:role/test",
        "OutputDataConfig": {"S3OutputPath": "s3://ci-bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    });
    emulator.call("SageMaker.CreateTrainingJob", &request);
    assert_eq!(emulator.requests("CreateTrainingJob"), 2, "the first one is throttled");
    let reason = poll(Duration::from_secs(30), || {
        let jobs = emulator.jobs();
        let job = jobs.first().filter(|job| job["TrainingJobStatus"] == "Failed")?;
        job["FailureReason"].as_str().map(str::to_owned)
    });
    let reason = reason.expect("the job fails");
    assert!(reason.starts_with("CapacityError: "), "{reason}");
    emulator.set_faults(&json!({}));
}

#[test]
fn every_path_of_its_own_is_documented() {
    let path = Regex::new(r#""(/_emulator/[\w-]+)/?""#).unwrap();
    let coded: BTreeSet<String> = path
        .captures_iter(&(read("src/emulator/control.rs") + &read("src/emulator/shared.rs")))
        .map(|found| found[1].to_owned())
        .collect();
    let name = Regex::new(r"`[A-Z]+ (/_emulator/[\w-]+)").unwrap();
    let page = section("Its own paths");
    assert_eq!(name.captures_iter(&page).map(|found| found[1].to_owned()).collect::<BTreeSet<_>>(), coded);
}

#[test]
fn its_start_says_what_is_not_checked_and_how_to_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"))
        .args(["emulator", "--data-dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].starts_with("listening on http://127.0.0.1:"), "{lines:?}");
    let topics = ["IAM policies without --iam", "subnets", "KMS", "registry", PAGE];
    assert!(lines[1].starts_with("not checked: ") && topics.iter().all(|topic| lines[1].contains(topic)), "{lines:?}");
    let file = folder.path().join("credentials");
    assert!(lines[2].starts_with("unset AWS_ACCESS_KEY_ID ") && lines[3].starts_with("export "), "{lines:?}");
    assert!(lines[3].contains(&format!("AWS_SHARED_CREDENTIALS_FILE='{}'", file.display())), "{lines:?}");
    let secret = emulator::Credentials::read(folder.path()).unwrap().secret_access_key;
    assert!(!lines.concat().contains(&secret), "the output is for logs: {lines:?}");
    let unchecked = section("What it does not check");
    for topic in ["**IAM with `--iam`**", "role", "**Accounts", "subnets", "KMS", "**Registries**"] {
        assert!(unchecked.contains(topic), "{topic}");
    }
}
