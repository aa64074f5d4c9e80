//! Notes which of the preferred instance types SageMaker selected.

use crate::cloud::TrainingJob;
use crate::session::Session;
use crate::session::event::SessionEvent;

/// Notes the selection, and tells it, once it is known.
pub(super) fn note(session: &mut Session<'_>, job: &TrainingJob) -> anyhow::Result<()> {
    let selected = &job.pool.instance_type;
    if selected.is_empty() || session.state.request().preferred_types.is_empty() {
        return Ok(());
    }
    session.printer.line(format!("SageMaker selected {selected}"));
    session.apply(SessionEvent::TypeSelected(selected))
}
