//! Rules, files and the earlier model by which a model is judged, from the command line and the manifest.

use std::path::{Path, PathBuf};

use clap::Args;

use super::files;
use super::metrics::{MetricPath, Metrics, MetricsSource};
use super::rule::{RuleTexts, Rules};
use crate::base::failure::Failure;
use crate::lifecycle::manifest::ModelEntry;

const METRICS_HINT: &str = "name files that the job has in `--metrics`, else in `model.metrics` of the manifest; `needs:artifacts` brings those of the training";

#[derive(Debug, Default, Args)]
pub(in crate::lifecycle) struct JudgingArgs {
    /// A bar, as `accuracy>=0.8`; comparisons are >=, >, <=, < and ==. Adds to `model.require` of the manifest
    #[arg(long, value_name = "RULE")]
    pub(in crate::lifecycle) require: Vec<String>,
    /// Files with metrics: JSON, or OpenMetrics. In place of `model.metrics` of the manifest
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(in crate::lifecycle) metrics: Vec<PathBuf>,
    /// Finds a metric in files of JSON, as `f1=$.report.f1`. Adds to `model.metric_paths` of the manifest
    #[arg(long = "metric", value_name = "NAME=JSONPATH")]
    pub(in crate::lifecycle) metric_paths: Vec<String>,
    /// The earlier model to compare with: `approved` is the latest approved version of the group, else the ARN of a version or
    /// a file with metrics. `approved` when absent and there is a limit of a regression
    #[arg(long, value_name = "MODEL")]
    pub(in crate::lifecycle) baseline: Option<String>,
    /// How much a metric may be worse than the earlier model's, as `f1=0.01`; `higher:f1=0.01` or `lower:loss=0.05` where no
    /// rule says which values are better. Adds to `model.max_regression` of the manifest
    #[arg(long, value_name = "LIMIT")]
    pub(in crate::lifecycle) max_regression: Vec<String>,
    /// Fail when the group has no approved version; without this, the first model is compared with its bars alone
    #[arg(long)]
    pub(in crate::lifecycle) baseline_required: bool,
}

impl JudgingArgs {
    pub(super) fn rules(&self, model: &ModelEntry) -> Result<Rules, Failure> {
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

    pub(super) fn paths(&self, model: &ModelEntry) -> Result<Vec<MetricPath>, Failure> {
        let of_manifest =
            model.metric_paths.iter().map(|(name, path)| MetricPath::new(name, path, "`model.metric_paths`"));
        of_manifest.chain(self.metric_paths.iter().map(|text| MetricPath::parse(text))).collect()
    }

    /// Paths of the manifest are relative to its folder.
    pub(in crate::lifecycle) fn metrics_files(&self, model: &ModelEntry, folder: &Path) -> Vec<PathBuf> {
        if self.metrics.is_empty() {
            model.metrics.iter().map(|file| folder.join(file)).collect()
        } else {
            self.metrics.clone()
        }
    }

    pub(super) fn read_metrics(
        &self,
        model: &ModelEntry,
        folder: &Path,
        paths: &[MetricPath],
    ) -> Result<Metrics, Failure> {
        Metrics::parse(&self.read_sources(model, folder)?, paths)
    }

    pub(super) fn read_sources(&self, model: &ModelEntry, folder: &Path) -> Result<Vec<MetricsSource>, Failure> {
        let files = self.metrics_files(model, folder);
        if files.is_empty() {
            return Err(Failure::user("no file with metrics is named")
                .hint("add `--metrics FILE`, or `model.metrics` to the manifest"));
        }
        files.iter().map(|file| files::read(file, METRICS_HINT)).collect()
    }
}

pub(super) fn nothing_to_judge(why: &str) -> Failure {
    Failure::user(format!("the gate has nothing to judge: {why}"))
        .hint("add `--require 'METRIC>=NUMBER'`, or `model.require` to the manifest")
}
