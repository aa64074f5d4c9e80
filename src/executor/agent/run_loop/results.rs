//! The end of a session on this node: sends the results, and leaves when no other node needs this one any more.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::{Project, RunLoop};
use crate::agent::failed_order::failed;
use crate::base::node::NodeId;
use crate::base::signals::Cancellation;
use crate::protocol::mailbox::{Report, WorkspaceOrder};
use crate::workspace::{self, TransferProgress};

/// Most names of files that stay on this node.
const NAMES: usize = 3;
/// Interval of the signs that the files are being written.
const SHOWN_EVERY: Duration = Duration::from_mins(1);
/// Poll interval of the order to leave.
const HELD_POLL: Duration = Duration::from_millis(250);

impl RunLoop<'_> {
    /// Sends the files that later stages read. A failure is reported to the driver, which fails the job.
    pub(super) async fn collect(&mut self, limit: Duration) -> anyhow::Result<()> {
        let Some(Project { order: WorkspaceOrder { trees, selection, packs, stage, .. }, snapshot: Some(snapshot) }) =
            &self.project
        else {
            return Ok(());
        };
        let node = self.node.id;
        let keeps = stage.as_ref().is_some_and(|stage| stage.keep.applies(self.code));
        if node != NodeId::LEADER && (keeps || !selection.every_node) {
            return self.tell_unsent().await;
        }
        let progress = Arc::<TransferProgress>::default();
        let sending = async {
            let (objects, keys) = (&*self.mailbox.objects, &self.mailbox.keys);
            if keeps {
                let now = self.clock.now();
                return workspace::send_tree(objects, &keys.kept_tree(packs), trees, now, &progress).await;
            }
            let (keys, selection) = (keys.results(node, self.earlier.count), selection.of_node(node));
            workspace::send_changes(objects, &keys, trees, snapshot, &selection, &progress).await
        };
        let sent = tokio::select! {
            sent = tokio::time::timeout(limit, sending) => sent.context("no time was left").and_then(|sent| sent),
            never = self.show_progress(&progress) => match never {},
        };
        // No path of the job names the folder of this node.
        let has_sent_nothing = sent.as_ref().is_ok_and(|summary| summary.files == 0);
        let report = match sent {
            Ok(summary) => Report::Collected { summary: summary.sent(), restarts: self.earlier.count },
            Err(error) => failed("send the results", &error),
        };
        self.mailbox.report(&report).await?;
        if node != NodeId::LEADER && has_sent_nothing { self.tell_unsent().await } else { Ok(()) }
    }

    /// Shows in the log of a container without network that its files are being written: the driver stops a container that is silent.
    async fn show_progress(&self, progress: &TransferProgress) -> Infallible {
        let mut shown = 0;
        loop {
            tokio::time::sleep(SHOWN_EVERY).await;
            let done = progress.content() + progress.transferred();
            if done != shown {
                self.mailbox.repeat_report();
            }
            shown = done;
        }
    }

    /// Reports the files of this node that stay here although the job's paths name them.
    async fn tell_unsent(&mut self) -> anyhow::Result<()> {
        let Some(Project { order: WorkspaceOrder { trees, selection, .. }, snapshot: Some(snapshot) }) = &self.project
        else {
            return Ok(());
        };
        match workspace::changed_files(trees, snapshot, selection).await {
            Ok(files) if files.is_empty() => Ok(()),
            Ok(mut first) => {
                let files = first.len() as u64;
                first.truncate(NAMES);
                self.mailbox.report(&Report::Unsent { files, first }).await
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "failed to look for files that stay on this node");
                Ok(())
            }
        }
    }

    /// Keeps a node whose script failed until the driver has the results of every node: when one container fails, SageMaker kills
    /// those of the other nodes, which may still send theirs. Ends with the session as well, whose objects `cleanup` deletes.
    pub(super) async fn hold_failure(&mut self, cancellation: &Cancellation) {
        let is_isolated = self.project.as_ref().is_some_and(|project| project.order.stage.is_some());
        if self.code == 0 || self.node.hosts.len() < 2 || is_isolated {
            return;
        }
        while self.finish != Some(false) && !cancellation.asked() {
            if let Err(error) = self.drain_orders().await {
                tracing::warn!(error = format!("{error:#}"), "failed to wait for the order to leave");
                return;
            }
            if self.mailbox.is_closed().await || self.mailbox.lease_expired().await {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(HELD_POLL) => {}
                () = cancellation.changed() => {}
            }
        }
    }
}
