//! The dashboard, the alert rules, the logrotate file and the schema of the operator's file, against the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use executor::config::settings::JOURNALD;
use executor::metrics::{METRICS, MetricForm};
use regex::Regex;
use serde_json::Value;

use super::{read, root, rows};
use crate::support::waiting::{find_program, tell};
use crate::templates::yaml;

const DASHBOARD: &str = "runner-config/observability/dashboard.json";
/// Units of Grafana.
const UNITS: [&str; 5] = ["short", "s", "h", "Bps", "reqps"];
const ALERTS: &str = "runner-config/observability/alerts.yml";
/// Broken files that the schema takes: their mistakes are in values that only the program can judge, or in several keys together.
const MOST_TAKEN: usize = 75;

/// Asserts that a query names metrics that the program exports, with labels that they have. Returns the metrics.
fn check_query(query: &str, place: &str) -> BTreeSet<&'static str> {
    let name = Regex::new(r"sagemaker_executor_[a-z_]+[a-z]").unwrap();
    let mut found = BTreeSet::new();
    let mut labels: BTreeSet<&str> = ["instance", "le"].into();
    for named in name.find_iter(query) {
        let is_it = |metric: &&&executor::metrics::Metric| {
            let parts = ["_bucket", "_sum", "_count"];
            let of_parts = matches!(metric.form, MetricForm::Histogram(_))
                && parts.iter().any(|part| named.as_str() == format!("{}{part}", metric.name));
            of_parts || metric.name == named.as_str() && !matches!(metric.form, MetricForm::Histogram(_))
        };
        let metric =
            METRICS.iter().find(is_it).unwrap_or_else(|| panic!("{place}: no metric is called {}", named.as_str()));
        found.insert(metric.name);
        labels.extend(metric.labels);
    }
    assert!(!found.is_empty(), "{place}: {query} names no metric");
    check_zeros(query, place);
    let used = Regex::new(r#"by \(([a-z_, ]+)\)|([a-z_]+)=~?"|([a-z_]+)!="#).unwrap();
    for captures in used.captures_iter(query) {
        let names = captures.iter().skip(1).flatten().flat_map(|part| part.as_str().split(", "));
        for label in names {
            let is_foreign = query.contains("node_textfile") && label == "file";
            assert!(labels.contains(label) || is_foreign, "{place}: no metric of {query} has the label {label}");
        }
    }
    found
}

/// Asserts that the series of a counter which a query names by values are in the file before their first event: `increase` needs their zero.
fn check_zeros(query: &str, place: &str) {
    let named = Regex::new(r"(sagemaker_executor_[a-z_]+_total)\{([^}]*)\}").unwrap();
    let pair = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    for captures in named.captures_iter(query) {
        let metric = METRICS.iter().find(|metric| metric.name == &captures[1]).unwrap();
        let pairs: Vec<_> =
            pair.captures_iter(&captures[2]).map(|pair| (pair[1].to_owned(), pair[2].to_owned())).collect();
        let is_known = metric.known.iter().any(|known| {
            let value = |label: &str| {
                metric.labels.iter().zip(*known).find(|(name, _)| **name == label).map(|(_, value)| *value)
            };
            pairs.iter().all(|(label, wanted)| value(label).is_some_and(|value| value == "*" || value == wanted))
        });
        assert!(is_known || query.contains('$'), "{place}: no series of {} is there from the beginning", &captures[0]);
    }
}

/// Alerts that have to fire, on the first event of a host too.
const CASES: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'sagemaker_executor_jobs_total{instance="h",result="abandoned",reason="killed"}'
        values: '0x30 1x60'
      - series: 'sagemaker_executor_jobs_total{instance="h",result="failed",reason="system"}'
        values: '0x30 5x60'
      - series: 'sagemaker_executor_sweeps_total{instance="h",outcome="failed"}'
        values: '0x30 3x60'
    alert_rule_test:
      - eval_time: 35m
        alertname: SageMakerExecutorAbandonedJobs
        exp_alerts: [{exp_labels: {severity: warning, instance: h}}]
      - eval_time: 45m
        alertname: SageMakerExecutorSystemFailures
        exp_alerts: [{exp_labels: {severity: warning, instance: h}}]
      - eval_time: 45m
        alertname: SageMakerExecutorSweepFails
        exp_alerts: [{exp_labels: {severity: warning, instance: h, outcome: failed}}]
      - eval_time: 20m
        alertname: SageMakerExecutorAbandonedJobs
        exp_alerts: []
  - interval: 1m
    input_series:
      - series: 'sagemaker_executor_build_info{instance="h",version="1"}'
        values: '1x600'
      - series: 'sagemaker_executor_build_info{instance="i",version="1"}'
        values: '1x600'
      - series: 'sagemaker_executor_sweeps_total{instance="i",outcome="succeeded"}'
        values: '0x600'
      - series: 'sagemaker_executor_build_info{instance="j",version="1"}'
        values: '1x600'
      - series: 'sagemaker_executor_sweeps_total{instance="j",outcome="succeeded"}'
        values: '0+1x600'
    alert_rule_test:
      - eval_time: 500m
        alertname: SageMakerExecutorNoSweep
        exp_alerts: [{exp_labels: {severity: warning, instance: h}}, {exp_labels: {severity: warning, instance: i}}]
  - interval: 1m
    input_series:
      - series: 'sagemaker_executor_api_calls_total{instance="h",operation="CreateTrainingJob",outcome="throttled"}'
        values: '0x30 10+10x90'
      - series: 'sagemaker_executor_api_calls_total{instance="h",operation="PutObject",outcome="denied"}'
        values: '0x30 6x90'
      - series: 'sagemaker_executor_queue_seconds_bucket{instance="h",le="1800"}'
        values: '0x130'
      - series: 'sagemaker_executor_queue_seconds_bucket{instance="h",le="3600"}'
        values: '0+1x130'
      - series: 'sagemaker_executor_queue_seconds_bucket{instance="h",le="+Inf"}'
        values: '0+1x130'
      - series: 'sagemaker_executor_trace_delay_seconds_bucket{instance="h",le="60"}'
        values: '0x130'
      - series: 'sagemaker_executor_trace_delay_seconds_bucket{instance="h",le="+Inf"}'
        values: '0+1x130'
      - series: 'sagemaker_executor_trace_delay_seconds_bucket{instance="h",le="300"}'
        values: '0+1x130'
    alert_rule_test:
      - eval_time: 35m
        alertname: SageMakerExecutorDenied
        exp_alerts: [{exp_labels: {severity: critical, instance: h, operation: PutObject}}]
      - eval_time: 25m
        alertname: SageMakerExecutorDenied
        exp_alerts: []
      - eval_time: 80m
        alertname: SageMakerExecutorThrottled
        exp_alerts: [{exp_labels: {severity: warning, instance: h, operation: CreateTrainingJob}}]
      - eval_time: 35m
        alertname: SageMakerExecutorThrottled
        exp_alerts: []
      - eval_time: 120m
        alertname: SageMakerExecutorLongQueue
        exp_alerts: [{exp_labels: {severity: warning, instance: h}}]
      - eval_time: 120m
        alertname: SageMakerExecutorSlowTrace
        exp_alerts: [{exp_labels: {severity: warning, instance: h}}]
  - interval: 1m
    input_series:
      - series: 'node_textfile_mtime_seconds{instance="h",file="/var/lib/node_exporter/textfile/sagemaker-executor.prom"}'
        values: '0x400'
      - series: 'sagemaker_executor_jobs{instance="h"}'
        values: '2x400'
    alert_rule_test:
      - eval_time: 359m
        alertname: SageMakerExecutorStaleMetrics
        exp_alerts: []
      - eval_time: 362m
        alertname: SageMakerExecutorStaleMetrics
        exp_alerts:
          - exp_labels: {severity: warning, instance: h, file: /var/lib/node_exporter/textfile/sagemaker-executor.prom}
"#;

#[test]
fn the_alerts_fire() {
    let Some(promtool) = find_program("promtool") else {
        return tell("SKIPPED: `promtool test rules`: no promtool on PATH");
    };
    let folder = tempfile::tempdir().unwrap();
    let rules = read(ALERTS)
        .lines()
        .filter(|line| !line.contains("description:") && !line.contains("summary:"))
        .fold(String::new(), |text, line| text + line.replace("annotations:", "annotations: {}").as_str() + "\n");
    std::fs::write(folder.path().join("alerts.yml"), rules).unwrap();
    let cases = folder.path().join("cases.yml");
    std::fs::write(&cases, format!("rule_files: [alerts.yml]{CASES}")).unwrap();
    let ended = Command::new(promtool).args(["test", "rules"]).arg(&cases).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{text}");
}

#[test]
fn the_dashboard_has_panels_for_every_metric() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    assert!(dashboard["schemaVersion"].is_u64() && dashboard["title"].is_string() && dashboard["uid"].is_string());
    let (mut ids, mut shown, mut queries) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: the id is there twice");
        assert!(["timeseries", "stat", "table"].contains(&panel["type"].as_str().unwrap()), "{place}");
        let size = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(size("x") + size("w") <= 24 && size("h") > 0, "{place}: {}", panel["gridPos"]);
        assert!(UNITS.contains(&panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap()), "{place}");
        assert!(panel["options"].is_object(), "{place}");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{place}: no description");
        let targets = panel["targets"].as_array().unwrap();
        let references: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && references.len() == targets.len(), "{place}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
            let query = target["expr"].as_str().unwrap();
            shown.extend(check_query(query, place));
            lint(query, place);
            queries.push(query.to_owned());
        }
    }
    let all: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all, "the dashboard shows another set of metrics");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance"].into());
    assert_eq!(variables[1]["refresh"], 2, "the hosts are those of the shown time");
    parse(&queries);
}

/// Rules of Grafana's own linter for queries: the variable of the host, counters as increases, and a rate over the interval of the screen.
fn lint(query: &str, place: &str) {
    let selector = Regex::new(r"([a-z_]+\()?sagemaker_executor_[a-z_]+\{([^}]*)\}(\[[^\]]+\])?").unwrap();
    let name = Regex::new("sagemaker_executor_[a-z_]+").unwrap();
    assert_eq!(selector.find_iter(query).count(), name.find_iter(query).count(), "{place}: {query} has a bare metric");
    for found in selector.captures_iter(query) {
        let part = |index: usize| found.get(index).map_or("", |part| part.as_str());
        assert!(part(2).contains("instance=~\"$instance\""), "{place}: {query} is of all hosts");
        match part(1) {
            "rate(" => assert_eq!(part(3), "[$__rate_interval]", "{place}: {query}"),
            "increase(" => assert!(part(3).starts_with('['), "{place}: {query}"),
            _ => assert!(!found[0].contains("_total{") && part(3).is_empty(), "{place}: {query} shows a counter"),
        }
    }
}

/// Prometheus' own parser judges the queries, as those of rules.
fn parse(queries: &[String]) {
    let Some(promtool) = find_program("promtool") else {
        return tell("SKIPPED: the queries of the dashboard: no promtool on PATH");
    };
    let rule = |(number, query): (usize, &String)| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        format!("  - record: query:{number}\n    expr: {}\n", Value::from(query))
    };
    let rules: String = queries.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    let checked = Command::new(promtool).args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_alert_rules_name_metrics_of_the_program() {
    let text = read(ALERTS);
    let document = yaml::documents(&text, ALERTS).remove(0);
    let groups = document["groups"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()) && name.starts_with("SageMakerExecutor"), "{name}");
        check_query(rule["expr"].as_str().unwrap(), name);
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        let says = |key: &str| rule["annotations"][key].is_string();
        assert!(says("summary") && says("description"), "{name}");
        assert!(
            CASES.contains(&format!("alertname: {name}\n        exp_alerts: [{{"))
                || CASES.contains(&format!("alertname: {name}\n        exp_alerts:\n")),
            "{name} is not seen to fire"
        );
    }
    assert!(names.len() > 5, "{names:?}");
    match find_program("promtool") {
        None => tell("SKIPPED: `promtool check rules`: no promtool on PATH"),
        Some(promtool) => {
            let checked = Command::new(promtool).args(["check", "rules"]).arg(root().join(ALERTS)).output().unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let page = read("docs/OPERATING.md");
    let name = Regex::new("`(sagemaker_executor_[a-z_]+)`").unwrap();
    let mut documented = BTreeSet::new();
    for row in rows(&page).iter().filter(|row| row[0].starts_with("`sagemaker_executor_")) {
        for found in name.captures_iter(&row[0]) {
            documented.insert(found[1].to_owned());
            let metric =
                METRICS.iter().find(|metric| metric.name == &found[1]).unwrap_or_else(|| panic!("{}", &found[1]));
            for label in metric.labels {
                assert!(row[1].contains(&format!("`{label}`")), "{}: the label {label} is missing", metric.name);
            }
        }
    }
    assert_eq!(documented, METRICS.iter().map(|metric| metric.name.to_owned()).collect());
    let logrotate = read("runner-config/observability/logrotate");
    assert!(!logrotate.contains("copytruncate\n") && !logrotate.contains("postrotate"), "{logrotate}");
    assert!(page.contains(JOURNALD));
}

/// Judges a file by the schema of the operator's file.
fn is_taken(checker: &Path, file: &Path) -> bool {
    let mut command = Command::new(checker);
    command.args(["--default-filetype", "toml", "--schemafile"]).arg(root().join("docs/operator.schema.json"));
    let ended = command.arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() || text.contains("Schema validation errors"), "{}: {text}", file.display());
    ended.status.success()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    files
}

/// `ALL_SCHEMA=1` judges every broken file; each takes half a second.
#[test]
#[expect(clippy::disallowed_methods, reason = "the size of the suite, which the project's own modules know nothing of")]
fn the_schema_takes_sound_files_and_refuses_broken_ones() {
    let checker = root().join("target/tools/compiler/python/bin/check-jsonschema");
    if !checker.exists() {
        return tell("SKIPPED: the schema of the operator's file: no check-jsonschema; run .ci/compiler");
    }
    let valid = "tests/fixtures/operator-files/valid";
    let mut sound = files(valid);
    sound.push(root().join("runner-config/sagemaker-executor.toml"));
    for file in sound {
        assert!(is_taken(&checker, &file), "{}", file.display());
    }
    let broken = "tests/fixtures/operator-files/invalid";
    let refused =
        ["unknown-key", "unknown-section", "wrong-type", "no-bucket", "rules-unknown-allow-key", "rules-spot-unknown"];
    for name in refused {
        let file = root().join(broken).join(format!("{name}.toml"));
        assert!(!is_taken(&checker, &file), "{name}");
    }
    if std::env::var("ALL_SCHEMA").is_ok() {
        let all = files(broken);
        let taken: Vec<_> =
            all.iter().filter(|file| file.file_stem().unwrap() != "no-toml" && is_taken(&checker, file)).collect();
        assert!(taken.len() <= MOST_TAKEN, "{taken:?}");
    }
}
