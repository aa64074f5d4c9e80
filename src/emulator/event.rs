//! A log event before it is stored: from the container's output, or from `PutLogEvents`.

/// Timestamp (epoch milliseconds) and text, as in the API of CloudWatch Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputLogEvent {
    pub(crate) timestamp: u64,
    pub(crate) message: String,
}
