//! A training job whose agents have left: it costs nothing any more, and SageMaker tells its end up to minutes later. The
//! session's record stays until then, so that a later pass sees that the job did end, and stops it otherwise.

use std::time::Duration;

use anyhow::Context as _;

use crate::logs;
use crate::session::age::Stamp;
use crate::session::inbox::Inbox;
use crate::session::state::SessionEvent;
use crate::session::{Session, slots, spec};

/// How often the agents' last words are looked for.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How long the end of such a job is waited for all the same: one that comes at once leaves no record.
pub(super) const ENDS_AT_ONCE: Duration = Duration::from_secs(1);
/// How long SageMaker may take to end such a job; it is stopped after that.
pub(super) const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// Reads until each agent has said that it leaves; `false` when one has not. A store that cannot be read tells nothing.
pub(super) async fn all_left(session: &mut Session<'_>) -> anyhow::Result<bool> {
    let mut inbox = Inbox::default();
    for node in session.state.nodes().ids() {
        while session.state.nodes().get(node).is_some_and(|row| !row.left) {
            if inbox.next(session, node).await?.is_none() {
                return Ok(false);
            }
        }
    }
    Ok(session.state.all_left())
}

/// Keeps the record alone, for a later pass.
pub(super) fn keep(session: &mut Session<'_>) -> anyhow::Result<()> {
    let now = Stamp::of(&*session.clock);
    let kept = session.apply(SessionEvent::Leaving(&now));
    kept.context("failed to keep the record of a training job that is about to end")?;
    forget_log(session)?;
    // The GitLab job is over all the same.
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.keep_record_alone(&session.id)
}

/// Removes what the host keeps of the session's log.
pub(super) fn forget_log(session: &Session<'_>) -> anyhow::Result<()> {
    let state_dir = &session.settings.runner.state_dir;
    let read = (1..=session.state.incarnation())
        .map(|number| logs::forget(state_dir, &spec::job_name(&session.id, number)))
        .collect::<Result<Vec<_>, _>>();
    read.map(drop)
}
