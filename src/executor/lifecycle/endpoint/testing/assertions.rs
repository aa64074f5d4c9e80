//! Compares an answer with the rules of its sample. No I/O.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};
use serde_json_path::JsonPath;

use super::sample::{SampleExpectation, ValueRule};
use super::unique_keys::UniqueKeys;
use crate::base::plain;
use crate::cloud::InferenceReply;

/// Longest part of an answer or rule in a line, in bytes.
pub(super) const LONGEST: usize = 200;

/// Judgement of one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    Right,
    /// The container answered something else than the rules say.
    Wrong(String),
    /// The request failed.
    Error(String),
}

/// Judges a reply, without the time that it took.
pub(super) fn judge(expect: &SampleExpectation, reply: &InferenceReply) -> Judgement {
    let answer = match reply {
        InferenceReply::NotReady => return Judgement::Error("the model was not ready in time".to_owned()),
        InferenceReply::Answer { .. } if expect.status.is_some_and(|status| status != 200) => {
            let wanted = expect.status.unwrap_or_default();
            return Judgement::Wrong(format!("the status is 200, not {wanted}"));
        }
        InferenceReply::ModelError { status, message } if status.is_none() || *status != expect.status => {
            let status = status.map_or("an error".to_owned(), |status| format!("status {status}"));
            return Judgement::Error(format!("the model answered {status}: {}", plain::line(message, LONGEST)));
        }
        InferenceReply::Answer { content_type, body } => ModelAnswer { content_type: Some(content_type), body },
        InferenceReply::ModelError { message, .. } => ModelAnswer { content_type: None, body: message.as_bytes() },
    };
    answer.mistake(expect).map_or(Judgement::Right, Judgement::Wrong)
}

struct ModelAnswer<'a> {
    content_type: Option<&'a String>,
    body: &'a [u8],
}

impl ModelAnswer<'_> {
    /// The first rule that does not hold.
    fn mistake(&self, expect: &SampleExpectation) -> Option<String> {
        if let Some(wanted) = &expect.content_type {
            let actual = self.content_type.map_or("", String::as_str);
            if !is_type(actual, wanted) {
                let actual = if actual.is_empty() { "not known" } else { actual };
                return Some(format!("the content type is {}, not {wanted}", plain::line(actual, LONGEST)));
            }
        }
        let text = String::from_utf8_lossy(self.body);
        match &expect.equals {
            Some(Value::String(wanted)) => {
                let is_equal = without_breaks(self.body) == without_breaks(wanted.as_bytes());
                if !is_equal && !self.json().is_ok_and(|value| value == **wanted) {
                    return Some(match text {
                        Cow::Borrowed(text) => format!("the answer is {}, not {}", shown(text), shown(wanted)),
                        Cow::Owned(text) => format!("the answer is no text in UTF-8: {}", shown(&text)),
                    });
                }
            }
            Some(wanted) => match self.json() {
                Ok(actual) if is_equal(&actual, wanted) => {}
                Ok(actual) => {
                    return Some(format!("the answer is {}, not {}", shown_value(&actual), shown_value(wanted)));
                }
                Err(why) => return Some(why),
            },
            None => {}
        }
        let is_in = |wanted: &[u8]| self.body.windows(wanted.len().max(1)).any(|part| part == wanted);
        if let Some(wanted) = expect.contains.as_ref().filter(|wanted| !is_in(wanted.as_bytes())) {
            return Some(format!("the answer {} does not contain {}", shown(&text), shown(wanted)));
        }
        if expect.json.is_empty() {
            return None;
        }
        match self.json() {
            Ok(value) => expect.json.iter().find_map(|rule| broken(rule, &value)),
            Err(why) => Some(why),
        }
    }

    fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(self.body).map(|UniqueKeys(value)| value).map_err(|error| {
            let text = String::from_utf8_lossy(self.body);
            // A key that is there twice.
            if error.is_data() {
                return format!("the answer {} cannot be judged: {error}", shown(&text));
            }
            if error.to_string().starts_with("recursion limit exceeded") {
                return format!("the answer {} has more than 127 lists and objects in one another", shown(&text));
            }
            // Python writes them, and JSON has none.
            let word = ["NaN", "Infinity"].into_iter().find(|word| text.contains(word));
            let hint = word.map(|word| format!(" (it has {word}, which is no value of JSON)")).unwrap_or_default();
            format!("the answer {} is no JSON: {error}{hint}", shown(&text))
        })
    }
}

/// How a value breaks a rule.
fn broken(rule: &ValueRule, answer: &Value) -> Option<String> {
    let value = match located(&rule.path, answer) {
        Ok(value) => value,
        Err(why) => return Some(why),
    };
    let actual = || format!("`{}` is {}", rule.path, shown_value(value));
    if let Some(wanted) = rule.equals.as_ref().filter(|wanted| !is_equal(value, wanted)) {
        return Some(format!("{}, not {}", actual(), shown_value(wanted)));
    }
    if let Some(wanted) = &rule.near
        && !is_near(value, wanted, rule)
    {
        let limits = [(rule.tolerance, ""), (rule.relative_tolerance, " times it")];
        let limits: Vec<_> =
            limits.iter().filter_map(|(limit, unit)| limit.map(|limit| format!("{limit}{unit}"))).collect();
        return Some(format!("{}, which is not within {} of {}", actual(), limits.join(" or "), shown_value(wanted)));
    }
    let bounds = [(rule.min, Ordering::Less, "below"), (rule.max, Ordering::Greater, "above")];
    bounds.into_iter().find_map(|(bound, outside, word)| {
        let bound = bound?;
        match value.as_f64().and_then(|number| number.partial_cmp(&bound)) {
            None => Some(format!("{}, which is no number", actual())),
            Some(order) if order == outside => Some(format!("{}, which is {word} {bound}", actual())),
            Some(_) => None,
        }
    })
}

/// The one value that a path finds.
fn located<'a>(path: &JsonPath, answer: &'a Value) -> Result<&'a Value, String> {
    let found = path.query(answer).all();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(format!("`{path}` finds nothing in {}", shown_value(answer))),
        several => Err(format!("`{path}` finds {} values, not one", several.len())),
    }
}

/// Equal as JSON; numbers by their value.
fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (whole(left), whole(right)) {
            (None, None) => left.as_f64() == right.as_f64(),
            (left, right) => left == right,
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| is_equal(left, right)))
        }
        _ => left == right,
    }
}

/// A number without a fraction, which is compared exactly: a double cannot tell every two of them apart.
#[expect(clippy::cast_possible_truncation, reason = "the number has no fraction and is within the range")]
fn whole(number: &Number) -> Option<i128> {
    let of_double = || {
        let double = number.as_f64()?;
        (double.fract() == 0.0 && double.abs() < 1e38).then_some(double as i128)
    };
    number.as_i128().or_else(of_double)
}

/// Without the line breaks at the end.
fn without_breaks(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

/// Whether a number, or each number of lists of the same form, differs by no more than the tolerance.
fn is_near(value: &Value, wanted: &Value, rule: &ValueRule) -> bool {
    match (value, wanted) {
        (Value::Number(value), Value::Number(wanted)) => {
            value.as_f64().zip(wanted.as_f64()).is_some_and(|(value, wanted)| {
                let relative = rule.relative_tolerance.unwrap_or_default() * wanted.abs();
                (value - wanted).abs() <= relative.max(rule.tolerance.unwrap_or_default())
            })
        }
        (Value::Array(values), Value::Array(wanted)) => {
            values.len() == wanted.len()
                && values.iter().zip(wanted).all(|(value, wanted)| is_near(value, wanted, rule))
        }
        _ => false,
    }
}

/// The type and subtype are equal, and the parameters where some are wanted.
fn is_type(actual: &str, wanted: &str) -> bool {
    let actual = if wanted.contains(';') { actual } else { actual.split(';').next().unwrap_or_default() };
    actual.trim().eq_ignore_ascii_case(wanted.trim())
}

fn shown(text: &str) -> String {
    if text.is_empty() { "empty".to_owned() } else { format!("`{}`", plain::line(text, LONGEST)) }
}

fn shown_value(value: &Value) -> String {
    plain::line(&value.to_string(), LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use test_case::test_case;

    use super::*;

    fn expect(rules: &str) -> SampleExpectation {
        let rules: SampleExpectation = serde_json::from_str(rules).unwrap();
        assert_eq!(rules.mistake(), None);
        rules
    }

    fn answer(body: &str) -> InferenceReply {
        let content_type = "application/json; charset=utf-8".to_owned();
        InferenceReply::Answer { content_type, body: body.to_owned().into() }
    }

    #[test_case("{}", "anything"; "no rule")]
    #[test_case(r#"{"status": 200, "content_type": "Application/JSON"}"#, ""; "status and type")]
    #[test_case(r#"{"equals": "a b"}"#, "a b\r\n"; "text")]
    #[test_case(r#"{"equals": "a"}"#, "\"a\""; "text as JSON")]
    #[test_case(r#"{"equals": "a\n"}"#, "a"; "text with a line break at its end")]
    #[test_case(r#"{"equals": "a\n"}"#, "\"a\\n\""; "text as JSON with a line break at its end")]
    #[test_case(r#"{"equals": 0}"#, "-0.0"; "zero below zero")]
    #[test_case(r#"{"equals": 1e19}"#, "10000000000000000000"; "a large number without and with an exponent")]
    #[test_case(r#"{"contains": "\ufffd"}"#, "a\u{fffd}"; "a part that stands for bytes that are no text")]
    #[test_case(r#"{"equals": {"a": [1, 2.0]}}"#, r#"{"a": [1.0, 2]}"#; "an object")]
    #[test_case(r#"{"equals": null}"#, "null"; "null")]
    #[test_case(r#"{"contains": "ell"}"#, "hello"; "a part")]
    #[test_case(r#"{"json": [{"path": "$.p[1]", "min": 0.5, "max": 0.5}]}"#, r#"{"p": [0, 0.5]}"#; "at its bounds")]
    #[test_case(r#"{"json": [{"path": "$", "near": 0.3, "tolerance": 1e-9}]}"#, "0.30000000000000004"; "near")]
    #[test_case(r#"{"json": [{"path": "$", "near": [[1000], 0], "relative_tolerance": 0.1, "tolerance": 0.5}]}"#, "[[1099], 0.5]"; "near in lists")]
    fn a_right_answer(rules: &str, body: &str) {
        assert_eq!(judge(&expect(rules), &answer(body)), Judgement::Right);
    }

    #[test_case(r#"{"status": 400}"#, "{}" => "the status is 200, not 400"; "another status")]
    #[test_case(r#"{"content_type": "text/csv"}"#, "{}" => "the content type is application/json; charset=utf-8, not text/csv"; "another type")]
    #[test_case(r#"{"content_type": "application/json;charset=x"}"#, "{}" => "the content type is application/json; charset=utf-8, not application/json;charset=x"; "another parameter")]
    #[test_case(r#"{"equals": "a"}"#, "" => "the answer is empty, not `a`"; "empty")]
    #[test_case(r#"{"equals": 1}"#, "2" => "the answer is 2, not 1"; "another number")]
    #[test_case(r#"{"equals": [1]}"#, "[1, 1]" => "the answer is [1,1], not [1]"; "a longer list")]
    #[test_case(r#"{"equals": 9007199254740993}"#, "9007199254740992" => "the answer is 9007199254740992, not 9007199254740993"; "numbers that a double cannot tell apart")]
    #[test_case(r#"{"equals": 9007199254740993}"#, "9007199254740992.0" => "the answer is 9007199254740992.0, not 9007199254740993"; "a whole number and a double that is none")]
    #[test_case(r#"{"equals": {"a": 1}}"#, r#"{"a": 2, "a": 1}"# => "the answer `{\"a\": 2, \"a\": 1}` cannot be judged: the key `a` is there twice at line 1 column 12"; "a key twice")]
    #[test_case(r#"{"equals": {"a": 1}}"#, "no" => "the answer `no` is no JSON: expected ident at line 1 column 2"; "no JSON")]
    #[test_case(r#"{"contains": "x\u001b"}"#, "hello\n\u{1b}[2K" => "the answer `hello; \\x1b[2K` does not contain `x\\x1b`"; "not contained, with an escape sequence")]
    #[test_case(r#"{"json": [{"path": "$.p", "min": 0}]}"#, r#"{"p": NaN}"# => "the answer `{\"p\": NaN}` is no JSON: expected value at line 1 column 7 (it has NaN, which is no value of JSON)"; "NaN")]
    #[test_case(r#"{"json": [{"path": "$.p", "min": 0}]}"#, r#"{"q": 1}"# => "`$.p` finds nothing in {\"q\":1}"; "nothing is found")]
    #[test_case(r#"{"json": [{"path": "$.*", "min": 0}]}"#, "[1, 2]" => "`$.*` finds 2 values, not one"; "two are found")]
    #[test_case(r#"{"json": [{"path": "$", "min": 0}]}"#, "\"1\"" => "`$` is \"1\", which is no number"; "text in place of a number")]
    #[test_case(r#"{"json": [{"path": "$", "min": 0.5}]}"#, "0.49" => "`$` is 0.49, which is below 0.5"; "below")]
    #[test_case(r#"{"json": [{"path": "$", "max": 0.5}]}"#, "0.51" => "`$` is 0.51, which is above 0.5"; "above")]
    #[test_case(r#"{"json": [{"path": "$", "equals": "a"}]}"#, "\"b\"" => "`$` is \"b\", not \"a\""; "another text")]
    #[test_case(r#"{"json": [{"path": "$", "near": 1, "tolerance": 0.1, "relative_tolerance": 0.2}]}"#, "1.3" => "`$` is 1.3, which is not within 0.1 or 0.2 times it of 1"; "too far")]
    #[test_case(r#"{"json": [{"path": "$", "near": [1], "tolerance": 0.1}]}"#, "[1, 2]" => "`$` is [1,2], which is not within 0.1 of [1]"; "a longer list of numbers")]
    fn a_wrong_answer(rules: &str, body: &str) -> String {
        match judge(&expect(rules), &answer(body)) {
            Judgement::Wrong(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test_case(r#"{"equals": "\ufffd"}"# => "the answer is no text in UTF-8: `\u{fffd}`"; "equals")]
    #[test_case(r#"{"contains": "\ufffd"}"# => "the answer `\u{fffd}` does not contain `\u{fffd}`"; "contains")]
    fn bytes_that_are_no_text_are_not_their_replacement(rules: &str) -> String {
        let reply = InferenceReply::Answer { content_type: String::new(), body: vec![0xff].into() };
        match judge(&expect(rules), &reply) {
            Judgement::Wrong(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_that_is_too_deep_is_told() {
        let body = "[".repeat(200) + &"]".repeat(200);
        let Judgement::Wrong(why) = judge(&expect(r#"{"equals": []}"#), &answer(&body)) else { panic!("right") };
        assert!(why.contains("more than 127 lists and objects in one another"), "{why}");
    }

    #[test]
    fn an_error_of_the_model_is_wanted_or_an_error() {
        let error = |status| InferenceReply::ModelError { status, message: "bad\ninput".to_owned() };
        let wanted = expect(r#"{"status": 400, "contains": "bad"}"#);
        assert_eq!(judge(&wanted, &error(Some(400))), Judgement::Right);
        let other = |reply| match judge(&wanted, &reply) {
            Judgement::Error(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(other(error(Some(500))), "the model answered status 500: bad; input");
        assert_eq!(other(error(None)), "the model answered an error: bad; input");
        assert_eq!(other(InferenceReply::NotReady), "the model was not ready in time");
        let text = expect(r#"{"status": 400, "contains": "good"}"#);
        assert!(matches!(judge(&text, &error(Some(400))), Judgement::Wrong(_)));
    }

    #[test_case(r#"{"status": 99}"# => "`expect.status` must be from 200 to 599")]
    #[test_case(r#"{"contains": ""}"# => "`expect.contains` is empty, which every answer contains")]
    #[test_case(r#"{"max_ms": 0}"# => "`expect.max_ms` must be above 0")]
    #[test_case(r#"{"json": [{"path": "$.a"}]}"# => "the rule of `$.a` says nothing: add `equals`, `min`, `max` or `near`")]
    #[test_case(r#"{"json": [{"path": "$", "near": 1}]}"# => "the rule of `$` needs `near` together with `tolerance` or `relative_tolerance`")]
    #[test_case(r#"{"json": [{"path": "$", "min": 1, "tolerance": 1}]}"# => "the rule of `$` needs `near` together with `tolerance` or `relative_tolerance`")]
    #[test_case(r#"{"json": [{"path": "$", "near": [], "tolerance": 1}]}"# => "the rule of `$` has no number, and no lists of numbers, in `near`")]
    #[test_case(r#"{"json": [{"path": "$", "near": 1, "tolerance": -1}]}"# => "the rule of `$` has a tolerance below 0")]
    #[test_case(r#"{"json": [{"path": "$", "min": 1, "max": 0}]}"# => "the rule of `$` has a `min` above its `max`")]
    fn a_rule_that_says_nothing_is_refused(rules: &str) -> String {
        serde_json::from_str::<SampleExpectation>(rules).unwrap().mistake().unwrap()
    }

    proptest! {
        #[test]
        fn the_tolerance_is_the_bound(wanted in -1e6..1e6_f64, difference in 0.0..10.0_f64, tolerance in 0.0..10.0_f64) {
            let rules = json!({"json": [{"path": "$", "near": wanted, "tolerance": tolerance}]});
            let value = wanted + difference;
            let judged = judge(&expect(&rules.to_string()), &answer(&json!(value).to_string()));
            prop_assert_eq!(judged == Judgement::Right, (value - wanted).abs() <= tolerance);
        }
    }
}
