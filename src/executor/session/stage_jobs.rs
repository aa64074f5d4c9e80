//! Part of the session record of a job without network: which training job belongs to which container stage.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::node::NodeId;

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
    /// Files that other nodes of the current stage keep although the job's paths name them: their number, and the first names. The follower
    /// of the script reads these reports too.
    pub unsent: BTreeMap<NodeId, (u64, Vec<String>)>,
}

impl StageJobs {
    /// Goes on to the next stage; `job` is the number of the training job of the one that ends, `attempt` its last one.
    pub(super) fn enter(&mut self, job: u32, attempt: u32) {
        if self.number == 1 {
            self.attempt = attempt;
        }
        self.earlier = (self.number > 0).then_some(job);
        self.number += 1;
        self.has_exited = false;
        self.unsent.clear();
    }
}
