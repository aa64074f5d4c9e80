//! Pipelines that the compiler makes of the components: the jobs of each kind of pipeline for each flow, GitLab's schema, and
//! shellcheck over all scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::compiler::{Compiler, Project};
use super::component::{components, folder};
use super::examples::examples;
use super::lint::jobs;
use super::yaml::{documents, texts};
use crate::conformance::{shown, skipped};
use crate::support::snapshot::assert_snapshot;

/// Kinds of pipelines in which images are built, and two in which none is.
const BUILDING: [&str; 4] = ["merge request", "main", "web, DEPLOY_ONLY to production", "merge request of a fork"];
/// Files for which jobs are added.
const FILES: [&str; 2] = ["evaluate.py", "tests/integration/test_endpoint.py"];
const FLOWS: [&str; 3] = ["training-project", "inference-project", "full-project"];

/// Kinds of pipelines, with the variables that GitLab sets in them. Those of the `push` to `main` are always there.
const KINDS: [(&str, &[(&str, &str)]); 15] = [
    ("merge request", &[REQUEST[0], REQUEST[1], REQUEST[2], REQUEST[3], TITLE]),
    ("draft", &[REQUEST[0], REQUEST[1], REQUEST[2], REQUEST[3], ("CI_MERGE_REQUEST_TITLE", "Draft: Weigh classes")]),
    ("branch", &[("CI_COMMIT_BRANCH", "topic")]),
    ("main", &[]),
    ("tag", &[("CI_COMMIT_BRANCH", ""), ("CI_COMMIT_TAG", "1.0.0")]),
    ("schedule", &[("CI_PIPELINE_SOURCE", "schedule")]),
    (
        "web, DEPLOY_ONLY to production",
        &[("CI_PIPELINE_SOURCE", "web"), ("DEPLOY_ONLY", "true"), ("DEPLOY_ENVIRONMENT", "production")],
    ),
    (
        "web, RETRAIN_MODEL on a branch",
        &[
            ("CI_PIPELINE_SOURCE", "web"),
            ("CI_COMMIT_BRANCH", "topic"),
            ("RETRAIN_MODEL", "true"),
            ("DEPLOY_ENVIRONMENT", "review"),
        ],
    ),
    ("develop", &[("CI_COMMIT_BRANCH", "develop"), ("CI_OPEN_MERGE_REQUESTS", "ml/wine!8")]),
    (
        "merge request of a fork",
        &[REQUEST[0], REQUEST[1], REQUEST[2], ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "232"), TITLE],
    ),
    (
        "web, DEPLOY_ENVIRONMENT of no environment",
        &[("CI_PIPELINE_SOURCE", "web"), ("DEPLOY_ENVIRONMENT", "prodution")],
    ),
    (
        "api, review endpoint of a branch",
        &[("CI_PIPELINE_SOURCE", "api"), ("CI_COMMIT_BRANCH", "topic"), ("DEPLOY_ENVIRONMENT", "review")],
    ),
    ("main in a freeze", &[("CI_DEPLOY_FREEZE", "true")]),
    ("branch with a merge request", &[("CI_COMMIT_BRANCH", "topic"), ("CI_OPEN_MERGE_REQUESTS", "ml/wine!7")]),
    ("tag of a release", &[("CI_COMMIT_BRANCH", ""), ("CI_COMMIT_TAG", "stable-20261129T045233Z")]),
];
const REQUEST: [(&str, &str); 4] = [
    ("CI_PIPELINE_SOURCE", "merge_request_event"),
    ("CI_COMMIT_BRANCH", ""),
    ("CI_MERGE_REQUEST_PROJECT_ID", "231"),
    ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "231"),
];
/// What every project sets.
const IMAGES: [(&str, &str); 5] = [
    ("LIFECYCLE_IMAGE", "lifecycle"),
    ("PYTHON_IMAGE", "python"),
    ("TRAINING_IMAGE", "training"),
    ("BUILDER_IMAGE", "builder"),
    ("BASE_IMAGE", "base"),
];
const TITLE: (&str, &str) = ("CI_MERGE_REQUEST_TITLE", "Weigh classes");

#[test]
fn each_kind_of_pipeline_has_its_jobs() {
    let Some(compiler) = Compiler::find("each_kind_of_pipeline_has_its_jobs") else { return };
    let all: Vec<_> = FLOWS.into_iter().flat_map(|flow| KINDS.iter().map(move |kind| (flow, kind))).collect();
    // Two at a time, each in its own project.
    let half = |first: usize| {
        let project = Project::new(&compiler, &FILES);
        let own = all.iter().skip(first).step_by(2);
        own.map(|(flow, kind)| (*flow, section(&project, flow, &json!({}), kind))).collect::<Vec<_>>()
    };
    let (even, odd) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        (half(0), odd.join().unwrap())
    });
    let mut odd = odd.into_iter();
    let in_order: Vec<_> = even.into_iter().flat_map(|section| [Some(section), odd.next()]).flatten().collect();
    for flow in FLOWS {
        let sections = in_order.iter().filter(|(of, _)| *of == flow).map(|(_, text)| text.as_str());
        assert_snapshot(&format!("pipelines_{}", flow.replace('-', "_")), &sections.collect::<Vec<_>>().join("\n"));
    }
}

/// A flow that trains on schedule takes the model of the registry in all other pipelines; one by hand waits for a click.
#[test]
fn training_is_automatic_or_by_hand_or_on_schedule() {
    let Some(compiler) = Compiler::find("training_is_automatic_or_by_hand_or_on_schedule") else { return };
    let project = Project::new(&compiler, &FILES);
    let mut text = String::new();
    for (train, kind) in [("schedule", "main"), ("schedule", "schedule"), ("manual", "main")] {
        let section = section(
            &project,
            "full-project",
            &json!({"train": train}),
            KINDS.iter().find(|(name, _)| *name == kind).unwrap(),
        );
        let trains = |line: &&str| {
            line.starts_with('#') || ["train", "register", "package"].iter().any(|stage| line.starts_with(stage))
        };
        let lines: Vec<_> = section.lines().filter(trains).collect();
        writeln!(text, "train: {train}\n{}\n", lines.join("\n")).unwrap();
    }
    assert_snapshot("pipelines_by_training", text.trim_end());
}

/// A flow that builds its images has them before what uses them, in pipelines that train or serve.
#[test]
fn images_are_built_before_what_uses_them() {
    let Some(compiler) = Compiler::find("images_are_built_before_what_uses_them") else { return };
    let project = Project::new(&compiler, &FILES);
    let mut text = String::new();
    let flows = [
        ("training-project", "training"),
        ("full-project", "training"),
        ("full-project", "always"),
        ("inference-project", "always"),
    ];
    for (flow, images) in flows {
        for kind in KINDS.iter().filter(|(name, _)| BUILDING.contains(name)) {
            let section = section(&project, flow, &json!({"build_images": images}), kind);
            writeln!(text, "build_images: {images}, {flow}\n{section}").unwrap();
        }
    }
    assert_snapshot("pipelines_with_images", text.trim_end());
}

/// The names and states of jobs of `full-project` in a pipeline with these variables, with more at the top of the file.
fn full_project(project: &Project<'_>, variables: &[(&str, &str)], top: &Value) -> BTreeMap<String, String> {
    let mut pipeline = json!({"include": [{"local": "/templates/full-project/template.yml"}]});
    pipeline.as_object_mut().unwrap().extend(top.as_object().unwrap().clone());
    let mut set = BTreeMap::from([("CI_PIPELINE_SOURCE", "push")]);
    set.extend(variables.iter().copied());
    let listed = project.jobs(&pipeline.to_string(), &set).into_iter();
    listed.filter(|job| job.when != "never").map(|job| (job.name, job.when)).collect()
}

/// A variable of the project wins over the default of its input, also where rules ask for it.
#[test]
fn a_variable_stands_in_for_its_input_in_rules() {
    let Some(compiler) = Compiler::find("a_variable_stands_in_for_its_input_in_rules") else { return };
    let project = Project::new(&compiler, &FILES);
    let of = |branch: &'static str, more: &[(&'static str, &'static str)]| {
        let variables =
            [&IMAGES, [("CI_COMMIT_BRANCH", branch), ("LIFECYCLE_PRODUCTION_BRANCH", "trunk")].as_slice(), more]
                .concat();
        full_project(&project, &variables, &json!({}))
    };
    let trunk = of("trunk", &[("LIFECYCLE_TRAIN", "manual"), ("LIFECYCLE_PRODUCTION_PLAN", "manual")]);
    assert!(trunk.contains_key("stable-package") && !trunk.contains_key("candidate-package"), "{trunk:?}");
    assert_eq!((trunk["train"].as_str(), trunk["production-plan"].as_str()), ("manual", "manual"));
    // Also where a rule looks for files.
    let moved = of(
        "trunk",
        &[
            ("LIFECYCLE_INTEGRATION_TESTS", "none"),
            // A file that is not at the top.
            ("LIFECYCLE_EVALUATE_SCRIPT", FILES[1]),
            ("LIFECYCLE_STAGING_ENVIRONMENT", "production"),
        ],
    );
    assert!(trunk.contains_key("staging-integration") && !moved.contains_key("staging-integration"), "{moved:?}");
    assert!(moved.contains_key("evaluate"), "{moved:?}");
    // One environment for both would bring a merge to production without a click.
    assert!(moved.contains_key("deploy-environment") && !trunk.contains_key("deploy-environment"), "{moved:?}");
    // A version is deployed where nothing is trained.
    let named = of("trunk", &[("CI_PIPELINE_SOURCE", "web"), ("DEPLOY_VERSION", "1")]);
    assert!(named.contains_key("deploy-environment") && named.contains_key("train"), "{named:?}");
    let main = of("main", &[("LIFECYCLE_EVALUATE_SCRIPT", "none.py")]);
    assert!(trunk.contains_key("evaluate") && !main.contains_key("evaluate"), "{main:?}");
    assert!(main.contains_key("candidate-package") && !main.contains_key("stable-package"), "{main:?}");
    assert_eq!(main["train"], "on_success");
}

/// A project whose own `workflow` takes the place of the flow's loses the variables of the flow: then nothing is stable, and nothing is
/// deployed.
#[test]
fn without_the_workflow_of_the_flow_nothing_goes_to_an_environment() {
    let Some(compiler) = Compiler::find("without_the_workflow_of_the_flow_nothing_goes_to_an_environment") else {
        return;
    };
    let project = Project::new(&compiler, &FILES);
    let workflow = json!({"workflow": {"rules": [{"when": "always"}]}});
    for (kind, of_kind) in KINDS.iter().filter(|(kind, _)| ["main", "merge request"].contains(kind)) {
        let mut variables = IMAGES.to_vec();
        variables.push(("CI_COMMIT_BRANCH", "main"));
        variables.extend_from_slice(of_kind);
        let jobs = full_project(&project, &variables, &workflow);
        let of_environments = jobs
            .keys()
            .filter(|job| ["stable-", "staging-", "production-"].iter().any(|prefix| job.starts_with(prefix)));
        assert_eq!(of_environments.collect::<Vec<_>>(), Vec::<&String>::new(), "{kind}");
    }
}

/// Where an image has no name, one job says so, and all others wait for it.
#[test]
fn a_pipeline_without_images_has_a_job_that_says_so() {
    let Some(compiler) = Compiler::find("a_pipeline_without_images_has_a_job_that_says_so") else { return };
    let project = Project::new(&compiler, &FILES);
    for flow in FLOWS {
        let pipeline = json!({"include": [{"local": format!("/templates/{flow}/template.yml")}]}).to_string();
        let mut set = BTreeMap::from([("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main"), IMAGES[0]]);
        if flow != "inference-project" {
            set.extend([IMAGES[1], ("TRAINING_IMAGE", "")]);
        }
        let first = |set: &BTreeMap<&str, &str>| {
            let listed = project.jobs(&pipeline, set).into_iter();
            let first = listed.filter(|job| job.when == "on_success" && job.needs.is_empty());
            first.map(|job| job.name).collect::<Vec<_>>()
        };
        assert_eq!(first(&set), ["images"], "{flow}");
        set.extend(IMAGES);
        assert!(!first(&set).contains(&"images".to_owned()), "{flow}");
    }
}

/// The project's job that builds the image of the client in the README's examples.
fn of_the_project() -> Value {
    json!({"stage": "build", "script": ["true"]})
}

/// The parts of the README's examples in one pipeline of each kind: none is refused, a fork, a tag and a freeze deploy nothing.
#[test]
fn parts_deploy_nothing_for_forks_and_tags_and_in_freezes() {
    let Some(compiler) = Compiler::find("parts_deploy_nothing_for_forks_and_tags_and_in_freezes") else { return };
    let project = Project::new(&compiler, &FILES);
    let parts: Vec<Value> = examples()
        .iter()
        .filter(|example| !FLOWS.contains(&example.component.as_str()) && example.component != "job")
        .map(|example| {
            let local = format!("/templates/{}/template.yml", example.component);
            json!({"local": local, "inputs": example.inputs})
        })
        .collect();
    assert_eq!(parts.len(), 11);
    let pipeline = json!({"include": parts, "api-image": of_the_project()}).to_string();
    for (kind, variables) in KINDS {
        let mut set = BTreeMap::from([
            ("CI_PIPELINE_SOURCE", "push"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_DEFAULT_BRANCH", "main"),
        ]);
        set.extend(variables.iter().copied());
        let listed = project.jobs(&pipeline, &set);
        let there: Vec<_> = listed.iter().filter(|job| job.when != "never").map(|job| job.name.as_str()).collect();
        let is_outside = kind.contains("fork") || kind.starts_with("tag");
        let is_frozen = kind.contains("freeze");
        for job in ["register", "package", "train", "report", "staging-rollback", "staging-stop"] {
            assert_eq!(there.contains(&job), !is_outside, "{kind}: {job}");
        }
        for job in ["staging-plan", "staging-deploy", "staging-test", "staging-integration"] {
            assert_eq!(there.contains(&job), !is_outside && !is_frozen, "{kind}: {job}");
        }
        for job in ["release", "deploy-kubernetes", "deploy-ecs"] {
            assert_eq!(there.contains(&job), set["CI_COMMIT_BRANCH"] == "main" && !is_frozen, "{kind}: {job}");
        }
        assert_eq!(there.contains(&"monitor"), set["CI_PIPELINE_SOURCE"] == "schedule", "{kind}");
        let cleans = set["CI_PIPELINE_SOURCE"] == "schedule";
        assert_eq!(there.contains(&"cleanup"), cleans && !is_outside && !is_frozen, "{kind}: cleanup");
    }
}

/// The pipelines of `docs/examples`: none is refused, whatever a documented variable or a freeze leaves out, and a freeze holds.
#[test]
fn no_pipeline_of_the_examples_is_refused() {
    let Some(compiler) = Compiler::find("no_pipeline_of_the_examples_is_refused") else { return };
    let project = Project::new(&compiler, &FILES);
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let reference = regex::Regex::new(r"component: \$CI_SERVER_FQDN/ml/components/([a-z-]+)@[0-9.]+").unwrap();
    let set = |name, value| vec![(name, value)];
    let training = vec![
        set("CI_DEPLOY_FREEZE", "true"),
        set("LIFECYCLE_TRAIN", "schedule"),
        set("LIFECYCLE_PRODUCTION_BRANCH", "trunk"),
        KINDS[0].1.to_vec(),
    ];
    let frozen = vec![set("CI_COMMIT_BRANCH", "main"), set("CI_DEPLOY_FREEZE", "true")];
    for (example, kinds) in [
        ("candidate-to-stable/.gitlab-ci.yml", &frozen),
        ("govcloud/.gitlab-ci.yml", &frozen),
        ("retail/.gitlab-ci.yml", &frozen),
        ("promotion/training.gitlab-ci.yml", &training),
        ("promotion/production.gitlab-ci.yml", &frozen),
    ] {
        let text = std::fs::read_to_string(examples.join(example)).unwrap();
        let pipeline = reference.replace_all(&text, "local: /templates/$1/template.yml");
        for more in kinds {
            let mut variables = BTreeMap::from([("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main")]);
            variables.extend(IMAGES.iter().chain(more).copied());
            let listed = project.jobs(&pipeline, &variables);
            let changes = |name: &str| name.ends_with("-deploy") || name.ends_with("-release");
            let changing: Vec<_> = listed.iter().filter(|job| job.when != "never" && changes(&job.name)).collect();
            let is_frozen = variables.contains_key("CI_DEPLOY_FREEZE");
            assert!(!is_frozen || changing.is_empty(), "{example}: {changing:?}");
        }
    }
}

/// A job that is left out takes those with it that need it; a training on schedule with the rules of the README does.
#[test]
fn a_need_that_is_left_out_is_found() {
    let Some(compiler) = Compiler::find("a_need_that_is_left_out_is_found") else { return };
    let project = Project::new(&compiler, &FILES);
    let rules = json!([{"if": "$CI_PIPELINE_SOURCE == \"schedule\""}]);
    let train = |inputs: Value| {
        json!({"stages": ["build"], "include": [{"local": "/templates/train/template.yml", "inputs": inputs}]})
            .to_string()
    };
    let set = BTreeMap::from([("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main")]);
    let (_, missing) = project.jobs_and_missing(&train(json!({"train_rules": rules})), &set);
    assert_eq!(missing, ["evaluate needs train", "gate needs train"]);
    let listed = project.jobs(&train(json!({"evaluate_script": FILES[1]})), &set);
    assert!(listed.iter().any(|job| job.name == "evaluate" && job.when == "on_success"), "{listed:?}");
    let all = train(json!({"train_rules": rules, "evaluate_rules": rules, "gate_rules": rules}));
    assert_eq!(project.jobs(&all, &set).iter().filter(|job| job.when != "never").count(), 0);
}

/// The kind, and a line for each job that the pipeline has.
fn section(project: &Project<'_>, flow: &str, inputs: &Value, (kind, variables): &(&str, &[(&str, &str)])) -> String {
    let all = components();
    let own = all[flow].expanded(inputs.as_object().unwrap(), &all);
    // The compiler knows rules of jobs alone, so a job has those of the workflow. What changed is not told here.
    let mut rules = own["workflow"]["rules"].clone();
    for rule in rules.as_array_mut().unwrap() {
        let rule = rule.as_object_mut().unwrap();
        for key in ["changes", "auto_cancel", "variables"] {
            rule.remove(key);
        }
    }
    let pipeline = json!({
        "include": [{"local": format!("/templates/{flow}/template.yml"), "inputs": inputs}],
        "this-pipeline": {"stage": "validate", "script": ["true"], "rules": rules},
    });
    let mut set = BTreeMap::from([("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main")]);
    set.extend(IMAGES);
    set.extend(variables.iter().copied());
    let listed = project.jobs(&pipeline.to_string(), &set);
    let is_there = |name: &str| listed.iter().any(|job| job.name == name && job.when != "never");
    let mut text = format!("# {kind}\n");
    if !is_there("this-pipeline") {
        return text + "no pipeline\n";
    }
    for job in listed.iter().filter(|job| job.when != "never" && job.name != "this-pipeline") {
        let after = if job.needs.is_empty() { String::new() } else { format!(" after {}", job.needs.join(", ")) };
        let may_fail = if job.may_fail { ", may fail" } else { "" };
        writeln!(text, "{}: {} ({}{may_fail}){after}", job.stage, job.name, job.when).unwrap();
    }
    text
}

/// Documentation alone starts nothing; everything else does.
#[test]
fn documentation_starts_no_pipeline() {
    let Some(compiler) = Compiler::find("documentation_starts_no_pipeline") else { return };
    let all = components();
    for flow in FLOWS {
        let rules = &all[flow].expanded(&Map::new(), &all)["workflow"]["rules"];
        let of_changes: Vec<_> = rules.as_array().unwrap().iter().filter_map(|rule| rule.get("changes")).collect();
        assert_eq!(of_changes.len(), 5, "{flow}: merge requests, the two branches by variable and by input, others");
        let documents =
            ["README.md", "docs/page.md", "docs/a/picture.png", "docs/conf.py", "src/notes.md", ".gitlab/x.md"];
        let code = [
            "train.py",
            "Dockerfile",
            "src/a/b.py",
            "src/d",
            "a.cmd",
            "md",
            "doc/x.py",
            "docs2/x.py",
            "d/x",
            ".gitlab-ci.yml",
            "src/.env",
            "model.bin",
            "manifest.json",
            "docsmd",
        ];
        for changes in of_changes {
            let paths: Vec<_> = documents.iter().chain(&code).copied().collect();
            assert_eq!(compiler.matching(&changes["paths"], &paths), code, "{flow}");
        }
    }
}

/// What the compiler, GitLab's schema and shellcheck say of everything that the components can make: the flows, and the README's examples.
#[test]
fn whole_pipelines_have_the_form_of_gitlab() {
    let Some(compiler) = Compiler::find("whole_pipelines_have_the_form_of_gitlab") else { return };
    let project = Project::new(&compiler, &FILES);
    let files = tempfile::tempdir().unwrap();
    let mut written: Vec<PathBuf> = Vec::new();
    let mut write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        written.push(path);
    };
    let mut parts = String::from("include:\n");
    for example in examples() {
        let local = |name: &str| format!("local: /templates/{name}/template.yml");
        let named = example.text.lines().find(|line| line.contains("component:")).unwrap().trim_start_matches("  - ");
        let pipeline = example.text.replace(named, &local(&example.component));
        // Parts need jobs of other parts, so these are one pipeline; a flow, and the base, which has a job `train` of its own, are one each.
        if FLOWS.contains(&example.component.as_str()) || example.component == "job" {
            let whole = project.whole(&pipeline);
            // GitLab reads a limit without a value as none; the compiler writes an empty text.
            write(&format!("{}.yml", example.component), &whole.replace("\n  timeout: ''\n", "\n"));
        } else {
            parts.push_str(pipeline.strip_prefix("include:\n").unwrap());
        }
    }
    writeln!(parts, "api-image: {}", of_the_project()).unwrap();
    write("parts.yml", &project.whole(&parts).replace("\n  timeout: ''\n", "\n"));
    assert_eq!(written.len(), 5);
    scripts_are_posix(&written);
    for component in components().values() {
        let path = folder().join("templates").join(&component.name).join("template.yml");
        let text = std::fs::read_to_string(path).unwrap();
        let head = files.path().join(format!("head-{}.yml", component.name));
        std::fs::write(&head, text.split_once("\n---\n").unwrap().0).unwrap();
        written.push(head);
    }
    compiler.check_schema(&written);
}

/// The compiler finds a job that needs a later one, so a wrong order of stages cannot be released.
#[test]
fn the_compiler_refuses_needs_of_a_later_stage() {
    let Some(compiler) = Compiler::find("the_compiler_refuses_needs_of_a_later_stage") else { return };
    let said = Project::new(&compiler, &FILES).refused(
        "stages: [a, b]\nfirst:\n  stage: a\n  needs: [second]\n  script: [\"true\"]\nsecond:\n  stage: b\n  script: [\"true\"]\n",
    );
    assert!(said.contains("second") && said.contains("future stage"), "{said}");
}

#[track_caller]
fn scripts_are_posix(files: &[PathBuf]) {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        skipped("scripts_are_posix", "no shellcheck (package shellcheck)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut scripts = BTreeMap::new();
    for file in files {
        let pipeline = documents(&std::fs::read_to_string(file).unwrap(), "a pipeline").remove(0);
        for (name, job) in jobs(pipeline.as_object().unwrap()) {
            let lines: Vec<_> = ["before_script", "script"].iter().flat_map(|key| texts(&job[key])).collect();
            scripts.insert(format!("{}\n", lines.join("\n")), name.to_owned());
        }
    }
    assert!(scripts.len() > 15);
    for (text, name) in &scripts {
        std::fs::write(folder.path().join(format!("{name}.sh")), text).unwrap();
    }
    let names = scripts.values().map(|name| format!("{name}.sh"));
    let names: std::collections::BTreeSet<_> = names.collect();
    let ended = Command::new("shellcheck")
        .args(["--shell", "sh", "--severity", "style"])
        .args(names)
        .current_dir(&folder)
        .output();
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{}", shown(&ended));
}
