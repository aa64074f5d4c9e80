//! `config`: returns directories, driver name and session id to the runner. Prints one JSON object and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde::Serialize;

use crate::base::failure::Failure;
use crate::config::env;
use crate::session::directories::JobDirectories;
use crate::session::{SessionId, slots};
use crate::stages::Context;

/// The JSON object as GitLab Runner 19 reads it; values of `job_env` must be strings.
#[derive(Serialize)]
struct Answer {
    builds_dir: PathBuf,
    cache_dir: PathBuf,
    /// The project then lies below the runner's token and the job's concurrent id, which `sandbox.builds_dir` does not need.
    builds_dir_is_shared: bool,
    hostname: String,
    driver: Driver,
    job_env: BTreeMap<&'static str, String>,
    /// The shell for which the runner writes the job's scripts; overrides its `config.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<&'static str>,
}

#[derive(Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
}

pub fn run(context: &Context) -> anyhow::Result<()> {
    let job = context.job()?;
    refuse_second_call(context)?;
    let id = SessionId::derive(&job, &attempt(context)?);
    let slot = slots::reserve(&context.settings.runner.state_dir, &id, context.clock.now())?;
    let directories = JobDirectories::new(&context.settings, &job, slot);
    let is_sandboxed = context.is_sandboxed();
    let answer = Answer {
        builds_dir: if is_sandboxed { directories.builds_seen().to_owned() } else { directories.builds() },
        cache_dir: directories.cache(),
        builds_dir_is_shared: !is_sandboxed,
        hostname: hostname(),
        driver: Driver { name: "sagemaker-executor", version: env!("CARGO_PKG_VERSION") },
        job_env: BTreeMap::from([
            (env::SESSION, id.to_string()),
            (env::SLOT, slot.to_string()),
            (env::FOLDER, directories.folder().to_owned()),
        ]),
        shell: shell(&context.settings.runner.shell),
    };
    let text = serde_json::to_string(&answer).context("failed to write the answer")?;
    context.printer.write_data(text.as_bytes()).context("failed to write the answer")
}

/// Refuses a call of `config` in place of another stage: only later stages have the session id that `config` set.
fn refuse_second_call(context: &Context) -> Result<(), Failure> {
    match context.contract.session {
        None => Ok(()),
        Some(_) => Err(Failure::system("the runner calls `config` where it should call another stage").hint(
            "let `prepare_args`, `run_args` and `cleanup_args` in `[runners.custom]` of `config.toml` end in `prepare`, `run` and `cleanup`",
        )),
    }
}

/// Differs between preparation attempts: each has its own temporary directory and time.
fn attempt(context: &Context) -> anyhow::Result<String> {
    let now = context.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}:{}:{}", context.payload_path()?.display(), now.as_nanos(), std::process::id()))
}

/// Name of the shell, as in the runner's configuration.
fn shell(program: &str) -> Option<&'static str> {
    ["bash", "sh"].into_iter().find(|name| program.rsplit('/').next() == Some(name))
}

/// Restricted to safe characters: the runner puts the text in double quotes in a shell script.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).collect()
}
