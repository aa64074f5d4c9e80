//! Downloads the results of a session, applies them to the project directory, and lets the instance go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::node::NodeId;
use crate::base::signals::Cancellation;
use crate::protocol::mailbox::{Order, Report};
use crate::protocol::project::{Selection, Trees};
use crate::session::Session;
use crate::session::bar::with_bar;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::failure_reasons::{self, Diagnosis, LossKind};
use crate::session::inbox::Inbox;
use crate::session::kept_results::{self, KeptProject};
use crate::session::record::LostResults;
use crate::session::refusals::{self, Refusals};
use crate::session::state::ResultsState as Outcome;
use crate::session::{node_folders, stage_end, unsent};
use crate::workspace::{AllSent, Bounds, Destination, MissingPart, Summary, TransferLimits, TransferProgress};

const POLL: Duration = Duration::from_millis(40);
const SLOW_POLL: Duration = Duration::from_millis(500);
/// Time of silence of the agent after which the training job is described.
const DESCRIBE_EVERY: Duration = Duration::from_secs(15);

/// Outcome of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Download {
    /// The results are in the project directory, or the state says why they are not.
    Settled,
    /// SageMaker has started the container again, and the files of a script are gone. Nothing is settled.
    FilesGone,
}

/// Orders the results and the agents' end, and applies the results to the project directory. A second call does
/// nothing.
pub async fn download_results(
    session: &mut Session<'_>,
    trees: &Trees,
    cancel: &Cancellation,
) -> anyhow::Result<Download> {
    if session.state.results() != Outcome::Pending {
        return Ok(Download::Settled);
    }
    if are_gone(session) {
        return Ok(Download::FilesGone);
    }
    let is_given_up = session.state.is_given_up();
    if !is_given_up && !session.state.is_finished() {
        refusals::order(session, &Order::Finish { collect: true }, cancel).await?;
    }
    if !session.printer.is_terminal() {
        session.printer.line("Fetching the results");
    }
    if !is_given_up {
        stage_end::wait_for_end(session, cancel).await?;
    }
    let kept = find_kept(session).await?;
    let fetched = if is_given_up && kept.is_none() {
        lose_earlier(session)?;
        Download::Settled
    } else {
        match fetch(session, NodeId::LEADER, trees, cancel, kept.as_ref()).await {
            Err(error) if node_folders::sends_every_node(session) && kept.is_none() && !cancel.asked() => {
                // The files of the other nodes are as good as without this failure.
                if let Err(more) = other_nodes(session, trees, cancel).await {
                    session.printer.failure(&more);
                }
                return Err(error.context(failed_to_fetch(NodeId::LEADER)));
            }
            fetched => fetched?,
        }
    };
    if fetched == Download::Settled {
        if session.state.results() == Outcome::Pending && kept.is_none() {
            other_nodes(session, trees, cancel).await?;
        }
        session.apply(SessionEvent::ResultsSettled)?;
        let_go(session).await;
    }
    Ok(fetched)
}

/// The project that the container of an earlier stage has kept, when the last container has sent no results; tells that it is used.
async fn find_kept(session: &Session<'_>) -> anyhow::Result<Option<KeptProject>> {
    let keys = session.keys().results(NodeId::LEADER, restarts(session));
    if !session.state.is_isolated() || session.exchange_objects().size(&keys.part(0)).await?.is_some() {
        return Ok(None);
    }
    let kept = kept_results::find(session).await?;
    if kept.is_some() {
        let others =
            if node_folders::sends_every_node(session) { ". The files of the other nodes are lost" } else { "" };
        session.printer.warn(format!(
            "the last container stage has sent no files, so the results are those that the stage before it left{others}"
        ));
    }
    Ok(kept)
}

/// Notes that the files of earlier containers without network are lost: the last one never began, and no other has kept them.
fn lose_earlier(session: &mut Session<'_>) -> anyhow::Result<()> {
    let why = "the training job of the last container stage did not start, and the files of the script are lost, because SageMaker has \
               no files of its container";
    let hint =
        "leave `after_script` out, or give it time for an instance: set `RUNNER_AFTER_SCRIPT_TIMEOUT` to `30m` or more";
    session.printer.failure(&Failure::system(why).hint(hint).into());
    session.apply(SessionEvent::ResultsLost(&LostResults { why: why.to_owned(), by_job: false }))
}

/// Starts of the container before the one that sends the results.
fn restarts(session: &Session<'_>) -> u32 {
    let restarts = session.state.restarts();
    if session.state.is_collected() { restarts.collected } else { restarts.leader }
}

/// Orders the agents to leave that have sent everything and wait with the failure of their script: it ends those of the other nodes too.
/// Without the order they leave once `cleanup` has deleted the session's objects.
async fn let_go(session: &mut Session<'_>) {
    if session.state.nodes().len() < 2 || session.state.is_isolated() {
        return;
    }
    if let Err(error) = session.order(&Order::Finish { collect: false }).await {
        tracing::warn!(error = format!("{error:#}"), "failed to order the agents to leave");
    }
}

/// Notes that the results are lost with an earlier container, prints it as an error, and lets the new container go.
pub async fn give_up(session: &mut Session<'_>) -> anyhow::Result<()> {
    let why = "SageMaker started the container again, and the files of the script that had ended before are lost";
    session.apply(SessionEvent::ResultsLost(&LostResults { why: why.to_owned(), by_job: false }))?;
    session.printer.failure(&Failure::system(why).into());
    session.order(&Order::Finish { collect: false }).await?;
    session.apply(SessionEvent::ResultsSettled)
}

fn are_gone(session: &Session<'_>) -> bool {
    session.state.restarts().lost_files() && !session.state.is_collected()
}

/// Downloads what the other nodes send, each into a folder of its own, and tells what stays there.
async fn other_nodes(session: &mut Session<'_>, trees: &Trees, cancel: &Cancellation) -> anyhow::Result<()> {
    let mut first = None;
    if node_folders::sends_every_node(session) {
        node_folders::check(session.state.nodes(), trees)?;
        for node in session.state.nodes().ids().filter(|node| *node != NodeId::LEADER) {
            let fetched = fetch(session, node, &trees.in_folder(&node.to_string()), cancel, None).await;
            let Err(error) = fetched.with_context(|| failed_to_fetch(node)) else { continue };
            if cancel.asked() || session.records.is_closing(&session.id) {
                return Err(error);
            }
            // Those of the next nodes are as good as without this failure.
            if first.is_some() {
                session.printer.failure(&error);
            }
            first.get_or_insert(error);
        }
    }
    unsent::tell(session, cancel).await;
    first.map_or(Ok(()), Err)
}

fn failed_to_fetch(node: NodeId) -> String {
    format!("failed to fetch the files of {node}")
}

/// Downloads the results of a node while its agent sends them, and applies them.
async fn fetch(
    session: &mut Session<'_>,
    node: NodeId,
    trees: &Trees,
    cancel: &Cancellation,
    kept: Option<&KeptProject>,
) -> anyhow::Result<Download> {
    let progress = Arc::default();
    let fetched = fetch_with(session, node, trees, cancel, kept, &progress).await;
    // Threads of an abandoned transfer may still write.
    progress.at_rest().await;
    fetched
}

async fn fetch_with(
    session: &mut Session<'_>,
    node: NodeId,
    trees: &Trees,
    cancel: &Cancellation,
    kept: Option<&KeptProject>,
    progress: &Arc<TransferProgress>,
) -> anyhow::Result<Download> {
    let (files, bytes) = session.received_before(node);
    let limits = TransferLimits {
        max_bytes: session.settings.limits.results_max_bytes.saturating_sub(bytes),
        max_files: session.settings.limits.results_max_files.saturating_sub(files),
        ..TransferLimits::default()
    };
    let mut staging = session.records.staging(&session.id)?;
    if node != NodeId::LEADER {
        staging.set_file_name(node.to_string());
    }
    let (exchange, all_sent) = (session.exchange(), AllSent::default());
    // The record of an earlier version holds no selection.
    let selection = session.state.selection().cloned();
    let selection = selection.unwrap_or_else(|| Selection { everything: true, ..Selection::default() });
    let selection = selection.of_node(node);
    let bounds = Bounds { selection: &selection, limits: &limits };
    let destination = Destination { trees, staging: &staging };
    let restarts = restarts(session);
    let applying = async {
        match kept {
            Some(kept) => kept.apply(destination, bounds, progress).await,
            None => exchange.fetch_results(node, restarts, destination, bounds, &all_sent, progress).await,
        }
    };
    let applying = with_bar(session.printer, "Fetching the results", progress, applying);
    tokio::pin!(applying);
    // Results that have arrived are applied even after a failure or a cancel.
    let is_canceled =
        |session: &Session<'_>| !progress.has_arrived() && (cancel.asked() || session.records.is_closing(&session.id));
    let waited = tokio::select! {
        // Polled in a fixed order, so that the requests to the store have one too.
        biased;
        summary = &mut applying => {
            received(session, node, &summary?);
            return Ok(Download::Settled);
        }
        is_there = wait_for_results(session, node, cancel), if kept.is_none() => is_there,
    };
    if waited.is_err() && is_canceled(session) {
        return waited.map(|_| Download::Settled);
    }
    // The agent sends nothing more, whatever it reported.
    all_sent.set();
    let applied = loop {
        tokio::select! {
            applied = &mut applying => break applied,
            () = tokio::time::sleep(SLOW_POLL) => {
                if is_canceled(session) {
                    return Err(Failure::canceled("canceled while the results were fetched").into());
                }
            }
        }
    };
    match (waited, applied) {
        (_, Ok(summary)) => received(session, node, &summary),
        (Ok(true), Err(error)) if is_missing(&error) => vanished(session, error).await?,
        (Ok(true), Err(error)) | (Err(error), Err(_)) => return Err(error),
        (Ok(false), Err(error)) if progress.has_arrived() => return Err(error),
        (Ok(false), Err(_)) if are_gone(session) => return Ok(Download::FilesGone),
        (Ok(false), Err(error)) => {
            tracing::debug!(error = format!("{error:#}"), "there are no results");
            if is_ready(session, node) {
                session.printer.warn(no_results(node));
                let lost = lost_results(session, no_results(node)).await;
                session.apply(SessionEvent::ResultsLost(&lost))?;
            }
        }
    }
    Ok(Download::Settled)
}

fn received(session: &mut Session<'_>, node: NodeId, summary: &Summary) {
    session.print_received(node, summary);
    if node == NodeId::LEADER {
        node_folders::warn_of_shared(session, summary);
    }
}

fn is_ready(session: &Session<'_>, node: NodeId) -> bool {
    session.state.nodes().get(node).is_some_and(|row| row.ready)
}

fn no_results(node: NodeId) -> String {
    let sender = if node == NodeId::LEADER { "it".to_owned() } else { node.to_string() };
    format!("The training job ended before {sender} sent its results")
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<MissingPart>)
}

/// Results that an agent has sent are not in the store. Of a container without network, SageMaker stores them.
async fn vanished(session: &mut Session<'_>, error: anyhow::Error) -> anyhow::Result<()> {
    if !session.state.is_isolated() {
        return Err(Failure::system("the results of the job are not in the bucket any more")
            .hint("check that no lifecycle rule of the bucket deletes objects of running jobs")
            .caused_by(error)
            .into());
    }
    let lost = lost_results(session, "SageMaker has not stored the files of the container".to_owned()).await;
    session.printer.warn(&lost.why);
    session.apply(SessionEvent::ResultsLost(&lost))
}

/// Looks up why there are no results.
async fn lost_results(session: &Session<'_>, no_results: String) -> LostResults {
    let job = session.jobs.describe(&session.job_name()).await.ok().flatten();
    match job.and_then(|job| job.failure_reason) {
        Some(why) => {
            let Diagnosis { reason, by } = failure_reasons::diagnose(&why, true);
            LostResults { why: format!("{no_results}: {reason}"), by_job: by != LossKind::System }
        }
        None => LostResults { why: no_results, by_job: false },
    }
}

/// Waits for the results; `false` when the container ended without them. A cancel ends the wait: the results stay in
/// the store, and a later stage continues.
async fn wait_for_results(session: &mut Session<'_>, node: NodeId, cancel: &Cancellation) -> anyhow::Result<bool> {
    let mut pause = POLL;
    let mut look_at = Instant::now() + DESCRIBE_EVERY;
    // Of a container without network nothing arrives before the end.
    let mut ended = session.state.is_isolated();
    // The training job cannot run longer than this. A version that did not save it went by the operator's file.
    let most = match session.state.request().most_seconds {
        0 => session.settings.job.max_runtime_seconds,
        most => most,
    };
    let deadline = Instant::now() + Duration::from_secs(most);
    let (mut inbox, mut refusals) = (Inbox::default(), Refusals::default());
    loop {
        // An earlier stage may have read these reports.
        if node == NodeId::LEADER && session.state.is_collected() {
            return Ok(true);
        }
        if are_gone(session) {
            return Ok(false);
        }
        let row = session.state.nodes().get(node).copied().unwrap_or_default();
        if row.left {
            return Ok(false);
        }
        let report = inbox.next(session, node).await?;
        let came = report.is_some();
        match report {
            Some(Report::Collected { .. }) if node != NodeId::LEADER => return Ok(true),
            Some(report) => check_report(report)?,
            // Nothing is known, so an ended job must not count as one without results yet.
            None if inbox.is_silent() => ended = false,
            // No agent ever reported, as after a cancel during provisioning: there is nothing to wait for.
            None if !row.ready => return Ok(false),
            None if ended => return Ok(false),
            None => {}
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + DESCRIBE_EVERY;
            match session.jobs.describe(&session.job_name()).await {
                Ok(job) => {
                    refusals.passed(session);
                    ended = job.is_none_or(|job| job.status.is_terminal());
                }
                Err(error) => refusals.bear(session, error)?,
            }
        }
        // A later stage continues the download.
        if cancel.asked() || session.records.is_closing(&session.id) {
            return Err(Failure::canceled("canceled while waiting for results").into());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the results did not come before the training job's longest run time"
        );
        if came {
            continue;
        }
        pause = (pause * 3 / 2).min(SLOW_POLL);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.changed() => {}
        }
    }
}

/// Returns the failure that a report tells, and logs a summary of the results.
fn check_report(report: Report) -> anyhow::Result<()> {
    match report {
        Report::Collected { summary, .. } => tracing::info!(summary, "results collected"),
        Report::Failed { order, reason, by_job } => {
            let message = format!("the agent failed to {order}: {reason}");
            return Err(if by_job { Failure::user(message) } else { Failure::system(message) }.into());
        }
        Report::Ready { .. }
        | Report::Received { .. }
        | Report::Missing { .. }
        | Report::Damaged { .. }
        | Report::Started { .. }
        | Report::Kept { .. }
        | Report::Exited { .. }
        | Report::Unsent { .. }
        | Report::Bye { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
