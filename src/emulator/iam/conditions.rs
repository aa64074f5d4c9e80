//! The element `Condition`: operators, and how they treat keys that are absent or have several values.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::keys::{ConditionKeys, takes_many};
use super::pattern::{ARN_PARTS, Syntax, TextPattern};

/// One operator on one key.
#[derive(Debug)]
pub(super) struct Condition {
    key: String,
    set: Option<Set>,
    /// `..IfExists`: holds when the key is absent.
    if_exists: bool,
    /// `..Not..`: holds when no value of the policy fits.
    negated: bool,
    test: Test,
}

/// Combination of the values of a key that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    All,
    Any,
}

/// The comparison with the values of the policy, one of which has to fit.
#[derive(Debug)]
enum Test {
    Null(Vec<bool>),
    Text(Vec<TextPattern>),
    TextOfAnyCase(Vec<TextPattern>),
    Arn(Vec<TextPattern>),
    Number(Order, Vec<f64>),
    /// Milliseconds since 1970.
    Date(Order, Vec<u128>),
    Bool(Vec<bool>),
    Address(Vec<(IpAddr, u32)>),
    /// Base64.
    Binary(Vec<String>),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds<T: PartialOrd>(self, value: &T, of_policy: &T) -> bool {
        match self {
            Self::Equal => value == of_policy,
            Self::Less => value < of_policy,
            Self::LessOrEqual => value <= of_policy,
            Self::Greater => value > of_policy,
            Self::GreaterOrEqual => value >= of_policy,
        }
    }
}

/// Reads a whole element. All conditions have to hold.
pub(super) fn parse(element: &Value, variables: bool) -> Result<Vec<Condition>, String> {
    let operators = element.as_object().ok_or("`Condition` is no object")?;
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let keys = keys.as_object().ok_or_else(|| format!("`{operator}` has no object of condition keys"))?;
        for (key, values) in keys {
            let values =
                scalars(values).ok_or_else(|| format!("the values of `{key}` in `{operator}` are no texts"))?;
            conditions.push(Condition::parse(operator, key, &values, variables)?);
        }
    }
    Ok(conditions)
}

/// One value or a list of them. Numbers and truth values count as their texts.
fn scalars(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => {
            values.iter().map(|value| scalars(value)?.pop().filter(|_| !value.is_array())).collect()
        }
        Value::String(text) => Some(vec![text.clone()]),
        Value::Number(_) | Value::Bool(_) => Some(vec![value.to_string()]),
        Value::Null | Value::Object(_) => None,
    }
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &[String], variables: bool) -> Result<Self, String> {
        let (set, name) = match operator.split_once(':') {
            None => (None, operator),
            Some(("ForAllValues", name)) => (Some(Set::All), name),
            Some(("ForAnyValue", name)) => (Some(Set::Any), name),
            Some(_) => return Err(unknown(operator)),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let many = takes_many(key).ok_or_else(|| format!("the emulator does not know the condition key `{key}`"))?;
        let is_null = name == "Null";
        if is_null && (if_exists || set.is_some()) {
            return Err(unknown(operator));
        }
        if many && set.is_none() && !is_null {
            return Err(format!(
                "`{key}` can have several values: `{operator}` needs `ForAllValues:` or `ForAnyValue:` before it"
            ));
        }
        let (negated, test) = Test::parse(name, values, variables)?.ok_or_else(|| unknown(operator))?;
        Ok(Self { key: key.to_owned(), set, if_exists, negated, test })
    }

    /// Whether the condition holds for a request.
    pub(super) fn holds(&self, keys: &ConditionKeys) -> bool {
        let values = keys.values(&self.key);
        if let Test::Null(expected) = &self.test {
            return expected.contains(&values.is_empty());
        }
        if values.is_empty() {
            return match self.set {
                Some(Set::All) => true,
                Some(Set::Any) => self.if_exists,
                None => self.if_exists || self.negated,
            };
        }
        let mut one_by_one = values.iter().map(|value| self.test.fits(value, keys) != self.negated);
        match self.set {
            Some(Set::Any) => one_by_one.any(|holds| holds),
            Some(Set::All) | None => one_by_one.all(|holds| holds),
        }
    }
}

fn unknown(operator: &str) -> String {
    format!("the emulator does not know the condition operator `{operator}`")
}

impl Test {
    /// Whether the operator is negated, and its comparison; `None` for an unknown operator.
    fn parse(operator: &str, values: &[String], variables: bool) -> Result<Option<(bool, Self)>, String> {
        let exact = Syntax { wildcards: false, variables };
        let wild = Syntax { wildcards: true, variables };
        let patterns =
            |syntax| values.iter().map(|value| TextPattern::parse(value, syntax)).collect::<Result<Vec<_>, _>>();
        let negated = operator.contains("Not");
        let test = match operator {
            "Null" => Self::Null(all(values, "a truth value", truth)?),
            "StringEquals" | "StringNotEquals" => Self::Text(patterns(exact)?),
            "StringLike" | "StringNotLike" => Self::Text(patterns(wild)?),
            "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase" => Self::TextOfAnyCase(patterns(exact)?),
            "ArnEquals" | "ArnLike" | "ArnNotEquals" | "ArnNotLike" => {
                if let Some(wrong) = values.iter().find(|value| !is_arn_pattern(value)) {
                    return Err(format!("`{wrong}` is no ARN, which `{operator}` needs"));
                }
                Self::Arn(patterns(wild)?)
            }
            "IpAddress" | "NotIpAddress" => Self::Address(all(values, "an address or a block of addresses", block)?),
            "Bool" => Self::Bool(all(values, "a truth value", truth)?),
            "BinaryEquals" => Self::Binary(values.to_vec()),
            _ => {
                match (operator.strip_prefix("Numeric").and_then(order), operator.strip_prefix("Date").and_then(order))
                {
                    (Some(order), _) => Self::Number(order, all(values, "a number", number)?),
                    (None, Some(order)) => Self::Date(order, all(values, "a date", date)?),
                    (None, None) => return Ok(None),
                }
            }
        };
        Ok(Some((negated, test)))
    }

    fn fits(&self, value: &str, keys: &ConditionKeys) -> bool {
        match self {
            Self::Null(_) => false,
            Self::Text(patterns) => patterns.iter().any(|pattern| pattern.matches(value, keys)),
            Self::TextOfAnyCase(patterns) => patterns.iter().any(|pattern| pattern.matches_any_case(value, keys)),
            Self::Arn(patterns) => patterns.iter().any(|pattern| pattern.matches_arn(value, keys)),
            Self::Number(order, of_policy) => {
                number(value).is_some_and(|value| of_policy.iter().any(|other| order.holds(&value, other)))
            }
            Self::Date(order, of_policy) => {
                date(value).is_some_and(|value| of_policy.iter().any(|other| order.holds(&value, other)))
            }
            Self::Bool(of_policy) => truth(value).is_some_and(|value| of_policy.contains(&value)),
            Self::Address(blocks) => {
                value.parse().is_ok_and(|address| blocks.iter().any(|block| within(address, *block)))
            }
            Self::Binary(of_policy) => of_policy.iter().any(|other| other == value),
        }
    }
}

fn all<T>(values: &[String], kind: &str, read: fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    values.iter().map(|value| read(value).ok_or_else(|| format!("`{value}` is not {kind}"))).collect()
}

fn order(name: &str) -> Option<Order> {
    match name {
        "Equals" | "NotEquals" => Some(Order::Equal),
        "LessThan" => Some(Order::Less),
        "LessThanEquals" => Some(Order::LessOrEqual),
        "GreaterThan" => Some(Order::Greater),
        "GreaterThanEquals" => Some(Order::GreaterOrEqual),
        _ => None,
    }
}

/// Whether a text has the parts of an ARN, or begins with a variable that may hold one.
fn is_arn_pattern(text: &str) -> bool {
    text.starts_with("${") || (text.starts_with("arn:") && text.splitn(ARN_PARTS, ':').count() == ARN_PARTS)
}

fn truth(text: &str) -> Option<bool> {
    text.to_lowercase().parse().ok()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A day, a time in UTC, or seconds since 1970.
fn date(text: &str) -> Option<u128> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).as_millis());
    }
    let time = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let time = humantime::parse_rfc3339(&time).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_millis())
}

/// An address with the length of its prefix; a whole address without one.
fn block(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    Some((address, prefix.unwrap_or(longest))).filter(|(_, prefix)| *prefix <= longest)
}

fn within(address: IpAddr, (network, prefix): (IpAddr, u32)) -> bool {
    let same = |one: u128, other: u128, bits: u32| (one ^ other).checked_shr(bits - prefix).unwrap_or(0) == 0;
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => same(address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => same(address.to_bits(), network.to_bits(), 128),
        _ => false,
    }
}
