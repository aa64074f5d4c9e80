//! `sagemaker-executor gate`: compares a model's metrics with their bars and with those of an earlier model.

mod appraisal;
mod baseline;
mod decimal;
mod drawn;
mod evidence;
mod files;
mod json;
mod judge;
mod judging;
mod key_path;
mod labels;
mod metrics;
mod open_metrics;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use clap::Args;

pub(super) use self::appraisal::{Appraisal, asks_registry};
use self::baseline::Baseline;
pub(super) use self::baseline::stored_metrics;
use self::evidence::GateVerdict;
pub(super) use self::files::bytes as file_bytes;
use self::judge::Earlier;
pub(super) use self::judging::JudgingArgs;
use self::judging::nothing_to_judge;
use self::metrics::Metrics;
pub(super) use self::metrics::MetricsSource;
use self::rule::{RuleTexts, Rules};
use super::CommandInputs;
use super::identity::IdentityArgs;
use super::manifest::ModelEntry;
use super::output::{OutputArgs, ReportFileArgs};
use super::target::TargetArgs;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

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
        && let Some(token) = identity.token(inputs, &target)?
    {
        token.work_as(&mut target.access);
    }
    let baseline = match &source {
        Some(source) => source.load(inputs, &target, &paths, None).await?,
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
