//! Handles training jobs whose agents have left: SageMaker reports their end up to minutes later. The session's record
//! stays until then, so that a later pass sees that the job did end, and stops it otherwise.

use std::time::Duration;

use anyhow::Context as _;

use crate::logs;
use crate::session::event::SessionEvent;
use crate::session::inbox::Inbox;
use crate::session::stamp::Stamp;
use crate::session::{Session, slots, spec};

/// Poll interval of the agents' last reports.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Short wait for the end of such a job: one that ends at once leaves no record.
pub(super) const ENDS_AT_ONCE: Duration = Duration::from_secs(1);
/// Time that SageMaker may take to end such a job; then it is stopped.
pub(super) const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// Reports of one node that are read in one go; an agent sends a few for each stage.
const MOST_REPORTS: u32 = 100;

/// Reads reports until each agent has reported that it leaves; `false` when one has not. An unreadable mailbox counts
/// as no report.
pub(super) async fn all_left(session: &mut Session<'_>) -> anyhow::Result<bool> {
    let mut inbox = Inbox::default();
    for node in session.state.nodes().ids() {
        // A container may report without end.
        for _ in 0..MOST_REPORTS {
            let has_left = session.state.nodes().get(node).is_none_or(|row| row.left);
            if has_left || inbox.next(session, node).await?.is_none() {
                break;
            }
        }
    }
    Ok(session.state.all_left())
}

/// Keeps only the record, for a later pass.
pub(super) fn keep(session: &mut Session<'_>) -> anyhow::Result<()> {
    let now = Stamp::of(&*session.clock);
    let kept = session.apply(SessionEvent::Leaving(&now));
    kept.context("failed to keep the record of a training job that is about to end")?;
    forget_log(session)?;
    // The GitLab job has ended regardless.
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.keep_record_alone(&session.id)
}

/// Removes the log reader's files of the session.
pub(super) fn forget_log(session: &Session<'_>) -> anyhow::Result<()> {
    let state_dir = &session.settings.runner.state_dir;
    let read = (1..=session.state.job_number())
        .map(|number| logs::forget(state_dir, &spec::job_name(&session.id, number)))
        .collect::<Result<Vec<_>, _>>();
    read.map(drop)
}
