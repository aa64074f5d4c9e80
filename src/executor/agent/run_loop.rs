//! The agent's main loop: reads all orders that have arrived, then carries them out, one script at a time.

mod results;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::agent::checkpoints;
use crate::agent::exec::{self, ScriptRun};
use crate::agent::failed_order::{failed, receive_failure};
use crate::agent::keep::{KeepBegun, KeepOnFailure};
use crate::agent::known_masks::KnownMasks;
use crate::agent::mailbox::{AgentMailbox, EarlierStarts};
use crate::agent::measure::{self, Recorder};
use crate::agent::node::ThisNode;
use crate::agent::stdio::CapturedStdio;
use crate::agent::trace_copy::{CopyMode, TraceCopy};
use crate::agent::volume;
use crate::agent::writable_places::WritablePlaces;
use crate::base::clock::Clock;
use crate::base::node::NodeId;
use crate::base::signals::Cancellation;
use crate::config::env::Environment;
use crate::protocol::agent_env::PREFIX;
use crate::protocol::mailbox::{ByeReason, ExitReport, Order, Report, RunOrder, WorkspaceOrder};
use crate::protocol::measurements;
use crate::workspace::{self, Snapshot, TransferProgress};

const BUSY_POLL: Duration = Duration::from_millis(40);
const IDLE_POLL: Duration = Duration::from_secs(1);
/// Poll interval while a script runs: only a cancel can arrive.
const RUNNING_POLL: Duration = Duration::from_secs(2);
/// The script's share of the 120 s that `StopTrainingJob` grants; the rest is for output and results.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Time limit for sending the results of a stopped job.
const LAST_RESULTS: Duration = Duration::from_mins(1);
/// Time limit for sending what was measured.
const LAST_MEASURED: Duration = Duration::from_secs(10);
/// Directory that SageMaker uploads when the training job ends.
const MODEL: &str = "/opt/ml/model";
/// Exit code of a script that was canceled before it began: as after SIGTERM.
const NEVER_BEGAN: i32 = 143;

/// The project in this container, or the failed attempt to fetch it.
struct Project {
    order: WorkspaceOrder,
    /// The received state, compared with the tree when results are collected. `None`: the project was not received.
    snapshot: Option<Snapshot>,
}

pub(super) struct RunLoop<'s> {
    mailbox: AgentMailbox,
    node: ThisNode,
    env: Environment,
    clock: Arc<dyn Clock>,
    stdio: &'s CapturedStdio,
    project: Option<Project>,
    /// An order to fetch the project that was not carried out yet.
    workspace_order: Option<WorkspaceOrder>,
    /// A pack was missing; the driver will send another attempt.
    awaits_project: bool,
    /// The orders to run a script that were not carried out yet, with their numbers.
    pending: VecDeque<(u32, RunOrder)>,
    seen: BTreeSet<u32>,
    canceled: BTreeSet<u32>,
    finish: Option<bool>,
    /// A script that an interruption has ended may run again.
    may_rerun: bool,
    /// The starts of the container before this one.
    earlier: EarlierStarts,
    /// The files of an earlier start's scripts are gone, and no script has begun since.
    has_lost_files: bool,
    recorder: Recorder,
    masks: KnownMasks,
    /// Exit code of the first script that failed, not counting `after_script`.
    code: i32,
}

/// The reason to leave the loop.
enum LoopEnd {
    Finish { collect: bool },
    Stopped,
    LeaseExpired,
}

impl<'s> RunLoop<'s> {
    pub(super) fn new(
        mailbox: AgentMailbox,
        node: ThisNode,
        env: Environment,
        clock: Arc<dyn Clock>,
        stdio: &'s CapturedStdio,
        may_rerun: bool,
    ) -> Self {
        Self {
            mailbox,
            node,
            env,
            clock,
            stdio,
            project: None,
            workspace_order: None,
            awaits_project: false,
            pending: VecDeque::new(),
            seen: BTreeSet::new(),
            canceled: BTreeSet::new(),
            finish: None,
            may_rerun,
            earlier: EarlierStarts::default(),
            has_lost_files: false,
            recorder: Recorder::default(),
            masks: KnownMasks::default(),
            code: 0,
        }
    }

    /// Serves orders until the end of the session; returns the exit code for SageMaker. No job finds files of another one in
    /// `places`.
    pub(super) async fn serve(mut self, places: WritablePlaces, cancellation: &Cancellation) -> anyhow::Result<i32> {
        let served = self.serve_session(&places, cancellation).await;
        let trees = self.project.map(|project| project.order.trees);
        on_thread(move || places.after_the_job(trees.as_ref())).await?;
        served
    }

    async fn serve_session(&mut self, places: &WritablePlaces, cancellation: &Cancellation) -> anyhow::Result<i32> {
        let agent = env!("CARGO_PKG_VERSION");
        let nodes = self.node.hosts.clone();
        let ready = |restarts, after, checkpoints| {
            let (agent, nodes) = (agent.to_owned(), nodes.clone());
            Report::Ready { agent, nodes, restarts, after, checkpoints }
        };
        let earlier = self.mailbox.resume(&ready(0, 0, None)).await?;
        let EarlierStarts { count, last_run, has_finished, .. } = earlier;
        if !earlier.may_go_on(self.may_rerun) {
            // The script must not run twice: its effects elsewhere cannot be undone, and its files in this container are gone.
            let reason = if has_finished {
                "SageMaker started the container again after the last script had ended; its model is lost"
            } else {
                "SageMaker started the container again after a script had begun; its files are lost"
            };
            let order = "resume the session".to_owned();
            self.mailbox.report(&Report::Failed { order, reason: reason.to_owned(), by_job: false }).await?;
            self.mailbox.report(&Report::Bye { reason: ByeReason::Other }).await?;
            anyhow::bail!("{reason}");
        }
        if count == 0 {
            let places = places.clone();
            on_thread(move || places.before_the_job()).await?;
        }
        self.earlier = earlier;
        // The driver orders again what an interruption has ended, and sends the project anew.
        (self.has_lost_files, self.awaits_project) = (last_run > 0, last_run > 0);
        self.mailbox.skip_orders(last_run);
        let keeps_checkpoints = places.has_checkpoints() && self.node.id == NodeId::LEADER;
        let checkpoints =
            if keeps_checkpoints { tokio::task::spawn_blocking(checkpoints::look).await.ok().flatten() } else { None };
        self.mailbox.report(&ready(count, last_run, checkpoints)).await?;
        let end = self.serve_orders(cancellation).await?;
        let (collect, reason) = match end {
            LoopEnd::Finish { collect } => (collect, ByeReason::Finished),
            LoopEnd::Stopped => (true, ByeReason::Stopped),
            LoopEnd::LeaseExpired => (true, ByeReason::LeaseExpired),
        };
        self.send_measured().await;
        if collect && !self.has_lost_files {
            let limit = if reason == ByeReason::Finished { Duration::MAX } else { LAST_RESULTS };
            self.collect(limit).await?;
        }
        self.mailbox.report(&Report::Bye { reason }).await?;
        if collect && reason == ByeReason::Finished {
            self.hold_failure(cancellation).await;
        }
        Ok(self.code)
    }

    async fn serve_orders(&mut self, cancellation: &Cancellation) -> anyhow::Result<LoopEnd> {
        let mut pause = BUSY_POLL;
        loop {
            let mut progress = self.drain_orders().await?;
            if cancellation.asked() {
                return Ok(LoopEnd::Stopped);
            }
            if let Some(end) = self.receive(cancellation).await? {
                return Ok(end);
            }
            while !self.awaits_project
                && let Some((number, run)) = self.pending.pop_front()
            {
                progress = true;
                if let Some(end) = self.run_script(number, run, cancellation).await? {
                    return Ok(end);
                }
                self.drain_orders().await?;
            }
            if let Some(collect) = self.finish {
                return Ok(LoopEnd::Finish { collect });
            }
            self.mailbox.check_access()?;
            self.mailbox.check_for_others().await?;
            if self.mailbox.lease_expired().await {
                tracing::error!("the runner host has not renewed the lease, leaving");
                return Ok(LoopEnd::LeaseExpired);
            }
            pause = if progress { BUSY_POLL } else { (pause * 3 / 2).min(IDLE_POLL) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancellation.changed() => {}
            }
        }
    }

    /// Reads every order that has arrived, so that a cancel is seen before its script begins. Returns true when there was one.
    async fn drain_orders(&mut self) -> anyhow::Result<bool> {
        let mut progress = false;
        while let Some(order) = self.mailbox.next_order().await? {
            progress = true;
            match order {
                Order::Workspace(order) if !self.has_project() => self.workspace_order = Some(order),
                // A number arrives twice when the driver lost the reply to its first write. A received project is not fetched again.
                Order::Run(order) if self.seen.insert(order.run) => {
                    self.pending.push_back((self.mailbox.last_order(), order));
                }
                Order::Run(_) | Order::Workspace(_) => {}
                Order::Cancel { run } => {
                    self.canceled.insert(run);
                }
                // Sent before the driver knew that the files are gone: it will order something else.
                Order::Finish { collect: true }
                    if self.has_lost_files && self.seen.is_empty() && !self.earlier.has_collected => {}
                Order::Finish { collect } => self.finish = Some(collect),
            }
        }
        Ok(progress)
    }

    /// Receives the project; returns `Some` when the agent has to leave. Reads orders meanwhile: a later attempt replaces this one, for
    /// a killed driver will not finish the earlier one.
    async fn receive(&mut self, cancellation: &Cancellation) -> anyhow::Result<Option<LoopEnd>> {
        while let Some(workspace_order) = self.workspace_order.take() {
            let (objects, trees) = (self.mailbox.objects.clone(), workspace_order.trees.clone());
            let (attempt, packs) = (workspace_order.attempt, &workspace_order.packs);
            let keys = self.mailbox.keys.workspace(attempt, packs);
            let earlier = workspace_order.stage.as_ref().and_then(|stage| stage.earlier.as_ref());
            let earlier = earlier.map(|earlier| earlier.keys(self.mailbox.keys.seal(), packs));
            let progress = Arc::<TransferProgress>::default();
            let receiving = {
                let progress = progress.clone();
                async move {
                    volume::create_trees(&trees)?;
                    let received = match earlier {
                        Some((kept, host)) => workspace::receive_kept(&*objects, &kept, &host, &trees, &progress).await,
                        None => workspace::receive(&*objects, &keys, &trees, &progress).await,
                    };
                    received.map_err(volume::explained)
                }
            };
            let mut receiving = Box::pin(receiving);
            let mut pause = BUSY_POLL;
            let outcome = loop {
                tokio::select! {
                    outcome = &mut receiving => break Some(outcome),
                    // No failure: after an interruption, the next start of the container fetches it.
                    () = cancellation.token().cancelled() => return Ok(Some(LoopEnd::Stopped)),
                    () = tokio::time::sleep(pause) => {
                        pause = (pause * 3 / 2).min(IDLE_POLL);
                        self.drain_orders().await?;
                        if self.workspace_order.is_some() {
                            break None;
                        }
                        // A stage without network has all its orders from the beginning.
                        if self.finish.is_some() && workspace_order.stage.is_none() {
                            break Some(Err(anyhow::anyhow!("the driver ended the session while the project was received")));
                        }
                        if self.mailbox.lease_expired().await {
                            return Ok(Some(LoopEnd::LeaseExpired));
                        }
                    }
                }
            };
            drop(receiving);
            progress.at_rest().await;
            let Some(outcome) = outcome else { continue };
            let (snapshot, report) = match outcome {
                Ok((snapshot, summary)) => (Some(snapshot), Report::Received { summary: summary.received() }),
                Err(error) => (None, receive_failure(&error, workspace_order.attempt)),
            };
            self.awaits_project = matches!(report, Report::Missing { .. });
            self.project = Some(Project { order: workspace_order, snapshot });
            self.mailbox.report(&report).await?;
        }
        Ok(None)
    }

    fn has_project(&self) -> bool {
        self.project.as_ref().is_some_and(|project| project.snapshot.is_some())
    }

    /// Runs one script to its end; returns `Some` when the agent has to leave afterwards.
    async fn run_script(
        &mut self,
        order_number: u32,
        order: RunOrder,
        cancellation: &Cancellation,
    ) -> anyhow::Result<Option<LoopEnd>> {
        let number = order.run;
        if self.canceled.contains(&number) || cancellation.asked() {
            self.mailbox.report(&Report::Exited { run: number, exit: never_began() }).await?;
            return Ok(None);
        }
        let (stage, samples) = (order.stage.clone(), order.samples && self.node.id == NodeId::LEADER);
        let (keys, node, env) = (self.mailbox.keys.clone(), self.node.id, self.env.clone());
        let mode = if order.live_copy { CopyMode::Live } else { CopyMode::Late };
        let copy = TraceCopy::new(self.mailbox.objects.clone(), mode, move |batch| keys.trace(node, number, batch));
        let (begun, mut kept) = mpsc::unbounded_channel();
        let keep = (order.keep_on_failure > 0).then(|| KeepOnFailure {
            limit: Duration::from_secs(order.keep_on_failure),
            clock: Arc::clone(&self.clock),
            begun,
        });
        let (_scratch, spec) = match self.script_run(order, keep).await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.mailbox.report(&failed(&format!("start {stage}"), &error)).await?;
                return Ok(None);
            }
        };
        self.mailbox.report(&Report::Started { run: number, order: order_number }).await?;
        self.has_lost_files = false;
        let cancel = CancellationToken::new();
        let (mut end, mut is_kept) = (None, false);
        let exit = {
            let script = exec::run(&spec, copy, self.stdio, &cancel);
            let sampling = measure::sample(samples.then(|| self.recorder.clone()), &env);
            tokio::pin!(script, sampling);
            let mut pause = BUSY_POLL;
            loop {
                tokio::select! {
                    exit = &mut script => break exit,
                    never = &mut sampling => match never {},
                    Some(KeepBegun { code, bytes, until, release }) = kept.recv() => {
                        is_kept = true;
                        let release = release.display().to_string();
                        self.mailbox.report(&Report::Kept { run: number, code, bytes, until, release }).await?;
                    }
                    () = cancellation.token().cancelled(), if end.is_none() => {
                        end = Some(LoopEnd::Stopped);
                        cancel.cancel();
                    }
                    () = tokio::time::sleep(pause) => {
                        pause = (pause * 3 / 2).min(RUNNING_POLL);
                        self.drain_orders().await?;
                        if self.canceled.contains(&number) {
                            cancel.cancel();
                        }
                        self.mailbox.check_for_others().await?;
                        if end.is_none() && self.mailbox.lease_expired().await {
                            end = Some(LoopEnd::LeaseExpired);
                            cancel.cancel();
                        }
                    }
                }
            }
        };
        self.report_end(number, &stage, exit, !is_kept && cancel.is_cancelled()).await?;
        Ok(end)
    }

    /// Reports how a script ended, and keeps the exit code of the first that failed.
    async fn report_end(
        &mut self,
        run: u32,
        stage: &str,
        exit: anyhow::Result<ExitReport>,
        canceled: bool,
    ) -> anyhow::Result<()> {
        let report = match exit {
            Ok(exit) => {
                if stage != "after_script" && self.code == 0 {
                    self.code = exit.code;
                }
                let canceled = exit.canceled || canceled;
                let exit = ExitReport { canceled, has_model: volume::has_files(Path::new(MODEL)), ..exit };
                Report::Exited { run, exit }
            }
            Err(error) => {
                // Not fatal: the next script may succeed, and the results can still be collected.
                self.code = if self.code == 0 { 1 } else { self.code };
                failed(&format!("run {stage}"), &error)
            }
        };
        self.mailbox.report(&report).await
    }

    /// Downloads the script and describes its run. The folder holds the script; dropped, it is removed.
    async fn script_run(
        &mut self,
        order: RunOrder,
        keep: Option<KeepOnFailure>,
    ) -> anyhow::Result<(tempfile::TempDir, ScriptRun)> {
        let Some(project) = self.project.as_ref().filter(|project| project.snapshot.is_some()) else {
            anyhow::bail!("the project was not received");
        };
        let script = self.mailbox.script(order.run).await?;
        let is_ordered = blake3::hash(&script).to_hex().as_str() == order.script;
        anyhow::ensure!(
            is_ordered,
            "the script in the store is not the one that was ordered: another writer has stored it"
        );
        let (folder, path) = volume::script(&script)?;
        let spec = ScriptRun {
            run: order.run,
            seal: self.mailbox.keys.seal().of_node(self.node.id),
            stage: order.stage,
            script: path,
            env: script_env(self.env.all(), order.variables),
            cwd: project.order.trees.project.clone(),
            masks: self.masks.with(order.masks),
            mask_prefixes: order.mask_prefixes,
            progress_rate: order.progress_rate,
            term_grace: Duration::from_secs(order.grace).min(STOP_GRACE),
            keep,
            clock: Arc::clone(&self.clock),
            metrics: order.metrics,
            recorder: self.recorder.clone(),
        };
        Ok((folder, spec))
    }

    /// Sends what the first node measured. A failure is logged: no job fails for want of curves.
    async fn send_measured(&self) {
        let (node, measured) = (self.node.id, self.recorder.measured());
        if node != NodeId::LEADER || measured.is_empty() {
            return;
        }
        let key = self.mailbox.keys.measurements(node, self.earlier.count);
        let body = measurements::encode_measurements(&self.mailbox.keys, node, self.earlier.count, &measured);
        let sent = tokio::time::timeout(LAST_MEASURED, self.mailbox.objects.put(&key, body)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to send what was measured"),
            Err(_) => tracing::warn!("no time was left to send what was measured"),
        }
    }
}

/// The environment of a script: that of the container and the node, and the order's variables.
fn script_env(
    container: impl Iterator<Item = (String, String)>,
    ordered: BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let of_container = container.filter(|(name, _)| !name.starts_with(PREFIX) && !ordered.contains_key(name));
    let mut env: Vec<_> = of_container.collect();
    env.extend(ordered);
    env
}

fn never_began() -> ExitReport {
    ExitReport {
        has_model: volume::has_files(Path::new(MODEL)),
        code: NEVER_BEGAN,
        bytes: 0,
        hash: String::new(),
        canceled: true,
        at: 0,
        ran: None,
        copy: Some(0),
    }
}

async fn on_thread(work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(work).await.context("failed to remove files of a job")
}
