//! Definitions of metrics: a name, and the regular expression that finds its values in lines of output. No I/O.

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Most definitions of a job, the longest name and the longest expression, all as SageMaker limits them.
pub const MOST_METRICS: usize = 40;
pub const NAME_CHARS: usize = 255;
pub const REGEX_CHARS: usize = 500;
/// Upper bound of a compiled expression in bytes: one such as `\w{1000}` would take megabytes of the instance.
const COMPILED_BYTES: usize = 256 << 10;

/// A metric, as the job defines it and as `CreateTrainingJob` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricDefinition {
    pub name: String,
    /// With one group, which holds the number.
    pub regex: String,
}

/// Why a definition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableMetric {
    /// Continues the name of the variable or of the metric.
    pub why: String,
    pub change: &'static str,
}

impl MetricDefinition {
    /// Reads one `name=regex` a line; blank lines are left out.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, UnusableMetric> {
        let mut all: Vec<Self> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let definition = Self::parse(line)?;
            if all.iter().any(|other| other.name == definition.name) {
                return Err(unusable(
                    format!("has the metric `{}` twice", definition.name),
                    "give each metric a name of its own",
                ));
            }
            all.push(definition);
        }
        if all.len() > MOST_METRICS {
            return Err(unusable(format!("has {} metrics; {MOST_METRICS} fit", all.len()), "remove some of the lines"));
        }
        Ok(all)
    }

    fn parse(line: &str) -> Result<Self, UnusableMetric> {
        const FORM: &str = r"write a line for each metric as in `loss=loss: ([-+.\w]+)`";
        let Some((name, regex)) = line.split_once('=') else {
            return Err(unusable("has a line without `=`".to_owned(), FORM));
        };
        let (name, regex) = (name.trim(), regex.trim());
        if !is_metric_name(name) {
            let why = format!("has a metric whose name is not 1 to {NAME_CHARS} letters, digits and `_ . : / -`");
            return Err(unusable(why, FORM));
        }
        let length = regex.chars().count();
        if length == 0 || length > REGEX_CHARS {
            let why = format!("has a regular expression for `{name}` that is not 1 to {REGEX_CHARS} characters long");
            return Err(unusable(why, FORM));
        }
        let definition = Self { name: name.to_owned(), regex: regex.to_owned() };
        let Some(compiled) = definition.compile() else {
            return Err(unusable(
                format!("has a regular expression for `{name}` that cannot be used"),
                "look for unbalanced brackets; look-ahead, look-behind, back references and counts of hundreds are not supported",
            ));
        };
        if compiled.captures_len() != 2 {
            let why = format!(
                "has a regular expression for `{name}` with {} groups; it needs one",
                compiled.captures_len() - 1
            );
            return Err(unusable(why, "put the number alone in brackets, and write other groups as `(?:...)`"));
        }
        Ok(definition)
    }

    /// `None`: it cannot be compiled, or takes too much memory.
    pub fn compile(&self) -> Option<Regex> {
        RegexBuilder::new(&self.regex).size_limit(COMPILED_BYTES).dfa_size_limit(COMPILED_BYTES).build().ok()
    }
}

fn unusable(why: String, change: &'static str) -> UnusableMetric {
    UnusableMetric { why, change }
}

/// `true` for a name that may come from a container.
pub fn is_metric_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    (1..=NAME_CHARS).contains(&name.len()) && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn a_block_of_yaml_has_a_line_for_each_metric() {
        let all = MetricDefinition::parse_all("loss=loss: ([-+.\\w]+)\n\n  val:acc = accuracy=(\\S+)\n").unwrap();
        let pairs: Vec<_> = all.iter().map(|metric| (metric.name.as_str(), metric.regex.as_str())).collect();
        assert_eq!(pairs, [("loss", "loss: ([-+.\\w]+)"), ("val:acc", "accuracy=(\\S+)")]);
        assert_eq!(MetricDefinition::parse_all(" \n").unwrap(), []);
    }

    #[test_case("loss" => "has a line without `=`"; "without an expression")]
    #[test_case("a b=(x)" => "has a metric whose name is not 1 to 255 letters, digits and `_ . : / -`"; "a blank in the name")]
    #[test_case("=(x)" => "has a metric whose name is not 1 to 255 letters, digits and `_ . : / -`"; "without a name")]
    #[test_case("a=" => "has a regular expression for `a` that is not 1 to 500 characters long"; "an empty expression")]
    #[test_case("a=(x" => "has a regular expression for `a` that cannot be used"; "an open bracket")]
    #[test_case("a=(?=x)(y)" => "has a regular expression for `a` that cannot be used"; "look-ahead")]
    #[test_case("a=((x{99}){99}){99}" => "has a regular expression for `a` that cannot be used"; "too large")]
    #[test_case("a=x" => "has a regular expression for `a` with 0 groups; it needs one"; "no group")]
    #[test_case("a=(x)(y)" => "has a regular expression for `a` with 2 groups; it needs one"; "two groups")]
    #[test_case("a=(x)\na=(y)" => "has the metric `a` twice"; "twice")]
    fn a_definition_that_cannot_be_used_is_told(text: &str) -> String {
        MetricDefinition::parse_all(text).unwrap_err().why
    }

    #[test]
    fn forty_metrics_fit() {
        let lines = |count: usize| (0..count).fold(String::new(), |all, number| format!("{all}m{number}=(x)\n"));
        assert_eq!(MetricDefinition::parse_all(&lines(40)).unwrap().len(), 40);
        assert_eq!(MetricDefinition::parse_all(&lines(41)).unwrap_err().why, "has 41 metrics; 40 fit");
    }
}
