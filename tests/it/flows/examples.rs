//! The projects of `docs/examples`, without their pipelines: they are what their READMEs say, and pass their own checks. `.ci/demo` runs
//! the pipelines.

use std::path::Path;
use std::process::{Command, Output};

use super::example::{changed, made};
use super::site::files_below;
use crate::conformance::{shown, skipped};
use crate::scenarios::sagemaker_registered::with_scikit_learn;
use crate::support::gitlab_api::{GitLabDouble, JOB_TOKEN, PROJECT_PATH};
use crate::support::program::executor;
use crate::support::waiting::find_program;
use crate::templates::examples::has_inputs_that_exist;

/// Each example with the projects that its README makes.
const PROJECTS: [(&str, &[&str]); 5] = [
    ("candidate-to-stable", &["wine"]),
    ("codebuild", &["demand"]),
    ("govcloud", &["churn"]),
    ("promotion", &["wine", "wine-production"]),
    ("retail", &["retail"]),
];

/// Runs the program, or another one, in a project.
fn run(project: &Path, program: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(program);
    program.args(arguments).current_dir(project).env_clear().env("PATH", "/usr/bin:/bin");
    program.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
}

#[test]
fn the_examples_have_manifests_and_pipelines_without_mistakes() {
    for (example, names) in PROJECTS {
        let folder = made(example);
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut found: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, names, "{example}");
        for name in names {
            let project = folder.path().join(name);
            let ended = run(&project, executor(), &["validate"]);
            assert!(ended.status.success(), "{example}: {name}: {}", shown(&ended));
            let pipeline = std::fs::read_to_string(project.join(".gitlab-ci.yml")).unwrap();
            has_inputs_that_exist(&pipeline, &format!("{example}: {name}"));
            let readme = std::fs::read_to_string(project.join("README.md")).unwrap();
            let told = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/demo")).unwrap();
            assert!(readme.contains(&format!(".ci/demo {example}")) && told.contains(&format!("    {example}) test=")));
        }
    }
}

/// The model passes the gate, the worse one does not, and no metric sees what is wrong with the other two.
#[test]
fn the_gate_of_retail_refuses_the_worse_model_alone() {
    let Some(python) = with_scikit_learn() else {
        return skipped("the gate of retail", "python3 has no scikit-learn");
    };
    let folder = made("retail");
    let project = folder.path().join("retail");
    let files = files_below(&project, "");
    let ended =
        run(&project, &python, &["-W", "error", "-m", "unittest", "discover", "--start-directory", "tests/unit"]);
    assert!(ended.status.success(), "{}", shown(&ended));
    for (from, to, code) in super::retail::CHANGES {
        let change = changed(&files, "training_script.py", from, to);
        std::fs::write(project.join("training_script.py"), &change[0].1).unwrap();
        let ended = run(&project, &python, &["training_script.py"]);
        assert!(ended.status.success(), "{to}: {}", shown(&ended));
        let gate = run(&project, executor(), &["gate"]);
        assert_eq!(gate.status.code(), Some(code), "{to}: {}", shown(&gate));
    }
}

/// The program of `wine-production` gets what `release.json` names, and nothing else.
#[test]
fn a_package_is_fetched_by_version_and_hash() {
    let Some(python) = find_program("python3") else {
        return skipped("fetching a package", "python3 is not installed");
    };
    let folder = made("promotion");
    let project = folder.path().join("wine-production");
    let files = files_below(&project, "");
    let api = GitLabDouble::start();
    let url = api.api_url();
    let fetch = |version: &str, sha256: &str, variables: &[(&str, &str)]| {
        let release = changed(&files, "release.json", "stable-20261129T045233Z", version);
        let release = changed(&release, "release.json", &"0".repeat(64), sha256);
        std::fs::write(project.join("release.json"), &release[0].1).unwrap();
        let own =
            [("CI_API_V4_URL", url.as_str()), ("CI_JOB_TOKEN", JOB_TOKEN), ("LIFECYCLE_PACKAGE_PROJECT", PROJECT_PATH)];
        let mut program = Command::new(&python);
        program.arg("fetch_package.py").current_dir(&project).env_clear().envs(own).envs(variables.iter().copied());
        program.output().unwrap()
    };
    let version = "stable-20261129T044033Z";
    api.file("wine", version, &format!("{version}.zip"), b"the package");
    let sha256 = super::training::sha256(b"the package");

    let refused = |ended: &Output, named: &[&str]| {
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(named.iter().all(|name| said.contains(name)), "{said}");
        assert!(!project.join("dist").exists() && !project.join("package.env").exists(), "{said}");
    };
    refused(&fetch(version, &"1".repeat(64), &[]), &[&sha256, "release.json"]);
    refused(&fetch("stable-19700101T000000Z", &sha256, &[]), &["404", "release.json", "Job token permissions"]);
    refused(&fetch(version, &sha256, &[("CI_JOB_TOKEN", "glcbt-of-nobody")]), &["401", "Job token permissions"]);
    refused(&fetch(version, &sha256, &[("LIFECYCLE_PACKAGE_PROJECT", "")]), &["LIFECYCLE_PACKAGE_PROJECT"]);
    let ended = fetch(version, &sha256, &[]);
    assert!(ended.status.success(), "{}", shown(&ended));
    let told = std::fs::read_to_string(project.join("package.env")).unwrap();
    assert_eq!(told, format!("PACKAGE_FILE=dist/{version}.zip\nPACKAGE_SHA256={sha256}\n"));
    assert_eq!(std::fs::read(project.join(format!("dist/{version}.zip"))).unwrap(), b"the package");
}
