//! Runs the scripts of all jobs, with programs that only write down how they are called: hostile inputs stay single arguments, and what
//! is missing ends in one error that names what to change.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::component::components;
use super::lint::jobs;
use super::yaml::texts;
use crate::conformance::shown;

/// Text that a shell would run, if it ever read it as its own.
const HOSTILE: &str = "a b;touch pwned $(touch pwned) `touch pwned` & touch pwned | touch pwned 'x' * > pwned";

/// A folder with stand-ins of the programs that scripts call. Each call is a line in `calls`, with its arguments in brackets.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(programs: &[&str]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(bench.path("bin")).unwrap();
        std::fs::create_dir_all(bench.path("project")).unwrap();
        for program in programs {
            let path = bench.path("bin").join(program);
            let text = format!(
                "#!/bin/sh\nprintf '{program}' >> '{0}'\nprintf ' [%s]' \"$@\" >> '{0}'\necho >> '{0}'\n",
                bench.path("calls").display()
            );
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        // What scripts have of the system.
        for program in ["mktemp", "rm", "touch", "sh"] {
            let found = ["/usr/bin", "/bin"]
                .map(|folder| Path::new(folder).join(program))
                .into_iter()
                .find(|path| path.exists());
            std::os::unix::fs::symlink(found.unwrap(), bench.path("bin").join(program)).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the job's script as a runner does: one shell that ends at the first error.
    fn run(&self, job: &Value, variables: &BTreeMap<&str, &str>) -> Output {
        let lines: Vec<_> = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect();
        let own = job["variables"].as_object().cloned().unwrap_or_default();
        let own = own
            .into_iter()
            .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        Command::new("/bin/sh")
            .args(["-e", "-c", &lines.join("\n")])
            .current_dir(self.path("project"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .envs(own)
            .envs(variables)
            .output()
            .unwrap()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

/// What earlier jobs and GitLab give.
fn given() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("CI_PIPELINE_ID", "4711"),
        ("CI_PROJECT_DIR", "/builds/ml/wine"),
        ("PACKAGE_FILE", "stable-20261129T045233Z.zip"),
        ("REASON", HOSTILE),
        ("CONFIRM", HOSTILE),
        ("SAGEMAKER_ID_TOKEN", "token"),
        ("LIFECYCLE_PACKAGE_PROJECT", HOSTILE),
    ])
}

/// All inputs of texts that reach scripts, with values that a shell would run.
fn hostile_inputs() -> Map<String, Value> {
    let inputs = [
        "manifest",
        "requirements",
        "sources",
        "unit_tests",
        "train_script",
        "evaluate_script",
        "integration_tests",
        "decision_role_arn",
        "staging_environment",
        "production_environment",
        "review_environment",
    ];
    inputs.into_iter().map(|input| (input.to_owned(), json!(HOSTILE))).collect()
}

#[test]
fn hostile_inputs_stay_single_arguments() {
    let all = components();
    let pipeline = all["full-project"].expanded(&hostile_inputs(), &all);
    let mut ran = 0;
    for (name, job) in jobs(&pipeline) {
        let bench = Bench::new(&["sagemaker-executor", "python3"]);
        let ended = bench.run(job, &given());
        // One job is there to fail.
        assert_eq!(ended.status.success(), name != "deploy-environment", "{name}: {}", shown(&ended));
        let calls = bench.calls();
        // Only the lists are split, at commas.
        assert!(!bench.path("project/pwned").exists(), "{name} ran a part of its input:\n{calls}");
        for line in calls.lines().filter(|line| line.contains("touch")) {
            let rest = line.replace(&format!("[{HOSTILE}]"), "[]");
            assert!(!rest.contains("touch"), "{name} splits its input: {line}");
            ran += 1;
        }
    }
    assert!(ran > 25, "{ran} calls have the text");
}

/// Lists in variables are separated by commas.
#[test]
fn lists_are_split_at_commas() {
    let all = components();
    let inputs = json!({"requirements": "requirements.txt,tests/more files.txt", "sources": "src,tests"});
    let pipeline = all["validate"].expanded(inputs.as_object().unwrap(), &all);
    let called = |job: &str| {
        let bench = Bench::new(&["python3"]);
        let ended = bench.run(&pipeline[job], &given());
        assert!(ended.status.success(), "{}", shown(&ended));
        bench.calls()
    };
    let tests = called("unit-tests");
    assert!(tests.contains("[--requirement] [requirements.txt] [--requirement] [tests/more files.txt]\n"), "{tests}");
    let lint = called("lint");
    assert!(lint.contains("[--output-file] [ruff.json] [src] [tests]\n"), "{lint}");
}

/// A job without its tool, package or reason says what to change, and calls nothing.
#[test]
fn what_is_missing_is_named() {
    let all = components();
    let pipeline = all["full-project"].expanded(&Map::new(), &all);
    let refused = |job: &str, programs: &[&str], without: &str| {
        let bench = Bench::new(programs);
        let mut variables = given();
        variables.remove(without);
        let ended = bench.run(&pipeline[job], &variables);
        assert_eq!(ended.status.code(), Some(1), "{job}: {}", shown(&ended));
        assert_eq!(bench.calls(), "", "{job}");
        String::from_utf8(ended.stderr).unwrap()
    };
    for (name, job) in jobs(&pipeline) {
        let lines = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect::<Vec<_>>().join("\n");
        // The training image is the project's own, so its jobs check nothing.
        if job["tags"] == json!(["sagemaker"]) || name == "deploy-environment" {
            continue;
        }
        let named = if lines.contains("sagemaker-executor ") { "LIFECYCLE_IMAGE" } else { "PYTHON_IMAGE" };
        let said = refused(name, &[], "");
        assert!(said.contains(named) && said.lines().count() == 1, "{name}: {said}");
    }
    for (job, without, input) in [
        ("production-deploy", "PACKAGE_FILE", "deploy_needs"),
        ("production-plan", "PACKAGE_FILE", "package_needs"),
        ("stable-release", "PACKAGE_FILE", "release_needs"),
        ("stable-reject", "REASON", "REASON"),
    ] {
        let said = refused(job, &["sagemaker-executor"], without);
        assert!(said.contains(input) && said.lines().count() == 1, "{job}: {said}");
    }
}

/// A value that no environment has is named, with what to give in its place.
#[test]
fn a_wrong_environment_is_named() {
    let all = components();
    for flow in ["inference-project", "full-project"] {
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let bench = Bench::new(&[]);
        let ended = bench.run(&pipeline["deploy-environment"], &BTreeMap::from([("DEPLOY_ENVIRONMENT", "prodution")]));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("DEPLOY_ENVIRONMENT=prodution") && said.contains("production_environment"), "{said}");
        // What costs, and what is published, waits for it.
        for job in ["train", "candidate-package", "stable-package"] {
            let Some(job) = pipeline.get(job) else { continue };
            let needs = job["needs"].as_array().unwrap();
            assert!(needs.iter().any(|need| need["job"] == "deploy-environment"), "{flow}: {job}");
        }
    }
}

/// Another pipeline may have deployed meanwhile. Nor does a variable of the project move a job to another environment.
#[test]
fn the_test_asks_for_the_configuration_of_its_deployment() {
    let all = components();
    let pipeline = all["full-project"].expanded(&Map::new(), &all);
    let bench = Bench::new(&["sagemaker-executor"]);
    let mut variables = given();
    variables.extend([("ENDPOINT_CONFIG_NAME", "wine-2937"), ("LIFECYCLE_ENVIRONMENT", "production")]);
    assert!(bench.run(&pipeline["staging-test"], &variables).status.success());
    let calls = bench.calls();
    assert!(calls.contains("[--environment] [staging] [--configuration] [wine-2937]"), "{calls}");
}

/// The report shows the files that earlier jobs left, and no others.
#[test]
fn the_report_takes_the_files_that_are_there() {
    let all = components();
    let pipeline = all["report"].expanded(&Map::new(), &all);
    let bench = Bench::new(&["sagemaker-executor"]);
    assert!(bench.run(&pipeline["report"], &given()).status.success());
    assert!(bench.calls().ends_with("[--note]\n"), "{}", bench.calls());
    std::fs::write(bench.path("project/plan.json"), "{}").unwrap();
    assert!(bench.run(&pipeline["report"], &given()).status.success());
    assert!(bench.calls().ends_with("[--note] [--plan] [plan.json]\n"), "{}", bench.calls());
}
