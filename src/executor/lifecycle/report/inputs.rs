//! Files that other commands and the training job leave, as parts of a report. They come from other jobs: of every form, and any size.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::base::failure::Failure;
use crate::base::human::{human_duration, human_number};
use crate::base::plain;
use crate::base::series::{Point, Series};
use crate::lifecycle::gate;
use crate::report::{
    Across, EndpointCheck, EndpointFigures, JobPhase, LONGEST_NAME, LONGEST_TEXT, LearningCurve, PlannedDeployment,
    TrainingFigures, labels,
};

/// Files of the training job, which are read without being named.
const TRAINING_FILES: [&str; 2] = ["sagemaker-report.json", "sagemaker-metrics.json"];
const REPORT_SCHEMA: &str = "sagemaker-executor/report/1";
const METRICS_SCHEMA: &str = "sagemaker-executor/metrics/1";
/// Longest time in seconds: a larger one is no time of a job.
const LONGEST_SECONDS: u64 = 1_000_000_000;
/// Most things of a list in a sentence, which is cut besides.
const MOST: usize = 100;

#[derive(Debug, Args)]
pub(super) struct ReportFiles {
    /// Files that the executor leaves in a training job: `sagemaker-report.json` (price, phases) and `sagemaker-metrics.json` (curves).
    /// Those in the current folder when absent
    #[arg(long, value_name = "FILE", num_args = 1..)]
    training_report: Vec<PathBuf>,
    /// Results of `endpoint test --output json`
    #[arg(long, value_name = "FILE", num_args = 1..)]
    endpoint_report: Vec<PathBuf>,
    /// A plan of `endpoint deploy --plan --output json`, for who approves it
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// The parts that the files have.
#[derive(Debug, Default)]
pub(super) struct ReportFigures {
    pub(super) trainings: Vec<TrainingFigures>,
    pub(super) curves: Vec<LearningCurve>,
    pub(super) endpoints: Vec<EndpointFigures>,
    pub(super) plan: Option<PlannedDeployment>,
}

impl ReportFigures {
    pub(super) fn is_empty(&self) -> bool {
        self.trainings.is_empty() && self.curves.is_empty() && self.endpoints.is_empty() && self.plan.is_none()
    }
}

impl ReportFiles {
    /// All files that are read.
    pub(super) fn named(&self) -> Vec<PathBuf> {
        self.training().into_iter().chain(self.endpoint_report.iter().cloned()).chain(self.plan.clone()).collect()
    }

    fn training(&self) -> Vec<PathBuf> {
        if !self.training_report.is_empty() {
            return self.training_report.clone();
        }
        TRAINING_FILES.into_iter().map(PathBuf::from).filter(|file| file.is_file()).collect()
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// Failures of the user that name the file.
    pub(super) fn read(&self) -> Result<ReportFigures, Failure> {
        let mut figures = ReportFigures::default();
        for file in self.training() {
            let hint = "name files that the executor left in `--training-report`; `needs:artifacts` brings those of the training";
            let text = text(&file, hint)?;
            match parse::<Schema>(&file, &text, hint)?.schema.as_deref() {
                Some(REPORT_SCHEMA) => figures.trainings.push(training(&parse(&file, &text, hint)?)),
                Some(METRICS_SCHEMA) => figures.curves.extend(curves(parse(&file, &text, hint)?)),
                _ => return Err(unusable(&file, "its `schema` is none of a training job's files", hint)),
            }
        }
        for file in &self.endpoint_report {
            let hint = "name results of `endpoint test --output json` in `--endpoint-report`";
            figures.endpoints.push(endpoint(&parse(file, &text(file, hint)?, hint)?));
        }
        if let Some(file) = &self.plan {
            let hint = "name a result of `endpoint deploy --plan --output json` in `--plan`";
            figures.plan = Some(plan(&parse(file, &text(file, hint)?, hint)?));
        }
        Ok(figures)
    }
}

fn text(file: &Path, hint: &str) -> Result<String, Failure> {
    let bytes = gate::file_bytes("report", file, hint)?;
    String::from_utf8(bytes).map_err(|_| unusable(file, "it is not UTF-8", hint))
}

fn parse<T: DeserializeOwned>(file: &Path, text: &str, hint: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| unusable(file, &plain::line(&error.to_string(), LONGEST_TEXT), hint))
}

fn unusable(file: &Path, why: &str, hint: &str) -> Failure {
    Failure::user(format!("the report in {} cannot be read: {why}", file.display())).hint(hint)
}

fn name(text: &str) -> String {
    plain::line(text, LONGEST_NAME)
}

fn sentence(text: &str) -> String {
    plain::line(text, LONGEST_TEXT)
}

fn seconds(seconds: u64) -> String {
    human_duration(std::time::Duration::from_secs(seconds.min(LONGEST_SECONDS)))
}

#[derive(Deserialize)]
struct Schema {
    schema: Option<String>,
}

/// `sagemaker-report.json`; `docs/COST.md` has the form.
#[derive(Deserialize)]
struct JobReport {
    training_job: NamedJob,
    #[serde(default)]
    instances: Vec<JobInstances>,
    #[serde(default)]
    phases: Vec<JobReportPhase>,
    billable_seconds: Option<u64>,
    spot_saving_percent: Option<u64>,
    cost: Option<JobCost>,
    total_amount: Option<f64>,
}

#[derive(Deserialize)]
struct NamedJob {
    name: String,
    region: String,
}

#[derive(Deserialize)]
struct JobInstances {
    r#type: String,
    count: u32,
}

#[derive(Deserialize)]
struct JobReportPhase {
    status: String,
    #[serde(default)]
    seconds: u64,
}

#[derive(Deserialize)]
struct JobCost {
    amount: f64,
    currency: Option<String>,
}

fn training(report: &JobReport) -> TrainingFigures {
    let mut facts = Vec::new();
    if let Some(cost) = &report.cost {
        let currency = cost.currency.as_deref().map(|currency| format!(" {}", name(currency))).unwrap_or_default();
        let total = report.total_amount.filter(|total| *total > cost.amount);
        let total = total.map(|total| format!(", {total:.2} with earlier training jobs")).unwrap_or_default();
        facts.push(("Price", format!("{:.2}{currency}{total}", cost.amount)));
    }
    facts.extend(report.billable_seconds.map(|billed| ("Billed", seconds(billed))));
    facts.extend(report.spot_saving_percent.map(|saved| ("Saved by spot", format!("{} %", saved.min(100)))));
    let instances = report.instances.iter().take(MOST).map(|of| format!("{} x {}", of.count, name(&of.r#type)));
    facts.push(("Instances", sentence(&instances.collect::<Vec<_>>().join(", "))));
    facts.push(("Training job", sentence(&format!("{} in {}", report.training_job.name, report.training_job.region))));
    facts.retain(|(_, fact)| !fact.is_empty());
    let mut from = 0;
    let phase = |phase: &JobReportPhase| {
        let seconds = phase.seconds.min(LONGEST_SECONDS);
        let phase = JobPhase { name: name(&phase.status), from, seconds };
        from += seconds;
        phase
    };
    TrainingFigures { facts, phases: report.phases.iter().map(phase).collect() }
}

/// The part of `sagemaker-metrics.json` that has the curves.
#[derive(Deserialize)]
struct MetricsFile {
    #[serde(default)]
    details: Map<String, Value>,
}

#[derive(Deserialize)]
struct CurveOfMetric {
    #[serde(default)]
    curve: Vec<Point>,
}

fn curves(file: MetricsFile) -> Vec<LearningCurve> {
    let curve = |(metric, detail): (String, Value)| {
        let points = serde_json::from_value::<CurveOfMetric>(detail).ok()?.curve;
        let series = Series::of_points(points, None)?;
        Some(LearningCurve { name: metric, across: Across::Time, series })
    };
    file.details.into_iter().filter_map(curve).collect()
}

/// The output of `endpoint test --output json`.
#[derive(Deserialize)]
struct TestFile {
    result: String,
    endpoint: String,
    #[serde(default)]
    configuration: String,
    ambiguity: Option<String>,
    #[serde(default)]
    samples: Vec<TestedSample>,
    #[serde(default)]
    limits: Vec<TestedLimit>,
    requests: TestedRequests,
    latency_ms: TestedLatency,
}

#[derive(Deserialize)]
struct TestedSample {
    name: String,
    result: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct TestedLimit {
    limit: String,
    value: Option<f64>,
    result: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct TestedRequests {
    sent: u64,
    errors: u64,
    error_rate: f64,
    concurrency: u64,
    per_second: f64,
}

#[derive(Deserialize)]
struct TestedLatency {
    first: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

fn endpoint(file: &TestFile) -> EndpointFigures {
    let TestedLatency { first, p50, p95, p99, max } = file.latency_ms;
    let latencies = [("p50", p50), ("p95", p95), ("p99", p99), ("slowest", max), ("first request", first)];
    let latencies = latencies.into_iter().filter_map(|(name, time)| Some((name, time?)));
    let latencies = latencies.filter(|(_, time)| (0.0..=1e12).contains(time)).collect();
    let requests = &file.requests;
    let mut facts = vec![
        (
            "Requests",
            format!(
                "{}, {} at once, {} a second",
                requests.sent,
                requests.concurrency,
                human_number(requests.per_second)
            ),
        ),
        ("Errors", format!("{}, a share of {}", requests.errors, human_number(requests.error_rate))),
    ];
    facts.extend(Some(("Configuration", name(&file.configuration))).filter(|(_, name)| !name.is_empty()));
    facts.extend(file.ambiguity.as_deref().map(|why| ("Not certain", sentence(why))));
    let has_passed = |result: &str| result == "passed";
    let limits = file.limits.iter().map(|limit| EndpointCheck {
        name: limit.limit.clone(),
        has_passed: has_passed(&limit.result),
        reason: sentence(
            &limit.reason.clone().or(limit.value.map(|value| format!("it is {value}"))).unwrap_or_default(),
        ),
    });
    let samples = file.samples.iter().map(|sample| EndpointCheck {
        name: sample.name.clone(),
        has_passed: has_passed(&sample.result),
        reason: sentence(sample.reason.as_deref().unwrap_or_default()),
    });
    let mut checks: Vec<EndpointCheck> = limits.chain(samples).collect();
    let names = labels(checks.iter().map(|check| check.name.as_str()));
    checks.iter_mut().zip(names).for_each(|(check, name)| check.name = name);
    // Failures come first.
    checks.sort_by_key(|check| check.has_passed);
    EndpointFigures { name: name(&file.endpoint), has_passed: has_passed(&file.result), latencies, facts, checks }
}

/// The output of `endpoint deploy --plan --output json`.
#[derive(Deserialize)]
struct PlanFile {
    endpoint: String,
    version: String,
    package: Option<PlanFilePackage>,
    from: Option<String>,
    to: String,
    changes: bool,
    #[serde(default)]
    steps: Vec<PlanFileStep>,
    #[serde(default)]
    differences: Vec<PlanFileDifference>,
    #[serde(default)]
    traffic: String,
    #[serde(default)]
    longest_seconds: u64,
    most_instances: Option<u64>,
    instance_type: Option<String>,
    #[serde(default)]
    alarms: Vec<String>,
    #[serde(default)]
    refusals: Vec<String>,
}

/// The package that is deployed: what the one who approves it compares.
#[derive(Deserialize)]
struct PlanFilePackage {
    name: String,
    sha256: String,
    commit: String,
    model_sha256: String,
}

#[derive(Deserialize)]
struct PlanFileStep {
    action: String,
    what: String,
}

#[derive(Deserialize)]
struct PlanFileDifference {
    key: String,
    from: String,
    to: String,
}

fn plan(file: &PlanFile) -> PlannedDeployment {
    let mut facts = vec![("Version", sentence(&file.version))];
    if let Some(PlanFilePackage { name, sha256, commit, model_sha256 }) = &file.package {
        facts.extend([
            ("Package", sentence(name)),
            ("SHA-256 of the package", sentence(sha256)),
            ("Commit of the package", sentence(commit)),
            ("SHA-256 of the model", sentence(model_sha256)),
        ]);
    }
    facts.extend([
        ("Configuration", sentence(&format!("{} → {}", file.from.as_deref().unwrap_or("no endpoint"), file.to))),
        ("Traffic", sentence(&file.traffic)),
    ]);
    if file.longest_seconds > 0 {
        facts.push(("Longest time", seconds(file.longest_seconds)));
    }
    if let (Some(most), Some(instance_type)) = (file.most_instances, &file.instance_type) {
        facts.push(("Instances at once", format!("up to {most} x {}", name(instance_type))));
    }
    let alarms = file.alarms.iter().take(MOST).map(|alarm| name(alarm)).collect::<Vec<_>>().join(", ");
    facts.push((
        "Alarms",
        if alarms.is_empty() { "none: only the samples roll back".to_owned() } else { sentence(&alarms) },
    ));
    facts.retain(|(_, fact)| !fact.is_empty());
    let steps = file.steps.iter().map(|step| (name(&step.action), sentence(&step.what)));
    let differences = file.differences.iter();
    PlannedDeployment {
        endpoint: name(&file.endpoint),
        has_changes: file.changes,
        facts,
        steps: steps.collect(),
        differences: differences.map(|of| (name(&of.key), sentence(&of.from), sentence(&of.to))).collect(),
        refusals: file.refusals.iter().map(|refusal| sentence(refusal)).collect(),
    }
}
