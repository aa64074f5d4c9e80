//! The table of the metrics: names, units and labels after the conventions of Prometheus. `docs/OPERATING.md` has the same table.

/// The form of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricForm {
    /// A sum that only grows.
    Counter,
    /// A value of the moment when the file was written.
    Gauge,
    /// Numbers of values up to each of these bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub form: MetricForm,
    /// Names of its labels, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// Series that are in the file from the beginning, because a rate over a counter needs its zero: the first failure of a host would be none.
    /// `*` stands for every value that the label has in other series.
    pub known: &'static [&'static [&'static str]],
}

/// Labels whose values come from jobs or from AWS: their number has no limit of its own. All others have a few values that the program knows.
pub const OPEN_LABELS: [&str; 4] = ["project", "instance_type", "service", "operation"];

/// Seconds of waits that may last for hours.
const WAITS: &[f64] = &[1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0];
/// Seconds of short waits.
const DELAYS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds of requests to AWS.
const REQUESTS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

pub const JOBS: Metric = Metric {
    name: "sagemaker_executor_jobs_total",
    help: "Attempts of jobs that ended, by result and class of failure.",
    form: MetricForm::Counter,
    labels: &["result", "reason", "project"],
    known: &[
        &["succeeded", "none", "*"],
        &["failed", "script", "*"],
        &["failed", "user", "*"],
        &["failed", "system", "*"],
        &["canceled", "canceled", "*"],
        &["abandoned", "killed", "*"],
        &["unknown", "unreadable", "*"],
    ],
};
pub const JOB_SECONDS: Metric = Metric {
    name: "sagemaker_executor_job_duration_seconds",
    help: "Time from the begin of prepare to the end of cleanup.",
    form: MetricForm::Histogram(WAITS),
    labels: &[],
    known: &[],
};
pub const STAGES: Metric = Metric {
    name: "sagemaker_executor_stages_total",
    help: "Stages of jobs that ended, by outcome.",
    form: MetricForm::Counter,
    labels: &["stage", "outcome"],
    known: &[],
};
pub const QUEUE_SECONDS: Metric = Metric {
    name: "sagemaker_executor_queue_seconds",
    help: "Time that jobs waited for the quota of the account, 0 for those that did not wait.",
    form: MetricForm::Histogram(WAITS),
    labels: &[],
    known: &[],
};
pub const PROVISIONING_SECONDS: Metric = Metric {
    name: "sagemaker_executor_provisioning_seconds",
    help: "Time in which training jobs waited for instances.",
    form: MetricForm::Histogram(WAITS),
    labels: &[],
    known: &[],
};
pub const TRACE_DELAY: Metric = Metric {
    name: "sagemaker_executor_trace_delay_seconds",
    help: "Time from the news that a script has ended to the last byte of its output in the job log.",
    form: MetricForm::Histogram(DELAYS),
    labels: &[],
    known: &[],
};
pub const OUTPUT_BYTES: Metric = Metric {
    name: "sagemaker_executor_output_bytes_total",
    help: "Bytes of the output of scripts in job logs.",
    form: MetricForm::Counter,
    labels: &[],
    known: &[],
};
pub const SENT_BYTES: Metric = Metric {
    name: "sagemaker_executor_sent_bytes_total",
    help: "Bytes of projects that were sent to the bucket.",
    form: MetricForm::Counter,
    labels: &[],
    known: &[],
};
pub const RECEIVED_BYTES: Metric = Metric {
    name: "sagemaker_executor_received_bytes_total",
    help: "Bytes of results that were read from the bucket.",
    form: MetricForm::Counter,
    labels: &[],
    known: &[],
};
pub const BILLED_SECONDS: Metric = Metric {
    name: "sagemaker_executor_billed_seconds_total",
    help: "Seconds of instances that SageMaker bills for jobs that ended.",
    form: MetricForm::Counter,
    labels: &["instance_type"],
    known: &[],
};
pub const COST: Metric = Metric {
    name: "sagemaker_executor_cost_total",
    help: "Cost of jobs that ended: US dollars by the list prices, else the currency of the operator's prices.",
    form: MetricForm::Counter,
    labels: &["source"],
    known: &[],
};
pub const API_CALLS: Metric = Metric {
    name: "sagemaker_executor_api_calls_total",
    help: "Requests to AWS, repeated ones too, by outcome.",
    form: MetricForm::Counter,
    labels: &["service", "operation", "outcome"],
    known: &[&["*", "*", "throttled"], &["*", "*", "denied"]],
};
pub const API_SECONDS: Metric = Metric {
    name: "sagemaker_executor_api_call_duration_seconds",
    help: "Time from a request to AWS to its answer.",
    form: MetricForm::Histogram(REQUESTS),
    labels: &["service"],
    known: &[],
};
pub const SWEEPS: Metric = Metric {
    name: "sagemaker_executor_sweeps_total",
    help: "Sweeps, by outcome.",
    form: MetricForm::Counter,
    labels: &["outcome"],
    known: &[&["succeeded"], &["failed"]],
};
pub const ORPHANS: Metric = Metric {
    name: "sagemaker_executor_orphans_ended_total",
    help: "Sessions without a runner that a sweep ended, by the evidence that showed them.",
    form: MetricForm::Counter,
    labels: &["found_by"],
    known: &[&["record"], &["objects"], &["tags"]],
};
/// Written when the file is: notes of jobs on this host.
pub(super) const RUNNING: Metric = Metric {
    name: "sagemaker_executor_jobs",
    help: "Jobs on this host that have not ended.",
    form: MetricForm::Gauge,
    labels: &[],
    known: &[],
};
pub(super) const UNREADABLE: Metric = Metric {
    name: "sagemaker_executor_unreadable_counts_total",
    help: "Files of counts that could not be read, as after a power failure; their counts are lost.",
    form: MetricForm::Counter,
    labels: &[],
    known: &[],
};
pub(super) const BUILD: Metric = Metric {
    name: "sagemaker_executor_build_info",
    help: "The version of the program that wrote this file.",
    form: MetricForm::Gauge,
    labels: &["version"],
    known: &[],
};

/// Every metric of the file, in its order.
pub const METRICS: &[&Metric] = &[
    &JOBS,
    &JOB_SECONDS,
    &STAGES,
    &QUEUE_SECONDS,
    &PROVISIONING_SECONDS,
    &TRACE_DELAY,
    &OUTPUT_BYTES,
    &SENT_BYTES,
    &RECEIVED_BYTES,
    &BILLED_SECONDS,
    &COST,
    &API_CALLS,
    &API_SECONDS,
    &SWEEPS,
    &ORPHANS,
    &RUNNING,
    &UNREADABLE,
    &BUILD,
];
