//! Takes of a secret's content what was asked for, and the texts that must appear in no output. Pure.

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use super::json_parts::parts_of_json;
use super::reference::SecretReference;
use crate::base::plain;
use crate::cloud::SecretContent;

/// Largest content (`PutSecretValue`: 65,536 bytes).
const CONTENT: usize = 65_536;
/// Shorter parts of a value are no secrets of their own; GitLab masks no variable that is shorter either.
const PART: usize = 8;
/// Most parts of one value that are masked besides the whole: each is searched in every line of output that may hold one.
const PARTS: usize = 2048;
/// Most fields that an error names.
const NAMED_FIELDS: usize = 20;
/// Longest name of a field in an error.
const FIELD_BYTES: usize = 100;

/// A value for a variable. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    text: String,
    masks: Vec<String>,
}

impl SecretValue {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Texts to replace in all output: the value, the lines of one with several, and the texts and numbers of a JSON document, as they are
    /// and as JSON writes them.
    pub fn masks(&self) -> &[String] {
        &self.masks
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// Why the content has no such value. The texts hold names of fields, and never content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    TooLarge,
    /// A field of a binary secret.
    Binary,
    /// A field of a text that is no JSON object.
    NoObject,
    /// Names of the fields that exist.
    NoField(String),
    /// The kind of the field's value.
    NoText(&'static str),
    /// A number that is not whole.
    Fraction,
    Empty,
    /// An environment variable cannot hold it.
    HasNull,
    /// More lines, texts and numbers than are masked: their number.
    ManyParts(usize),
}

/// The value that a reference asks for.
pub(super) fn select(content: &SecretContent, wanted: &SecretReference) -> Result<SecretValue, Unfit> {
    let size = match content {
        SecretContent::Text(text) => text.len(),
        SecretContent::Binary(bytes) => bytes.len(),
    };
    if size > CONTENT {
        return Err(Unfit::TooLarge);
    }
    let (text, raw) = match (content, &wanted.field) {
        (SecretContent::Binary(_), Some(_)) => return Err(Unfit::Binary),
        // As the AWS CLI prints it: a variable cannot hold all bytes.
        (SecretContent::Binary(bytes), None) => {
            let raw = std::str::from_utf8(bytes).map(str::to_owned).ok();
            (base64_simd::STANDARD.encode_to_string(bytes), raw)
        }
        (SecretContent::Text(text), None) => (text.clone(), None),
        (SecretContent::Text(text), Some(field)) => (field_of(text, field)?, None),
    };
    if text.is_empty() {
        return Err(Unfit::Empty);
    }
    if text.contains('\0') {
        return Err(Unfit::HasNull);
    }
    let mut parts = parts_of(&text);
    if let Some(raw) = raw {
        parts.extend([raw.clone()].into_iter().chain(parts_of(&raw)));
    }
    let mut seen = HashSet::from([text.trim().to_owned()]);
    parts.retain(|part| part.trim().len() >= PART && seen.insert(part.trim().to_owned()));
    if parts.len() > PARTS {
        return Err(Unfit::ManyParts(parts.len()));
    }
    let masks = [text.clone()].into_iter().chain(parts).collect();
    Ok(SecretValue { text, masks })
}

/// Parts of a value that a script prints as often as the whole: lines, and what a JSON document holds.
fn parts_of(text: &str) -> Vec<String> {
    let of_json = parts_of_json(text);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut parts = lines(text);
    for part in of_json {
        parts.extend(lines(&part));
        parts.push(part);
    }
    parts
}

/// A field of the object on the top level: text as it is, whole numbers and truth values as JSON writes them.
fn field_of(text: &str, field: &str) -> Result<String, Unfit> {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Err(Unfit::NoObject) };
    match object.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Bool(truth)) => Ok(truth.to_string()),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        // Its digits would not be those of the secret.
        Some(Value::Number(_)) => Err(Unfit::Fraction),
        Some(Value::Null) => Err(Unfit::NoText("null")),
        Some(Value::Array(_)) => Err(Unfit::NoText("a list")),
        Some(Value::Object(_)) => Err(Unfit::NoText("an object")),
        None => Err(Unfit::NoField(names(object.keys()))),
    }
}

fn names<'a>(fields: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = fields.len();
    let shown: Vec<_> = fields.take(NAMED_FIELDS).map(|name| format!("`{}`", plain::line(name, FIELD_BYTES))).collect();
    match (count, count.saturating_sub(shown.len())) {
        (0, _) => "it has none".to_owned(),
        (_, 0) => format!("it has {}", shown.join(", ")),
        (_, more) => format!("it has {} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(content: &str, wanted: &str) -> Result<SecretValue, Unfit> {
        select(&SecretContent::Text(content.to_owned()), &SecretReference::parse(wanted).unwrap())
    }

    fn text(content: &str, wanted: &str) -> Result<String, Unfit> {
        selected(content, wanted).map(|value| value.text)
    }

    const JSON: &str = r#"{"user": "ci", "a.b": "ü\n", "port": 5432, "big": 18446744073709551615, "tls": true, "rate": 1.50,
        "none": null, "list": [1], "more": {"user": "x"}, "empty": "", "null": "a\u0000b"}"#;

    #[test]
    fn a_field_is_taken_as_it_is_written() {
        for (field, expected) in
            [("user", "ci"), ("a.b", "ü\n"), ("port", "5432"), ("big", "18446744073709551615"), ("tls", "true")]
        {
            assert_eq!(text(JSON, &format!("x#{field}")).as_deref(), Ok(expected), "{field}");
        }
        assert_eq!(text(" plain ", "x").as_deref(), Ok(" plain "));
        assert_eq!(text(JSON, "x").as_deref(), Ok(JSON));
    }

    #[test]
    fn a_content_without_the_value_is_told_by_names_alone() {
        let rows = [
            ("none", Unfit::NoText("null")),
            ("list", Unfit::NoText("a list")),
            ("more", Unfit::NoText("an object")),
            ("rate", Unfit::Fraction),
            ("empty", Unfit::Empty),
            ("null", Unfit::HasNull),
        ];
        for (field, expected) in rows {
            assert_eq!(text(JSON, &format!("x#{field}")), Err(expected), "{field}");
        }
        assert_eq!(
            text(r#"{"a": "s3cret", "\u001b[1m": 2}"#, "x#b"),
            Err(Unfit::NoField(r"it has `\x1b[1m`, `a`".to_owned()))
        );
        assert_eq!(text("{}", "x#b"), Err(Unfit::NoField("it has none".to_owned())));
        assert_eq!(text("s3cret", "x#b"), Err(Unfit::NoObject));
        assert_eq!(text("[1]", "x#b"), Err(Unfit::NoObject));
        assert_eq!(text("", "x"), Err(Unfit::Empty));
        assert_eq!(text(&"x".repeat(65_537), "x"), Err(Unfit::TooLarge));
        let many: serde_json::Map<_, _> = (0..30).map(|at| (format!("f{at:02}"), Value::Null)).collect();
        let Err(Unfit::NoField(names)) = text(&Value::Object(many).to_string(), "x#b") else { panic!() };
        assert!(names.ends_with("`f19` and 10 more"), "{names}");
    }

    #[test]
    fn a_binary_secret_is_given_in_base64() {
        let of = |wanted: &str| {
            select(&SecretContent::Binary(vec![0, 0xff]), &SecretReference::parse(wanted).unwrap())
                .map(|value| value.text)
        };
        assert_eq!(of("x").as_deref(), Ok("AP8="));
        assert_eq!(of("x#f"), Err(Unfit::Binary));
    }

    #[test]
    fn the_parts_of_a_value_are_masked_too() {
        let key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nxy\n-----END KEY-----\n";
        let masks = selected(key, "x").unwrap().masks;
        assert_eq!(masks, [key, "-----BEGIN KEY-----", "AAAABBBBCCCC", "-----END KEY-----"]);
        let json = r#"{"password": "hunter2hunter2", "list": [{"t": "tokentoken"}], "short": "abc", "n": 123456789}"#;
        let masks = selected(json, "x").unwrap().masks;
        assert_eq!(masks, [json, "hunter2hunter2", "tokentoken", "123456789"]);
        assert_eq!(selected(json, "x#short").unwrap().masks, ["abc"], "a whole value is masked however short it is");
        let raw =
            select(&SecretContent::Binary(b"raw secret".to_vec()), &SecretReference::parse("x").unwrap()).unwrap();
        assert_eq!(raw.masks, ["cmF3IHNlY3JldA==", "raw secret"]);
        assert_eq!(format!("{raw:?}"), "SecretValue(..)");
    }

    /// A script prints a part as a program of JSON gives it: decoded, line by line, or written anew.
    #[test]
    fn a_part_of_a_json_document_is_masked_in_each_form() {
        let json = r#"{"key": "-----BEGIN-----\nAAAABBBBCCCC\n", "esc": "a\/b\"c\u00fcdddd", "pin": 9007199254740993, "rate": 1234567.50,
            "inner": "{\"token\": \"tokentoken\"}"}"#;
        let document = serde_json::json!({"whole": json}).to_string();
        for masks in [selected(json, "x").unwrap().masks, selected(&document, "x#whole").unwrap().masks] {
            for expected in [
                "AAAABBBBCCCC",
                "-----BEGIN-----\nAAAABBBBCCCC\n",
                r"-----BEGIN-----\nAAAABBBBCCCC\n",
                "a/b\"cüdddd",
                r#"a\/b\"c\u00fcdddd"#,
                r#"a/b\"cüdddd"#,
                r#"a/b\"c\u00fcdddd"#,
                "9007199254740993",
                "1234567.50",
                "1234567.5",
                "tokentoken",
            ] {
                assert!(masks.iter().any(|mask| mask == expected), "{expected}: {masks:?}");
            }
        }
    }

    #[test]
    fn a_value_whose_parts_cannot_all_be_masked_is_refused() {
        let of = |lines: usize| {
            let lines: Vec<_> = (0..lines).map(|at| format!("line {at:06}")).collect();
            selected(&lines.join("\n"), "x")
        };
        assert_eq!(of(PARTS).unwrap().masks.len(), 1 + PARTS);
        assert_eq!(of(PARTS + 1), Err(Unfit::ManyParts(PARTS + 1)));
    }
}
