//! A mistake in the manifest, with its place.

use std::fmt;

use serde::Serialize;

/// One mistake. Never contains a value of the manifest: it may come from a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ManifestFinding {
    /// From 1; 0 when the mistake has no line.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// Path of the key: `environments.prod.account`. Empty for the file itself.
    pub(crate) key: String,
    /// The mistake, and the text to write in its place.
    pub(crate) message: String,
}

impl fmt::Display for ManifestFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
