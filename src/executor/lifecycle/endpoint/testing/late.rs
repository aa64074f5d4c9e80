//! The error of a request without an answer in time.

use std::time::Duration;

use crate::cloud::{CloudError, CloudErrorKind};

/// `limit` is the time that was waited.
pub(super) fn late(endpoint: &str, limit: Duration) -> CloudError {
    CloudError {
        kind: CloudErrorKind::Transient,
        operation: format!("invoke endpoint {endpoint}"),
        message: format!("no answer within {} s", limit.as_secs_f64()),
        action: "",
    }
}
