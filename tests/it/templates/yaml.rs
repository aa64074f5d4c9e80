//! YAML of GitLab as JSON values, and the way down in them.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};

/// The documents of `text`. Keys are texts; a key that is none, and YAML that cannot be read, end the test.
#[track_caller]
pub(crate) fn documents(text: &str, of: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{of}: {error}\n{text}"));
    documents.iter().map(|document| value(document, of)).collect()
}

#[track_caller]
fn value(yaml: &Yaml<'_>, of: &str) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => (*truth).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.clone().into_owned().into(),
        Yaml::Sequence(items) => items.iter().map(|item| value(item, of)).collect(),
        Yaml::Mapping(entries) => {
            let entry = |(key, item): (&Yaml<'_>, &Yaml<'_>)| {
                let key = value(key, of);
                let key = key.as_str().unwrap_or_else(|| panic!("{of}: the key {key} is no text")).to_owned();
                (key, value(item, of))
            };
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        // GitLab puts a keyword of another job here; the list names both.
        Yaml::Tagged(tag, item) if tag.suffix == "reference" => value(item, of),
        other => panic!("{of}: {other:?} is not read here"),
    }
}

/// The texts of `value`: of a text itself, of a list its texts.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// Every text below `value`, keys included.
pub(crate) fn all_texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(all_texts).collect(),
        Value::Object(entries) => {
            entries.iter().flat_map(|(key, item)| std::iter::once(key.as_str()).chain(all_texts(item))).collect()
        }
        _ => Vec::new(),
    }
}
