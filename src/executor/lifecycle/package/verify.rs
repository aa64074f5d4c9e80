//! `sagemaker-executor package verify`: checks a package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::metadata::PackageMetadata;
use super::reading::OpenedPackage;
use crate::base::plain;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::output::{Data, OutputArgs};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The package
    file: PathBuf,
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

/// Variables of a package for later jobs.
pub(super) fn variables(file: &Path, sha256: &str, name: &str) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("PACKAGE_FILE", file.display().to_string()),
        ("PACKAGE_SHA256", sha256.to_owned()),
        ("PACKAGE_NAME", name.to_owned()),
    ])
}

pub(super) async fn run(inputs: &CommandInputs, args: VerifyArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.file))?;
    let file = args.file.clone();
    let verified = tokio::task::spawn_blocking(move || {
        let mut package = OpenedPackage::open(&file)?;
        package.verify()?;
        anyhow::Ok(VerifiedPackage { file, sha256: package.sha256, metadata: package.metadata })
    });
    let verified = verified.await.context("failed to read the package")??;
    args.output.leave(&verified, &inputs.printer)
}
