//! The content of a report about a model. Texts are those of others, as they were read.

use serde::Serialize;

use super::curve::Across;
use super::parts::JobPhase;
use crate::base::series::Series;

/// All that a page or a note about a model shows.
#[derive(Debug, Clone, Default)]
pub struct ModelReport {
    /// Name of the model.
    pub title: String,
    /// Project, commit and pipeline.
    pub place: String,
    /// A file of metrics is there; without one there is no verdict to show.
    pub has_metrics: bool,
    pub verdict: ModelVerdict,
    /// The model that the values are compared with; else why there is none.
    pub comparison: String,
    pub has_baseline: bool,
    pub facts: Vec<(&'static str, String)>,
    pub links: Vec<ReportLink>,
    pub metrics: Vec<MetricRow>,
    /// Metrics that the files have besides.
    pub left_out: usize,
    pub curves: Vec<LearningCurve>,
    pub matrix: Option<ConfusionMatrix>,
    /// One of each training job.
    pub trainings: Vec<TrainingFigures>,
    pub endpoints: Vec<EndpointFigures>,
    pub plan: Option<PlannedDeployment>,
}

/// Whether the model passes the gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelVerdict {
    Passed,
    Failed,
    /// There is no rule.
    #[default]
    NotJudged,
}

impl ModelVerdict {
    pub fn words(self) -> &'static str {
        match self {
            Self::Passed => "passes the gate",
            Self::Failed => "does not pass the gate",
            Self::NotJudged => "has no bars to reach",
        }
    }
}

/// Name of the link to the page itself.
pub const PAGE_LINK: &str = "Page";

/// An address that a reader may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLink {
    pub name: &'static str,
    url: String,
}

impl ReportLink {
    /// `None` for what is no plain address of the web, and for one with a user or a password: variables of a job can hold anything.
    pub fn new(name: &'static str, url: &str) -> Option<Self> {
        let behind = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let host = behind.split(['/', '?', '#']).next().unwrap_or_default();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#@!$&*+,;=%".contains(c);
        let is_web = !host.is_empty() && !host.contains('@') && behind.chars().all(is_plain);
        (is_web && url.len() <= 2000).then(|| Self { name, url: url.to_owned() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

/// How a metric compares with its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricState {
    Passed,
    Failed,
    /// There is nothing to compare with.
    Skipped,
    /// No rule names it.
    Free,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricRow {
    pub name: String,
    /// As the file has it; `None` when there is no one number.
    pub value: Option<String>,
    /// The value as a double.
    #[serde(skip)]
    pub number: Option<f64>,
    /// `>= 0.9`, `at most 0.01 below the baseline`.
    pub bars: Vec<String>,
    /// Of the model that it is compared with.
    pub baseline: Option<String>,
    pub change: Option<MetricChange>,
    pub state: MetricState,
    /// Why a rule does not hold, or was not judged.
    pub reason: Option<String>,
    /// In earlier versions, the oldest first.
    #[serde(skip)]
    pub history: Vec<HistoryPoint>,
}

/// The difference between a value and that of the earlier model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MetricChange {
    pub difference: f64,
    /// `None` when nobody says which values are better, or nothing changed.
    pub is_better: Option<bool>,
}

/// The value of a metric in a version of the registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryPoint {
    pub version: u32,
    pub value: f64,
    pub is_approved: bool,
}

/// Values of a metric during the training.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningCurve {
    pub name: String,
    pub across: Across,
    pub series: Series,
}

/// How often each class was taken for each one: rows are the true classes, columns the predicted ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfusionMatrix {
    pub classes: Vec<String>,
    /// As many rows and columns as there are classes.
    pub counts: Vec<Vec<f64>>,
}

/// The training job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainingFigures {
    pub facts: Vec<(&'static str, String)>,
    pub phases: Vec<JobPhase>,
}

/// The test of an endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointFigures {
    pub name: String,
    pub has_passed: bool,
    /// Milliseconds, with the names of the figures.
    pub latencies: Vec<(&'static str, f64)>,
    pub facts: Vec<(&'static str, String)>,
    /// Limits and samples with their findings.
    pub checks: Vec<EndpointCheck>,
}

/// A limit or a sample of an endpoint's test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointCheck {
    pub name: String,
    pub has_passed: bool,
    pub reason: String,
}

/// The plan of a deployment, for who approves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedDeployment {
    pub endpoint: String,
    pub has_changes: bool,
    pub facts: Vec<(&'static str, String)>,
    /// Action and thing.
    pub steps: Vec<(String, String)>,
    /// Key, value in service, planned value.
    pub differences: Vec<(String, String, String)>,
    pub refusals: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_of_the_web_are_links() {
        assert!(ReportLink::new("Job", "https://gitlab.example.com/g/p/-/jobs/1").is_some());
        assert!(ReportLink::new("Job", "https://gitlab.example.com:8443/@group/p").is_some());
        for odd in [
            "javascript:alert(1)",
            "javascript:alert",
            "https://x/)[a](b",
            "https://x/\"onclick=",
            "https://x/ y",
            "https://x/<b>",
            "https://ci:s3cr3t@gitlab.example.com/g/p",
            "https://gitlab.example.com@evil.example/g/p",
            "https://",
            "",
        ] {
            assert_eq!(ReportLink::new("Job", odd), None, "{odd}");
        }
        assert_eq!(ReportLink::new("Job", &format!("https://x/{}", "a".repeat(2000))), None);
    }
}
