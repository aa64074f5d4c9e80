//! `policy explain` says of ten jobs what a reader of the operator's file says.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::snapshot::assert_snapshot;

const FILE: &str = "tests/fixtures/operator-files/valid/rules.toml";
const PINNED: &str = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/ml/train@sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const TAGGED: &str = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/ml/train:1";

fn explain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"))
        .args(["--config", FILE, "policy", "explain"])
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The arguments after the job's own, the rule, and the request's (`Ok`) or the refusal's (`Err`) decisive text.
type Row<'a> = (&'a [&'a str], Option<&'a str>, Result<Value, &'a str>);

#[test]
fn ten_jobs_may_have_what_a_reader_of_the_file_says() {
    let main = ["--project", "ml/team/churn", "--ref", "main", "--protected"];
    let branch = ["--project", "ml/team/churn", "--ref", "idea"];
    let fork = ["--project", "ml/team/churn", "--fork"];
    let gpu = ["--variable", "SAGEMAKER_INSTANCE_TYPE=ml.g5.xlarge"];
    let join = |parts: &[&[&'static str]]| parts.concat();
    let rows: [Row; 10] = [
        (
            &join(&[&main, &gpu, &["--image", PINNED, "--variable", "SAGEMAKER_INSTANCE_COUNT=4"]]),
            Some("production"),
            Ok(json!({"instance_types": ["ml.g5.xlarge"], "instance_count": 4, "max_runtime": 172_800,
                      "role_arn": "arn:aws:iam::000000000000:role/ci-production"})),
        ),
        (&join(&[&main, &gpu, &["--image", TAGGED]]), Some("production"), Err("`image")),
        (&join(&[&main, &["--image", "python:3.13"]]), Some("production"), Err("python")),
        (
            &join(&[&main, &["--image", PINNED, "--variable", "SAGEMAKER_INSTANCE_COUNT=5"]]),
            Some("production"),
            Err("`SAGEMAKER_INSTANCE_COUNT`"),
        ),
        (
            &join(&[&branch, &["--variable", "SAGEMAKER_INSTANCE_TYPE=ml.m5.xlarge"]]),
            Some("teams"),
            Ok(
                json!({"instance_types": ["ml.m5.xlarge"], "max_runtime": 7200, "role_arn": "arn:aws:iam::000000000000:role/ci"}),
            ),
        ),
        (&join(&[&branch, &gpu]), Some("teams"), Err("`teams`")),
        (
            &join(&[&branch, &["--variable", "SAGEMAKER_ROLE_ARN=arn:aws:iam::000000000000:role/ci-production"]]),
            Some("teams"),
            Err("`SAGEMAKER_ROLE_ARN`"),
        ),
        (
            &join(&[&fork, &["--image", "python:3.13"]]),
            Some("forks"),
            Ok(json!({"instance_types": ["ml.m5.large"], "max_runtime": 1800, "image": "python:3.13"})),
        ),
        (&join(&[&fork, &["--variable", "SAGEMAKER_ENV_TOKEN=x"]]), Some("forks"), Err("asks for the name `TOKEN`")),
        (&["--project", "web/shop/api", "--ref", "main", "--protected"], None, Err("no rule")),
    ];
    for (arguments, rule, expected) in rows {
        let output = explain(&[arguments, &["--json"]].concat());
        let (said, trouble) = (text(&output.stdout), text(&output.stderr));
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: {said}{trouble}"));
        assert_eq!(answer["rule"].as_str(), rule, "{arguments:?}");
        match expected {
            Ok(request) => {
                assert_eq!(
                    (output.status.code(), &answer["refusal"]),
                    (Some(0), &Value::Null),
                    "{arguments:?}: {trouble}"
                );
                for (key, value) in request.as_object().unwrap() {
                    assert_eq!(&answer["request"][key], value, "{arguments:?}: {key}");
                }
            }
            Err(words) => {
                let refusal = answer["refusal"].as_str().unwrap_or_else(|| panic!("{arguments:?} is refused: {said}"));
                assert!(refusal.contains(words) && trouble.contains(words), "{arguments:?}: {refusal}\n{trouble}");
                assert_eq!((output.status.code(), &answer["request"]), (Some(1), &Value::Null), "{arguments:?}");
            }
        }
    }
}

#[test]
fn an_explanation_reads_well() {
    let job = ["--project", "ml/team/churn", "--ref", "idea", "--image", "python:3.13"];
    let output = explain(&job);
    assert_eq!(text(&output.stderr), "");
    assert_snapshot("policy_explained", &text(&output.stdout));
    // A question without an image has an answer too.
    let output = explain(job.get(..4).unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Request:"), "{}", text(&output.stdout));
    let misspelt = explain(&[&job[..], &["--variable", "SAGEMAKER_INSTANCE_TYP=x"]].concat());
    assert!(text(&misspelt.stderr).contains("did you mean `SAGEMAKER_INSTANCE_TYPE`?"));
    let output = explain(&["--project", "web/shop/api", "--ref", "v1"]);
    assert_snapshot("policy_explained_without_a_rule", &(text(&output.stdout) + &text(&output.stderr)));
}

/// The payload decides; the fields of the command line cannot be mixed with it. Its secrets are not shown.
#[test]
fn a_payload_is_explained_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let payload = folder.path().join("payload.json");
    let job = json!({
        "id": 7, "token": "t0ken", "job_info": {"project_id": 3, "project_full_path": "web/shop"},
        "git_info": {"ref": "main", "repo_url": "https://gitlab-ci-token:t0ken@gitlab.example.com/web/shop.git"},
        "image": {"name": "python:3.13"},
        "variables": [{"key": "PASSWORD", "value": "hunter22", "masked": true},
                      {"key": "SAGEMAKER_INSTANCE_TYPE", "value": "ml.m5.xlarge"},
                      {"key": "SAGEMAKER_ENV_LEVEL", "value": "3"}]
    });
    std::fs::write(&payload, job.to_string()).unwrap();
    let payload = payload.to_str().unwrap();
    let output = explain(&["--payload", payload]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    for words in ["GitLab `gitlab.example.com`", "Rule: `teams`", "instance types: `ml.m5.xlarge`", "`LEVEL`"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("t0ken") && !said.contains("hunter22"), "{said}");
    let leak = explain(&["--payload", payload, "--variable", "SAGEMAKER_ENV_PW=hunter22"]);
    assert!(leak.status.code() == Some(1) && !text(&leak.stderr).contains("hunter22"));
    assert_eq!(explain(&["--payload", payload, "--ref", "main"]).status.code(), Some(2));
    assert_eq!(explain(&["--payload", "/absent.json"]).status.code(), Some(2));
}
