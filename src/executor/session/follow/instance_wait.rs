//! Shows the waits for instances: before the container runs, and after an interruption, in which SageMaker has taken them away.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::base::human::{human_duration, human_files, utc_time};
use crate::base::node::{NodeId, Nodes};
use crate::cloud::{CHECKPOINTS_DIR, TrainingJob};
use crate::protocol::mailbox::{CheckpointFolder, Report};
use crate::session::Session;
use crate::session::output::NodeOutput;
use crate::session::phases::{self, Waiting};
use crate::session::ready::look_back;
use crate::session::{job_note, remote_access, rerun, selected_type, warm_pool};

/// The wait for instances, if one is under way, and the last interruption that was told.
#[derive(Debug)]
pub(super) struct InstanceWait {
    waiting: Option<Waiting>,
    interrupted: Option<SystemTime>,
    /// How many starts of the containers were told; `None`: no look at the training job has shown any.
    told: Option<usize>,
    /// The nodes whose container has not come back.
    awaited: BTreeSet<NodeId>,
    /// The line on the restored checkpoints, until it can be told.
    restored: Option<String>,
    /// The line on the instance type that SageMaker selected, until the section of the wait is over.
    selected: Option<String>,
}

impl InstanceWait {
    pub(super) fn new(waiting: Option<Waiting>) -> Self {
        Self { waiting, interrupted: None, told: None, awaited: BTreeSet::new(), restored: None, selected: None }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// A report may show that the container of a node runs.
    pub(super) fn heard(&mut self, node: NodeId, report: &Report) {
        if matches!(report, Report::Ready { .. } | Report::Started { .. } | Report::Exited { .. }) {
            self.awaited.remove(&node);
        }
        if let Report::Ready { restarts, checkpoints: Some(folder), .. } = report {
            self.restored = restored(*folder, *restarts > 0);
        }
    }

    /// Takes a new status of the job: tells an interruption as soon as SageMaker reports it.
    pub(super) fn observe(
        &mut self,
        session: &mut Session<'_>,
        nodes: &Nodes<NodeOutput>,
        job: &TrainingJob,
    ) -> anyhow::Result<()> {
        job_note::saw(session, job);
        self.note_interruption(session, nodes, job);
        if let Some(waiting) = &mut self.waiting {
            self.selected = selected_type::note(session, job)?.or(self.selected.take());
            waiting.observe(job, Instant::now().into_std());
        }
        if self.waiting.is_some() || self.told.is_none() {
            self.told = Some(phases::starts(job));
        }
        Ok(())
    }

    fn note_interruption(&mut self, session: &Session<'_>, nodes: &Nodes<NodeOutput>, job: &TrainingJob) {
        let at = rerun::without_instance_since(&job.transitions).filter(|_| !job.status.is_terminal());
        let Some(at) = at.filter(|at| self.waiting.is_none() && self.interrupted != Some(*at)) else { return };
        let began = nodes.rows().filter_map(|node| node.started).min();
        let ran = began.and_then(|began| at.duration_since(began).ok()).map(human_duration);
        session.printer.warn(words(at, ran, nodes.len(), job.pool.has_checkpoints));
        (self.interrupted, self.awaited) = (Some(at), nodes.ids().collect());
        self.waiting = self.again(session, job);
    }

    /// A wait from the first start of the containers on that was not told; `None`: all were.
    fn again(&self, session: &Session<'_>, job: &TrainingJob) -> Option<Waiting> {
        let starts = phases::starts(job);
        let untold = self.told.map_or(starts, |told| told + 1);
        let (instance, number) = (session.state.shown_type(), session.state.job_number());
        Waiting::again(session.printer, &instance, number, job, untold, Instant::now().into_std())
    }

    /// Shows the state of the training job while containers are awaited. `true`: the wait has ended just now.
    pub(super) async fn show(
        &mut self,
        session: &mut Session<'_>,
        nodes: &Nodes<NodeOutput>,
        is_ready: bool,
    ) -> anyhow::Result<bool> {
        let Some(waiting) = &mut self.waiting else {
            // At the end of a script that had begun, its own output comes first.
            if nodes.rows().all(|node| node.started.is_none()) {
                self.tell_restored(session);
            }
            return Ok(false);
        };
        if !is_ready || !self.awaited.is_empty() {
            waiting.tick(Instant::now().into_std(), session.clock.now());
            return Ok(false);
        }
        self.end(session, nodes).await.map(|()| true)
    }

    /// Tells the waits of an interruption that ended between two looks at the training job, by SageMaker's transitions.
    pub(super) async fn tell_missed(&mut self, session: &Session<'_>, nodes: &Nodes<NodeOutput>) {
        if self.interrupted.is_some() {
            return;
        }
        let found = look_back(session, nodes).await;
        let Ok(job) = found.job else { return };
        if let Some(mut waiting) = self.again(session, &job) {
            let now = Instant::now().into_std();
            waiting.observe(&job, now);
            waiting.finish("ready", found.ready, now, session.clock.now());
        }
    }

    /// Ends a wait at whose end every container runs, and tells how it went.
    pub(super) async fn end(&mut self, session: &mut Session<'_>, nodes: &Nodes<NodeOutput>) -> anyhow::Result<()> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(()) };
        // Look up when each phase began: some may have begun and ended between two polls.
        let found = look_back(session, nodes).await;
        let now = Instant::now().into_std();
        let (mut pool, mut waited) = (None, None);
        match found.job {
            Ok(job) => {
                waited = found.ready.zip(job.created).and_then(|(ready, created)| ready.duration_since(created).ok());
                job_note::saw(session, &job);
                self.selected = selected_type::note(session, &job)?.or(self.selected.take());
                waiting.observe(&job, now);
                self.told = Some(phases::starts(&job));
                pool = warm_pool::line(session, &job, found.ready).await;
            }
            Err(why) => waiting.unanswered(&why, now),
        }
        waiting.finish("ready", found.ready, now, session.clock.now());
        self.tell_selected(session);
        if self.interrupted.is_some() {
            return Ok(());
        }
        if let Some(line) = pool {
            session.printer.line(line);
        }
        if let Some(waited) = waited {
            let line = format!("The container runs, {} after the training job was created", human_duration(waited));
            session.printer.line(line);
        }
        self.tell_restored(session);
        remote_access::tell_shells(session, nodes.ids());
        Ok(())
    }

    /// Ends a wait at whose end not every container runs.
    pub(super) fn break_off(&mut self, session: &Session<'_>, outcome: &str) {
        if let Some(waiting) = self.waiting.take() {
            waiting.finish(outcome, None, Instant::now().into_std(), session.clock.now());
            self.tell_selected(session);
        }
    }

    /// Tells how many checkpoints the container found when it started.
    pub(super) fn tell_restored(&mut self, session: &Session<'_>) {
        if let Some(line) = self.restored.take() {
            session.printer.line(line);
        }
    }

    /// Outside of the section, which is collapsed.
    fn tell_selected(&mut self, session: &Session<'_>) {
        if let Some(line) = self.selected.take() {
            session.printer.line(line);
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

/// `None`: a first start without checkpoints of earlier jobs.
fn restored(folder: CheckpointFolder, is_again: bool) -> Option<String> {
    let files = human_files(folder.files, folder.bytes);
    let of = if is_again { "" } else { " of earlier jobs" };
    (folder.files > 0 || is_again).then(|| format!("Checkpoints: {files}{of} restored to {CHECKPOINTS_DIR}"))
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

    #[test]
    fn restored_checkpoints_are_told_at_each_start_that_has_some() {
        let some = CheckpointFolder { files: 3, bytes: 2048 };
        let line = |folder, is_again| restored(folder, is_again).unwrap_or_default();
        assert_eq!(line(some, false), "Checkpoints: 3 files, 2.0 KiB of earlier jobs restored to /opt/ml/checkpoints");
        assert_eq!(line(some, true), "Checkpoints: 3 files, 2.0 KiB restored to /opt/ml/checkpoints");
        let none = CheckpointFolder::default();
        assert_eq!(line(none, true), "Checkpoints: no file restored to /opt/ml/checkpoints");
        assert_eq!(restored(none, false), None);
    }
}
