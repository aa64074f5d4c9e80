//! The driver's reader of reports, and the only one: reads each report once and in order, applies it to the session's
//! state, and returns it to the stage that waits.

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::node::NodeId;
use crate::base::plain;
use crate::protocol::mailbox::{self, Report};
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::refusals::{self, Refusals};

/// Longest text kept of a report, in bytes.
const LONGEST_TEXT: usize = 2000;
/// Most names kept of one.
const MOST_NAMES: usize = 5;

/// An unreadable mailbox is tolerated for one lease, as the agent tolerates it, and looks like silence.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    silent_since: Option<Instant>,
    refusals: Refusals,
    given_up: Option<String>,
}

impl Inbox {
    /// `true` when the last poll failed: no report may mean that none could be read.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// The cause, when the mailbox could not be read for a whole lease: the agents have left for the same reason.
    pub(super) fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// Returns the next report of a node, if it has arrived.
    pub(super) async fn next(&mut self, session: &mut Session<'_>, node: NodeId) -> anyhow::Result<Option<Report>> {
        let Some(row) = session.state.nodes().get(node) else { return Ok(None) };
        let number = row.reports + 1;
        let bytes = match session.exchange().report(node, number).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                if session.state.any_ready() {
                    self.refusals.permission_is_there();
                }
                let lease = session.settings.lease();
                if since.elapsed() >= lease && self.refusals.may_end(error.kind) {
                    let (what, hint) = refusals::lasting(&error, lease);
                    self.given_up = Some(format!("{what}, so the training job is stopped: {error}; {hint}"));
                    return Err(Failure::system(what).hint(hint).caused_by(error).into());
                }
                self.refusals.bear(session, error)?;
                return Ok(None);
            }
        };
        self.silent_since = None;
        self.refusals.passed(session);
        let Some(bytes) = bytes else { return Ok(None) };
        let report = mailbox::decode_report(&session.keys(), node, number, &bytes).map(tamed);
        session.apply(SessionEvent::Reported { node, report: report.as_ref().ok() })?;
        report.map(Some).context("failed to decode a report of the agent")
    }
}

/// Cuts the texts of a report and makes them safe to print: a container may write anything into them.
fn tamed(report: Report) -> Report {
    let text = |text: String| plain::line(&text, LONGEST_TEXT);
    match report {
        Report::Received { summary } => Report::Received { summary: text(summary) },
        Report::Collected { summary, restarts } => Report::Collected { summary: text(summary), restarts },
        Report::Unsent { files, first } => {
            let first = first.into_iter().take(MOST_NAMES).map(text).collect();
            Report::Unsent { files, first }
        }
        Report::Damaged { pack, chunk } => Report::Damaged { pack: text(pack), chunk: text(chunk) },
        Report::Failed { order, reason, by_job } => Report::Failed { order: text(order), reason: text(reason), by_job },
        same @ (Report::Ready { .. }
        | Report::Missing { .. }
        | Report::Started { .. }
        | Report::Kept { .. }
        | Report::Exited { .. }
        | Report::Bye { .. }) => same,
    }
}
