//! The metrics file and the log, against what the emulator and GitLab counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::sagemaker_desk::Desk;
use crate::support::driver::sagemaker_with;
use crate::support::job::{Job, Variable};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::waiting::{find_program, tell};
use crate::support::world::{Settings, World};

/// Jobs of the short form.
const JOBS: usize = 6;
/// Value of a masked variable, which no log may have.
const SECRET: &str = "hunter2-in-no-log";
/// Lines of the operator's file.
const ON: &str = "[metrics]\nfile = \"{root}/sagemaker.prom\"\nby_project = true\n[log]\nfile = \"{root}/executor.log\"\nlevel = \"debug\"\n";
/// Operations that drivers alone call, neither agents nor this test before it counts.
const OF_DRIVERS: [&str; 3] = ["CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob"];

/// `METRICS_JOBS=200` runs as many jobs.
#[expect(clippy::disallowed_methods, reason = "the size of the suite, which the project's own modules know nothing of")]
fn number() -> usize {
    std::env::var("METRICS_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(JOBS)
}

fn run(world: &World) -> Vec<Outcome> {
    let job = |number: usize| {
        let job = Job::new().variable(Variable::new("SECRET", SECRET).masked());
        match number % 6 {
            1 => job.script(["exit 3"]),
            2 => job.set("SAGEMAKER_INSTANCE_TYPE", SECRET).script(["true"]),
            4 => job.script(["echo \"$SECRET\"; sleep 1"]),
            _ => job.script(["echo hello"]),
        }
    };
    (0..number()).map(|number| world.run(&job(number))).collect()
}

/// The values of a metrics file, by name and labels.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of the series whose name begins so and has all these labels.
fn sum(values: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let has_all = |series: &str| labels.iter().all(|label| series.contains(label));
    let is_it = |series: &str| series.split('{').next() == Some(name) && has_all(series);
    values.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
}

fn same(found: f64, expected: usize, what: &str) {
    assert!((found - f64::from(u32::try_from(expected).unwrap())).abs() < 1e-6, "{what}: {found} is not {expected}");
}

fn expect(world: &World, outcomes: &[Outcome]) {
    let emulator = world.emulator.as_ref().unwrap();
    let requests = emulator.all_requests();
    let file = world.dirs.root().join("sagemaker.prom");
    let text = std::fs::read_to_string(&file).unwrap();
    let values = values(&text);
    let ended = |state: &str, reason: Option<&str>| {
        let is_it = |outcome: &&Outcome| {
            outcome.state.as_deref() == Some(state) && (reason.is_none() || outcome.failure_reason.as_deref() == reason)
        };
        outcomes.iter().filter(is_it).count()
    };
    let jobs = |labels: &[&str]| sum(&values, "sagemaker_executor_jobs_total", labels);
    same(jobs(&[]), outcomes.len(), "jobs");
    same(jobs(&["result=\"succeeded\"", "project=\"ml/churn\""]), ended("success", None), "jobs that succeeded");
    same(jobs(&["result=\"failed\""]), ended("failed", None), "jobs that failed");
    let refused = (0..outcomes.len()).filter(|number| number % 6 == 2).count();
    same(jobs(&["reason=\"user\""]), refused, "jobs that were refused");
    same(jobs(&["reason=\"script\""]), ended("failed", None) - refused, "scripts that failed");
    for operation in OF_DRIVERS {
        let counted = sum(&values, "sagemaker_executor_api_calls_total", &[&format!("operation=\"{operation}\"")]);
        same(counted, usize::try_from(requests.get(operation).copied().unwrap_or_default()).unwrap(), operation);
    }
    let created = usize::try_from(requests["CreateTrainingJob"]).unwrap();
    same(sum(&values, "sagemaker_executor_queue_seconds_count", &[]), created, "waits for the quota");
    same(sum(&values, "sagemaker_executor_provisioning_seconds_count", &[]), created, "waits for instances");
    same(sum(&values, "sagemaker_executor_job_duration_seconds_count", &[]), outcomes.len(), "durations");
    same(sum(&values, "sagemaker_executor_stages_total", &["stage=\"cleanup\""]), outcomes.len(), "cleanups");
    same(sum(&values, "sagemaker_executor_trace_delay_seconds_count", &[]), created, "ends of scripts");
    same(sum(&values, "sagemaker_executor_jobs", &[]), 0, "jobs that run");
    assert!(sum(&values, "sagemaker_executor_output_bytes_total", &[]) > 10.0, "{text}");
    if outcomes.len() <= 50 {
        let billed: f64 = emulator.jobs().iter().filter_map(|job| job["BillableTimeInSeconds"].as_f64()).sum();
        let counted = sum(&values, "sagemaker_executor_billed_seconds_total", &["instance_type=\"ml.m5.large\""]);
        // A bill that was told while its job was about to end may miss some seconds.
        let most = f64::from(u32::try_from(created).unwrap()) * 2.0;
        assert!((counted - billed).abs() <= most, "{counted} is not {billed}");
    }
    check_with_promtool(&text, &file);
    check_log(&std::fs::read_to_string(world.dirs.root().join("executor.log")).unwrap(), outcomes.len());
}

fn check_with_promtool(text: &str, file: &Path) {
    let Some(promtool) = find_program("promtool") else {
        tell("SKIPPED: `promtool check metrics`: no promtool on PATH");
        return;
    };
    let checked = Command::new(promtool).args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}\n{text}", String::from_utf8_lossy(&checked.stderr));
}

fn check_log(text: &str, jobs: usize) {
    assert!(!text.contains(SECRET), "a masked value is in the log");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str, stage: &str| {
        let is_it = |line: &&Value| line["event"] == event && line["stage"] == stage;
        lines.iter().filter(is_it).collect::<Vec<_>>()
    };
    for stage in ["config", "prepare", "cleanup"] {
        assert_eq!(of("the stage has ended", stage).len(), jobs, "{stage}");
    }
    for line in of("the stage has ended", "prepare") {
        let is_named = line["session"].as_str().is_some_and(|id| id.starts_with("gitlab-")) && line["job"].is_u64();
        assert!(is_named && line["project"] == "ml/churn" && line["seconds"].is_f64(), "{line}");
    }
    let created: Vec<_> = of("request to AWS", "prepare");
    let created: Vec<_> = created.iter().filter(|line| line["operation"] == "CreateTrainingJob").collect();
    let has_all =
        |line: &&&Value| line["duration_ms"].is_u64() && line["outcome"] == "ok" && line["request"].is_string();
    assert!(!created.is_empty() && created.iter().all(has_all), "{created:?}");
    assert!(lines.iter().any(|line| line["event"] == "the training job is in another phase"), "no phase is told");
    let ended: Vec<_> = lines.iter().filter(|line| line["event"] == "the job has ended").collect();
    assert_eq!(ended.len(), jobs);
}

#[test]
fn metrics_agree_with_what_the_emulator_and_gitlab_count() {
    let row = Scenario { name: "metrics", needs: &[], settings: Settings::default, play: run, expect };
    play(&row, With::RunnerDouble, sagemaker_with(&[], ON));
}

/// Neither a stage nor a sweep fails for it. Each process tells it once in the log, the sweep on stderr too, and no stage in the job's log.
#[test]
fn metrics_that_cannot_be_written_are_told_and_fail_nothing() {
    let tail = "[metrics]\nfile = \"{root}/absent/sagemaker.prom\"\n[log]\nfile = \"{root}/executor.log\"\n";
    let mut desk = Desk::with(&Job::new().script(["true"]), &[], tail);
    desk.config().passed().hides("metrics");
    let swept = desk.call(&["sweep"]);
    swept.passed().says("absent/sagemaker.prom: ").says("set `metrics.file` of the operator's file to another place");
    assert_eq!(swept.stderr.matches("failed to write the metrics").count(), 1, "{swept}");
    let log = std::fs::read_to_string(desk.root().join("executor.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = lines.filter(|line| line["event"] == "failed to write the metrics").collect();
    let of: Vec<_> = told.iter().map(|line| line["stage"].as_str()).collect();
    assert_eq!(of, [Some("config"), None], "{log}");
    assert!(told.iter().all(|line| line["level"] == "warn" && line["key"] == "metrics.file"), "{log}");
    desk.call(&["config", "check"]).passed().says("warning: this user cannot make files beside `metrics.file`");
    std::fs::create_dir(desk.root().join("absent")).unwrap();
    desk.call(&["sweep"]).passed().hides("metrics");
    let text = std::fs::read_to_string(desk.root().join("absent/sagemaker.prom")).unwrap();
    let sweeps = sum(&values(&text), "sagemaker_executor_sweeps_total", &["outcome=\"succeeded\""]);
    same(sweeps, 2, "sweeps, with the one that was not written");
    desk.close();
}
