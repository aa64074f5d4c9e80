//! Checks a request against constraints that are data, and words the complaint as the service does.
//!
//! Knows nothing about a particular operation; the tables stand in `constraints.rs`. Unknown members are ignored, as on
//! the real wire.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;

use super::protocol::ApiError;

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Characters, both ends included; the pattern is anchored here.
    Text {
        min: usize,
        max: usize,
        pattern: Option<&'static str>,
    },
    /// One of these words.
    Enum(&'static [&'static str]),
    /// One of the words that the function lists; used for sets that grow.
    GrowingEnum(fn() -> Vec<String>),
    /// A whole number, both ends included.
    Integer {
        min: i64,
        max: i64,
    },
    /// A point in time, in epoch seconds.
    Time,
    Flag,
    List {
        min: usize,
        max: usize,
        each: &'static Rule,
    },
    Map {
        max: usize,
        key: &'static Rule,
        value: &'static Rule,
    },
    Struct(&'static [Member]),
    /// Not looked at.
    Anything,
}

/// A member of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) rule: Rule,
}

/// A required member of a table.
pub(crate) const fn must(name: &'static str, rule: Rule) -> Member {
    Member { name, required: true, rule }
}

/// An optional member of a table.
pub(crate) const fn may(name: &'static str, rule: Rule) -> Member {
    Member { name, required: false, rule }
}

/// Text without a pattern.
pub(crate) const fn text(min: usize, max: usize) -> Rule {
    Rule::Text { min, max, pattern: None }
}

/// Text with a pattern.
pub(crate) const fn matching(min: usize, max: usize, pattern: &'static str) -> Rule {
    Rule::Text { min, max, pattern: Some(pattern) }
}

/// Checks a whole request. All violations come in one `ValidationException`, a value of the wrong type in a
/// `SerializationException`.
pub(crate) fn check(request: &Value, members: &'static [Member]) -> Result<(), ApiError> {
    let mut violations = Vec::new();
    check_value(request, &Rule::Struct(members), "", &mut violations)?;
    if violations.is_empty() {
        return Ok(());
    }
    let plural = if violations.len() == 1 { "" } else { "s" };
    Err(ApiError::validation(format!(
        "{} validation error{plural} detected: {}",
        violations.len(),
        violations.join("; ")
    )))
}

fn check_value(value: &Value, rule: &Rule, path: &str, violations: &mut Vec<String>) -> Result<(), ApiError> {
    match rule {
        Rule::Anything => {}
        Rule::Flag => {
            value.as_bool().ok_or_else(|| wrong_type(path, "Boolean"))?;
        }
        Rule::Time => {
            value.as_f64().ok_or_else(|| wrong_type(path, "Timestamp"))?;
        }
        Rule::Integer { min, max } => {
            let number = value.as_i64().ok_or_else(|| wrong_type(path, "Integer"))?;
            for complaint in integer_complaints(number, *min, *max) {
                violations.push(violation(&number.to_string(), path, &complaint));
            }
        }
        Rule::Text { .. } | Rule::Enum(_) | Rule::GrowingEnum(_) => {
            let content = value.as_str().ok_or_else(|| wrong_type(path, "String"))?;
            for complaint in text_complaints(content, rule) {
                violations.push(violation(content, path, &complaint));
            }
        }
        Rule::List { min, max, each } => {
            let items = value.as_array().ok_or_else(|| wrong_type(path, "List"))?;
            for complaint in length_complaints(items.len(), *min, *max) {
                violations.push(violation(&shown(value), path, &complaint));
            }
            for (index, item) in items.iter().enumerate() {
                check_value(item, each, &format!("{path}.{}.member", index + 1), violations)?;
            }
        }
        Rule::Map { max, key, value: each } => {
            let entries = value.as_object().ok_or_else(|| wrong_type(path, "Map"))?;
            for complaint in length_complaints(entries.len(), 0, *max) {
                violations.push(violation(&shown(value), path, &complaint));
            }
            for (name, entry) in entries {
                if !text_complaints(name, key).is_empty() {
                    violations.push(map_violation(value, path, "keys", key));
                }
                let content = entry.as_str().ok_or_else(|| wrong_type(path, "String"))?;
                if !text_complaints(content, each).is_empty() {
                    violations.push(map_violation(value, path, "value", each));
                }
            }
        }
        Rule::Struct(members) => {
            let entries = value.as_object().ok_or_else(|| wrong_type(path, "Structure"))?;
            for member in *members {
                let path = if path.is_empty() { lower(member.name) } else { format!("{path}.{}", lower(member.name)) };
                match entries.get(member.name).filter(|value| !value.is_null()) {
                    Some(value) => check_value(value, &member.rule, &path, violations)?,
                    None if member.required => violations
                        .push(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null")),
                    None => {}
                }
            }
        }
    }
    Ok(())
}

fn violation(value: &str, path: &str, complaint: &str) -> String {
    format!("Value '{value}' at '{path}' failed to satisfy constraint: {complaint}")
}

/// Maps are complained about as a whole: the value shown is the map, the constraint lists all of its parts.
fn map_violation(map: &Value, path: &str, part: &str, rule: &Rule) -> String {
    let mut parts = Vec::new();
    if let Rule::Text { min, max, pattern } = rule {
        parts.push(format!("Member must have length less than or equal to {max}"));
        parts.push(format!("Member must have length greater than or equal to {min}"));
        if let Some(pattern) = pattern {
            parts.push(format!("Member must satisfy regular expression pattern: {pattern}"));
        }
    }
    violation(&shown(map), path, &format!("Map {part} must satisfy constraint: [{}]", parts.join(", ")))
}

fn text_complaints(content: &str, rule: &Rule) -> Vec<String> {
    match rule {
        Rule::Text { min, max, pattern } => {
            let mut complaints = length_complaints(content.chars().count(), *min, *max);
            // A length that is wrong is complained about once, not a second time by a pattern that bounds it too.
            let well_sized = complaints.is_empty();
            if let Some(pattern) = pattern.filter(|pattern| well_sized && !matches(pattern, content)) {
                complaints.push(format!("Member must satisfy regular expression pattern: {pattern}"));
            }
            complaints
        }
        Rule::Enum(words) if !words.contains(&content) => {
            vec![format!("Member must satisfy enum value set: [{}]", words.join(", "))]
        }
        Rule::GrowingEnum(words) => {
            let words = words();
            if words.iter().any(|word| word == content) {
                return Vec::new();
            }
            vec![format!("Member must satisfy enum value set: [{}]", words.join(", "))]
        }
        _ => Vec::new(),
    }
}

fn length_complaints(length: usize, min: usize, max: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    if length > max {
        complaints.push(format!("Member must have length less than or equal to {max}"));
    }
    if length < min {
        complaints.push(format!("Member must have length greater than or equal to {min}"));
    }
    complaints
}

fn integer_complaints(number: i64, min: i64, max: i64) -> Vec<String> {
    let mut complaints = Vec::new();
    if number > max {
        complaints.push(format!("Member must have value less than or equal to {max}"));
    }
    if number < min {
        complaints.push(format!("Member must have value greater than or equal to {min}"));
    }
    complaints
}

fn wrong_type(path: &str, wanted: &str) -> ApiError {
    ApiError::serialization(format!("value at '{path}' can not be converted to a {wanted}"))
}

/// Whether the whole text matches; patterns are compiled once per process.
fn matches(pattern: &'static str, content: &str) -> bool {
    static COMPILED: Mutex<Option<HashMap<&'static str, Regex>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.get_or_insert_default().entry(pattern).or_insert_with(|| {
        Regex::new(&format!("^(?:{pattern})$")).expect("a unit test compiles every pattern of the tables")
    });
    regex.is_match(content)
}

/// A value as the service prints it in a complaint: lists in brackets, structures as `Name(Member=..)`, maps as `{k=v}`.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let mut text = String::from("{");
            for (index, (name, entry)) in entries.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(text, "{comma}{name}={}", shown(entry)).expect("writing to a String succeeds");
            }
            text.push('}');
            text
        }
        other => other.to_string(),
    }
}

fn lower(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAME: Rule = matching(1, 5, "[a-z]+");
    const TABLE: &[Member] = &[
        must("JobName", NAME),
        may("Words", Rule::List { min: 1, max: 2, each: &NAME }),
        may("Labels", Rule::Map { max: 2, key: &NAME, value: &text(0, 3) }),
        may("Mode", Rule::Enum(&["File", "Pipe"])),
        may("Count", Rule::Integer { min: 1, max: 3 }),
    ];

    fn complaint(request: &Value) -> String {
        check(request, TABLE).expect_err("the request is wrong").message
    }

    #[test]
    fn a_good_request_with_unknown_members_passes() {
        assert_eq!(check(&json!({"JobName": "abc", "Other": 1, "Count": 3, "Mode": null}), TABLE), Ok(()));
    }

    #[test]
    fn one_violation_is_worded_as_the_service_does() {
        assert_eq!(
            complaint(&json!({"JobName": "abcdef"})),
            "1 validation error detected: Value 'abcdef' at 'jobName' failed to satisfy constraint: Member must have \
             length less than or equal to 5"
        );
        assert_eq!(
            complaint(&json!({"JobName": "a", "Mode": "X"})),
            "1 validation error detected: Value 'X' at 'mode' failed to satisfy constraint: Member must satisfy enum \
             value set: [File, Pipe]"
        );
    }

    #[test]
    fn several_violations_are_joined_and_counted() {
        assert_eq!(
            complaint(&json!({"Words": ["a", "B"], "Count": 0})),
            "3 validation errors detected: Value null at 'jobName' failed to satisfy constraint: Member must not be \
             null; Value 'B' at 'words.2.member' failed to satisfy constraint: Member must satisfy regular expression \
             pattern: [a-z]+; Value '0' at 'count' failed to satisfy constraint: Member must have value greater than \
             or equal to 1"
        );
    }

    #[test]
    fn a_map_is_complained_about_as_a_whole() {
        assert_eq!(
            complaint(&json!({"JobName": "a", "Labels": {"k": "long"}})),
            "1 validation error detected: Value '{k=long}' at 'labels' failed to satisfy constraint: Map value must \
             satisfy constraint: [Member must have length less than or equal to 3, Member must have length greater \
             than or equal to 0]"
        );
    }

    #[test]
    fn patterns_are_anchored_and_lengths_count_characters() {
        assert!(check(&json!({"JobName": "a1"}), TABLE).is_err());
        assert_eq!(check(&json!({"JobName": "a", "Labels": {"k": "äöü"}}), TABLE), Ok(()));
    }

    #[test]
    fn a_wrong_type_is_a_serialization_error() {
        let error = check(&json!({"JobName": 1}), TABLE).unwrap_err();
        assert_eq!(error.code, "SerializationException");
    }
}
