//! A training job whose agents have left: it costs nothing any more, and SageMaker tells its end up to minutes later. The
//! session's record stays until then, so that a later pass sees that the job did end, and stops it otherwise.

use std::time::Duration;

use anyhow::Context as _;

use crate::cloud::CloudError;
use crate::protocol::mailbox::Report;
use crate::session::age::Stamp;
use crate::session::{Session, close, mailbox, slots};

/// How often the agents' last words are looked for.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How long the end of such a job is waited for all the same: one that comes at once leaves no record.
pub(super) const ENDS_AT_ONCE: Duration = Duration::from_secs(1);
/// How long SageMaker may take to end such a job; it is stopped after that.
pub(super) const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// Reads what the agents have reported; `true` when each has said that it leaves. A store that cannot be read tells nothing.
pub(super) async fn all_left(session: &mut Session<'_>) -> anyhow::Result<bool> {
    let objects = session.objects.clone();
    for node in session.record.nodes.ids() {
        while session.record.nodes.get(node).is_some_and(|row| !row.left) {
            match mailbox::receive(&*objects, &session.layout, &mut session.record, node).await {
                Ok(Some(Report::Bye { .. })) => session.record.nodes.change(node, |row| row.left = true),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(error) if CloudError::may_pass(&error) => {
                    tracing::warn!(error = format!("{error:#}"), "failed to look for reports");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(!session.record.nodes.is_empty())
}

/// Keeps the record alone, for a later pass.
pub(super) fn keep(session: &mut Session<'_>) -> anyhow::Result<()> {
    let now = Stamp::of(&*session.clock);
    session.record.leaving.get_or_insert(now);
    session.save_for_good().context("failed to keep the record of a training job that is about to end")?;
    close::forget_log(session)?;
    // The GitLab job is over all the same.
    slots::release(&session.settings.runner.state_dir, &session.id)?;
    session.records.keep_record_alone(&session.id)
}
