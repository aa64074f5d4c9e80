//! The modules with Terraform's mocked provider: the policies and files that they make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use executor::config::env::Environment;
use executor::config::settings::Settings;
use serde_json::{Map, Value};

use super::commands::assert_commands_run;
use super::host;
use super::operated::assert_runs_a_job;
use super::terraform::Terraform;
use super::{MODULES, folder};
use crate::conformance::{clients, shown, skipped};

/// Lists in any order, and a list of one as its entry: IAM reads them alike.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort_by_key(Value::to_string);
            if items.len() == 1 && !items[0].is_object() { items.remove(0) } else { items.into() }
        }
        other => other.clone(),
    }
}

/// The outputs of `complete`, by name, from its state.
pub(super) fn outputs(state: &Value) -> BTreeMap<String, Value> {
    let outputs = state.as_object().unwrap();
    outputs.iter().map(|(name, output)| (name.clone(), output["value"].clone())).collect()
}

/// The policies that a module applied are those that `policy iam` makes of the operator's file that it wrote.
#[track_caller]
pub(super) fn assert_policies(outputs: &BTreeMap<String, Value>) {
    let settings: Settings = toml::from_str(outputs["operator_file"].as_str().unwrap()).unwrap();
    let made = executor::iam::policies(&settings).unwrap();
    let applied = outputs["policies"].as_object().unwrap();
    assert_eq!(applied.keys().map(String::as_str).collect::<Vec<_>>(), made.keys().copied().collect::<Vec<_>>());
    for (file, policy) in made {
        let applied: Value = serde_json::from_str(applied[file].as_str().unwrap()).unwrap();
        assert_eq!(canonical(&applied), canonical(&serde_json::to_value(policy).unwrap()), "{file}");
    }
}

/// The policies of the environments' commands are those that the project ships, with the names of the environment.
#[track_caller]
fn assert_command_policies(outputs: &BTreeMap<String, Value>) {
    let policies = outputs["command_policies"].as_object().unwrap();
    assert!(policies.len() > 10);
    for (key, text) in policies {
        let (environment, command) = key.split_once('/').unwrap();
        let applied: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        let shipped = std::fs::read_to_string(folder().join(format!("../iam/lifecycle/{command}.json"))).unwrap();
        let shipped: Value = serde_json::from_str(&shipped.replace("example-environment", environment)).unwrap();
        let kept = |policy: &Value| {
            let statements = policy["Statement"].as_array().unwrap().iter();
            statements
                .map(|one| canonical(&serde_json::json!([one["Sid"], one["Effect"], one["Action"], one["Condition"]])))
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&applied), kept(&shipped), "{key}");
        let text = applied.to_string();
        for name in ["123456789012", "example-", "no-serving-role"] {
            assert!(!text.contains(name), "{key}: {name}");
        }
        // Production reaches its own endpoint and group alone.
        if environment == "production" {
            assert!(!text.contains(":endpoint/*") && !text.contains(":model-package/*"), "{key}: {text}");
        }
        // Things that these delete may have users anywhere in the account.
        if ["endpoint-delete", "prune"].contains(&command) {
            assert_eq!(looks(&applied), looks(&shipped), "{key}");
            assert!(!looks(&applied).is_empty(), "{key}");
        }
    }
}

/// Statements of a policy that only read from SageMaker: `Sid`, and the names of the resources.
fn looks(policy: &Value) -> Vec<(String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let reads =
        |action: &String| ["sagemaker:Describe", "sagemaker:List"].iter().any(|start| action.starts_with(start));
    let statements =
        policy["Statement"].as_array().unwrap().iter().filter(|one| texts(&one["Action"]).iter().all(reads));
    let names =
        |one: &Value| texts(&one["Resource"]).iter().map(|text| text.rsplit(':').next().unwrap().to_owned()).collect();
    statements.map(|one| (one["Sid"].as_str().unwrap().to_owned(), names(one))).collect()
}

/// The linter finds no unknown action, no resource of another kind, and no `*` where AWS has another resource.
#[track_caller]
pub(super) fn assert_linted(policies: &BTreeMap<String, String>) {
    let python = clients().map(|folder| folder.join("python3"));
    let has_linter = |python: &PathBuf| {
        Command::new(python).args(["-c", "import parliament"]).output().is_ok_and(|ended| ended.status.success())
    };
    let Some(python) = python.filter(has_linter) else {
        return skipped("the modules' policies", "there is no parliament");
    };
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(python);
    program.arg("tests/fixtures/conformance/policies.py").current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in policies {
        let file = folder.path().join(format!("{}.json", name.replace(['/', '"', '[', ']'], "-")));
        std::fs::write(&file, text).unwrap();
        program.arg(file);
    }
    let ended = program.output().unwrap();
    assert!(ended.status.success(), "{}", shown(&ended));
}

fn texts(policies: &Value) -> BTreeMap<String, String> {
    policies.as_object().unwrap().iter().map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect()
}

/// The tests of `complete`, in its folder.
const TESTS: &str = "tests/all_modules.tftest.hcl";

/// The tests with the names of `GovCloud`, which no variable can set in mocks.
fn of_govcloud(tests: &str) -> String {
    let names = [
        ("partition = \"aws\"", "partition = \"aws-us-gov\""),
        ("arn:aws:", "arn:aws-us-gov:"),
        ("eu-west-1", "us-gov-west-1"),
    ];
    names.iter().fold(tests.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// Nothing that is made names another partition or region, but for comments of the operator's file.
#[track_caller]
fn assert_names_of_govcloud(outputs: &BTreeMap<String, Value>) {
    let file = outputs["operator_file"].as_str().unwrap();
    let lines = file.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
    let policies = ["policies", "command_policies"].map(|name| outputs[name].to_string());
    for text in lines.chain(policies) {
        assert!(!text.contains("arn:aws:") && !text.contains("eu-west-1"), "{text}");
    }
}

/// Runs the tests of `complete`, and gives the outputs of their last run.
#[track_caller]
fn tested(terraform: &Terraform) -> BTreeMap<String, Value> {
    let ended = terraform.call("complete", &["test", "-json", "-verbose", &format!("-filter={TESTS}")]);
    let text = String::from_utf8(ended.stdout.clone()).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut state = None;
    for event in events {
        assert!(event["@level"] != "error", "{}", event["@message"].as_str().unwrap_or_default());
        if event["type"] == "test_state" {
            state = Some(event["test_state"]["outputs"].clone());
        }
    }
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    outputs(&state.unwrap())
}

/// Form, validity, and what `complete`, and with it each module, makes of a mocked provider. `INFRASTRUCTURE=all`: in `GovCloud`, too, and each
/// module and its own tests by itself.
#[test]
fn modules_are_valid_and_make_the_policies_of_their_files() {
    let Some(terraform) = Terraform::new("the OpenTofu modules") else { return };
    terraform.passes(".", &["fmt", "-check", "-recursive"]);
    terraform.init("complete");
    let outputs = tested(&terraform);
    assert_policies(&outputs);
    assert_command_policies(&outputs);
    let mut policies = texts(&outputs["policies"]);
    policies.extend(texts(&outputs["command_policies"]));
    assert_linted(&policies);
    host::assert_set_up(&outputs);
    assert_runs_a_job(&outputs);
    if Environment::of_process().get("INFRASTRUCTURE") != Some("all") {
        return skipped("commands under the module's roles, GovCloud, and each module", "INFRASTRUCTURE=all runs them");
    }
    assert_commands_run(&outputs);
    let tests = terraform.module("complete").join(TESTS);
    std::fs::write(&tests, of_govcloud(&std::fs::read_to_string(&tests).unwrap())).unwrap();
    let outputs = tested(&terraform);
    assert_names_of_govcloud(&outputs);
    assert_policies(&outputs);
    assert_command_policies(&outputs);
    assert_runs_a_job(&outputs);
    for module in MODULES {
        terraform.init(module);
        terraform.passes(module, &["validate", "-no-color"]);
        let tests: PathBuf = terraform.module(module).join("tests");
        if module != "complete" && tests.is_dir() {
            let ended = terraform.call(module, &["test", "-no-color"]);
            assert!(ended.status.success(), "{module}: {}", shown(&ended));
        }
    }
}
