//! The command on fakes: how it finds the earlier model in the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Parser;
use sha2::{Digest as _, Sha256};
use test_case::test_case;

use super::metrics::MetricsSource;
use super::{GateArgs, check_bars};
use crate::base::clock::HostClock;
use crate::base::exit_codes;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::{Fault, Memory, When};
use crate::cloud::{Approval, CloudErrorKind, GroupSpec, ModelRegistry as _, StoredMetrics, VersionSpec};
use crate::config::env::Environment;
use crate::lifecycle::hex::hex;
use crate::lifecycle::manifest::ModelEntry;
use crate::lifecycle::{CommandInputs, with_exit_code};
use crate::ui::Printer;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    gate: GateArgs,
}

/// A project whose model has an `f1` of 0.8, and an account without models.
struct Bench {
    project: tempfile::TempDir,
    memory: Memory,
}

const BELOW: Kind = Kind::Verdict { code: exit_codes::BELOW_BAR };

impl Bench {
    async fn new() -> Self {
        let bench = Self { project: tempfile::tempdir().unwrap(), memory: Memory::new() };
        bench.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        let manifest = serde_json::json!({
            "model": {
                "group": "wine",
                "image": format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
                "metrics": ["metrics.json"],
                "require": ["f1>=0.5"],
            },
            "environments": {"prod": {"region": "eu-west-1", "account": "123456789012", "bucket": "other"}},
        });
        std::fs::write(bench.project.path().join("manifest.json"), manifest.to_string()).unwrap();
        std::fs::write(bench.project.path().join("metrics.json"), r#"{"f1": 0.80}"#).unwrap();
        let group = GroupSpec { name: "wine".to_owned(), description: None, tags: BTreeMap::new() };
        bench.memory.registry.create_group(&group).await.unwrap();
        bench
    }

    /// Changes the manifest.
    fn manifest(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let file = self.project.path().join("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(file, manifest.to_string()).unwrap();
    }

    /// Registers a version with files of metrics, as `model register` does.
    async fn register(&self, approval: Approval, files: &[&str]) -> String {
        let keys: Vec<_> = files.iter().map(|text| format!("metrics/{}.json", hex(&Sha256::digest(text)))).collect();
        for (key, text) in keys.iter().zip(files) {
            self.memory.objects.insert(key, *text);
        }
        let number = self.memory.registry.all().len();
        let spec = VersionSpec {
            group: "wine".to_owned(),
            client_token: format!("token-{number}"),
            description: String::new(),
            image: String::new(),
            model_data_url: String::new(),
            environment: BTreeMap::new(),
            content_types: Vec::new(),
            response_types: Vec::new(),
            instance_types: Vec::new(),
            metrics: files.first().map(|text| StoredMetrics {
                uri: format!("s3://memory/{}", keys[0]),
                content_type: "application/json".to_owned(),
                digest: Some(format!("sha256:{}", hex(&Sha256::digest(text)))),
            }),
            commit: None,
            repository: None,
            generated_by: None,
            project: None,
            metadata: (1..).zip(&keys).map(|(number, key)| (format!("metrics-{number}"), key.clone())).collect(),
        };
        let arn = self.memory.registry.create_version(&spec).await.unwrap();
        self.memory.registry.change(&arn, |version| version.approval = approval);
        arn
    }

    /// The end of the command, with what it wrote for people.
    async fn run(&self, arguments: &[&str]) -> (Option<Kind>, String) {
        let manifest = self.project.path().join("manifest.json");
        let end = ["--manifest", manifest.to_str().unwrap(), "--environment", "prod"];
        let line = Line::try_parse_from(["gate"].iter().chain(arguments).chain(&end)).unwrap();
        let (printer, captured) = Printer::captured();
        let inputs = CommandInputs {
            gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
            env: Environment::default(),
            connect: Arc::new(self.memory.clone()),
            clock: Arc::new(HostClock),
            printer,
        };
        match super::run(&inputs, line.gate, Cancellation::default()).await {
            Ok(()) => (None, captured.text()),
            Err(error) => {
                let error = with_exit_code(error);
                (Some(failure::kind_of(&error)), captured.text() + &failure::render(&error))
            }
        }
    }
}

#[tokio::test]
async fn without_a_limit_the_registry_is_not_asked() {
    let bench = Bench::new().await;
    assert_eq!(bench.run(&[]).await, (None, "The model passes the gate: 1 of 1 rules hold\n".to_owned()));
    assert_eq!(bench.memory.made(), [""; 0]);
}

#[tokio::test]
async fn the_first_model_of_a_group_has_nothing_to_be_compared_with() {
    let bench = Bench::new().await;
    bench.register(Approval::Rejected, &[r#"{"f1": 0.9}"#]).await;
    bench.register(Approval::Pending, &[r#"{"f1": 0.9}"#]).await;
    let (kind, text) = bench.run(&["--max-regression", "f1=0.01"]).await;
    let expected = "The group wine has no approved version to compare with\n\
                    The model passes the gate: 1 of 2 rules hold; 1 skipped\n";
    assert_eq!((kind, text.as_str()), (None, expected));
    assert_eq!(bench.run(&["--max-regression", "f1=0.01", "--baseline-required"]).await.0, Some(BELOW));
    bench.manifest(|manifest| drop(manifest.as_object_mut().unwrap().remove("model")));
    let alone = ["--metrics", "x", "--max-regression", "higher:f1=0"];
    let file = bench.project.path().join("metrics.json");
    let alone = [alone[0], file.to_str().unwrap(), alone[2], alone[3]];
    let (kind, text) = bench.run(&alone).await;
    assert_eq!(kind, Some(Kind::User));
    assert!(text.contains("add `model` with `group`"), "{text}");
}

#[tokio::test]
async fn the_latest_approved_version_is_compared_with() {
    let bench = Bench::new().await;
    let old = bench.register(Approval::Approved, &[r#"{"f1": 0.9}"#]).await;
    bench.register(Approval::Approved, &[r#"{"accuracy": 1}"#, r#"{"f1": 0.81}"#]).await;
    for _ in 0..3 {
        bench.register(Approval::Pending, &[r#"{"f1": 1}"#]).await;
    }
    assert_eq!(bench.run(&["--max-regression", "f1=0.01"]).await.0, None);
    assert_eq!(bench.run(&["--max-regression", "f1=0.009", "--baseline", "approved"]).await.0, Some(BELOW));
    let (kind, text) = bench.run(&["--max-regression", "f1=0.01", "--baseline", &old]).await;
    assert_eq!(kind, Some(BELOW));
    assert!(text.contains("it is 0.8, and the baseline's is 0.9"), "{text}");
}

#[test_case(&[], "", "it was registered without any"; "no metrics")]
#[test_case(&["{}"], "{}", "does not exist"; "deleted")]
#[test_case(&["{}"], "{} ", "has changed since then"; "changed")]
#[tokio::test]
async fn metrics_that_are_not_those_of_the_version_are_an_error(files: &[&str], now: &str, why: &str) {
    let bench = Bench::new().await;
    bench.register(Approval::Approved, files).await;
    for key in bench.memory.objects.keys() {
        if why == "does not exist" {
            bench.memory.objects.expire(&key);
        } else {
            bench.memory.objects.insert(&key, now);
        }
    }
    let (kind, text) = bench.run(&["--max-regression", "f1=0.01"]).await;
    assert_eq!(kind, Some(Kind::User));
    assert!(text.contains(why), "{text}");
}

#[tokio::test]
async fn another_account_is_no_account_without_models() {
    let bench = Bench::new().await;
    bench.memory.account.set_caller("arn:aws:sts::210987654321:assumed-role/ci/job");
    let (kind, text) = bench.run(&["--max-regression", "f1=0.01"]).await;
    assert_eq!(kind, Some(Kind::User));
    assert!(text.contains("210987654321"), "{text}");
}

#[tokio::test]
async fn the_limit_of_the_manifest_holds_against_the_command_line() {
    let bench = Bench::new().await;
    let old = bench.register(Approval::Approved, &[r#"{"f1": 0.8}"#]).await;
    bench.register(Approval::Approved, &[r#"{"f1": 0.9}"#]).await;
    let pending = bench.register(Approval::Pending, &[r#"{"f1": 0.1}"#]).await;
    let own = bench.project.path().join("metrics.json");
    let own = own.to_str().unwrap();
    let other = old.replace("/wine/", "/beer/");
    // A limit of the command line alone may be compared with anything.
    for baseline in [own, pending.as_str()] {
        assert_eq!(bench.run(&["--max-regression", "f1=0.01", "--baseline", baseline]).await.0, None, "{baseline}");
    }
    bench.manifest(|manifest| manifest["model"]["max_regression"] = serde_json::json!(["f1=0.01"]));
    assert_eq!(bench.run(&[]).await.0, Some(BELOW));
    assert_eq!(bench.run(&["--baseline", &old]).await.0, None);
    for (baseline, why) in [
        (own, "`model.max_regression`"),
        ("absent.json", "`model.max_regression`"),
        (pending.as_str(), "which is not approved"),
        (other.as_str(), "whose group is not that of the manifest"),
        ("arn:aws:s3:::x", "which is no ARN of a version"),
    ] {
        let (kind, text) = bench.run(&["--baseline", baseline]).await;
        assert!(kind == Some(Kind::User) && text.contains(why), "{baseline}: {text}");
    }
}

#[test_case("region", &[]; "no region")]
#[test_case("account", &[]; "no account")]
#[test_case("account", &["--baseline", "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/1"]; "no account of a version")]
#[tokio::test]
async fn a_registry_needs_its_place(key: &str, arguments: &[&str]) {
    let bench = Bench::new().await;
    bench.manifest(|manifest| drop(manifest["environments"]["prod"].as_object_mut().unwrap().remove(key)));
    let (kind, text) = bench.run(&[&["--max-regression", "f1=0.01"], arguments].concat()).await;
    assert_eq!(kind, Some(Kind::User));
    let expected =
        format!("error: the environment prod has no `{key}`\n  hint: set `environments.<name>.{key}` in the manifest");
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(bench.memory.made(), [""; 0]);
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_an_error() {
    let bench = Bench::new().await;
    let arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/9";
    let (kind, text) = bench.run(&["--max-regression", "f1=0.01", "--baseline", arn]).await;
    assert_eq!(kind, Some(Kind::User));
    assert!(text.contains(arn), "{text}");
}

#[tokio::test]
async fn a_throttled_call_may_succeed_later() {
    for (method, kind, expected) in [
        ("versions", CloudErrorKind::Throttled, Kind::Verdict { code: exit_codes::TRY_LATER }),
        ("version", CloudErrorKind::Denied, Kind::System),
        ("get", CloudErrorKind::Denied, Kind::System),
    ] {
        let bench = Bench::new().await;
        bench.register(Approval::Approved, &[r#"{"f1": 0.8}"#]).await;
        let fault = Fault::new(method, 1, When::Before, kind);
        if method == "get" {
            bench.memory.objects.plan([fault]);
        } else {
            bench.memory.registry.plan([fault]);
        }
        assert_eq!(bench.run(&["--max-regression", "f1=0.01"]).await.0, Some(expected), "{method}");
    }
}

#[test]
fn a_model_below_its_bars_is_not_registered() {
    let model = |require: &[&str]| ModelEntry {
        require: require.iter().map(|&rule| rule.to_owned()).collect(),
        metric_paths: [("f1".to_owned(), "$.report.f1".to_owned())].into(),
        ..ModelEntry::default()
    };
    let file = MetricsSource { name: "metrics.json".to_owned(), bytes: br#"{"report": {"f1": 0.7}}"#.to_vec() };
    let end = |require: &[&str]| check_bars(&model(require), std::slice::from_ref(&file)).map_err(|error| error.kind);
    assert_eq!(end(&[]), Ok(()));
    assert_eq!(end(&["f1>=0.7", "report.f1>0"]), Ok(()));
    assert_eq!(end(&["f1>0.7"]), Err(Kind::Verdict { code: exit_codes::BELOW_BAR }));
    assert_eq!(end(&["f1"]), Err(Kind::User));
}
