//! A scan of an image for known vulnerabilities, and its state over time. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::protocol::{epoch_seconds, text};

/// A scan of one image.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) begun_ms: u64,
    pub(super) ends_ms: u64,
    /// As `DescribeImageScanFindings` lists them.
    pub(super) findings: Vec<Value>,
    /// The text of a scan that fails, as for an image of an unknown operating system.
    pub(super) failure: Option<String>,
}

impl Scan {
    pub(super) fn status(&self, now_ms: u64) -> Value {
        match &self.failure {
            _ if now_ms < self.ends_ms => json!({"status": "IN_PROGRESS"}),
            Some(failure) => json!({"status": "FAILED", "description": failure}),
            None => json!({"status": "COMPLETE", "description": "The scan was completed successfully."}),
        }
    }

    pub(super) fn is_complete(&self, now_ms: u64) -> bool {
        now_ms >= self.ends_ms && self.failure.is_none()
    }

    pub(super) fn counts(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for severity in self.findings.iter().filter_map(|finding| text(finding, "severity")) {
            *counts.entry(severity).or_default() += 1;
        }
        counts
    }

    /// Adds the state of the scan to the details of its image.
    pub(super) fn describe(&self, detail: &mut Value, now_ms: u64) {
        detail["imageScanStatus"] = self.status(now_ms);
        if self.is_complete(now_ms) {
            detail["imageScanFindingsSummary"] =
                json!({"imageScanCompletedAt": epoch_seconds(self.ends_ms), "findingSeverityCounts": self.counts()});
        }
    }
}
