//! Part of the session record of a job without network: which training job belongs to which container stage.

use serde::{Deserialize, Serialize};

use crate::session::node_record::NodeRecord;
use crate::session::record::SessionRecord;
use crate::session::restarts::Restarts;
use crate::session::state::SessionState;

/// The container stages of a job whose training jobs have no network, counted from 1. Each has a mailbox of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageJobs {
    /// The current stage; 0 before the first one.
    pub number: u32,
    /// Number of the training job of the stage before, whose container has kept the project. Absent in the first stage.
    pub earlier: Option<u32>,
    /// The attempt in which the first stage's project was sent.
    pub attempt: u32,
    /// The script of the current stage has ended by itself, so its training job ends too.
    pub has_exited: bool,
}

impl StageJobs {
    /// Goes on to the next stage; `job` is the number of the training job of the one that ends, `attempt` its last one.
    fn enter(&mut self, job: u32, attempt: u32) {
        if self.number == 1 {
            self.attempt = attempt;
        }
        self.earlier = (self.number > 0).then_some(job);
        self.number += 1;
        self.has_exited = false;
    }
}

impl SessionRecord {
    /// The next stage has another training job and another mailbox, in which nothing was written yet.
    pub(super) fn enter_stage(&mut self) {
        let Some(stages) = &mut self.stage_jobs else { return };
        let job = self.job_number.max(1);
        stages.enter(job, self.workspace_attempt);
        self.job_number = if stages.earlier.is_some() { job + 1 } else { job };
        self.nodes.rows_mut().for_each(|node| *node = NodeRecord::default());
        (self.arn, self.queued, self.orders, self.repeated) = (None, None, 0, false);
        (self.collected, self.finished) = (false, false);
        (self.workspace_attempt, self.workspace_sent) = (0, false);
        self.restarts = Restarts::default();
        self.log_floors.clear();
    }
}

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
