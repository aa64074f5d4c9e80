//! `prune` over many things: the number of its calls beside the fewest, while AWS throttles deletions; and runs that are killed at random
//! requests; and versions of others in the account. `PRUNE_THINGS=5000`, `PRUNE_KILLS=100` and `PRUNE_VERSIONS=2000` are the full forms,
//! `PRUNE_SEED=2` kills at other requests.

use std::process::{Command, Stdio};
use std::time::Duration;

use executor::config::env::Environment;
use serde_json::{Value, json};

use super::{Ended, run};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab_api::{GitLabDouble, JOB_TOKEN};
use crate::support::images::{create_repository, push_empty};
use crate::support::proxy::{Hold, Proxy};
use crate::support::random::Random;
use crate::support::waiting::{poll, tell};

/// Things of the row unless `PRUNE_THINGS` says otherwise, and kills.
const THINGS: usize = 160;
const KILLS: usize = 3;
/// Endpoints that are gone, whose models and configurations are left.
const ENDPOINTS: usize = 8;
/// Versions of another group unless `PRUNE_VERSIONS` says otherwise.
const VERSIONS: usize = 40;
/// Deletions a second that AWS takes in the row, and in its full form.
const RATE: u32 = 12;
const FULL_RATE: u32 = 30;
/// Requests before which a killed run is not over.
const KILLED_WITHIN: u64 = 40;
const IMAGE: &str = "000000000000.dkr.ecr.us-east-1.amazonaws.com/serve:1";
const ROLE: &str = "arn:aws:iam::000000000000:role/serving";

fn number(name: &str) -> Option<usize> {
    Environment::of_process().get(name).map(|text| text.parse().expect("it is a number"))
}

/// Things that a project left, with things of others.
struct LargeDesk {
    emulator: Emulator,
    gitlab: GitLabDouble,
    folder: tempfile::TempDir,
    /// Models of the project that nothing refers to, as many configurations, versions, and objects.
    pairs: usize,
    versions: usize,
    objects: usize,
    /// Models of others or of nobody, as many configurations.
    foreign: usize,
}

fn tags(endpoint: &str, project: &str) -> Value {
    let tags = [("endpoint", endpoint), ("project", project), ("environment", "dev")];
    tags.map(|(key, value)| json!({"Key": format!("sagemaker-executor:{key}"), "Value": value})).into_iter().collect()
}

impl LargeDesk {
    /// About so many things, of which nothing but the newest version stays; another twentieth is others'.
    fn new(things: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(&folder.path().join("data"), &[]);
        create_repository(&emulator, "serve", "MUTABLE");
        let manifest = json!({
            "image": {"repository": "serve"},
            "model": {"group": "wine", "image": IMAGE.replace(":1", &format!("@sha256:{}", "1".repeat(64)))},
            "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large"}},
            "environments": {"dev": {
                "region": "us-east-1", "account": "000000000000", "bucket": BUCKET, "prefix": "team", "role": ROLE,
            }},
        });
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        let (pairs, versions, foreign) = (things * 2 / 5, things / 10, (things / 40).max(2));
        let objects = things - 2 * pairs - versions;
        let desk = Self { emulator, gitlab: GitLabDouble::start(), folder, pairs, versions, objects, foreign };
        for number in 0..pairs {
            let endpoint = format!("wine-{}", number % ENDPOINTS);
            desk.make_pair(&endpoint, number, &tags(&endpoint, "group/project"));
        }
        for number in 0..foreign {
            let endpoint = format!("beer-{}", number % ENDPOINTS);
            let theirs = if number % 2 == 0 { json!([]) } else { tags(&endpoint, "group/other") };
            desk.make_pair(&endpoint, number, &theirs);
        }
        desk.make_versions("wine", versions + 1);
        for number in 0..objects {
            desk.emulator.put_object(&format!("team/candidate/{number}"), b"x");
        }
        // Another's, which uses what the project left.
        desk.make_pair("ale", 0, &tags("ale", "group/project"));
        let used = json!({"EndpointName": "ale-of-others", "EndpointConfigName": "ale-000000000000"});
        desk.call("CreateEndpoint", &used);
        desk
    }

    fn call(&self, operation: &str, body: &Value) -> Value {
        self.emulator.call(&format!("SageMaker.{operation}"), body)
    }

    fn make_pair(&self, endpoint: &str, number: usize, tags: &Value) {
        let (model, config) = (format!("{endpoint}-m-{number:012x}"), format!("{endpoint}-{number:012x}"));
        let container = json!({"Image": IMAGE});
        self.call(
            "CreateModel",
            &json!({"ModelName": model, "ExecutionRoleArn": ROLE, "PrimaryContainer": container, "Tags": tags}),
        );
        let variant = json!({
            "VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
        });
        let body = json!({"EndpointConfigName": config, "ProductionVariants": [variant], "Tags": tags});
        self.call("CreateEndpointConfig", &body);
    }

    fn make_versions(&self, group: &str, versions: usize) {
        self.call("CreateModelPackageGroup", &json!({"ModelPackageGroupName": group}));
        for number in 0..versions {
            self.make_version(group, number);
        }
    }

    fn make_version(&self, group: &str, number: usize) {
        let body = json!({
            "ModelPackageGroupName": group,
            "ModelPackageDescription": format!("[content {number}]"),
            "ModelApprovalStatus": "PendingManualApproval",
            "CustomerMetadataProperties": {"project": "group/project"},
            "InferenceSpecification": {
                "Containers": [{"Image": IMAGE, "ModelDataUrl": format!("s3://{BUCKET}/team/models/{number}/model.tar.gz")}],
                "SupportedContentTypes": ["text/plain"],
                "SupportedResponseMIMETypes": ["text/plain"],
            },
        });
        self.call("CreateModelPackage", &body);
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let own = [
            ("CI_ENVIRONMENT_NAME", "dev"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_PIPELINE_SOURCE", "schedule"),
            ("CI_JOB_TOKEN", JOB_TOKEN),
        ];
        let own = own.map(|(name, value)| (name, value.to_owned())).into_iter().chain(self.gitlab.variables());
        let credentials = self.emulator.of_administrator().into_iter();
        let names = ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let credentials =
            credentials.filter_map(|(name, value)| Some((*names.iter().find(|one| **one == name)?, value)));
        own.chain(credentials.filter(|(_, value)| !value.is_empty())).collect()
    }

    fn words(endpoint: &str) -> [&str; 9] {
        let limits = ["prune", "--retention-days", "0", "--keep", "1"];
        let [command, days, zero, keep, one] = limits;
        [command, days, zero, keep, one, "--output", "json", "--endpoint-url", endpoint]
    }

    fn prune(&self) -> (Ended, Value) {
        self.prune_with(&[])
    }

    fn prune_with(&self, words: &[&str]) -> (Ended, Value) {
        let variables = self.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let words = [&Self::words(&self.emulator.endpoint)[..], words].concat();
        let ended = run(self.folder.path(), &variables, &words);
        let data = serde_json::from_str(&ended.stdout).unwrap_or_default();
        (ended, data)
    }

    /// Runs `prune` until this request, and kills it; `false` when it ended before.
    fn kill(&self, proxy: &Proxy, request: u64, hold: Hold) -> bool {
        proxy.arm(Some((request, hold)));
        let mut child = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"))
            .args(Self::words(&proxy.url))
            .env_clear()
            .envs(self.variables())
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let is_held = poll(Duration::from_mins(2), || {
            if proxy.held().is_some() {
                return Some(true);
            }
            child.try_wait().unwrap().map(|_| false)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        proxy.settle(false);
        is_held.expect("the run goes on")
    }

    /// The numbers of models, configurations, versions and objects that are there.
    fn there(&self) -> [usize; 4] {
        let count = |operation: &str, list: &str, body: Value| {
            let (mut all, mut token) = (0, Value::Null);
            loop {
                let mut body = body.clone();
                body["MaxResults"] = 100.into();
                if !token.is_null() {
                    body["NextToken"] = token;
                }
                let page = self.call(operation, &body);
                all += page[list].as_array().unwrap().len();
                token = page["NextToken"].clone();
                if token.is_null() {
                    return all;
                }
            }
        };
        let group = json!({"ModelPackageGroupName": "wine"});
        [
            count("ListModels", "Models", json!({})),
            count("ListEndpointConfigs", "EndpointConfigs", json!({})),
            count("ListModelPackages", "ModelPackageSummaryList", group),
            self.emulator.objects().iter().filter(|key| key.starts_with("team/candidate/")).count(),
        ]
    }

    /// As [`LargeDesk::there`], when nothing is left to delete.
    fn expected(&self) -> [usize; 4] {
        [self.foreign + 1, self.foreign + 1, 1, 0]
    }

    /// Calls of AWS so far.
    fn calls(&self) -> u64 {
        self.emulator.all_requests().values().sum()
    }

    /// The fewest calls of a run: the owner of each thing is looked at once, each is deleted once, and of what stays it is read what it is
    /// made of.
    fn fewest(&self) -> usize {
        let pages = |things: usize, page: usize| things.div_ceil(page).max(1);
        let deleted = 2 * (2 * self.pairs + self.versions) + pages(self.objects, 1000);
        // Configuration, model and tags of both, and the parts of the model; the used endpoint with its tags, and the version that stays.
        let staying = 3 * (self.foreign + 1) + 4 + 1;
        let lists = 2 * pages(self.pairs, 100) + pages(self.versions, 100) + pages(self.objects, 1000);
        // The caller, and the other lists, that of the images among them.
        deleted + staying + lists + 7
    }
}

#[test]
fn many_things_go_with_few_calls_while_aws_throttles() {
    let given = number("PRUNE_THINGS");
    let desk = LargeDesk::new(given.unwrap_or(THINGS));
    let quotas = if given.is_some() {
        json!({"DeleteModel": FULL_RATE, "DeleteEndpointConfig": FULL_RATE, "DeleteModelPackage": FULL_RATE})
    } else {
        json!({"DeleteModel": RATE})
    };
    desk.emulator.set_faults(&json!({"quotas": quotas}));
    let before = desk.calls();
    let begun = std::time::Instant::now();
    let (ended, data) = desk.prune();
    let (made, took) = (desk.calls() - before, begun.elapsed());
    assert_eq!((ended.code, &data["failed"]), (0, &json!(0)), "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stderr.contains("hrottl"), "{}", ended.stderr);
    assert_eq!(desk.there(), desk.expected());
    let fewest = u64::try_from(desk.fewest()).unwrap();
    tell(&format!("prune: {} things, {made} calls, {fewest} at least, {} s", data["deleted"], took.as_secs()));
    assert!(made * 10 <= fewest * 13, "{made} calls, {fewest} at least");
}

/// Calls of `prune` in an account with many versions of somebody else: none of them is looked at while nothing goes that it may have, and each
/// once when an image may go.
#[test]
fn versions_of_others_cost_calls_when_an_image_may_go_alone() {
    let versions = number("PRUNE_VERSIONS").unwrap_or(VERSIONS);
    let desk = LargeDesk::new(0);
    desk.make_versions("beer", versions);
    let pages = u64::try_from(versions.div_ceil(100)).unwrap();
    let versions = u64::try_from(versions).unwrap();
    let counted = |what: &str| {
        let before = [desk.calls(), desk.emulator.requests("DescribeModelPackage")];
        let begun = std::time::Instant::now();
        let (ended, data) = desk.prune_with(&["--dry-run"]);
        assert_eq!((ended.code, &data["failed"]), (0, &json!(0)), "{}{}", ended.stdout, ended.stderr);
        let made = desk.calls() - before[0];
        let reads = desk.emulator.requests("DescribeModelPackage") - before[1];
        tell(&format!("prune beside {versions} versions, {what}: {made} calls, {} s", begun.elapsed().as_secs()));
        (data["would_be_deleted"].clone(), made, reads)
    };
    let (going, made, reads) = counted("nothing goes");
    assert_eq!((going, reads), (json!(0), 1));
    assert!(made < 40, "{made} calls");
    for number in 0..2 {
        push_empty(&desk.emulator, "serve", &format!("context-{number:040x}"));
    }
    let (going, with_image, reads) = counted("an image goes");
    assert_eq!((going, reads), (json!(1), versions + 1));
    assert!(with_image <= made + versions + 2 * pages + 12, "{with_image} calls, {made} without an image");
}

#[test]
fn killed_runs_leave_nothing_that_the_next_one_does_not_finish() {
    let kills = number("PRUNE_KILLS").unwrap_or(KILLS);
    let desk = LargeDesk::new(40 + 16 * kills);
    let proxy = Proxy::start(&desk.emulator.endpoint);
    let seed = number("PRUNE_SEED").unwrap_or(1);
    let mut random = Random(u64::try_from(seed).unwrap());
    let mut killed = 0;
    for _ in 0..kills {
        let (request, point) = (1 + random.below(KILLED_WITHIN), random.one(&[Hold::Before, Hold::After]));
        killed += usize::from(desk.kill(&proxy, request, point));
    }
    assert_eq!(killed, kills, "each run is killed within its work");
    let (ended, data) = desk.prune();
    assert_eq!((ended.code, &data["failed"]), (0, &json!(0)), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(desk.there(), desk.expected());
    let (again, data) = desk.prune();
    assert_eq!((again.code, &data["deleted"]), (0, &json!(0)), "{}{}", again.stdout, again.stderr);
}
