//! Rules of a gate: bars such as `accuracy>=0.8`, and limits of a regression such as `f1=0.01`. No I/O.

use super::decimal::Decimal;
use super::labels::Selector;
use crate::base::failure::Failure;

/// How a metric is compared with its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

impl Comparison {
    /// Longer ones first, as they are searched.
    const ALL: [(&'static str, Self); 5] =
        [(">=", Self::AtLeast), ("<=", Self::AtMost), ("==", Self::Equal), (">", Self::Above), ("<", Self::Below)];

    pub(super) fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, comparison)| *comparison == self).map_or("", |(sign, _)| sign)
    }

    pub(super) fn holds(self, value: Decimal, bar: Decimal) -> bool {
        match self {
            Self::AtLeast => value >= bar,
            Self::Above => value > bar,
            Self::AtMost => value <= bar,
            Self::Below => value < bar,
            Self::Equal => value == bar,
        }
    }

    /// Which values are better; of an equality none is.
    pub(super) fn direction(self) -> Option<Direction> {
        match self {
            Self::AtLeast | Self::Above => Some(Direction::Higher),
            Self::AtMost | Self::Below => Some(Direction::Lower),
            Self::Equal => None,
        }
    }
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Higher,
    Lower,
}

/// A bar that a metric must reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(super) metric: Selector,
    pub(super) comparison: Comparison,
    pub(super) bar: Decimal,
}

impl Requirement {
    /// `place` is the flag or key that the text is from.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::user(format!("`{text}` of {place} is no rule: {why}"))
                .hint("write metric, comparison and number, as in `accuracy>=0.8`; comparisons are >=, >, <=, < and ==; a shell needs single quotes around it")
        };
        let at = comparison_start(text).ok_or_else(|| wrong("it has no comparison"))?;
        let (name, rest) = text.split_at(at);
        let (sign, comparison) = Comparison::ALL
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| wrong("`=` is no comparison"))?;
        let metric = Selector::parse(name).ok_or_else(|| wrong("the name of the metric cannot be read"))?;
        let bar = Decimal::parse(rest[sign.len()..].trim())
            .map_err(|_| wrong("what follows the comparison is no number of JSON, or too large or long"))?;
        Ok(Self { metric, comparison, bar })
    }

    /// Whether all values that this rule lets pass also pass `other`, when both are bounds on the same side.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        if self.metric != other.metric {
            return true;
        }
        let is_stricter = match (self.comparison.direction(), other.comparison.direction()) {
            (Some(Direction::Higher), Some(Direction::Higher)) => self.bar > other.bar,
            (Some(Direction::Lower), Some(Direction::Lower)) => self.bar < other.bar,
            _ => return true,
        };
        let is_same = self.bar == other.bar && (self.comparison == other.comparison || is_open(self.comparison));
        is_stricter || is_same
    }
}

/// The bar itself does not pass.
fn is_open(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Above | Comparison::Below)
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.metric, self.comparison.sign(), self.bar)
    }
}

/// Where the comparison starts: the first of its characters outside of labels in double quotes and braces.
fn comparison_start(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped, mut is_braced) = (false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '{' | '}' if !is_quoted => is_braced = c == '{',
            '<' | '>' | '=' if !is_quoted && !is_braced => return Some(at),
            _ => {}
        }
    }
    None
}

/// How much a metric may be worse than the baseline's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegressionLimit {
    pub(super) metric: Selector,
    pub(super) direction: Direction,
    pub(super) margin: Decimal,
}

impl RegressionLimit {
    /// The direction is that of the bars of the same metric, where the text does not begin with `higher:` or `lower:`.
    fn parse(text: &str, place: &str, requirements: &[Requirement]) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::user(format!("`{text}` of {place} is no limit of a regression: {why}")).hint(
                "write metric and number, as in `f1=0.01`; `higher:f1=0.01` or `lower:loss=0.05` where no rule of the metric says which values are better",
            )
        };
        let (stated, rest) = match text.trim().split_once(':') {
            Some(("higher", rest)) => (Some(Direction::Higher), rest),
            Some(("lower", rest)) => (Some(Direction::Lower), rest),
            _ => (None, text),
        };
        let at = comparison_start(rest).filter(|at| rest[*at..].starts_with('='));
        let (name, number) = rest.split_at(at.ok_or_else(|| wrong("it has no `=`"))?);
        let metric = Selector::parse(name).ok_or_else(|| wrong("the name of the metric cannot be read"))?;
        let margin = Decimal::parse(number[1..].trim())
            .map_err(|_| wrong("what follows `=` is no number of JSON, or too large or long"))?;
        if margin.is_negative() {
            return Err(wrong("the number is negative"));
        }
        let mut of_rules: Vec<Direction> = requirements
            .iter()
            .filter(|rule| rule.metric == metric)
            .filter_map(|rule| rule.comparison.direction())
            .collect();
        of_rules.dedup();
        let direction = match (stated, of_rules.as_slice()) {
            (Some(stated), _) => stated,
            (None, [one]) => *one,
            (None, []) => return Err(wrong("no rule says whether higher or lower values are better")),
            (None, _) => return Err(wrong("the rules do not agree whether higher or lower values are better")),
        };
        Ok(Self { metric, direction, margin })
    }

    /// `at most 0.01 below the baseline`.
    pub(super) fn words(&self) -> String {
        let side = match self.direction {
            Direction::Higher => "below",
            Direction::Lower => "above",
        };
        format!("at most {} {side} the baseline", self.margin)
    }
}

impl std::fmt::Display for RegressionLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.metric, self.words())
    }
}

/// All rules of a gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(super) requirements: Vec<Requirement>,
    pub(super) limits: Vec<RegressionLimit>,
}

/// Rules as text, from the manifest or from the command line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RuleTexts<'a> {
    pub(super) require: &'a [String],
    pub(super) max_regression: &'a [String],
}

impl Rules {
    /// The rules of the manifest, and those of the command line, which may add to them and not loosen them.
    ///
    /// # Errors
    /// Failures of the user that name the rule.
    pub(crate) fn parse(manifest: RuleTexts<'_>, command_line: RuleTexts<'_>) -> Result<Self, Failure> {
        let all = |texts: &[String], place: &str| -> Result<Vec<_>, Failure> {
            texts.iter().map(|text| Requirement::parse(text, place)).collect()
        };
        let (mut requirements, added) =
            (all(manifest.require, "`model.require`")?, all(command_line.require, "`--require`")?);
        for rule in &added {
            if let Some(loosened) = requirements.iter().find(|other| !rule.is_as_strict_as(other)) {
                return Err(looser("--require", rule, "model.require", loosened));
            }
        }
        requirements.extend(added);
        remove_repeated(&mut requirements);
        let all = |texts: &[String], place: &str| -> Result<Vec<_>, Failure> {
            texts.iter().map(|text| RegressionLimit::parse(text, place, &requirements)).collect()
        };
        let (mut limits, added) = (
            all(manifest.max_regression, "`model.max_regression`")?,
            all(command_line.max_regression, "`--max-regression`")?,
        );
        for limit in &added {
            let is_looser = |other: &&RegressionLimit| {
                other.metric == limit.metric && (other.margin < limit.margin || other.direction != limit.direction)
            };
            if let Some(loosened) = limits.iter().find(is_looser) {
                return Err(looser("--max-regression", limit, "model.max_regression", loosened));
            }
        }
        limits.extend(added);
        remove_repeated(&mut limits);
        Ok(Self { requirements, limits })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requirements.is_empty() && self.limits.is_empty()
    }
}

fn looser(flag: &str, rule: &dyn std::fmt::Display, key: &str, loosened: &dyn std::fmt::Display) -> Failure {
    Failure::user(format!("`{rule}` of `{flag}` is looser than `{loosened}` of the manifest"))
        .hint(format!("change `{key}` in the manifest; `{flag}` can only add to it"))
}

fn remove_repeated<T: PartialEq>(rules: &mut Vec<T>) {
    let mut at = 0;
    while at < rules.len() {
        if rules[..at].contains(&rules[at]) {
            rules.remove(at);
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn rules(manifest: [&str; 2], command_line: [&str; 2]) -> Result<Vec<String>, String> {
        let texts = |text: &str| -> Vec<String> { text.split_terminator(';').map(str::to_owned).collect() };
        let [a, b, c, d] = [manifest[0], manifest[1], command_line[0], command_line[1]].map(texts);
        let parsed =
            Rules::parse(RuleTexts { require: &a, max_regression: &b }, RuleTexts { require: &c, max_regression: &d });
        let Rules { requirements, limits } = parsed.map_err(|failure| failure.message().to_owned())?;
        let shown = requirements.iter().map(ToString::to_string).chain(limits.iter().map(ToString::to_string));
        Ok(shown.collect())
    }

    #[test]
    fn rules_are_read_with_spaces_labels_and_every_comparison() {
        let text = "accuracy>=0.8; f1  >  7e-1 ;loss<=2;a b.c<0;exact==1;acc{split=\"a>=b\"}>=0.5;val:acc>=0.80";
        let expected = [
            "accuracy >= 0.8",
            "f1 > 0.7",
            "loss <= 2",
            "a b.c < 0",
            "exact == 1",
            "acc{split=\"a>=b\"} >= 0.5",
            "val:acc >= 0.8",
        ];
        assert_eq!(rules(["", ""], [text, ""]).unwrap(), expected);
    }

    #[test_case("accuracy" => "`accuracy` of `--require` is no rule: it has no comparison"; "no comparison")]
    #[test_case("accuracy=0.8" => "`accuracy=0.8` of `--require` is no rule: `=` is no comparison"; "one sign")]
    #[test_case(">=0.8" => "`>=0.8` of `--require` is no rule: the name of the metric cannot be read"; "no metric")]
    #[test_case("a!=1" => "`a!=1` of `--require` is no rule: `=` is no comparison"; "not equal")]
    #[test_case("a=>1" => "`a=>1` of `--require` is no rule: `=` is no comparison"; "turned around")]
    #[test_case("a>=" => "`a>=` of `--require` is no rule: what follows the comparison is no number of JSON, or too large or long"; "no number")]
    #[test_case("a>=80%" => "`a>=80%` of `--require` is no rule: what follows the comparison is no number of JSON, or too large or long"; "percent")]
    #[test_case("a>=NaN" => "`a>=NaN` of `--require` is no rule: what follows the comparison is no number of JSON, or too large or long"; "NaN")]
    #[test_case("a>=b>=1" => "`a>=b>=1` of `--require` is no rule: what follows the comparison is no number of JSON, or too large or long"; "two comparisons")]
    fn a_wrong_rule_is_told(text: &str) -> String {
        rules(["", ""], [text, ""]).unwrap_err()
    }

    #[test_case("a>=0.8", "a>=0.9" => None; "a higher bar")]
    #[test_case("a>=0.8", "a>=0.80" => None; "the same bar")]
    #[test_case("a>=0.8", "a>0.8" => None; "an open bar")]
    #[test_case("a>=0.8", "a<=0.9" => None; "a bar from the other side")]
    #[test_case("a>=0.8", "b>=0.1" => None; "another metric")]
    #[test_case("a>=0.8", "a>=0.7" => Some("`a >= 0.7` of `--require` is looser than `a >= 0.8` of the manifest".to_owned()); "a lower bar")]
    #[test_case("a>0.8", "a>=0.8" => Some("`a >= 0.8` of `--require` is looser than `a > 0.8` of the manifest".to_owned()); "a closed bar")]
    #[test_case("a<0.8", "a<0.9" => Some("`a < 0.9` of `--require` is looser than `a < 0.8` of the manifest".to_owned()); "a higher limit")]
    fn the_command_line_never_loosens_a_rule(manifest: &str, command_line: &str) -> Option<String> {
        rules([manifest, ""], [command_line, ""]).err()
    }

    #[test]
    fn the_direction_of_a_regression_is_that_of_the_rules() {
        let found = rules(["f1>=0.7;loss<1", "f1=0.01"], ["", "loss=0.05;higher:auc=0;lower: rmse = 1e-3"]).unwrap();
        let expected = [
            "f1 at most 0.01 below the baseline",
            "loss at most 0.05 above the baseline",
            "auc at most 0 below the baseline",
            "rmse at most 0.001 above the baseline",
        ];
        assert_eq!(found[2..], expected);
        let wrong = |require, limit| rules(["", ""], [require, limit]).unwrap_err();
        let no_limit = |text: &str| format!("`{text}` of `--max-regression` is no limit of a regression: ");
        assert_eq!(wrong("", "f1=1"), no_limit("f1=1") + "no rule says whether higher or lower values are better");
        assert_eq!(wrong("f1==1", "f1=1"), no_limit("f1=1") + "no rule says whether higher or lower values are better");
        assert_eq!(
            wrong("f1>0;f1<1", "f1=1"),
            no_limit("f1=1") + "the rules do not agree whether higher or lower values are better"
        );
        assert_eq!(wrong("f1>0", "f1=-1"), no_limit("f1=-1") + "the number is negative");
        assert_eq!(wrong("f1>0", "f1"), no_limit("f1") + "it has no `=`");
        assert_eq!(wrong("f1>0", "f1>1"), no_limit("f1>1") + "it has no `=`");
        assert_eq!(
            rules(["f1>0", "f1=0.01"], ["", "f1=0.02"]).unwrap_err(),
            "`f1 at most 0.02 below the baseline` of `--max-regression` is looser than `f1 at most 0.01 below the baseline` of the manifest"
        );
    }
}
