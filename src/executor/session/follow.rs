//! Follows one container stage: prints its output and returns how it ended.
//!
//! Polls the mailbox, the two sources of the output (`Sources`) and the training job (`Describe`), each at its own
//! interval. [`RunMachine`] decides what follows from each answer; `Output` decides what is printed.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::node::NodeId;
use crate::base::signals::Cancellation;
use crate::cloud::{CloudError, CloudErrorKind, TrainingJob};
use crate::logs::Feed;
use crate::protocol::mailbox::{Order, Report};
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::failure_reasons::LossKind;
use crate::session::inbox::Inbox;
use crate::session::machine::{CancelUrgency, Conclusion, RunConfig, RunEffect, RunEvent, RunMachine};
use crate::session::output::{EndSeen, Output};
use crate::session::phases::Waiting;
use crate::session::poll::{Describe, Poll};
use crate::session::refusals::Refusals;
use crate::session::remote_access::{self, KeptContainer};
use crate::session::run_end;
use crate::session::silence::Silence;
use crate::session::sources::{FIRST_EVENTS, GAP_PATIENCE, LAST_EVENTS, Sources};
use crate::session::workspace_upload::WorkspaceUpload;

mod instance_wait;
mod lost_mailbox;

use instance_wait::InstanceWait;

/// The first moments of a run, polled more often: most stages are short.
const OPENING: Duration = Duration::from_secs(3);
/// Poll interval of the mailbox during that time, after something came ...
const OPENING_POLL: Duration = Duration::from_millis(40);
/// ... and later: under steady output the agent stores one batch a second.
const BUSY_POLL: Duration = Duration::from_millis(600);
const IDLE_POLL: Duration = Duration::from_secs(1);
/// Poll interval of the reports while output flows from the copy, whose end frame comes before the exit report.
const REPORTS_BESIDE_COPY: Duration = Duration::from_secs(5);
/// Poll interval of what the log reader fetched (local files) while output is expected from the log ...
const FEED_POLL: Duration = Duration::from_millis(250);
/// ... and while the copy has brought the same.
const FEED_BESIDE_COPY: Duration = Duration::from_secs(1);
/// Most packs that are checked because a node reported them damaged.
const MOST_EXAMINED: usize = 8;
/// Reports of one node that are read in one go.
const MOST_AT_ONCE: u32 = 64;
/// Until a new job's tags are visible, an IAM policy with a tag condition may deny the call.
const TAGS_VISIBLE: Duration = Duration::from_mins(5);

/// Follows one run until it ends.
pub struct Follower<'s, 'a> {
    session: &'s mut Session<'a>,
    upload: &'s WorkspaceUpload,
    machine: RunMachine,
    run: u32,
    sources: Sources,
    started: Instant,
    reports: Poll,
    copy: Poll,
    describe: Describe,
    /// Refused looks at the training job.
    refusals: Refusals,
    instances: InstanceWait,
    silence: Silence,
    /// Containers of failed scripts that are to be told once the output is printed.
    kept: Vec<KeptContainer>,
    /// The order to end the script is in the mailbox.
    cancel_sent: bool,
    inbox: Inbox,
    /// The training job ended while the mailbox could not be read, which has the agents' last reports.
    ended_unheard: bool,
    /// The upload attempt of which a node misses chunks.
    missing: Option<u32>,
    script_forgotten: bool,
    /// Packs that were checked because a node reported them damaged.
    examined: BTreeSet<String>,
}

impl<'s, 'a> Follower<'s, 'a> {
    /// Follows run `run` of the session, and prints from its cursor on. `provisioning` is the longest wait for the container.
    pub fn new(
        session: &'s mut Session<'a>,
        upload: &'s WorkspaceUpload,
        run: u32,
        feed: Feed,
        provisioning: Duration,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let limits = &session.settings.limits;
        let mut machine = RunMachine::new(RunConfig {
            run,
            nodes: session.state.nodes().len(),
            grace: Duration::from_secs(limits.cancel_grace_seconds),
            provisioning,
            may_rerun: session.state.request().may_rerun,
            reports_are_late: session.state.is_isolated(),
        });
        for (node, row) in session.state.nodes().iter() {
            let (is_ready, has_left) = (row.ready, row.left);
            machine.apply(&RunEvent::Known { node, is_ready, has_left }, Duration::ZERO);
        }
        let cancel_sent = session.state.is_ending(run);
        if cancel_sent {
            machine.apply(&RunEvent::CancelSent, Duration::ZERO);
        }
        let describe = Describe::new(started, machine.is_leaving());
        let sources = Sources::new(Output::of(session, run)?, feed, session.reads_copy_live());
        let created = match session.state.created() {
            0 => session.clock.now(),
            seconds => UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let waiting = (!machine.is_ready()).then(|| {
            let (instance, job) = (session.state.shown_type(), session.state.job_number());
            Waiting::new(session.printer, &instance, job, created, started.into_std())
        });
        Ok(Self {
            session,
            upload,
            machine,
            run,
            sources,
            started,
            reports: Poll::new(started),
            copy: Poll::new(started),
            describe,
            refusals: Refusals::default(),
            instances: InstanceWait::new(waiting),
            silence: Silence::new(started),
            kept: Vec::new(),
            cancel_sent,
            inbox: Inbox::default(),
            ended_unheard: false,
            missing: None,
            script_forgotten: false,
            examined: BTreeSet::new(),
        })
    }

    /// Polls and prints until the machine concludes.
    pub async fn follow(mut self, cancel: &Cancellation) -> anyhow::Result<Conclusion> {
        let followed = self.until_concluded(cancel).await;
        self.instances.break_off(self.session, "failed");
        // The next stage reads the log on from here, however this one ended.
        self.session.apply(SessionEvent::LogRead(self.sources.feed.floors()))?;
        followed
    }

    async fn until_concluded(&mut self, cancel: &Cancellation) -> anyhow::Result<Conclusion> {
        self.sources.resume(&self.session.exchange()).await;
        let mut canceled = (false, false);
        loop {
            let mut effects = Vec::new();
            self.turn(&mut effects).await?;
            if let Some(attempt) = self.missing.take() {
                self.upload.send_again(self.session, attempt, cancel).await?;
            }
            self.upload.send_once(self.session, cancel).await?;
            if self.session.printer.is_broken() {
                // GitLab Runner was killed: no one reads the output, and the stage's boundary closes the session.
                anyhow::bail!("the reader of the job's output has gone");
            }
            if cancel.asked() && !canceled.0 {
                canceled.0 = true;
                effects.extend(self.apply(&RunEvent::Cancel(CancelUrgency::Graceful)));
            }
            let closing = self.session.records.is_closing(&self.session.id);
            if (cancel.at_once() || closing) && !canceled.1 {
                canceled.1 = true;
                effects.extend(self.apply(&RunEvent::Cancel(CancelUrgency::Immediate)));
            }
            effects.extend(self.apply(&RunEvent::Tick));
            for effect in effects {
                if let Some(conclusion) = self.perform(effect).await? {
                    self.finish(&conclusion).await?;
                    return Ok(conclusion);
                }
            }
            let next = self.reports.next.min(self.copy.next).min(self.describe.wake()).min(self.feed_due());
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = cancel.changed() => self.reports.next = Instant::now(),
            }
        }
    }

    fn apply(&mut self, event: &RunEvent<'_>) -> Vec<RunEffect> {
        self.machine.apply(event, self.started.elapsed())
    }

    /// Polls everything that is due.
    async fn turn(&mut self, effects: &mut Vec<RunEffect>) -> anyhow::Result<()> {
        // Of a container without network, the log brings the reports.
        let is_isolated = self.session.state.is_isolated();
        if is_isolated {
            self.sources.read_log(self.session.printer)?;
            if self.sources.output.pass_on_reports(&self.session.exchange()).await {
                self.reports = Poll::new(Instant::now());
            }
        }
        let now = Instant::now();
        if self.reports.is_due(now) {
            let (mut came, mut all_read) = (false, true);
            for node in self.sources.output.nodes.ids() {
                came |= self.read_reports(node, effects).await?;
                all_read &= !self.inbox.is_silent();
            }
            if !all_read {
                self.apply(&RunEvent::Unheard);
            } else if self.cancel_sent {
                effects.extend(self.apply(&RunEvent::ReadSinceCancel));
            }
            if all_read && std::mem::take(&mut self.ended_unheard) {
                self.describe.hasten();
            }
            if came && self.machine.all_started() {
                self.forget_script().await;
            }
            let (least, most) = self.reports_pace();
            self.reports.done(Instant::now(), came, least, most);
            if came {
                self.copy.next = now;
            }
        }
        if self.copy.is_due(now) {
            let came = self.sources.read_copy(&self.session.exchange()).await;
            let most = if self.sources.wants_copy() { IDLE_POLL } else { GAP_PATIENCE };
            self.copy.done(Instant::now(), came, self.least_poll(), most);
            if came && self.sources.output.copy_is_behind() {
                self.copy.next = now;
            }
        }
        if !is_isolated {
            self.sources.read_log(self.session.printer)?;
        }
        let is_ready = self.machine.is_ready();
        if self.instances.show(self.session, &self.sources.output.nodes, is_ready).await? {
            self.describe.answered(false);
            self.sources.feed.started();
        }
        let ends = self.print()?;
        // After printing: a slow reader of our stdout is no silence of the node.
        for (id, node) in self.sources.output.nodes.iter_mut() {
            let bytes = node.bytes();
            if bytes > node.followed {
                node.followed = bytes;
                self.silence.heard(Instant::now());
                self.machine.apply(&RunEvent::Progress { node: id }, self.started.elapsed());
            }
        }
        let nodes = &self.sources.output.nodes;
        for node in remote_access::tell_printed(self.session, nodes, &mut self.kept) {
            let event = RunEvent::Trace { node, end: None, complete: true };
            effects.extend(self.machine.apply(&event, self.started.elapsed()));
        }
        if self.machine.all_started() && !self.instances.is_waiting() {
            self.silence.tell(self.session, nodes);
        }
        for end in ends {
            // The exit report follows the output at once.
            self.reports = Poll::new(Instant::now());
            let event = RunEvent::Trace { node: end.node, end: end.end, complete: end.complete };
            effects.extend(self.machine.apply(&event, self.started.elapsed()));
        }
        if let Some(answer) = self.describe.turn(self.session).await {
            self.learn(answer, effects)?;
        }
        Ok(())
    }

    /// Every node has read the script and the orders up to it, which hold secrets. `cleanup` deletes what is left.
    async fn forget_script(&mut self) {
        if std::mem::replace(&mut self.script_forgotten, true) {
            return;
        }
        let order = self.session.state.run().map_or(0, |run| run.order);
        if let Err(error) = self.session.exchange().forget_script(self.run, order).await {
            tracing::warn!(%error, "failed to delete the script that was read");
        }
    }

    fn feed_due(&self) -> Instant {
        let beside_copy = self.session.reads_copy_live() && !self.machine.any_ended();
        Instant::now() + if beside_copy { FEED_BESIDE_COPY } else { FEED_POLL }
    }

    fn least_poll(&self) -> Duration {
        if self.started.elapsed() < OPENING { OPENING_POLL } else { BUSY_POLL }
    }

    /// Shortest and longest interval between two polls for reports.
    fn reports_pace(&self) -> (Duration, Duration) {
        let quiet = self.machine.is_ready() && self.machine.all_started() && !self.machine.is_canceled();
        if self.session.state.is_isolated() {
            // They come by the log; all of them are there once the training job has ended.
            (REPORTS_BESIDE_COPY, REPORTS_BESIDE_COPY)
        } else if self.machine.any_ended() {
            (OPENING_POLL, IDLE_POLL)
        } else if quiet && self.session.reads_copy_live() && self.started.elapsed() >= OPENING {
            (REPORTS_BESIDE_COPY, REPORTS_BESIDE_COPY)
        } else {
            (self.least_poll(), IDLE_POLL)
        }
    }

    async fn read_reports(&mut self, node: NodeId, effects: &mut Vec<RunEffect>) -> anyhow::Result<bool> {
        let mut came = false;
        // A container may report without end; the rest has its turn.
        for _ in 0..MOST_AT_ONCE {
            let found = self.inbox.next(self.session, node).await;
            if let Some(reason) = self.inbox.given_up() {
                effects.extend([RunEffect::StopJob, RunEffect::Conclude(lost_mailbox::loss(reason))]);
                break;
            }
            let Some(report) = found? else { break };
            came = true;
            self.see(node, &report).await?;
            effects.extend(self.apply(&RunEvent::Report { node, report: &report }));
        }
        Ok(came)
    }

    /// Applies a report to the output, and to the upload of the project.
    async fn see(&mut self, id: NodeId, report: &Report) -> anyhow::Result<()> {
        self.instances.heard(id, report);
        let session = &mut *self.session;
        let (Some(node), Some(output)) = (session.state.nodes().get(id), self.sources.output.nodes.get_mut(id)) else {
            return Ok(());
        };
        match report {
            Report::Ready { .. } => output.ready_report = node.reports,
            Report::Received { .. } if node.told => {}
            Report::Received { summary } => {
                session.printer.line(format!("Project received by {id}: {summary}"));
                session.apply(SessionEvent::ReceiptTold(id))?;
            }
            Report::Missing { attempt } => self.missing = Some(*attempt),
            Report::Damaged { pack, .. } => {
                // Bounded: a container may report any number of packs as damaged.
                if self.examined.len() < MOST_EXAMINED
                    && self.examined.insert(pack.clone())
                    && let Err(error) = self.upload.forget(session, pack).await
                {
                    tracing::warn!(error = format!("{error:#}"), "failed to drop a damaged pack");
                }
            }
            Report::Started { run, .. } if *run == self.run => output.started = Some(session.clock.now()),
            Report::Exited { run, exit } if *run == self.run => output.exited(exit, session.clock.now()),
            Report::Kept { run, code, bytes, until, release } if *run == self.run => {
                output.failed(*code, *bytes, session.clock.now());
                let (node, release) = (id, release.clone());
                self.kept.push(KeptContainer { node, code: *code, bytes: *bytes, until: *until, release });
            }
            Report::Bye { .. } => self.describe.hasten(),
            Report::Kept { .. }
            | Report::Started { .. }
            | Report::Exited { .. }
            | Report::Collected { .. }
            | Report::Unsent { .. }
            | Report::Failed { .. } => {}
        }
        Ok(())
    }

    fn learn(
        &mut self,
        answer: Result<Option<TrainingJob>, CloudError>,
        effects: &mut Vec<RunEffect>,
    ) -> anyhow::Result<()> {
        match answer {
            Ok(job) => {
                self.refusals.passed(self.session);
                self.describe.answered(self.machine.is_leaving());
                if job.as_ref().is_some_and(|job| job.status.is_terminal()) {
                    if self.inbox.is_silent() {
                        self.ended_unheard = true;
                        return Ok(());
                    }
                    self.reports = Poll::new(Instant::now());
                }
                if let Some(job) = &job {
                    self.instances.observe(self.session, &self.sources.output.nodes, job)?;
                }
                effects.extend(self.machine.apply(&RunEvent::Job(job.as_ref()), self.started.elapsed()));
                Ok(())
            }
            Err(error) => {
                self.describe.failed(error.kind);
                if error.kind == CloudErrorKind::Denied && self.started.elapsed() < TAGS_VISIBLE {
                    tracing::debug!(%error, "failed to look at the training job");
                    return Ok(());
                }
                self.refusals.bear(self.session, error)
            }
        }
    }

    async fn perform(&mut self, effect: RunEffect) -> anyhow::Result<Option<Conclusion>> {
        match effect {
            RunEffect::SendCancel => {
                self.session.order(&Order::Cancel { run: self.run }).await?;
                if self.session.state.is_isolated() {
                    // No order reaches the container; the stop ends the script with SIGTERM.
                    self.session.stop_job().await;
                }
                self.cancel_sent = true;
                self.reports.next = Instant::now();
            }
            RunEffect::StopJob => self.session.stop_job().await,
            RunEffect::Conclude(conclusion) => return Ok(Some(conclusion)),
        }
        Ok(None)
    }

    fn print(&mut self) -> anyhow::Result<Vec<EndSeen>> {
        let printed = self.sources.output.print(self.session.printer, self.started.elapsed());
        let ends = printed.context("failed to write the output of the job to stdout")?;
        // Saved as soon as it is printed: a process that takes over must not print it again.
        let shown = self.sources.output.shown();
        let foreign_bytes = self.sources.output.foreign_bytes();
        let state = &self.session.state;
        if shown != state.shown_events() || foreign_bytes != state.foreign_bytes() {
            self.session.apply(SessionEvent::OthersShown { events: shown, bytes: foreign_bytes })?;
        }
        Ok(ends)
    }

    fn print_incomplete(&mut self) -> std::io::Result<()> {
        self.sources.output.print_incomplete(self.session.printer, self.started.elapsed())
    }

    /// Reads what is left after the conclusion: log lines that explain a lost job. Then prints gaps, and how the script
    /// ended.
    async fn finish(&mut self, conclusion: &Conclusion) -> anyhow::Result<()> {
        if matches!(conclusion, Conclusion::Interrupted) {
            // The containers run again.
            self.instances.end(self.session, &self.sources.output.nodes).await?;
        }
        self.instances.break_off(self.session, "ended");
        match conclusion {
            Conclusion::Lost { by, .. } => {
                let was_ready = self.session.state.any_ready();
                // A container that could not be started has mostly logged why; one that was killed has not.
                let last_events = LAST_EVENTS.saturating_sub(self.machine.ended_for(self.started.elapsed()));
                let patience = match by {
                    _ if self.session.state.is_loss_told() => Duration::ZERO,
                    LossKind::System | LossKind::User if was_ready => last_events,
                    LossKind::System | LossKind::User if self.machine.container_failed() => FIRST_EVENTS,
                    LossKind::System | LossKind::User | LossKind::Script { .. } => Duration::ZERO,
                };
                self.sources.read_to_end(&self.session.exchange(), self.session.printer, patience).await?;
                self.print()?;
                self.print_incomplete()?;
                if !self.session.state.is_loss_told() {
                    run_end::tell(self.session, self.run, &self.sources.output.nodes, conclusion);
                }
                if self.machine.job_has_ended() {
                    self.session.apply(SessionEvent::AgentsEnded)?;
                }
                if let Some(reason) = self.inbox.given_up() {
                    lost_mailbox::note(self.session, reason)?;
                }
            }
            Conclusion::Exited { incomplete, .. } => {
                if !incomplete.is_empty() {
                    self.print_incomplete()?;
                }
                run_end::tell(self.session, self.run, &self.sources.output.nodes, conclusion);
            }
            Conclusion::Interrupted => {
                // The next run's reader passes over what comes later.
                let patience = if self.sources.output.is_complete() { Duration::ZERO } else { LAST_EVENTS };
                self.sources.read_to_end(&self.session.exchange(), self.session.printer, patience).await?;
                self.print()?;
                self.print_incomplete()?;
                run_end::tell(self.session, self.run, &self.sources.output.nodes, conclusion);
                self.instances.tell_missed(self.session, &self.sources.output.nodes).await;
            }
            Conclusion::Canceled { .. } | Conclusion::NeverBegan => {
                self.print_incomplete()?;
                run_end::tell(self.session, self.run, &self.sources.output.nodes, conclusion);
            }
        }
        self.instances.tell_restored(self.session);
        self.session.output_tail = self.sources.output.take_tail();
        if let Some(text) = self.sources.output.take_left_out() {
            self.session.printer.warn(text);
        }
        Ok(())
    }
}
