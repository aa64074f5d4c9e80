//! The command on fakes: its files, its note, versions of the registry, and bad input.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::ReportArgs;
use crate::base::clock::HostClock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::{Fault, Memory, When};
use crate::cloud::{Approval, CloudErrorKind, GroupSpec, ModelRegistry as _, StoredMetrics, VersionSpec};
use crate::config::env::Environment;
use crate::gitlab::api::testing::{MemoryGitLab, MemoryGitLabConnect, OWN_USER};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::hex::hex;
use crate::report::note_marker;
use crate::ui::Printer;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    report: ReportArgs,
}

/// A project with a model, in a job of a merge request with a token for notes.
struct Desk {
    project: tempfile::TempDir,
    memory: Memory,
    gitlab: Arc<MemoryGitLab>,
    env: BTreeMap<&'static str, String>,
}

/// How a command ended.
struct Ended {
    kind: Option<Kind>,
    /// For people, with the error.
    text: String,
    out: String,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            project: tempfile::tempdir().unwrap(),
            memory: Memory::new(),
            gitlab: Arc::default(),
            env: BTreeMap::from([
                ("CI_API_V4_URL", "https://gitlab.example.com/api/v4".to_owned()),
                ("CI_PROJECT_ID", "42".to_owned()),
                ("CI_PROJECT_PATH", "ml/wine".to_owned()),
                ("CI_MERGE_REQUEST_IID", "5".to_owned()),
                ("CI_MERGE_REQUEST_PROJECT_ID", "42".to_owned()),
                ("CI_PIPELINE_ID", "12".to_owned()),
                ("CI_JOB_URL", "https://gitlab.example.com/ml/wine/-/jobs/7".to_owned()),
                ("GITLAB_TOKEN", "s3cret".to_owned()),
            ]),
        };
        desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        let manifest = json!({
            "model": {
                "group": "wine",
                "image": format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
                "metrics": ["metrics.json"],
                "require": ["f1>=0.5"],
            },
            "environments": {"prod": {"region": "eu-west-1", "account": "123456789012", "bucket": "other"}},
        });
        desk.write("manifest.json", &manifest.to_string());
        desk.write("metrics.json", r#"{"f1": 0.80, "loss": 0.3}"#);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.project.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    async fn run(&self, words: &[&str]) -> Ended {
        let manifest = self.path("manifest.json");
        let line = ["report", "--manifest", manifest.to_str().unwrap()];
        let line = Line::try_parse_from(line.iter().chain(words)).unwrap();
        let (printer, captured) = Printer::captured();
        let inputs = CommandInputs {
            env: Environment::from_pairs(self.env.iter().map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            gitlab: Arc::new(MemoryGitLabConnect(Arc::clone(&self.gitlab))),
            clock: Arc::new(HostClock),
            printer,
        };
        let result = super::run(&inputs, line.report, Cancellation::default()).await;
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        Ended {
            kind: result.err().map(|error| failure::kind_of(&error)),
            text: captured.text() + &error,
            out: String::from_utf8(captured.data()).unwrap(),
        }
    }

    /// Registers a version; an empty text is one without metrics.
    async fn register(&self, approval: Approval, text: &str) -> String {
        let group = GroupSpec { name: "wine".to_owned(), description: None, tags: BTreeMap::new() };
        let _ = self.memory.registry.create_group(&group).await;
        let key = format!("metrics/{}.json", hex(&Sha256::digest(text)));
        self.memory.objects.insert(&key, text);
        let stored = StoredMetrics { uri: format!("s3://memory/{key}"), content_type: String::new(), digest: None };
        let spec = VersionSpec {
            group: "wine".to_owned(),
            client_token: format!("token-{}", self.memory.registry.all().len()),
            description: String::new(),
            image: String::new(),
            model_data_url: String::new(),
            environment: BTreeMap::new(),
            content_types: Vec::new(),
            response_types: Vec::new(),
            instance_types: Vec::new(),
            metrics: (!text.is_empty()).then_some(stored),
            commit: None,
            repository: None,
            generated_by: None,
            project: None,
            metadata: BTreeMap::from([("metrics-1".to_owned(), key)]),
        };
        let arn = self.memory.registry.create_version(&spec).await.unwrap();
        self.memory.registry.change(&arn, |version| version.approval = approval);
        arn
    }
}

#[tokio::test]
async fn a_merge_request_has_one_note_that_is_edited() {
    let desk = Desk::new();
    desk.gitlab.note(5, 99, "Looks good");
    let first = desk.run(&["--note"]).await;
    assert_eq!(first.kind, None, "{}", first.text);
    assert_eq!(first.text, "Wrote a note into the merge request !5\nThe model passes the gate\n");
    let again = desk.run(&["--note"]).await;
    assert!(again.text.starts_with("The note of the merge request !5 is as it must be\n"), "{}", again.text);
    desk.write("metrics.json", r#"{"f1": 0.40}"#);
    let changed = desk.run(&["--note"]).await;
    assert_eq!(changed.kind, None);
    assert_eq!(changed.text, "Edited the note of the merge request !5\nThe model does not pass the gate\n");
    let notes = desk.gitlab.notes_of(5);
    assert_eq!((notes.len(), notes[1].author), (2, OWN_USER));
    assert!(notes[1].body.starts_with(&note_marker("wine")) && notes[1].body.contains("`0.4`"), "{}", notes[1].body);
    let other = desk.run(&["--note", "--name", "wine-eu"]).await;
    assert!(other.text.starts_with("Wrote a note"), "{}", other.text);
    assert_eq!(desk.gitlab.notes_of(5).len(), 3);
}

#[tokio::test]
async fn notes_of_others_stay_though_they_have_the_marker() {
    let desk = Desk::new();
    let forged = format!("{}\n<!-- pipeline 999 -->\nthe model is perfect", note_marker("wine"));
    desk.gitlab.note(5, 99, &forged);
    desk.gitlab.note(5, OWN_USER, &format!("I quote:\n{forged}"));
    assert!(desk.run(&["--note"]).await.text.starts_with("Wrote a note"));
    let notes = desk.gitlab.notes_of(5);
    assert_eq!((notes.len(), notes[0].body.as_str()), (3, forged.as_str()));
    assert!(notes[1].body.starts_with("I quote"));
}

#[tokio::test]
async fn an_older_pipeline_leaves_the_note_of_a_newer_one() {
    let mut desk = Desk::new();
    desk.run(&["--note"]).await;
    desk.env.insert("CI_PIPELINE_ID", "11".to_owned());
    desk.write("metrics.json", r#"{"f1": 0.40}"#);
    let older = desk.run(&["--note"]).await;
    assert!(older.text.contains("stays: it is of the newer pipeline 12"), "{}", older.text);
    assert!(desk.gitlab.notes_of(5)[0].body.contains("`0.8`"));
}

#[tokio::test]
async fn jobs_that_run_at_once_leave_one_note() {
    let desk = Desk::new();
    let marker = note_marker("wine");
    let of = |pipeline: u64| format!("{marker}\n<!-- pipeline {pipeline} -->\ntext of another job");
    desk.gitlab.write_at_once(&of(12));
    let ended = desk.run(&["--note"]).await;
    assert_eq!(ended.text, "Wrote a note into the merge request !5\nThe model passes the gate\n");
    let notes = desk.gitlab.notes_of(5);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].body.contains("`f1`"), "{notes:?}");
    // Those of an earlier version of the program go too, and the text of the newest pipeline stays.
    desk.gitlab.note(5, OWN_USER, &of(11));
    desk.gitlab.note(5, OWN_USER, &of(13));
    desk.gitlab.note(5, 99, &of(14));
    desk.gitlab.plan([Fault::new("delete_note", 1, When::After, CloudErrorKind::NotFound)]);
    let newer = desk.run(&["--note"]).await;
    assert!(
        newer.text.starts_with("The note of the merge request !5 stays: it is of the newer pipeline 13\n"),
        "{}",
        newer.text
    );
    let notes: Vec<_> = desk.gitlab.notes_of(5).into_iter().map(|note| (note.author, note.body)).collect();
    assert_eq!(notes, [(OWN_USER, of(13)), (99, of(14))]);
    desk.gitlab.note(5, OWN_USER, &of(1));
    desk.gitlab.plan([Fault::new("delete_note", 1, When::Before, CloudErrorKind::Denied)]);
    let refused = desk.run(&["--note"]).await;
    assert!(refused.text.contains("warning: a second note of this report stays: "), "{}", refused.text);
}

#[tokio::test]
async fn a_note_whose_reply_is_lost_is_there() {
    let desk = Desk::new();
    desk.gitlab.plan([Fault::new("create_note", 1, When::After, CloudErrorKind::Transient)]);
    let ended = desk.run(&["--note"]).await;
    assert_eq!(ended.text, "Wrote a note into the merge request !5\nThe model passes the gate\n");
    assert_eq!(desk.gitlab.notes_of(5).len(), 1);
}

#[tokio::test]
async fn names_that_look_alike_have_notes_of_their_own() {
    let desk = Desk::new();
    for name in ["a b", "a_b", "模型甲", "数据乙"] {
        let ended = desk.run(&["--note", "--name", name]).await;
        assert!(ended.text.starts_with("Wrote a note"), "{name}: {}", ended.text);
    }
    assert_eq!(desk.gitlab.notes_of(5).len(), 4);
}

#[tokio::test]
async fn a_version_is_not_compared_with_itself() {
    let mut desk = Desk::new();
    let arn = desk.register(Approval::Approved, r#"{"f1": 0.9}"#).await;
    desk.env.insert("MODEL_PACKAGE_ARN", arn.clone());
    let words = ["--environment", "prod", "--max-regression", "higher:f1=0.01"];
    let alone = desk.run(&words).await;
    assert!(alone.out.contains("The group wine has no other approved version to compare with"), "{}", alone.out);
    let named = desk.run(&[&words[..], &["--baseline", &arn]].concat()).await;
    assert!(named.out.contains("names the version of `MODEL_PACKAGE_ARN` itself"), "{}", named.out);
    let newest = desk.register(Approval::Approved, r#"{"f1": 0.7}"#).await;
    desk.env.insert("MODEL_PACKAGE_ARN", newest);
    let worse = desk.run(&words).await;
    assert!(worse.out.contains("/1, the latest approved version"), "{}", worse.out);
}

#[tokio::test]
async fn a_note_that_cannot_be_written_is_one_warning() {
    let mut desk = Desk::new();
    let html = desk.path("report.html").to_str().unwrap().to_owned();
    desk.gitlab.plan([Fault::new("create_note", 1, When::Before, CloudErrorKind::Denied)]);
    let denied = desk.run(&["--note", "--html", &html]).await;
    assert_eq!(denied.kind, None);
    assert_eq!(denied.text.matches("warning:").count(), 1, "{}", denied.text);
    assert!(denied.text.contains("`GITLAB_TOKEN` needs the scope `api`"), "{}", denied.text);
    assert!(desk.path("report.html").is_file());
    desk.env.remove("GITLAB_TOKEN");
    let absent = desk.run(&["--note"]).await;
    assert_eq!(absent.kind, None);
    assert!(absent.text.contains("`GITLAB_TOKEN` is not set, and a job token cannot write notes"), "{}", absent.text);
    assert!(!denied.text.contains("s3cret") && desk.gitlab.notes_of(5).is_empty());
    desk.env.remove("CI_MERGE_REQUEST_IID");
    let calls = desk.gitlab.calls().len();
    let outside = desk.run(&["--note"]).await;
    assert!(
        outside.text.starts_with("There is no note: the pipeline is not one of a merge request"),
        "{}",
        outside.text
    );
    assert_eq!(desk.gitlab.calls().len(), calls);
}

#[tokio::test]
async fn versions_of_the_registry_are_compared_and_shown() {
    let desk = Desk::new();
    desk.register(Approval::Approved, r#"{"f1": 0.7, "loss": 0.2}"#).await;
    desk.register(Approval::Pending, "").await;
    desk.register(Approval::Rejected, "no metrics").await;
    desk.register(Approval::Pending, r#"{"f1": 0.75}"#).await;
    let html = desk.path("report.html").to_str().unwrap().to_owned();
    let ended = desk.run(&["--environment", "prod", "--html", &html, "--output", "json"]).await;
    assert_eq!(ended.kind, None, "{}", ended.text);
    let data: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(data["comparison"].as_str().unwrap().ends_with("/1, the latest approved version"), "{data}");
    assert_eq!(data["metrics"][0]["change"], json!({"difference": 0.1, "is_better": true}));
    assert_eq!(data["metrics"][1]["change"]["is_better"], false);
    let page = std::fs::read_to_string(&html).unwrap();
    let versions = page.split("<h2>Versions in the registry").nth(1).unwrap();
    assert_eq!(versions.matches("<circle").count(), 5, "three of f1 and two of loss");
    let asked = desk.memory.registry.count("versions");
    assert!(asked <= 5, "{asked}");
    let few = desk.run(&["--environment", "prod", "--history", "0", "--baseline", "none"]).await;
    assert_eq!((few.kind, desk.memory.registry.count("versions")), (None, asked), "{}", few.text);
}

#[tokio::test]
async fn a_registry_without_usable_metrics_is_no_error_and_one_that_does_not_answer_is() {
    let desk = Desk::new();
    desk.register(Approval::Approved, "").await;
    let ended = desk.run(&["--environment", "prod"]).await;
    assert_eq!(ended.kind, None, "{}", ended.text);
    assert!(ended.out.contains("Compared with no earlier model: the metrics of"), "{}", ended.out);
    desk.memory.registry.plan([Fault::new("versions", 1, When::Before, CloudErrorKind::Denied).forever()]);
    assert_eq!(desk.run(&["--environment", "prod"]).await.kind, Some(Kind::System));
    assert_eq!(desk.run(&[]).await.kind, None, "without an environment nothing is asked");
}

#[tokio::test]
async fn files_of_other_jobs_become_parts_of_the_page() {
    let desk = Desk::new();
    let job = desk.write("job.json", &json!({
        "schema": "sagemaker-executor/report/1", "training_job": {"name": "gitlab-1", "region": "eu-west-1"},
        "instances": [{"type": "ml.m5.large", "count": 2}], "billable_seconds": 200, "spot_saving_percent": null,
        "phases": [{"status": "Starting", "started": "x", "seconds": u64::MAX}, {"status": "Training", "seconds": u64::MAX}],
        "cost": {"amount": 1.5, "currency": "USD"}, "total_amount": 2.0,
    }).to_string());
    let curve = json!({"schema": "sagemaker-executor/metrics/1", "details": {
        "loss": {"last": 0.2, "curve": [[0, 1, 0.5, 0.5, 0.5], [1000, 2, 0.2, 0.25, 0.3]]},
        "odd": {"curve": [[0, 0, 9, 5, 1]]}, "older": {"last": 1}, "odder": 7}});
    let curve = desk.write("curve.json", &curve.to_string());
    let test = desk.write("test.json", &json!({
        "result": "failed", "endpoint": "wine-prod", "configuration": "c-1", "ambiguity": null,
        "samples": [{"name": "first", "result": "passed", "reason": null}, {"name": "second", "result": "failed", "reason": "<b>"}],
        "limits": [{"limit": "p95 <= 10 ms", "value": 12.5, "result": "failed", "reason": null}],
        "requests": {"sent": 20, "errors": 1, "error_rate": 0.05, "concurrency": 2, "per_second": 31.5, "not_ready": 0},
        "latency_ms": {"first": 90.5, "p50": 5.0, "p95": 12.5, "p99": null, "max": 13.0},
    }).to_string());
    let plan = desk.write("plan.json", &json!({
        "endpoint": "wine-prod", "version": "arn:v", "specification": "x", "from": "old", "to": "new", "changes": true,
        "steps": [{"action": "create", "what": "model m"}], "differences": [{"key": "capacity", "from": "1", "to": "2"}],
        "package": {"name": "stable-1.zip", "sha256": "5ba1", "commit": "c0ffee", "model_sha256": "e1f2", "uri": null},
        "traffic": "moves at once", "longest_seconds": 600, "most_instances": 4, "instance_type": "ml.m5.large",
        "alarms": [], "refusals": ["no approval"],
    }).to_string());
    let [html, values] = ["report.html", "metrics.txt"].map(|name| desk.path(name).to_str().unwrap().to_owned());
    let files = ["--training-report", &job, &curve, "--endpoint-report", &test, "--plan", &plan];
    let ended = desk.run(&[&files[..], &["--html", &html, "--openmetrics", &values, "--note"]].concat()).await;
    assert_eq!(ended.kind, None, "{}", ended.text);
    let page = std::fs::read_to_string(&html).unwrap();
    for part in [
        "1.50 USD, 2.00 with earlier training jobs",
        "2 x ml.m5.large",
        "3 min 20 s",
        "<h2>Learning curves</h2>",
        "Test of the endpoint wine-prod",
        "it is 12.5",
        "&lt;b&gt;",
        "Planned deployment to wine-prod",
        "Refused: no approval",
        "<dt>Package</dt><dd>stable-1.zip</dd>",
        "<dt>SHA-256 of the package</dt><dd>5ba1</dd>",
        "<dt>Commit of the package</dt><dd>c0ffee</dd>",
        "<dt>SHA-256 of the model</dt><dd>e1f2</dd>",
        "up to 4 x ml.m5.large",
        "<h3>loss</h3>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<h3>odd") && !page.contains("<h3>older"), "a curve that cannot be one");
    let values = std::fs::read_to_string(&values).unwrap();
    assert!(values.contains("endpoint_latency_ms{endpoint=\"wine-prod\",figure=\"p95\"} 12.5\n"), "{values}");
    let note = desk.gitlab.notes_of(5)[0].body.clone();
    assert!(note.contains("✗ does not pass its test: p50 5 ms, p95 12.5 ms"), "{note}");
    assert!(note.contains("- Price: `1.50 USD"), "{note}");
    assert!(note.contains("  - SHA-256 of the package: `5ba1`\n"), "{note}");
    let two = desk.run(&["--training-report", &job, &job, "--html", &html]).await;
    assert_eq!(two.kind, None, "{}", two.text);
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<h2>Training job</h2>").count(), 2, "none of two is dropped");
}

#[tokio::test]
async fn a_wrong_file_is_one_error_and_leaves_nothing() {
    let desk = Desk::new();
    let folder = tempfile::tempdir().unwrap();
    let html = desk.path("report.html").to_str().unwrap().to_owned();
    let [broken, other, folder] =
        [desk.write("broken.json", "{"), desk.write("other.json", "{}"), folder.path().display().to_string()];
    let deep = desk.write("deep.json", &"[".repeat(1 << 20));
    let metrics = desk.path("metrics.json").display().to_string();
    let rows: &[(&str, &[&str], &str)] = &[
        ("no JSON", &["--training-report", &broken], "cannot be read"),
        ("another file", &["--training-report", &other], "its `schema` is none of a training job's files"),
        ("no result", &["--endpoint-report", &other], "missing field"),
        ("no plan", &["--plan", &other], "missing field"),
        ("a folder", &["--plan", &folder], "no regular file"),
        ("absent", &["--plan", "absent.json"], "No such file"),
        ("deep", &["--plan", &deep], "cannot be read"),
        ("no metrics", &["--metrics", "absent.json"], "failed to read the metrics"),
        ("no such environment", &["--environment", "absent"], "absent"),
        ("no environment", &["--baseline", "approved"], "no environment is named"),
        ("an input", &["--openmetrics", &metrics], "is read by this command"),
        ("a file for two", &["--openmetrics", &html], "is also the file of `--html`"),
    ];
    for (name, words, why) in rows {
        let ended = desk.run(&[&["--html", &html, "--note"], *words].concat()).await;
        assert_eq!(ended.kind, Some(Kind::User), "{name}: {}", ended.text);
        assert!(ended.text.contains(why), "{name}: {}", ended.text);
        assert!(!desk.path("report.html").exists() && desk.gitlab.calls().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_page_is_linked_among_the_artifacts() {
    let mut desk = Desk::new();
    desk.env.insert("CI_PROJECT_DIR", desk.project.path().display().to_string());
    std::fs::create_dir(desk.path("out")).unwrap();
    let html = desk.path("out/report.html").display().to_string();
    desk.run(&["--html", &html, "--note"]).await;
    let note = desk.gitlab.notes_of(5)[0].body.clone();
    let link = "[Page](<https://gitlab.example.com/ml/wine/-/jobs/7/artifacts/file/out/report.html>)";
    assert!(note.contains(link), "{note}");
    let odd = desk.path("out/a b#1 é.html").display().to_string();
    desk.env.insert("CI_PIPELINE_URL", "https://ci:s3cr3tpw@gitlab.example.com/ml/wine/-/pipelines/12".to_owned());
    desk.env.insert("PACKAGE_URL", "https://gitlab.example.com/p?private_token=s3cr3tpw".to_owned());
    desk.run(&["--html", &odd, "--note"]).await;
    let note = desk.gitlab.notes_of(5)[0].body.clone();
    assert!(note.contains("/artifacts/file/out/a%20b%231%20%C3%A9.html>)"), "{note}");
    assert!(note.contains("[Pipeline](<https://gitlab.example.com/ml/wine/-/pipelines/12>)"), "{note}");
    assert!(!format!("{note}{}", std::fs::read_to_string(&odd).unwrap()).contains("s3cr3tpw"), "{note}");
    desk.env.insert("CI_JOB_URL", "javascript:alert(1)//".to_owned());
    desk.run(&["--html", &html, "--note", "--name", "b"]).await;
    assert!(!desk.gitlab.notes_of(5)[1].body.contains("javascript"));
}

#[tokio::test]
async fn a_project_without_metrics_shows_those_of_its_version() {
    let mut desk = Desk::new();
    let manifest = std::fs::read_to_string(desk.path("manifest.json")).unwrap();
    desk.write("manifest.json", &manifest.replace(r#""metrics":["metrics.json"],"#, ""));
    let alone = desk.run(&["--environment", "prod"]).await;
    assert_eq!(alone.kind, Some(Kind::User));
    assert!(alone.text.contains("there is nothing to report"), "{}", alone.text);
    let plan = r#"{"endpoint": "wine", "version": "v", "to": "new", "changes": false}"#;
    let plan = desk.write("plan.json", plan);
    let planned = desk.run(&["--plan", &plan]).await;
    assert_eq!(planned.kind, None, "{}", planned.text);
    assert_eq!(
        (planned.text.as_str(), planned.out.as_str()),
        ("No file with metrics is named\n", "No file with metrics is named\n")
    );
    let arn = desk.register(Approval::Pending, r#"{"f1": 0.9}"#).await;
    desk.env.insert("MODEL_PACKAGE_ARN", arn);
    let registered = desk.run(&["--environment", "prod", "--plan", &plan]).await;
    assert_eq!(registered.kind, None, "{}", registered.text);
    assert!(registered.out.contains("0.9"), "{}", registered.out);
    assert!(registered.text.ends_with("The model passes the gate\n"), "{}", registered.text);
}
