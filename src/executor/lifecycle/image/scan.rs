//! `sagemaker-executor image scan`: looks for known vulnerabilities in an image, writes GitLab's report, and stops the pipeline at a grave one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::accepted::Accepted;
use super::buildah::find;
use super::findings::{self, Judged, KnownVulnerability, ScanResult, SeverityBar};
use super::spec::UNUSED_PARTS;
use super::{registry_scan, scan_report, trivy};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::{self, Data, OutputArgs};
use crate::lifecycle::region::ImageName;
use crate::lifecycle::target::TargetArgs;

/// Largest file of accepted findings, in bytes.
const LARGEST_ACCEPTED: u64 = 1 << 20;
/// Findings that people are shown; the report has all.
const SHOWN: usize = 50;

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The image by its digest, `REGISTRY/NAME@sha256:...`; that of the variable `IMAGE_URI` when absent
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Lowest severity of a finding that ends the command with exit code 10
    #[arg(long, value_name = "SEVERITY", default_value = "high", ignore_case = true)]
    severity: SeverityBar,
    /// File with findings that are accepted for a time, each with a reason
    #[arg(long, value_name = "FILE")]
    accept: Option<PathBuf>,
    /// Scanner; trivy when `PATH` has it, else ECR
    #[arg(long, value_name = "SCANNER")]
    scanner: Option<ScannerChoice>,
    /// Report for `artifacts:reports:container_scanning`
    #[arg(long, value_name = "FILE", default_value = "gl-container-scanning-report.json")]
    report: PathBuf,
    /// Longest time of the scan, such as `20m`
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A scanner of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScannerChoice {
    /// The program, which pulls the image
    Trivy,
    /// The registry's own scan, which is started and awaited
    Ecr,
}

/// The verdict about an image.
#[derive(Debug, Serialize)]
struct ImageVerdict {
    image: String,
    scanner: &'static str,
    passed: bool,
    severity: &'static str,
    /// All findings that are not accepted, by severity.
    counts: BTreeMap<&'static str, usize>,
    findings: Vec<KnownVulnerability>,
    accepted: Vec<String>,
}

impl Data for ImageVerdict {
    fn text(&self) -> String {
        let counts: Vec<_> = self.counts.iter().rev().map(|(name, number)| format!("{number} {name}")).collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        let mut lines =
            vec![self.image.clone(), format!("  scanner   {}", self.scanner), format!("  findings  {counts}")];
        if !self.accepted.is_empty() {
            lines.push(format!("  accepted  {}", self.accepted.join(", ")));
        }
        lines.extend(self.findings.iter().take(SHOWN).map(|finding| format!("  {}", finding.line())));
        if let Some(more) = self.findings.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            lines.push(format!("  and {more} more, which the report has"));
        }
        lines.join("\n")
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("IMAGE_SCAN_RESULT", if self.passed { "passed" } else { "failed" }.to_owned())])
    }
}

pub(super) async fn run(inputs: &CommandInputs, args: ScanArgs) -> anyhow::Result<()> {
    let read: Vec<_> = args.accept.iter().cloned().chain([args.target.manifest.clone()]).collect();
    args.output.check_files(&[("--report", Some(&args.report))], &read)?;
    let today = humantime::format_rfc3339_seconds(inputs.clock.now()).to_string();
    let today = today.get(..10).unwrap_or_default();
    let accepted = args.accept.as_deref().map(|file| read_accepted(file, today)).transpose()?.unwrap_or_default();
    let uri = args.image.clone().or_else(|| inputs.env.get("IMAGE_URI").map(str::to_owned));
    let uri = uri.ok_or_else(|| {
        Failure::user("no image is named").hint(
            "let the job need the one that built the image, whose dotenv report has `IMAGE_URI`, or give `--image`",
        )
    })?;
    let image = ImageName::parse(&uri).filter(|image| image.digest.starts_with("sha256:")).ok_or_else(|| {
        Failure::user(format!("{} is no image of ECR by its digest", plain::line(&uri, 300)))
            .hint("give `--image ACCOUNT.dkr.ecr.REGION.DOMAIN/REPOSITORY@sha256:...`")
    })?;
    let begun = inputs.clock.now();
    let result = scan(inputs, &args, &image).await?;
    let scanner = result.scanner.name;
    let judged = findings::judge(result.findings.clone(), args.severity.severity(), &accepted);
    let report = scan_report::report(&uri, &result, &judged, (begun, inputs.clock.now()));
    output::write("--report", &args.report, &report)?;
    for id in &judged.unused {
        inputs.printer.warn(format!("no finding has the accepted id {id}: its entry can be removed"));
    }
    let verdict = verdict(&uri, scanner, &args, judged);
    args.output.leave(&verdict, &inputs.printer)?;
    if verdict.passed {
        return Ok(());
    }
    let number = verdict.findings.len();
    let noun = if number == 1 { "a finding" } else { &format!("{number} findings") };
    let message = format!("the image has {noun} of severity {} or above", verdict.severity);
    Err(Failure::verdict(exit_codes::BELOW_BAR, message)
        .hint("build the image with versions that are fixed, or accept a finding for a time with `--accept FILE`")
        .into())
}

fn verdict(uri: &str, scanner: &'static str, args: &ScanArgs, judged: Judged) -> ImageVerdict {
    let counts = findings::counts(judged.stopping.iter().chain(&judged.below));
    ImageVerdict {
        image: plain::line(uri, 300),
        scanner,
        passed: judged.stopping.is_empty(),
        severity: args.severity.severity().word(),
        counts,
        findings: judged.stopping,
        accepted: judged.accepted.iter().map(|(finding, _)| plain::line(&finding.id, 100)).collect(),
    }
}

async fn scan(inputs: &CommandInputs, args: &ScanArgs, image: &ImageName<'_>) -> anyhow::Result<ScanResult> {
    let mut target = args.target.load_without(&UNUSED_PARTS, inputs)?;
    // The registry's region is in the image's name.
    target.access.region = Some(image.region.to_owned());
    if let Some(token) = args.identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    let program = find(inputs.env.path(), "trivy");
    match (args.scanner, program) {
        (Some(ScannerChoice::Trivy), None) => Err(Failure::user("`trivy` is not on the PATH of this job")
            .hint("use an image with trivy, or `--scanner ecr`")
            .into()),
        (Some(ScannerChoice::Trivy) | None, Some(program)) => {
            let login = inputs.connect.tagged_images(&target.access).await?.login().await?;
            trivy::scan(program, &inputs.env, image, &login, args.timeout, &inputs.printer).await
        }
        (Some(ScannerChoice::Ecr), _) | (None, None) => {
            let scans = inputs.connect.image_scans(&target.access).await?;
            registry_scan::scan(&*scans, image, args.timeout, &inputs.printer).await
        }
    }
}

fn read_accepted(file: &Path, today: &str) -> Result<Accepted, Failure> {
    let refused = |why: &str| {
        Failure::user(format!("the file of accepted findings {} {why}", file.display())).hint("change `--accept`")
    };
    let metadata = file.metadata().map_err(|error| refused("cannot be read").caused_by(error))?;
    if !metadata.is_file() || metadata.len() > LARGEST_ACCEPTED {
        return Err(refused("is no file of at most 1 MiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refused("cannot be read").caused_by(error))?;
    Accepted::parse(&file.display().to_string(), &text, today)
}
