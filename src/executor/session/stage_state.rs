//! The parts of a session's state that jobs without network alone have. Pure.

use crate::session::stage_jobs::StageJobs;
use crate::session::state::SessionState;

impl SessionState {
    /// `None`: the training job has a network.
    pub fn stage_jobs(&self) -> Option<&StageJobs> {
        self.snapshot().stage_jobs.as_ref()
    }

    /// The training jobs have no network.
    pub fn is_isolated(&self) -> bool {
        self.stage_jobs().is_some()
    }
}
