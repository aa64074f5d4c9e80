//! `sagemaker-executor endpoint test`: sends samples, and checks the answers.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::testing::{TestChanges, TestPlan};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::{OutputArgs, ReportFileArgs};
use crate::lifecycle::target::TargetArgs;

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reports: ReportFileArgs,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Files with samples, or folders of such files. In place of `endpoint.test.samples` of the manifest
    #[arg(long, value_name = "PATH", num_args = 1..)]
    samples: Vec<PathBuf>,
    /// Number of requests: the samples are sent in turn, each at least once. `endpoint.test.requests` when absent
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Requests at once. `endpoint.test.concurrency` when absent, else 1
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Requests that are sent before, and not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    warm_up: u32,
    /// Limit of one answer, with the waits until a container is ready, as `30s`. When absent 60 seconds, 15 minutes for an
    /// asynchronous endpoint, and besides 3 minutes for the container to get ready
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    request_timeout: Option<Duration>,
    /// Limit of the 95th percentile of the time of an answer, in milliseconds. Of this and the manifest's the lower one holds
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_p95_ms: Option<f64>,
    /// Limit of the share of failed requests, from 0 to 1. Of this and the manifest's the lower one holds; 0 without both
    #[arg(long, value_name = "NUMBER", value_parser = share)]
    max_error_rate: Option<f64>,
    /// The configuration that must answer, the `ENDPOINT_CONFIG_NAME` of a deployment: the test fails when another one is in service
    /// before or after it
    #[arg(long, value_name = "NAME")]
    configuration: Option<String>,
}

pub(super) async fn run(inputs: &CommandInputs, args: TestArgs) -> anyhow::Result<()> {
    let TestArgs { target: target_args, load, identity, output, reports } = args;
    let mut target = target_args.load_without_image(inputs)?;
    let changes = load.changes();
    let test = target.manifest.endpoint.as_ref().and_then(|endpoint| endpoint.test.clone()).unwrap_or_default();
    let mut read = changes.paths(&test, &target.folder);
    read.push(target_args.manifest);
    output.check_with(&reports, &read)?;
    let plan = TestPlan::new(&target, &changes)?;
    if let Some(token) = identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    target.check_account(inputs).await?;
    let verdict = plan.run(inputs, &target, None).await?;
    let junit = verdict.junit()?;
    reports.leave(|| junit, || verdict.openmetrics())?;
    output.leave(&verdict, &inputs.printer)?;
    inputs.printer.line(verdict.conclude()?);
    Ok(())
}

impl LoadArgs {
    fn changes(self) -> TestChanges {
        TestChanges {
            within: None,
            samples: self.samples,
            requests: self.requests,
            concurrency: self.concurrency,
            warm_up: Some(self.warm_up),
            request_timeout: self.request_timeout,
            max_p95_ms: self.max_p95_ms,
            max_error_rate: self.max_error_rate,
            configuration: self.configuration,
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is needed".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}
