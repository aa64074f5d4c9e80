//! The project's own `.gitlab-ci.yml`: the jobs of each kind of pipeline, GitLab's schema, and the scripts that its jobs call. No job runs.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use super::compiler::{Compiler, Project};
use super::lint::jobs;
use super::yaml::{all_texts, documents, texts};
use crate::conformance::{shown, skipped};
use crate::docs::packages::packages;
use crate::docs::{read, root};
use crate::support::waiting::find_program;

const PIPELINE: &str = ".gitlab-ci.yml";
const TAG: [(&str, &str); 2] = [("CI_COMMIT_BRANCH", ""), ("CI_COMMIT_TAG", "v0.1.0")];
const SIGNED: [(&str, &str); 3] = [TAG[0], TAG[1], ("COSIGN_IMAGE", "cosign")];

/// Name, variables and jobs of a pipeline.
type Kind = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Kinds of pipelines with the variables that GitLab sets in them, besides those of a push to `main`, and their jobs.
const KINDS: [Kind; 7] = [
    ("main", &[], "clippy format package sbom test"),
    ("branch with a merge request", &[("CI_COMMIT_BRANCH", "topic"), ("CI_OPEN_MERGE_REQUESTS", "ml/x!7")], ""),
    ("merge request", &[("CI_PIPELINE_SOURCE", "merge_request_event"), ("CI_COMMIT_BRANCH", "")], "clippy format test"),
    ("tag of a version", &TAG, "clippy format notes package publish release sbom test"),
    ("tag of a version, signed", &SIGNED, "clippy format notes package publish release sbom sign test"),
    ("another tag", &[("CI_COMMIT_BRANCH", ""), ("CI_COMMIT_TAG", "v0.1")], ""),
    ("schedule", &[("CI_PIPELINE_SOURCE", "schedule")], "advisories"),
];
/// A job with the rules of the workflow: the compiler knows rules of jobs alone.
const WORKFLOW: &str = "this-pipeline";

fn pipeline() -> Value {
    documents(&read(PIPELINE), PIPELINE).remove(0)
}

#[test]
fn each_kind_of_pipeline_has_the_jobs_of_the_project() {
    let Some(compiler) = Compiler::find("each_kind_of_pipeline_has_the_jobs_of_the_project") else { return };
    compiler.check_schema(&[root().join(PIPELINE)]);
    let project = Project::new(&compiler, &[]);
    let mut whole = pipeline();
    whole[WORKFLOW] = json!({"stage": "lint", "script": ["true"], "rules": whole["workflow"]["rules"]});
    let text = whole.to_string();
    for (kind, of_kind, expected) in KINDS {
        let mut variables = BTreeMap::from([
            ("CI_PIPELINE_SOURCE", "push"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_DEFAULT_BRANCH", "main"),
        ]);
        variables.extend(of_kind.iter().copied());
        let listed = project.jobs(&text, &variables);
        let mut names: Vec<_> = listed.iter().filter(|job| job.when != "never").map(|job| job.name.as_str()).collect();
        names.sort_unstable();
        let runs = names.iter().position(|name| *name == WORKFLOW).map(|at| names.remove(at)).is_some();
        names.retain(|_| runs);
        assert_eq!(names.join(" "), expected, "{kind}: {listed:?}");
        // A release has what the gate passed, and what was signed where it is.
        if let Some(publish) = listed.iter().find(|job| names.contains(&"publish") && job.name == "publish") {
            let mut needs = publish.needs.clone();
            needs.retain(|job| ["test", "package", "sign", "notes"].contains(&job.as_str()));
            assert_eq!(needs.len(), 3 + usize::from(expected.contains("sign")), "{kind}: {publish:?}");
        }
    }
}

/// Images come by variables, so that a private registry has them all, and a digest of its choice.
#[test]
fn the_pipeline_names_no_image_and_no_host() {
    let pipeline = pipeline();
    let image = |entry: &Value| entry["name"].as_str().or(entry.as_str()).map(str::to_owned);
    let mut images: Vec<_> = jobs(pipeline.as_object().unwrap()).filter_map(|(_, job)| image(&job["image"])).collect();
    images.extend(image(&pipeline["default"]["image"]));
    images.sort();
    assert_eq!(images, ["$COSIGN_IMAGE", "$RELEASE_IMAGE", "$RUST_IMAGE"]);
    let text = read(PIPELINE);
    for image in images {
        assert!(text.contains(&format!("#   {} ", &image[1..])), "{image} is explained at the top");
    }
    for forbidden in ["://", "latest", "registry."] {
        assert!(!all_texts(&pipeline).iter().any(|text| text.contains(forbidden)), "{forbidden}");
    }
}

/// Files of an earlier job beside those of the commit would make packages of `-dirty`; git does not look into `target`.
#[test]
fn artifacts_leave_the_checkout_as_it_is() {
    let pipeline = pipeline();
    let mut found = 0;
    for (name, job) in jobs(pipeline.as_object().unwrap()) {
        let artifacts = &job["artifacts"];
        let reports = artifacts["reports"].as_object().into_iter().flat_map(|reports| reports.values());
        for path in std::iter::once(&artifacts["paths"]).chain(reports).flat_map(texts) {
            found += 1;
            assert!(path.starts_with("target/"), "{name}: {path}");
        }
    }
    assert!(found > 8, "{found}");
}

/// Each link of the release is a file that the packages have, by the names that `.ci/package` and its tools give.
#[test]
fn links_of_the_release_are_files_of_the_packages() {
    let pipeline = pipeline();
    let links = pipeline["release"]["release"]["assets"]["links"].as_array().unwrap();
    let place = "$CI_API_V4_URL/projects/$CI_PROJECT_ID/packages/generic/sagemaker-executor/$VERSION/";
    let mut files: Vec<_> =
        links.iter().map(|link| link["url"].as_str().unwrap().strip_prefix(place).unwrap()).collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [
            "SHA256SUMS",
            "sagemaker-executor-$VERSION-1.x86_64.rpm",
            "sagemaker-executor-$VERSION-x86_64-unknown-linux-gnu.tar.gz",
            "sagemaker-executor-$VERSION.cdx.json",
            "sagemaker-executor-with-emulator-$VERSION-x86_64-unknown-linux-gnu.tar.gz",
            "sagemaker-executor_$VERSION-1_amd64.deb",
            "sagemaker_executor-$VERSION-py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64.whl",
        ]
    );
    // The packages of a run, where there are some; a signature is made by the pipeline alone.
    if let Some(folder) = packages() {
        for file in files {
            let file = file.replace("$VERSION", env!("CARGO_PKG_VERSION"));
            assert!(folder.join(&file).is_file(), "{file}");
        }
    }
}

#[test]
fn the_pipeline_calls_scripts_that_are_there() {
    let pipeline = pipeline();
    let script = Regex::new(r"(?m)(?:^|\s|/)(\.ci/[a-z]+)\b").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut called, mut files) = (Vec::new(), Vec::new());
    for (name, job) in jobs(pipeline.as_object().unwrap()).filter(|(name, _)| !name.starts_with('.')) {
        let lines = texts(&job["script"]).join("\n");
        assert!(!lines.is_empty(), "{name}");
        called.extend(script.captures_iter(&lines).map(|found| found[1].to_owned()));
        files.push(folder.path().join(format!("{name}.sh")));
        std::fs::write(files.last().unwrap(), lines + "\n").unwrap();
    }
    called.sort();
    called.dedup();
    assert!(called.len() > 6, "{called:?}");
    for name in &called {
        let mode = std::fs::metadata(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}")).permissions();
        assert_eq!(mode.mode() & 0o111, 0o111, "{name} is executable");
    }
    let Some(shellcheck) = find_program("shellcheck") else {
        return skipped("the scripts of the pipeline", "no shellcheck");
    };
    files.extend(called.iter().map(|name| root().join(name)));
    let checked = Command::new(shellcheck).args(["--shell", "bash"]).args(&files).output().unwrap();
    assert!(checked.status.success(), "{}", shown(&checked));
}
