//! The verdict of a gate as text, JSON, JUnit and OpenMetrics. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::judge::{JudgedRule, RuleState};
use super::metrics::Metrics;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::output::Data;

/// Longest name or reason in a line, in bytes.
const LONGEST: usize = 200;

/// The findings of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GateVerdict {
    pub(super) result: RuleState,
    pub(super) rules: Vec<JudgedRule>,
    /// Names of the files.
    pub(super) metrics: Vec<String>,
    pub(super) metrics_sha256: String,
    /// The earlier model, if there is one to compare with.
    pub(super) baseline: Option<String>,
}

impl GateVerdict {
    pub(super) fn new(rules: Vec<JudgedRule>, metrics: &Metrics, baseline: Option<String>) -> Self {
        let has_failed = rules.iter().any(|rule| rule.result == RuleState::Failed);
        let result = if has_failed { RuleState::Failed } else { RuleState::Passed };
        Self { result, rules, metrics: metrics.files(), metrics_sha256: metrics.sha256(), baseline }
    }

    /// One line for people.
    ///
    /// # Errors
    /// The verdict of a model that does not pass, with the first rule that does not hold.
    pub(super) fn conclude(&self) -> Result<String, Failure> {
        let count = |state| self.rules.iter().filter(|rule| rule.result == state).count();
        let (passed, skipped) = (count(RuleState::Passed), count(RuleState::Skipped));
        let Some(first) = self.rules.iter().find(|rule| rule.result == RuleState::Failed) else {
            let skipped = if skipped > 0 { format!("; {skipped} skipped") } else { String::new() };
            return Ok(format!("The model passes the gate: {passed} of {} rules hold{skipped}", self.rules.len()));
        };
        let reason = first.reason.as_deref().unwrap_or("no reason is known");
        let others = match count(RuleState::Failed) - 1 {
            0 => String::new(),
            others => format!("; {others} more of {} rules do not hold", self.rules.len()),
        };
        let failure = Failure::verdict(
            exit_codes::BELOW_BAR,
            format!("the model does not pass the gate: `{}` does not hold ({reason}){others}", first.rule),
        );
        if first.similar.is_empty() {
            return Err(failure);
        }
        let names: Vec<_> = first.similar.iter().map(|name| format!("`{}`", plain::line(name, LONGEST))).collect();
        Err(failure.hint(format!(
            "the files have {}; name one of them in the rule, or find the value with `--metric {}=JSONPATH`",
            names.join(", "),
            first.metric
        )))
    }

    /// Each rule as a test case.
    ///
    /// # Errors
    /// A bug alone.
    pub(super) fn junit(&self) -> anyhow::Result<String> {
        let mut suite = TestSuite::new("gate");
        for rule in &self.rules {
            let mut status = match rule.result {
                RuleState::Passed => TestCaseStatus::success(),
                RuleState::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                RuleState::Skipped => TestCaseStatus::skipped(),
            };
            if let Some(reason) = &rule.reason {
                // GitLab shows the description, and not the message.
                status.set_message(reason.as_str()).set_description(format!("{}: {reason}", rule.rule));
            }
            let mut case = TestCase::new(rule.rule.as_str(), status);
            case.set_classname("gate");
            suite.add_test_case(case);
        }
        let mut report = quick_junit::Report::new("sagemaker-executor");
        report.add_test_suite(suite);
        report.to_string().context("failed to write the test cases as JUnit")
    }

    /// The value of each metric that was judged, and whether the model passes.
    pub(super) fn openmetrics(&self) -> String {
        let passes = u8::from(self.result == RuleState::Passed);
        let mut text = format!("# TYPE gate_passed gauge\ngate_passed {passes}\n# TYPE gate_value gauge\n");
        let mut written = BTreeSet::new();
        for JudgedRule { metric, value, .. } in &self.rules {
            if let Some(value) = value
                && written.insert(metric)
            {
                let name = metric.to_string().replace('\\', "\\\\").replace('"', "\\\"");
                // Writing to a string cannot fail.
                let _ = writeln!(text, "gate_value{{metric=\"{name}\"}} {value}");
            }
        }
        text + "# EOF\n"
    }
}

impl Data for GateVerdict {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["Rule", "Value", "Baseline", "Result"]);
        for rule in &self.rules {
            let [value, baseline] =
                [rule.value, rule.baseline].map(|number| number.map_or("-".to_owned(), |number| number.to_string()));
            let why = match (&rule.reason, rule.value) {
                // The value stands beside it.
                (Some(_), Some(_)) if rule.result == RuleState::Failed && rule.baseline.is_none() => String::new(),
                (Some(reason), _) => format!(": {}", plain::line(reason, LONGEST)),
                (None, _) => String::new(),
            };
            table.add_row([plain::line(&rule.rule, LONGEST), value, baseline, format!("{}{why}", rule.result.word())]);
        }
        table.trim_fmt()
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("GATE_RESULT", self.result.word().to_owned()),
            ("GATE_METRICS_SHA256", self.metrics_sha256.clone()),
        ])
    }
}
