//! `report`: what a CI job sees of it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::run;
use crate::conformance::skipped;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab_api::{
    ACCESS_TOKEN, ApiFault, EXPIRED_TOKEN, FaultEffect, GitLabDouble, JOB_TOKEN, READ_TOKEN,
};
use crate::support::shipped_roles::of_test_account;
use crate::support::snapshot::assert_snapshot;
use crate::support::waiting::find_program;

const MANIFEST: &str = r#"{"model": {"group": "wine", "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "metrics": ["metrics.json"], "require": ["accuracy>=0.8", "f1>=0.7"]}}"#;
const METRICS: &str = r#"{"accuracy": 0.9777777777777777, "f1": 0.65, "loss": 0.2, "confusion_matrix": [[5, 1], [0, 4]],
    "classes": ["red", "white"], "learning_curve": {"loss": [0.9, 0.5, 0.2]}}"#;
/// Bound of a page in bytes.
const SMALL: usize = 300_000;

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

/// Nothing of the page is fetched or run, and each of its drawings has its text.
fn assert_stands_alone(page: &str) {
    assert!(page.len() < SMALL, "{} bytes", page.len());
    let found = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for word in ["<script", "<link", "<iframe", "url(", "@import", "src="] {
        assert!(!found.contains(word), "{word}");
    }
    assert_eq!(found.matches("<figure role=\"img\" aria-label=").count(), found.matches("</figure>").count());
}

#[test]
fn the_files_are_left_whatever_the_verdict_is() {
    let folder = folder(&[
        ("manifest.json", MANIFEST),
        ("metrics.json", METRICS),
        ("old.json", r#"{"accuracy": 0.9, "loss": 0.1}"#),
    ]);
    let arguments = [
        "report",
        "--baseline",
        "old.json",
        "--html",
        "report.html",
        "--openmetrics",
        "report.txt",
        "--dotenv",
        "report.env",
    ];
    let ended = run(folder.path(), &[], &arguments);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_snapshot("report", &format!("{}{}", ended.stdout, ended.stderr));
    assert_snapshot("report_openmetrics", &read(folder.path(), "report.txt"));
    assert_eq!(read(folder.path(), "report.env"), "REPORT_VERDICT=failed\n");
    let page = read(folder.path(), "report.html");
    assert_stands_alone(&page);
    for part in
        ["does not pass the gate", "<h2>Confusion matrix", "<h2>Learning curves", "↑ 0.0778, better", "it is 0.65"]
    {
        assert!(page.contains(part), "{part}");
    }
    let again = run(folder.path(), &[], &arguments);
    assert_eq!((again.code, read(folder.path(), "report.html")), (0, page), "the same bytes");
}

#[test]
fn a_new_project_has_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("wine");
    assert_eq!(run(folder.path(), &[], &["init", "training", "wine"]).code, 0);
    let Some(python) = find_program("python3") else { return skipped("the report of a new project", "no python3") };
    let trained = Command::new(python).args(["-B", "training_script.py"]).current_dir(&project).output().unwrap();
    if !trained.status.success() && String::from_utf8_lossy(&trained.stderr).contains("No module named 'sklearn'") {
        return skipped("the report of a new project", "python3 has no scikit-learn");
    }
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    let ended = run(&project, &[], &["report", "--html", "report.html", "--note"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("There is no note: the pipeline is not one of a merge request"), "{}", ended.stderr);
    let page = read(&project, "report.html");
    assert_stands_alone(&page);
    assert!(page.len() < 60_000, "{} bytes", page.len());
    for part in ["class_2", "<h3>test_accuracy</h3>", "passes the gate"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn hostile_names_are_shown_and_never_obeyed() {
    let name = "<script>alert(1)</script>`|@all\\u001b[2J\\u202e";
    let metrics = format!(
        r#"{{"{name}": 1e308, "nan": NaN, "classes": ["{name}", "b"], "confusion_matrix": [[1, 2], [3, 4]], "history": {{"{name}": [1, NaN, -1e308]}}}}"#
    );
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", &metrics)]);
    let ended = run(folder.path(), &[("CI_JOB_URL", "javascript:alert(1)")], &["report", "--html", "report.html"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stdout.contains('\u{202e}'), "{}", ended.stdout);
    let page = read(folder.path(), "report.html");
    assert_stands_alone(&page);
    assert!(!page.contains("javascript:") && page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn without_a_token_there_is_one_warning() {
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", METRICS)]);
    let variables = [
        ("CI_API_V4_URL", "https://127.0.0.1:1/api/v4"),
        ("CI_PROJECT_ID", "42"),
        ("CI_MERGE_REQUEST_IID", "5"),
        ("CI_JOB_TOKEN", "job-s3cret"),
    ];
    let ended = run(folder.path(), &variables, &["report", "--html", "report.html", "--note"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_snapshot("report_without_token", &ended.stderr);
    assert!(folder.path().join("report.html").is_file());
}

#[test]
fn the_latest_approved_version_is_compared_under_the_shipped_policy() {
    let mut manifest: Value = serde_json::from_str(MANIFEST).unwrap();
    let image = manifest["model"]["image"].clone();
    manifest["environments"] = json!({"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}});
    let policy = of_test_account(include_str!("../../../runner-config/iam/lifecycle/report.json"));
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}]});
    let account = json!({"RoleDetailList": [{
        "RoleName": "report",
        "RoleId": "AROAREPORT",
        "Arn": "arn:aws:iam::000000000000:role/report",
        "AssumeRolePolicyDocument": trust,
        "RolePolicyList": [{"PolicyName": "report", "PolicyDocument": policy}],
    }]});
    let folder = folder(&[
        ("manifest.json", &manifest.to_string()),
        ("metrics.json", METRICS),
        ("account.json", &account.to_string()),
    ]);
    let file = folder.path().join("account.json");
    let mut emulator = Emulator::start(&folder.path().join("data"), &["--iam".to_owned(), file.display().to_string()]);
    emulator.call_driver_as("role/report");
    let mut variables = emulator.environment();
    variables.push(("AWS_ENDPOINT_URL".to_owned(), emulator.endpoint.clone()));
    variables.push(("CI_ENVIRONMENT_NAME".to_owned(), "prod".to_owned()));
    let report = || {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(folder.path(), &variables, &["report", "--html", "report.html"])
    };
    let first = report();
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stdout.starts_with("The group wine has no approved version to compare with\n"), "{}", first.stdout);
    emulator.call("SageMaker.CreateModelPackageGroup", &json!({"ModelPackageGroupName": "wine"}));
    for (number, text) in [(1, r#"{"f1": 0.6}"#), (2, r#"{"f1": 0.62}"#)] {
        let key = format!("metrics/{number}.json");
        emulator.put_object(&key, text.as_bytes());
        let version = json!({
            "ModelPackageGroupName": "wine",
            "ModelApprovalStatus": if number == 1 { "Approved" } else { "PendingManualApproval" },
            "InferenceSpecification": {"Containers": [{"Image": image}]},
            "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": format!("s3://{BUCKET}/{key}")}}},
        });
        emulator.call("SageMaker.CreateModelPackage", &version);
    }
    let second = report();
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stdout.contains("model-package/wine/1, the latest approved version\n"), "{}", second.stdout);
    assert!(second.stdout.contains("↑ 0.05, better"), "{}", second.stdout);
    let page = read(folder.path(), "report.html");
    assert_stands_alone(&page);
    let versions = page.split("<h2>Versions in the registry").nth(1).unwrap();
    assert_eq!(versions.matches("<circle").count(), 3, "two versions and this model");
    assert_eq!(emulator.decided("report")["denied"], json!({}));
}

/// The command in a job of merge request 5, with this token for notes.
fn note(folder: &Path, gitlab: &GitLabDouble, token: &str, pipeline: &str) -> super::Ended {
    let mut variables = gitlab.variables().to_vec();
    for (name, value) in [
        ("CI_MERGE_REQUEST_IID", "5"),
        ("CI_PIPELINE_ID", pipeline),
        ("CI_JOB_TOKEN", JOB_TOKEN),
        ("NOTE_TOKEN", token),
    ] {
        variables.push((name, value.to_owned()));
    }
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    run(folder, &variables, &["report", "--html", "report.html", "--note", "--token-env", "NOTE_TOKEN"])
}

#[test]
fn a_merge_request_gets_one_note_that_is_edited() {
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", METRICS)]);
    let gitlab = GitLabDouble::start();
    gitlab.merge_request(5);
    // A stranger knows the marker, and there are more notes than one page has.
    gitlab.note(5, 99, "<!-- sagemaker-executor report wine -->\n<!-- pipeline 999 -->\nperfect", false);
    (0..120).for_each(|number| gitlab.note(5, 98, &format!("comment {number}"), number % 2 > 0));
    let first = note(folder.path(), &gitlab, ACCESS_TOKEN, "12");
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.starts_with("Wrote a note into the merge request !5\n"), "{}", first.stderr);
    std::fs::write(folder.path().join("metrics.json"), r#"{"accuracy": 0.9, "f1": 0.8}"#).unwrap();
    let second = note(folder.path(), &gitlab, ACCESS_TOKEN, "13");
    assert!(second.stderr.starts_with("Edited the note of the merge request !5\n"), "{}", second.stderr);
    let third = note(folder.path(), &gitlab, ACCESS_TOKEN, "13");
    assert!(third.stderr.starts_with("The note of the merge request !5 is as it must be\n"), "{}", third.stderr);
    let notes = gitlab.notes(5);
    assert_eq!(notes.len(), 122);
    assert!(notes[0].body.ends_with("perfect"));
    assert_snapshot("report_note", &notes[121].body);
}

#[test]
fn a_note_that_gitlab_refuses_is_one_warning_and_the_job_goes_on() {
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", METRICS)]);
    let mut shown = String::new();
    for (name, token) in
        [("a job token", JOB_TOKEN), ("expired", EXPIRED_TOKEN), ("the scope read_api", READ_TOKEN), ("no token", "")]
    {
        let gitlab = GitLabDouble::start();
        gitlab.merge_request(5);
        let ended = note(folder.path(), &gitlab, token, "12");
        assert_eq!((ended.code, gitlab.notes(5).len()), (0, 0), "{name}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("warning:").count(), 1, "{name}: {}", ended.stderr);
        assert!(token.is_empty() || !ended.stderr.contains(token), "{name}");
        assert!(folder.path().join("report.html").is_file(), "{name}");
        std::fs::remove_file(folder.path().join("report.html")).unwrap();
        shown.extend([name, ":\n", &ended.stderr]);
    }
    assert_snapshot("report_refused_note", &shown);
}

#[test]
fn a_note_is_not_written_twice_when_the_answer_is_lost() {
    let folder = folder(&[("manifest.json", MANIFEST), ("metrics.json", METRICS)]);
    let gitlab = GitLabDouble::start();
    gitlab.merge_request(5);
    gitlab.plan(ApiFault::new("POST", "/notes", 1, FaultEffect::DropAfter));
    let lost = note(folder.path(), &gitlab, ACCESS_TOKEN, "12");
    assert!(lost.stderr.starts_with("Wrote a note into the merge request !5\n"), "{}", lost.stderr);
    let again = note(folder.path(), &gitlab, ACCESS_TOKEN, "12");
    assert!(again.stderr.starts_with("The note of the merge request !5 is as it must be\n"), "{}", again.stderr);
    assert_eq!(gitlab.notes(5).len(), 1);
}
