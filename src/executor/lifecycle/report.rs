//! `sagemaker-executor report`: shows reviewers a model: a page, values for GitLab's metrics report, and one note of the merge request.
//!
//! It judges as `gate` does and ends no job by its verdict. The files are written before the note; a note that GitLab refuses is a warning.

mod content;
mod inputs;
mod merge_request;
mod publish;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use self::content::ReportContent;
use self::inputs::ReportFiles;
use self::publish::Publishing;
use super::CommandInputs;
use super::gate::{JudgingArgs, asks_registry};
use super::gitlab::TOKEN_VARIABLE;
use super::identity::IdentityArgs;
use super::output::{self, Data, OutputArgs};
use super::target::TargetArgs;
use super::token_secret::TokenSecretArgs;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::report::{
    LONGEST_NAME, LONGEST_TEXT, MetricRow, ModelReport, ModelVerdict, labels, model_note, model_page, model_values,
    note_marker,
};

/// In place of a verdict.
const NO_METRICS: &str = "No file with metrics is named";

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    judging: ReportJudgingArgs,
    #[command(flatten)]
    files: ReportFiles,
    #[command(flatten)]
    publishing: PublishingArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, Args)]
struct ReportJudgingArgs {
    /// A bar, as for `gate`. Adds to `model.require` of the manifest
    #[arg(long, value_name = "RULE")]
    require: Vec<String>,
    /// Files with metrics, as for `gate`. In place of `model.metrics` of the manifest
    #[arg(long, value_name = "FILE", num_args = 1..)]
    metrics: Vec<PathBuf>,
    /// Finds a metric in files of JSON, as for `gate`. Adds to `model.metric_paths` of the manifest
    #[arg(long = "metric", value_name = "NAME=JSONPATH")]
    metric_paths: Vec<String>,
    /// The earlier model to compare with: `approved` is the latest approved version of the group, else the ARN of a version, a file with
    /// metrics, or `none`. `approved` when absent and the environment has region and account
    #[arg(long, value_name = "MODEL")]
    baseline: Option<String>,
    /// How much a metric may be worse, as for `gate`. Adds to `model.max_regression` of the manifest
    #[arg(long, value_name = "LIMIT")]
    max_regression: Vec<String>,
    /// Most versions of the group whose metrics are shown; with an environment that has region and account
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    history: u8,
}

#[derive(Debug, Args)]
struct PublishingArgs {
    /// Name of the report, of which a merge request has one note; `model.group` when absent
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write the page into this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the values into this file in OpenMetrics format, for `artifacts:reports:metrics`
    #[arg(long, value_name = "FILE")]
    openmetrics: Option<PathBuf>,
    /// Write a note into the merge request, or edit the one of an earlier run
    #[arg(long, visible_alias = "comment")]
    note: bool,
    /// Variable with a project access token for the note: scope `api`, role Reporter
    #[arg(long, value_name = "VARIABLE", default_value = TOKEN_VARIABLE)]
    token_env: String,
    #[command(flatten)]
    secret: TokenSecretArgs,
}

pub async fn run(inputs: &CommandInputs, args: ReportArgs, _: Cancellation) -> anyhow::Result<()> {
    let ReportArgs { target: target_args, judging, files, publishing, identity, output } = args;
    let most = usize::from(judging.history);
    let judging = judging.of_gate();
    let mut target = target_args.load_if_present(inputs)?;
    let model = target.manifest.model.clone().unwrap_or_default();
    let mut read = judging.metrics_files(&model, &target.folder);
    read.push(target_args.manifest);
    read.extend(judging.baseline.as_ref().map(PathBuf::from));
    read.extend(files.named());
    let (html, openmetrics) = (publishing.html.as_deref(), publishing.openmetrics.as_deref());
    output.check_files(&[("--html", html), ("--openmetrics", openmetrics)], &read)?;
    let name = publishing.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| model.group.clone());
    if name.is_empty() {
        return Err(Failure::user("the report has no name")
            .hint("give `--name NAME`, or `model.group` in the manifest")
            .into());
    }
    let figures = files.read()?;
    if asks_registry(&target)
        && let Some(token) = identity.token(inputs, &target)?
    {
        token.work_as(&mut target.access);
    }
    let appraisal = judging.appraise(inputs, &target, most).await?;
    if !appraisal.has_metrics && figures.is_empty() {
        return Err(Failure::user("there is nothing to report: no file with metrics is named")
            .hint("add `--metrics FILE`, or `model.metrics` to the manifest; or name an endpoint's test or a plan")
            .into());
    }
    let content = ReportContent { inputs, target: &target, name: &name, html };
    let report = content.assemble(appraisal, figures);
    if let Some(file) = html {
        output::write("--html", file, &model_page(&report))?;
    }
    if let Some(file) = openmetrics {
        output::write("--openmetrics", file, &model_values(&report))?;
    }
    output.leave(&ReportData::new(&report), &inputs.printer)?;
    if publishing.note {
        let marker = note_marker(&name);
        let pipeline = target.pipeline.id.as_deref().and_then(|id| id.parse().ok());
        let body = model_note(&report, &marker, pipeline);
        let PublishingArgs { token_env, secret, .. } = &publishing;
        let (token_variable, marker, body) = (token_env.as_str(), marker.as_str(), body.as_str());
        let (identity, target) = (&identity, &target);
        let publishing = Publishing { inputs, token_variable, secret, identity, target, marker, body, pipeline };
        publishing.run().await;
    }
    inputs.printer.line(if report.has_metrics {
        format!("The model {}", report.verdict.words())
    } else {
        NO_METRICS.to_owned()
    });
    Ok(())
}

impl ReportJudgingArgs {
    fn of_gate(self) -> JudgingArgs {
        let Self { require, metrics, metric_paths, baseline, max_regression, history: _ } = self;
        JudgingArgs { require, metrics, metric_paths, baseline, max_regression, baseline_required: false }
    }
}

/// The data on stdout.
#[derive(Debug, Serialize)]
struct ReportData<'a> {
    model: &'a str,
    verdict: ModelVerdict,
    comparison: &'a str,
    metrics: &'a [MetricRow],
    left_out: usize,
    #[serde(skip)]
    has_metrics: bool,
}

impl<'a> ReportData<'a> {
    fn new(report: &'a ModelReport) -> Self {
        let ModelReport { title, verdict, comparison, metrics, left_out, has_metrics, .. } = report;
        Self { model: title, verdict: *verdict, comparison, metrics, left_out: *left_out, has_metrics: *has_metrics }
    }
}

impl Data for ReportData<'_> {
    fn text(&self) -> String {
        if !self.has_metrics {
            return NO_METRICS.to_owned();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["Metric", "Value", "Bar", "Earlier", "Change", "Result"]);
        for (row, name) in self.metrics.iter().zip(labels(self.metrics.iter().map(|row| row.name.as_str()))) {
            let or_none = |text: Option<&str>| text.map_or("-".to_owned(), |text| plain::line(text, LONGEST_NAME));
            let bars = row.bars.join("; ");
            table.add_row([
                name,
                or_none(row.value.as_deref()),
                or_none(Some(bars.as_str()).filter(|bars| !bars.is_empty())),
                or_none(row.baseline.as_deref()),
                crate::report::change_words(row.change),
                crate::report::state_words(row.state).to_owned(),
            ]);
        }
        let left_out = if self.left_out > 0 {
            format!("\n{} more metrics are in the files", self.left_out)
        } else {
            String::new()
        };
        format!("{}\n{}{left_out}", plain::line(self.comparison, LONGEST_TEXT), table.trim_fmt())
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let word = match self.verdict {
            ModelVerdict::Passed => "passed",
            ModelVerdict::Failed => "failed",
            ModelVerdict::NotJudged => "not_judged",
        };
        BTreeMap::from([("REPORT_VERDICT", word.to_owned())])
    }
}

#[cfg(test)]
mod tests;
