//! `run SCRIPT STAGE`: a build stage on the host or in the training job.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

use crate::base::failure::Failure;
use crate::base::node::NodeId;
use crate::base::stream::{self, StreamName};
use crate::config::policy;
use crate::gitlab::{BuildStage, JobContext, Placement};
use crate::protocol::mailbox::{Order, RunOrder};
use crate::protocol::project::Trees;
use crate::session::exchange::Exchange as _;
use crate::session::failure_reasons::{self, LossKind};
use crate::session::follow::Follower;
use crate::session::lease::LeaseKeeper;
use crate::session::machine::Conclusion;
use crate::session::record::{LostResults, Records, RunStep};
use crate::session::replace::{self, Replaced, Wishes};
use crate::session::state::{Results, SessionEvent, SessionState};
use crate::session::supply::Supply;
use crate::session::{Session, SessionId, check_links, results, spec, trees};
use crate::stages::{Context, abandoned, host_script, prepare};
use crate::ui::Printer;
use crate::workspace::{self, Next};

/// A host script that ignores SIGTERM is killed after this; the runner's own limit is longer.
const HOST_GRACE: Duration = Duration::from_secs(30);

pub async fn run(context: Context, script: &Path, stage: &str) -> anyhow::Result<()> {
    let job = context.job()?;
    let id = context.session(&job)?;
    let stage = BuildStage::parse(stage);
    let _hold = Records::at(&context.settings.runner.state_dir).hold(&id, &context.clock).await;
    match stage.placement() {
        Placement::Host => Box::pin(on_host(&context, &job, &id, script, &stage)).await,
        Placement::Container => Box::pin(in_container(&context, &job, id, script, &stage)).await,
    }
}

async fn on_host(
    context: &Context,
    job: &JobContext,
    id: &SessionId,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    if let Ok(trees) = trees(&context.env, &context.settings, job) {
        check_links(&trees, &context.settings, job, stage.uses_cache())?;
    }
    let records = Records::at(&context.settings.runner.state_dir);
    let load = || anyhow::Ok(records.load(id)?.map(SessionState::from));
    let known = load()?;
    // Without a record there is no training job.
    let lease = known.as_ref().map(|_| keep_lease(context, id)).transpose()?;
    if let (Some(known), Some(lease)) = (known, &lease)
        && !known.is_given_up()
        && (known.is_running() || is_awaited(stage, &known))
    {
        let Some(_lock) = records.lock(id)? else {
            return Err(Failure::system("a container stage of this job still runs on this host").into());
        };
        let mut session = attach(context, id.clone()).await?;
        lease.renew(&*session.objects).await;
        if let Err(error) = take_results(context, job, &mut session, stage).await {
            // The stage still has work without them; that they are missing is told and fails no second stage.
            session.apply(SessionEvent::ResultsSettled)?;
            if *stage != BuildStage::Other("cleanup_file_variables".to_owned()) {
                return Err(error.context("failed to bring the results back"));
            }
        }
    }
    if let Some(known) = load()? {
        check_results(stage, &known)?;
    }
    prepare_directories(context, job, stage)?;
    let (child, _first) = spawn(context, script)?;
    let status = supervise(context, child).await?;
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure::script(code).into()),
    }
}

/// The stage reads what the container stages left, and it is not here yet.
fn is_awaited(stage: &BuildStage, known: &SessionState) -> bool {
    stage.reads_results() && known.runs() > 0 && known.results() == Results::Pending
}

/// Ends a script that a killed driver left, and fetches what the stage reads.
async fn take_results(
    context: &Context,
    job: &JobContext,
    session: &mut Session<'_>,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    let trees = trees(&context.env, &context.settings, job)?;
    if session.state().is_running() {
        let supply = supply(context, session, job, &trees);
        abandoned::end(context, session, &supply).await?;
    }
    if !session.state().is_given_up() && is_awaited(stage, session.state()) {
        results::bring_back(session, &trees, &context.cancellation).await?;
    }
    Ok(())
}

/// A job whose script succeeded must not succeed without its artifacts: the runner takes no notice of a failed `after_script`.
fn check_results(stage: &BuildStage, known: &SessionState) -> anyhow::Result<()> {
    match known.results() {
        Results::Lost(LostResults { why, by_job })
            if *stage == BuildStage::Other("upload_artifacts_on_success".to_owned()) =>
        {
            let failure = if *by_job { Failure::user(why) } else { Failure::system(why) };
            Err(failure.into())
        }
        Results::Lost(_) | Results::Applied | Results::Pending => Ok(()),
    }
}

/// Takes away what a job left that would break this stage. Where the directories are not the job's own, the container's stage says
/// so.
fn prepare_directories(context: &Context, job: &JobContext, stage: &BuildStage) -> anyhow::Result<()> {
    let BuildStage::Other(name) = stage else { return Ok(()) };
    let next = match name.as_str() {
        "get_sources" if context.env.job_variable("GIT_STRATEGY") == Some("none") => Next::Files,
        "get_sources" | "clear_worktree" => Next::Git,
        "download_artifacts" | "cleanup_file_variables" => Next::Files,
        _ => return Ok(()),
    };
    let Ok(trees) = trees(&context.env, &context.settings, job) else { return Ok(()) };
    let mut lines = workspace::make_usable(&trees, next)?;
    // The first stage that writes there.
    if name == "get_sources" {
        lines.extend(workspace::remove_temporary(&trees));
    }
    for line in lines {
        context.printer.warn(line);
    }
    Ok(())
}

/// The runner's script with our own stdin and output: not a byte passes through this process. The file is what bash reads first;
/// it lives as long as the script.
fn spawn(context: &Context, script: &Path) -> anyhow::Result<(Child, Option<NamedTempFile>)> {
    let shell = &context.settings.runner.shell;
    let body =
        std::fs::read(script).with_context(|| format!("failed to read the stage script {}", script.display()))?;
    if host_script::is_badly_quoted(&body) {
        return Err(prepare::escapes_refused(false).into());
    }
    if host_script::has_unsafe_key(&body) {
        return Err(policy::unsafe_key("the `key` of a cache holds `$(`, `${`, a backquote or a line break").into());
    }
    let mut command = Command::new(shell);
    command.arg(script).env_clear().envs(context.env.for_host_scripts()).stdin(Stdio::null()).kill_on_drop(true);
    let mut first = None;
    if host_script::takes_prelude(shell) {
        let file = write_prelude(script, &host_script::prelude(context.env.get("BASH_ENV")))
            .context("failed to write what the shell of the stage reads first")?;
        // In posix mode bash would not read it.
        command.env_remove("POSIXLY_CORRECT").env("BASH_ENV", file.path());
        first = Some(file);
    }
    let child = command.spawn().map_err(|error| {
        Failure::system(format!("failed to start `{shell}`"))
            .hint("set `runner.shell` to the shell that `config.toml` names")
            .caused_by(error)
    })?;
    Ok((child, first))
}

/// Beside the script, in a folder that is the runner's own and goes with the job.
fn write_prelude(script: &Path, text: &str) -> anyhow::Result<NamedTempFile> {
    let script = std::path::absolute(script)?;
    let mut file = NamedTempFile::new_in(script.parent().context("the stage script lies in no folder")?)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Waits for the script. The runner signals the whole process group, script included; here it is only seen to that the
/// script does end.
async fn supervise(context: &Context, mut child: Child) -> anyhow::Result<ExitStatus> {
    let cancellation = &context.cancellation;
    let overdue = async {
        cancellation.token().cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(HOST_GRACE) => {}
            () = cancellation.changed() => {}
        }
    };
    tokio::pin!(overdue);
    let mut killed = false;
    loop {
        tokio::select! {
            status = child.wait() => return status.context("failed to wait for the script"),
            () = &mut overdue, if !killed => {
                killed = true;
                child.start_kill().context("failed to end the script")?;
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

async fn attach(context: &Context, id: SessionId) -> anyhow::Result<Session<'_>> {
    let (jobs, objects) = context.session_ports().await?;
    Session::attach(id.clone(), jobs, objects, context.host())?.ok_or_else(|| {
        Failure::system(format!("the session {id} has no record in {}", context.settings.runner.state_dir.display()))
            .hint("`prepare` writes it; `runner.state_dir` must be the same for all stages and not be cleared between them")
            .into()
    })
}

/// Keeps the session's lease from now on, until the keeper is dropped.
fn keep_lease(context: &Context, id: &SessionId) -> anyhow::Result<LeaseKeeper> {
    let settings = &context.settings;
    LeaseKeeper::start(&spec::layout(id), settings.lease(), Arc::clone(&context.connect), settings.access())
}

async fn in_container(
    context: &Context,
    job: &JobContext,
    id: SessionId,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    let trees = trees(&context.env, &context.settings, job)?;
    let mut session = attach(context, id.clone()).await?;
    let Some(_lock) = session.records.lock(&id)? else {
        return Err(Failure::system("another container stage of this job still runs on this host").into());
    };
    let supply = supply(context, &session, job, &trees);
    let lease = keep_lease(context, &id)?;
    if !session.state().is_given_up() {
        lease.renew(&*session.objects).await;
        if abandoned::is_left(session.state(), stage, script)? {
            abandoned::end(context, &mut session, &supply).await?;
        }
    }
    if session.state().is_given_up() {
        return without_an_instance(context, stage);
    }
    let followed = match supply.send_once(&mut session, &context.cancellation).await {
        Ok(()) => run_script(context, &mut session, job, &supply, script, stage).await,
        Err(error) => Err(error),
    };
    let conclusion = match followed {
        Ok(conclusion) => conclusion,
        Err(error) => {
            // Without a training job, as when each further instance type was refused, no later stage has anything to wait for.
            let is_over = context.cancellation.asked() || session.state().arn().is_none();
            if is_over && session.is_untouched().await.unwrap_or(false) {
                session.give_up().await?;
            }
            return Err(error);
        }
    };
    if conclusion == Conclusion::NeverBegan {
        session.give_up().await?;
    }
    if let Conclusion::Exited { code, .. } = &conclusion {
        tell_signal(&context.printer, *code);
    }
    if let Conclusion::Exited { code, .. } = conclusion {
        session.apply(SessionEvent::RunEnded(code))?;
    }
    let failed = !matches!(conclusion, Conclusion::Exited { code: 0, .. });
    let brought = if is_last(job, stage, failed)
        && !matches!(conclusion, Conclusion::Lost { .. } | Conclusion::NeverBegan)
        && !context.cancellation.asked()
    {
        results::bring_back(&mut session, &trees, &context.cancellation).await
    } else {
        Ok(())
    };
    session.apply(SessionEvent::RunOver)?;
    match conclusion {
        Conclusion::Exited { code: 0, .. } => brought.context("failed to bring the results back"),
        Conclusion::Exited { code, .. } => {
            if let Err(error) = brought {
                context.printer.failure(&error.context("failed to bring the results back"));
            }
            Err(Failure::script(code).into())
        }
        Conclusion::Canceled { .. } => {
            Err(Failure::canceled("the script was ended because the runner asked for it").into())
        }
        Conclusion::NeverBegan => without_an_instance(context, stage),
        Conclusion::Lost { reason, by } => {
            let is_told = session.state().is_loss_told();
            session.apply(SessionEvent::LossTold)?;
            // The stages that follow need not say it again.
            let reason = if is_told { "the training job was lost before, see above".to_owned() } else { reason };
            Err(lost(&context.printer, &session, reason, by, is_told).into())
        }
    }
}

fn lost(printer: &Printer, session: &Session<'_>, reason: String, by: LossKind, is_told: bool) -> Failure {
    match by {
        LossKind::User => Failure::user(reason),
        LossKind::Script { code } => {
            printer.error(reason);
            Failure::script(code)
        }
        LossKind::System if !session.state().any_ready() || is_told => Failure::system(reason),
        LossKind::System => Failure::system(reason).hint(format!(
            "the log group `{}`, streams `{}...`, holds what the container wrote",
            stream::GROUP,
            StreamName::prefix(&session.job_name())
        )),
    }
}

/// A bare number explains little to somebody whose program was killed.
fn tell_signal(printer: &Printer, code: i32) {
    let Some(how) = failure_reasons::ended_by_signal(code) else { return };
    match failure_reasons::advice(code) {
        Some(advice) => printer.warn(format!("the script, or a program in it, was {how}; {advice}")),
        None => printer.warn(format!("the script, or a program in it, was {how}")),
    }
}

/// The job was canceled before an instance was up. No script ran that `after_script` could follow, and none will.
fn without_an_instance(context: &Context, stage: &BuildStage) -> anyhow::Result<()> {
    if *stage == BuildStage::AfterScript {
        context
            .printer
            .line("`after_script` is skipped: the job ended before its instance was there, so no script ran");
        return Ok(());
    }
    Err(Failure::canceled("the job was canceled before its instance was there, so the training job was stopped").into())
}

fn supply(context: &Context, session: &Session<'_>, job: &JobContext, trees: &Trees) -> Supply {
    Supply::new(session, job, trees, |name| context.env.job_variable(name).map(str::to_owned))
}

/// No container stage follows: after `after_script`, after a failure without one, after the last step.
fn is_last(job: &JobContext, stage: &BuildStage, failed: bool) -> bool {
    let stages = job.container_stages();
    if failed {
        !stages.contains(&BuildStage::AfterScript) || *stage == BuildStage::AfterScript
    } else {
        stages.last() == Some(stage)
    }
}

/// Orders the script and follows it. Begun again after its process was killed, it follows on: a script runs once.
async fn run_script(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    supply: &Supply,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<Conclusion> {
    let body = abandoned::read_script(script)?;
    if session.state().run().is_some_and(|current| abandoned::is_same(current, stage, &body)) {
        session.apply(SessionEvent::RunTakenOver)?;
    } else {
        let (stage, script) = (&stage.to_string(), &abandoned::digest(&body));
        session.apply(SessionEvent::RunBegun { stage, script })?;
    }
    let (run, step) =
        session.state().run().map(|current| (current.run, current.step())).context("no script was begun")?;
    if let RunStep::Ended(code) = step {
        return Ok(Conclusion::Exited { code, node: NodeId::LEADER, others: Vec::new(), incomplete: Vec::new() });
    }
    let limits = &session.settings.limits;
    if step == RunStep::Noted {
        session.exchange().deliver_script(run, body).await?;
        let order = Order::Run(RunOrder {
            run,
            stage: stage.to_string(),
            masks: job.masked_values(|name| context.env.job_variable(name).map(str::to_owned)),
            mask_prefixes: job.features.token_mask_prefixes.clone(),
            grace: limits.cancel_grace_seconds,
            live_copy: session.settings.trace.live_copy,
        });
        session.order(&order).await?;
    }
    let wishes = Wishes { job, env: &context.env, cancel: &context.cancellation };
    if let Err(error) = replace::resume(session, wishes).await {
        take_back(session, run).await;
        return Err(error);
    }
    loop {
        let feed = session.join_log(context.log_client())?;
        let mut conclusion = Follower::new(session, supply, run, feed)?.follow(&context.cancellation).await;
        if matches!(conclusion, Ok(Conclusion::Lost { .. })) {
            // The order waits in the mailbox for the next training job's agent.
            match replace::replace(session, wishes).await {
                Ok(Replaced::Another) => continue,
                Ok(Replaced::NoneLeft(reason)) => conclusion = Ok(Conclusion::Lost { reason, by: LossKind::System }),
                Ok(Replaced::No) => {}
                Err(error) => {
                    // The script never began.
                    take_back(session, run).await;
                    session.apply(SessionEvent::RunOver)?;
                    return Err(error);
                }
            }
        }
        if matches!(conclusion, Err(_) | Ok(Conclusion::Lost { .. })) {
            take_back(session, run).await;
        }
        return conclusion;
    }
}

/// What was given up here must not begin, or go on, over there.
async fn take_back(session: &mut Session<'_>, run: u32) {
    if let Err(error) = session.order(&Order::Cancel { run }).await {
        tracing::warn!(error = format!("{error:#}"), "failed to take the script back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(steps: &[&str]) -> JobContext {
        let steps: Vec<_> = steps.iter().map(|name| serde_json::json!({"name": name, "script": ["x"]})).collect();
        serde_json::from_value(serde_json::json!({"id": 1, "job_info": {"project_id": 2}, "steps": steps})).unwrap()
    }

    #[test]
    fn the_last_container_stage_is_known() {
        let release = BuildStage::Step("release".into());
        let full = job(&["script", "release", "after_script"]);
        assert!(!is_last(&full, &BuildStage::Script, false));
        assert!(!is_last(&full, &BuildStage::Script, true));
        assert!(is_last(&full, &BuildStage::AfterScript, false));
        let plain = job(&["script", "release"]);
        assert!(!is_last(&plain, &BuildStage::Script, false));
        assert!(is_last(&plain, &BuildStage::Script, true));
        assert!(is_last(&plain, &release, false));
    }
}
