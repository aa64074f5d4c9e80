//! The commands on fakes, in simulated time.

mod deploying;
mod faults;
mod kills;
mod mended;
mod packages;
mod records;
mod refusing;
mod rolling_back;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use serde_json::{Value, json};

use crate::base::clock::TestClock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::Memory;
use crate::cloud::{Approval, InferenceReply, ModelEndpoints as _, ModelRegistry as _, VersionSpec};
use crate::config::env::Environment;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::endpoint::{self, EndpointArgs};
use crate::ui::Printer;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// A project with two versions of a model and an endpoint, in an account without any.
struct EndpointDesk {
    project: tempfile::TempDir,
    memory: Memory,
    env: BTreeMap<String, String>,
}

/// How a command ended.
struct Ended {
    kind: Option<Kind>,
    error: String,
    out: String,
    lines: String,
}

impl Ended {
    /// The output of the command, as JSON.
    fn data(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.error, self.out))
    }

    fn good(self) -> Value {
        assert_eq!(self.kind, None, "{}{}", self.lines, self.error);
        self.data()
    }

    /// The exit code of a command whose answer is no.
    fn verdict(&self) -> u8 {
        match self.kind {
            Some(Kind::Verdict { code }) => code,
            ref other => panic!("{other:?}: {}{}", self.lines, self.error),
        }
    }
}

impl EndpointDesk {
    async fn new() -> Self {
        let desk = Self { project: tempfile::tempdir().unwrap(), memory: Memory::new(), env: BTreeMap::new() };
        desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        desk.memory.account.set_quota("ml.m5.large", 8.0);
        let sample = json!([{"name": "one", "content_type": "text/plain", "body": "x", "expect": {"equals": "good"}}]);
        std::fs::write(desk.project.path().join("samples.json"), sample.to_string()).unwrap();
        desk.memory
            .registry
            .create_group(&crate::cloud::GroupSpec {
                name: "wine".to_owned(),
                description: None,
                tags: BTreeMap::new(),
            })
            .await
            .unwrap();
        desk.answer(|_| "good");
        desk.manifest(|_| {});
        desk.version(1).await;
        desk.with([
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_COMMIT_SHA", "c0ffee"),
            ("CI_PIPELINE_ID", "7"),
            ("CI_JOB_ID", "8"),
            ("GITLAB_USER_LOGIN", "jane"),
        ])
    }

    fn with<const N: usize>(mut self, variables: [(&str, &str); N]) -> Self {
        self.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// Registers and approves a version.
    async fn version(&self, number: u8) -> String {
        let arn = self.pending_version(number).await;
        self.memory.registry.change(&arn, |version| {
            version.approval = Approval::Approved;
            version.metadata.insert("approval-42@1234abcd".to_owned(), "round=1 user=jane".to_owned());
        });
        arn
    }

    async fn pending_version(&self, number: u8) -> String {
        let image = format!("serve@sha256:{}", number.to_string().repeat(64));
        self.memory.account.set_image(&image, &["linux/amd64"]);
        let key = format!("models/{number}/model.tar.gz");
        self.memory.objects.insert(&key, "");
        let spec = VersionSpec {
            group: "wine".to_owned(),
            client_token: number.to_string(),
            description: String::new(),
            image: format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/{image}"),
            model_data_url: format!("s3://memory/{key}"),
            environment: BTreeMap::from([("LEVEL".to_owned(), "1".to_owned())]),
            content_types: Vec::new(),
            response_types: Vec::new(),
            instance_types: Vec::new(),
            metrics: None,
            commit: None,
            repository: None,
            generated_by: None,
            project: None,
            metadata: BTreeMap::new(),
        };
        self.memory.registry.create_version(&spec).await.unwrap()
    }

    /// Writes the manifest with a change.
    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let place = json!({
            "region": "eu-west-1", "account": "123456789012", "bucket": "memory",
            "role": "arn:aws:iam::123456789012:role/serve",
        });
        let image = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0".repeat(64));
        let mut manifest = json!({
            "model": {"group": "wine", "image": image},
            "endpoint": {
                "name": "wine",
                "instances": {"type": "ml.m5.large", "count": 2},
                "deployment": {"strategy": "canary", "step_percent": 50, "wait_seconds": 120},
                "alarms": {"errors_5xx": 5, "latency_p95_ms": 200},
                "test": {"samples": ["samples.json"]},
            },
            "tags": {"Project": "wine"},
            "environments": {"prod": place, "dev": place},
        });
        change(&mut manifest);
        std::fs::write(self.project.path().join("manifest.json"), manifest.to_string()).unwrap();
    }

    /// Answers of the endpoint, by the name of the model that answers.
    fn answer(&self, text: impl Fn(&str) -> &'static str + Send + 'static) {
        self.memory.serving.reply(move |model, _| InferenceReply::Answer {
            content_type: "text/plain".to_owned(),
            body: text(model).into(),
        });
    }

    async fn run(&self, words: &[&str]) -> Ended {
        self.run_in("prod", words).await
    }

    async fn run_in(&self, environment: &str, words: &[&str]) -> Ended {
        self.run_with_output(environment, words, "json").await
    }

    async fn run_with_output(&self, environment: &str, words: &[&str], output: &str) -> Ended {
        let manifest = self.project.path().join("manifest.json");
        let end = ["--manifest", manifest.to_str().unwrap(), "--environment", environment, "--output", output];
        self.run_line(words, &end).await
    }

    async fn run_line(&self, words: &[&str], end: &[&str]) -> Ended {
        let line = Line::try_parse_from(["endpoint"].iter().chain(words).chain(end));
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        let (printer, captured) = Printer::captured();
        let env = self.env.clone().into_iter();
        let inputs = CommandInputs {
            gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
            env: Environment::from_pairs(env.map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            clock: Arc::new(TestClock::at(SystemTime::UNIX_EPOCH + Duration::from_hours(12))),
            printer,
        };
        let result = endpoint::run(&inputs, line.endpoint, Cancellation::default()).await;
        let out = String::from_utf8(captured.data()).unwrap();
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        Ended { kind: result.err().map(|error| failure::kind_of(&error)), error, out, lines: captured.text() }
    }

    async fn deploy(&self) -> Ended {
        self.run(&["deploy"]).await
    }

    /// The ledger's object.
    fn record(&self, name: &str) -> Value {
        let body = self.memory.objects.contents(&format!("deployments/wine/{name}.json"));
        body.map_or(Value::Null, |body| serde_json::from_slice(&body).unwrap())
    }

    /// Calls of the fakes so far that change something.
    fn writes(&self) -> Vec<String> {
        let changes = ["create_", "update_", "delete", "put", "register", "deregister", "copy"];
        let calls = [self.memory.serving.calls(), self.memory.objects.calls(), self.memory.registry.calls()].concat();
        calls.into_iter().filter(|call| changes.iter().any(|change| call.starts_with(change))).collect()
    }

    /// Number of calls so far.
    fn calls(&self) -> usize {
        let Memory { serving, objects, registry, account, .. } = &self.memory;
        serving.calls().len() + objects.calls().len() + registry.calls().len() + account.calls().len()
    }

    /// Name of the configuration in service.
    async fn in_service(&self) -> Option<String> {
        self.memory.serving.endpoint("wine").await.unwrap().map(|sight| sight.config)
    }
}
