//! The object that says that a deployment goes back to the old configuration. A run that goes on with the deployment must not bring the
//! new one into service again.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::record::{FORMAT, LedgerTest};

/// A way back, written before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerBack {
    format: u32,
    /// As RFC 3339 says.
    at: String,
    /// Time of the endpoint's last change, as RFC 3339 says.
    modified: Option<String>,
    /// The verdict about the new configuration.
    pub(crate) test: LedgerTest,
}

impl LedgerBack {
    pub(crate) fn new(at: SystemTime, modified: Option<SystemTime>, test: LedgerTest) -> Self {
        let written = |time| humantime::format_rfc3339_nanos(time).to_string();
        Self { format: FORMAT, at: written(at), modified: modified.map(written), test }
    }

    pub(crate) fn modified(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.modified.as_deref()?).ok()
    }
}
