//! The texts and numbers of a JSON document, in the forms in which programs print them. Pure.
//!
//! A program that reads the document prints a text as it is; one that copies the document, as its source has it; one that writes JSON
//! anew, with escapes of its own. The search for secrets is one for exact bytes, so each form is a part.

use serde_json::Value;

/// Most documents that are one in the text of the other.
const DEPTH: usize = 4;

/// All texts and numbers of a document, without names of fields; those of documents in its texts too. None of another text.
pub(super) fn parts_of_json(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    add_document(text, DEPTH, &mut parts);
    parts
}

fn add_document(text: &str, depth: usize, parts: &mut Vec<String>) {
    let is_whole = |value: &Value| value.is_object() || value.is_array() || value.is_string();
    if depth == 0 || !serde_json::from_str(text).is_ok_and(|value: Value| is_whole(&value)) {
        return;
    }
    for source in literals(text) {
        let Ok(value) = serde_json::from_str::<Value>(source) else { continue };
        match &value {
            Value::String(decoded) => {
                parts.extend([decoded.clone(), unquoted(source), unquoted(&value.to_string())]);
                parts.push(ascii(&unquoted(&value.to_string())));
                add_document(decoded, depth - 1, parts);
            }
            // Some programs write a number as they have read it.
            other => parts.extend([source.to_owned(), other.to_string()]),
        }
    }
}

/// The texts, with their quotes, and the numbers of a valid document as they are written. Names of fields are left out.
fn literals(document: &str) -> Vec<&str> {
    let bytes = document.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = bytes.get(at) {
        let from = at;
        at += 1;
        match first {
            b'"' => {
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
                let after = bytes.iter().skip(at).find(|byte| !byte.is_ascii_whitespace());
                if after != Some(&b':') {
                    found.extend(document.get(from..at));
                }
            }
            b'-' | b'0'..=b'9' => {
                let rest = bytes.iter().skip(at);
                at += rest.take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
                found.extend(document.get(from..at));
            }
            _ => {}
        }
    }
    found
}

fn unquoted(literal: &str) -> String {
    literal.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(literal).to_owned()
}

/// A literal with escapes for all other letters than those of ASCII, as Python writes it.
fn ascii(literal: &str) -> String {
    let mut units = [0; 2];
    let mut text = String::new();
    for letter in literal.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            text.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_texts_and_numbers() {
        let of = |text: &str| {
            let mut parts = parts_of_json(text);
            parts.sort();
            parts.dedup();
            parts
        };
        assert_eq!(
            of(r#"{"name" : ["a\\", -1.50e3], "b": {"c": true, "d": null}, "e:": "f"}"#),
            ["-1.50e3", "-1500.0", "a\\", r"a\\", "f"]
        );
        assert_eq!(of("\"\u{1f600}\""), [r"\ud83d\ude00", "\u{1f600}"]);
        for other in ["", "12345678", "{", "true", "not: \"json\""] {
            assert_eq!(of(other), [""; 0], "{other}");
        }
    }
}
