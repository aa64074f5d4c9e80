//! Where each value of the settings comes from: a line of the file, a variable of the environment, or the program. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::base::plain::{HIDDEN, without_password};
use crate::config::env::Environment;
use crate::config::key_lines;
use crate::config::settings::Settings;

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A line of the operator's file, from 1.
    Line(usize),
    /// A variable of the environment of the runner's service, as this command sees it.
    Variable(&'static str),
    Default,
}

/// Variables of the AWS SDK that take effect where the file has nothing.
const VARIABLES: [(&str, &[&str]); 5] = [
    ("aws.region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("aws.endpoint_url", &["AWS_ENDPOINT_URL"]),
    ("aws.container_endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    ("aws.use_fips_endpoint", &["AWS_USE_FIPS_ENDPOINT"]),
    ("aws.use_dualstack_endpoint", &["AWS_USE_DUALSTACK_ENDPOINT"]),
];

/// Every key with its value, in the order of names. `settings` are those of `text` alone.
pub(super) fn all(text: &str, settings: &Settings, env: &Environment) -> serde_json::Result<Vec<KeyValue>> {
    let mut adopted = settings.clone();
    adopted.adopt_endpoint(env);
    let mut found: BTreeMap<String, (Value, Origin)> = BTreeMap::new();
    for (key, value, line) in key_lines::values(text) {
        let value = shown(&key, serde_json::to_value(value)?);
        found.insert(key, (value, Origin::Line(line)));
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    flatten(String::new(), serde_json::to_value(settings)?, &mut before);
    flatten(String::new(), serde_json::to_value(&adopted)?, &mut after);
    for ((key, value), (_, effective)) in before.into_iter().zip(after) {
        let of_rule = key.starts_with("rules[") || key.starts_with("secrets.allow[");
        let is_changed = value != effective;
        if of_rule || (!is_changed && is_there(&found, &key)) {
            continue;
        }
        let variable = VARIABLES.iter().find(|(name, _)| *name == key);
        let variable = variable.and_then(|(_, names)| names.iter().find(|name| env.get(name).is_some()));
        let (value, origin) = match variable {
            Some(name) if is_changed => (effective, Origin::Variable(name)),
            Some(name) if key == "aws.region" => (env.get(name).into(), Origin::Variable(name)),
            _ => (value, Origin::Default),
        };
        let value = shown(&key, value);
        found.insert(key, (value, origin));
    }
    Ok(found.into_iter().map(|(key, (value, origin))| KeyValue { key, value, origin }).collect())
}

/// `true` when the key is there, or one in it.
fn is_there(found: &BTreeMap<String, (Value, Origin)>, key: &str) -> bool {
    let begins = |start: String| found.range(start.clone()..).next().is_some_and(|(key, _)| key.starts_with(&start));
    found.contains_key(key) || begins(format!("{key}[")) || begins(format!("{key}."))
}

fn flatten(key: String, value: Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let key = if key.is_empty() { name } else { format!("{key}.{name}") };
                flatten(key, value, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(format!("{key}[{index}]"), value, found);
            }
        }
        value => found.push((key, value)),
    }
}

/// The value without secrets: those of the containers' environment, and passwords in addresses.
fn shown(key: &str, value: Value) -> Value {
    match value {
        Value::String(_) if key.starts_with("job.environment.") => HIDDEN.into(),
        Value::String(text) => without_password(&text).into(),
        Value::Array(items) => items.into_iter().map(|item| shown(key, item)).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[aws]\nca_bundle = \"/x\"\n[storage]\nbucket = \"b\"\n[job]\nimage = \"u:p@host\"\n[job.environment]\nA = \"s3cret\"\n\
                        [[rules]]\nname = \"r\"\n[rules.allow]\nmax_cost = 3.5\n[prices]\n\"ml.a.b\" = 1.0\n";

    fn of(text: &str, pairs: &[(&str, &str)]) -> Vec<KeyValue> {
        let env = Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())));
        all(text, &toml::from_str(text).unwrap(), &env).unwrap()
    }

    fn one(found: &[KeyValue], key: &str) -> (Value, Origin) {
        let found: Vec<_> = found.iter().filter(|found| found.key == key).collect();
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        (found[0].value.clone(), found[0].origin.clone())
    }

    #[test]
    fn each_value_has_its_origin() {
        let found = of(TEXT, &[("AWS_ENDPOINT_URL", "http://u:p@h:1/x"), ("AWS_REGION", "eu-west-1")]);
        assert_eq!(one(&found, "storage.bucket"), ("b".into(), Origin::Line(4)));
        assert_eq!(one(&found, "storage.prefix"), ("sagemaker-executor".into(), Origin::Default));
        assert_eq!(one(&found, "aws.region"), ("eu-west-1".into(), Origin::Variable("AWS_REGION")));
        let endpoint = ("http://(hidden)@h:1/x".into(), Origin::Variable("AWS_ENDPOINT_URL"));
        assert_eq!(one(&found, "aws.endpoint_url"), endpoint);
        assert_eq!(one(&found, "job.environment.A"), (HIDDEN.into(), Origin::Line(8)));
        assert_eq!(one(&found, "rules[0].allow.max_cost"), (3.5.into(), Origin::Line(12)));
        assert_eq!(one(&found, "prices.ml.a.b"), (1.0.into(), Origin::Line(14)));
        assert_eq!(one(&found, "limits.lease_seconds"), (900.into(), Origin::Default));
        assert!(!serde_json::to_string(&found).unwrap().contains("s3cret"));
    }

    #[test]
    fn the_file_wins_over_the_environment() {
        let text = TEXT.replace("ca_bundle = \"/x\"", "region = \"us-east-1\"\nendpoint_url = \"http://h\"");
        let found = of(&text, &[("AWS_ENDPOINT_URL", "http://e"), ("AWS_REGION", "eu-west-1")]);
        assert_eq!(one(&found, "aws.region"), ("us-east-1".into(), Origin::Line(2)));
        assert_eq!(one(&found, "aws.endpoint_url"), ("http://h".into(), Origin::Line(3)));
    }
}
