//! Functions that the parts of a try share.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::base::signals::Cancellation;

pub(super) const BUCKET: &str = "try";
/// A job of a try ends after this.
pub(super) const TIMEOUT: Duration = Duration::from_hours(1);
/// The log filter of the child processes: their program logs are for operators, and the stages print what people need.
pub(super) const QUIET: &str = "error";

pub(super) fn canceled() -> Failure {
    Failure::canceled("the try was ended by Ctrl-C or SIGTERM")
}

/// An error once the try is to end.
pub(super) fn go_on(cancellation: &Cancellation) -> anyhow::Result<()> {
    if cancellation.asked() { Err(canceled().into()) } else { Ok(()) }
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
