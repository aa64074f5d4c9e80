//! Runs a build stage on the runner's host: downloads the results that the stage reads, and runs the runner's script
//! with the runner's shell.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

use crate::base::failure::Failure;
use crate::config::policy;
use crate::gitlab::{BuildStage, JobContext};
use crate::protocol::project::Trees;
use crate::sandbox::{self, Sandbox, SandboxedScript};
use crate::session::billing::EndWait;
use crate::session::event::SessionEvent;
use crate::session::model_output::ModelInputs;
use crate::session::record::{LostResults, Records};
use crate::session::results::Download;
use crate::session::state::{Creation, ResultsState, SessionState};
use crate::session::{Session, SessionId, billing, measured, model_output, results, wanted_files};
use crate::stages::{Context, abandoned, host_script, prepare};
use crate::workspace::{self, Next};

/// The stage that the runner calls only when the script has succeeded.
const SUCCESS: &str = "upload_artifacts_on_success";
/// The last stage of a job that was not aborted.
const CLEANUP: &str = "cleanup_file_variables";
/// Time between SIGTERM and SIGKILL of a host script; the runner's own limit is longer.
const HOST_GRACE: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context,
    job: &JobContext,
    id: &SessionId,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    let directories = context.directories(job);
    if let Ok(trees) = directories.trees(&context.env) {
        check_layout(context, &trees)?;
        directories.check_links(&trees, stage.uses_cache())?;
    }
    let records = Records::at(&context.settings.runner.state_dir);
    let load = || anyhow::Ok(records.load(id)?.map(SessionState::from));
    let known = load()?;
    // Without a record there is no training job.
    let lease = known.as_ref().map(|known| context.keep_lease(id, known)).transpose()?;
    if let Some(lease) = &lease
        && context.lease_note(id).is_due(context.settings.lease())
        && let Ok((_, objects)) = context.session_ports().await
    {
        lease.renew(&*objects).await;
    }
    if let (Some(known), Some(lease)) = (known, &lease)
        && known.may_have_results()
        && (known.is_running() || is_awaited(stage, &known) || awaits_model(context, stage, &known))
    {
        let Some(_lock) = records.lock(id)? else {
            return Err(Failure::system("a container stage of this job still runs on this host").into());
        };
        let mut session = context.attach(id).await?;
        lease.renew(&*session.objects).await;
        if let Err(error) = take_results(context, job, &mut session, stage).await {
            // The stage can still do other work; the missing results are reported once and fail no second stage.
            session.apply(SessionEvent::ResultsSettled)?;
            if *stage != BuildStage::Other(CLEANUP.to_owned()) {
                return Err(error.context("failed to download the results"));
            }
        }
        if awaits_model(context, stage, session.state()) {
            let trees = context.trees(job)?;
            let inputs = ModelInputs { trees: &trees, has_succeeded: true, cancel: &context.cancellation };
            model_output::finish(&mut session, inputs).await?;
        }
    }
    if let Some(known) = load()? {
        tell_bill(context, job, id, stage, &known).await;
        check_results(stage, &known)?;
    }
    prepare_directories(context, job, stage)?;
    let script = std::path::absolute(script)?;
    let first = prepare_script(context, &script)?;
    let running = if context.is_sandboxed() {
        RunningScript::Sandboxed(Box::new(start_sandboxed(context, job, stage, &script, first.as_ref()).await?))
    } else {
        RunningScript::Plain(spawn(context, &script, first.as_ref())?)
    };
    let status = supervise(context, running).await?;
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure::script(code).into()),
    }
}

/// Writes the job's report before its artifacts are uploaded, and prints the bill at the job's end.
async fn tell_bill(context: &Context, job: &JobContext, id: &SessionId, stage: &BuildStage, known: &SessionState) {
    let BuildStage::Other(name) = stage else { return };
    let is_upload = name.starts_with("upload_artifacts");
    if known.creation() == Creation::None || !is_upload && name != CLEANUP {
        return;
    }
    let Ok(session) = context.attach(id).await else { return };
    let wait = EndWait::new(&context.cancellation);
    if context.env.is_try() {
        // Its last stage.
        billing::print_of_try(&session, &wait).await;
    } else if !is_upload {
        billing::print(&session, &wait).await;
    } else if let Ok(trees) = context.trees(job) {
        // A stage before the first script may have failed, so that the project was never sent.
        let selection = known.selection().cloned();
        let selection = selection
            .unwrap_or_else(|| wanted_files::selection(job, |name| context.env.job_variable(name).map(str::to_owned)));
        let idle = measured::idle(&session, &trees).await;
        billing::write_report(&session, &selection, &trees, idle.as_ref(), &wait).await;
        measured::write_files(&session, job, &trees, &wait).await;
    }
}

/// `true` when the stage reads results that are not downloaded yet.
fn is_awaited(stage: &BuildStage, known: &SessionState) -> bool {
    stage.reads_results() && known.runs() > 0 && known.results() == ResultsState::Pending
}

/// `true` when the script has succeeded and its model is not known to be uploaded: the runner ends a long `after_script`, and ignores that
/// it failed.
fn awaits_model(context: &Context, stage: &BuildStage, known: &SessionState) -> bool {
    let is_success = *stage == BuildStage::Other(SUCCESS.to_owned());
    let is_lost = matches!(known.results(), ResultsState::Lost(_));
    is_success && known.runs() > 0 && known.awaits_model() && !is_lost && !context.env.is_try()
}

/// Ends a script that a killed driver left, and downloads the results that the stage reads.
async fn take_results(
    context: &Context,
    job: &JobContext,
    session: &mut Session<'_>,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    let trees = context.trees(job)?;
    if session.state().is_running() {
        let upload = context.workspace_upload(session, job, &trees);
        abandoned::end(context, session, &upload).await?;
    }
    if session.state().may_have_results() && is_awaited(stage, session.state()) {
        let download = results::download_results(session, &trees, &context.cancellation).await?;
        if download == Download::FilesGone {
            results::give_up(session).await?;
        }
    }
    Ok(())
}

/// Fails a job whose script succeeded but whose results are missing: the runner ignores a failed `after_script`.
fn check_results(stage: &BuildStage, known: &SessionState) -> anyhow::Result<()> {
    match known.results() {
        ResultsState::Lost(LostResults { why, by_job }) if *stage == BuildStage::Other(SUCCESS.to_owned()) => {
            let failure = if *by_job { Failure::user(why) } else { Failure::system(why) };
            Err(failure.into())
        }
        ResultsState::Lost(_) | ResultsState::Applied | ResultsState::Pending => Ok(()),
    }
}

/// Removes files of an earlier job that would break this stage. Directories outside the project's folder are refused by
/// the container stage.
fn prepare_directories(context: &Context, job: &JobContext, stage: &BuildStage) -> anyhow::Result<()> {
    let BuildStage::Other(name) = stage else { return Ok(()) };
    let next = match name.as_str() {
        "get_sources" if context.env.job_variable("GIT_STRATEGY") == Some("none") => Next::Files,
        "get_sources" | "clear_worktree" => Next::Git,
        "download_artifacts" | CLEANUP => Next::Files,
        _ => return Ok(()),
    };
    let Ok(trees) = context.trees(job) else { return Ok(()) };
    let mut lines = workspace::make_usable(&trees, next)?;
    // The first stage that writes there.
    if name == "get_sources" {
        let left = workspace::remove_temporary(&trees).err();
        lines.extend(left.map(|error| format!("{error:#}; an earlier job left it: remove it as root")));
    }
    for line in lines {
        context.printer.warn(line);
    }
    Ok(())
}

/// Refuses a script that was written for the sandbox when it would run without.
fn check_layout(context: &Context, trees: &Trees) -> Result<(), Failure> {
    if context.is_sandboxed() || !trees.are_in_sandbox() {
        return Ok(());
    }
    Err(Failure::system(
        "`sandbox.enabled` was switched off while the job ran, and its scripts work in the sandbox alone",
    )
    .hint("retry the job"))
}

/// The process of a script. It has this process's stdout and stderr: no output passes through this process.
enum RunningScript {
    Plain(Child),
    Sandboxed(Box<Sandbox>),
}

impl RunningScript {
    async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Plain(child) => child.wait().await.context("failed to wait for the script"),
            Self::Sandboxed(sandbox) => sandbox.wait().await,
        }
    }

    /// The runner signals this process's group; a sandbox does not belong to it.
    async fn ask_to_end(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Sandboxed(sandbox) => sandbox.ask_to_end().await,
        }
    }

    fn kill(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(child) => child.start_kill(),
            Self::Sandboxed(sandbox) => sandbox.kill(),
        }
    }
}

/// Checks the runner's script, and writes the prelude that bash reads first; the file must live as long as the script runs.
fn prepare_script(context: &Context, script: &Path) -> anyhow::Result<Option<NamedTempFile>> {
    let body =
        std::fs::read(script).with_context(|| format!("failed to read the stage script {}", script.display()))?;
    if host_script::is_badly_quoted(&body) {
        return Err(prepare::escapes_refused(false).into());
    }
    if host_script::has_unsafe_key(&body) {
        return Err(policy::unsafe_key("the `key` of a cache holds `$(`, `${`, a backquote or a line break").into());
    }
    let settings = &context.settings;
    if !host_script::takes_prelude(&settings.runner.shell) {
        return Ok(None);
    }
    let prelude = host_script::prelude(context.env.get("BASH_ENV"), context.is_sandboxed());
    let file = write_beside(script, &prelude).context("failed to write what the shell of the stage reads first")?;
    Ok(Some(file))
}

/// Starts the script in a sandbox that shows this job's directories.
async fn start_sandboxed(
    context: &Context,
    job: &JobContext,
    stage: &BuildStage,
    script: &Path,
    first: Option<&NamedTempFile>,
) -> anyhow::Result<Sandbox> {
    let settings = &context.settings;
    let directories = context.directories(job);
    directories.make_builds()?;
    let is_in_sandbox = context.trees(job).is_ok_and(|trees| trees.are_in_sandbox());
    let builds = directories.builds();
    let seen = if is_in_sandbox { directories.builds_seen().to_owned() } else { builds.clone() };
    let mut writable = vec![(builds, seen)];
    if stage.uses_cache() {
        directories.make_cache()?;
        writable.push((directories.cache(), directories.cache()));
    }
    let first = first.map(|file| file.path().to_owned());
    let variables = first.iter().map(|path| ("BASH_ENV".to_owned(), path.to_string_lossy().into_owned())).collect();
    let ssh_files = sandbox::ssh_files().into_iter().map(|file| Ok((write_beside(script, &file.text)?, file.path)));
    let ssh_files =
        ssh_files.collect::<anyhow::Result<Vec<_>>>().context("failed to write the configuration of ssh")?;
    let sandboxed = SandboxedScript {
        command: [Path::new(&settings.runner.shell), script],
        files: std::iter::once(script.to_owned()).chain(first).collect(),
        programs: prepare::find(context.env.path(), prepare::HELPER).into_iter().collect(),
        ssh_config: ssh_files.iter().map(|(file, path)| (file.path().to_owned(), path.clone())).collect(),
        shares_directory: stage.uses_cache(),
        writable,
        variables,
        repository: &job.git_info.repo_url,
    };
    Sandbox::start(&sandboxed, &settings.sandbox, &context.env, &context.printer).await
}

/// Starts the script as a plain child of this process.
fn spawn(context: &Context, script: &Path, first: Option<&NamedTempFile>) -> anyhow::Result<Child> {
    let shell = &context.settings.runner.shell;
    let mut command = Command::new(shell);
    command.arg(script).env_clear().envs(context.env.for_host_scripts()).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(file) = first {
        // In POSIX mode bash would not read it.
        command.env_remove("POSIXLY_CORRECT").env("BASH_ENV", file.path());
    }
    command.spawn().map_err(|error| {
        Failure::system(format!("failed to start `{shell}`"))
            .hint("set `runner.shell` to the shell that `config.toml` names")
            .caused_by(error)
            .into()
    })
}

/// Writes a file next to the script, in a directory of the runner that is removed with the job.
fn write_beside(script: &Path, text: &str) -> anyhow::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(script.parent().context("the stage script lies in no folder")?)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Waits for the script, and ensures that it ends after a cancel.
async fn supervise(context: &Context, mut script: RunningScript) -> anyhow::Result<ExitStatus> {
    let cancellation = &context.cancellation;
    let overdue = async {
        cancellation.token().cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(HOST_GRACE) => {}
            () = cancellation.changed() => {}
        }
    };
    tokio::pin!(overdue);
    let (mut asked, mut killed) = (false, false);
    loop {
        tokio::select! {
            status = script.wait() => return status,
            () = cancellation.token().cancelled(), if !asked => {
                asked = true;
                script.ask_to_end().await;
            }
            () = &mut overdue, if !killed => {
                killed = true;
                script.kill().context("failed to end the script")?;
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
