//! The command on fakes: what goes and what stays, random worlds, kills, and the number of its calls.

mod doubts;
mod interrupted;
mod kills;
mod late;
mod named;
mod others;
mod rollbacks;
mod scaffolds;
mod throttled;
mod worlds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PruneArgs;
use crate::base::clock::Clock;
use crate::base::exit_codes;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::{
    EndpointFate, Fault, Memory, When, example_config, example_endpoint, example_model, example_spec,
};
use crate::cloud::{
    AlarmMetric, Approval, CloudErrorKind, EndpointAlarm, EndpointConfiguration, EndpointScaling as _, GroupSpec,
    JobStatus, MetricAlarms as _, ModelEndpoints as _, ModelRegistry as _, NewEndpoint, RepositoryImage,
    ScalableTarget, ScaledQuantity, ScaledVariant, SecondaryStatus, ServedModel, TrainingJobSpec, TrainingJobs as _,
    VersionSpec,
};
use crate::config::env::Environment;
use crate::gitlab::api::Release;
use crate::gitlab::api::testing::{MemoryGitLab, MemoryGitLabConnect};
use crate::lifecycle::CommandInputs;
use crate::ui::Printer;

const DAY: Duration = Duration::from_hours(24);
const PROJECT: &str = "group/project";
const PACKAGE: &str = "packages/1/candidate-PR-1-01234567-20261101T000000Z.zip";

/// Tokio's time as the time of day.
#[derive(Debug, Clone, Copy)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + (Instant::now() - self.0)
    }

    fn since_boot(&self) -> (String, Duration) {
        (String::new(), Duration::ZERO)
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    prune: PruneArgs,
}

/// A project in an account where others have things too.
struct PruneDesk {
    folder: tempfile::TempDir,
    memory: Memory,
    gitlab: Arc<MemoryGitLab>,
    clock: PausedClock,
    env: BTreeMap<String, String>,
}

/// How a command ended.
struct Ended {
    kind: Option<Kind>,
    error: String,
    data: Value,
    told: String,
}

impl Ended {
    /// Names of the things of a kind with this fate.
    fn of(&self, kind: &str, fate: &str) -> Vec<String> {
        let things = self.data["things"].as_array().into_iter().flatten();
        let meant = things.filter(|thing| thing["kind"] == kind && thing["fate"] == fate);
        meant.map(|thing| thing["name"].as_str().unwrap().to_owned()).collect()
    }

    fn rule(&self, name: &str) -> String {
        let mut things = self.data["things"].as_array().into_iter().flatten();
        let thing = things.find(|thing| thing["name"].as_str().is_some_and(|known| known.ends_with(name)));
        thing.map_or_else(|| "absent".to_owned(), |thing| thing["rule"].as_str().unwrap().to_owned())
    }
}

/// Tags of what this program makes for an endpoint.
fn tags(endpoint: &str, project: &str) -> BTreeMap<String, String> {
    let own = [("endpoint", endpoint), ("project", project), ("environment", "dev")];
    own.map(|(name, value)| (format!("sagemaker-executor:{name}"), value.to_owned())).into()
}

fn config_name(endpoint: &str, number: u32) -> String {
    format!("{endpoint}-{number:012x}")
}

fn model_name(endpoint: &str, number: u32) -> String {
    format!("{endpoint}-m-{number:012x}")
}

fn digest(number: u32) -> String {
    format!("sha256:{number:064x}")
}

/// The tag that `image build` gives.
fn context(number: u32) -> String {
    format!("context-{number:040x}")
}

fn image(number: u32) -> String {
    format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/train@{}", digest(number))
}

impl PruneDesk {
    fn new() -> Self {
        let env = [
            ("CI_PROJECT_PATH", PROJECT),
            ("CI_PROJECT_ID", "42"),
            ("CI_ENVIRONMENT_NAME", "dev"),
            ("CI_API_V4_URL", "https://gitlab.example.com/api/v4"),
            ("CI_JOB_TOKEN", "j"),
        ];
        let memory = Memory::new();
        memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        memory.registry.set_page(100);
        let clock = PausedClock(Instant::now());
        memory.objects.set_clock(Arc::new(clock));
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            memory,
            gitlab: Arc::default(),
            clock,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        desk.manifest(|_| {});
        desk
    }

    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = json!({
            "model": {"group": "wine", "image": image(1)},
            "image": {"repository": "train"},
            "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large"}},
            "environments": {"dev": {
                "region": "eu-west-1", "account": "123456789012", "bucket": "memory", "prefix": "wine",
                "role": "arn:aws:iam::123456789012:role/serve",
            }},
        });
        change(&mut manifest);
        std::fs::write(self.folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    }

    fn clock_now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Inputs of a command, and the text that it prints.
    fn inputs(&self) -> (CommandInputs, crate::ui::Captured) {
        let (printer, captured) = Printer::captured();
        let inputs = CommandInputs {
            env: Environment::from_pairs(self.env.iter().map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            gitlab: Arc::new(MemoryGitLabConnect(Arc::clone(&self.gitlab))),
            clock: Arc::new(self.clock),
            printer,
        };
        (inputs, captured)
    }

    async fn prune(&self, words: &[&str]) -> Ended {
        self.prune_until(words, Cancellation::default()).await
    }

    /// Runs the command until a signal ends it.
    async fn prune_until(&self, words: &[&str], cancellation: Cancellation) -> Ended {
        let manifest = self.folder.path().join("manifest.json");
        let first = ["prune", "--output", "json", "--manifest", manifest.to_str().unwrap()];
        let line = Line::try_parse_from([&first[..], words].concat()).unwrap();
        let (inputs, captured) = self.inputs();
        let ended = super::run(&inputs, line.prune, cancellation).await;
        Ended {
            kind: ended.as_ref().err().map(failure::kind_of),
            error: ended.as_ref().err().map(failure::render).unwrap_or_default(),
            data: serde_json::from_slice(&captured.data()).unwrap_or_default(),
            told: captured.text(),
        }
    }

    async fn add_config(&self, endpoint: &str, number: u32, project: &str) {
        let tags = tags(endpoint, project);
        let (model, config) = (model_name(endpoint, number), config_name(endpoint, number));
        let mut tags_of_model = tags.clone();
        tags_of_model.insert("sagemaker-executor:version".to_owned(), version_arn(number));
        let model_entry = ServedModel { tags: tags_of_model, ..example_model(&model) };
        self.memory.serving.create_model(&model_entry).await.unwrap();
        let config = EndpointConfiguration { tags, ..example_config(&config, &model) };
        self.memory.serving.create_config(&config).await.unwrap();
    }

    async fn add_endpoint(&self, endpoint: &str, number: u32, project: &str) {
        let new = example_endpoint(endpoint, &config_name(endpoint, number));
        let new = NewEndpoint { tags: tags(endpoint, project), ..new };
        self.memory.serving.create_endpoint(&new).await.unwrap();
    }

    async fn add_alarm(&self, endpoint: &str, project: &str) {
        let alarm = EndpointAlarm {
            name: format!("{endpoint}-5xx"),
            description: String::new(),
            endpoint: endpoint.to_owned(),
            variant: "AllTraffic".to_owned(),
            metric: AlarmMetric::Errors5xx,
            threshold: 5.0,
            period_seconds: 60,
            periods: 1,
            tags: tags(endpoint, project),
        };
        self.memory.serving.put_alarm(&alarm).await.unwrap();
    }

    /// Records a deployment that succeeded, of `number` after `number - 1`.
    fn add_deployment(&self, endpoint: &str, number: u32) {
        let example = include_str!("../endpoint/ledger/example.json").replace("{reason}", "better");
        let mut begin: Value = serde_json::from_str(&example).unwrap();
        begin["endpoint"] = endpoint.into();
        begin["kind"] = "deploy".into();
        begin["to_config"] = config_name(endpoint, number).into();
        begin["to_model"] = model_name(endpoint, number).into();
        begin["from_config"] = number.checked_sub(1).map(|number| config_name(endpoint, number)).into();
        begin["from_model"] = number.checked_sub(1).map(|number| model_name(endpoint, number)).into();
        begin["model_package"] = version_arn(number).into();
        begin["package"] = Value::Null;
        begin["serving"] = Value::Null;
        begin["before"] = Value::Null;
        let end = json!({"format": 1, "at": begin["at"], "outcome": "succeeded", "config": begin["to_config"]});
        for (half, body) in [("begin", begin), ("end", end)] {
            self.memory.objects.insert(&format!("deployments/{endpoint}/{number:08}.{half}.json"), body.to_string());
        }
    }

    /// Makes the next version of the group.
    async fn add_version(&self, number: u32, project: &str) {
        let group = GroupSpec { name: "wine".to_owned(), description: None, tags: BTreeMap::new() };
        let _ = self.memory.registry.create_group(&group).await;
        let spec = VersionSpec {
            group: "wine".to_owned(),
            client_token: format!("{number:036}"),
            description: format!("[content {number:036}]"),
            image: image(number),
            model_data_url: format!("s3://memory/wine/models/{number}/model.tar.gz"),
            environment: BTreeMap::new(),
            content_types: Vec::new(),
            response_types: Vec::new(),
            instance_types: Vec::new(),
            metrics: None,
            commit: None,
            repository: None,
            generated_by: None,
            project: Some(project.to_owned()),
            metadata: BTreeMap::from([("project".to_owned(), project.to_owned())]),
        };
        let arn = self.memory.registry.create_version(&spec).await.unwrap();
        assert_eq!(arn, version_arn(number));
        let now = self.clock.now();
        self.memory.registry.change(&arn, |version| version.created = Some(now));
    }

    fn add_image(&self, number: u32, tag: &str) {
        let used = Some(self.clock.now());
        self.memory.account.store_image(
            "train",
            RepositoryImage { digest: digest(number), tags: vec![tag.to_owned()], is_index: false, used },
        );
    }

    /// A training job of a project that has ended now.
    async fn add_job(&self, project: u32, number: u32) {
        let name = format!("gitlab-{project}-{number}-{number:08x}");
        let tags = [
            ("sagemaker-executor:session", name.clone()),
            ("gitlab:project-id", project.to_string()),
            ("gitlab:project-path", PROJECT.to_owned()),
        ];
        let tags = tags.map(|(name, value)| (name.to_owned(), value)).into();
        self.memory.jobs.create(&TrainingJobSpec { tags, ..example_spec(&name) }).await.unwrap();
        self.memory.jobs.set_status(&name, JobStatus::Completed, SecondaryStatus::Completed);
        let now = self.clock.now();
        self.memory.jobs.change(&name, |job| job.created = Some(now));
    }

    fn approve(&self, number: u32) {
        self.memory.registry.change(&version_arn(number), |version| version.approval = Approval::Approved);
    }
}

fn version_arn(number: u32) -> String {
    format!("arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/{number}")
}

/// Versions 1 to 9, deployments 1 to 8 of `wine`, and candidates, all of them old; then the newest of each.
async fn a_project() -> PruneDesk {
    let desk = PruneDesk::new();
    for number in 1..=9 {
        desk.add_version(number, PROJECT).await;
        desk.add_image(number, &context(number));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for number in 1..=8 {
        desk.add_config("wine", number, PROJECT).await;
        desk.add_deployment("wine", number);
    }
    desk.add_endpoint("wine", 8, PROJECT).await;
    desk.add_alarm("wine", PROJECT).await;
    desk.add_alarm("gone", PROJECT).await;
    desk.add_config("beer", 1, "group/other").await;
    desk.approve(1);
    desk.gitlab.package("wine", "candidate-PR-1-01234567-20261101T000000Z", desk.clock.now());
    desk.gitlab.package("wine", "candidate-PR-2-01234567-20261101T000000Z", desk.clock.now());
    desk.gitlab.package("wine", "stable-20261101T000000Z", desk.clock.now());
    for key in ["candidate/a", PACKAGE, "packages/2/stable-1.zip", "models/1/model.tar.gz"] {
        desk.memory.objects.insert(key, "x");
    }
    desk.add_job(42, 1).await;
    desk.add_job(421, 2).await;
    tokio::time::advance(30 * DAY).await;
    desk.gitlab.package("wine", "candidate-PR-3-01234567-20261201T000000Z", desk.clock.now());
    desk.memory.objects.insert("candidate/b", "x");
    desk.add_job(42, 3).await;
    desk.gitlab.make_release(Release {
        tag: "stable-1".to_owned(),
        name: String::new(),
        commit: String::new(),
        description: format!("`candidate` {}", version_arn(2).replace(':', "\\:")),
        links: vec![crate::gitlab::api::ReleaseLink {
            name: "candidate-PR-2-01234567-20261101T000000Z.zip".to_owned(),
            url: "https://gitlab.example.com/x".to_owned(),
        }],
        url: None,
    });
    desk
}

#[tokio::test(start_paused = true)]
async fn what_nothing_refers_to_goes_and_the_rest_stays() {
    let desk = a_project().await;
    let shown = desk.prune(&["--keep", "3", "--dry-run"]).await;
    assert_eq!((shown.kind, shown.of("configuration", "deleted")), (None, Vec::new()), "{}", shown.error);
    let before =
        (desk.memory.serving.models().len(), desk.memory.registry.all().len(), desk.memory.objects.keys().len());
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    assert_eq!(before.0, 9);
    // Deployments 6 to 8 are kept.
    let gone: Vec<_> = (1..=5).map(|number| config_name("wine", number)).collect();
    assert_eq!(ended.of("configuration", "deleted"), gone);
    assert_eq!(ended.of("model", "deleted").len(), 5);
    let models: Vec<_> = desk.memory.serving.models().into_iter().map(|model| model.name).collect();
    assert_eq!(models, [model_name("beer", 1), model_name("wine", 6), model_name("wine", 7), model_name("wine", 8)]);
    // One is approved, of two a release tells, 6 to 8 are deployed, and 7 to 9 the newest.
    let versions: Vec<_> = desk.memory.registry.all().iter().map(|version| version.number).collect();
    assert_eq!(versions, [1, 2, 6, 7, 8, 9]);
    assert_eq!(ended.rule("/1"), "approved");
    assert_eq!(ended.rule("/2"), "released");
    assert_eq!(ended.rule("/6"), "kept_deployment");
    // The images of versions 3 to 5; that of the manifest is 1.
    let images = desk.memory.account.digests("train");
    assert_eq!(images, [1, 2, 6, 7, 8, 9].map(digest));
    assert_eq!(desk.memory.serving.alarm_names(), ["wine-5xx"]);
    let packages: Vec<_> = desk.gitlab.all_packages().into_iter().map(|(_, version)| version).collect();
    let stay = [
        "candidate-PR-2-01234567-20261101T000000Z",
        "stable-20261101T000000Z",
        "candidate-PR-3-01234567-20261201T000000Z",
    ];
    assert_eq!(packages, stay);
    let keys: Vec<_> = desk.memory.objects.keys().into_iter().filter(|key| !key.starts_with("deployments/")).collect();
    assert_eq!(keys, ["candidate/b", "models/1/model.tar.gz", "packages/2/stable-1.zip"]);
    assert_eq!(desk.memory.jobs.names(), ["gitlab-42-3-00000003", "gitlab-421-2-00000002"]);
    // The dry run told the same.
    for kind in ["alarm", "configuration", "model", "version", "image", "generic_package", "object", "training_job"] {
        assert_eq!(shown.of(kind, "would_be_deleted"), ended.of(kind, "deleted"), "{kind}");
    }
    let again = desk.prune(&["--keep", "3"]).await;
    assert_eq!(
        (again.kind, &again.data["deleted"], &again.data["failed"]),
        (None, &json!(0), &json!(0)),
        "{}",
        again.told
    );
}

#[tokio::test(start_paused = true)]
async fn the_pipeline_of_a_merge_request_shows_alone() {
    let mut desk = a_project().await;
    desk.env.insert("CI_PIPELINE_SOURCE".to_owned(), "merge_request_event".to_owned());
    let shown = desk.prune(&[]).await;
    assert_eq!((&shown.data["dry_run"], &shown.data["deleted"]), (&json!(true), &json!(0)));
    assert!(shown.data["would_be_deleted"].as_u64().unwrap() > 0 && desk.memory.serving.models().len() == 9);
    let ended = desk.prune(&["--dry-run=false"]).await;
    assert!(ended.data["deleted"].as_u64().unwrap() > 0 && desk.memory.serving.models().len() < 9);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_failed_goes_with_what_it_used_and_one_that_serves_stays() {
    let desk = PruneDesk::new();
    for (endpoint, project) in [("wine-a", PROJECT), ("wine-b", PROJECT), ("wine-c", "group/other")] {
        desk.add_config(endpoint, 1, project).await;
    }
    let fails = || EndpointFate::Fails("no".to_owned());
    for endpoint in ["wine-a", "wine-c"] {
        desk.memory.serving.fates([fails()]);
        desk.add_endpoint(endpoint, 1, if endpoint == "wine-c" { "group/other" } else { PROJECT }).await;
    }
    desk.add_endpoint("wine-b", 1, PROJECT).await;
    let scaled = ["wine-a", "wine-b"].map(|endpoint| ScaledVariant {
        endpoint: endpoint.to_owned(),
        variant: "AllTraffic".to_owned(),
        quantity: ScaledQuantity::Instances,
    });
    tokio::time::advance(30 * DAY).await;
    for variant in &scaled {
        desk.memory.serving.register(variant, &ScalableTarget { min: 1, max: 2 }).await.unwrap();
    }
    let ended = desk.prune(&[]).await;
    let left = scaled.map(|variant| desk.memory.serving.scalable_target(&variant).is_some());
    assert_eq!(left, [false, true]);
    assert!(desk.memory.serving.calls().contains(&"deregister endpoint/wine-a/variant/AllTraffic".to_owned()));
    assert_eq!((ended.kind, ended.of("endpoint", "deleted")), (None, vec!["wine-a".to_owned()]), "{}", ended.told);
    assert_eq!(desk.memory.serving.endpoint_names(), ["wine-b", "wine-c"]);
    assert_eq!(ended.of("model", "deleted"), [model_name("wine-a", 1)]);
    assert_eq!(ended.rule("wine-b"), "in_service");
    desk.manifest(|manifest| manifest["environments"]["dev"]["tier"] = "production".into());
    let desk_of_production = PruneDesk::new();
    desk_of_production.manifest(|manifest| manifest["environments"]["dev"]["tier"] = "production".into());
    desk_of_production.add_config("wine-a", 1, PROJECT).await;
    desk_of_production.memory.serving.fates([fails()]);
    desk_of_production.add_endpoint("wine-a", 1, PROJECT).await;
    tokio::time::advance(30 * DAY).await;
    let ended = desk_of_production.prune(&[]).await;
    assert_eq!((ended.rule("wine-a"), &ended.data["deleted"]), ("protected_environment".to_owned(), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_what_it_may_refer_to() {
    for (method, on) in [("listing", "serving"), ("page", "objects"), ("versions", "registry"), ("releases", "gitlab")]
    {
        let desk = a_project().await;
        let fault = Fault::new(method, 1, When::Before, CloudErrorKind::Denied).forever();
        match on {
            "serving" => desk.memory.serving.plan([fault]),
            "objects" => desk.memory.objects.plan([fault]),
            "registry" => desk.memory.registry.plan([fault]),
            _ => desk.gitlab.plan([fault]),
        }
        let ended = desk.prune(&[]).await;
        assert_eq!(ended.kind, Some(Kind::System), "{method}");
        if ["serving", "objects"].contains(&on) {
            assert_eq!(desk.memory.serving.models().len(), 9, "{method}: {}", ended.data);
        }
        assert_eq!(desk.memory.account.digests("train").len(), 9, "{method}");
        if on != "registry" {
            assert_eq!(desk.memory.registry.all().len(), 9, "{method}");
        }
        // The rest goes on.
        assert_eq!(desk.memory.jobs.names().len(), if on == "registry" { 3 } else { 2 }, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_end_the_rest_and_what_is_throttled_stays_for_the_next_run() {
    let desk = a_project().await;
    let denied = Fault::new("delete_config", 2, When::Before, CloudErrorKind::Denied);
    let throttled = Fault::new("delete_model", 1, When::Before, CloudErrorKind::Throttled);
    desk.memory.serving.plan([denied, throttled]);
    let ended = desk.prune(&["--keep", "3"]).await;
    assert_eq!((ended.kind, ended.of("configuration", "failed").len()), (Some(Kind::System), 1), "{}", ended.error);
    // Its model stays with it. That which was throttled once goes in a later turn.
    assert_eq!((ended.of("configuration", "deleted").len(), ended.of("model", "deleted").len()), (4, 4));
    let again = desk.prune(&["--keep", "3"]).await;
    assert_eq!(
        (again.kind, again.of("configuration", "deleted").len(), again.of("model", "deleted").len()),
        (None, 1, 1)
    );
    let desk = a_project().await;
    desk.memory.jobs.plan([Fault::new("delete_job", 1, When::Before, CloudErrorKind::Throttled).forever()]);
    let ended = desk.prune(&[]).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: exit_codes::TRY_LATER }), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_project_deletes_nothing() {
    let mut desk = a_project().await;
    desk.env.remove("CI_PROJECT_PATH");
    let ended = desk.prune(&[]).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("`CI_PROJECT_PATH`"), "{}", ended.error);
    assert_eq!(desk.memory.made(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_bucket_without_a_prefix_keeps_packages_that_may_be_of_others() {
    let desk = a_project().await;
    desk.manifest(|manifest| drop(manifest["environments"]["dev"].as_object_mut().unwrap().remove("prefix")));
    let ended = desk.prune(&[]).await;
    assert_eq!(ended.rule(PACKAGE), "shared_bucket");
    assert_eq!((ended.rule("candidate/a"), ended.of("object", "deleted")), ("shared_bucket".to_owned(), Vec::new()));
}
