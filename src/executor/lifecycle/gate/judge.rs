//! Compares the metrics of a model with the rules, and says of each whether it holds. No I/O.

use serde::Serialize;

use super::decimal::Decimal;
use super::labels::Selector;
use super::metrics::{Metrics, NoValue};
use super::rule::{Direction, RegressionLimit, Requirement, Rules};

/// Whether a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RuleState {
    Passed,
    Failed,
    /// There is no earlier model to compare with.
    Skipped,
}

impl RuleState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A rule, and how the model compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JudgedRule {
    pub(super) rule: String,
    #[serde(serialize_with = "as_text")]
    pub(super) metric: Selector,
    pub(super) value: Option<Decimal>,
    /// Of the earlier model, for a limit of a regression.
    pub(super) baseline: Option<Decimal>,
    pub(super) result: RuleState,
    /// Why it does not hold, or was not judged.
    pub(super) reason: Option<String>,
    #[serde(skip)]
    pub(super) similar: Vec<String>,
}

fn as_text<S: serde::Serializer>(metric: &Selector, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(metric)
}

/// The earlier model that a model is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Earlier {
    Model(Metrics),
    /// The first model of its group has no earlier one; the limits then hold, or fail when one is required.
    None {
        is_required: bool,
    },
}

/// Judges every rule, in their order.
pub(crate) fn judge(rules: &Rules, metrics: &Metrics, earlier: &Earlier) -> Vec<JudgedRule> {
    let requirements = rules.requirements.iter().map(|rule| judge_requirement(rule, metrics));
    let limits = rules.limits.iter().map(|limit| judge_limit(limit, metrics, earlier));
    requirements.chain(limits).collect()
}

fn judged(rule: &dyn std::fmt::Display, metric: &Selector) -> JudgedRule {
    JudgedRule {
        rule: rule.to_string(),
        metric: metric.clone(),
        value: None,
        baseline: None,
        result: RuleState::Failed,
        reason: None,
        similar: Vec::new(),
    }
}

fn judge_requirement(rule: &Requirement, metrics: &Metrics) -> JudgedRule {
    let judged = judged(rule, &rule.metric);
    match metrics.value(&rule.metric) {
        Err(NoValue { why, similar }) => JudgedRule { reason: Some(why), similar, ..judged },
        Ok(value) if rule.comparison.holds(value, rule.bar) => {
            JudgedRule { value: Some(value), result: RuleState::Passed, ..judged }
        }
        Ok(value) => JudgedRule { value: Some(value), reason: Some(format!("it is {value}")), ..judged },
    }
}

fn judge_limit(limit: &RegressionLimit, metrics: &Metrics, earlier: &Earlier) -> JudgedRule {
    let judged = judged(limit, &limit.metric);
    let value = match metrics.value(&limit.metric) {
        Ok(value) => value,
        Err(NoValue { why, similar }) => return JudgedRule { reason: Some(why), similar, ..judged },
    };
    let judged = JudgedRule { value: Some(value), ..judged };
    let baseline = match earlier {
        Earlier::Model(earlier) => earlier.value(&limit.metric),
        Earlier::None { is_required } => {
            let result = if *is_required { RuleState::Failed } else { RuleState::Skipped };
            return JudgedRule { result, reason: Some("the group has no approved version".to_owned()), ..judged };
        }
    };
    let baseline = match baseline {
        Ok(baseline) => baseline,
        Err(NoValue { why, similar }) => {
            return JudgedRule { reason: Some(format!("of the baseline, {why}")), similar, ..judged };
        }
    };
    let judged = JudgedRule { baseline: Some(baseline), ..judged };
    let (bound, holds) = match limit.direction {
        Direction::Higher => (baseline.minus(limit.margin), Decimal::ge as fn(&Decimal, &Decimal) -> bool),
        Direction::Lower => (baseline.plus(limit.margin), Decimal::le as fn(&Decimal, &Decimal) -> bool),
    };
    match bound {
        Some(bound) if holds(&value, &bound) => JudgedRule { result: RuleState::Passed, ..judged },
        Some(_) => JudgedRule { reason: Some(format!("it is {value}, and the baseline's is {baseline}")), ..judged },
        None => {
            let reason = format!("{baseline} and {} are too far apart to be compared exactly", limit.margin);
            JudgedRule { reason: Some(reason), ..judged }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::super::metrics::MetricsSource;
    use super::super::rule::RuleTexts;
    use super::*;

    fn metrics(name: &str, text: &str) -> Metrics {
        Metrics::parse(&[MetricsSource { name: name.to_owned(), bytes: text.as_bytes().to_vec() }], &[]).unwrap()
    }

    fn result(require: &[&str], limits: &[&str], text: &str, earlier: &Earlier) -> Vec<(RuleState, String)> {
        let [require, limits] =
            [require, limits].map(|texts| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let texts = RuleTexts { require: &require, max_regression: &limits };
        let rules = Rules::parse(RuleTexts::default(), texts).unwrap();
        let judged = judge(&rules, &metrics("m.json", text), earlier);
        judged.into_iter().map(|rule| (rule.result, rule.reason.unwrap_or_default())).collect()
    }

    const FIRST: Earlier = Earlier::None { is_required: false };

    #[test]
    fn each_rule_is_judged_in_its_order() {
        let text = r#"{"accuracy": 0.80, "f1": 0.69999999999, "loss": NaN}"#;
        let found = result(&["accuracy>=0.8", "f1>=0.7", "loss<1", "auc>0.5"], &["f1=0"], text, &FIRST);
        let expected = [
            (RuleState::Passed, ""),
            (RuleState::Failed, "it is 0.69999999999"),
            (RuleState::Failed, "it is NaN"),
            (RuleState::Failed, "no file has this metric"),
            (RuleState::Skipped, "the group has no approved version"),
        ];
        assert_eq!(found, expected.map(|(state, reason)| (state, reason.to_owned())));
    }

    #[test_case("f1>=0", "f1=0.01", "0.79" => (RuleState::Passed, String::new()); "exactly at the limit")]
    #[test_case("f1>=0", "f1=0.01", "0.789999" => (RuleState::Failed, "it is 0.789999, and the baseline's is 0.8".to_owned()); "below the limit")]
    #[test_case("f1>=0", "f1=0", "0.9" => (RuleState::Passed, String::new()); "better")]
    #[test_case("f1<=1", "f1=0.1", "0.9" => (RuleState::Passed, String::new()); "lower is better, exactly at the limit")]
    #[test_case("f1<=1", "f1=0.1", "0.91" => (RuleState::Failed, "it is 0.91, and the baseline's is 0.8".to_owned()); "lower is better, above the limit")]
    #[test_case("f1>=0", "f1=1e-300", "0.9" => (RuleState::Failed, "0.8 and 1e-300 are too far apart to be compared exactly".to_owned()); "too far apart")]
    fn a_regression_is_measured_exactly(rule: &str, limit: &str, value: &str) -> (RuleState, String) {
        let earlier = Earlier::Model(metrics("old.txt", "f1 0.8\n"));
        result(&[rule], &[limit], &format!("{{\"f1\": {value}}}"), &earlier).remove(1)
    }

    #[test]
    fn a_limit_fails_without_a_value_of_the_earlier_model() {
        let earlier = Earlier::Model(metrics("old.txt", "accuracy 0.8\nf1 NaN\n"));
        let found = result(&[], &["higher:f1=0.1", "higher:auc=0.1"], r#"{"f1": 1, "auc": 1}"#, &earlier);
        let reasons: Vec<_> = found.iter().map(|(state, reason)| (*state, reason.as_str())).collect();
        let expected = ["of the baseline, it is NaN", "of the baseline, no file has this metric"];
        assert_eq!(reasons, expected.map(|reason| (RuleState::Failed, reason)));
        let required = Earlier::None { is_required: true };
        assert_eq!(result(&[], &["higher:f1=0.1"], r#"{"f1": 1}"#, &required)[0].0, RuleState::Failed);
    }

    /// A value in each form that a file may have.
    fn in_every_form(value: &str) -> Vec<Metrics> {
        let forms = [
            ("m.json", format!("{{\"a\": {value}}}")),
            (
                "m.json",
                format!("{{\"regression_metrics\": {{\"a\": {{\"value\": {value}, \"standard_deviation\": 0}}}}}}"),
            ),
            ("m.json", format!("{{\"schema\": \"sagemaker-executor/metrics/1\", \"metrics\": {{\"a\": {value}}}}}")),
            ("m.txt", format!("# TYPE a gauge\na{{split=\"test\"}} {value} 1700000000\n# EOF\n")),
        ];
        forms.iter().map(|(name, text)| metrics(name, text)).collect()
    }

    fn at_least(bar: &str) -> Rules {
        let require = [format!("a >= {bar}")];
        Rules::parse(RuleTexts::default(), RuleTexts { require: &require, max_regression: &[] }).unwrap()
    }

    proptest! {
        #[test]
        fn a_metric_passes_in_every_form_exactly_when_it_reaches_the_bar(value: f64, bar: f64) {
            prop_assume!(value.is_finite() && bar.is_finite());
            let expected = if value >= bar { RuleState::Passed } else { RuleState::Failed };
            for metrics in in_every_form(&format!("{value:e}")) {
                prop_assert_eq!(judge(&at_least(&bar.to_string()), &metrics, &FIRST)[0].result, expected);
            }
        }

        #[test]
        fn no_step_below_the_bar_is_too_small(bar in 1_u64..1_000_000_000, places in 1_usize..20) {
            let below = format!("{}.{}", bar - 1, "9".repeat(places));
            for metrics in in_every_form(&below) {
                prop_assert_eq!(judge(&at_least(&bar.to_string()), &metrics, &FIRST)[0].result, RuleState::Failed);
            }
        }

        #[test]
        fn what_is_no_number_never_passes(value in r#"NaN|-?Infinity|null|true|false|\[1\]|\{\}|"[0-9]{1,3}"|1e[1-9][0-9]{3}"#, bar: f64) {
            prop_assume!(bar.is_finite());
            let text = format!("{{\"a\": {value}}}");
            for rule in [format!("a>={bar}"), format!("a<={bar}"), format!("a=={bar}")] {
                prop_assert_eq!(result(&[&rule], &[], &text, &FIRST)[0].0, RuleState::Failed);
            }
        }
    }
}
