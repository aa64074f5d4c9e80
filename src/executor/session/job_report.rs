//! The job's report in JSON, for programs. Pure; `docs/COST.md` has the form.

use std::time::SystemTime;

use serde::Serialize;

use crate::cloud::TrainingJob;
use crate::config::prices::{LIST_DATE, LIST_REGION, PriceSource};
use crate::session::bill::{Bill, EarlierJob};
use crate::session::figures::{JobFigures, ReceivedResults};
use crate::session::idle::IdleTime;

/// The report, at the top of the project.
pub(super) const REPORT_FILE: &str = "sagemaker-report.json";
/// The first bytes of every report, by which an earlier one is known.
pub(super) const REPORT_START: &[u8] = b"{\n  \"schema\": \"sagemaker-executor/report/1\",\n";

/// One training job. Times are in seconds, counts of seconds whole.
#[derive(Debug, Serialize)]
struct JobReport<'a> {
    schema: &'a str,
    /// SageMaker has ended the job, so these are its own figures.
    r#final: bool,
    training_job: ReportedJob<'a>,
    instances: Vec<ReportedInstances<'a>>,
    spot: bool,
    phases: Vec<ReportedPhase>,
    starts: usize,
    waiting_seconds: u64,
    running_seconds: u64,
    billable_seconds: Option<u64>,
    spot_saving_percent: Option<u64>,
    warm_pool_seconds: Option<u64>,
    cost: Option<ReportedCost<'a>>,
    earlier_training_jobs: Vec<ReportedEarlierJob<'a>>,
    total_amount: Option<f64>,
    idle: Option<&'a IdleTime>,
    exit_code: Option<i32>,
    script_cut: Option<&'a str>,
    results: Option<ReceivedResults>,
}

#[derive(Debug, Serialize)]
struct ReportedJob<'a> {
    name: &'a str,
    arn: &'a str,
    region: &'a str,
    status: String,
    failure_reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ReportedInstances<'a> {
    r#type: &'a str,
    count: u32,
}

#[derive(Debug, Serialize)]
struct ReportedPhase {
    status: String,
    started: String,
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct ReportedCost<'a> {
    amount: f64,
    /// Of all instances.
    hourly_price: f64,
    /// `None`: that of the operator's file.
    currency: Option<&'a str>,
    source: PriceSource,
    list_region: Option<&'a str>,
    list_date: Option<&'a str>,
}

/// A training job that was billed before the last one of the session.
#[derive(Debug, Serialize)]
struct ReportedEarlierJob<'a> {
    name: &'a str,
    status: String,
    r#final: bool,
    instances: Vec<ReportedInstances<'a>>,
    billable_seconds: Option<u64>,
    cost: Option<ReportedCost<'a>>,
}

/// The report as a file.
pub(super) fn to_json(
    job: &TrainingJob,
    bill: &Bill,
    idle: Option<&IdleTime>,
    figures: &JobFigures,
) -> serde_json::Result<Vec<u8>> {
    let report = JobReport {
        schema: "sagemaker-executor/report/1",
        r#final: bill.is_final,
        training_job: ReportedJob {
            name: &job.name,
            arn: &job.arn,
            region: &bill.region,
            status: job.secondary.to_string(),
            failure_reason: job.failure_reason.as_deref(),
        },
        instances: instances(bill),
        spot: bill.is_spot,
        phases: phases(bill),
        starts: bill.starts,
        waiting_seconds: bill.waited(),
        running_seconds: bill.ran(),
        billable_seconds: bill.billable,
        spot_saving_percent: bill.saved,
        warm_pool_seconds: bill.pool,
        cost: cost(bill),
        earlier_training_jobs: bill.earlier.iter().map(earlier).collect(),
        total_amount: bill.total_cost(),
        idle,
        exit_code: figures.exit_code,
        script_cut: figures.script_cut.as_deref(),
        results: figures.received,
    };
    let mut text = serde_json::to_vec_pretty(&report)?;
    text.push(b'\n');
    Ok(text)
}

fn instances(bill: &Bill) -> Vec<ReportedInstances<'_>> {
    bill.instances.iter().map(|(name, count)| ReportedInstances { r#type: name, count: *count }).collect()
}

fn earlier(job: &EarlierJob) -> ReportedEarlierJob<'_> {
    let bill = &job.bill;
    ReportedEarlierJob {
        name: &job.name,
        status: job.status.to_string(),
        r#final: bill.is_final,
        instances: instances(bill),
        billable_seconds: bill.billable,
        cost: cost(bill),
    }
}

fn phases(bill: &Bill) -> Vec<ReportedPhase> {
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    let phases = bill.phases.iter().map(|phase| ReportedPhase {
        status: phase.status.to_string(),
        started: time(phase.started),
        seconds: phase.seconds,
    });
    phases.collect()
}

fn cost(bill: &Bill) -> Option<ReportedCost<'static>> {
    let price = bill.price?;
    let listed = |text: &'static str| (price.source == PriceSource::List).then_some(text);
    Some(ReportedCost {
        amount: bill.cost()?,
        hourly_price: price.hourly,
        currency: listed("USD"),
        source: price.source,
        list_region: listed(LIST_REGION),
        list_date: listed(LIST_DATE),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::base::series::Series;
    use crate::cloud::testing::example_job;
    use crate::cloud::{JobStatus, SecondaryStatus, Transition};
    use crate::protocol::measurements::{GpuUse, Measurements};

    fn job(status: JobStatus) -> TrainingJob {
        let second = |second| UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second);
        let transition =
            |(status, at): (&str, u64)| Transition { status: status.into(), started: Some(second(at)), message: None };
        let instances = vec![("ml.m5.xlarge".to_owned(), 2)];
        TrainingJob {
            transitions: [("Starting", 0), ("Downloading", 60), ("Training", 80), ("Completed", 200)]
                .map(transition)
                .to_vec(),
            training_started: Some(second(60)),
            training_seconds: Some(140),
            billable_seconds: Some(140),
            instances,
            ..example_job("gitlab-1-2-abcdef12", status, SecondaryStatus::Completed)
        }
    }

    fn text(job: &TrainingJob, idle: Option<&IdleTime>, figures: &JobFigures) -> String {
        let bill = Bill::of(job, UNIX_EPOCH + Duration::from_secs(1_767_225_901), &BTreeMap::new());
        String::from_utf8(to_json(job, &bill, idle, figures).unwrap()).unwrap()
    }

    /// The form is documented: a change that a reader would notice needs another number in `schema`.
    #[test]
    fn the_form_of_a_report() {
        let received = Some(ReceivedResults { files: 12, bytes: 410 });
        let mut cpu = Series::default();
        cpu.push(1000, 3.0);
        let machine = BTreeMap::from([("cpu".to_owned(), cpu)]);
        let gpu = Some(GpuUse { name: "A10G".to_owned(), samples: 14, idle: vec![7] });
        let idle = IdleTime::of(&Measurements { machine, gpu, ..Measurements::default() });
        let figures = JobFigures { exit_code: Some(0), script_cut: None, received };
        let text = text(&job(JobStatus::Completed), idle.as_ref(), &figures);
        assert!(text.as_bytes().starts_with(REPORT_START));
        insta::assert_snapshot!(text, @r#"
        {
          "schema": "sagemaker-executor/report/1",
          "final": true,
          "training_job": {
            "name": "gitlab-1-2-abcdef12",
            "arn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/gitlab-1-2-abcdef12",
            "region": "eu-west-1",
            "status": "Completed",
            "failure_reason": null
          },
          "instances": [
            {
              "type": "ml.m5.xlarge",
              "count": 2
            }
          ],
          "spot": false,
          "phases": [
            {
              "status": "Starting",
              "started": "2026-01-01T00:00:00Z",
              "seconds": 60
            },
            {
              "status": "Downloading",
              "started": "2026-01-01T00:01:00Z",
              "seconds": 20
            },
            {
              "status": "Training",
              "started": "2026-01-01T00:01:20Z",
              "seconds": 120
            }
          ],
          "starts": 1,
          "waiting_seconds": 60,
          "running_seconds": 140,
          "billable_seconds": 140,
          "spot_saving_percent": null,
          "warm_pool_seconds": null,
          "cost": {
            "amount": 0.01788888888888889,
            "hourly_price": 0.46,
            "currency": "USD",
            "source": "list",
            "list_region": "us-east-1",
            "list_date": "2026-08"
          },
          "earlier_training_jobs": [],
          "total_amount": 0.01788888888888889,
          "idle": {
            "below_percent": 10,
            "measured_seconds": 125,
            "cpu_seconds": 125,
            "gpu_seconds": [
              62
            ]
          },
          "exit_code": 0,
          "script_cut": null,
          "results": {
            "files": 12,
            "bytes": 410
          }
        }
        "#);
    }

    #[test]
    fn an_earlier_job_is_told_with_its_cost() {
        let job = job(JobStatus::Completed);
        let bill = Bill::of(&job, UNIX_EPOCH, &BTreeMap::new());
        let earlier = EarlierJob { name: "first".to_owned(), status: SecondaryStatus::Failed, bill: bill.clone() };
        let text = to_json(&job, &bill.with_earlier(vec![earlier]), None, &JobFigures::default()).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let told = &report["earlier_training_jobs"][0];
        assert_eq!(
            (&told["name"], &told["status"], &told["billable_seconds"]),
            (&"first".into(), &"Failed".into(), &140.into())
        );
        assert_eq!((&told["cost"], &told["instances"]), (&report["cost"], &report["instances"]));
        let both = report["cost"]["amount"].as_f64().unwrap() * 2.0;
        assert!((report["total_amount"].as_f64().unwrap() - both).abs() < 1e-9, "{report}");
    }

    #[test]
    fn what_is_not_known_is_null() {
        let mut job = job(JobStatus::InProgress);
        (job.is_spot, job.training_seconds, job.billable_seconds) = (true, None, None);
        let report: serde_json::Value = serde_json::from_str(&text(&job, None, &JobFigures::default())).unwrap();
        assert_eq!(report["final"], false);
        for name in [
            "billable_seconds",
            "spot_saving_percent",
            "warm_pool_seconds",
            "cost",
            "total_amount",
            "idle",
            "exit_code",
            "results",
        ] {
            assert_eq!(report[name], serde_json::Value::Null, "{name}");
        }
    }
}
