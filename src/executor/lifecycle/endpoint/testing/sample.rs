//! A sample: a request to the endpoint, and what its answer must be. Its types are those of the files. No I/O.

use std::path::PathBuf;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::unique_keys::UniqueKeys;

/// A request to the endpoint, and what its answer must be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleEntry {
    /// Name in reports; that of the file with a number when absent.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// MIME type of the request.
    #[serde(default)]
    pub(super) content_type: Option<String>,
    /// MIME type that the answer shall have.
    #[serde(default)]
    pub(super) accept: Option<String>,
    /// Body of the request: text is sent as it is, any other value as JSON.
    #[serde(default, deserialize_with = "present")]
    pub(super) body: Option<Value>,
    /// File with the body, relative to the file of the sample.
    #[serde(default)]
    pub(super) body_file: Option<PathBuf>,
    /// Body in Base64.
    #[serde(default)]
    pub(super) body_base64: Option<String>,
    /// Rules for the answer. Without one, the container must answer with success.
    #[serde(default)]
    pub(super) expect: SampleExpectation,
}

/// Rules for an answer. All of them must hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SampleExpectation {
    /// HTTP status of the container; 200 when absent. With an error status the other rules are about the error's text.
    #[schemars(range(min = 200, max = 599))]
    pub(super) status: Option<u16>,
    /// The answer: text is compared with the answer's text, both without line breaks at the end, any other value with the answer read as
    /// JSON.
    #[serde(deserialize_with = "present")]
    pub(super) equals: Option<Value>,
    /// Text that the answer contains.
    pub(super) contains: Option<String>,
    /// Rules for values in an answer of JSON.
    pub(super) json: Vec<ValueRule>,
    /// MIME type of the answer. Parameters count only when this text has some.
    pub(super) content_type: Option<String>,
    /// Longest time of an answer, in milliseconds.
    pub(super) max_ms: Option<f64>,
}

/// A rule for a value in an answer of JSON.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueRule {
    /// JSONPath that finds exactly one value, as `$.predictions[0]`.
    #[schemars(with = "String")]
    pub(super) path: JsonPath,
    /// The value. Numbers are compared as numbers: 1 is 1.0.
    #[serde(default, deserialize_with = "present")]
    pub(super) equals: Option<Value>,
    /// Least value.
    #[serde(default)]
    pub(super) min: Option<f64>,
    /// Largest value.
    #[serde(default)]
    pub(super) max: Option<f64>,
    /// A number, or lists of numbers, from which the value may differ by the tolerance.
    #[serde(default)]
    pub(super) near: Option<Value>,
    /// Largest difference from `near`.
    #[serde(default)]
    pub(super) tolerance: Option<f64>,
    /// Largest difference as a share of the number in `near`. With `tolerance` beside it, the larger difference is allowed.
    #[serde(default)]
    pub(super) relative_tolerance: Option<f64>,
}

/// A value that is there, also `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    UniqueKeys::deserialize(deserializer).map(|UniqueKeys(value)| Some(value))
}

/// A sample that can be sent.
#[derive(Debug, Clone)]
pub(super) struct EndpointSample {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) accept: Option<String>,
    pub(super) body: Bytes,
    pub(super) expect: SampleExpectation,
}

impl SampleExpectation {
    /// Finds a rule that no answer of an asynchronous endpoint can satisfy: its objects tell neither a status nor a type.
    pub(super) fn mistake_on_asynchronous(&self) -> Option<&'static str> {
        let has_status = self.status.is_some_and(|status| status != 200);
        let rules = [(has_status, "expect.status"), (self.content_type.is_some(), "expect.content_type")];
        rules.into_iter().find_map(|(is_there, rule)| is_there.then_some(rule))
    }

    /// Finds a rule that no answer can satisfy, or that every answer does.
    pub(super) fn mistake(&self) -> Option<String> {
        if self.status.is_some_and(|status| !(200..600).contains(&status)) {
            return Some("`expect.status` must be from 200 to 599".to_owned());
        }
        if self.max_ms.is_some_and(|limit| limit <= 0.0) {
            return Some("`expect.max_ms` must be above 0".to_owned());
        }
        if self.contains.as_deref() == Some("") {
            return Some("`expect.contains` is empty, which every answer contains".to_owned());
        }
        self.json.iter().find_map(|rule| Some(format!("the rule of `{}` {}", rule.path, rule.mistake()?)))
    }
}

impl ValueRule {
    fn mistake(&self) -> Option<&'static str> {
        let has_tolerance = self.tolerance.is_some() || self.relative_tolerance.is_some();
        if self.equals.is_none() && self.min.is_none() && self.max.is_none() && self.near.is_none() {
            return Some("says nothing: add `equals`, `min`, `max` or `near`");
        }
        if self.near.is_some() != has_tolerance {
            return Some("needs `near` together with `tolerance` or `relative_tolerance`");
        }
        if self.tolerance.is_some_and(|number| number < 0.0)
            || self.relative_tolerance.is_some_and(|number| number < 0.0)
        {
            return Some("has a tolerance below 0");
        }
        if self.near.as_ref().is_some_and(|near| !is_numeric(near)) {
            return Some("has no number, and no lists of numbers, in `near`");
        }
        let is_empty = self.min.zip(self.max).is_some_and(|(min, max)| min > max);
        is_empty.then_some("has a `min` above its `max`")
    }
}

fn is_numeric(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Array(values) => !values.is_empty() && values.iter().all(is_numeric),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::config::env::Environment;

    #[test_case(r#"{"status": 400}"# => Some("expect.status"))]
    #[test_case(r#"{"content_type": "text/csv"}"# => Some("expect.content_type"))]
    #[test_case(r#"{"status": 200, "equals": 1, "max_ms": 5}"# => None)]
    fn rules_that_cannot_hold_on_asynchronous_endpoints_are_found(rules: &str) -> Option<&'static str> {
        serde_json::from_str::<SampleExpectation>(rules).unwrap().mistake_on_asynchronous()
    }

    /// `INSTA_UPDATE=always` writes the file, as for the snapshots.
    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/samples.schema.json");
        let text = serde_json::to_string_pretty(&schemars::schema_for!(Vec<SampleEntry>)).unwrap() + "\n";
        if Environment::of_process().get("INSTA_UPDATE") == Some("always") {
            std::fs::write(file, &text).unwrap();
        }
        assert!(std::fs::read_to_string(file).unwrap_or_default() == text, "run this test with `INSTA_UPDATE=always`");
    }
}
