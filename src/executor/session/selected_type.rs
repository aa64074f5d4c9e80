//! Notes which of the preferred instance types SageMaker selected.

use crate::cloud::TrainingJob;
use crate::session::Session;
use crate::session::event::SessionEvent;

/// Notes the selection once it is known, and returns the line that tells it.
pub(super) fn note(session: &mut Session<'_>, job: &TrainingJob) -> anyhow::Result<Option<String>> {
    let selected = &job.pool.instance_type;
    if selected.is_empty() || session.state.request().preferred_types.is_empty() {
        return Ok(None);
    }
    session.apply(SessionEvent::TypeSelected(selected))?;
    Ok(Some(format!("SageMaker selected {selected}")))
}
