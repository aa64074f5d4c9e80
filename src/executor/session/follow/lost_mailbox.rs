//! Concludes a run whose mailbox could not be read for a whole lease: its agents have left for the same reason.

use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::failure_reasons::LossKind;
use crate::session::machine::Conclusion;
use crate::session::record::LostResults;

pub(super) fn loss(reason: &str) -> Conclusion {
    Conclusion::Lost { reason: reason.to_owned(), by: LossKind::System }
}

/// Notes it for the later stages, which then wait for nothing of the bucket.
pub(super) fn note(session: &mut Session<'_>, reason: &str) -> anyhow::Result<()> {
    session.apply(SessionEvent::AgentsEnded)?;
    session.apply(SessionEvent::ResultsLost(&LostResults { why: reason.to_owned(), by_job: false }))
}
