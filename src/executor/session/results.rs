//! Downloads the results of a session, applies them to the project directory, and lets the instance go.

use std::sync::Arc;
use std::time::Duration;

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
use crate::session::record::LostResults;
use crate::session::state::ResultsState as Outcome;
use crate::session::{node_folders, stage_end, unsent};
use crate::workspace::{AllSent, Bounds, Destination, Summary, TransferLimits, TransferProgress};

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
    if !session.state.is_finished() {
        session.order(&Order::Finish { collect: true }).await?;
    }
    if !session.printer.is_terminal() {
        session.printer.line("Fetching the results");
    }
    stage_end::wait_for_end(session, cancel).await?;
    let fetched = fetch(session, NodeId::LEADER, trees, cancel).await?;
    if fetched == Download::Settled {
        if session.state.results() == Outcome::Pending {
            other_nodes(session, trees, cancel).await?;
        }
        session.apply(SessionEvent::ResultsSettled)?;
        let_go(session).await;
    }
    Ok(fetched)
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
    if node_folders::sends_every_node(session) {
        node_folders::check(session.state.nodes(), trees)?;
        for node in session.state.nodes().ids().filter(|node| *node != NodeId::LEADER) {
            fetch(session, node, &trees.in_folder(&node.to_string()), cancel).await?;
        }
    }
    unsent::tell(session, cancel).await;
    Ok(())
}

/// Downloads the results of a node while its agent sends them, and applies them.
async fn fetch(
    session: &mut Session<'_>,
    node: NodeId,
    trees: &Trees,
    cancel: &Cancellation,
) -> anyhow::Result<Download> {
    let progress = Arc::default();
    let fetched = fetch_with(session, node, trees, cancel, &progress).await;
    // Threads of an abandoned transfer may still write.
    progress.at_rest().await;
    fetched
}

async fn fetch_with(
    session: &mut Session<'_>,
    node: NodeId,
    trees: &Trees,
    cancel: &Cancellation,
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
    let restarts = session.state.restarts();
    let restarts = if session.state.is_collected() { restarts.collected } else { restarts.leader };
    let applying = exchange.fetch_results(node, restarts, destination, bounds, &all_sent, progress);
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
        is_there = wait_for_results(session, node, cancel) => is_there,
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
        (Ok(true), Err(error)) | (Err(error), Err(_)) => return Err(error),
        (Ok(false), Err(error)) if progress.has_arrived() => return Err(error),
        (Ok(false), Err(_)) if are_gone(session) => return Ok(Download::FilesGone),
        (Ok(false), Err(error)) => {
            tracing::debug!(error = format!("{error:#}"), "there are no results");
            if is_ready(session, node) {
                let lost = lost_results(session, node).await;
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

/// Looks up why there are no results.
async fn lost_results(session: &Session<'_>, node: NodeId) -> LostResults {
    let no_results = no_results(node);
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
    let mut inbox = Inbox::default();
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
            if row.ready {
                session.printer.warn(no_results(node));
            }
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
            None if ended => {
                session.printer.warn(no_results(node));
                return Ok(false);
            }
            None => {}
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + DESCRIBE_EVERY;
            match session.jobs.describe(&session.job_name()).await {
                Ok(job) => ended = job.is_none_or(|job| job.status.is_terminal()),
                Err(error) if error.kind.may_pass() => tracing::warn!(%error, "failed to describe the training job"),
                Err(error) => return Err(error.into()),
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::node::Nodes;
    use crate::cloud::testing::{Fault, Memory, When, example_spec};
    use crate::cloud::{CloudErrorKind, TrainingJobs as _};
    use crate::config::settings::Settings;
    use crate::protocol::mailbox;
    use crate::session::node_record::NodeRecord;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::requested_job::RequestedJob;
    use crate::session::state::SessionState;
    use crate::session::{Host, SessionId, spec};
    use crate::ui::Printer;
    use crate::workspace;

    const NAME: &str = "gitlab-1-2-abcdef12";

    const NEW: NodeRecord = NodeRecord { ready: false, left: false, told: false, reports: 0 };
    const READY: NodeRecord = NodeRecord { ready: true, ..NEW };
    const LEFT: NodeRecord = NodeRecord { left: true, ..NEW };

    fn one(node: NodeRecord) -> Nodes<NodeRecord> {
        Nodes::new(1, |_| node)
    }

    /// A one-node job without any report.
    fn silent() -> SessionRecord {
        SessionRecord { nodes: one(NEW), ..SessionRecord::default() }
    }

    fn attach<'a>(id: SessionId, memory: &Memory, settings: &'a Settings, printer: &'a Printer) -> Session<'a> {
        let host = Host::with_real_time(settings, printer);
        Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap()
    }

    async fn wait(memory: &Memory, record: SessionRecord, cancel: &Cancellation) -> anyhow::Result<bool> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let printer = Printer::captured().0;
        memory.jobs.create(&example_spec(NAME)).await.unwrap();
        let id = SessionId::parse(NAME).unwrap();
        Records::open(dir.path()).unwrap().save(&id, &record).unwrap();
        let mut session = attach(id, memory, &settings, &printer);
        wait_for_results(&mut session, NodeId::LEADER, cancel).await
    }

    #[tokio::test(start_paused = true)]
    async fn results_that_were_told_to_an_earlier_stage_are_fetched_although_the_job_has_ended() {
        let memory = Memory::new();
        let record = SessionRecord { collected: true, nodes: one(LEFT), ..SessionRecord::default() };
        assert!(wait(&memory, record, &Cancellation::default()).await.unwrap());
        let record = SessionRecord { nodes: one(LEFT), ..SessionRecord::default() };
        let memory = Memory::new();
        assert!(!wait(&memory, record, &Cancellation::default()).await.unwrap());
    }

    #[tokio::test]
    async fn results_are_applied_once_they_are_there_whatever_the_agent_says() {
        let folder = tempfile::tempdir().unwrap();
        let side = |name: &str| {
            let project = folder.path().join(name);
            std::fs::create_dir(&project).unwrap();
            Trees { tmp: project.with_extension("tmp"), project, host: None }
        };
        let (container, host) = (side("container"), side("host"));
        std::fs::write(container.project.join("model"), "weights").unwrap();
        let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
        let route = spec::session_keys(&id, None).results(NodeId::LEADER, 0);
        let selection = Selection { everything: true, ..Selection::default() };
        let (snapshot, progress) = (workspace::Snapshot::default(), Arc::default());
        workspace::send_changes(&*memory.objects, &route, &container, &snapshot, &selection, &progress).await.unwrap();

        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", folder.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let record = SessionRecord { nodes: one(READY), finished: true, ..SessionRecord::default() };
        Records::open(folder.path()).unwrap().save(&id, &record).unwrap();
        let (printer, _) = Printer::captured();
        let mut session = attach(id, &memory, &settings, &printer);
        memory.jobs.create(&example_spec(NAME)).await.unwrap();
        download_results(&mut session, &host, &Cancellation::default()).await.unwrap();
        assert_eq!(std::fs::read_to_string(host.project.join("model")).unwrap(), "weights");
        assert_eq!(session.state.results(), Outcome::Applied);

        // Its report may even be a failure, or never come.
        for report in [
            Report::Failed {
                order: "send the results".to_owned(),
                reason: "no time was left".to_owned(),
                by_job: false,
            },
            Report::Bye { reason: crate::protocol::mailbox::ByeReason::Stopped },
        ] {
            std::fs::remove_file(host.project.join("model")).unwrap();
            let known = session.state.snapshot().clone();
            let number = session.state.leader().reports + 1;
            let nodes = one(NodeRecord { reports: number - 1, ..READY });
            session.state = SessionState::from(SessionRecord { results_applied: false, nodes, ..known });
            let (keys, node) = (session.keys(), NodeId::LEADER);
            memory.objects.insert(&keys.report(node, number), mailbox::encode_report(&keys, node, number, &report));
            download_results(&mut session, &host, &Cancellation::default()).await.unwrap();
            assert_eq!(std::fs::read_to_string(host.project.join("model")).unwrap(), "weights");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_and_a_service_that_falter_are_waited_for() {
        let memory = Memory::new();
        let keys = spec::session_keys(&SessionId::parse(NAME).unwrap(), None);
        let report = Report::Collected { summary: String::new(), restarts: 0 };
        let report = mailbox::encode_report(&keys, NodeId::LEADER, 1, &report);
        memory.objects.insert(&keys.report(NodeId::LEADER, 1), report);
        let get = Fault::new("get", 1, When::Before, CloudErrorKind::Transient).times(100);
        let describe = Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled);
        memory.objects.plan([get]);
        memory.jobs.plan([describe]);
        assert!(wait(&memory, silent(), &Cancellation::default()).await.unwrap());

        let memory = Memory::new();
        let get = Fault::new("get", 1, When::Before, CloudErrorKind::Transient).forever();
        memory.objects.plan([get]);
        assert!(wait(&memory, silent(), &Cancellation::default()).await.is_err(), "for one lease");
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_as_long_as_the_training_job_may_run() {
        let memory = Memory::new();
        let most = 600;
        let request = RequestedJob { most_seconds: most, ..RequestedJob::default() };
        let record = SessionRecord { nodes: one(READY), request, ..SessionRecord::default() };
        memory.jobs.plan([Fault::new("describe", 1, When::Before, CloudErrorKind::Throttled).forever()]);
        let before = Instant::now();
        assert!(wait(&memory, record, &Cancellation::default()).await.is_err());
        assert_eq!(before.elapsed().as_secs(), most, "not the default of the operator's file");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_ends_the_wait() {
        let memory = Memory::new();
        let cancel = Cancellation::default();
        cancel.raise();
        let record = SessionRecord { nodes: one(READY), ..SessionRecord::default() };
        assert!(wait(&memory, record, &cancel).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_never_came_is_not_waited_for() {
        let memory = Memory::new();
        let before = Instant::now();
        assert!(!wait(&memory, silent(), &Cancellation::default()).await.unwrap());
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
