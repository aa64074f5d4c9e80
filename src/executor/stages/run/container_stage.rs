//! Runs a build stage in the training job: sends the project, orders the script, follows it to its end, and downloads
//! the results after the last one.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::metric::MetricDefinition;
use crate::base::node::NodeId;
use crate::base::stream::{self, StreamName};
use crate::config::policy::{self, Decision};
use crate::config::settings::Settings;
use crate::gitlab::{BuildStage, JobContext};
use crate::protocol::mailbox::{Order, RunOrder};
use crate::protocol::project::Trees;
use crate::session::billing::{self, EndWait};
use crate::session::current_run::RunStep;
use crate::session::event::SessionEvent;
use crate::session::failure_reasons::{self, LossKind};
use crate::session::follow::Follower;
use crate::session::isolated::{self, Entered};
use crate::session::machine::Conclusion;
use crate::session::model_output::ModelInputs;
use crate::session::next_job::JobInputs;
use crate::session::replace::{self, Replaced};
use crate::session::results::Download;
use crate::session::state::ResultsState;
use crate::session::workspace_upload::WorkspaceUpload;
use crate::session::{Session, SessionId, measured, model_output, queue, refusals, rerun, results, warm_pool};
use crate::stages::job_secrets::JobSecrets;
use crate::stages::{Context, abandoned};
use crate::ui::Printer;

/// Updates of a progress bar that the log of a job keeps in a second, unless the job says otherwise.
const PROGRESS_RATE: u32 = 1;

pub(super) async fn run(
    context: &Context,
    job: &JobContext,
    id: SessionId,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let trees = context.trees(job)?;
    let mut session = context.attach(&id).await?;
    let Some(_lock) = session.records.lock(&id)? else {
        return Err(Failure::system("another container stage of this job still runs on this host").into());
    };
    let upload = context.workspace_upload(&session, job, &trees).keeping(isolated::keep_tree(job, stage));
    let lease = context.keep_lease(&id, session.state())?;
    session.lease_renewed = lease.renewed();
    if !session.state().is_given_up() {
        lease.renew(&*session.objects).await;
        if abandoned::is_left(session.state(), stage, script)? {
            abandoned::end(context, &mut session, &upload).await?;
        }
    }
    // The stage that waited for an instance was killed, so its script never ran.
    if session.state().queued().is_some() && job.container_stages().first() != Some(stage) {
        session.give_up().await?;
    }
    if session.state().is_given_up() {
        return without_an_instance(context, job, stage, begun);
    }
    let has_ended = session.state().is_loss_told() && session.state().nodes().rows().all(|node| node.left);
    if *stage == BuildStage::AfterScript && has_ended {
        context.printer.line("`after_script` is skipped: the training job was lost, see the error above");
        return Ok(());
    }
    if isolated::enter(&mut session, &context.cancellation).await? == Entered::NoFiles {
        return without_files(context, stage);
    }
    let (conclusion, brought) = run_to_end(context, &mut session, job, &upload, &trees, script, stage).await?;
    let has_succeeded = matches!(conclusion, Conclusion::Exited { code: 0, .. });
    let model = if has_succeeded && brought.is_ok() && is_last(job, stage, false) {
        finish_model(context, &mut session, stage, &trees).await
    } else {
        Ok(())
    };
    session.apply(SessionEvent::RunOver)?;
    note_cut(context, &mut session, job, stage, begun, &conclusion)?;
    tell_measured(context, &session, job, &trees, is_last(job, stage, !has_succeeded)).await;
    tell_stay(context, &session, is_last(job, stage, !has_succeeded), &conclusion);
    match conclusion {
        Conclusion::Exited { code: 0, .. } => brought.context("failed to download the results").and(model),
        Conclusion::Exited { code, .. } => {
            if let Err(error) = brought {
                context.printer.failure(&error.context("failed to download the results"));
            }
            tell_kill(context, &session, code);
            Err(Failure::script(code).into())
        }
        Conclusion::Canceled { .. } => {
            let limits = context.limits(job, stage, begun);
            if limits.is_job_over() {
                // Text that a later stage prints does not reach the job's log.
                billing::print(&session, &EndWait::new(&context.cancellation)).await;
            }
            Err(limits.failure("the script was ended").into())
        }
        Conclusion::NeverBegan => without_an_instance(context, job, stage, begun),
        Conclusion::Lost { reason, by } => {
            let is_told = session.state().is_loss_told();
            session.apply(SessionEvent::LossTold)?;
            if is_told {
                // Later stages need not repeat it.
                return Err(told_before(&context.printer, by).into());
            }
            Err(lost(&context.printer, &session, reason, by).into())
        }
        Conclusion::Interrupted => Err(Failure::system("SageMaker started the container again").into()),
    }
}

/// Runs the script, and brings the results when no container stage follows: runs it again when they are gone, and it can make them again.
async fn run_to_end(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    upload: &WorkspaceUpload,
    trees: &Trees,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<(Conclusion, anyhow::Result<()>)> {
    loop {
        let conclusion = carry_out(context, session, job, upload, script, stage).await?;
        let failed = !matches!(conclusion, Conclusion::Exited { code: 0, .. });
        let is_due = is_last(job, stage, failed)
            && !matches!(conclusion, Conclusion::Lost { .. } | Conclusion::NeverBegan)
            && !context.cancellation.asked();
        if !is_due {
            return Ok((conclusion, Ok(())));
        }
        match results::download_results(session, trees, &context.cancellation).await {
            Ok(Download::Settled) => return Ok((conclusion, Ok(()))),
            Err(error) => return Ok((conclusion, Err(error))),
            // Only this script's files are gone: it makes them again.
            Ok(Download::FilesGone) if session.state().is_first_script() && !was_kept(context, job, &conclusion) => {
                rerun::begin(session, upload, &context.cancellation).await?;
            }
            Ok(Download::FilesGone) => {
                return Ok((conclusion, results::give_up(session).await));
            }
        }
    }
}

/// Notes for the job's report why a script did not end by itself.
fn note_cut(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    stage: &BuildStage,
    begun: Instant,
    conclusion: &Conclusion,
) -> anyhow::Result<()> {
    if *stage == BuildStage::AfterScript {
        return Ok(());
    }
    let (code, why) = match conclusion {
        Conclusion::Canceled { .. } => {
            (None, context.limits(job, stage, begun).failure("the script was ended").to_string())
        }
        Conclusion::Lost { reason, by: LossKind::Script { code } } => (Some(*code), reason.clone()),
        Conclusion::Lost { reason, .. } => (None, reason.clone()),
        Conclusion::Exited { .. } | Conclusion::NeverBegan | Conclusion::Interrupted => return Ok(()),
    };
    session.apply(SessionEvent::ScriptCut { code, why: &why })
}

/// The script has failed, and its container was kept for people: it does not run again.
fn was_kept(context: &Context, job: &JobContext, conclusion: &Conclusion) -> bool {
    let wishes = context.env.job_variables().unwrap_or_default();
    let decided = policy::decide(job, &wishes, &context.settings);
    let has_failed = matches!(conclusion, Conclusion::Exited { code, .. } if *code != 0);
    has_failed && decided.is_ok_and(|decision| decision.debug.keep_on_failure > 0)
}

/// Prints the metrics and the use of the machine, at the end of a job whose results came.
async fn tell_measured(context: &Context, session: &Session<'_>, job: &JobContext, trees: &Trees, is_last: bool) {
    if is_last && session.state().results() == ResultsState::Applied {
        measured::print(session, trees, &metrics(context, job)).await;
    }
}

/// The metrics that the job defines; `prepare` has checked them.
fn metrics(context: &Context, job: &JobContext) -> Vec<MetricDefinition> {
    let decided = context.env.job_variables().and_then(|wishes| policy::decide(job, &wishes, &context.settings));
    decided.map(|decided| decided.metrics).unwrap_or_default()
}

/// Says that the instances are let go, or how long they stay, at the end of a job whose container ran.
fn tell_stay(context: &Context, session: &Session<'_>, is_last: bool, conclusion: &Conclusion) {
    let has_run = matches!(conclusion, Conclusion::Exited { .. } | Conclusion::Canceled { .. });
    if is_last && has_run {
        let let_go = || "The instance is let go".to_owned();
        context.printer.line(warm_pool::stay(session).unwrap_or_else(let_go));
    }
}

/// Waits for the upload of the model, after the results of the last stage. Without them the job has failed.
async fn finish_model(
    context: &Context,
    session: &mut Session<'_>,
    stage: &BuildStage,
    trees: &Trees,
) -> anyhow::Result<()> {
    if context.env.is_try() || matches!(session.state().results(), ResultsState::Lost(_)) {
        return Ok(());
    }
    // `after_script` succeeds after a script that has failed, too.
    let has_succeeded = *stage != BuildStage::AfterScript;
    model_output::finish(session, ModelInputs { trees, has_succeeded, cancel: &context.cancellation }).await
}

/// Sends the project, runs the script, and notes how it ended.
async fn carry_out(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    upload: &WorkspaceUpload,
    script: &Path,
    stage: &BuildStage,
) -> anyhow::Result<Conclusion> {
    let inputs = JobInputs { job, env: &context.env, cancel: &context.cancellation };
    let granted = queue::wait(session, inputs).await;
    let sent = match granted {
        Ok(()) => upload.send_once(session, &context.cancellation).await,
        refused => refused,
    };
    let followed = match sent {
        Ok(()) => run_script(context, session, job, upload, script, stage).await,
        Err(error) => Err(error),
    };
    let conclusion = match followed {
        Ok(conclusion) => conclusion,
        Err(error) => {
            // Without a training job, as when every instance type was refused, later stages have nothing to wait for.
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
    Ok(conclusion)
}

/// The failure of a stage after a loss that an earlier stage has explained; its kind stays.
fn told_before(printer: &Printer, by: LossKind) -> Failure {
    const TEXT: &str = "the training job was lost before, see above";
    match by {
        LossKind::User => Failure::user(TEXT),
        LossKind::System => Failure::system(TEXT),
        LossKind::Script { code } => {
            printer.error(TEXT);
            Failure::script(code)
        }
    }
}

fn lost(printer: &Printer, session: &Session<'_>, reason: String, by: LossKind) -> Failure {
    let failure = match by {
        LossKind::User => Failure::user(reason),
        LossKind::Script { code } => {
            let failure = Failure::system(reason).quoting(session.last_lines());
            let failure = failure_reasons::advice(code).into_iter().fold(failure, Failure::hint);
            printer.failure(&failure.into());
            return Failure::script(code);
        }
        LossKind::System if !session.state().any_ready() => Failure::system(reason),
        LossKind::System => Failure::system(reason).hint(format!(
            "the log group `{}`, streams `{}...`, has the container's output",
            stream::GROUP,
            StreamName::prefix(&session.job_name())
        )),
    };
    failure.quoting(session.last_lines())
}

/// Explains an exit code that stands for a signal.
fn tell_signal(printer: &Printer, code: i32) {
    if failure_reasons::advice(code).is_none()
        && let Some(how) = failure_reasons::ended_by_signal(code)
    {
        printer.warn(format!("the script, or a program in it, was {how}"));
    }
}

/// Explains a kill at the end of the stage's output, with a hint and the last lines: a killed program cannot print the
/// reason.
fn tell_kill(context: &Context, session: &Session<'_>, code: i32) {
    if let (Some(how), Some(advice)) = (failure_reasons::ended_by_signal(code), failure_reasons::advice(code)) {
        let failure = Failure::system(format!("the script, or a program in it, was {how}"));
        // A try has no job variables to change.
        let failure = if context.env.is_try() { failure } else { failure.hint(advice) };
        context.printer.failure(&failure.quoting(session.last_lines()).into());
    }
}

/// Skips `after_script` of a job that ended before its instance was up: no script ran, and none will.
fn without_an_instance(context: &Context, job: &JobContext, stage: &BuildStage, begun: Instant) -> anyhow::Result<()> {
    if *stage == BuildStage::AfterScript {
        context.printer.line("`after_script` is skipped: the job ended before the instance for it was up");
        return Ok(());
    }
    let stopped = "the training job was stopped before its instance was up";
    Err(context.limits(job, stage, begun).failure(stopped).into())
}

/// Skips `after_script` of a job whose last container has not kept the project.
fn without_files(context: &Context, stage: &BuildStage) -> anyhow::Result<()> {
    let why = "SageMaker has no files of the container of the stage before";
    if *stage == BuildStage::AfterScript {
        context.printer.line(format!("`after_script` is skipped: {why}"));
        return Ok(());
    }
    Err(Failure::system(why).into())
}

/// `true` when no container stage follows: after `after_script`, after a failure without one, after the last step.
fn is_last(job: &JobContext, stage: &BuildStage, failed: bool) -> bool {
    let stages = job.container_stages();
    if failed {
        !stages.contains(&BuildStage::AfterScript) || *stage == BuildStage::AfterScript
    } else {
        stages.last() == Some(stage)
    }
}

/// Orders the script and follows it. When repeated after a kill, it only follows on: a script runs once.
async fn run_script(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    upload: &WorkspaceUpload,
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
    loop {
        let conclusion = run_once(context, session, job, upload, &body, stage).await?;
        if conclusion != Conclusion::Interrupted {
            return Ok(conclusion);
        }
        rerun::begin(session, upload, &context.cancellation).await?;
    }
}

/// Orders the current run, unless that was done, and follows it to its end.
async fn run_once(
    context: &Context,
    session: &mut Session<'_>,
    job: &JobContext,
    upload: &WorkspaceUpload,
    body: &[u8],
    stage: &BuildStage,
) -> anyhow::Result<Conclusion> {
    let (run, step) =
        session.state().run().map(|current| (current.run, current.step())).context("no script was begun")?;
    if let RunStep::Ended(code) = step {
        return Ok(Conclusion::Exited { code, node: NodeId::LEADER, others: Vec::new(), incomplete: Vec::new() });
    }
    // `prepare` has decided; an operator's file that changed since must not end a job that runs.
    let wishes = context.env.job_variables().unwrap_or_default();
    let decided = policy::decide(job, &wishes, &context.settings).ok();
    if step == RunStep::Noted {
        let metrics = metrics(context, job);
        // A grant that was withdrawn meanwhile ends the job: its script would run without the value.
        let granted = policy::granted_secrets(job, &wishes, &context.settings)?;
        let secrets = JobSecrets::read(context, &granted).await?;
        // A value may have grown since `prepare`.
        secrets.check_size()?;
        let masks = job.masked_values(|name| context.env.job_variable(name).map(str::to_owned));
        refusals::deliver_script(session, run, body, &context.cancellation).await?;
        let kept = decided.as_ref().filter(|_| *stage != BuildStage::AfterScript);
        let order = Order::Run(RunOrder {
            run,
            stage: stage.to_string(),
            script: abandoned::digest(body),
            masks: masks.into_iter().chain(secrets.masks()).collect(),
            mask_prefixes: job.features.token_mask_prefixes.clone(),
            grace: session.settings.limits.cancel_grace_seconds,
            live_copy: session.reads_copy_live(),
            progress_rate: wishes.progress_rate.unwrap_or(PROGRESS_RATE),
            keep_on_failure: kept.map_or(0, |decision| decision.debug.keep_on_failure),
            variables: secrets.variables(),
            samples: measured::wants_samples(session, &context.trees(job)?, &metrics),
            metrics: if *stage == BuildStage::AfterScript { Vec::new() } else { metrics },
        });
        refusals::order(session, &order, &context.cancellation).await?;
    }
    let inputs = JobInputs { job, env: &context.env, cancel: &context.cancellation };
    if session.state().is_isolated() {
        if !session.state().is_finished() {
            refusals::order(session, &Order::Finish { collect: true }, &context.cancellation).await?;
        }
        if let Err(error) = isolated::launch(session, inputs).await {
            // The script never began.
            cancel_script(session, run).await;
            session.apply(SessionEvent::RunOver)?;
            return Err(error);
        }
    }
    if let Err(error) = replace::resume(session, inputs).await {
        cancel_script(session, run).await;
        return Err(error);
    }
    let provisioning = provisioning(decided.as_ref(), &context.settings);
    loop {
        let feed = session.join_log(context.log_client())?;
        let follower = Follower::new(session, upload, run, feed, provisioning)?;
        let mut conclusion = follower.follow(&context.cancellation).await;
        if matches!(conclusion, Ok(Conclusion::Lost { .. })) {
            // The order stays in the mailbox for the next training job's agent.
            match replace::replace(session, inputs).await {
                Ok(Replaced::Another) => continue,
                Ok(Replaced::NoneLeft(reason)) => conclusion = Ok(Conclusion::Lost { reason, by: LossKind::System }),
                Ok(Replaced::No) => {}
                Err(error) => {
                    // The script never began.
                    cancel_script(session, run).await;
                    session.apply(SessionEvent::RunOver)?;
                    return Err(error);
                }
            }
        }
        if matches!(conclusion, Err(_) | Ok(Conclusion::Lost { .. })) {
            cancel_script(session, run).await;
        }
        return conclusion;
    }
}

/// The longest wait for the container: the operator's, or a spot job's own when that is longer.
fn provisioning(decision: Option<&Decision>, settings: &Settings) -> Duration {
    let of_spot = decision.and_then(|decision| decision.capacity.spot_max_wait?.checked_sub(decision.max_runtime));
    let of_spot = of_spot.unwrap_or_default();
    Duration::from_secs(of_spot.max(settings.limits.provisioning_seconds))
}

/// Cancels a script that this stage gave up, so that it does not begin or go on in the container.
async fn cancel_script(session: &mut Session<'_>, run: u32) {
    if let Err(error) = session.order(&Order::Cancel { run }).await {
        tracing::warn!(error = format!("{error:#}"), "failed to cancel the script");
    }
}

#[cfg(test)]
mod tests;
