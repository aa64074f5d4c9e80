//! A log event, from the container's output to a reader's page.

/// A finished event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) timestamp: u64,
    pub(crate) message: String,
}
