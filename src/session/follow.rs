//! One container stage as the driver sees it: orders the script, prints its output, and tells how it ended.
//!
//! The two sources of the output, CloudWatch Logs and the agent's copy in the store, feed one decoder per node; what
//! follows from anything seen is decided by [`RunMachine`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{CloudError, CloudErrorKind};
use crate::mailbox::{Order, Report};
use crate::session::Session;
use crate::session::machine::{CancelReason, Conclusion, Effect, Event, RunMachine};
use crate::session::transport::{self, LeaseKeeper};
use crate::signals::Cancellation;
use crate::trace::{FrameDecoder, Labeler, Line, TraceError};
use crate::ui::Progress;

/// `DescribeTrainingJob` is asked this often at most: its rate is shared by all jobs of the account.
const DESCRIBE_EVERY: Duration = Duration::from_secs(15);
/// The first look comes sooner: a refused image or role shows at once.
const FIRST_DESCRIBE: Duration = Duration::from_secs(3);
/// The mailbox is looked at this often right after something came, and ever less until `IDLE_POLL`.
const BUSY_POLL: Duration = Duration::from_millis(40);
const IDLE_POLL: Duration = Duration::from_secs(1);
/// Until a new job's tags are visible, a policy that looks at them may deny the call.
const TAGS_VISIBLE: Duration = Duration::from_mins(5);
/// While a stream grows its token may change for ever; the rest is for the next turn.
const PAGES_A_POLL: u32 = 50;
const WAITING: &str = "Waiting for the training job";
/// Empty pages in a row after which a stream is left until the next turn, although its token still changes.
const EMPTY_PAGES: u32 = 4;

/// What the driver knows of one node's output.
struct NodeTrace {
    decoder: FrameDecoder,
    /// Only where several nodes write into one trace.
    labeler: Option<Labeler>,
    next_batch: u32,
    /// The node told that it has ended: its copy is complete in the store.
    ended: bool,
    told: (bool, bool),
}

impl NodeTrace {
    /// What can be printed now.
    fn take(&mut self) -> Vec<u8> {
        let bytes = self.decoder.take();
        let Some(labeler) = &mut self.labeler else { return bytes };
        let mut lines = labeler.push(&bytes);
        if self.decoder.is_complete() {
            lines.extend(labeler.flush());
        }
        lines
    }
}

/// Follows one run until it is over.
pub struct Follower<'s, 'a> {
    session: &'s mut Session<'a>,
    machine: RunMachine,
    run: u32,
    traces: BTreeMap<String, NodeTrace>,
    lease: LeaseKeeper,
    started: Instant,
    next_describe: Instant,
    next_logs: Instant,
    logs_backoff: u32,
    /// Until every node is ready: a spinner on a terminal, a line now and then in a job trace.
    waiting: Option<Progress>,
    phase: String,
    foreign: Vec<String>,
    /// Since when the store cannot be read.
    store_silent: Option<Instant>,
}

impl<'s, 'a> Follower<'s, 'a> {
    pub fn new(session: &'s mut Session<'a>, mut machine: RunMachine, run: u32, lease: LeaseKeeper) -> Self {
        let started = Instant::now();
        for node in &session.record.ready {
            machine.already_ready(node);
        }
        for node in &session.record.left {
            machine.already_left(node);
        }
        let first_describe = if session.record.left.is_empty() { FIRST_DESCRIBE } else { Duration::ZERO };
        let several = session.record.nodes.len() > 1;
        let trace = |node: &String| NodeTrace {
            decoder: FrameDecoder::new(run),
            labeler: several.then(|| Labeler::new(node)),
            next_batch: 0,
            ended: false,
            told: (false, false),
        };
        let traces = session.record.nodes.iter().map(|node| (node.clone(), trace(node))).collect();
        let waiting =
            (!machine.is_ready()).then(|| Progress::start(session.printer, WAITING, None, started.into_std()));
        let first_logs = Duration::from_secs(session.settings.trace.cloudwatch_interval_seconds);
        Self {
            session,
            machine,
            run,
            traces,
            lease,
            started,
            next_describe: started + first_describe,
            next_logs: started + first_logs,
            logs_backoff: 1,
            waiting,
            phase: "Starting".to_owned(),
            foreign: Vec::new(),
            store_silent: None,
        }
    }

    /// Runs until the machine concludes. Output is printed as it comes.
    pub async fn follow(mut self, cancel: &Cancellation) -> anyhow::Result<Conclusion> {
        let mut pause = BUSY_POLL;
        let mut canceled = (false, false);
        loop {
            let mut effects = Vec::new();
            let mut progress = self.turn(&mut effects).await?;
            if self.session.printer.is_broken() {
                // GitLab Runner was killed: nobody reads on, and no cleanup will come.
                self.session.cloud.jobs.stop(self.session.id.as_str()).await?;
                anyhow::bail!("the reader of the job's output has gone, so the training job was stopped");
            }
            if cancel.asked() && !canceled.0 {
                canceled.0 = true;
                effects.extend(self.apply(&Event::Cancel(CancelReason::Asked)));
            }
            let closing = self.session.records.is_closing(&self.session.id);
            if (cancel.at_once() || closing) && !canceled.1 {
                canceled.1 = true;
                effects.extend(self.apply(&Event::Cancel(CancelReason::AtOnce)));
            }
            effects.extend(self.apply(&Event::Tick));
            for effect in effects {
                progress = true;
                if let Some(conclusion) = self.perform(effect).await? {
                    self.finish(&conclusion).await;
                    self.session.save()?;
                    return Ok(conclusion);
                }
            }
            pause = if progress { BUSY_POLL } else { (pause * 3 / 2).min(IDLE_POLL) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.changed() => {}
            }
        }
    }

    fn apply(&mut self, event: &Event<'_>) -> Vec<Effect> {
        self.machine.apply(event, self.started.elapsed())
    }

    /// Looks everywhere once; `true` when something was new.
    async fn turn(&mut self, effects: &mut Vec<Effect>) -> anyhow::Result<bool> {
        if self.lease.is_due() {
            self.lease.renew(&self.session.cloud, &self.session.layout).await;
        }
        let mut progress = false;
        let nodes: Vec<String> = self.traces.keys().cloned().collect();
        for node in &nodes {
            match self.read_reports(node, effects).await {
                Ok(read) => {
                    progress |= read;
                    self.store_silent = None;
                }
                Err(error) => self.endure(error)?,
            }
            progress |= self.read_copy(node).await;
        }
        if Instant::now() >= self.next_logs {
            progress |= self.read_logs().await;
        }
        self.show_waiting();
        for node in &nodes {
            self.print(node, effects)?;
        }
        if Instant::now() >= self.next_describe {
            let every = if self.machine.is_leaving() { FIRST_DESCRIBE } else { DESCRIBE_EVERY };
            self.next_describe = Instant::now() + every;
            self.describe(effects).await?;
        }
        Ok(progress)
    }

    /// A store that cannot be read is endured as long as the agent endures it: for one lease.
    fn endure(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let since = *self.store_silent.get_or_insert_with(Instant::now);
        if !CloudError::may_pass(&error) || since.elapsed() >= self.session.settings.lease() {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "failed to look for reports");
        Ok(())
    }

    async fn read_reports(&mut self, node: &str, effects: &mut Vec<Effect>) -> anyhow::Result<bool> {
        let mut progress = false;
        let session = &mut *self.session;
        let is_leader = session.record.nodes.first().is_some_and(|first| first == node);
        while let Some(report) =
            transport::receive(&*session.cloud.objects, &session.layout, &mut session.record, node).await?
        {
            progress = true;
            match &report {
                Report::Ready { .. } => {
                    session.record.ready.insert(node.to_owned());
                }
                Report::Received { summary } => session.printer.line(format!("Project received by {node}: {summary}")),
                Report::Exited { run, .. } if *run == self.run => {
                    if let Some(trace) = self.traces.get_mut(node) {
                        trace.ended = true;
                    }
                }
                Report::Collected { .. } if is_leader => session.record.collected = true,
                Report::Bye { .. } => {
                    session.record.left.insert(node.to_owned());
                    self.next_describe = Instant::now();
                }
                _ => {}
            }
            effects.extend(self.machine.apply(&Event::Report { node, report: &report }, self.started.elapsed()));
        }
        Ok(progress)
    }

    /// Reads the agent's copy on, batch by batch. A failure is not the end: CloudWatch carries the same frames.
    async fn read_copy(&mut self, node: &str) -> bool {
        let Some(trace) = self.traces.get_mut(node) else { return false };
        if !self.session.settings.trace.live_copy && !trace.ended {
            return false;
        }
        let mut progress = false;
        while !trace.decoder.is_complete() {
            let key = self.session.layout.trace(node, self.run, trace.next_batch);
            match self.session.cloud.objects.get(&key).await {
                Ok(Some(batch)) => {
                    progress = true;
                    trace.next_batch += 1;
                    for line in String::from_utf8_lossy(&batch).lines() {
                        trace.decoder.push_message(line);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "failed to read the copy of the output");
                    break;
                }
            }
        }
        progress
    }

    /// Reads CloudWatch on, all streams of the job.
    async fn read_logs(&mut self) -> bool {
        let interval = Duration::from_secs(self.session.settings.trace.cloudwatch_interval_seconds);
        let progress = match self.read_streams().await {
            Ok(progress) => {
                self.logs_backoff = 1;
                progress
            }
            Err(error) => {
                if error.kind == CloudErrorKind::Throttled {
                    self.logs_backoff = (self.logs_backoff * 2).min(8);
                }
                tracing::warn!(%error, "failed to read the log");
                false
            }
        };
        self.next_logs = Instant::now() + interval * self.logs_backoff;
        progress
    }

    async fn read_streams(&mut self) -> Result<bool, CloudError> {
        let mut progress = false;
        let session = &mut *self.session;
        for stream in session.cloud.logs.streams(session.id.as_str()).await? {
            let Some(trace) = node_of(&stream).and_then(|node| self.traces.get_mut(node)) else { continue };
            let mut empty = 0;
            for _ in 0..PAGES_A_POLL {
                let position = session.record.log_positions.get(&stream).map(String::as_str);
                let page = session.cloud.logs.read(&stream, position).await?;
                if let Some(position) = page.position {
                    session.record.log_positions.insert(stream.clone(), position);
                }
                for message in &page.messages {
                    progress = true;
                    let lines = trace.decoder.push_message(message).into_iter();
                    self.foreign.extend(lines.filter_map(|line| match line {
                        Line::Foreign(text) if !text.trim().is_empty() => Some(text),
                        Line::Foreign(_) | Line::OtherRun(_) | Line::Damaged(_) => None,
                    }));
                }
                empty = if page.messages.is_empty() { empty + 1 } else { 0 };
                if page.end || empty >= EMPTY_PAGES {
                    break;
                }
            }
        }
        for text in self.foreign.drain(..) {
            session.printer.line(format!("[container] {text}"));
        }
        Ok(progress)
    }

    /// Prints what is contiguous, and tells the machine when the end of the output changes.
    fn print(&mut self, node: &str, effects: &mut Vec<Effect>) -> anyhow::Result<()> {
        let Some(trace) = self.traces.get_mut(node) else { return Ok(()) };
        let bytes = trace.take();
        if !bytes.is_empty() {
            self.session.printer.write_data(&bytes)?;
        }
        let end = trace.decoder.end().map(|end| (end.code, end.bytes));
        let now = (end.is_some(), trace.decoder.is_complete());
        if now != trace.told {
            trace.told = now;
            if now.1
                && let Err(error @ TraceError::Mismatch { .. }) = trace.decoder.finish()
            {
                self.session.printer.warn(format!("the output of {node} was damaged on its way: {error}"));
            }
            let event = Event::Trace { node, end, complete: now.1 };
            effects.extend(self.machine.apply(&event, self.started.elapsed()));
        }
        Ok(())
    }

    async fn describe(&mut self, effects: &mut Vec<Effect>) -> anyhow::Result<()> {
        match self.session.cloud.jobs.describe(self.session.id.as_str()).await {
            Ok(job) => {
                effects.extend(self.machine.apply(&Event::Job(job.as_ref()), self.started.elapsed()));
                Ok(())
            }
            Err(error) if error.kind.may_pass() || self.may_be_denied(&error) => {
                tracing::warn!(%error, "failed to look at the training job");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn may_be_denied(&self, error: &CloudError) -> bool {
        error.kind == CloudErrorKind::Denied && self.started.elapsed() < TAGS_VISIBLE
    }

    fn show_waiting(&mut self) {
        let now = Instant::now().into_std();
        if self.machine.is_ready() {
            if let Some(waiting) = self.waiting.take() {
                waiting.finish("ready", now);
            }
        } else if let Some(waiting) = &mut self.waiting {
            waiting.state(&self.phase, now);
        }
    }

    async fn perform(&mut self, effect: Effect) -> anyhow::Result<Option<Conclusion>> {
        match effect {
            Effect::Phase { secondary, message } => {
                self.phase = message.map_or(secondary.clone(), |text| format!("{secondary}: {text}"));
            }
            Effect::SendCancel => self.session.order(&Order::Cancel { run: self.run }).await?,
            Effect::StopJob => self.session.cloud.jobs.stop(self.session.id.as_str()).await?,
            Effect::Conclude(conclusion) => return Ok(Some(conclusion)),
        }
        Ok(None)
    }

    /// The last look: what the log holds beside frames explains a lost job, and gaps are told.
    async fn finish(&mut self, conclusion: &Conclusion) {
        if let Conclusion::Lost { .. } = conclusion {
            let nodes: Vec<String> = self.traces.keys().cloned().collect();
            for node in nodes {
                self.read_copy(&node).await;
            }
            if let Err(error) = self.read_streams().await {
                tracing::warn!(%error, "failed to read the log");
            }
            self.flush_incomplete();
            if self.machine.job_has_ended() {
                self.session.record.left.extend(self.session.record.nodes.iter().cloned());
            }
        }
        if let Conclusion::Exited { incomplete, .. } = conclusion
            && !incomplete.is_empty()
        {
            self.flush_incomplete();
        }
    }

    /// Prints what can still be printed, with a line for each gap.
    fn flush_incomplete(&mut self) {
        for (node, trace) in &mut self.traces {
            loop {
                let bytes = trace.take();
                if self.session.printer.write_data(&bytes).is_err() {
                    return;
                }
                let Some(gap) = trace.decoder.skip_missing() else { break };
                let text =
                    format!("{} bytes of output of {node} are missing, from byte {}", gap.end - gap.start, gap.start);
                self.session.printer.warn(&text);
            }
        }
    }
}

/// `<job>/algo-1-1700000000` → `algo-1`.
fn node_of(stream: &str) -> Option<&str> {
    let (_, host) = stream.split_once('/')?;
    Some(host.rsplit_once('-')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_names_its_node() {
        assert_eq!(node_of("gitlab-1-2-abcdef12/algo-10-1700000000"), Some("algo-10"));
        assert_eq!(node_of("nothing"), None);
    }
}
