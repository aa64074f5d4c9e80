//! Changes of the session record that jobs without network alone have. Pure.

use crate::base::node::NodeId;
use crate::session::node_record::NodeRecord;
use crate::session::record::SessionRecord;
use crate::session::restarts::Restarts;

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

    /// Notes the files that a node keeps although the job's paths name them.
    pub(super) fn note_unsent(&mut self, node: NodeId, files: u64, first: &[String]) {
        let stages = self.stage_jobs.iter_mut();
        stages.for_each(|stages| drop(stages.unsent.insert(node, (files, first.to_vec()))));
    }
}
