//! Reads the two sources of a run's output, the agent's copy in S3 and the log; decides which one is read when, and how
//! gaps are filled.
//!
//! With the copy read live, the log serves as a record. Without, only the log is live, and the copy provides lasting
//! gaps, the end, and everything while the log cannot be read.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::node::NodeId;
use crate::logs::Feed;
use crate::session::exchange::Exchange;
use crate::session::output::{CopyEnd, NodeOutput, Output};
use crate::ui::Printer;

/// How often more is taken of the log without a pause, before other work gets its turn.
const FEED_TAKES: u32 = 4;
/// Time within which a gap mostly closes by itself: log batches arrive late.
const LATE_EVENTS: Duration = Duration::from_secs(3);
/// Interval of requests for a gap in the log ...
const GAP_EVERY: Duration = Duration::from_secs(5);
/// ... for events from this much before the position that the log was read up to.
const GAP_REACH: Duration = Duration::from_mins(1);
/// Age at which a gap in the log is filled from the copy, and at which everything is while the log cannot be read.
pub(super) const GAP_PATIENCE: Duration = Duration::from_secs(10);
/// Time before a warning that the log cannot be read.
const LOG_PATIENCE: Duration = Duration::from_mins(1);
/// Wait for log lines of other writers after a job was lost. They take 5 to 15 s to appear, most of which has passed
/// when the loss is known.
pub(super) const LAST_EVENTS: Duration = Duration::from_secs(5);
/// The same for a container that reported nothing else: the full 15 s.
pub(super) const FIRST_EVENTS: Duration = Duration::from_secs(15);
const LAST_EVENTS_POLL: Duration = Duration::from_millis(250);

pub(super) struct Sources {
    pub(super) output: Output,
    pub(super) feed: Feed,
    live: bool,
    next_again: Instant,
    trouble_told: bool,
}

impl Sources {
    /// `live`: the copy is read while the script runs.
    pub(super) fn new(output: Output, feed: Feed, live: bool) -> Self {
        Self { output, feed, live, next_again: Instant::now(), trouble_told: false }
    }

    /// The copy is needed now, and not only for a lasting gap.
    pub(super) fn wants_copy(&self) -> bool {
        self.live || self.any_exited()
    }

    /// Continues at the print position of a process that was killed.
    pub(super) async fn resume(&mut self, exchange: &dyn Exchange) {
        if self.output.is_resumed() {
            for node in self.output.nodes.ids() {
                self.seek(exchange, node).await;
            }
        }
    }

    /// Reads the next batches of the copy where it is needed. Returns `true` when something came.
    pub(super) async fn read_copy(&mut self, exchange: &dyn Exchange) -> bool {
        let log_is_silent = self.feed.unserved().is_some_and(|since| since >= GAP_PATIENCE);
        let mut came = false;
        for id in self.output.nodes.ids() {
            let Some(node) = self.output.nodes.get_mut(id) else { continue };
            let is_needed = node.exited.is_some() || log_is_silent;
            let is_old = node.gap_since.is_some_and(|since| since.elapsed() >= GAP_PATIENCE);
            node.sought &= is_needed || node.gap_since.is_some();
            if !self.live && !node.sought && !node.has_all() && (is_needed || is_old) {
                self.seek(exchange, id).await;
            }
            if self.live || self.output.nodes.get(id).is_some_and(|node| node.sought) {
                came |= self.read_on(exchange, id).await;
            }
        }
        came
    }

    /// Takes the events that the log reader, in this or another process, has fetched.
    pub(super) fn read_log(&mut self, printer: &Printer) -> anyhow::Result<()> {
        for _ in 0..FEED_TAKES {
            let events = match self.feed.take() {
                Ok(events) => events,
                // The copy brings the same output.
                Err(error) if self.live => {
                    tracing::debug!(error = format!("{error:#}"), "failed to take the log reader's events");
                    break;
                }
                Err(error) => return Err(error.context("failed to take the log reader's events")),
            };
            if events.is_empty() {
                break;
            }
            self.output.push_events(events);
        }
        if self.any_exited() && !self.output.is_complete() {
            self.feed.hurry();
        }
        self.look_for_gaps();
        if !self.trouble_told
            && self.feed.unserved().is_some_and(|since| since >= LOG_PATIENCE)
            && let Some(trouble) = self.feed.trouble()
        {
            self.trouble_told = true;
            printer.warn(format!("CloudWatch Logs cannot be read: {trouble}"));
        }
        Ok(())
    }

    /// Reads what is left after a job was lost: the copy to its end, then lines of other writers in the log, which
    /// explain the loss and are waited for up to `patience`.
    pub(super) async fn read_to_end(
        &mut self,
        exchange: &dyn Exchange,
        printer: &Printer,
        patience: Duration,
    ) -> std::io::Result<()> {
        for node in self.output.nodes.ids() {
            if !self.live {
                self.seek(exchange, node).await;
            }
            let mut end = CopyEnd::default();
            while !end.is_reached(&self.output, node) && self.read_on(exchange, node).await {
                self.output.print(printer, Duration::ZERO)?;
            }
        }
        let deadline = Instant::now() + patience;
        self.feed.started();
        self.feed.hurry();
        // Frames do not explain a loss.
        while !self.output.has_foreign_lines() && Instant::now() < deadline {
            match self.feed.take() {
                Ok(events) if events.is_empty() => tokio::time::sleep(LAST_EVENTS_POLL).await,
                Ok(events) => self.output.push_events(events),
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "failed to take the log reader's events");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The script has ended on at least one node.
    fn any_exited(&self) -> bool {
        self.output.nodes.rows().any(|node| node.exited.is_some())
    }

    fn look_for_gaps(&mut self) {
        let now = Instant::now();
        for node in self.output.nodes.rows_mut() {
            node.gap_since = node.has_gap().then(|| node.gap_since.unwrap_or(now));
        }
        let is_late = |node: &NodeOutput| node.gap_since.is_some_and(|since| since.elapsed() >= LATE_EVENTS);
        if now >= self.next_again && self.output.nodes.rows().any(is_late) {
            self.next_again = now + GAP_EVERY;
            let reached = self.feed.floors().values().min().copied().unwrap_or_default();
            self.feed.read_again(reached.saturating_sub(u64::try_from(GAP_REACH.as_millis()).unwrap_or_default()));
        }
    }

    /// Reads the copy. A failure is logged only: the log carries the same frames.
    async fn read_on(&mut self, exchange: &dyn Exchange, node: NodeId) -> bool {
        self.output.read_copy(exchange, node).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to read the copy of the output");
            false
        })
    }

    /// Positions the copy's reader at the first missing byte.
    async fn seek(&mut self, exchange: &dyn Exchange, node: NodeId) {
        if let Err(error) = self.output.seek_copy(exchange, node).await {
            tracing::warn!(%error, "failed to read the copy of the output");
        }
    }
}
