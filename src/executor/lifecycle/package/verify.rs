//! `sagemaker-executor package verify`: checks packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::metadata::PackageMetadata;
use super::reading::OpenedPackage;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::output::{Data, OutputArgs};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The packages
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A package that is as it was made.
#[derive(Debug, Serialize)]
struct VerifiedPackage {
    file: PathBuf,
    sha256: String,
    metadata: PackageMetadata,
}

impl Data for VerifiedPackage {
    fn text(&self) -> String {
        let PackageMetadata { name, commit, model, files, .. } = &self.metadata;
        format!(
            "{name}: every file is as it was packed\n  sha256  {}\n  commit  {}\n  model   {}\n  image   {}\n  files   {}\n",
            self.sha256,
            commit.id,
            model.archive.sha256,
            plain::line(&model.image, 300),
            files.len()
        )
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        variables(&self.file, &self.sha256, &self.metadata.name)
    }
}

/// The packages that were checked.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Verified {
    One(Box<VerifiedPackage>),
    Several(Vec<VerifiedPackage>),
}

impl Data for Verified {
    fn text(&self) -> String {
        match self {
            Self::One(package) => package.text(),
            Self::Several(packages) => packages.iter().map(Data::text).collect(),
        }
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        match self {
            Self::One(package) => package.variables(),
            Self::Several(_) => BTreeMap::new(),
        }
    }
}

/// Variables of a package for later jobs.
pub(super) fn variables(file: &Path, sha256: &str, name: &str) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("PACKAGE_FILE", file.display().to_string()),
        ("PACKAGE_SHA256", sha256.to_owned()),
        ("PACKAGE_NAME", name.to_owned()),
    ])
}

pub(super) async fn run(inputs: &CommandInputs, args: VerifyArgs) -> anyhow::Result<()> {
    args.output.check(&args.files)?;
    if args.files.len() > 1 && args.output.dotenv.is_some() {
        let failure = Failure::user("`--dotenv` holds the variables of one package, and several are named");
        return Err(failure.hint("name one package, or leave out `--dotenv`").into());
    }
    let files = args.files;
    let verified =
        tokio::task::spawn_blocking(move || files.into_iter().map(verified).collect::<anyhow::Result<Vec<_>>>());
    let mut verified = verified.await.context("failed to read the packages")??;
    let verified = match verified.pop() {
        Some(package) if verified.is_empty() => Verified::One(Box::new(package)),
        last => Verified::Several(verified.into_iter().chain(last).collect()),
    };
    args.output.leave(&verified, &inputs.printer)
}

fn verified(file: PathBuf) -> anyhow::Result<VerifiedPackage> {
    let mut package = OpenedPackage::open(&file)?;
    package.verify()?;
    Ok(VerifiedPackage { file, sha256: package.sha256, metadata: package.metadata })
}
