//! The commands on fakes, with faults and kills at each of their calls.

mod approving;
mod kills;
mod registering;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64_simd::URL_SAFE_NO_PAD;
use clap::Parser;
use serde_json::{Value, json};

use super::ModelArgs;
use crate::base::clock::Clock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::Memory;
use crate::config::env::Environment;
use crate::lifecycle::CommandInputs;
use crate::ui::Printer;

/// A clock that stands still, so that two runs leave the same records.
#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(12)
    }

    fn since_boot(&self) -> (String, Duration) {
        (String::new(), Duration::ZERO)
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    model: ModelArgs,
}

/// A project with a model, in an account without any.
struct Desk {
    project: tempfile::TempDir,
    memory: Memory,
    env: BTreeMap<String, String>,
}

/// How a command ended.
struct Ended {
    kind: Option<Kind>,
    error: String,
    out: String,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { project: tempfile::tempdir().unwrap(), memory: Memory::new(), env: BTreeMap::new() };
        std::fs::create_dir(desk.project.path().join("model")).unwrap();
        std::fs::write(desk.project.path().join("model/model.json"), "{}").unwrap();
        std::fs::write(desk.project.path().join("metrics.json"), r#"{"accuracy": 0.9}"#).unwrap();
        desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        desk.manifest(|_| {});
        desk.with([
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_COMMIT_SHA", "c0ffee"),
            ("CI_PIPELINE_ID", "7"),
            ("CI_PIPELINE_URL", "https://gitlab.example/group/project/-/pipelines/7"),
            ("CI_JOB_ID", "8"),
        ])
    }

    /// The same project and account, with other variables.
    fn with<const N: usize>(mut self, variables: [(&str, &str); N]) -> Self {
        self.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// Writes the manifest with a change.
    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = json!({
            "model": {
                "group": "churn",
                "image": format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
                "metrics": ["metrics.json"],
            },
            "tags": {"Project": "churn"},
            "environments": {"prod": {"region": "eu-west-1", "account": "123456789012", "bucket": "memory"}},
        });
        change(&mut manifest);
        std::fs::write(self.project.path().join("manifest.json"), manifest.to_string()).unwrap();
    }

    async fn run(&self, words: &[&str]) -> Ended {
        self.run_as(None, words).await
    }

    /// As a user of GitLab.
    async fn run_as(&self, user: Option<&str>, words: &[&str]) -> Ended {
        self.run_in(Some("prod"), user, words).await
    }

    async fn run_in(&self, environment: Option<&str>, user: Option<&str>, words: &[&str]) -> Ended {
        let manifest = self.project.path().join("manifest.json");
        let mut end = vec!["--manifest", manifest.to_str().unwrap()];
        end.extend(environment.iter().flat_map(|name| ["--environment", name]));
        let line = Line::try_parse_from(["model"].iter().chain(words).chain(&end)).unwrap();
        let mut env = self.env.clone();
        if let Some(user) = user {
            env.insert("SAGEMAKER_ID_TOKEN".to_owned(), token(user));
            env.insert("AWS_ROLE_ARN".to_owned(), "arn:aws:iam::123456789012:role/approve".to_owned());
        }
        let (printer, captured) = Printer::captured();
        let inputs = CommandInputs {
            gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
            env: Environment::from_pairs(env.into_iter().map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            clock: Arc::new(Noon),
            printer,
        };
        let result = super::run(&inputs, line.model, Cancellation::default()).await;
        let out = String::from_utf8(captured.data()).unwrap();
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        Ended { kind: result.err().map(|error| failure::kind_of(&error)), error, out }
    }

    async fn registers(&self) -> String {
        let ended = self.run(&["register", "--output", "json"]).await;
        assert_eq!(ended.kind, None, "{}", ended.error);
        let data: Value = serde_json::from_str(&ended.out).unwrap();
        data["model_package_arn"].as_str().unwrap().to_owned()
    }

    /// Names of the calls that change something.
    fn writes(&self) -> Vec<String> {
        let changes = ["create_group", "create_version", "update_version", "put_with_hash", "put ", "copy", "delete"];
        let calls = [self.memory.registry.calls(), self.memory.objects.calls()].concat();
        calls.into_iter().filter(|call| changes.iter().any(|change| call.starts_with(change))).collect()
    }
}

/// The id token of a user's job.
fn token(user: &str) -> String {
    let claims = json!({
        "iss": "https://gitlab.example", "user_id": user, "user_login": format!("user{user}"), "project_path": "group/project", "pipeline_id": "7",
        "job_id": "8",
    });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode_to_string(claims.to_string()))
}
