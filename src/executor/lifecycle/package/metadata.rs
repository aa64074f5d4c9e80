//! `metadata.json` of a package: what is in it, and where it comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::naming::PackageKind;

/// The form of the file. Another number is another form.
pub(crate) const SCHEMA: &str = "sagemaker-executor/package/1";
/// Its name.
pub(crate) const METADATA: &str = "metadata.json";
/// The model's archive.
pub(crate) const MODEL_ARCHIVE: &str = "model/model.tar.gz";

/// Content and origin of a package. Its keys have one order, so that equal packages have equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PackageMetadata {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: PackageKind,
    /// Time of the pipeline, or of the commit outside of one.
    pub(crate) created_at: String,
    /// Version of the program that made it.
    pub(crate) program_version: String,
    pub(crate) project: Option<String>,
    pub(crate) merge_request: Option<String>,
    pub(crate) commit: CommitOrigin,
    pub(crate) pipeline: Option<PipelineOrigin>,
    pub(crate) model: PackagedModel,
    /// Numbers of the files of metrics; text, because no double holds some of them.
    pub(crate) metrics: BTreeMap<String, String>,
    /// Paths and commits of submodules, which are not in the package.
    pub(crate) submodules: BTreeMap<String, String>,
    /// Every other file of the package.
    pub(crate) files: BTreeMap<String, PackagedFile>,
}

/// The commit that is packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitOrigin {
    pub(crate) id: String,
    pub(crate) created_at: String,
    /// Branch or tag of the pipeline.
    pub(crate) reference: Option<String>,
    pub(crate) repository: Option<String>,
}

/// The pipeline that made the package. The job is left out: a retry is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PipelineOrigin {
    pub(crate) id: String,
    pub(crate) url: Option<String>,
}

/// The model and its container: also the file `deploy/model.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackagedModel {
    pub(crate) group: String,
    /// ARN of the registered version.
    pub(crate) package_arn: Option<String>,
    /// With its digest.
    pub(crate) image: String,
    /// `sha256:` and 64 digits.
    pub(crate) image_digest: String,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) content_types: Vec<String>,
    pub(crate) response_types: Vec<String>,
    pub(crate) archive: ArchiveReference,
}

/// The `model.tar.gz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchiveReference {
    pub(crate) sha256: String,
    /// Absent when it is known by its hash alone.
    pub(crate) bytes: Option<u64>,
    /// Its name in the package, if it is there.
    pub(crate) file: Option<String>,
    /// Where it is stored.
    pub(crate) uri: Option<String>,
}

/// A file of the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackagedFile {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    pub(crate) mode: FileMode,
}

/// The kind of a file. The content of a link is its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileMode {
    Plain,
    Executable,
    Link,
}

impl FileMode {
    /// Type and permissions, as in a zip file.
    pub(super) fn unix(self) -> u32 {
        match self {
            Self::Plain => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_777,
        }
    }
}

/// A JSON document of one form: its keys sorted, two spaces, a line break at its end.
pub(super) fn canonical(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    // A `Value` sorts its keys.
    let mut text = serde_json::to_vec_pretty(&serde_json::to_value(value)?)?;
    text.push(b'\n');
    Ok(text)
}
