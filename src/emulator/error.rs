//! Errors of the emulator's set-up, each with a hint.

/// The emulator, or one of its containers, cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SetupError {
    pub message: String,
    /// The thing to change: an option, a package or a setting of the machine, in backticks.
    pub hint: String,
}

impl SetupError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: String::new() }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}
