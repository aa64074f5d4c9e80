//! `sagemaker-executor try`: the current directory and one command go through all stages, as GitLab Runner would call
//! them, on the embedded emulator or on a real account.
//!
//! The stages run as child processes of this same binary: what is seen here is what a runner would see.

mod payload;
mod place;
mod scripts;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::base::failure::{ExitCodes, Failure};
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::config::env::Environment;
use crate::ui::{self, Printer};
use place::Place;

/// The emulator is ready within this time, or something is wrong.
const EMULATOR_READY: Duration = Duration::from_secs(20);
const BUCKET: &str = "try";

#[derive(Debug, Args)]
pub struct TryArgs {
    /// The training image; with the emulator, a root directory or `host` for this machine's own root
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The instance type
    #[arg(long, value_name = "TYPE", default_value = "ml.m5.large")]
    instance_type: String,
    /// Use the account and settings of the operator's file instead of the emulator
    #[arg(long)]
    aws: bool,
    /// Keep the working folder, and say where it is
    #[arg(long)]
    keep: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What `try` needs of the emulator that is built into this binary, besides the command `emulator`.
#[derive(Debug, Clone, Copy)]
pub struct LocalEmulator {
    /// Removes a directory with all that containers left in it.
    pub discard: fn(&Path) -> anyhow::Result<()>,
}

pub async fn run(
    args: TryArgs,
    config: PathBuf,
    env: &Environment,
    local: Option<LocalEmulator>,
    printer: &Printer,
) -> ExitCode {
    let work = async |cancellation| attempt(&args, &config, env, local, printer, &cancellation).await;
    boundary::command(printer, work).await
}

async fn attempt(
    args: &TryArgs,
    config: &Path,
    env: &Environment,
    local: Option<LocalEmulator>,
    printer: &Printer,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    if local.is_none() && !args.aws {
        return Err(Failure::system("this build of sagemaker-executor has no emulator")
            .hint("use `--aws`, or build with the feature `emulator`")
            .into());
    }
    let folder =
        tempfile::Builder::new().prefix("sagemaker-executor-try-").tempdir().context("failed to make a folder")?;
    let mut result = in_folder(args, config, env, printer, folder.path(), cancellation).await;
    if cancellation.asked() {
        result = Err(Failure::canceled("the try was interrupted").into());
    }
    if args.keep {
        printer.line(format!("Kept: {}", folder.keep().display()));
    } else if let Some(LocalEmulator { discard }) = local {
        // Containers leave directories that only root could remove as they are.
        discard(folder.path())?;
    }
    result
}

async fn in_folder(
    args: &TryArgs,
    config: &Path,
    env: &Environment,
    printer: &Printer,
    root: &Path,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    let place = Place {
        root: root.to_owned(),
        operator_file: root.join("sagemaker-executor.toml"),
        payload: root.join("response.json"),
        exit_code: root.join("build_exit_code"),
        origin: std::env::current_dir().context("failed to find the current directory")?,
    };
    let emulator = if args.aws { None } else { Some(Emulator::start(args, root).await?) };
    write(&place.operator_file, &operator_file(args, config, &place, emulator.as_ref())?)?;
    write(&place.payload, &payload::payload(args.image.as_deref(), &place, &args.command)?)?;
    let started = Instant::now();
    let outcome = Stages { place: &place, args, env, emulator: emulator.as_ref(), cancellation }.all(printer).await;
    if let Some(emulator) = emulator {
        emulator.stop().await;
    }
    let outcome = outcome?;
    printer.line(format!("Exit code {}, {} in all", outcome.code, ui::human_duration(started.elapsed())));
    if outcome.code == 0 { Ok(()) } else { Err(Failure::script(outcome.code).into()) }
}

/// The operator's file of the try: its own folders, and either the emulator or the real file's account.
fn operator_file(args: &TryArgs, config: &Path, place: &Place, emulator: Option<&Emulator>) -> anyhow::Result<String> {
    let mut table: toml::Table = if let Some(emulator) = emulator {
        toml::from_str(&format!(
            "[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\n[storage]\nbucket = \"{BUCKET}\"\n\
         [job]\nrole_arn = \"arn:aws:iam::000000000000:role/try\"\nimage = \"host\"\n",
            emulator.endpoint
        ))?
    } else {
        let text = std::fs::read_to_string(config).map_err(|error| {
            Failure::system(format!("failed to read the operator's file {}", config.display()))
                .hint("`--aws` needs one: name it with `--config`")
                .caused_by(error)
        })?;
        toml::from_str(&text).context("failed to understand the operator's file")?
    };
    let section = |table: &mut toml::Table, name: &str, key: &str, value: toml::Value| {
        let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
        if let Some(section) = entry.as_table_mut() {
            section.insert(key.to_owned(), value);
        }
    };
    for (key, folder) in [("builds_dir", "builds"), ("cache_dir", "cache"), ("state_dir", "state")] {
        section(&mut table, "runner", key, place.root.join(folder).display().to_string().into());
    }
    section(&mut table, "job", "instance_type", args.instance_type.clone().into());
    toml::to_string(&table).context("failed to write the operator's file")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The calls of one job, in the runner's order.
struct Stages<'a> {
    place: &'a Place,
    args: &'a TryArgs,
    env: &'a Environment,
    emulator: Option<&'a Emulator>,
    cancellation: &'a Cancellation,
}

struct Outcome {
    code: i32,
}

impl Stages<'_> {
    async fn all(&self, printer: &Printer) -> anyhow::Result<Outcome> {
        let result = self.until_after_script(printer).await;
        if !self.call(&["cleanup"], None).await?.success() {
            printer.warn("The cleanup failed; the lines above say what is left");
        }
        result
    }

    async fn until_after_script(&self, printer: &Printer) -> anyhow::Result<Outcome> {
        let job_env = self.config().await?;
        self.must(&["prepare"], &job_env, "prepare").await?;
        for (stage, script) in
            [("prepare_script", scripts::nothing()), ("get_sources", scripts::get_sources(self.place))]
        {
            self.stage(stage, &script, &job_env).await?.ok_or(stage)?;
        }
        let script = scripts::build(self.place, &self.args.command)?;
        let built = self.stage("build_script", &script, &job_env).await?;
        let code = match built {
            StageEnd::Passed => 0,
            StageEnd::Failed(code) => code,
            StageEnd::System => {
                anyhow::bail!(Failure::system("the job did not reach its end; the lines above say why"))
            }
        };
        let upload = scripts::upload(self.place);
        self.stage("upload_artifacts_on_success", &upload, &job_env).await?.ok_or("upload_artifacts")?;
        if code == 0 {
            printer.line("The job succeeded");
        } else {
            printer.line("The job failed");
        }
        Ok(Outcome { code })
    }

    /// Calls `config` and reads the environment of the other stages out of its answer.
    async fn config(&self) -> anyhow::Result<JobEnv> {
        let mut command = self.command(&["config"], None);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().await?;
        if !output.status.success() {
            anyhow::bail!(Failure::system("the stage `config` failed; the lines above say why"));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout).context("failed to understand `config`")?;
        Ok(answer.job_env)
    }

    async fn stage(&self, stage: &str, script: &str, job_env: &JobEnv) -> anyhow::Result<StageEnd> {
        let path = self.place.root.join("script");
        write(&path, script)?;
        let path = path.display().to_string();
        let status = self.call(&["run", &path, stage], Some(job_env)).await?;
        Ok(match status.code() {
            Some(0) => StageEnd::Passed,
            Some(code) if code == i32::from(ExitCodes::default().build_failure) => {
                let code =
                    std::fs::read_to_string(&self.place.exit_code).ok().and_then(|text| text.trim().parse().ok());
                StageEnd::Failed(code.unwrap_or(1))
            }
            _ => StageEnd::System,
        })
    }

    async fn must(&self, arguments: &[&str], job_env: &JobEnv, name: &str) -> anyhow::Result<()> {
        if self.call(arguments, Some(job_env)).await?.success() {
            return Ok(());
        }
        Err(Failure::system(format!("the stage `{name}` failed; the lines above say why")).into())
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
        if self.args.aws {
            command.envs(self.env.all().filter(|(name, _)| name.starts_with("AWS_")));
        }
        command.envs(self.env.all().filter(|(name, _)| name == crate::config::env::LOG));
        if self.emulator.is_some() {
            command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        }
        command
            .env(crate::config::env::TRY, "1")
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

/// What `config` wants in the environment of the later calls.
type JobEnv = BTreeMap<String, String>;

/// The part of `config`'s answer that matters here: a try has one job, whose directories are known.
#[derive(Deserialize)]
struct Answer {
    job_env: JobEnv,
}

enum StageEnd {
    Passed,
    Failed(i32),
    System,
}

impl StageEnd {
    fn ok_or(self, stage: &str) -> anyhow::Result<()> {
        match self {
            StageEnd::Passed => Ok(()),
            StageEnd::Failed(code) => {
                Err(Failure::system(format!("the stage `{stage}` failed with code {code}; the lines above say why"))
                    .into())
            }
            StageEnd::System => {
                Err(Failure::system(format!("the stage `{stage}` failed; the lines above say why")).into())
            }
        }
    }
}

/// The emulator as a child process.
struct Emulator {
    child: Child,
    endpoint: String,
}

impl Emulator {
    async fn start(args: &TryArgs, root: &Path) -> anyhow::Result<Self> {
        let ready = root.join("endpoint");
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["emulator", "--listen", "127.0.0.1:0", "--bucket", BUCKET, "--ready-file"])
            .arg(&ready)
            .arg("--data-dir")
            .arg(root.join("emulator"));
        if let Some(image) = args.image.as_deref().filter(|image| Path::new(image).is_dir()) {
            command.arg("--image").arg(format!("{image}={image}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the emulator")?;
        let mut emulator = Self { child, endpoint: String::new() };
        let deadline = Instant::now() + EMULATOR_READY;
        loop {
            if let Ok(endpoint) = std::fs::read_to_string(&ready) {
                endpoint.trim().clone_into(&mut emulator.endpoint);
                return Ok(emulator);
            }
            if let Some(status) = emulator.child.try_wait()? {
                return Err(Failure::system(format!("the emulator ended ({status}); the lines above say why")).into());
            }
            anyhow::ensure!(Instant::now() < deadline, "the emulator did not get ready within {EMULATOR_READY:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // A container that hangs goes with the emulator's end, which is forced after this.
        drop(tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await);
    }
}
