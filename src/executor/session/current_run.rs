//! Part of the session record about the script that is followed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::node::NodeId;

/// A script that was ordered and whose exit is not known yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentRun {
    pub run: u32,
    pub stage: String,
    /// BLAKE3 hash of the script, in hex: the same script again is the same run, repeated by its caller.
    pub script: String,
    /// Number of earlier runs of this script in the stage, which ended with the instance.
    #[serde(default)]
    pub repeated: u32,
    /// The order was sent.
    #[serde(default)]
    pub ordered: bool,
    /// Number of that order.
    #[serde(default)]
    pub order: u32,
    /// The script's exit code, once only the download of the results is left to do.
    #[serde(default)]
    pub code: Option<i32>,
    /// Number of reports read, by node, when the run began.
    #[serde(default)]
    pub reports: BTreeMap<NodeId, u32>,
}

impl CurrentRun {
    pub fn step(&self) -> RunStep {
        match self.code {
            Some(code) => RunStep::Ended(code),
            None if self.ordered => RunStep::Ordered,
            None => RunStep::Noted,
        }
    }
}

/// Progress of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStep {
    /// About to be ordered; the order may be stored already.
    Noted,
    Ordered,
    /// Its exit code is known, and only the download of the results is left to do.
    Ended(i32),
}
