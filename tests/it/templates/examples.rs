//! The examples of the project's README: they name components and inputs that exist, give what is required, and every component has one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::component::{Components, components, folder};
use super::yaml::documents;
use crate::conformance::{shown, skipped};

/// One example: its text as a file of a project, the component and its inputs.
pub(super) struct Example {
    pub(super) text: String,
    pub(super) component: String,
    pub(super) inputs: Map<String, Value>,
}

pub(super) fn examples() -> Vec<Example> {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let block = Regex::new(r"(?s)```yaml\n(.*?)```").unwrap();
    let reference = Regex::new(r"^\$CI_SERVER_FQDN/ml/components/([a-z-]+)@\d+\.\d+\.\d+$").unwrap();
    let example = |text: String| {
        let document = documents(&text, "README.md").remove(0);
        let entries = document["include"].as_array().unwrap_or_else(|| panic!("{text}"));
        let [entry] = entries.as_slice() else { panic!("not one include:\n{text}") };
        let named = entry["component"].as_str().unwrap();
        let component = reference.captures(named).unwrap_or_else(|| panic!("{named}"))[1].to_owned();
        Example { component, inputs: entry["inputs"].as_object().cloned().unwrap_or_default(), text }
    };
    block.captures_iter(&readme).map(|found| example(found[1].to_owned())).collect()
}

#[test]
fn examples_pass_inputs_that_exist() {
    let (all, examples) = (components(), examples());
    for example in &examples {
        fits(example, &all);
    }
    let shown: BTreeSet<_> = examples.iter().map(|example| &example.component).collect();
    assert_eq!(shown, all.keys().collect::<BTreeSet<_>>(), "each component has an example");
}

/// Components that a project's pipeline includes, with inputs that exist.
#[track_caller]
pub(crate) fn has_inputs_that_exist(pipeline: &str, of: &str) {
    let all = components();
    let reference = Regex::new(r"^\$CI_SERVER_FQDN/ml/components/([a-z-]+)@\d+\.\d+\.\d+$").unwrap();
    let document = documents(pipeline, of).remove(0);
    for entry in document["include"].as_array().unwrap_or_else(|| panic!("{of} includes no component")) {
        let named = entry["component"].as_str().unwrap();
        let component = reference.captures(named).unwrap_or_else(|| panic!("{of}: {named}"))[1].to_owned();
        let inputs = entry["inputs"].as_object().cloned().unwrap_or_default();
        fits(&Example { component, inputs, text: String::new() }, &all);
    }
}

#[track_caller]
fn fits(example: &Example, all: &Components) {
    let name = &example.component;
    let component = all.get(name).unwrap_or_else(|| panic!("no component {name}"));
    for (input, value) in &example.inputs {
        let entry = component.inputs.get(input).unwrap_or_else(|| panic!("{name} has no input {input}"));
        let options = entry["options"].as_array();
        assert!(options.is_none_or(|options| options.contains(value)), "{name}: {input}: {value}");
        let form = entry["regex"].as_str().map(|form| Regex::new(form).unwrap());
        assert!(form.is_none_or(|form| form.is_match(value.as_str().unwrap())), "{name}: {input}: {value}");
        assert_eq!(entry["type"] == "array", value.is_array(), "{name}: {input}: {value}");
    }
    for (input, entry) in &component.inputs {
        assert!(entry.get("default").is_some() || example.inputs.contains_key(input), "{name}: {input} is required");
    }
}

/// The project's own pipeline includes every part, with inputs that exist, and leaves out all their jobs.
#[test]
fn the_own_pipeline_includes_every_part() {
    let own = documents(&std::fs::read_to_string(folder().join(".gitlab-ci.yml")).unwrap(), ".gitlab-ci.yml").remove(0);
    let reference = Regex::new(r"^\$CI_SERVER_FQDN/\$CI_PROJECT_PATH/([a-z-]+)@\$CI_COMMIT_SHA$").unwrap();
    let all = components();
    let mut included = BTreeSet::new();
    for entry in own["include"].as_array().unwrap() {
        let name = reference.captures(entry["component"].as_str().unwrap()).unwrap()[1].to_owned();
        let inputs = entry["inputs"].as_object().cloned().unwrap_or_default();
        let rules = all[&name].inputs.keys().filter(|input| input.ends_with("rules"));
        for input in rules {
            assert_eq!(inputs.get(input), Some(&json!([{"when": "never"}])), "{name}: {input}");
        }
        fits(&Example { component: name.clone(), inputs, text: String::new() }, &all);
        included.insert(name);
    }
    let parts: BTreeSet<_> = all.values().filter(|part| !part.is_flow()).map(|part| part.name.clone()).collect();
    assert_eq!(included, parts);
}

/// The command of the README puts the folder into another project, and a later version on top of it.
#[test]
fn one_command_publishes_the_components() {
    let git = |folder: &Path, arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "n").env(format!("GIT_{who}_EMAIL"), "n@example.com");
        }
        git.output().unwrap()
    };
    let work = tempfile::tempdir().unwrap();
    let (clone, remote) = (work.path().join("clone"), work.path().join("components.git"));
    std::fs::create_dir_all(clone.join("ci-templates/templates/job")).unwrap();
    if String::from_utf8_lossy(&git(work.path(), &["subtree"]).stdout).is_empty() {
        skipped("one_command_publishes_the_components", "git has no subtree");
        return;
    }
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let command = readme.split_once("```sh\n").unwrap().1.split_once("\n```").unwrap().0;
    let command = command.replace("git@gitlab.example.com:ml/components.git", remote.to_str().unwrap());
    assert!(git(work.path(), &["init", "--quiet", "--bare", "components.git"]).status.success());
    assert!(git(&clone, &["init", "--quiet", "--initial-branch", "main"]).status.success());
    for version in ["one", "two"] {
        std::fs::write(clone.join("other.txt"), version).unwrap();
        std::fs::write(clone.join("ci-templates/README.md"), version).unwrap();
        std::fs::write(clone.join("ci-templates/templates/job/template.yml"), version).unwrap();
        assert!(git(&clone, &["add", "."]).status.success());
        assert!(git(&clone, &["commit", "--quiet", "--message", version]).status.success());
        let ended = Command::new("sh").args(["-c", &command]).current_dir(&clone).output().unwrap();
        assert!(ended.status.success(), "{}", shown(&ended));
        let listed = git(&remote, &["ls-tree", "-r", "--name-only", "main"]).stdout;
        assert_eq!(String::from_utf8(listed).unwrap(), "README.md\ntemplates/job/template.yml\n");
        assert_eq!(String::from_utf8(git(&remote, &["show", "main:README.md"]).stdout).unwrap(), version);
    }
}

/// Each heading of the contents leads to a section.
#[test]
fn the_contents_lead_to_sections() {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let link = Regex::new(r"\]\(#([a-z-]+)\)").unwrap();
    let heading =
        |line: &str| Some(line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
    let headings: BTreeSet<_> = readme.lines().filter_map(heading).collect();
    let mut links = 0;
    for found in link.captures_iter(&readme) {
        links += 1;
        assert!(headings.contains(&found[1]), "{}", &found[1]);
    }
    assert!(links > 10);
}
