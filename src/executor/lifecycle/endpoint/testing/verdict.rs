//! The verdict about an endpoint's answers as text, JSON, JUnit and OpenMetrics. No I/O.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::assertions::LONGEST;
use super::load::{LoadResult, SampleTally};
use super::sample::EndpointSample;
use super::statistics::LatencyFigures;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::EndpointState;
use crate::lifecycle::output::Data;

/// Most samples in the text; the ones that do not hold come first.
const MOST_ROWS: usize = 20;

/// Limits of a whole test.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TestLimits {
    pub(super) max_p95_ms: Option<f64>,
    pub(super) max_error_rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TestResult {
    Passed,
    Failed,
}

/// The endpoint when its test begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestedEndpoint {
    pub(super) name: String,
    pub(super) state: EndpointState,
    /// The configuration in service.
    pub(super) config: String,
    /// The configuration of an update that is under way.
    pub(super) pending: Option<String>,
}

/// The findings of a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TestVerdict {
    result: TestResult,
    endpoint: String,
    configuration: String,
    /// Why other configurations may have answered too.
    ambiguity: Option<String>,
    samples: Vec<JudgedSample>,
    limits: Vec<JudgedLimit>,
    requests: RequestFigures,
    latency_ms: LatencyFigures,
}

/// A sample, and whether every answer was right.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct JudgedSample {
    name: String,
    result: TestResult,
    requests: u32,
    wrong: u32,
    errors: u32,
    reason: Option<String>,
}

/// A limit, and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct JudgedLimit {
    limit: String,
    value: Option<f64>,
    result: TestResult,
    reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct RequestFigures {
    sent: u32,
    errors: u32,
    error_rate: f64,
    concurrency: usize,
    per_second: f64,
    /// How often no container was ready.
    not_ready: u32,
}

impl TestResult {
    fn of(holds: bool) -> Self {
        if holds { Self::Passed } else { Self::Failed }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

impl TestedEndpoint {
    fn ambiguity(&self) -> Option<String> {
        let Self { name, state, config, pending } = self;
        if *state == EndpointState::InService {
            return None;
        }
        let other = pending.as_deref().unwrap_or("another configuration");
        Some(format!("The endpoint {name} was {} when the test began: {config} or {other} answered", state.name()))
    }
}

impl TestVerdict {
    pub(super) fn new(
        endpoint: TestedEndpoint,
        samples: &[EndpointSample],
        load: LoadResult,
        concurrency: usize,
        limits: TestLimits,
    ) -> Self {
        let sum = |count: fn(&SampleTally) -> u32| load.tallies.iter().map(count).sum::<u32>();
        let (sent, errors) = (sum(SampleTally::sent), sum(|tally| tally.errors));
        let error_rate = f64::from(errors) / f64::from(sent.max(1));
        let per_second = f64::from(sent - errors) / load.took.as_secs_f64().max(f64::MIN_POSITIVE);
        let first_error = load.tallies.iter().find_map(|tally| tally.first_error.clone());
        let samples: Vec<_> = samples.iter().zip(&load.tallies).map(|(sample, tally)| judged(sample, tally)).collect();
        let latency_ms = LatencyFigures::of(load.first, load.latencies);
        let mut judged_limits = vec![JudgedLimit {
            limit: format!("error rate <= {}", limits.max_error_rate),
            value: Some(rounded(error_rate)),
            result: TestResult::of(error_rate <= limits.max_error_rate),
            reason: first_error.map(|error| format!("{errors} of {sent} requests failed; the first: {error}")),
        }];
        judged_limits.extend(limits.max_p95_ms.map(|limit| JudgedLimit {
            limit: format!("p95 <= {limit} ms"),
            value: latency_ms.p95,
            result: TestResult::of(latency_ms.p95.is_some_and(|value| value <= limit)),
            reason: latency_ms.p95.is_none().then(|| "no request was answered".to_owned()),
        }));
        let holds = samples.iter().map(|sample| sample.result).chain(judged_limits.iter().map(|limit| limit.result));
        let result = TestResult::of(holds.into_iter().all(|result| result == TestResult::Passed));
        let requests = RequestFigures {
            sent,
            errors,
            error_rate: rounded(error_rate),
            concurrency,
            per_second: rounded(per_second),
            not_ready: load.not_ready,
        };
        Self {
            result,
            ambiguity: endpoint.ambiguity(),
            endpoint: endpoint.name,
            configuration: endpoint.config,
            samples,
            limits: judged_limits,
            requests,
            latency_ms,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.result == TestResult::Passed
    }

    /// The rules and limits that do not hold, in one line.
    pub(crate) fn reason(&self) -> Option<String> {
        let samples = self.samples.iter().filter(|sample| sample.result == TestResult::Failed);
        let limits = self.limits.iter().filter(|limit| limit.result == TestResult::Failed);
        let samples = samples.map(|sample| ("sample", &sample.name, sample.reason.clone()));
        let limits = limits.map(|limit| {
            let value = limit.value.map(|value| format!("it is {value}"));
            ("limit", &limit.limit, limit.reason.clone().or(value))
        });
        let mut broken = samples.chain(limits);
        let (kind, name, reason) = broken.next()?;
        let others = match broken.count() {
            0 => String::new(),
            others => format!("; {others} more do not hold"),
        };
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        Some(format!("the {kind} `{}` does not hold{reason}{others}", plain::line(name, LONGEST)))
    }

    /// One line for people.
    ///
    /// # Errors
    /// The verdict of an endpoint that does not pass.
    pub(crate) fn conclude(&self) -> Result<String, Failure> {
        match self.reason() {
            None => Ok(format!(
                "The endpoint {} passes the test: {} of {} samples hold",
                self.endpoint,
                self.samples.len(),
                self.samples.len()
            )),
            Some(reason) => Err(Failure::verdict(
                exit_codes::BELOW_BAR,
                format!("the endpoint {} does not pass the test: {reason}", self.endpoint),
            )),
        }
    }

    /// Each sample and each limit as a test case.
    ///
    /// # Errors
    /// A bug alone.
    pub(crate) fn junit(&self) -> anyhow::Result<String> {
        let mut suite = TestSuite::new("endpoint test");
        let samples = self.samples.iter().map(|sample| ("sample", &sample.name, sample.result, &sample.reason));
        let limits = self.limits.iter().map(|limit| ("limit", &limit.limit, limit.result, &limit.reason));
        for (class, name, result, reason) in samples.chain(limits) {
            let mut status = match result {
                TestResult::Passed => TestCaseStatus::success(),
                TestResult::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
            };
            if result == TestResult::Failed {
                let reason = reason.as_deref().unwrap_or("the value is above the limit");
                // GitLab shows the description, and not the message.
                status.set_message(reason).set_description(format!("{name}: {reason}"));
            }
            let mut case = TestCase::new(name.as_str(), status);
            case.set_classname(class);
            suite.add_test_case(case);
        }
        let mut report = quick_junit::Report::new("sagemaker-executor");
        report.add_test_suite(suite);
        report.to_string().context("failed to write the test cases as JUnit")
    }

    /// The figures, and whether the endpoint passes.
    pub(crate) fn openmetrics(&self) -> String {
        let latency = &self.latency_ms;
        let values = [
            ("passed", Some(f64::from(u8::from(self.is_good())))),
            ("requests", Some(f64::from(self.requests.sent))),
            ("error_rate", Some(self.requests.error_rate)),
            ("requests_per_second", Some(self.requests.per_second)),
            ("first_latency_ms", latency.first),
            ("latency_p50_ms", latency.p50),
            ("latency_p95_ms", latency.p95),
            ("latency_p99_ms", latency.p99),
            ("latency_max_ms", latency.max),
        ];
        let mut text = String::new();
        for (name, value) in values.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE endpoint_test_{name} gauge\nendpoint_test_{name} {value}");
        }
        text + "# EOF\n"
    }
}

/// Errors of single requests are judged by the limit of their share; a sample fails with one wrong answer, or without a right one.
fn judged(sample: &EndpointSample, tally: &SampleTally) -> JudgedSample {
    let reason = match (&tally.first_wrong, &tally.first_error) {
        (Some(wrong), _) => Some(wrong.clone()),
        (None, Some(error)) if tally.right == 0 => Some(error.clone()),
        (None, _) => None,
    };
    JudgedSample {
        name: sample.name.clone(),
        result: TestResult::of(reason.is_none()),
        requests: tally.sent(),
        wrong: tally.wrong,
        errors: tally.errors,
        reason,
    }
}

/// To six decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

impl Data for TestVerdict {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["Sample", "Requests", "Result"]);
        let (failed, passed): (Vec<_>, Vec<_>) =
            self.samples.iter().partition(|sample| sample.result == TestResult::Failed);
        for sample in failed.into_iter().chain(passed).take(MOST_ROWS) {
            let reason = sample.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let name = plain::line(&sample.name, LONGEST);
            table.add_row([name, sample.requests.to_string(), format!("{}{reason}", sample.result.word())]);
        }
        let mut text = table.trim_fmt();
        if let Some(more) = self.samples.len().checked_sub(MOST_ROWS).filter(|more| *more > 0) {
            let _ = write!(text, "\n... and {more} more samples");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["Limit", "Value", "Result"]);
        for limit in &self.limits {
            let reason = limit.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let value = limit.value.map_or("-".to_owned(), |value| value.to_string());
            table.add_row([limit.limit.clone(), value, format!("{}{reason}", limit.result.word())]);
        }
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value} ms"));
        let LatencyFigures { first, p50, p95, p99, max } = self.latency_ms;
        let RequestFigures { sent, concurrency, per_second, not_ready, .. } = self.requests;
        let _ = write!(
            text,
            "\n\n{}\n\nLatency: first {}, p50 {}, p95 {}, p99 {}, max {}\nRequests: {sent}, {concurrency} at once, {per_second:.1} answers a second",
            table.trim_fmt(),
            shown(first),
            shown(p50),
            shown(p95),
            shown(p99),
            shown(max),
        );
        if not_ready > 0 {
            let _ = write!(text, "\nNo container was ready {not_ready} times, and the request was sent again");
        }
        if let Some(ambiguity) = &self.ambiguity {
            let _ = write!(text, "\n{ambiguity}");
        }
        text
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let p95 = self.latency_ms.p95.map(|value| ("ENDPOINT_TEST_P95_MS", value.to_string()));
        let result = ("ENDPOINT_TEST_RESULT", self.result.word().to_owned());
        p95.into_iter().chain([result]).collect()
    }
}
