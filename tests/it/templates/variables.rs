//! The rules that each input of a component has a variable of the same meaning, where GitLab leaves room for one, and that a condition
//! asks for the branch of a pipeline before it compares it with a variable. Reads parsed YAML alone.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::component::{Component, Components};
use super::yaml::{documents, texts};

/// How a description names the variable of its input.
static NAMED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bVariable ([A-Z][A-Z0-9_]+)\b").unwrap());

/// Keywords of jobs in which GitLab replaces no variables (`doc/ci/variables/where_variables_can_be_used.md`), and those that hold the name
/// of a job.
const WITHOUT_VARIABLES: [&str; 7] = ["stage", "timeout", "deployment_tier", "expire_in", "job", "extends", "on_stop"];

/// A place where the value of an input is put in.
enum Place {
    /// The name of a job.
    JobName,
    /// The value of this key.
    Key(String),
    /// This input of an included component.
    Passed { component: String, input: String },
}

/// Inputs without a variable, and variables that are named and not used.
///
/// An input needs none when it is required, since a variable cannot stand in for it; when it is an array, which no variable holds; and when
/// it is only put into keywords that GitLab replaces no variables in.
pub(super) fn findings(component: &Component, all: &Components) -> Vec<String> {
    let mut found: Vec<_> = component.body.lines().filter_map(unasked_branch).collect();
    let rules = component.inputs.values().filter_map(|entry| entry["default"].as_array()).flatten();
    let files = rules.flat_map(|rule| texts(&rule["exists"])).filter(|file| !file.starts_with('$'));
    found.extend(files.map(|file| format!("literal-file: {file}")));
    for (name, entry) in &component.inputs {
        let places = places(component, name);
        match variable(entry) {
            Some(variable) if !is_used(variable, entry, &places, all) => {
                found.push(format!("variable-not-used: {variable} of {name}"));
            }
            None if !needs_none(entry, &places, all) => found.push(format!("input-without-variable: {name}")),
            _ => {}
        }
    }
    found
}

/// A condition that compares the branch with a variable, and holds where neither has a value: GitLab takes the two for equal, and a merge
/// request has no branch. The variables of a flow are those of its `workflow`, in whose place a project may put its own.
fn unasked_branch(line: &str) -> Option<String> {
    let condition = line.split_once("if: ")?.1;
    let compares = ["$CI_COMMIT_BRANCH == $LIFECYCLE_", "$CI_COMMIT_BRANCH != $LIFECYCLE_"];
    let asks = ["$CI_COMMIT_BRANCH && ", "$CI_COMMIT_BRANCH == null || ", "$DEPLOY_ENVIRONMENT == $LIFECYCLE_"];
    let is_unasked =
        compares.iter().any(|text| condition.contains(text)) && !asks.iter().any(|text| condition.starts_with(text));
    is_unasked.then(|| format!("branch-not-asked-for: {condition}"))
}

/// The variable that the description of an input names.
fn variable(entry: &Value) -> Option<&str> {
    let named = NAMED.captures(entry["description"].as_str()?)?;
    named.get(1).map(|name| name.as_str())
}

/// A variable is used as the default of its input, as a variable of a job or of the pipeline that has the input's value, or by the included
/// component that gets the input.
fn is_used(name: &str, entry: &Value, places: &[Place], all: &Components) -> bool {
    let by_place = |place: &Place| match place {
        Place::JobName => false,
        Place::Key(key) => key == name,
        Place::Passed { component, input } => {
            all.get(component).and_then(|part| variable(part.inputs.get(input)?)) == Some(name)
        }
    };
    // A rule that looks for the file of the input takes none of its variable for it.
    let is_looked_for = places.iter().any(|place| matches!(place, Place::Key(key) if key == "exists"));
    let is_default = entry["default"].as_str() == Some(format!("${name}").as_str());
    !is_looked_for && (is_default || places.iter().any(by_place))
}

fn needs_none(entry: &Value, places: &[Place], all: &Components) -> bool {
    let by_place = |place: &Place| match place {
        Place::JobName => true,
        Place::Key(key) => WITHOUT_VARIABLES.contains(&key.as_str()),
        Place::Passed { component, input } => all.get(component).is_some_and(|part| {
            part.inputs.get(input).is_some_and(|entry| {
                variable(entry).is_none()
                    && (entry.get("default").is_none() || needs_none(entry, &self::places(part, input), all))
            })
        }),
    };
    entry.get("default").is_none() || entry["type"] == "array" || places.iter().all(by_place)
}

/// Where the value of an input is put in.
fn places(component: &Component, input: &str) -> Vec<Place> {
    let raw = documents(&component.body, &component.name).remove(0);
    let placed = format!("$[[ inputs.{input} ]]");
    let mut found = Vec::new();
    for (key, value) in raw.as_object().unwrap() {
        if key == "include" {
            for entry in value.as_array().into_iter().flatten() {
                let component = entry["local"].as_str().unwrap_or_default();
                let component =
                    component.strip_prefix("/templates/").and_then(|path| path.strip_suffix("/template.yml"));
                for (passed, value) in entry["inputs"].as_object().into_iter().flatten() {
                    // Rules and needs are lists, of jobs and conditions of their own.
                    let is_itself = value.as_str().is_some_and(|text| text.contains(&placed));
                    if is_itself {
                        let component = component.unwrap_or_default().to_owned();
                        found.push(Place::Passed { component, input: passed.clone() });
                    } else {
                        below(passed, value, &placed, &mut found);
                    }
                }
            }
        } else {
            if key.contains(&placed) {
                found.push(Place::JobName);
            }
            below(key, value, &placed, &mut found);
        }
    }
    found
}

/// Adds the keys whose value, or a text in whose list, has the input.
fn below(key: &str, value: &Value, placed: &str, found: &mut Vec<Place>) {
    match value {
        Value::String(text) if text.contains(placed) => found.push(Place::Key(key.to_owned())),
        Value::Array(items) => items.iter().for_each(|item| below(key, item, placed, found)),
        Value::Object(entries) => entries.iter().for_each(|(key, value)| below(key, value, placed, found)),
        _ => {}
    }
}
