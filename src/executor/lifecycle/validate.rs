//! `sagemaker-executor validate`: checks the manifest, and with `--connect` the account that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CommandInputs;
use super::manifest::{ManifestFinding, ManifestText, mistakes};
use super::output::{Data, OutputArgs};
use super::target::TargetArgs;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

/// Check the manifest
///
/// Without `--environment` and `CI_ENVIRONMENT_NAME`, every environment is checked.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the command found.
#[derive(Debug, Serialize)]
struct Validation {
    manifest: PathBuf,
    environments: Vec<String>,
    findings: Vec<ManifestFinding>,
    #[serde(skip)]
    lines: Vec<String>,
}

impl Data for Validation {
    fn text(&self) -> String {
        self.lines.join("\n")
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

pub async fn run(inputs: &CommandInputs, args: ValidateArgs, _: Cancellation) -> anyhow::Result<()> {
    let text = ManifestText::read(&args.target.manifest)?;
    let environments = args.target.environment(inputs).map_or_else(|| text.environments(), |name| vec![name]);
    let mut findings = Vec::new();
    let names = environments.iter().map(|name| Some(name.as_str()));
    for name in names.chain(environments.is_empty().then_some(None)) {
        findings.extend(text.manifest(name, &inputs.env).err().unwrap_or_default());
    }
    findings.sort();
    findings.dedup();
    let lines = findings.iter().map(|finding| text.line(finding)).collect();
    let validation = Validation { manifest: args.target.manifest.clone(), environments, findings, lines };
    args.output.leave(&validation, &inputs.printer)?;
    match validation.findings.len() {
        0 => Ok(()),
        number => Err(Failure::user(format!("the manifest has {}", mistakes(number))).into()),
    }
}
