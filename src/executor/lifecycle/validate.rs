//! `sagemaker-executor validate`: checks the manifest, and with `--connect` the account that it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::CommandInputs;
use super::connect::{self, CheckRow};
use super::gate;
use super::identity::IdentityArgs;
use super::manifest::{Manifest, ManifestFinding, ManifestReading, ManifestText, ModelEntry, key_below, mistakes};
use super::output::{Data, OutputArgs, OutputForm, ReportFileArgs};
use super::target::TargetArgs;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

const RULE_HINT: &str =
    "has a number that is too large or too long, or a metric whose name cannot be read: write `accuracy>=0.8`";
const LIMIT_HINT: &str = "cannot be used: write `f1=0.01`, and `higher:f1=0.01` or `lower:loss=0.05` where no rule of the metric says which values are better";

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Compare the manifest with AWS as well: caller, bucket, image, role, quota and alarms
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Form of the data on stdout
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: OutputForm,
    /// Write each mistake and each check as a test case into this file, for `artifacts:reports:junit`
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The findings of the command.
#[derive(Debug, Serialize)]
struct Validation {
    manifest: PathBuf,
    environments: Vec<String>,
    findings: Vec<ManifestFinding>,
    checks: Vec<CheckRow>,
    #[serde(skip)]
    lines: Vec<String>,
}

impl Data for Validation {
    fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        if !self.checks.is_empty() {
            text.push_str(&connect::table(&self.checks));
        }
        text
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

impl Validation {
    fn junit(&self) -> anyhow::Result<String> {
        let mut suite = TestSuite::new("validate");
        let mistake = |(finding, line): (&ManifestFinding, &String)| {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(finding.message.as_str()).set_description(line.as_str());
            let key = if finding.key.is_empty() { "the file" } else { finding.key.as_str() };
            let mut case = TestCase::new(key, status);
            case.set_classname("manifest");
            case
        };
        suite.add_test_cases(self.findings.iter().zip(&self.lines).map(mistake));
        if self.findings.is_empty() {
            let mut case = TestCase::new("no mistake", TestCaseStatus::success());
            case.set_classname("manifest");
            suite.add_test_case(case);
        }
        suite.add_test_cases(connect::test_cases(&self.checks));
        let mut report = quick_junit::Report::new("sagemaker-executor");
        report.add_test_suite(suite);
        report.to_string().context("failed to write the test cases as JUnit")
    }
}

/// The mistakes that `validate` alone looks for: each rule that the gate cannot use, and rules without metrics.
fn mistakes_of_rules(model: &ModelEntry) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let base = ModelEntry { require: Vec::new(), max_regression: Vec::new(), ..model.clone() };
    for (number, rule) in model.require.iter().enumerate() {
        let alone = ModelEntry { require: vec![rule.clone()], ..base.clone() };
        if !gate::mistakes(&alone).is_empty() {
            found.push((format!("model.require.{number}"), RULE_HINT.to_owned()));
        }
    }
    // A limit takes its direction from the rules.
    let limits = if found.is_empty() { model.max_regression.as_slice() } else { &[] };
    for (number, limit) in limits.iter().enumerate() {
        let alone = ModelEntry { require: model.require.clone(), max_regression: vec![limit.clone()], ..base.clone() };
        if !gate::mistakes(&alone).is_empty() {
            found.push((format!("model.max_regression.{number}"), LIMIT_HINT.to_owned()));
        }
    }
    if !model.require.is_empty() && model.metrics.is_empty() {
        found.push(("model.require".to_owned(), "needs `metrics` beside it: the files with the values".to_owned()));
    }
    found
}

/// Mistakes that a deployment of this environment would refuse first, after the training: each sample of the endpoint's test that is not below the
/// manifest's folder, and the place of the endpoint.
fn mistakes_of_endpoint(manifest: &Manifest, environment: Option<&str>, folder: &Path) -> Vec<(String, String)> {
    let Some(endpoint) = &manifest.endpoint else { return Vec::new() };
    let samples = endpoint.test.iter().flat_map(|test| &test.samples).enumerate();
    let absent = samples.filter(|(_, sample)| !folder.join(sample).exists());
    let text = "names a file that is not there: commit it, below the manifest's folder";
    let mut found: Vec<_> =
        absent.map(|(number, _)| (format!("endpoint.test.samples.{number}"), text.to_owned())).collect();
    if let Some(name) = environment {
        let given = [("role", &manifest.target.role), ("bucket", &manifest.target.bucket)];
        let missing = given.into_iter().filter(|(_, value)| value.is_none());
        let text =
            |key| format!("has no `{key}`, which its endpoint needs: add it, or remove the endpoint with a `patch`");
        found.extend(missing.map(|(key, _)| (key_below("environments", name), text(key))));
    }
    found
}

pub async fn run(inputs: &CommandInputs, args: ValidateArgs, _: Cancellation) -> anyhow::Result<()> {
    let reports = ReportFileArgs { junit: args.junit.clone(), ..ReportFileArgs::default() };
    let output = OutputArgs { output: args.output, dotenv: None };
    output.check_with(&reports, std::slice::from_ref(&args.target.manifest))?;
    let text = ManifestText::read(&args.target.manifest)?;
    let environments = args.target.environment(inputs).map_or_else(|| text.environments(), |name| vec![name]);
    let (mut findings, mut targets) = (Vec::new(), Vec::new());
    let names = environments.iter().map(|name| Some(name.as_str()));
    for name in names.chain(environments.is_empty().then_some(None)) {
        let ManifestReading { manifest, findings: found } = text.of(name, &inputs.env);
        // A rule that the schema refuses is told once.
        if found.is_empty() {
            let mistakes = manifest.model.iter().flat_map(mistakes_of_rules);
            let of_endpoint =
                mistakes_of_endpoint(&manifest, name, args.target.manifest.parent().unwrap_or(Path::new("")));
            findings.extend(mistakes.chain(of_endpoint).filter_map(|(key, message)| text.finding(&key, &message)));
        }
        findings.extend(found);
        targets.push(args.target.target(manifest, name.map(str::to_owned), inputs));
    }
    findings.extend(text.shared_endpoints(&environments));
    findings.sort();
    findings.dedup();
    let number = findings.len();
    let lines = findings.iter().map(|finding| text.line(finding)).collect();
    let mut validation =
        Validation { manifest: args.target.manifest.clone(), environments, findings, checks: Vec::new(), lines };
    let mut unanswered = None;
    if args.connect && number == 0 {
        for target in &mut targets {
            if let Some(token) = args.identity.token(inputs, target)? {
                token.work_as(&mut target.access);
            }
            let checks = connect::check(inputs, target).await;
            unanswered = unanswered.or(checks.error);
            validation.checks.extend(checks.rows);
        }
    }
    if number == 0 {
        inputs.printer.line(format!("The manifest {} has no mistake", args.target.manifest.display()));
    }
    let junit = validation.junit()?;
    reports.leave(|| junit, String::new)?;
    output.leave(&validation, &inputs.printer)?;
    conclude(&validation, unanswered)
}

fn conclude(validation: &Validation, unanswered: Option<anyhow::Error>) -> anyhow::Result<()> {
    let number = validation.findings.len();
    if number > 0 {
        return Err(Failure::user(format!("the manifest has {}", mistakes(number))).into());
    }
    let failed = validation.checks.iter().filter(|row| row.has_failed()).count();
    if failed > 0 {
        let checks = if failed == 1 { "check" } else { "checks" };
        return Err(Failure::user(format!("{failed} {checks} failed")).into());
    }
    unanswered.map_or(Ok(()), Err)
}
