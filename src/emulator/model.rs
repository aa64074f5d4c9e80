//! The constraints of each service's requests, from the public service models.
//!
//! The tables are generated: `model/operations.json` lists the operations, `tests/fixtures/conformance/constraints.py`
//! writes the rest. `validate.rs` checks requests against them.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use regex::Regex;
use serde::Deserialize;

/// The request shapes of one service.
#[derive(Debug, Deserialize)]
pub(crate) struct Model {
    /// The part of the header `x-amz-target` before the dot.
    pub(crate) target: String,
    /// The shape of each operation's request.
    pub(crate) operations: BTreeMap<String, String>,
    /// The shape of each operation's result, for services that speak more than JSON.
    #[serde(default)]
    results: BTreeMap<String, String>,
    shapes: BTreeMap<String, Shape>,
}

/// The constraints of a value. Bounds include both ends; a shape refers to its member shapes by name.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Shape {
    Structure {
        members: Vec<Member>,
    },
    List {
        #[serde(flatten)]
        length: Length,
        member: String,
    },
    Map {
        #[serde(flatten)]
        length: Length,
        key: String,
        value: String,
    },
    String(Text),
    #[serde(alias = "long")]
    Integer {
        min: Option<i64>,
        max: Option<i64>,
    },
    #[serde(alias = "double")]
    Float {
        min: Option<f64>,
        max: Option<f64>,
    },
    /// In epoch seconds.
    Timestamp,
    Boolean,
    /// In base64.
    Blob,
}

/// Bounds of a list, a map or a text in characters.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(crate) struct Length {
    #[serde(default)]
    pub(crate) min: usize,
    pub(crate) max: Option<usize>,
}

/// A string, with its length, its pattern, and the values that are allowed when there is a list of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Text {
    #[serde(flatten)]
    pub(crate) length: Length,
    pub(crate) pattern: Option<Pattern>,
    #[serde(default, rename = "enum")]
    pub(crate) words: Vec<String>,
}

/// A member of a structure.
#[derive(Debug, Deserialize)]
#[serde(from = "(String, String, bool)")]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) required: bool,
}

impl From<(String, String, bool)> for Member {
    fn from((name, shape, required): (String, String, bool)) -> Self {
        Self { name, shape, required }
    }
}

/// A regular expression for a whole text, compiled when it is first used.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Pattern {
    pub(crate) text: String,
    compiled: OnceLock<Regex>,
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }
}

/// Parts of patterns in Java's dialect, and their translations for the crate `regex`. Bounds that the length of the whole text
/// implies are left out, because they would take too much memory.
const DIALECT: &[(&str, &str)] = &[
    (r"\p{Alnum}", "[:alnum:]"),
    (r"\p{Print}+", "[[:print:]]+"),
    (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", r"[\u0020-\u{10FFFF}\r\n\t]*"),
    (r"([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})(?<!-)", "([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)"),
    (r"[\S]{1,2048}", r"\S+"),
    (r"(?!\s*$).+", r".*\S.*"),
    (r"/(?!.*\.\.)[a-zA-Z0-9/_.\-]+", r"/(\.|(\.?[a-zA-Z0-9/_\-])+\.?)"),
    (r"[\p{L}\p{M}\p{Z}\p{N}\p{P}]{0,1024}", r"[\p{L}\p{M}\p{Z}\p{N}\p{P}]*"),
];

impl Pattern {
    pub(crate) fn matches(&self, content: &str) -> bool {
        let regex = self.compiled.get_or_init(|| {
            let text = DIALECT.iter().fold(self.text.clone(), |text, (java, ours)| text.replace(java, ours));
            Regex::new(&format!("^(?:{text})$")).expect("a unit test compiles every pattern of the tables")
        });
        regex.is_match(content)
    }
}

impl Model {
    pub(crate) fn sagemaker() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/sagemaker.json")));
        &MODEL
    }

    pub(crate) fn logs() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/logs.json")));
        &MODEL
    }

    pub(crate) fn ecr() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/ecr.json")));
        &MODEL
    }

    pub(crate) fn quotas() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/service-quotas.json")));
        &MODEL
    }

    pub(crate) fn cloudwatch() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/cloudwatch.json")));
        &MODEL
    }

    pub(crate) fn autoscaling() -> &'static Self {
        static MODEL: LazyLock<Model> =
            LazyLock::new(|| Model::parse(include_str!("model/application-autoscaling.json")));
        &MODEL
    }

    pub(crate) fn secrets() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/secretsmanager.json")));
        &MODEL
    }

    pub(crate) fn codebuild() -> &'static Self {
        static MODEL: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("model/codebuild.json")));
        &MODEL
    }

    #[cfg(test)]
    pub(crate) fn all() -> [&'static Self; 8] {
        [
            Self::sagemaker(),
            Self::logs(),
            Self::ecr(),
            Self::quotas(),
            Self::cloudwatch(),
            Self::autoscaling(),
            Self::secrets(),
            Self::codebuild(),
        ]
    }

    pub(crate) fn parse(json: &str) -> Self {
        serde_json::from_str(json).expect("a unit test reads every table")
    }

    /// The shape of an operation's request.
    pub(crate) fn request(&self, operation: &str) -> &Shape {
        let name = self.operations.get(operation);
        self.shape(name.expect("a unit test finds every operation that a service has in its table"))
    }

    /// The shape of an operation's result; `None` when it has none.
    pub(crate) fn result(&self, operation: &str) -> Option<&Shape> {
        self.results.get(operation).map(|name| self.shape(name))
    }

    pub(crate) fn shape(&self, name: &str) -> &Shape {
        self.shapes.get(name).expect("the generator writes every shape that is reached")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_tables_compiles() {
        for model in Model::all() {
            for shape in model.shapes.values() {
                if let Shape::String(Text { pattern: Some(pattern), .. }) = shape {
                    pattern.matches("");
                }
            }
        }
    }

    #[test]
    fn patterns_without_look_around_match_the_same() {
        let matches = |pattern: &str, text: &str| Pattern::from(pattern.to_owned()).matches(text);
        let filled = r"(?!\s*$).+";
        assert!(matches(filled, " a ") && !matches(filled, "  ") && !matches(filled, ""));
        let path = r"/(?!.*\.\.)[a-zA-Z0-9/_.\-]+";
        assert!(["/a", "/.", "/a.b/c.", "/.a"].iter().all(|text| matches(path, text)));
        assert!(["/", "/a..b", "/..", "a", "/a../b"].iter().all(|text| !matches(path, text)));
    }

    #[test]
    fn every_shape_that_is_named_is_there() {
        for model in Model::all() {
            let named = model.shapes.values().flat_map(|shape| match shape {
                Shape::Structure { members } => members.iter().map(|member| &member.shape).collect(),
                Shape::List { member, .. } => vec![member],
                Shape::Map { key, value, .. } => vec![key, value],
                _ => Vec::new(),
            });
            for name in named.chain(model.operations.values()).chain(model.results.values()) {
                assert!(model.shapes.contains_key(name), "{name}");
            }
        }
    }
}
