//! The package that a deployment is made of, as tags, records and output name it. Pure.

use serde::{Deserialize, Serialize};

use crate::base::plain;

/// Longest text in a line, in bytes.
const LONGEST: usize = 1100;

/// A package with what tells it from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeployedPackage {
    pub(crate) name: String,
    /// Of the whole file: 64 hexadecimal digits.
    pub(crate) sha256: String,
    /// The commit that is packed.
    pub(crate) commit: String,
    /// Of the model's archive: 64 hexadecimal digits.
    pub(crate) model_sha256: String,
    /// Where the package lies in the environment's bucket.
    pub(crate) uri: String,
}

impl DeployedPackage {
    /// Safe to print: a record of it may be anybody's.
    pub(crate) fn plain(&self) -> Self {
        let safe = |text: &str| plain::line(text, LONGEST);
        Self {
            name: safe(&self.name),
            sha256: safe(&self.sha256),
            commit: safe(&self.commit),
            model_sha256: safe(&self.model_sha256),
            uri: safe(&self.uri),
        }
    }

    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let Self { name, sha256, commit, model_sha256, .. } = self.plain();
        format!("{name}, SHA-256 {sha256}, of commit {commit}; the model's is {model_sha256}")
    }
}
