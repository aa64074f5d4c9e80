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
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new(programs: &[&str]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(bench.path("bin")).unwrap();
        std::fs::create_dir_all(bench.path("project")).unwrap();
        for program in programs {
            let text = format!(
                "#!/bin/sh\nprintf '{program}' >> '{0}'\nprintf ' [%s]' \"$@\" >> '{0}'\necho >> '{0}'\n",
                bench.path("calls").display()
            );
            bench.program(program, &text);
        }
        // What scripts have of the system.
        for program in ["mktemp", "rm", "touch", "sh"] {
            bench.of_the_system(program);
        }
        bench
    }

    /// A stand-in with a text of its own.
    pub(crate) fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn of_the_system(&self, program: &str) {
        let folders = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
        let found = folders.into_iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, self.path("bin").join(program)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the job's script as a runner does: one shell that ends at the first error. The pipeline's workflow has variables, too.
    fn run(&self, pipeline: &Map<String, Value>, job: &Value, variables: &BTreeMap<&str, &str>) -> Output {
        let lines: Vec<_> = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rules = pipeline.get("workflow").and_then(|workflow| workflow["rules"].as_array());
        let of_pipeline = rules.into_iter().flatten().filter_map(|rule| rule["variables"].as_object()).flatten();
        let of_pipeline: BTreeMap<_, _> = of_pipeline.map(|(name, value)| (format!("${name}"), text(value))).collect();
        let own = job["variables"].as_object().into_iter().flatten();
        // As the runner replaces them: by nothing where there is no such variable.
        let is_name = |text: &str| {
            text.strip_prefix('$')
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        };
        let value =
            |text: String| if is_name(&text) { of_pipeline.get(&text).cloned().unwrap_or_default() } else { text };
        let own = own.map(|(name, found)| (name, value(text(found))));
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

    /// Runs the only job of a component with these inputs.
    pub(crate) fn run_component(&self, name: &str, inputs: &Value, variables: &BTreeMap<&str, &str>) -> Output {
        let all = components();
        let pipeline = all[name].expanded(inputs.as_object().unwrap(), &all);
        let (_, job) = jobs(&pipeline).next().unwrap();
        self.run(&pipeline, job, variables)
    }

    pub(crate) fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

/// Jobs that are there only when something is wrong.
const TO_FAIL: [&str; 2] = ["deploy-environment", "images"];

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
        let ended = bench.run(&pipeline, job, &given());
        assert_eq!(ended.status.success(), !TO_FAIL.contains(&name), "{name}: {}", shown(&ended));
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
        let ended = bench.run(&pipeline, &pipeline[job], &given());
        assert!(ended.status.success(), "{}", shown(&ended));
        bench.calls()
    };
    let tests = called("unit-tests");
    assert!(tests.contains("[--requirement] [requirements.txt] [--requirement] [tests/more files.txt]\n"), "{tests}");
    let lint = called("lint");
    assert!(lint.contains("[--output-file] [ruff.json] [src] [tests]\n"), "{lint}");
}

/// A `*` in a list is a part of a name, and is not replaced by the names of files.
#[test]
fn lists_have_no_patterns() {
    let all = components();
    let inputs = json!({"requirements": "*.txt", "sources": "*,src"});
    let inputs = inputs.as_object().unwrap();
    let validate = all["validate"].expanded(inputs, &all);
    let requirements =
        json!({"requirements": "*.txt", "environment": "e", "manifest_environment": "e", "tier": "staging"});
    let deploy = all["deploy"].expanded(requirements.as_object().unwrap(), &all);
    for (pipeline, job, expected) in [
        (&validate, "lint", "[*] [src]\n"),
        (&validate, "unit-tests", "[*.txt]\n"),
        (&deploy, "integration", "[*.txt]\n"),
    ] {
        let bench = Bench::new(&["python3"]);
        std::fs::write(bench.path("project/a.txt"), "").unwrap();
        let ended = bench.run(pipeline, &pipeline[job], &given());
        assert!(ended.status.success(), "{}", shown(&ended));
        assert!(bench.calls().contains(expected), "{job}: {}", bench.calls());
    }
}

/// The shell executor has no images, so a project needs to name none for it.
#[test]
fn images_are_asked_for_where_a_runner_has_them() {
    let all = components();
    for flow in ["training-project", "inference-project", "full-project"] {
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let bench = Bench::new(&[]);
        let ended = bench.run(&pipeline, &pipeline["images"], &given());
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        for named in ["LIFECYCLE_IMAGE", "PYTHON_IMAGE", "inputs image and python_image"] {
            assert!(said.contains(named), "{said}");
        }
        let mut inputs = json!({"image": "lifecycle@sha256:00", "python_image": "python@sha256:00"});
        if flow != "inference-project" {
            let untrained = all[flow].expanded(inputs.as_object().unwrap(), &all);
            let ended = bench.run(&untrained, &untrained["images"], &given());
            let said = String::from_utf8(ended.stderr).unwrap();
            assert!(said.contains("TRAINING_IMAGE") && said.contains("training_image"), "{said}");
            assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
            inputs["training_image"] = json!("training@sha256:00");
        }
        let named = all[flow].expanded(inputs.as_object().unwrap(), &all);
        assert!(bench.run(&named, &named["images"], &given()).status.success());
        let on_the_host = BTreeMap::from([("CI_SHARED_ENVIRONMENT", "true")]);
        assert!(bench.run(&pipeline, &pipeline["images"], &on_the_host).status.success());
    }
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
        let ended = bench.run(&pipeline, &pipeline[job], &variables);
        assert_eq!(ended.status.code(), Some(1), "{job}: {}", shown(&ended));
        assert_eq!(bench.calls(), "", "{job}");
        String::from_utf8(ended.stderr).unwrap()
    };
    for (name, job) in jobs(&pipeline) {
        let lines = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect::<Vec<_>>().join("\n");
        // The training image is the project's own, so its jobs check nothing.
        if job["tags"] == json!(["sagemaker"]) || TO_FAIL.contains(&name) {
            continue;
        }
        let named = match lines.contains("sagemaker-executor ") {
            true if name.ends_with("image-build") => "BUILDER_IMAGE",
            true => "LIFECYCLE_IMAGE",
            false => "PYTHON_IMAGE",
        };
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
        let ended = bench.run(
            &pipeline,
            &pipeline["deploy-environment"],
            &BTreeMap::from([("DEPLOY_ENVIRONMENT", "prodution")]),
        );
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("DEPLOY_ENVIRONMENT=prodution") && said.contains("production_environment"), "{said}");
        let one = [("LIFECYCLE_STAGING_ENVIRONMENT", "production"), ("LIFECYCLE_PRODUCTION_ENVIRONMENT", "production")];
        let ended = bench.run(&pipeline, &pipeline["deploy-environment"], &BTreeMap::from(one));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("one environment, production") && said.contains("staging_environment"), "{said}");
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
    assert!(bench.run(&pipeline, &pipeline["staging-test"], &variables).status.success());
    let calls = bench.calls();
    assert!(calls.contains("[--environment] [staging] [--configuration] [wine-2937]"), "{calls}");
    // It looks after the integration tests, which do not, and which no release and no plan outruns.
    for prefix in ["review", "staging", "production"] {
        let needs = pipeline[&format!("{prefix}-test")]["needs"].as_array().unwrap();
        assert!(needs.iter().any(|need| need["job"] == format!("{prefix}-integration")), "{prefix}");
    }
}

/// A job that began to wait before a freeze does nothing in it, unless somebody says so.
#[test]
fn a_freeze_holds_what_waits_from_before() {
    let all = components();
    let pipeline = all["full-project"].expanded(&Map::new(), &all);
    for job in ["staging-deploy", "production-deploy", "stable-release"] {
        let mut variables = given();
        variables.insert("CI_DEPLOY_FREEZE", "true");
        let bench = Bench::new(&["sagemaker-executor"]);
        let ended = bench.run(&pipeline, &pipeline[job], &variables);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count(), bench.calls().as_str()), (Some(1), 1, ""), "{said}");
        assert!(said.contains("CI_DEPLOY_FREEZE") && said.contains("IN_FREEZE=true"), "{said}");
        variables.insert("IN_FREEZE", "true");
        assert!(bench.run(&pipeline, &pipeline[job], &variables).status.success());
        assert!(bench.calls().contains("[--package]"), "{job}: {}", bench.calls());
    }
}

/// The report shows the files that earlier jobs left, and none of the commit.
#[test]
fn the_report_takes_the_files_of_its_pipeline() {
    let all = components();
    let pipeline = all["report"].expanded(&Map::new(), &all);
    let bench = Bench::new(&["sagemaker-executor"]);
    for file in ["plan.json", "endpoint-test.json"] {
        std::fs::write(bench.path("project").join(file), "{}").unwrap();
    }
    assert!(bench.run(&pipeline, &pipeline["report"], &given()).status.success());
    assert!(bench.calls().ends_with("[--note]\n"), "{}", bench.calls());
    // Of the dotenv reports of `plan` and `test`.
    let mut variables = given();
    variables.extend([("PLAN_REPORT", "plan.json"), ("ENDPOINT_TEST_RESULT", "passed")]);
    assert!(bench.run(&pipeline, &pipeline["report"], &variables).status.success());
    let shown = "[--note] [--endpoint-report] [endpoint-test.json] [--plan] [plan.json]\n";
    assert!(bench.calls().ends_with(shown), "{}", bench.calls());
    let deploy = all["deploy"].expanded(&Map::new(), &all);
    assert!(bench.run(&deploy, &deploy["plan"], &given()).status.success());
    let left = std::fs::read_to_string(bench.path("project/plan.env")).unwrap();
    assert_eq!(
        (left.as_str(), &deploy["plan"]["artifacts"]["reports"]["dotenv"]),
        ("PLAN_REPORT=plan.json\n", &json!("plan.env"))
    );
}
