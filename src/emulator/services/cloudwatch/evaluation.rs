//! The state that an alarm has by its data points.
//!
//! Pure: data points in, the state out.

use serde_json::Value;

use super::metrics::Statistic;
use crate::protocol::text;

/// The value of `StateValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlarmStateValue {
    Ok,
    Alarm,
    InsufficientData,
}

impl AlarmStateValue {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Ok, Self::Alarm, Self::InsufficientData].into_iter().find(|one| one.text() == text)
    }
}

/// The value of `TreatMissingData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingData {
    Missing,
    Ignore,
    Breaching,
    NotBreaching,
}

/// When an alarm is on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AlarmRule {
    pub(super) statistic: Statistic,
    /// In seconds.
    pub(super) period: u64,
    /// Data points that are looked at.
    pub(super) periods: usize,
    /// Data points that must breach.
    pub(super) to_alarm: usize,
    pub(super) threshold: f64,
    comparison: Comparison,
    missing: MissingData,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    Below,
    AtMost,
}

impl Comparison {
    fn words(self) -> &'static str {
        match self {
            Self::AtLeast => "greater than or equal to",
            Self::Above => "greater than",
            Self::Below => "less than",
            Self::AtMost => "less than or equal to",
        }
    }
}

impl AlarmRule {
    /// The rule of a request that satisfies the model; an error says what is wrong or not emulated.
    pub(super) fn parse(definition: &Value) -> Result<Self, String> {
        let required = |name: &str| format!("The parameter {name} is required for a metric alarm.");
        let number = |name: &str| definition[name].as_u64();
        let statistic = match (text(definition, "Statistic"), text(definition, "ExtendedStatistic")) {
            (Some(word), None) | (None, Some(word)) => {
                Statistic::parse(word).ok_or_else(|| format!("The statistic {word} is not valid, or not emulated."))?
            }
            _ => return Err("Exactly one of the parameters Statistic and ExtendedStatistic must be given.".to_owned()),
        };
        let period = number("Period").ok_or_else(|| required("Period"))?;
        if !matches!(period, 10 | 20 | 30) && !period.is_multiple_of(60) {
            return Err("Period must be 10, 20, 30, or a multiple of 60.".to_owned());
        }
        let periods = number("EvaluationPeriods").ok_or_else(|| required("EvaluationPeriods"))?;
        if period * periods > 604_800 {
            return Err(
                "Metrics cannot be checked across more than a week (EvaluationPeriods * Period must be <= 604800)."
                    .to_owned(),
            );
        }
        if period < 3600 && period * periods > 86_400 {
            return Err(
                "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400) with a Period below \
                 3600."
                    .to_owned(),
            );
        }
        let to_alarm = number("DatapointsToAlarm").unwrap_or(periods);
        if to_alarm > periods {
            return Err("DatapointsToAlarm must be less than or equal to EvaluationPeriods.".to_owned());
        }
        let comparison = match text(definition, "ComparisonOperator").ok_or_else(|| required("ComparisonOperator"))? {
            "GreaterThanOrEqualToThreshold" => Comparison::AtLeast,
            "GreaterThanThreshold" => Comparison::Above,
            "LessThanThreshold" => Comparison::Below,
            "LessThanOrEqualToThreshold" => Comparison::AtMost,
            other => return Err(format!("Anomaly detection is not emulated: ComparisonOperator {other}.")),
        };
        let missing = match text(definition, "TreatMissingData") {
            None | Some("missing") => MissingData::Missing,
            Some("ignore") => MissingData::Ignore,
            Some("breaching") => MissingData::Breaching,
            Some("notBreaching") => MissingData::NotBreaching,
            Some(other) => return Err(format!("Option {other} is not supported for TreatMissingData.")),
        };
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            statistic,
            period,
            periods: count(periods),
            to_alarm: count(to_alarm),
            threshold: definition["Threshold"].as_f64().ok_or_else(|| required("Threshold"))?,
            comparison,
            missing,
        })
    }

    /// Periods of which data is fetched: a few more than are looked at, so that late data is no missing data.
    pub(super) fn fetched(&self) -> usize {
        self.periods.saturating_add(2)
    }

    fn breaches(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => value >= self.threshold,
            Comparison::Above => value > self.threshold,
            Comparison::Below => value < self.threshold,
            Comparison::AtMost => value <= self.threshold,
        }
    }

    /// The state by the data points of the fetched periods, the oldest first; `None` keeps the state.
    pub(super) fn state(&self, points: &[Option<f64>]) -> Option<AlarmStateValue> {
        let found: Vec<f64> = points.iter().rev().flatten().copied().take(self.periods).collect();
        let breaching = found.iter().filter(|value| self.breaches(**value)).count();
        let lacking = self.periods - found.len();
        let alarm_or_ok = |is_on: bool| Some(if is_on { AlarmStateValue::Alarm } else { AlarmStateValue::Ok });
        match self.missing {
            _ if breaching >= self.to_alarm || lacking == 0 => alarm_or_ok(breaching >= self.to_alarm),
            MissingData::Breaching => alarm_or_ok(breaching + lacking >= self.to_alarm),
            MissingData::NotBreaching => Some(AlarmStateValue::Ok),
            MissingData::Ignore | MissingData::Missing if breaching < found.len() => Some(AlarmStateValue::Ok),
            // All that there is breaches, and is too little.
            MissingData::Ignore => None,
            // On, once the oldest of it is old enough.
            MissingData::Missing => {
                let window = points.len().saturating_sub(self.periods);
                let oldest = points.iter().skip(window).position(Option::is_some).unwrap_or(self.periods);
                let is_on = self.periods - oldest >= self.to_alarm;
                Some(if is_on { AlarmStateValue::Alarm } else { AlarmStateValue::InsufficientData })
            }
        }
    }

    /// `StateReason`, as CloudWatch words it.
    pub(super) fn reason(&self, points: &[Option<f64>], state: AlarmStateValue) -> String {
        let found: Vec<f64> = points.iter().rev().flatten().copied().take(self.periods).collect();
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        if found.is_empty() {
            let periods = plural(self.periods, "period");
            let treated = match self.missing {
                MissingData::Breaching => " and missing datapoints were treated as [Breaching]",
                MissingData::NotBreaching => " and missing datapoints were treated as [NonBreaching]",
                MissingData::Missing | MissingData::Ignore => "",
            };
            let crossed =
                if state == AlarmStateValue::InsufficientData { "Insufficient Data" } else { "Threshold Crossed" };
            return format!("{crossed}: no datapoints were received for {periods}{treated}.");
        }
        let is_on = state == AlarmStateValue::Alarm;
        let told: Vec<String> =
            found.iter().filter(|value| self.breaches(**value) == is_on).map(|value| format!("{value:?}")).collect();
        let (verb, from_to) =
            (if told.len() == 1 { "was" } else { "were" }, if is_on { "OK -> ALARM" } else { "ALARM -> OK" });
        let not = if is_on { "" } else { "not " };
        let least = if is_on { self.to_alarm } else { self.periods - self.to_alarm + 1 };
        format!(
            "Threshold Crossed: {} out of the last {} [{}] {verb} {not}{} the threshold ({:?}) (minimum {} for {from_to} transition).",
            told.len(),
            plural(self.periods, "datapoint"),
            told.join(", "),
            self.comparison.words(),
            self.threshold,
            plural(least, "datapoint"),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use test_case::test_case;

    use super::*;

    fn rule(periods: u64, to_alarm: u64, missing: &str) -> AlarmRule {
        let definition = json!({
            "Statistic": "Average", "Period": 60, "EvaluationPeriods": periods, "DatapointsToAlarm": to_alarm, "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": missing,
        });
        AlarmRule::parse(&definition).unwrap()
    }

    fn points(signs: &str) -> Vec<Option<f64>> {
        let sign = |sign| match sign {
            'x' => Some(1.0),
            '0' => Some(0.0),
            _ => None,
        };
        signs.chars().map(sign).collect()
    }

    /// `x` breaches, `-` is missing; for missing, ignore, breaching and not breaching. `?` keeps the state.
    #[test_case(3, 3, "0-x-x", "oooo")]
    #[test_case(3, 3, "----0", "oooo")]
    #[test_case(3, 3, "-----", "i?ao")]
    #[test_case(3, 3, "0xx-x", "aaaa")]
    #[test_case(3, 3, "--x--", "a?ao")]
    #[test_case(3, 2, "0-x-x", "aaaa")]
    #[test_case(3, 2, "00x0x", "aaaa")]
    #[test_case(3, 2, "0-x--", "ooao")]
    #[test_case(3, 2, "----x", "i?ao")]
    #[test_case(3, 2, "---x-", "a?ao")]
    #[test_case(1, 1, "--x", "aaaa"; "one breaching")]
    #[test_case(1, 1, "---", "i?ao"; "one missing")]
    fn missing_data_is_treated_as_the_alarm_says(periods: u64, to_alarm: u64, signs: &str, expected: &str) {
        let states = ["missing", "ignore", "breaching", "notBreaching"].map(|missing| {
            match rule(periods, to_alarm, missing).state(&points(signs)) {
                Some(AlarmStateValue::Ok) => 'o',
                Some(AlarmStateValue::Alarm) => 'a',
                Some(AlarmStateValue::InsufficientData) => 'i',
                None => '?',
            }
        });
        assert_eq!(String::from_iter(states), expected);
    }

    #[test_case("GreaterThanThreshold", [false, false, true])]
    #[test_case("GreaterThanOrEqualToThreshold", [false, true, true])]
    #[test_case("LessThanThreshold", [true, false, false])]
    #[test_case("LessThanOrEqualToThreshold", [true, true, false])]
    fn the_threshold_is_compared(operator: &str, expected: [bool; 3]) {
        let definition = json!({
            "ExtendedStatistic": "p95", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": operator,
        });
        let rule = AlarmRule::parse(&definition).unwrap();
        assert_eq!([0.0, 1.0, 2.0].map(|value| rule.breaches(value)), expected);
        assert_eq!(rule.statistic, Statistic::Percentile(95.0));
    }

    #[test_case(&json!({"Statistic": null}), "Exactly one of")]
    #[test_case(&json!({"Period": 15}), "Period must be")]
    #[test_case(&json!({"Period": null}), "Period is required")]
    #[test_case(&json!({"DatapointsToAlarm": 4}), "DatapointsToAlarm must be")]
    #[test_case(&json!({"Threshold": null}), "Threshold is required")]
    #[test_case(&json!({"TreatMissingData": "no"}), "Option no is not supported")]
    #[test_case(&json!({"Period": 3600, "EvaluationPeriods": 169}), "more than a week")]
    #[test_case(&json!({"EvaluationPeriods": 1441}), "more than a day")]
    fn a_wrong_rule_is_refused(change: &Value, words: &str) {
        let mut definition = json!({
            "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 3, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold",
        });
        definition.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = AlarmRule::parse(&definition).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_reason_tells_the_data_points() {
        let rule = rule(3, 2, "notBreaching");
        assert_eq!(
            rule.reason(&points("0-x-x"), AlarmStateValue::Alarm),
            "Threshold Crossed: 2 out of the last 3 datapoints [1.0, 1.0] were greater than or equal to the threshold (1.0) \
             (minimum 2 datapoints for OK -> ALARM transition)."
        );
        assert_eq!(
            rule.reason(&points("-----"), AlarmStateValue::Ok),
            "Threshold Crossed: no datapoints were received for 3 periods and missing datapoints were treated as [NonBreaching]."
        );
    }
}
