//! Random worlds, and the number of calls in a large one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{DAY, PROJECT, PruneDesk, config_name, context, digest, image, model_name, version_arn};
use crate::cloud::testing::{EndpointFate, example_config, example_model};
use crate::cloud::{GroupSpec, ModelEndpoints as _, ModelRegistry as _, VersionSpec};
use crate::config::env::short_or_long;

/// An endpoint with configurations 1 to `configs`; the last one is in service.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a coin of the random world")]
struct WorldEndpoint {
    configs: u32,
    /// Of another project.
    is_foreign: bool,
    has_failed: bool,
    /// It was never made.
    is_absent: bool,
    has_ledger: bool,
    is_young: bool,
}

fn endpoint() -> impl Strategy<Value = WorldEndpoint> {
    let rarely = || prop::bool::weighted(0.2);
    (1..7_u32, any::<bool>(), rarely(), rarely(), any::<bool>(), rarely()).prop_map(
        |(configs, is_foreign, has_failed, is_absent, has_ledger, is_young)| WorldEndpoint {
            configs,
            is_foreign,
            has_failed,
            is_absent,
            has_ledger,
            is_young,
        },
    )
}

#[derive(Debug, Clone)]
struct World {
    endpoints: Vec<WorldEndpoint>,
    /// Tells whether each version is approved, and whether it is of another project.
    versions: Vec<(bool, bool)>,
    images: u32,
    keep: u32,
}

fn world() -> impl Strategy<Value = World> {
    let versions = prop::collection::vec((any::<bool>(), any::<bool>()), 0..12);
    (prop::collection::vec(endpoint(), 0..6), versions, 0..8_u32, 1..4_u32)
        .prop_map(|(endpoints, versions, images, keep)| World { endpoints, versions, images, keep })
}

/// Makes the endpoints that are young, or those that are not.
async fn make(desk: &PruneDesk, world: &World, young: bool) {
    for (number, one) in world.endpoints.iter().enumerate().filter(|(_, one)| one.is_young == young) {
        let (name, project) = (format!("wine-{number}"), if one.is_foreign { "group/other" } else { PROJECT });
        for config in 1..=one.configs {
            desk.add_config(&name, config, project).await;
            if one.has_ledger {
                desk.add_deployment(&name, config);
            }
        }
        desk.add_alarm(&name, project).await;
        if !one.is_absent {
            desk.memory.serving.fates(one.has_failed.then(|| EndpointFate::Fails("no".to_owned())));
            desk.add_endpoint(&name, one.configs, project).await;
        }
    }
}

/// The world, and the names that must be there after the run: of others, untagged, in use, kept, approved or young.
async fn build(world: &World) -> (PruneDesk, BTreeSet<String>) {
    let desk = PruneDesk::new();
    let mut stay = BTreeSet::new();
    for (at, (is_approved, is_foreign)) in world.versions.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap();
        desk.add_version(number, if *is_foreign { "group/other" } else { PROJECT }).await;
        if *is_approved {
            desk.approve(number);
        }
        let is_newest = world.versions.len() - at <= world.keep as usize;
        if *is_approved || *is_foreign || is_newest {
            stay.insert(version_arn(number));
        }
    }
    for number in 1..=world.images {
        let is_built = number % 2 == 0;
        desk.add_image(number, &if is_built { context(number) } else { "v1".to_owned() });
        if !is_built {
            stay.insert(digest(number));
        }
    }
    // Somebody else's, with the same form and without a tag.
    let (model, config) = (model_name("other", 1), config_name("other", 1));
    desk.memory.serving.create_model(&example_model(&model)).await.unwrap();
    desk.memory.serving.create_config(&example_config(&config, &model)).await.unwrap();
    stay.extend([model, config]);
    make(&desk, world, false).await;
    tokio::time::advance(30 * DAY).await;
    make(&desk, world, true).await;
    for (number, one) in world.endpoints.iter().enumerate() {
        add_staying(&mut stay, world, one, &format!("wine-{number}"));
    }
    (desk, stay)
}

fn add_staying(stay: &mut BTreeSet<String>, world: &World, one: &WorldEndpoint, name: &str) {
    let goes = one.has_failed && !one.is_foreign && !one.is_young;
    let exists = !one.is_absent && !goes;
    if exists {
        stay.insert(name.to_owned());
    }
    for config in 1..=one.configs {
        // That before the newest is what a rollback takes.
        let is_kept = exists && one.has_ledger && one.configs - config < world.keep.max(2);
        let is_used = exists && config == one.configs;
        if one.is_foreign || one.is_young || is_kept || is_used {
            stay.extend([config_name(name, config), model_name(name, config)]);
            stay.extend((world.versions.len() >= config as usize).then(|| version_arn(config)));
        }
    }
    if one.is_foreign || one.is_young || exists {
        stay.insert(format!("{name}-5xx"));
    }
}

fn there(desk: &PruneDesk) -> BTreeSet<String> {
    let serving = &desk.memory.serving;
    let models = serving.models().into_iter().map(|one| one.name);
    let configs = serving.all_configs().into_iter().map(|one| one.name);
    let versions = desk.memory.registry.all().into_iter().map(|one| one.arn);
    let images = desk.memory.account.digests("train");
    let names = serving.endpoint_names().into_iter().chain(serving.alarm_names());
    models.chain(configs).chain(versions).chain(images).chain(names).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(short_or_long(40, 400)))]

    #[test]
    fn nothing_of_others_untagged_or_in_use_is_touched(world in world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (desk, stay) = build(&world).await;
            let keep = world.keep.to_string();
            let ended = desk.prune(&["--keep", &keep]).await;
            prop_assert_eq!(ended.kind, None, "{}", ended.error);
            let there = there(&desk);
            let lost: Vec<_> = stay.difference(&there).collect();
            prop_assert!(lost.is_empty(), "{:?}: {}", lost, ended.data);
            let again = desk.prune(&["--keep", &keep]).await;
            prop_assert_eq!(&again.data["deleted"], 0);
            Ok(())
        })?;
    }
}

/// All calls so far.
fn calls(desk: &PruneDesk) -> usize {
    let memory = &desk.memory;
    let of_aws = [memory.serving.calls(), memory.registry.calls(), memory.objects.calls(), memory.account.calls()];
    of_aws.iter().chain(&[memory.jobs.calls(), desk.gitlab.calls()]).map(Vec::len).sum()
}

/// Makes a version of another group of the account, which has this image and the model of this training job.
async fn add_foreign(desk: &PruneDesk, number: u32, trained: &str) {
    let group = GroupSpec { name: "beer".to_owned(), description: None, tags: BTreeMap::new() };
    let _ = desk.memory.registry.create_group(&group).await;
    let spec = VersionSpec {
        group: "beer".to_owned(),
        client_token: format!("beer-{number}"),
        description: String::new(),
        image: image(number),
        model_data_url: format!("s3://others/{trained}/output/model.tar.gz"),
        ..desk.memory.registry.requests().last().unwrap().clone()
    };
    desk.memory.registry.create_version(&spec).await.unwrap();
}

/// A run in which nothing may go asks for no version of others; one in which something may go asks for each once.
#[tokio::test(start_paused = true)]
async fn versions_of_others_are_read_once_and_when_they_matter_alone() {
    let desk = PruneDesk::new();
    desk.add_version(1, PROJECT).await;
    for number in 1..=50 {
        add_foreign(&desk, number, if number == 9 { "gitlab-42-1-00000001" } else { "none" }).await;
    }
    desk.memory.objects.insert("candidate/a", "x");
    tokio::time::advance(30 * DAY).await;
    let asked = async |words: &[&str]| {
        desk.memory.registry.plan([]);
        let ended = desk.prune(words).await;
        assert_eq!(ended.kind, None, "{}", ended.error);
        let lists = desk.memory.registry.count("all_versions");
        (ended, lists.min(1), desk.memory.registry.count("version"))
    };
    // The own version alone; an object below `candidate/` is no version's.
    let (ended, lists, reads) = asked(&[]).await;
    assert_eq!((ended.of("object", "deleted").len(), lists, reads), (1, 0, 1), "{}", ended.data);
    // Images and jobs that are young, or among the newest, go in no case.
    // The last one is the newest.
    for number in [51, 50, 49] {
        desk.add_image(number, &context(number));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    desk.add_job(42, 1).await;
    desk.add_job(42, 2).await;
    let (ended, lists, reads) = asked(&["--keep", "1"]).await;
    assert_eq!((&ended.data["deleted"], lists, reads), (&0.into(), 0, 1), "{}", ended.data);
    tokio::time::advance(30 * DAY).await;
    let (ended, lists, reads) = asked(&["--keep", "1"]).await;
    assert_eq!((lists, reads), (1, 51), "{}", ended.data);
    assert_eq!(ended.rule(&digest(50)), "referred_to", "{}", ended.data);
    assert_eq!(ended.rule("gitlab-42-1-00000001"), "referred_to", "{}", ended.data);
    assert_eq!(ended.of("training_job", "deleted"), ["gitlab-42-2-00000002"]);
    assert_eq!(ended.of("image", "deleted"), [digest(51)]);
    // A thing that stays because of others may go until they were asked: it is in the next run too.
    let (ended, lists, reads) = asked(&["--keep", "1"]).await;
    assert_eq!((&ended.data["deleted"], lists, reads), (&0.into(), 1, 51), "{}", ended.data);
}

/// Five thousand things: 40 endpoints with 50 configurations and models each, versions, candidates and training jobs.
#[tokio::test(start_paused = true)]
async fn five_thousand_things_need_hardly_more_than_the_fewest_calls() {
    let desk = PruneDesk::new();
    let (endpoints, configs, versions, jobs) = (40, 50, 300, 400);
    for number in 1..=versions {
        desk.add_version(number, PROJECT).await;
    }
    for endpoint in 0..endpoints {
        let name = format!("wine-{endpoint}");
        for config in 1..=configs {
            desk.add_config(&name, config, PROJECT).await;
            desk.add_deployment(&name, config);
        }
        desk.add_endpoint(&name, configs, PROJECT).await;
    }
    for number in 1..=jobs {
        desk.add_job(42, number).await;
    }
    for number in 1..=300 {
        desk.memory.objects.insert(&format!("candidate/{number}"), "x");
    }
    tokio::time::advance(30 * DAY).await;
    let before = calls(&desk);
    let ended = desk.prune(&[]).await;
    let made = calls(&desk) - before;
    assert_eq!((ended.kind, &ended.data["failed"]), (None, &0.into()), "{}", ended.error);
    let deleted = ended.data["deleted"].as_u64().unwrap();
    assert!(deleted > 4500, "{deleted}");
    let gone = |kind: &str| ended.of(kind, "deleted").len();
    // The owner of each thing is looked at once, and each is deleted once; objects a thousand at a time.
    let owned = 2 * (gone("configuration") + gone("model") + gone("version") + gone("training_job")) + 1;
    // Counts of what stays: the owner of each endpoint, and what it uses; the six deployments that are kept, in two objects each, of its record; the
    // models and versions.
    let staying = 40 * (1 + 3) + 40 * (1 + 2 * 6) + 2 * (40 * 50 - gone("model")) + (300 - gone("version"));
    // Pages of the records and of the versions, and the other lists.
    let fewest = owned + staying + 40 * 50 * 2 / 1000 + 300 / 100 + 10;
    assert!(made * 10 <= fewest * 13, "{made} calls for {deleted} things, {fewest} at least");
}
