//! The examples of the project's README: they name components and inputs that exist, give what is required, and every component has one.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};

use super::component::{Components, components, folder};
use super::yaml::documents;

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
