//! The parts of a session's state that jobs without network alone have. Pure.

use crate::session::stage_jobs::StageJobs;
use crate::session::state::SessionState;

impl SessionState {
    /// `None`: the training job has a network.
    pub fn stage_jobs(&self) -> Option<&StageJobs> {
        self.snapshot().stage_jobs.as_ref()
    }

    /// A container may have sent results, or kept them for the last stage.
    pub fn may_have_results(&self) -> bool {
        !self.is_given_up() || self.stage_jobs().is_some_and(|stages| stages.earlier.is_some())
    }

    /// The training jobs have no network.
    pub fn is_isolated(&self) -> bool {
        self.stage_jobs().is_some()
    }
}
