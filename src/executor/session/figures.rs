//! Part of the session record for the job's report: how the script ended, and what came back.

use serde::{Deserialize, Serialize};

/// Figures of the job. All empty in a session that a version without them began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFigures {
    /// Exit code of the last script before `after_script`.
    pub exit_code: Option<i32>,
    /// Why that script did not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script_cut: Option<String>,
    pub received: Option<ReceivedResults>,
}

impl JobFigures {
    /// Notes a script that did not end by itself.
    pub fn cut(&mut self, code: Option<i32>, why: &str) {
        (self.exit_code, self.script_cut) = (code, Some(why.to_owned()));
    }
}

/// The results that are in the project directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedResults {
    pub files: u64,
    pub bytes: u64,
}
