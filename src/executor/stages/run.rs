//! `run SCRIPT STAGE`: a build stage on the host or in the training job.

mod container_stage;
mod host_stage;

use std::path::Path;

use crate::base::failure::Failure;
use crate::gitlab::{BuildStage, Placement};
use crate::session::record::Records;
use crate::stages::Context;

pub async fn run(context: Context, script: &Path, stage: &str) -> anyhow::Result<()> {
    let job = context.job()?;
    if script.extension().is_some_and(|ending| ending == "ps1") {
        return Err(Failure::system(
            "GitLab Runner writes the job's scripts for PowerShell, and they run in a POSIX shell",
        )
        .hint("set `shell = \"bash\"` in `[[runners]]` of the runner's `config.toml`")
        .into());
    }
    let id = context.session(&job)?;
    let stage = BuildStage::parse(stage);
    let _hold = Records::at(&context.settings.runner.state_dir).hold(&id, &context.clock).await;
    match stage.placement() {
        Placement::Host => Box::pin(host_stage::run(&context, &job, &id, script, &stage)).await,
        Placement::Container => Box::pin(container_stage::run(&context, &job, id, script, &stage)).await,
    }
}
