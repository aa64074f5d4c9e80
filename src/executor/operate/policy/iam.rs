//! `sagemaker-executor policy iam`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::config::settings::Settings;
use crate::iam;
use crate::ui::Printer;

#[derive(Debug, Args)]
pub(super) struct IamArgs {
    /// Write each policy into a file of this directory instead, and replace the files that are there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &IamArgs, settings: &Settings, printer: &Printer) -> anyhow::Result<()> {
    let policies = iam::policies(settings)?;
    let Some(folder) = &args.out else {
        let text = serde_json::to_string_pretty(&policies)?;
        return Ok(printer.write_data(format!("{text}\n").as_bytes())?);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for (name, policy) in &policies {
        let path = folder.join(name);
        std::fs::write(&path, iam::file_text(policy)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
        printer.line(format!("Wrote {}", path.display()));
    }
    Ok(())
}
