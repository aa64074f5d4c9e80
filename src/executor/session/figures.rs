//! Part of the session record for the job's report: how the script ended, and what came back.

use serde::{Deserialize, Serialize};

/// Figures of the job. All empty in a session that a version without them began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFigures {
    /// Exit code of the last script before `after_script`.
    pub exit_code: Option<i32>,
    pub received: Option<ReceivedResults>,
}

/// The results that are in the project directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedResults {
    pub files: u64,
    pub bytes: u64,
}
