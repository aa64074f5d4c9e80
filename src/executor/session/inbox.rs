//! The driver's reading end of the mailbox: the only reader of the agents' reports. Each is read once, in its order, folded into
//! the session's state, and handed out to the stage that waits.

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::node::NodeId;
use crate::base::plain;
use crate::protocol::mailbox::{self, Report};
use crate::session::Session;
use crate::session::exchange::Exchange as _;
use crate::session::state::SessionEvent;

/// Of a text in a report, in bytes.
const LONGEST_TEXT: usize = 2000;

/// A store that cannot be read is endured as long as the agent endures it, for one lease, and looks like silence.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    silent_since: Option<Instant>,
}

impl Inbox {
    /// The store could not be read at the last look: that nothing was reported is not known.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// The next report of a node, if it has come.
    pub(super) async fn next(&mut self, session: &mut Session<'_>, node: NodeId) -> anyhow::Result<Option<Report>> {
        let Some(row) = session.state.nodes().get(node) else { return Ok(None) };
        let number = row.reports + 1;
        let key = session.layout.report(node, number);
        let bytes = match session.exchange().report(node, number).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                if !error.kind.may_pass() || since.elapsed() >= session.settings.lease() {
                    return Err(error.into());
                }
                tracing::warn!(%error, "failed to look for reports");
                return Ok(None);
            }
        };
        self.silent_since = None;
        let Some(bytes) = bytes else { return Ok(None) };
        let report = mailbox::decode(&key, number, &bytes).map(tamed);
        session.apply(SessionEvent::Reported { node, report: report.as_ref().ok() })?;
        report.map(Some).context("failed to understand the agent")
    }
}

/// A container may write any text into its reports, and all of it may be printed.
fn tamed(report: Report) -> Report {
    let text = |text: String| plain::line(&text, LONGEST_TEXT);
    match report {
        Report::Received { summary } => Report::Received { summary: text(summary) },
        Report::Collected { summary } => Report::Collected { summary: text(summary) },
        Report::Damaged { pack, chunk } => Report::Damaged { pack: text(pack), chunk: text(chunk) },
        Report::Failed { order, reason, by_job } => Report::Failed { order: text(order), reason: text(reason), by_job },
        same @ (Report::Ready { .. }
        | Report::Missing { .. }
        | Report::Started { .. }
        | Report::Exited { .. }
        | Report::Bye { .. }) => same,
    }
}
