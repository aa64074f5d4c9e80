//! The commands about an endpoint that is there.

mod delete;
mod status;
mod tags;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use clap::Parser;
use serde_json::{Value, json};

use super::EndpointArgs;
use super::ledger::{
    Ledger, LedgerBegin, LedgerCapacity, LedgerEnd, LedgerEntry, LedgerKind, LedgerOutcome, LedgerScaling,
    LedgerServing,
};
use crate::base::clock::Clock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::{FaultDecision, Memory, Watch, When, example_config, example_endpoint, example_model};
use crate::cloud::{
    AlarmMetric, EndpointAlarm, EndpointConfiguration, EndpointScaling as _, MetricAlarms as _, ModelEndpoints as _,
    NewEndpoint, ScaledQuantity, ScaledVariant, ServedModel, VariantCapacity,
};
use crate::config::env::Environment;
use crate::lifecycle::CommandInputs;
use crate::ui::Printer;

/// A clock that stands still.
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
    endpoint: EndpointArgs,
}

/// A project whose endpoint `wine` serves its second deployment, in an account where `beer` is another's.
struct ServedDesk {
    project: tempfile::TempDir,
    memory: Memory,
    /// Of the jobs.
    gitlab_environment: &'static str,
}

/// How a command ended.
struct Ended {
    kind: Option<Kind>,
    error: String,
    out: String,
    told: String,
}

fn tags(endpoint: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("sagemaker-executor:endpoint".to_owned(), endpoint.to_owned())])
}

/// The scaled variant of `wine`.
fn variant() -> ScaledVariant {
    ScaledVariant { endpoint: "wine".to_owned(), variant: "AllTraffic".to_owned(), quantity: ScaledQuantity::Instances }
}

fn scaling() -> LedgerScaling {
    LedgerScaling {
        min: 2,
        max: 4,
        policy: "wine".to_owned(),
        metric: "SageMakerVariantInvocationsPerInstance".to_owned(),
        target: 70.0,
        scale_in_cooldown: None,
        scale_out_cooldown: None,
    }
}

fn alarm(name: &str, endpoint: &str) -> EndpointAlarm {
    EndpointAlarm {
        name: name.to_owned(),
        description: String::new(),
        endpoint: endpoint.to_owned(),
        variant: "AllTraffic".to_owned(),
        metric: AlarmMetric::Errors5xx,
        threshold: 5.0,
        period_seconds: 60,
        periods: 1,
        tags: tags(endpoint),
    }
}

/// The begin of a deployment to configuration `wine-NUMBER`.
fn begin(number: u32) -> LedgerBegin {
    let example = include_str!("ledger/example.json").replace("{reason}", "better");
    let example: LedgerBegin = serde_json::from_str(&example).unwrap();
    LedgerBegin {
        from_config: number.checked_sub(1).map(|number| format!("wine-{number}")),
        from_model: number.checked_sub(1).map(|number| format!("wine-m-{number}")),
        to_config: Some(format!("wine-{number}")),
        to_model: Some(format!("wine-m-{number}")),
        model_package: None,
        serving: Some(LedgerServing {
            image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:0".to_owned(),
            model_data_url: Some("s3://memory/models/1/model.tar.gz".to_owned()),
            capacity: LedgerCapacity::from(&VariantCapacity::Instances {
                instance_type: "ml.m5.large".to_owned(),
                count: 2,
            }),
            alarms: vec!["wine-5xx".to_owned()],
            autoscaling: Some(scaling()),
        }),
        ..example
    }
}

fn end(outcome: LedgerOutcome, number: u32) -> LedgerEnd {
    LedgerEnd { config: Some(format!("wine-{number}")), ..LedgerEnd::new(Noon.now(), outcome) }
}

impl ServedDesk {
    /// Nothing is deployed.
    fn empty() -> Self {
        let desk = Self { project: tempfile::tempdir().unwrap(), memory: Memory::new(), gitlab_environment: "test" };
        desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        desk.manifest(|_| {});
        desk
    }

    async fn new() -> Self {
        let desk = Self::empty();
        for number in [0, 1] {
            desk.makes("wine", number).await;
        }
        desk.makes("beer", 0).await;
        desk.makes_endpoint("wine", "wine-1").await;
        desk.makes_endpoint("beer", "beer-0").await;
        let serving = &desk.memory.serving;
        serving.register(&variant(), &scaling().limits()).await.unwrap();
        serving.put_policy(&variant(), &scaling().policy()).await.unwrap();
        for (name, endpoint) in [("wine-5xx", "wine"), ("beer-5xx", "beer")] {
            serving.put_alarm(&alarm(name, endpoint)).await.unwrap();
        }
        for number in [0, 1] {
            desk.deployed(number).await;
        }
        desk
    }

    /// A model and a configuration of an endpoint.
    async fn makes(&self, endpoint: &str, number: u32) {
        let (model, config) = (format!("{endpoint}-m-{number}"), format!("{endpoint}-{number}"));
        let serving = &self.memory.serving;
        serving.create_model(&ServedModel { tags: tags(endpoint), ..example_model(&model) }).await.unwrap();
        let config = EndpointConfiguration { tags: tags(endpoint), ..example_config(&config, &model) };
        serving.create_config(&config).await.unwrap();
    }

    async fn makes_endpoint(&self, name: &str, config: &str) {
        let serving = &self.memory.serving;
        serving.create_endpoint(&NewEndpoint { tags: tags(name), ..example_endpoint(name, config) }).await.unwrap();
        tokio::time::sleep(Duration::from_mins(10)).await;
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.memory.objects.clone(), "wine")
    }

    /// Records a deployment to configuration `wine-NUMBER` that succeeded.
    async fn deployed(&self, number: u32) -> u64 {
        let deployment = self.ledger().begin(&begin(number)).await.unwrap();
        self.ledger().end(deployment, &end(LedgerOutcome::Succeeded, number)).await.unwrap();
        deployment
    }

    async fn history(&self) -> Vec<LedgerEntry> {
        self.ledger().history(50).await.unwrap()
    }

    /// Writes the manifest with a change.
    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = json!({
            "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large", "count": 2}},
            "environments": {
                "prod": {"region": "eu-west-1", "account": "123456789012", "bucket": "memory"},
                "test": {"region": "eu-west-1", "account": "123456789012", "bucket": "memory"},
            },
        });
        change(&mut manifest);
        std::fs::write(self.project.path().join("manifest.json"), manifest.to_string()).unwrap();
    }

    async fn run(&self, words: &[&str]) -> Ended {
        let manifest = self.project.path().join("manifest.json");
        let end = ["--manifest", manifest.to_str().unwrap()];
        let line = Line::try_parse_from(["endpoint"].iter().chain(words).chain(&end)).unwrap();
        let (printer, captured) = Printer::captured();
        let variables = [("CI_PROJECT_PATH", "group/project"), ("CI_PIPELINE_ID", "7"), ("CI_JOB_ID", "8")]
            .into_iter()
            .chain([("CI_ENVIRONMENT_NAME", self.gitlab_environment)]);
        let inputs = CommandInputs {
            gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
            env: Environment::from_pairs(variables.map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            clock: Arc::new(Noon),
            printer,
        };
        let result = super::run(&inputs, line.endpoint, Cancellation::default()).await;
        let out = String::from_utf8(captured.data()).unwrap();
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        let kind = result.err().map(|error| failure::kind_of(&error));
        Ended { kind, error, out, told: captured.text() }
    }
}

/// Lets no call pass from the `at`th moment on; counts the moments.
#[derive(Debug)]
struct Kill {
    at: usize,
    seen: AtomicUsize,
}

impl Watch for Kill {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.at { FaultDecision::Passes } else { FaultDecision::Hangs }
    }
}

impl ServedDesk {
    /// Kills what runs from now on at a moment: before or after a call takes effect.
    fn kill_at(&self, at: usize) -> Arc<Kill> {
        let kill = Arc::new(Kill { at, seen: AtomicUsize::new(0) });
        self.memory.serving.watch(kill.clone());
        self.memory.objects.watch(kill.clone());
        self.memory.registry.watch(kill.clone());
        kill
    }
}
