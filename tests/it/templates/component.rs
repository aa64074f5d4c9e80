//! A component as GitLab reads it: its inputs, and its text with values put in, with the files that it includes and what its jobs
//! inherit. A value is put in as text, a list as JSON, as GitLab does since its version 16.11.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value};

use super::yaml::documents;

/// A place for the value of an input.
static PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\[\[ inputs\.([a-z_0-9-]+) \]\]").unwrap());

/// Keywords at the top of a pipeline that are no jobs.
pub(super) const GLOBAL: [&str; 10] = [
    "default",
    "include",
    "stages",
    "variables",
    "workflow",
    "image",
    "services",
    "cache",
    "before_script",
    "after_script",
];

#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) name: String,
    /// Name of each input, with its entry.
    pub(super) inputs: BTreeMap<String, Value>,
    /// Text below the head, with its comments.
    pub(super) body: String,
}

/// The components of a project, by name.
pub(super) type Components = BTreeMap<String, Component>;

/// `ci-templates`, the root of the project of components.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ci-templates")
}

pub(super) fn components() -> Components {
    let entries = std::fs::read_dir(folder().join("templates")).unwrap();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path.join("template.yml")).unwrap();
        (name.clone(), Component::new(&name, &text))
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

impl Component {
    #[track_caller]
    pub(super) fn new(name: &str, text: &str) -> Self {
        let (head, body) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{name} has no head"));
        let head = documents(head, name).remove(0);
        let inputs = head["spec"]["inputs"].as_object().unwrap_or_else(|| panic!("{name}: no spec:inputs"));
        let inputs = inputs.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
        Self { name: name.to_owned(), inputs, body: body.to_owned() }
    }

    /// A flow owns a pipeline; a part is a piece of one.
    pub(super) fn is_flow(&self) -> bool {
        self.name.ends_with("-project")
    }

    /// The inputs that the text takes.
    pub(super) fn used(&self) -> Vec<String> {
        PLACE.captures_iter(&self.body).map(|found| found[1].to_owned()).collect()
    }

    /// Values of all inputs: those of `given`, else the default, else for a required one a text that nothing else has.
    pub(super) fn values(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let value = |(name, entry): (&String, &Value)| {
            let first_option = || entry["options"].get(0).cloned();
            let value = given.get(name).or_else(|| entry.get("default")).cloned().or_else(first_option);
            (name.clone(), value.unwrap_or_else(|| format!("given-{name}").into()))
        };
        self.inputs.iter().map(value).collect()
    }

    /// The text with values put in, as one document.
    #[track_caller]
    pub(super) fn interpolated(&self, given: &Map<String, Value>) -> Value {
        let values = self.values(given);
        let put_in = |found: &Captures<'_>| match values.get(&found[1]) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => panic!("{}: the input {} is not declared", self.name, &found[1]),
        };
        let text = PLACE.replace_all(&self.body, put_in);
        documents(&text, &self.name).remove(0)
    }

    /// The pipeline of this component alone: its keywords, its jobs and those of included files, each with what it inherits.
    #[track_caller]
    pub(super) fn expanded(&self, given: &Map<String, Value>, all: &Components) -> Map<String, Value> {
        let merged = self.merged(given, all);
        let names: Vec<_> = merged.keys().filter(|name| !GLOBAL.contains(&name.as_str())).cloned().collect();
        let mut pipeline = merged.clone();
        for name in names {
            let job = inherited(&merged, &name, &self.name);
            if name.starts_with('.') {
                pipeline.remove(&name);
            } else {
                pipeline.insert(name, job);
            }
        }
        pipeline
    }

    #[track_caller]
    fn merged(&self, given: &Map<String, Value>, all: &Components) -> Map<String, Value> {
        let own = self.interpolated(given);
        let mut merged = Map::new();
        for (name, inputs) in includes(&own) {
            let included =
                all.get(&name).unwrap_or_else(|| panic!("{} includes {name}, which is not there", self.name));
            for (key, value) in included.merged(&inputs, all) {
                merge(merged.entry(key).or_insert(Value::Null), value);
            }
        }
        for (key, value) in own.as_object().unwrap().clone().into_iter().filter(|(key, _)| key != "include") {
            merge(merged.entry(key).or_insert(Value::Null), value);
        }
        merged
    }
}

/// Files of the same project that a document includes, by component, with the inputs that it passes.
pub(super) fn includes(document: &Value) -> Vec<(String, Map<String, Value>)> {
    let entries = document["include"].as_array().cloned().unwrap_or_default();
    let entry = |entry: Value| {
        let path = entry["local"].as_str().unwrap_or_else(|| panic!("{entry} is no local file")).to_owned();
        let name = path.strip_prefix("/templates/").and_then(|path| path.strip_suffix("/template.yml"));
        (name.unwrap_or(&path).to_owned(), entry["inputs"].as_object().cloned().unwrap_or_default())
    };
    entries.into_iter().map(entry).collect()
}

/// The job `name` with what it extends.
fn inherited(pipeline: &Map<String, Value>, name: &str, of: &str) -> Value {
    let job = pipeline.get(name).unwrap_or_else(|| panic!("{of}: a job extends {name}, which is not there"));
    let Some(base) = job["extends"].as_str() else { return job.clone() };
    let mut whole = inherited(pipeline, base, of);
    merge(&mut whole, job.clone());
    whole.as_object_mut().unwrap().remove("extends");
    whole
}

/// Objects are merged, anything else is replaced, as GitLab merges files and `extends`.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
