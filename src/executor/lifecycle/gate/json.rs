//! Reads JSON with all that a gate must see: each number as it is written, keys that are there twice, and the `NaN` and `Infinity`
//! that Python writes though JSON has none. No I/O.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

use super::decimal::{Decimal, NoDecimal};

/// Most levels of objects and lists.
const MOST_LEVELS: usize = 64;
/// Most values: each needs many times the memory of its text.
const MOST_VALUES: usize = 500_000;

/// A value of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    /// `NaN`, `Infinity` or `-Infinity`.
    NoNumber(String),
    Text(String),
    List(Vec<Json>),
    /// A key may be there twice.
    Object(Vec<(String, Json)>),
}

/// Why a text is no JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub(super) struct NoJson {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) why: &'static str,
}

impl Json {
    pub(super) fn parse(text: &str) -> Result<Self, NoJson> {
        let mut reader = Reader { text, chars: text.char_indices().peekable(), values: 0 };
        let value = reader.value(0);
        let end = value.and_then(|value| {
            reader.skip_blanks();
            if reader.chars.peek().is_none() { Ok(value) } else { Err("something follows the value") }
        });
        end.map_err(|why| reader.error(why))
    }

    /// Whether a key is twice in one of its objects.
    pub(super) fn has_repeated_key(&self) -> bool {
        match self {
            Self::List(values) => values.iter().any(Self::has_repeated_key),
            Self::Object(members) => {
                let keys: BTreeSet<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
                keys.len() < members.len() || members.iter().any(|(_, value)| value.has_repeated_key())
            }
            _ => false,
        }
    }

    /// For JSONPath, which decides by it where to look; numbers are rounded and of equal keys the last stays.
    pub(super) fn approximate(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null | Self::NoNumber(_) => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(text) => text.parse::<f64>().map_or(Value::Null, Value::from),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(values) => values.iter().map(Self::approximate).collect(),
            Self::Object(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.clone(), value.approximate())).collect())
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    /// How many began.
    values: usize,
}

impl Reader<'_> {
    fn error(&mut self, why: &'static str) -> NoJson {
        let before = &self.text[..self.position()];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        NoJson { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, why }
    }

    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn skip_blanks(&mut self) {
        while self.chars.next_if(|(_, c)| matches!(c, ' ' | '\t' | '\n' | '\r')).is_some() {}
    }

    fn take(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn value(&mut self, level: usize) -> Result<Json, &'static str> {
        if level > MOST_LEVELS {
            return Err("more than 64 levels of objects and lists");
        }
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err("more than 500000 values");
        }
        self.skip_blanks();
        match self.chars.peek().map(|(_, c)| *c) {
            None => Err("the text ends where a value is expected"),
            Some('{') => self.object(level),
            Some('[') => self.list(level),
            Some('"') => Ok(Json::Text(self.string()?)),
            Some(c) if c == '-' || c.is_ascii_alphanumeric() => self.word(),
            Some(_) => Err("a value is expected"),
        }
    }

    fn word(&mut self) -> Result<Json, &'static str> {
        let start = self.position();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        while self.chars.next_if(|(_, c)| is_part(*c)).is_some() {}
        let end = self.position();
        match &self.text[start..end] {
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            word @ ("NaN" | "Infinity" | "-Infinity") => Ok(Json::NoNumber(word.to_owned())),
            word if Decimal::parse(word) != Err(NoDecimal::Form) => Ok(Json::Number(word.to_owned())),
            _ => Err("no value of JSON ends here"),
        }
    }

    fn list(&mut self, level: usize) -> Result<Json, &'static str> {
        self.chars.next();
        let mut values = Vec::new();
        self.skip_blanks();
        if self.take(']') {
            return Ok(Json::List(values));
        }
        loop {
            values.push(self.value(level + 1)?);
            self.skip_blanks();
            if self.take(']') {
                return Ok(Json::List(values));
            }
            if !self.take(',') {
                return Err("`,` or `]` is expected");
            }
        }
    }

    fn object(&mut self, level: usize) -> Result<Json, &'static str> {
        self.chars.next();
        let mut members = Vec::new();
        self.skip_blanks();
        if self.take('}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_blanks();
            if self.chars.peek().is_none_or(|(_, c)| *c != '"') {
                return Err("a key in double quotes is expected");
            }
            let key = self.string()?;
            self.skip_blanks();
            if !self.take(':') {
                return Err("`:` is expected");
            }
            members.push((key, self.value(level + 1)?));
            self.skip_blanks();
            if self.take('}') {
                return Ok(Json::Object(members));
            }
            if !self.take(',') {
                return Err("`,` or `}` is expected");
            }
        }
    }

    /// The escapes are read by `serde_json`.
    fn string(&mut self) -> Result<String, &'static str> {
        let start = self.position();
        self.chars.next();
        while let Some((at, c)) = self.chars.next() {
            match c {
                '"' => {
                    return serde_json::from_str(&self.text[start..=at]).map_err(|_| "no text of JSON ends here");
                }
                '\\' => {
                    self.chars.next();
                }
                _ => {}
            }
        }
        Err("the text ends within double quotes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use test_case::test_case;

    use super::*;

    #[test]
    fn keys_numbers_and_words_are_kept_as_written() {
        let json =
            Json::parse("\n{\"a\": 0.80, \"a\": NaN, \"\\u0062\\n\": [-Infinity, null, true, \"x\"]}\r\n").unwrap();
        let list =
            vec![Json::NoNumber("-Infinity".to_owned()), Json::Null, Json::Bool(true), Json::Text("x".to_owned())];
        let expected = vec![
            ("a".to_owned(), Json::Number("0.80".to_owned())),
            ("a".to_owned(), Json::NoNumber("NaN".to_owned())),
            ("b\n".to_owned(), Json::List(list)),
        ];
        assert_eq!(json, Json::Object(expected));
    }

    #[test_case("" => "line 1, column 1: the text ends where a value is expected"; "nothing")]
    #[test_case("{\n  'a': 1}" => "line 2, column 3: a key in double quotes is expected"; "single quotes")]
    #[test_case("{\"a\" 1}" => "line 1, column 6: `:` is expected"; "no colon")]
    #[test_case("{\"a\": 1,}" => "line 1, column 9: a key in double quotes is expected"; "a comma at the end")]
    #[test_case("{\"a\": 1" => "line 1, column 8: `,` or `}` is expected"; "cut off")]
    #[test_case("{\"a\": \"1" => "line 1, column 9: the text ends within double quotes"; "cut off in a text")]
    #[test_case("{\"a\": 01}" => "line 1, column 9: no value of JSON ends here"; "a leading zero")]
    #[test_case("{\"a\": nan}" => "line 1, column 10: no value of JSON ends here"; "a word")]
    #[test_case("{\"a\": \"\\x\"}" => "line 1, column 11: no text of JSON ends here"; "an unknown escape")]
    #[test_case("{} {}" => "line 1, column 4: something follows the value"; "two values")]
    #[test_case("[1 2]" => "line 1, column 4: `,` or `]` is expected"; "a list without a comma")]
    #[test_case("// x\n{}" => "line 1, column 1: a value is expected"; "a comment")]
    fn what_is_no_json_is_told(text: &str) -> String {
        Json::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn depth_is_limited() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Json::parse(&nested(MOST_LEVELS)).is_ok());
        assert_eq!(Json::parse(&nested(100_000)).unwrap_err().why, "more than 64 levels of objects and lists");
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let list = |values: usize| format!("[{}1]", "1,".repeat(values - 2));
        assert!(Json::parse(&list(MOST_VALUES)).is_ok());
        assert_eq!(Json::parse(&list(MOST_VALUES + 1)).unwrap_err().why, "more than 500000 values");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn same(json: &Json, value: &Value) -> bool {
        match (json, value) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::Number(text), Value::Number(number)) => *text == number.to_string(),
            (Json::Text(text), Value::String(other)) => text == other,
            (Json::List(values), Value::Array(others)) => {
                values.len() == others.len() && values.iter().zip(others).all(|(a, b)| same(a, b))
            }
            (Json::Object(members), Value::Object(others)) => {
                members.len() == others.len()
                    && members.iter().all(|(key, a)| others.get(key).is_some_and(|b| same(a, b)))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn json_is_read_as_serde_json_reads_it(value in any_json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert!(same(&Json::parse(&text).unwrap(), &value), "{text}");
            }
        }

        #[test]
        fn what_is_read_is_json_but_for_pythons_words(text in r#"[\[\]{}:,0-9eE.+\-"\\u truefalsn]{0,24}"#) {
            let words = text.contains("NaN") || text.contains("Infinity");
            if Json::parse(&text).is_ok() && !words {
                let read = serde_json::from_str::<serde::de::IgnoredAny>(&text);
                prop_assert!(read.is_ok(), "{text}");
            }
        }
    }
}
