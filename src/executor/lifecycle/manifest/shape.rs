//! Compares a manifest with its schema: unknown and missing keys, wrong types, values out of form. Pure.
//!
//! Knows the keywords that `schema` uses, and no others.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};

use super::places::join;

/// Likeness from which on a name may be a misspelling of another.
const ALIKE: f64 = 0.8;

/// The path of a mistake, and its text.
pub(super) type Mistake = (String, String);

/// The rules of its schema that a manifest breaks.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub(super) mistakes: Vec<Mistake>,
    /// Paths of values that were taken out, because the types cannot hold them.
    pub(super) removed: BTreeSet<String>,
}

/// Finds every mistake, and leaves what the types can hold. A string at a path of `whole` becomes the number or the truth value that
/// the schema wants.
pub(super) fn check(value: &mut Value, schema: &Value, whole: &BTreeSet<String>) -> Broken {
    let mut check = Check { root: schema, whole, broken: Broken::default() };
    check.value(value, schema, "");
    check.broken
}

struct Check<'a> {
    root: &'a Value,
    whole: &'a BTreeSet<String>,
    broken: Broken,
}

impl<'a> Check<'a> {
    /// Whether the types can hold the value; what they cannot hold is taken out around it.
    fn value(&mut self, value: &mut Value, schema: &'a Value, path: &str) -> bool {
        self.described(value, schema, path, schema["description"].as_str())
    }

    /// As [`Check::value`]; an entry of a list has the description of the list.
    fn described(&mut self, value: &mut Value, schema: &'a Value, path: &str, description: Option<&str>) -> bool {
        let alternatives = schema["anyOf"].as_array().into_iter().flatten();
        let may_be_null =
            words(&schema["type"]).contains(&"null") || alternatives.into_iter().any(|one| one["type"] == "null");
        if value.is_null() && may_be_null {
            return true;
        }
        let schema = self.resolve(schema);
        let types: Vec<_> = words(&schema["type"]);
        if self.whole.contains(path) {
            convert(value, &types);
        }
        if types.contains(&"integer") {
            make_whole(value);
        }
        if !types.is_empty() && !types.iter().any(|name| is_of_type(value, name)) {
            let wanted = types.iter().find(|name| **name != "null").map_or("a value", |name| type_words(name));
            self.tell(path, format!("must be {wanted}, not {}", type_words(type_name(value))));
            self.broken.removed.insert(path.to_owned());
            return false;
        }
        let is_one_of_few = allowed(schema).is_some();
        let mut is_usable =
            schema["format"] != "uint32" || value.as_u64().is_some_and(|number| u32::try_from(number).is_ok());
        if let Some(mistake) = out_of_form(value, schema) {
            is_usable &= !(is_one_of_few && value.is_string());
            self.tell(path, with_description(mistake, description.filter(|_| !is_one_of_few)));
        }
        if !is_usable {
            self.broken.removed.insert(path.to_owned());
        }
        match value {
            Value::Object(entries) => self.object(entries, schema, path),
            Value::Array(entries) => {
                let mut number = 0;
                entries.retain_mut(|entry| {
                    let path = join(path, &number.to_string());
                    number += 1;
                    self.described(entry, &schema["items"], &path, description)
                });
                is_usable
            }
            _ => is_usable,
        }
    }

    fn object(&mut self, entries: &mut Map<String, Value>, schema: &'a Value, path: &str) -> bool {
        let none = Map::new();
        let known = schema["properties"].as_object();
        let required = words(&schema["required"]);
        for name in required.iter().filter(|name| !entries.contains_key(**name)) {
            let description = known.and_then(|known| known.get(*name)?["description"].as_str());
            self.tell(&join(path, name), with_description("is missing".to_owned(), description));
        }
        entries.retain(|name, entry| {
            let path = join(path, name);
            match (known.and_then(|known| known.get(name)), &schema["additionalProperties"]) {
                (None, Value::Bool(false)) => {
                    let nearest = nearest(name, known.unwrap_or(&none).keys());
                    let hint = nearest.map(|name| format!(": did you mean `{name}`?")).unwrap_or_default();
                    self.tell(&path, format!("is no key of the manifest{hint}"));
                    false
                }
                (Some(schema), _) | (None, schema) => self.value(entry, schema, &path),
            }
        });
        required.iter().all(|name| entries.contains_key(*name))
    }

    fn tell(&mut self, path: &str, message: String) {
        self.broken.mistakes.push((path.to_owned(), message));
    }

    /// The schema that a reference stands for, also one that may be null.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let alternatives = schema["anyOf"].as_array().into_iter().flatten();
        let schema = alternatives.into_iter().find(|one| one["type"] != "null").unwrap_or(schema);
        let target = schema["$ref"].as_str().and_then(|path| self.root.pointer(path.trim_start_matches('#')));
        target.unwrap_or(schema)
    }
}

/// The mistake with the description of its key, which says what belongs there.
fn with_description(mistake: String, description: Option<&str>) -> String {
    let Some(description) = description else { return mistake };
    format!("{mistake}: {}", description.replace('\n', " ").trim_end_matches('.'))
}

/// A text, or a list of texts.
fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().chain([value]).filter_map(Value::as_str).collect()
}

/// A number without a part behind the point is a whole number, however it is written: 2.0 is 2.
fn make_whole(value: &mut Value) {
    let Some(number) = value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0) else { return };
    // Numbers of more digits are above every limit of the schema.
    if let Ok(whole) = format!("{number:.0}").parse::<i64>() {
        *value = whole.into();
    }
}

/// Makes a number or a truth value of a text, where one is wanted and the text is one.
fn convert(value: &mut Value, types: &[&str]) {
    let Some(converted) = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return };
    let is_scalar = converted.is_number() || converted.is_boolean();
    if is_scalar && !types.contains(&"string") && types.iter().any(|name| is_of_type(&converted, name)) {
        *value = converted;
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    let own = type_name(value);
    own == name || own == "integer" && name == "number"
}

fn type_words(name: &str) -> &'static str {
    match name {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        _ => "an object",
    }
}

/// The keyword of the schema that the value breaks, in words.
fn out_of_form(value: &Value, schema: &Value) -> Option<String> {
    if let Some(allowed) = allowed(schema)
        && !allowed.contains(&value)
    {
        let list: Vec<_> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        return Some(format!("must be one of {}", list.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        let limit = |name: &str| schema[name].as_f64();
        return match (limit("minimum"), limit("maximum"), limit("exclusiveMinimum")) {
            (Some(least), ..) if number < least => Some(format!("must be at least {least}")),
            (_, Some(most), _) if number > most => Some(format!("must be at most {most}")),
            (.., Some(least)) if number <= least => Some(format!("must be above {least}")),
            _ => None,
        };
    }
    let (length, least, most, unit) = match value {
        Value::String(text) => (text.chars().count(), "minLength", "maxLength", "characters"),
        Value::Array(entries) => (entries.len(), "minItems", "maxItems", "entries"),
        _ => return None,
    };
    let limit = |name: &str| schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok());
    if limit(least).is_some_and(|least| length < least) {
        let least = limit(least).unwrap_or(1);
        return Some(if length == 0 {
            format!("is empty: it needs at least {least} {unit}")
        } else {
            format!("has {length} {unit}; the fewest are {least}")
        });
    }
    if let Some(most) = limit(most).filter(|most| length > *most) {
        return Some(format!("has {length} {unit}; the most are {most}"));
    }
    let pattern = schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok())?;
    let is_of_form = value.as_str().is_some_and(|text| pattern.is_match(text));
    (!is_of_form).then(|| "does not have the right form".to_owned())
}

/// The values of an enumeration, as a list or as one constant each.
fn allowed(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(list) = schema["enum"].as_array() {
        return Some(list.iter().collect());
    }
    let constants = schema["oneOf"].as_array()?.iter().map(|one| one.get("const"));
    constants.collect()
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) > ALIKE)
}
