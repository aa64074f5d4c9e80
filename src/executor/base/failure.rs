//! Failures of a stage or command: their kind, their text, and the hints that say what to change.
//!
//! Every error travels as [`anyhow::Error`]. The outermost [`Failure`] in its chain gives its kind; an error without
//! one is [`Kind::System`]. The exit code is chosen in one place, [`Kind::exit_code`], from the two codes that GitLab
//! Runner passes. This module never ends the process.

use std::fmt;

/// Kind of a failure: decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The job's own script exited with this code.
    Script { code: i32 },
    /// A mistake in the job that a retry would only repeat: a bad variable, an image that is not allowed.
    User,
    /// Everything else: the cloud, the network, the operator's configuration, a bug. The runner may retry.
    System,
    /// A command did its work, and its answer is no: the exit code says which, see [`super::exit_codes`]. Never of a stage.
    Verdict { code: u8 },
    /// Ended by a signal: the runner canceled the job, its time was over, or a person pressed Ctrl-C.
    Canceled,
}

impl Kind {
    /// Exit code of the process, from `BUILD_FAILURE_EXIT_CODE` and `SYSTEM_FAILURE_EXIT_CODE`.
    pub fn exit_code(self, codes: ExitCodes) -> u8 {
        match self {
            Kind::Script { .. } | Kind::User | Kind::Verdict { .. } => codes.build_failure,
            Kind::System | Kind::Canceled => codes.system_failure,
        }
    }
}

/// The two exit codes of the custom executor contract; a driver never invents its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCodes {
    pub build_failure: u8,
    pub system_failure: u8,
}

impl Default for ExitCodes {
    /// The values of GitLab Runner 19, for commands typed by hand.
    fn default() -> Self {
        Self { build_failure: 1, system_failure: 2 }
    }
}

/// An error with its kind and hints.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    message: String,
    hints: Vec<String>,
    quote: Option<String>,
    source: Option<anyhow::Error>,
}

impl Failure {
    /// The script's own exit code. The message is for operators: the trace already shows the script's output.
    pub fn script(code: i32) -> Self {
        Self::new(Kind::Script { code }, format!("the script exited with code {code}"))
    }

    /// A mistake in the job: build failure, not retried by the runner.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message.into())
    }

    /// A failure of the runner host, its configuration or the cloud.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message.into())
    }

    /// The answer of a command, as an exit code of [`super::exit_codes`].
    pub fn verdict(code: u8, message: impl Into<String>) -> Self {
        Self::new(Kind::Verdict { code }, message.into())
    }

    /// A signal ended the work.
    pub fn canceled(message: impl Into<String>) -> Self {
        Self::new(Kind::Canceled, message.into())
    }

    fn new(kind: Kind, message: String) -> Self {
        Self { kind, message, hints: Vec::new(), quote: None, source: None }
    }

    /// The sentence that says what failed, without hints and causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Hints tell the changes to make, a sentence each.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Adds a hint: the exact key, variable, permission or command to change, in backticks.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds lines to print unchanged below everything else: the end of a script's output.
    #[must_use]
    pub fn quoting(mut self, lines: Option<String>) -> Self {
        self.quote = lines;
        self
    }

    /// Keeps the cause in the error chain.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Kind of an error: that of the outermost [`Failure`] in its chain, else [`Kind::System`].
pub fn kind_of(error: &anyhow::Error) -> Kind {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Kind::System, |failure| failure.kind)
}

/// Formats an error for people: its chain and its hints, one line each. Never contains a variable's value.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
            said = cause;
        }
    }
    for failure in error.chain().filter_map(|cause| cause.downcast_ref::<Failure>()) {
        for hint in &failure.hints {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
    }
    for quote in error.chain().filter_map(|cause| cause.downcast_ref::<Failure>()?.quote.as_ref()) {
        text.push('\n');
        text.push_str(quote);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_unclassified_error_is_a_system_failure() {
        let error = anyhow::anyhow!("disk full").context("failed to write the session record");
        assert_eq!(kind_of(&error), Kind::System);
        assert_eq!(Kind::System.exit_code(ExitCodes { build_failure: 7, system_failure: 9 }), 9);
    }

    #[test]
    fn a_failure_keeps_its_kind_through_context() {
        let result: anyhow::Result<()> = Err(Failure::user("bad type").into());
        let error = result.context("failed to prepare the job").unwrap_err();
        assert_eq!(kind_of(&error), Kind::User);
        assert_eq!(kind_of(&error).exit_code(ExitCodes::default()), 1);
    }

    #[test]
    fn the_rendered_chain_names_causes_and_hints_once() {
        let failure = Failure::user("instance type `ml.x` is not known")
            .hint("set `SAGEMAKER_INSTANCE_TYPE` to a type of the region")
            .quoting(Some("  quoted".to_owned()))
            .caused_by(anyhow::anyhow!("validation failed"));
        let error = anyhow::Error::from(failure).context("failed to create the training job");
        assert_eq!(
            render(&error),
            "error: failed to create the training job\n  because: instance type `ml.x` is not known\n  \
             because: validation failed\n  hint: set `SAGEMAKER_INSTANCE_TYPE` to a type of the region\n  quoted"
        );
    }
}
