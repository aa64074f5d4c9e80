//! Concludes a run whose mailbox could not be reached for a whole lease: its agents have left for the same reason.

use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::failure_reasons::LossKind;
use crate::session::machine::Conclusion;
use crate::session::record::LostResults;

/// The conclusion, with the error of the last try.
pub(super) fn loss(session: &Session<'_>, error: &anyhow::Error) -> Conclusion {
    let lease = humantime::format_duration(session.settings.lease());
    let reason = format!(
        "the bucket could not be reached for {lease}, so the training job is stopped: {error:#}; look at the runner host's way to S3"
    );
    Conclusion::Lost { reason, by: LossKind::System }
}

/// Notes it for the later stages, which then wait for nothing of the bucket.
pub(super) fn note(session: &mut Session<'_>, conclusion: &Conclusion) -> anyhow::Result<()> {
    let Conclusion::Lost { reason, .. } = conclusion else { return Ok(()) };
    session.apply(SessionEvent::AgentsEnded)?;
    session.apply(SessionEvent::ResultsLost(&LostResults { why: reason.clone(), by_job: false }))
}
