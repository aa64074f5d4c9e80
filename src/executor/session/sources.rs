//! The two sources of a run's output on the driver's side: the agent's copy in the store and the log. Which of them is read
//! when, and what is done about a gap.
//!
//! With the copy read live, the log is the record beside it. Without, the log alone is live, and the copy serves what the log
//! does not bring: gaps that stay, the end, and everything while the log cannot be read.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::node::NodeId;
use crate::logs::Feed;
use crate::session::exchange::Exchange;
use crate::session::output::{NodeOutput, Output};
use crate::ui::Printer;

/// How often in a row more is taken of the log while there is more, before the rest of the work gets its turn.
const FEED_TAKES: u32 = 4;
/// A gap mostly closes by itself within this time: batches come late.
const LATE_EVENTS: Duration = Duration::from_secs(3);
/// A gap in what the log brought is asked for again this often ...
const GAP_EVERY: Duration = Duration::from_secs(5);
/// ... among events this much older.
const GAP_REACH: Duration = Duration::from_mins(1);
/// A gap that the log has not filled for so long is filled from the copy; so is everything when the log cannot be read.
pub(super) const GAP_PATIENCE: Duration = Duration::from_secs(10);
/// Nothing of the log is told to be out of reach before this.
const LOG_PATIENCE: Duration = Duration::from_mins(1);
/// How long what the log has beside frames is waited for after a job was lost. That takes 5 to 15 s to show, which mostly have
/// passed when the loss is known.
pub(super) const LAST_EVENTS: Duration = Duration::from_secs(5);
/// As long as that takes, for a container that told nothing in any other way.
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

    /// The copy is of use now, and not only when a gap stays.
    pub(super) fn wants_copy(&self) -> bool {
        self.live || self.any_exited()
    }

    /// Goes on where a process that was killed had printed up to.
    pub(super) async fn resume(&mut self, exchange: &dyn Exchange) {
        if self.output.is_resumed() {
            for node in self.output.nodes.ids() {
                self.seek(exchange, node).await;
            }
        }
    }

    /// Reads the copy on where it is of use. `true` when something came.
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

    /// Takes what was read of the log, by this process or another.
    pub(super) fn read_log(&mut self, printer: &Printer) -> anyhow::Result<()> {
        for _ in 0..FEED_TAKES {
            let events = match self.feed.take() {
                Ok(events) => events,
                // The copy has the same output.
                Err(error) if self.live => {
                    tracing::debug!(error = format!("{error:#}"), "failed to take what was read of the log");
                    break;
                }
                Err(error) => return Err(error.context("failed to take what was read of the log")),
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

    /// Everything that is still to be had after the job was lost: the copy to its end, then what the log has beside frames,
    /// which explains the loss and is waited for with `patience`.
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
            while self.read_on(exchange, node).await {
                self.output.print(printer, Duration::ZERO)?;
            }
        }
        let deadline = Instant::now() + patience;
        self.feed.started();
        self.feed.hurry();
        // Frames alone explain nothing.
        while !self.output.has_beside() && Instant::now() < deadline {
            match self.feed.take() {
                Ok(events) if events.is_empty() => tokio::time::sleep(LAST_EVENTS_POLL).await,
                Ok(events) => self.output.push_events(events),
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "failed to take what was read of the log");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Some node's script has ended.
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

    /// A failure is not the end: the log carries the same frames.
    async fn read_on(&mut self, exchange: &dyn Exchange, node: NodeId) -> bool {
        self.output.read_copy(exchange, node).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to read the copy of the output");
            false
        })
    }

    /// Goes to the first byte that is missing in the copy.
    async fn seek(&mut self, exchange: &dyn Exchange, node: NodeId) {
        if let Err(error) = self.output.seek_copy(exchange, node).await {
            tracing::warn!(%error, "failed to read the copy of the output");
        }
    }
}
