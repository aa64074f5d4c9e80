//! Random images, packages and objects, which others name in random ways.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{DAY, PROJECT, PruneDesk, context, digest, image, version_arn};
use crate::base::clock::Clock as _;
use crate::cloud::testing::{example_model, example_spec};
use crate::cloud::{
    ModelEndpoints as _, ModelSource, RepositoryImage, ServedModel, TrainingJobSpec, TrainingJobs as _,
};
use crate::config::env::short_or_long;
use crate::gitlab::api::{Release, ReleaseLink};

/// The user of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Named {
    Nobody,
    /// The text of a release, by its digest or by its tag.
    Release,
    ReleaseByTag,
    /// A model of another project, by digest or by tag.
    Model,
    ModelByTag,
    /// The second container of a version of another project.
    Version,
    /// A training job that runs.
    Job,
    /// A person gave it another tag.
    Person,
}

/// The user of a candidate, in GitLab or in the bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Nobody,
    Text,
    LinkName,
    LinkAddress,
    /// A version has the SHA-256 of the package.
    Version,
}

#[derive(Debug, Clone)]
struct World {
    images: Vec<(Named, bool)>,
    /// Each with its user, and whether it is young. Those of GitLab and those of the bucket have the same user.
    candidates: Vec<(Told, bool)>,
    /// Names below `candidate/`, and whether each is young.
    objects: Vec<(&'static str, bool)>,
}

fn world() -> impl Strategy<Value = World> {
    use Named::{Job, Model, ModelByTag, Nobody, Person, Release, ReleaseByTag, Version};
    let named =
        prop::sample::select(vec![Nobody, Nobody, Release, ReleaseByTag, Model, ModelByTag, Version, Job, Person]);
    let told = prop::sample::select(vec![
        Told::Nobody,
        Told::Nobody,
        Told::Text,
        Told::LinkName,
        Told::LinkAddress,
        Told::Version,
    ]);
    let name = prop::sample::select(vec![
        "a",
        "b/c",
        "models/1/model.tar.gz",
        "x/deployments/wine/1.json",
        "packages/1/a.zip",
    ]);
    let young = || prop::bool::weighted(0.2);
    let images = prop::collection::vec((named, young()), 0..10);
    let candidates = prop::collection::vec((told, young()), 0..6);
    (images, candidates, prop::collection::vec((name, young()), 0..6)).prop_map(|(images, candidates, objects)| World {
        images,
        candidates,
        objects,
    })
}

fn candidate(number: usize) -> String {
    format!("candidate-PR-{number}-01234567-20261101T000000Z")
}

fn sha256(number: usize) -> String {
    format!("{number:064x}")
}

fn package(number: usize) -> String {
    format!("packages/{}/{}.zip", sha256(number), candidate(number))
}

fn release(desk: &PruneDesk, tag: String, description: String, links: Vec<(String, String)>) {
    let links = links.into_iter().map(|(name, url)| ReleaseLink { name, url }).collect();
    desk.gitlab.make_release(Release {
        tag,
        name: String::new(),
        commit: String::new(),
        description,
        links,
        url: None,
    });
}

/// Stores the images that are young, or those that are not; returns the names of those that stay.
fn store(desk: &PruneDesk, world: &World, young: bool) -> BTreeSet<String> {
    let mut stay = BTreeSet::new();
    let used = Some(desk.clock.now());
    for (at, (named, is_young)) in world.images.iter().enumerate().filter(|(_, (_, is_young))| *is_young == young) {
        let number = u32::try_from(at + 1).unwrap();
        let mut tags = vec![context(number)];
        tags.extend((*named == Named::Person).then(|| "v1".to_owned()));
        let stored = RepositoryImage { digest: digest(number), tags, is_index: false, used };
        desk.memory.account.store_image("train", stored);
        if *is_young || *named != Named::Nobody {
            stay.insert(digest(number));
        }
    }
    for (at, (told, _)) in world.candidates.iter().enumerate().filter(|(_, (_, is_young))| *is_young == young) {
        desk.gitlab.package("wine", &candidate(at), desk.clock.now());
        desk.memory.objects.insert(&package(at), "x");
        // The SHA-256 of a version names the object alone.
        if young || ![Told::Nobody, Told::Version].contains(told) {
            stay.insert(candidate(at));
        }
        if young || *told != Told::Nobody {
            stay.insert(package(at));
        }
    }
    for (name, _) in world.objects.iter().filter(|(_, is_young)| *is_young == young) {
        let key = format!("candidate/{name}");
        desk.memory.objects.insert(&key, "x");
        let is_nested = name.contains("models/") || name.contains("deployments/") || name.contains("packages/");
        // The same name may come twice, the second time young.
        if young || is_nested {
            stay.insert(key);
        }
    }
    stay
}

/// Lets the users name what they use.
async fn name(desk: &PruneDesk, world: &World) {
    let repository = image(0).split('@').next().unwrap().to_owned();
    let mut versions = 0;
    for (at, (named, _)) in world.images.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap();
        let by_tag = format!("{repository}:{}", context(number));
        let model = |image: String| {
            let source = ModelSource::Container { image, model_data_url: None };
            ServedModel { source, ..example_model(&format!("other-{number}")) }
        };
        match named {
            Named::Nobody | Named::Person => {}
            Named::Release => release(desk, format!("v{number}"), format!("image `{}`.", digest(number)), Vec::new()),
            Named::ReleaseByTag => release(desk, format!("v{number}"), format!("image {by_tag}"), Vec::new()),
            Named::Model => desk.memory.serving.create_model(&model(image(number))).await.unwrap(),
            Named::ModelByTag => desk.memory.serving.create_model(&model(by_tag)).await.unwrap(),
            Named::Version => {
                versions += 1;
                desk.add_version(versions, "group/other").await;
                desk.memory.registry.change(&version_arn(versions), |version| {
                    version.image = image(0);
                    version.images = vec![image(0), image(number)];
                });
            }
            Named::Job => {
                let spec = TrainingJobSpec { image: image(number), ..example_spec(&format!("other-{number}")) };
                desk.memory.jobs.create(&spec).await.unwrap();
            }
        }
    }
    for (at, (told, _)) in world.candidates.iter().enumerate() {
        let (tag, address) =
            (format!("c{at}"), format!("https://g/generic/wine/{}/x", candidate(at).replace('-', "%2D")));
        match told {
            Told::Nobody => {}
            Told::Text => release(desk, tag, format!("of `{}`", candidate(at)), Vec::new()),
            Told::LinkName => release(desk, tag, String::new(), vec![(candidate(at) + ".zip", "https://g".to_owned())]),
            Told::LinkAddress => release(desk, tag, String::new(), vec![("The model".to_owned(), address)]),
            Told::Version => {
                versions += 1;
                desk.add_version(versions, PROJECT).await;
                desk.memory.registry.change(&version_arn(versions), |version| {
                    (version.image, version.images) = (image(0), Vec::new());
                    version.approval = crate::cloud::Approval::Approved;
                    version.metadata.insert("package-sha256".to_owned(), sha256(at));
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(short_or_long(60, 600)))]

    #[test]
    fn what_anybody_names_stays_and_the_rest_goes(world in world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let desk = PruneDesk::new();
            desk.manifest(|manifest| manifest["model"]["image"] = image(0).into());
            let mut stay = store(&desk, &world, false);
            name(&desk, &world).await;
            tokio::time::advance(30 * DAY).await;
            stay.extend(store(&desk, &world, true));
            // The newest image stays too.
            desk.add_image(99, &context(99));
            stay.insert(digest(99));
            let ended = desk.prune(&["--keep", "1"]).await;
            prop_assert_eq!(ended.kind, None, "{}", ended.error);
            let packages = desk.gitlab.all_packages().into_iter().map(|(_, version)| version);
            let there: BTreeSet<_> = desk.memory.account.digests("train").into_iter().chain(packages).collect();
            let there: BTreeSet<_> = there.into_iter().chain(desk.memory.objects.keys()).collect();
            prop_assert_eq!(there, stay, "{}", ended.data);
            Ok(())
        })?;
    }
}
