//! `sagemaker-executor gate`: compares a model's metrics with their bars and with those of an earlier model.

mod baseline;
mod decimal;
mod evidence;
mod files;
mod json;
mod judge;
mod key_path;
mod labels;
mod metrics;
mod open_metrics;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use self::baseline::Baseline;
use self::evidence::GateVerdict;
use self::judge::Earlier;
pub(super) use self::metrics::MetricsSource;
use self::metrics::{MetricPath, Metrics};
use self::rule::{RuleTexts, Rules};
use super::CommandInputs;
use super::identity::IdentityArgs;
use super::manifest::ModelEntry;
use super::output::{OutputArgs, ReportFileArgs};
use super::target::TargetArgs;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

const METRICS_HINT: &str = "name files that the job has in `--metrics`, else in `model.metrics` of the manifest; `needs:artifacts` brings those of the training";

#[derive(Debug, Args)]
pub struct GateArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    judging: JudgingArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reports: ReportFileArgs,
}

#[derive(Debug, Default, Args)]
struct JudgingArgs {
    /// A bar, as `accuracy>=0.8`; comparisons are >=, >, <=, < and ==. Adds to `model.require` of the manifest
    #[arg(long, value_name = "RULE")]
    require: Vec<String>,
    /// Files with metrics: JSON, or OpenMetrics. In place of `model.metrics` of the manifest
    #[arg(long, value_name = "FILE", num_args = 1..)]
    metrics: Vec<PathBuf>,
    /// Finds a metric in files of JSON, as `f1=$.report.f1`. Adds to `model.metric_paths` of the manifest
    #[arg(long = "metric", value_name = "NAME=JSONPATH")]
    metric_paths: Vec<String>,
    /// The earlier model to compare with: `approved` is the latest approved version of the group, else the ARN of a version or
    /// a file with metrics. `approved` when absent and there is a limit of a regression
    #[arg(long, value_name = "MODEL")]
    baseline: Option<String>,
    /// How much a metric may be worse than the earlier model's, as `f1=0.01`; `higher:f1=0.01` or `lower:loss=0.05` where no
    /// rule says which values are better. Adds to `model.max_regression` of the manifest
    #[arg(long, value_name = "LIMIT")]
    max_regression: Vec<String>,
    /// Fail when the group has no approved version; without this, the first model is compared with its bars alone
    #[arg(long)]
    baseline_required: bool,
}

pub async fn run(inputs: &CommandInputs, args: GateArgs, _: Cancellation) -> anyhow::Result<()> {
    let GateArgs { target, judging, identity, output, reports } = args;
    let manifest = target.manifest.clone();
    let mut target = target.load_if_present(inputs)?;
    let model = target.manifest.model.clone().unwrap_or_default();
    let source = Baseline::of(judging.baseline.as_deref(), &model, !judging.max_regression.is_empty())?;
    let mut read = judging.metrics_files(&model, &target.folder);
    read.push(manifest);
    if let Some(Baseline::File(file)) = &source {
        read.push(file.clone());
    }
    output.check_with(&reports, &read)?;
    let rules = judging.rules(&model)?;
    let paths = judging.paths(&model)?;
    let metrics = judging.read_metrics(&model, &target.folder, &paths)?;
    if matches!(source, Some(Baseline::Approved | Baseline::Version { .. }))
        && let Some(token) = identity.token(inputs)?
    {
        token.work_as(&mut target.access);
    }
    let baseline = match &source {
        Some(source) => source.load(inputs, &target, &paths).await?,
        None => None,
    };
    let (name, earlier) = match baseline {
        Some((name, metrics)) => (Some(name), Earlier::Model(metrics)),
        None => (None, Earlier::None { is_required: judging.baseline_required }),
    };
    if source.is_some() && name.is_none() {
        inputs.printer.line(format!("The group {} has no approved version to compare with", model.group));
        if rules.requirements.is_empty() && !judging.baseline_required {
            return Err(nothing_to_judge("the first model of a group has nothing to be compared with").into());
        }
    }
    let verdict = GateVerdict::new(judge::judge(&rules, &metrics, &earlier), &metrics, name);
    let junit = verdict.junit()?;
    reports.leave(|| junit, || verdict.openmetrics())?;
    output.leave(&verdict, &inputs.printer)?;
    inputs.printer.line(verdict.conclude()?);
    Ok(())
}

/// The mistakes in the rules of a manifest, with their keys.
pub(crate) fn mistakes(model: &ModelEntry) -> Vec<(&'static str, Failure)> {
    let bars = RuleTexts { require: &model.require, ..RuleTexts::default() };
    if let Err(mistake) = Rules::parse(bars, RuleTexts::default()) {
        return vec![("model.require", mistake)];
    }
    let limits = RuleTexts { max_regression: &model.max_regression, ..bars };
    let mistake = Rules::parse(limits, RuleTexts::default()).err();
    mistake.into_iter().map(|mistake| ("model.max_regression", mistake)).collect()
}

/// For `model register`: refuses a model that does not reach the bars of the manifest. Without bars every model may be registered.
///
/// # Errors
/// The verdict, with the first rule that does not hold; failures of the user about a rule or a file.
pub(super) fn check_bars(model: &ModelEntry, files: &[MetricsSource]) -> Result<(), Failure> {
    let judging = JudgingArgs::default();
    let rules = Rules::parse(RuleTexts { require: &model.require, max_regression: &[] }, RuleTexts::default())?;
    let metrics = Metrics::parse(files, &judging.paths(model)?)?;
    let judged = judge::judge(&rules, &metrics, &Earlier::None { is_required: false });
    GateVerdict::new(judged, &metrics, None).conclude().map(|_| ())
}

/// For `package`: the numbers in the files of metrics, by their names.
///
/// # Errors
/// Failures of the user: a file has none of the forms.
pub(super) fn numbers(model: &ModelEntry, files: &[MetricsSource]) -> Result<BTreeMap<String, String>, Failure> {
    Ok(Metrics::parse(files, &JudgingArgs::default().paths(model)?)?.numbers())
}

impl JudgingArgs {
    fn rules(&self, model: &ModelEntry) -> Result<Rules, Failure> {
        let of_manifest = RuleTexts { require: &model.require, max_regression: &model.max_regression };
        let of_arguments = RuleTexts { require: &self.require, max_regression: &self.max_regression };
        let rules = Rules::parse(of_manifest, of_arguments)?;
        if rules.is_empty() {
            return Err(nothing_to_judge("there is no rule"));
        }
        if self.baseline.is_some() && rules.limits.is_empty() {
            return Err(Failure::user("`--baseline` has no effect: no limit of a regression is set")
                .hint("add `--max-regression METRIC=NUMBER`, or `model.max_regression` to the manifest"));
        }
        Ok(rules)
    }

    fn paths(&self, model: &ModelEntry) -> Result<Vec<MetricPath>, Failure> {
        let of_manifest =
            model.metric_paths.iter().map(|(name, path)| MetricPath::new(name, path, "`model.metric_paths`"));
        of_manifest.chain(self.metric_paths.iter().map(|text| MetricPath::parse(text))).collect()
    }

    /// Paths of the manifest are relative to its folder.
    fn metrics_files(&self, model: &ModelEntry, folder: &Path) -> Vec<PathBuf> {
        if self.metrics.is_empty() {
            model.metrics.iter().map(|file| folder.join(file)).collect()
        } else {
            self.metrics.clone()
        }
    }

    fn read_metrics(&self, model: &ModelEntry, folder: &Path, paths: &[MetricPath]) -> Result<Metrics, Failure> {
        let files = self.metrics_files(model, folder);
        if files.is_empty() {
            return Err(Failure::user("no file with metrics is named")
                .hint("add `--metrics FILE`, or `model.metrics` to the manifest"));
        }
        let sources = files.iter().map(|file| files::read(file, METRICS_HINT)).collect::<Result<Vec<_>, _>>()?;
        Metrics::parse(&sources, paths)
    }
}

fn nothing_to_judge(why: &str) -> Failure {
    Failure::user(format!("the gate has nothing to judge: {why}"))
        .hint("add `--require 'METRIC>=NUMBER'`, or `model.require` to the manifest")
}
