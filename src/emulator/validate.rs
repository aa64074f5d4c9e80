//! Checks a request against the service's model, with the error texts of the service.
//!
//! Nothing here is about a particular operation; the tables are in `model.rs`. Unknown members are ignored, as the real
//! services do.

use std::fmt::{Display, Write as _};

use serde_json::Value;

use super::model::{Length, Model, Shape, Text};
use super::protocol::ApiError;

/// Checks a whole request. All violations come in one `ValidationException`, a value of the wrong type in a
/// `SerializationException`.
pub(crate) fn check(request: &Value, model: &Model, operation: &str) -> Result<(), ApiError> {
    let mut check = Check { model, violations: Vec::new() };
    check.value(request, model.request(operation), "")?;
    let violations = check.violations;
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

struct Check<'a> {
    model: &'a Model,
    violations: Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, value: &Value, shape: &Shape, path: &str) -> Result<(), ApiError> {
        match shape {
            Shape::Boolean => {
                value.as_bool().ok_or_else(|| wrong_type(path, "Boolean"))?;
            }
            Shape::Timestamp => {
                value.as_f64().ok_or_else(|| wrong_type(path, "Timestamp"))?;
            }
            Shape::Blob => {
                value.as_str().ok_or_else(|| wrong_type(path, "Blob"))?;
            }
            Shape::Integer { min, max } => {
                let number = value.as_i64().ok_or_else(|| wrong_type(path, "Integer"))?;
                self.complain(value, path, range_complaints("value", number, *min, *max));
            }
            Shape::Float { min, max } => {
                let number = value.as_f64().ok_or_else(|| wrong_type(path, "Float"))?;
                self.complain(value, path, range_complaints("value", number, *min, *max));
            }
            Shape::String(text) => {
                let content = value.as_str().ok_or_else(|| wrong_type(path, "String"))?;
                self.complain(value, path, text_complaints(content, text));
            }
            Shape::List { length, member } => {
                let items = value.as_array().ok_or_else(|| wrong_type(path, "List"))?;
                self.complain(value, path, length_complaints(items.len(), *length));
                let each = self.model.shape(member);
                for (index, item) in items.iter().enumerate() {
                    self.value(item, each, &format!("{path}.{}.member", index + 1))?;
                }
            }
            Shape::Map { length, key, value: each } => self.map(value, *length, [key, each], path)?,
            Shape::Structure { members } => {
                let entries = value.as_object().ok_or_else(|| wrong_type(path, "Structure"))?;
                for member in members {
                    let name = lower(&member.name);
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    match entries.get(&member.name).filter(|value| !value.is_null()) {
                        Some(value) => self.value(value, self.model.shape(&member.shape), &path)?,
                        None if member.required => self.violations.push(format!(
                            "Value null at '{path}' failed to satisfy constraint: Member must not be null"
                        )),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Errors in maps of strings show the whole map as the value, and list all constraints of the key or value.
    fn map(&mut self, map: &Value, length: Length, parts: [&String; 2], path: &str) -> Result<(), ApiError> {
        let entries = map.as_object().ok_or_else(|| wrong_type(path, "Map"))?;
        self.complain(map, path, length_complaints(entries.len(), length));
        let [key, each] = parts.map(|name| self.model.shape(name));
        for (name, entry) in entries {
            self.part(map, "keys", name, key, path);
            if let Shape::String(_) = each {
                let content = entry.as_str().ok_or_else(|| wrong_type(path, "String"))?;
                self.part(map, "value", content, each, path);
            } else {
                self.value(entry, each, &format!("{path}.{name}.member"))?;
            }
        }
        Ok(())
    }

    fn part(&mut self, map: &Value, part: &str, content: &str, shape: &Shape, path: &str) {
        let Shape::String(text) = shape else { return };
        if !text_complaints(content, text).is_empty() {
            let constraint = constraints(text).join(", ");
            self.complain(map, path, vec![format!("Map {part} must satisfy constraint: [{constraint}]")]);
        }
    }

    fn complain(&mut self, value: &Value, path: &str, complaints: Vec<String>) {
        self.violations.extend(complaints.into_iter().map(|complaint| {
            format!("Value '{}' at '{path}' failed to satisfy constraint: {complaint}", shown(value))
        }));
    }
}

/// All constraints of a string, as the service lists them.
fn constraints(text: &Text) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(max) = text.length.max {
        parts.push(format!("Member must have length less than or equal to {max}"));
    }
    parts.push(format!("Member must have length greater than or equal to {}", text.length.min));
    parts.extend(text.pattern.as_ref().map(|pattern| unlike(&pattern.text)));
    parts
}

fn unlike(pattern: &str) -> String {
    format!("Member must satisfy regular expression pattern: {pattern}")
}

fn text_complaints(content: &str, text: &Text) -> Vec<String> {
    if !text.words.is_empty() {
        let known = text.words.iter().any(|word| word == content);
        let words = || vec![format!("Member must satisfy enum value set: [{}]", text.words.join(", "))];
        return if known { Vec::new() } else { words() };
    }
    let mut complaints = length_complaints(content.chars().count(), text.length);
    // A wrong length is reported once, not a second time by a pattern that bounds it too.
    let pattern = text.pattern.as_ref().filter(|_| complaints.is_empty());
    complaints.extend(pattern.filter(|pattern| !pattern.matches(content)).map(|pattern| unlike(&pattern.text)));
    complaints
}

fn length_complaints(length: usize, Length { min, max }: Length) -> Vec<String> {
    range_complaints("length", length, Some(min), max)
}

fn range_complaints<T: Copy + PartialOrd + Display>(
    what: &str,
    number: T,
    min: Option<T>,
    max: Option<T>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(max) = max.filter(|max| number > *max) {
        complaints.push(format!("Member must have {what} less than or equal to {max}"));
    }
    if let Some(min) = min.filter(|min| number < *min) {
        complaints.push(format!("Member must have {what} greater than or equal to {min}"));
    }
    complaints
}

fn wrong_type(path: &str, wanted: &str) -> ApiError {
    ApiError::serialization(format!("value at '{path}' can not be converted to a {wanted}"))
}

/// A value as the service prints it in an error: lists in brackets, structures as `Name(Member=..)`, maps as `{k=v}`.
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

    fn model() -> Model {
        Model::parse(
            r#"{"target": "T", "operations": {"Create": "Create"}, "shapes": {
                "Create": {"type": "structure", "members": [
                    ["JobName", "Name", true], ["Words", "Words", false], ["Labels", "Labels", false],
                    ["Mode", "Mode", false], ["Count", "Count", false]]},
                "Name": {"type": "string", "min": 1, "max": 5, "pattern": "[a-z]+"},
                "Words": {"type": "list", "min": 1, "max": 2, "member": "Name"},
                "Labels": {"type": "map", "max": 2, "key": "Name", "value": "Label"},
                "Label": {"type": "string", "min": 0, "max": 3},
                "Mode": {"type": "string", "enum": ["File", "Pipe"]},
                "Count": {"type": "integer", "min": 1, "max": 3}
            }}"#,
        )
    }

    fn verdict(request: &Value) -> Result<(), ApiError> {
        check(request, &model(), "Create")
    }

    fn complaint(request: &Value) -> String {
        verdict(request).expect_err("the request is wrong").message
    }

    #[test]
    fn a_good_request_with_unknown_members_passes() {
        assert_eq!(verdict(&json!({"JobName": "abc", "Other": 1, "Count": 3, "Mode": null})), Ok(()));
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
        assert!(verdict(&json!({"JobName": "a1"})).is_err());
        assert_eq!(verdict(&json!({"JobName": "a", "Labels": {"k": "äöü"}})), Ok(()));
    }

    #[test]
    fn a_wrong_type_is_a_serialization_error() {
        let error = verdict(&json!({"JobName": 1})).unwrap_err();
        assert_eq!(error.code, "SerializationException");
    }
}
