//! The measurements of the agent: lines in the job's log, and the files and the page that its artifacts name.

use std::time::Duration;

use crate::base::human::{human_duration, human_files};
use crate::base::metric::MetricDefinition;
use crate::base::node::NodeId;
use crate::gitlab::JobContext;
use crate::protocol::keys::SessionKeys;
use crate::protocol::measurements::{self, Gauge, IDLE_BELOW_PERCENT, Measurements};
use crate::protocol::project::Trees;
use crate::report::{
    self, Across, Curve, FinalValues, JobPage, JobPhase, METRICS_JSON_START, METRICS_TEXT_START, PAGE_START, Unit,
};
use crate::session::bill::Bill;
use crate::session::billing::EndWait;
use crate::session::exchange::{Exchange as _, StoreExchange};
use crate::session::figures::JobFigures;
use crate::session::idle::IdleTime;
use crate::session::job_report::REPORT_FILE;
use crate::session::{Session, billing, stage_channels, wanted_files};
use crate::workspace;

const PAGE: &str = "sagemaker-report.html";
const METRICS_TEXT: &str = "sagemaker-metrics.txt";
const METRICS_JSON: &str = "sagemaker-metrics.json";
/// Most starts of a container whose measurements are read.
const MOST_STARTS: u32 = 40;

/// A file that the driver writes, and how it begins.
struct OwnFile<'a> {
    name: &'static str,
    start: &'static str,
    text: &'a str,
}

/// Whether the agent is to measure the machine: for the page and the report, with metrics, and on instances with GPUs, which cost most when idle.
pub fn wants_samples(session: &Session<'_>, trees: &Trees, metrics: &[MetricDefinition]) -> bool {
    let has_gpus = ["ml.g", "ml.p"].iter().any(|family| session.state.instance_type().starts_with(family));
    has_gpus || !metrics.is_empty() || names(session, trees, PAGE) || names(session, trees, REPORT_FILE)
}

fn names(session: &Session<'_>, trees: &Trees, file: &str) -> bool {
    wanted_files::names_file(session.state.selection(), trees, file)
}

/// Prints a line for each metric, and one for the machine.
pub async fn print(session: &Session<'_>, trees: &Trees, metrics: &[MetricDefinition]) {
    if !wants_samples(session, trees, metrics) {
        return;
    }
    let measured = fetch(session).await;
    let (found, missing): (Vec<_>, Vec<_>) =
        metrics.iter().partition(|metric| measured.metrics.contains_key(&metric.name));
    for metric in found {
        if let Some(series) = measured.metrics.get(&metric.name) {
            session.printer.line(format!("Metric {}", report::metric_line(&metric.name, series)));
            if let Some(last) = series.last().filter(|last| !last.is_finite()) {
                session.printer.warn(format!("the last value of `{}` is no finite number: {last}", metric.name));
            }
        }
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|metric| format!("`{}`", metric.name)).collect();
        session.printer.warn(format!(
            "no line of the output had a value for {}; compare the regular expressions in `SAGEMAKER_METRICS` with the output",
            names.join(", ")
        ));
    }
    if let Some(words) = machine_words(&measured) {
        session.printer.line(format!("Machine: {words}"));
    }
}

/// The time in which the machine was idle, if the job's artifacts name the report that tells it.
pub async fn idle(session: &Session<'_>, trees: &Trees) -> Option<IdleTime> {
    if !names(session, trees, REPORT_FILE) {
        return None;
    }
    IdleTime::of(&fetch(session).await)
}

/// Writes the files that the job's artifacts name. One that cannot be written fails nothing.
pub async fn write_files(session: &Session<'_>, job: &JobContext, trees: &Trees, wait: &EndWait<'_>) {
    let [has_page, has_text, has_json] = [PAGE, METRICS_TEXT, METRICS_JSON].map(|file| names(session, trees, file));
    if !(has_page || has_text || has_json) {
        return;
    }
    let measured = fetch(session).await;
    let metrics: Vec<_> = measured
        .metrics
        .iter()
        .map(|(name, series)| Curve { name, unit: Unit::Plain, across: Across::Time, series })
        .collect();
    if metrics.is_empty() && (has_text || has_json) {
        let why = if session.state.is_loss_told() {
            "what was read from the output is lost with the training job"
        } else {
            "no metric was read from the output; `SAGEMAKER_METRICS` defines them"
        };
        session.printer.warn(format!("there is no `{METRICS_TEXT}` and no `{METRICS_JSON}`: {why}"));
    } else {
        let values = FinalValues { training_job: &session.job_name(), metrics: &metrics, machine: &gauges(&measured) };
        let (text, json) = (report::open_metrics(&metrics), report::values_json(&values));
        let text = OwnFile { name: METRICS_TEXT, start: METRICS_TEXT_START, text: &text };
        let json = OwnFile { name: METRICS_JSON, start: METRICS_JSON_START, text: &json };
        for (file, _) in [(text, has_text), (json, has_json)].iter().filter(|(_, is_named)| *is_named) {
            write(session, trees, file);
        }
    }
    if has_page {
        let Some(bill) = billing::bill(session, wait).await else {
            session.printer.warn(format!("there is no `{PAGE}`: SageMaker did not tell the state of the training job"));
            return;
        };
        let text = page(session, job, &bill, &measured, &metrics);
        write(session, trees, &OwnFile { name: PAGE, start: PAGE_START, text: &text });
    }
}

fn write(session: &Session<'_>, trees: &Trees, file: &OwnFile<'_>) {
    match workspace::write_own(trees, file.name, file.text.as_bytes(), file.start.as_bytes()) {
        Ok(false) => {}
        Ok(true) => session.printer.warn(format!("`{}` of the job is replaced by the executor's file", file.name)),
        Err(error) => session.printer.warn(format!("{error:#}")),
    }
}

/// The measurements of all starts of the container, as far as they can be read.
async fn fetch(session: &Session<'_>) -> Measurements {
    let mut all = Measurements::default();
    if let Some((keys, exchange)) = stage_channels::before(session) {
        add(session, &mut all, &keys, &exchange, 0).await;
    }
    let (keys, exchange) = (session.keys(), session.exchange());
    for restarts in 0..=session.state.restarts().leader.min(MOST_STARTS) {
        add(session, &mut all, &keys, &exchange, restarts).await;
    }
    all
}

/// Adds the measurements of one start of the container, if there are any.
async fn add(
    session: &Session<'_>,
    all: &mut Measurements,
    keys: &SessionKeys,
    exchange: &StoreExchange,
    restarts: u32,
) {
    let node = NodeId::LEADER;
    let found = match exchange.measurements(node, restarts).await {
        Ok(Some(bytes)) => measurements::decode_measurements(keys, node, restarts, &bytes).map_err(anyhow::Error::from),
        Ok(None) => return,
        Err(error) => Err(error.into()),
    };
    match found {
        Ok(measured) => all.extend(&measured),
        Err(error) => session.printer.warn(format!("what the agent measured cannot be used: {error:#}")),
    }
}

fn gauges(measured: &Measurements) -> Vec<(&'static str, Curve<'_>)> {
    let of = |gauge: Gauge| {
        let name = match gauge {
            Gauge::Cpu => "CPU",
            Gauge::Memory => "Memory",
            Gauge::Gpu => "GPU",
            Gauge::GpuMemory => "GPU memory",
            Gauge::Disk => "Disk",
            Gauge::Received => "Network, received",
            Gauge::Sent => "Network, sent",
        };
        let unit = if gauge.is_percent() { Unit::Percent } else { Unit::BytesPerSecond };
        Some((gauge.name(), Curve { name, unit, across: Across::Time, series: measured.gauge(gauge)? }))
    };
    Gauge::ALL.into_iter().filter_map(of).collect()
}

/// `GPU under 10 % for 84 % of the time (1 x NVIDIA A10G), CPU 35 % and memory 61 % on average`.
fn machine_words(measured: &Measurements) -> Option<String> {
    let gpu = measured.gpu.as_ref().filter(|gpu| gpu.samples > 0).map(|gpu| {
        let share = |idle: &u32| format!("{} %", u64::from(*idle) * 100 / u64::from(gpu.samples));
        let (shares, count) = (gpu.idle.iter().map(share).collect::<Vec<_>>().join(", "), gpu.idle.len());
        let gpus = if count == 1 { "GPU".to_owned() } else { format!("GPUs 0 to {}", count.saturating_sub(1)) };
        format!("{gpus} under {IDLE_BELOW_PERCENT} % for {shares} of the time ({count} x {})", gpu.name)
    });
    let mean = |gauge, name| measured.gauge(gauge)?.mean().map(|mean| format!("{name} {mean:.0} %"));
    let means: Vec<_> = [mean(Gauge::Cpu, "CPU"), mean(Gauge::Memory, "memory")].into_iter().flatten().collect();
    let means = (!means.is_empty()).then(|| format!("{} on average", means.join(" and ")));
    let words: Vec<_> = gpu.into_iter().chain(means).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn page(
    session: &Session<'_>,
    job: &JobContext,
    bill: &Bill,
    measured: &Measurements,
    metrics: &[Curve<'_>],
) -> String {
    let figures = session.state.figures();
    let outcome = outcome(figures);
    let instances = bill.instances.iter().map(|(name, count)| format!("{count} x {name}"));
    let received = figures.received.map(|received| human_files(received.files, received.bytes));
    let mut facts = vec![
        ("Instances", instances.collect::<Vec<_>>().join(", ")),
        ("Running", human_duration(Duration::from_secs(bill.ran()))),
        ("Waiting", human_duration(Duration::from_secs(bill.waited()))),
        ("Results", received.unwrap_or_else(|| "none".to_owned())),
        ("Image", session.state.request().image.clone()),
        ("Training job", format!("{} in {}", session.job_name(), bill.region)),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    let info = &job.job_info;
    let place = format!(
        "{} on {}, pipeline {}, job {}",
        info.project_full_path, job.git_info.git_ref, info.pipeline_id, job.id
    );
    let price = [Some(bill.line()), bill.total_line()].into_iter().flatten().collect::<Vec<_>>().join(". ");
    let machine: Vec<_> = gauges(measured).into_iter().map(|(_, curve)| curve).collect();
    report::page(&JobPage {
        title: &info.name,
        place: &place,
        outcome: &outcome,
        has_succeeded: figures.exit_code == Some(0),
        facts: &facts,
        phases: &phases(bill),
        price: Some(&price),
        metrics,
        machine: &machine,
        has_gaps: session.state.restarts().leader > 0,
        remark: machine_words(measured).as_deref(),
    })
}

/// How the script ended. With a reason, no exit code of it is known, or it is that of the container.
fn outcome(figures: &JobFigures) -> String {
    match (figures.exit_code, &figures.script_cut) {
        (Some(code), None) => format!("Exit code {code}"),
        (Some(code), Some(why)) => format!("Exit code {code}: {why}"),
        (None, Some(why)) => format!("No exit code: {why}"),
        (None, None) => "No script ended".to_owned(),
    }
}

fn phases(bill: &Bill) -> Vec<JobPhase> {
    let Some(first) = bill.phases.first().map(|phase| phase.started) else { return Vec::new() };
    let phases = bill.phases.iter().map(|phase| JobPhase {
        name: phase.status.to_string(),
        from: phase.started.duration_since(first).unwrap_or_default().as_secs(),
        seconds: phase.seconds,
    });
    phases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::series::Series;
    use crate::protocol::measurements::GpuUse;

    fn constant(value: f64) -> Series {
        let mut series = Series::default();
        series.push(0, value);
        series
    }

    #[test]
    fn the_page_tells_why_a_script_has_no_exit_code() {
        let of = |exit_code, why: Option<&str>| {
            outcome(&JobFigures { exit_code, script_cut: why.map(str::to_owned), received: None })
        };
        assert_eq!(of(Some(3), None), "Exit code 3");
        assert_eq!(of(Some(137), Some("the container was killed")), "Exit code 137: the container was killed");
        assert_eq!(of(None, Some("the time is over")), "No exit code: the time is over");
        assert_eq!(of(None, None), "No script ended");
    }

    #[test]
    fn the_words_for_the_machine_hold_what_was_measured() {
        let mut measured = Measurements::default();
        assert_eq!(machine_words(&measured), None);
        measured.machine.insert("cpu".to_owned(), constant(34.6));
        assert_eq!(machine_words(&measured).unwrap(), "CPU 35 % on average");
        measured.machine.insert("memory".to_owned(), constant(61.0));
        measured.gpu = Some(GpuUse { name: "NVIDIA A10G".to_owned(), samples: 1000, idle: vec![849] });
        let names: Vec<_> = gauges(&measured).into_iter().map(|(_, curve)| curve.name).collect();
        assert_eq!(names, ["CPU", "Memory"]);
        assert_eq!(
            machine_words(&measured).unwrap(),
            "GPU under 10 % for 84 % of the time (1 x NVIDIA A10G), CPU 35 % and memory 61 % on average"
        );
        measured = Measurements { gpu: measured.gpu, ..Measurements::default() };
        measured.gpu.as_mut().unwrap().idle = vec![0, 1000, 1000, 995];
        assert_eq!(
            machine_words(&measured).unwrap(),
            "GPUs 0 to 3 under 10 % for 0 %, 100 %, 100 %, 99 % of the time (4 x NVIDIA A10G)"
        );
    }
}
