//! Shows the waits for instances: before the container runs, and after an interruption, in which SageMaker has taken them away.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio::time::Instant;

use super::Follower;
use crate::base::human::{human_duration, utc_time};
use crate::base::node::NodeId;
use crate::cloud::{CHECKPOINTS_DIR, TrainingJob};
use crate::protocol::mailbox::Report;
use crate::session::phases::Waiting;
use crate::session::ready::look_back;
use crate::session::{remote_access, rerun, selected_type, warm_pool};

/// An interruption that was told, and the nodes whose container has not come back.
#[derive(Debug, Default)]
pub(super) struct Interruption {
    at: Option<SystemTime>,
    awaited: BTreeSet<NodeId>,
}

impl Interruption {
    /// A report shows that the container of a node runs.
    pub(super) fn heard(&mut self, node: NodeId, report: &Report) {
        if matches!(report, Report::Ready { .. } | Report::Started { .. } | Report::Exited { .. }) {
            self.awaited.remove(&node);
        }
    }
}

impl Follower<'_, '_> {
    /// Tells an interruption as soon as SageMaker reports it, and shows the wait for the next instances.
    pub(super) fn note_interruption(&mut self, job: &TrainingJob) {
        let at = rerun::without_instance_since(&job.transitions).filter(|_| !job.status.is_terminal());
        let Some(at) = at.filter(|at| self.waiting.is_none() && self.interruption.at != Some(*at)) else { return };
        let nodes = &self.sources.output.nodes;
        let began = nodes.rows().filter_map(|node| node.started).min();
        let ran = began.and_then(|began| at.duration_since(began).ok()).map(human_duration);
        let awaited: BTreeSet<_> = nodes.ids().collect();
        self.session.printer.warn(words(at, ran, awaited.len(), job.pool.has_checkpoints));
        self.interruption = Interruption { at: Some(at), awaited };
        let mut waiting = Waiting::again(
            self.session.printer,
            &self.session.state.shown_type(),
            self.session.state.job_number(),
            job,
            Instant::now().into_std(),
        );
        waiting.observe(job, Instant::now().into_std());
        self.waiting = Some(waiting);
    }

    /// Shows the state of the training job while containers are awaited; tells at the end what it was.
    pub(super) async fn show_waiting(&mut self) -> anyhow::Result<()> {
        let now = Instant::now().into_std();
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        if !self.machine.is_ready() || !self.interruption.awaited.is_empty() {
            waiting.tick(now, self.session.clock.now());
            return Ok(());
        }
        self.end_waiting().await
    }

    /// Ends the section of a wait at whose end every container runs.
    pub(super) async fn end_waiting(&mut self) -> anyhow::Result<()> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(()) };
        // Look up when each phase began: some may have begun and ended between two polls.
        let found = look_back(self.session, &self.sources.output.nodes).await;
        let now = Instant::now().into_std();
        let (mut pool, mut waited) = (None, None);
        let is_first = self.interruption.at.is_none();
        match found.job {
            Ok(job) => {
                waited = found.ready.zip(job.created).and_then(|(ready, created)| ready.duration_since(created).ok());
                self.selected = selected_type::note(self.session, &job)?.or(self.selected.take());
                waiting.observe(&job, now);
                self.describe.answered(false);
                pool = warm_pool::line(self.session, &job, found.ready).await;
            }
            Err(why) => waiting.unanswered(&why, now),
        }
        self.sources.feed.started();
        waiting.finish("ready", found.ready, now, self.session.clock.now());
        self.tell_selected();
        if !is_first {
            return Ok(());
        }
        if let Some(line) = pool {
            self.session.printer.line(line);
        }
        if let Some(waited) = waited {
            let line = format!("The container runs, {} after the training job was created", human_duration(waited));
            self.session.printer.line(line);
        }
        remote_access::tell_shells(self.session, self.sources.output.nodes.ids());
        Ok(())
    }

    /// Ends the section of a wait at whose end not every container runs.
    pub(super) fn break_waiting(&mut self, outcome: &str) {
        if let Some(waiting) = self.waiting.take() {
            waiting.finish(outcome, None, Instant::now().into_std(), self.session.clock.now());
            self.tell_selected();
        }
    }

    /// Outside of the section, which is collapsed.
    fn tell_selected(&mut self) {
        if let Some(line) = self.selected.take() {
            self.session.printer.line(line);
        }
    }
}

/// `ran`: from the script's begin to the interruption.
fn words(at: SystemTime, ran: Option<String>, nodes: usize, has_checkpoints: bool) -> String {
    let (instances, new) = if nodes > 1 { ("instances were", "new ones") } else { ("instance was", "a new one") };
    let ran = ran.map(|ran| format!(", {ran} after the script began")).unwrap_or_default();
    let kept = if has_checkpoints { format!("; the files in `{CHECKPOINTS_DIR}` are kept") } else { String::new() };
    let time = utc_time(at);
    format!("the spot {instances} interrupted at {time} UTC{ran}; SageMaker looks for {new}{kept}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn one_line_says_what_is_gone_and_what_stays() {
        let at = UNIX_EPOCH + Duration::from_secs(43_384);
        assert_eq!(
            words(at, Some("2 h 31 min".to_owned()), 1, true),
            "the spot instance was interrupted at 12:03:04 UTC, 2 h 31 min after the script began; SageMaker looks for a new one; the files in `/opt/ml/checkpoints` are kept"
        );
        assert_eq!(
            words(at, None, 2, false),
            "the spot instances were interrupted at 12:03:04 UTC; SageMaker looks for new ones"
        );
    }
}
