//! The health of endpoints as text, JSON, JUnit and OpenMetrics. No I/O.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::facts::EndpointFacts;
use super::judge::{self, HealthResult, HealthRow};
use crate::base::plain;
use crate::lifecycle::endpoint::deployed_package::DeployedPackage;
use crate::lifecycle::endpoint::ledger::LedgerEntry;
use crate::lifecycle::output::Data;

/// Deployments that are shown.
const SHOWN: usize = 10;
/// Longest text in a cell, in bytes.
const LONGEST: usize = 100;

/// The command's findings.
#[derive(Debug, Default, Serialize)]
pub(super) struct HealthReport {
    pub(super) endpoints: Vec<EndpointHealth>,
}

/// An endpoint of one environment.
#[derive(Debug, Serialize)]
pub(super) struct EndpointHealth {
    environment: String,
    /// Empty when it is not known.
    endpoint: String,
    /// `None` when nothing is bad, but something is unknown.
    is_healthy: Option<bool>,
    state: Option<&'static str>,
    config: Option<String>,
    model: Option<String>,
    model_package: Option<String>,
    /// As the record of the deployment in service says.
    package: Option<DeployedPackage>,
    approval: Option<&'static str>,
    current_instances: Option<u32>,
    desired_instances: Option<u32>,
    rows: Vec<HealthRow>,
    /// Newest first.
    deployments: Vec<DeploymentLine>,
}

/// A deployment of the ledger.
#[derive(Debug, Serialize)]
struct DeploymentLine {
    number: u64,
    kind: &'static str,
    /// `open` without an end.
    outcome: &'static str,
    at: String,
    user: String,
    version: String,
    /// Name of the package.
    package: String,
    config: String,
    reason: String,
}

impl DeploymentLine {
    fn new(entry: &LedgerEntry) -> Self {
        let safe = |text: &Option<String>| text.as_deref().map(|text| plain::line(text, LONGEST)).unwrap_or_default();
        let begin = &entry.begin;
        let user = safe(&begin.user.login);
        let is_named = !begin.user.is_proven && !user.is_empty();
        let end = entry.end.as_ref();
        Self {
            number: entry.number,
            kind: begin.kind.name(),
            outcome: end.map_or("open", |end| end.outcome.name()),
            at: plain::line(&begin.at, LONGEST),
            user: if is_named { format!("{user} (not proven)") } else { user },
            version: begin.model_package.as_deref().map(|arn| version(&plain::line(arn, LONGEST))).unwrap_or_default(),
            package: begin.package.as_ref().map(|package| plain::line(&package.name, LONGEST)).unwrap_or_default(),
            config: safe(&begin.to_config),
            reason: end
                .map(|end| safe(&end.reason))
                .filter(|reason| !reason.is_empty())
                .unwrap_or_else(|| safe(&begin.reason)),
        }
    }
}

/// `GROUP/NUMBER` of an ARN.
fn version(arn: &str) -> String {
    arn.split_once("model-package/").map_or(arn, |(_, name)| name).to_owned()
}

impl EndpointHealth {
    pub(super) fn new(environment: &str, facts: &EndpointFacts) -> Self {
        let rows = judge::rows(facts);
        let safe = |text: &str| plain::line(text, 2048);
        let variant = facts.sight.as_ref().and_then(|sight| sight.variants.first());
        Self {
            environment: safe(environment),
            endpoint: facts.endpoint.clone(),
            is_healthy: verdict(&rows),
            state: facts.sight.as_ref().map(|sight| sight.state.name()),
            config: facts.sight.as_ref().map(|sight| safe(&sight.config)),
            model: facts.config().map(|config| safe(&config.model)),
            model_package: facts.model_package().map(safe),
            package: facts.package().map(DeployedPackage::plain),
            approval: facts.version.known().and_then(|version| version.as_ref()).map(|version| version.approval.name()),
            current_instances: variant.and_then(|variant| variant.current_instances),
            desired_instances: variant.and_then(|variant| variant.desired_instances),
            rows,
            deployments: facts.history.known().into_iter().flatten().take(SHOWN).map(DeploymentLine::new).collect(),
        }
    }

    /// An environment that could not be looked at.
    pub(super) fn unknown(environment: &str, error: &anyhow::Error) -> Self {
        Self {
            environment: plain::line(environment, LONGEST),
            endpoint: String::new(),
            is_healthy: None,
            state: None,
            config: None,
            model: None,
            model_package: None,
            package: None,
            approval: None,
            current_instances: None,
            desired_instances: None,
            rows: vec![judge::row("state", HealthResult::Unknown, &format!("{error:#}"))],
            deployments: Vec::new(),
        }
    }

    fn word(&self) -> &'static str {
        match self.is_healthy {
            Some(true) => "healthy",
            Some(false) => "not healthy",
            None => "not known",
        }
    }

    /// The endpoint's name in its environment.
    fn title(&self) -> String {
        let Self { endpoint, environment, .. } = self;
        match (endpoint.is_empty(), environment.is_empty()) {
            (true, _) => format!("the endpoint of {environment}"),
            (false, true) => endpoint.clone(),
            (false, false) => format!("{endpoint} of {environment}"),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["Check", "Result", "Found"]);
        for row in &self.rows {
            table.add_row([row.check.as_str(), row.result.word(), row.found.as_str()]);
        }
        table.trim_fmt()
    }

    fn history(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["Deployment", "Kind", "Outcome", "At", "By", "Version", "Configuration", "Reason"]);
        for line in &self.deployments {
            let DeploymentLine { number, kind, outcome, at, user, version, config, reason, .. } = line;
            let number = number.to_string();
            table.add_row([number.as_str(), *kind, *outcome, at, user, version, config, reason]);
        }
        table.trim_fmt()
    }
}

fn verdict(rows: &[HealthRow]) -> Option<bool> {
    let has = |result| rows.iter().any(|row| row.result == result);
    match (has(HealthResult::Bad), has(HealthResult::Unknown)) {
        (true, _) => Some(false),
        (false, true) => None,
        (false, false) => Some(true),
    }
}

impl HealthReport {
    /// The first endpoint that is not healthy, with the first reason.
    pub(super) fn first_trouble(&self) -> Option<String> {
        let ill = || self.endpoints.iter().filter(|endpoint| endpoint.is_healthy == Some(false));
        let first = ill().next()?;
        let row = first.rows.iter().find(|row| row.result == HealthResult::Bad)?;
        let others = match ill().count() - 1 {
            0 => String::new(),
            others => format!("; {others} more of {} endpoints are not healthy", self.endpoints.len()),
        };
        Some(format!("{} is not healthy: {}: {}{others}", first.title(), row.check, row.found))
    }

    /// Each row that was judged as a test case.
    ///
    /// # Errors
    /// A bug alone.
    pub(super) fn junit(&self) -> anyhow::Result<String> {
        let mut report = quick_junit::Report::new("sagemaker-executor");
        for endpoint in &self.endpoints {
            let mut suite = TestSuite::new(endpoint.title());
            for row in &endpoint.rows {
                let mut status = match row.result {
                    HealthResult::Ok => TestCaseStatus::success(),
                    HealthResult::Bad => TestCaseStatus::non_success(NonSuccessKind::Failure),
                    HealthResult::Unknown => TestCaseStatus::skipped(),
                    HealthResult::Info => continue,
                };
                if row.result != HealthResult::Ok {
                    // GitLab shows the description, and not the message.
                    status.set_message(row.found.as_str()).set_description(format!("{}: {}", row.check, row.found));
                }
                let mut case = TestCase::new(row.check.as_str(), status);
                case.set_classname(endpoint.title());
                suite.add_test_case(case);
            }
            report.add_test_suite(suite);
        }
        report.to_string().context("failed to write the test cases as JUnit")
    }

    /// An unknown fact has no value.
    pub(super) fn openmetrics(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, value: &dyn Fn(&EndpointHealth) -> Vec<(String, u32)>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name} gauge");
            for endpoint in &self.endpoints {
                let [environment, endpoint_name] = [&endpoint.environment, &endpoint.endpoint].map(|text| label(text));
                for (labels, value) in value(endpoint) {
                    let _ = writeln!(
                        text,
                        "{name}{{environment=\"{environment}\",endpoint=\"{endpoint_name}\"{labels}}} {value}"
                    );
                }
            }
        };
        family("endpoint_healthy", &|endpoint| {
            endpoint.is_healthy.into_iter().map(|is| (String::new(), u32::from(is))).collect()
        });
        family("endpoint_instances", &|endpoint| {
            endpoint.current_instances.into_iter().map(|count| (String::new(), count)).collect()
        });
        family("endpoint_alarm_on", &|endpoint| {
            let alarm = |row: &HealthRow| {
                let name = row.check.strip_prefix("alarm ").filter(|_| row.result != HealthResult::Unknown)?;
                Some((format!(",alarm=\"{}\"", label(name)), u32::from(row.result == HealthResult::Bad)))
            };
            endpoint.rows.iter().filter_map(alarm).collect()
        });
        text + "# EOF\n"
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

impl Data for HealthReport {
    fn text(&self) -> String {
        let endpoint = |endpoint: &EndpointHealth| {
            let mut text = format!("{}: {}\n{}\n", endpoint.title(), endpoint.word(), endpoint.table());
            if !endpoint.deployments.is_empty() {
                text.extend(["\n", &endpoint.history(), "\n"]);
            }
            text
        };
        self.endpoints.iter().map(endpoint).collect::<Vec<_>>().join("\n")
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let [endpoint] = self.endpoints.as_slice() else { return BTreeMap::new() };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        BTreeMap::from([
            ("ENDPOINT_NAME", endpoint.endpoint.clone()),
            ("ENDPOINT_HEALTH", endpoint.word().replace(' ', "-")),
            ("ENDPOINT_STATUS", endpoint.state.unwrap_or("absent").to_owned()),
            ("ENDPOINT_CONFIG_NAME", text(&endpoint.config)),
            ("MODEL_PACKAGE_ARN", text(&endpoint.model_package)),
        ])
    }
}
