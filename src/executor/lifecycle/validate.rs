//! `sagemaker-executor validate`: checks the manifest, and with `--connect` the account that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CommandInputs;
use super::connect::{self, CheckRow};
use super::gate;
use super::identity::IdentityArgs;
use super::manifest::{ManifestFinding, ManifestReading, ManifestText, mistakes};
use super::output::{Data, OutputArgs};
use super::target::{ProjectTarget, TargetArgs};
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Compare the manifest with AWS as well: caller, bucket, image, role and quota
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the command found.
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

pub async fn run(inputs: &CommandInputs, args: ValidateArgs, _: Cancellation) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let text = ManifestText::read(&args.target.manifest)?;
    let environments = args.target.environment(inputs).map_or_else(|| text.environments(), |name| vec![name]);
    let (mut findings, mut targets) = (Vec::new(), Vec::new());
    let names = environments.iter().map(|name| Some(name.as_str()));
    for name in names.chain(environments.is_empty().then_some(None)) {
        let ManifestReading { manifest, findings: found } = text.of(name, &inputs.env);
        findings.extend(found);
        let mistakes = manifest.model.iter().flat_map(gate::mistakes);
        findings.extend(mistakes.filter_map(|(key, mistake)| text.finding(key, mistake.message())));
        targets.push(ProjectTarget::of(manifest, name.map(str::to_owned), inputs));
    }
    findings.sort();
    findings.dedup();
    let number = findings.len();
    let lines = findings.iter().map(|finding| text.line(finding)).collect();
    let mut validation =
        Validation { manifest: args.target.manifest.clone(), environments, findings, checks: Vec::new(), lines };
    let mut throttled = None;
    if args.connect && number == 0 {
        for target in &mut targets {
            if let Some(token) = args.identity.token(inputs)? {
                token.work_as(&mut target.access);
            }
            let checks = connect::check(inputs, target).await?;
            throttled = throttled.or(checks.throttled);
            validation.checks.extend(checks.rows);
        }
    }
    if number == 0 {
        inputs.printer.line(format!("The manifest {} has no mistake", args.target.manifest.display()));
    }
    let failed = validation.checks.iter().filter(|row| row.has_failed()).count();
    args.output.leave(&validation, &inputs.printer)?;
    if number > 0 {
        return Err(Failure::user(format!("the manifest has {}", mistakes(number))).into());
    }
    if failed > 0 {
        let checks = if failed == 1 { "check" } else { "checks" };
        return Err(Failure::user(format!("{failed} {checks} failed")).into());
    }
    throttled.map_or(Ok(()), |error| Err(error.into()))
}
