//! The stages of one job, called in the runner's order.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use super::place::Place;
use super::scripts;
use super::shared::{QUIET, go_on, write};
use crate::base::failure::{ExitCodes, Failure};
use crate::base::signals::Cancellation;
use crate::config::env::{self, Environment};
use crate::ui::Printer;

pub(super) struct Stages<'a> {
    pub(super) place: &'a Place,
    pub(super) command: &'a str,
    pub(super) env: &'a Environment,
    /// Access key and secret of the emulator; `None` when the stages work with a real account.
    pub(super) credentials: Option<&'a (String, String)>,
    pub(super) cancellation: &'a Cancellation,
}

/// The environment that `config` wants for the later calls.
type JobEnv = BTreeMap<String, String>;

/// The part of `config`'s answer that matters here: a try has one job, whose directories are known.
#[derive(Deserialize)]
struct Answer {
    job_env: JobEnv,
}

#[derive(Debug, Clone, Copy)]
enum StageEnd {
    Passed,
    /// The script left with this code.
    Script(i32),
    /// The job asks for something impossible.
    User,
    System,
}

impl Stages<'_> {
    /// Runs the job, cleanup included, and returns the exit code of its command.
    pub(super) async fn all(&self, printer: &Printer) -> anyhow::Result<i32> {
        let result = self.until_cleanup().await;
        if self.credentials.is_some() && self.cancellation.at_once() {
            // All of it goes with the emulator.
            return result;
        }
        if !self.call(&["cleanup"], None).await?.success() {
            printer.warn("the cleanup failed; the lines above say what is left");
        }
        result
    }

    async fn until_cleanup(&self) -> anyhow::Result<i32> {
        let job_env = self.config().await?;
        let prepared = self.call(&["prepare"], Some(&job_env)).await?;
        must("prepare", self.end_of(prepared))?;
        for (stage, script) in
            [("prepare_script", scripts::nothing()), ("get_sources", scripts::get_sources(self.place))]
        {
            go_on(self.cancellation)?;
            let end = self.stage(stage, &script, &job_env).await?;
            must(stage, end)?;
        }
        go_on(self.cancellation)?;
        let built = self.stage("build_script", &scripts::build(self.place, self.command), &job_env).await?;
        let ended = matches!(built, StageEnd::Passed | StageEnd::Script(_));
        if ended || self.cancellation.asked() && !self.cancellation.at_once() {
            self.bring_back(&job_env).await?;
        }
        let ended = "the job ended before its command did; the lines above say why";
        match built {
            StageEnd::Passed => Ok(0),
            StageEnd::Script(code) => Ok(code),
            StageEnd::User => Err(Failure::user(ended).into()),
            StageEnd::System => Err(Failure::system(ended).into()),
        }
    }

    /// Fetches the results and copies the new and changed files into the current directory.
    async fn bring_back(&self, job_env: &JobEnv) -> anyhow::Result<()> {
        let stage = "upload_artifacts_on_success";
        match self.stage(stage, &scripts::upload(self.place), job_env).await? {
            StageEnd::Passed => Ok(()),
            // The script has copied part of them; the lines above name the files.
            StageEnd::Script(_) if self.place.changed().exists() => {
                self.place.keep.set(true);
                Err(Failure::system("failed to copy the files that the command made into the current directory")
                    .hint(format!("they are in {}", self.place.project().display()))
                    .into())
            }
            end => must(stage, end),
        }
    }

    /// Calls `config` and reads the environment of the other stages out of its answer.
    async fn config(&self) -> anyhow::Result<JobEnv> {
        let mut command = self.command(&["config"], None);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().await?;
        must("config", self.end_of(output.status))?;
        let answer: Answer = serde_json::from_slice(&output.stdout).context("failed to understand `config`")?;
        Ok(answer.job_env)
    }

    async fn stage(&self, stage: &str, script: &str, job_env: &JobEnv) -> anyhow::Result<StageEnd> {
        let path = self.place.root.join("script");
        write(&path, script)?;
        let path = path.display().to_string();
        Ok(self.end_of(self.call(&["run", &path, stage], Some(job_env)).await?))
    }

    fn end_of(&self, status: ExitStatus) -> StageEnd {
        match status.code() {
            Some(0) => StageEnd::Passed,
            Some(code) if code == i32::from(ExitCodes::default().build_failure) => {
                let text = std::fs::read_to_string(&self.place.exit_code).ok();
                text.and_then(|text| text.trim().parse().ok()).map_or(StageEnd::User, StageEnd::Script)
            }
            _ => StageEnd::System,
        }
    }

    /// Runs one driver process; a signal to us is passed on, as the runner does.
    async fn call(&self, arguments: &[&str], job_env: Option<&JobEnv>) -> anyhow::Result<ExitStatus> {
        let mut child = self.command(arguments, job_env).spawn().context("failed to start a stage")?;
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        loop {
            tokio::select! {
                status = child.wait() => return status.context("failed to wait for a stage"),
                () = self.cancellation.changed() => {
                    if let Some(pid) = pid {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                }
            }
        }
    }

    fn command(&self, arguments: &[&str], job_env: Option<&JobEnv>) -> Command {
        let project = self.place.project();
        let mut command = Command::new("/proc/self/exe");
        command.arg("--config").arg(&self.place.operator_file).args(arguments);
        // A job environment of its own: nothing of a GitLab job that this may run in.
        command.env_clear().envs(self.env.for_host_scripts());
        if let Some((key, secret)) = self.credentials {
            command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        } else {
            command.envs(self.env.all().filter(|(name, _)| name.starts_with("AWS_")));
        }
        command
            .env(env::LOG, self.env.get(env::LOG).unwrap_or(QUIET))
            .env(env::TRY, "1")
            .env("JOB_RESPONSE_FILE", &self.place.payload)
            .env("BUILD_EXIT_CODE_FILE", &self.place.exit_code)
            .env("BUILD_FAILURE_EXIT_CODE", ExitCodes::default().build_failure.to_string())
            .env("SYSTEM_FAILURE_EXIT_CODE", ExitCodes::default().system_failure.to_string())
            .env("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", format!("{}.tmp", project.display()))
            .envs(job_env.into_iter().flatten())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

fn must(stage: &str, end: StageEnd) -> anyhow::Result<()> {
    let failed = format!("the stage `{stage}` failed; the lines above say why");
    match end {
        StageEnd::Passed => Ok(()),
        StageEnd::User if stage == "prepare" => Err(Failure::user(failed)
            .hint("`--instance-type` stands for the variable `SAGEMAKER_INSTANCE_TYPE` of a job, and `--image` for its `image:`")
            .into()),
        StageEnd::Script(_) | StageEnd::User => Err(Failure::user(failed).into()),
        StageEnd::System => Err(Failure::system(failed).into()),
    }
}
