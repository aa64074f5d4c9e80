//! The demonstration `codebuild`: an image for each client, product and version, built in CodeBuild, and a training in each; a second push of
//! the same files builds nothing.

use serde_json::{Value, json};

use super::event::{Event, MAIN_PROJECT};
use super::example::project;
use super::pipeline::Pipeline;
use super::schedule::JobState;
use super::site::{BUILD_IMAGE, Project, ProjectVariable, STAGING_ROLE, Site, build_role};
use super::training::commit;
use super::{play_named, show};
use crate::conformance::skipped;
use crate::support::images::{create_repository, images, missing_builder, push_base};
use crate::support::job::Variable;

/// The name that the policies have, and the repository of images.
const NAME: &str = "example-demand";
const REPOSITORY: &str = "example-demand-training";
/// The folder that the README makes.
const FOLDER: &str = "demand";
/// Jobs by the end of their names, with client, product and version.
const MODELS: [(&str, [&str; 3]); 3] = [
    ("a-demand-1", ["example-a", "demand", "1"]),
    ("a-demand-2", ["example-a", "demand", "2"]),
    ("b-returns-1", ["example-b", "returns", "1"]),
];

/// The calls of the jobs' role so far.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    builds_started: u64,
    objects_sent: u64,
}

fn done(site: &Site) -> Done {
    let decided = site.emulator().decided_of(&format!("arn:aws:iam::000000000000:role/{STAGING_ROLE}"));
    let number = |action: &str| decided["allowed"][action].as_u64().unwrap_or_default();
    assert_eq!(decided["denied"], json!({}));
    Done { builds_started: number("codebuild:StartBuild"), objects_sent: number("s3:PutObject") }
}

fn pushed<'a>(site: &'a Site, variables: &'a [ProjectVariable], sha: &str) -> Pipeline<'a> {
    let (repository, environments) = (&site.repository, &site.environments);
    let project = Project { name: MAIN_PROJECT, repository, variables, environments };
    let mut pipeline = site.pipeline_of(project, &Event::Push { branch: "main" }, sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    pipeline
}

fn whole(site: &Site) {
    let folder = tempfile::tempdir().unwrap();
    let base = push_base(site.emulator(), folder.path());
    create_repository(site.emulator(), REPOSITORY, "IMMUTABLE");
    let files = project("codebuild", FOLDER);
    let of_build = [("BASE_IMAGE", base.as_str()), ("BUILD_IMAGE", BUILD_IMAGE), ("BUILD_ROLE_ARN", &build_role())];
    let of_build = of_build.map(|(name, value)| ProjectVariable { variable: Variable::new(name, value), scope: "*" });
    let variables: Vec<_> = site.variables.iter().cloned().chain(of_build).collect();
    let first = pushed(site, &variables, &commit(site, "main", &files));
    let after_first = done(site);
    assert_eq!(after_first, Done { builds_started: 3, objects_sent: 1 }, "one source for all");
    let mut rows = Vec::new();
    for (name, [client, product, version]) in MODELS {
        let build = first.job(&format!("{name}-image-build"));
        build.outcome.shows(&format!("Created the CodeBuild project {client}-{product}-{version}"));
        let image = build.variable("IMAGE_URI").to_owned();
        assert!(image.contains("@sha256:"), "{image}");
        let result: Value = serde_json::from_slice(&first.job(&format!("{name}-train")).file("result.json")).unwrap();
        assert_eq!(result, json!({"client": client, "product": product, "version": version}));
        rows.push([format!("{client}, {product}, {version}"), image]);
    }
    let of_first = images(site.emulator(), REPOSITORY);

    let second = pushed(site, &variables, &commit(site, "main", &[]));
    for (name, _) in MODELS {
        let build = second.job(&format!("{name}-image-build"));
        build.outcome.shows("nothing is sent, and nothing is built");
        assert_eq!(build.variable("IMAGE_URI"), first.job(&format!("{name}-image-build")).variable("IMAGE_URI"));
        second.job(&format!("{name}-train")).outcome.shows("\"client\"");
    }
    assert_eq!(done(site), after_first);
    // A tag of the second pipeline for each image.
    assert_eq!(images(site.emulator(), REPOSITORY).len(), of_first.len() + MODELS.len());
    rows.push(["second push of the same files".to_owned(), "0 StartBuild, 0 bytes sent".to_owned()]);
    show::table("what exists", &rows);
}

#[test]
#[ignore = "takes half a minute of the machine: `.ci/demo codebuild` runs it"]
fn codebuild_demonstration() {
    if let Some(missing) = missing_builder() {
        return skipped("codebuild_demonstration", missing);
    }
    play_named("codebuild_demonstration", NAME, whole);
}
