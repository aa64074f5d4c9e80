//! For `report`: a model's metrics beside their bars, those of an earlier model, and those of the versions before. Judges as the gate
//! does, and ends no job.

use futures::{StreamExt as _, TryStreamExt as _};

use super::baseline::{self, Baseline};
use super::decimal::Decimal;
use super::drawn::Drawn;
use super::judge::{self, Earlier, JudgedRule, RuleState};
use super::judging::JudgingArgs;
use super::labels::Selector;
use super::metrics::{MetricPath, Metrics, MetricsSource};
use super::rule::{Direction, RegressionLimit, RuleTexts, Rules};
use crate::base::failure::{self, Kind};
use crate::base::plain;
use crate::cloud::{Approval, ModelRegistry, RegistrationState, VersionSummary};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::manifest::ModelEntry;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::version_arn;
use crate::report::{Better, HistoryPoint, LONGEST_TEXT, MetricChange, MetricRow, MetricState, ModelVerdict};

const MODEL_PACKAGE_ARN: &str = "MODEL_PACKAGE_ARN";
/// Most metrics besides those that rules name. Each is searched in all files, which may have 500000 values.
const MOST_METRICS: usize = 100;
/// Most metrics whose values in earlier versions are looked for.
const MOST_HISTORIES: usize = 20;
/// Most pages of the registry's list.
const MOST_PAGES: usize = 5;
/// Versions whose metrics are read at once.
const AT_ONCE: usize = 4;

/// A model's metrics, judged and compared.
#[derive(Debug)]
pub(crate) struct Appraisal {
    pub(crate) verdict: ModelVerdict,
    /// A sentence about the earlier model, or why there is none.
    pub(crate) comparison: String,
    /// There is a file of metrics.
    pub(crate) has_metrics: bool,
    pub(crate) has_baseline: bool,
    pub(crate) rows: Vec<MetricRow>,
    pub(crate) left_out: usize,
    pub(crate) drawn: Drawn,
}

/// Metrics of a version in the registry.
struct EarlierVersion {
    number: u32,
    is_approved: bool,
    metrics: Metrics,
}

impl JudgingArgs {
    /// Reads metrics, earlier model and at most `most` earlier versions. Without an environment nothing is asked of AWS.
    ///
    /// # Errors
    /// Failures of the user about rules and files; errors of AWS.
    pub(crate) async fn appraise(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        most: usize,
    ) -> anyhow::Result<Appraisal> {
        let model = target.manifest.model.clone().unwrap_or_default();
        let of_manifest = RuleTexts { require: &model.require, max_regression: &model.max_regression };
        let of_arguments = RuleTexts { require: &self.require, max_regression: &self.max_regression };
        let rules = Rules::parse(of_manifest, of_arguments)?;
        let paths = self.paths(&model)?;
        let sources = if self.metrics_files(&model, &target.folder).is_empty() {
            registered(inputs, target).await?
        } else {
            self.read_sources(&model, &target.folder)?
        };
        let metrics = Metrics::parse(&sources, &paths)?;
        let (found, comparison) = self.earlier(inputs, target, &model, &paths).await?;
        let has_baseline = found.is_some();
        let earlier = found.map_or(Earlier::None { is_required: false }, Earlier::Model);
        let judged = if sources.is_empty() { Vec::new() } else { judge::judge(&rules, &metrics, &earlier) };
        let versions =
            if asks_registry(target) { versions(inputs, target, &model, &paths, most).await? } else { Vec::new() };
        let (rows, left_out) = rows(&rules, &judged, &metrics, &earlier, &versions);
        let has_failed = judged.iter().any(|rule| rule.result == RuleState::Failed);
        let verdict = match (judged.is_empty(), has_failed) {
            (true, _) => ModelVerdict::NotJudged,
            (false, true) => ModelVerdict::Failed,
            (false, false) => ModelVerdict::Passed,
        };
        let drawn = Drawn::find(&sources);
        Ok(Appraisal { verdict, comparison, has_metrics: !sources.is_empty(), has_baseline, rows, left_out, drawn })
    }

    /// The metrics of the earlier model, and a sentence about it.
    async fn earlier(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        model: &ModelEntry,
        paths: &[MetricPath],
    ) -> anyhow::Result<(Option<Metrics>, String)> {
        let source = match self.baseline.as_deref() {
            Some("none") => return Ok((None, "Compared with no earlier model, as asked".to_owned())),
            Some(named) => Baseline::of(Some(named), model, false)?,
            None if asks_registry(target) => Some(Baseline::Approved),
            None => None,
        };
        let Some(source) = source else {
            let why = "Compared with no earlier model: no environment with region and account is named";
            return Ok((None, why.to_owned()));
        };
        // A model that is compared with itself passes every limit.
        let own = inputs.env.get(MODEL_PACKAGE_ARN);
        if let Baseline::Version { arn, .. } = &source
            && own == Some(arn.as_str())
        {
            let why = "Compared with no earlier model: `--baseline` names the version of `MODEL_PACKAGE_ARN` itself";
            return Ok((None, why.to_owned()));
        }
        if !matches!(source, Baseline::File(_)) {
            baseline::check_place(inputs, target).await?;
        }
        match source.load(inputs, target, paths, own).await {
            Ok(Some((name, metrics))) => {
                let kind = if source == Baseline::Approved { ", the latest approved version" } else { "" };
                Ok((Some(metrics), format!("Compared with {}{kind}", plain::line(&name, LONGEST_TEXT))))
            }
            Ok(None) => {
                let other = if own.is_some() { "other " } else { "" };
                Ok((None, format!("The group {} has no {other}approved version to compare with", model.group)))
            }
            // A version without usable metrics is no reason to show nothing.
            Err(error) if self.baseline.is_none() && failure::kind_of(&error) == Kind::User => {
                Ok((None, format!("Compared with no earlier model: {}", plain::line(&error.to_string(), LONGEST_TEXT))))
            }
            Err(error) => Err(error),
        }
    }
}

/// The files of metrics of the version in `MODEL_PACKAGE_ARN`, for a project that deploys what another one trains. Empty without one,
/// and when it has none that can be used.
async fn registered(inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<Vec<MetricsSource>> {
    let named = inputs.env.get(MODEL_PACKAGE_ARN).filter(|_| asks_registry(target));
    let Some(arn) = named.filter(|arn| version_arn::check(arn, target).is_ok()) else { return Ok(Vec::new()) };
    baseline::check_place(inputs, target).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let Some(version) = registry.version(arn).await? else { return Ok(Vec::new()) };
    match baseline::stored_metrics(inputs, &target.access, &version, baseline::OTHER_BASELINE).await {
        Err(error) if failure::kind_of(&error) == Kind::User => Ok(Vec::new()),
        found => found,
    }
}

/// Whether the environment says in which registry to look.
pub(crate) fn asks_registry(target: &ProjectTarget) -> bool {
    target.environment.is_some()
        && target.manifest.model.is_some()
        && target.access.region.is_some()
        && target.manifest.target.account.is_some()
}

/// The newest versions with usable metrics, the oldest first. Asks for a few pages, and of each version its files.
async fn versions(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    model: &ModelEntry,
    paths: &[MetricPath],
    most: usize,
) -> anyhow::Result<Vec<EarlierVersion>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    baseline::check_place(inputs, target).await?;
    let own = inputs.env.get(MODEL_PACKAGE_ARN).unwrap_or_default();
    let registry = inputs.connect.registry(&target.access).await?;
    let (mut wanted, mut page) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let found = registry.versions(&model.group, None, page).await?;
        let completed = found.versions.into_iter().filter(|version| version.state == RegistrationState::Completed);
        wanted.extend(completed.filter(|version| version.arn != own));
        page = found.next;
        if page.is_none() || wanted.len() >= most {
            break;
        }
    }
    wanted.truncate(most);
    let read = wanted.into_iter().map(|version| version_metrics(inputs, target, &*registry, version, paths));
    let mut found: Vec<EarlierVersion> =
        futures::stream::iter(read).buffered(AT_ONCE).try_filter_map(async |found| Ok(found)).try_collect().await?;
    found.reverse();
    Ok(found)
}

/// `None` when the version is gone, or has no metrics that can be used.
async fn version_metrics(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    registry: &dyn ModelRegistry,
    summary: VersionSummary,
    paths: &[MetricPath],
) -> anyhow::Result<Option<EarlierVersion>> {
    let Some(version) = registry.version(&summary.arn).await? else { return Ok(None) };
    let read = baseline::stored_metrics(inputs, &target.access, &version, baseline::OTHER_BASELINE).await;
    let metrics = read.and_then(|sources| Ok(Metrics::parse(&sources, paths)?));
    match metrics {
        Ok(metrics) => {
            let is_approved = summary.approval == Approval::Approved;
            Ok(Some(EarlierVersion { number: summary.number, is_approved, metrics }))
        }
        Err(error) if failure::kind_of(&error) == Kind::User => Ok(None),
        Err(error) => Err(error),
    }
}

/// A row for each metric that a rule names, then for the others; and how many are left out.
fn rows(
    rules: &Rules,
    judged: &[JudgedRule],
    metrics: &Metrics,
    earlier: &Earlier,
    versions: &[EarlierVersion],
) -> (Vec<MetricRow>, usize) {
    let mut selectors: Vec<&Selector> = Vec::new();
    for rule in judged {
        if !selectors.contains(&&rule.metric) {
            selectors.push(&rule.metric);
        }
    }
    let others = metrics.selectors();
    let others: Vec<&Selector> = others.iter().filter(|other| !selectors.contains(other)).collect();
    let left_out = others.len().saturating_sub(MOST_METRICS);
    selectors.extend(others.into_iter().take(MOST_METRICS));
    let row = |(at, selector): (usize, &&Selector)| {
        let own: Vec<&JudgedRule> = judged.iter().filter(|rule| rule.metric == **selector).collect();
        let value = metrics.value(selector).ok();
        let baseline = match earlier {
            Earlier::Model(earlier) => earlier.value(selector).ok(),
            Earlier::None { .. } => None,
        };
        let better = direction(rules, selector).or_else(|| crate::report::better(&selector.name));
        MetricRow {
            name: selector.to_string(),
            value: value.map(|value| value.to_string()),
            number: value.map(number),
            bars: bars(rules, selector),
            baseline: baseline.map(|value| value.to_string()),
            change: value.zip(baseline).and_then(|(value, baseline)| change(value, baseline, better)),
            state: state(&own),
            reason: own.iter().filter(|rule| rule.result != RuleState::Passed).find_map(|rule| rule.reason.clone()),
            history: if at < MOST_HISTORIES { history(versions, selector) } else { Vec::new() },
        }
    };
    (selectors.iter().enumerate().map(row).collect(), left_out)
}

fn bars(rules: &Rules, selector: &Selector) -> Vec<String> {
    let requirements = rules.requirements.iter().filter(|rule| rule.metric == *selector);
    let limits = rules.limits.iter().filter(|limit| limit.metric == *selector);
    let requirements = requirements.map(|rule| format!("{} {}", rule.comparison.sign(), rule.bar));
    requirements.chain(limits.map(RegressionLimit::words)).collect()
}

fn state(rules: &[&JudgedRule]) -> MetricState {
    let has = |state| rules.iter().any(|rule| rule.result == state);
    match (has(RuleState::Failed), has(RuleState::Passed), has(RuleState::Skipped)) {
        (true, ..) => MetricState::Failed,
        (false, true, _) => MetricState::Passed,
        (false, false, true) => MetricState::Skipped,
        (false, false, false) => MetricState::Free,
    }
}

fn direction(rules: &Rules, selector: &Selector) -> Option<Better> {
    let limits = rules.limits.iter().filter(|limit| limit.metric == *selector).map(|limit| Some(limit.direction));
    let bars = rules.requirements.iter().filter(|rule| rule.metric == *selector);
    let found = limits.chain(bars.map(|rule| rule.comparison.direction())).flatten().next()?;
    Some(match found {
        Direction::Higher => Better::Higher,
        Direction::Lower => Better::Lower,
    })
}

fn change(value: Decimal, baseline: Decimal, better: Option<Better>) -> Option<MetricChange> {
    let difference = number(value.minus(baseline)?);
    let is_higher = difference > 0.0;
    let is_better = better.filter(|_| difference != 0.0).map(|better| (better == Better::Higher) == is_higher);
    Some(MetricChange { difference, is_better })
}

fn history(versions: &[EarlierVersion], selector: &Selector) -> Vec<HistoryPoint> {
    let point = |version: &EarlierVersion| {
        let value = number(version.metrics.value(selector).ok()?);
        Some(HistoryPoint { version: version.number, value, is_approved: version.is_approved })
    };
    versions.iter().filter_map(point).collect()
}

/// The nearest double.
fn number(value: Decimal) -> f64 {
    value.to_string().parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Metrics {
        Metrics::parse(&[MetricsSource { name: "m.json".to_owned(), bytes: text.as_bytes().to_vec() }], &[]).unwrap()
    }

    fn judged(text: &str, earlier: &str) -> Vec<MetricRow> {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let (require, limits) = (texts(&["f1>=0.7", "loss<2"]), texts(&["f1=0.01"]));
        let rules =
            Rules::parse(RuleTexts { require: &require, max_regression: &limits }, RuleTexts::default()).unwrap();
        let (metrics, earlier) = (metrics(text), Earlier::Model(metrics(earlier)));
        let judged = judge::judge(&rules, &metrics, &earlier);
        rows(&rules, &judged, &metrics, &earlier, &[]).0
    }

    #[test]
    fn metrics_of_rules_come_first_and_have_their_change() {
        let rows = judged(
            r#"{"auc": 0.9, "f1": 0.75, "loss": 1.5, "size": 7}"#,
            r#"{"auc": 0.95, "f1": 0.70, "loss": 1, "size": 7}"#,
        );
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["f1", "loss", "auc", "size"]);
        assert_eq!(rows[0].bars, [">= 0.7", "at most 0.01 below the baseline"]);
        let changes: Vec<_> =
            rows.iter().map(|row| row.change.unwrap()).map(|change| (change.difference, change.is_better)).collect();
        assert_eq!(changes, [(0.05, Some(true)), (0.5, Some(false)), (-0.05, Some(false)), (0.0, None)]);
        let states: Vec<_> = rows.iter().map(|row| row.state).collect();
        assert_eq!(states, [MetricState::Passed, MetricState::Passed, MetricState::Free, MetricState::Free]);
    }

    #[test]
    fn a_metric_without_a_number_has_its_reason() {
        let rows = judged(r#"{"f1": NaN, "loss": 3}"#, r#"{"f1": 0.7}"#);
        assert_eq!((rows[0].value.clone(), rows[0].reason.as_deref()), (None, Some("it is NaN")));
        assert_eq!((rows[1].state, rows[1].reason.as_deref()), (MetricState::Failed, Some("it is 3")));
    }
}
