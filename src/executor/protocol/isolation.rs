//! A job without network: each container stage is a training job of its own, and SageMaker itself carries all objects between the
//! bucket and the container.
//!
//! The container reads the object `key` at `<channel>/<key>`, and writes it to `/opt/ml/output/data/<key>`, from where SageMaker
//! uploads it to `<S3OutputPath>/<training job>/output/data/<key>` once the container has ended.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::bootstrap;
use super::keys::{SessionKeys, TransferKeys};
use crate::base::seal::Seal;

/// The input channel with the objects that the driver has stored for the stage.
pub const STAGE_CHANNEL: &str = "sagemaker-executor-stage";
/// The input channel with the objects that the container of the stage before has written.
pub const EARLIER_CHANNEL: &str = "sagemaker-executor-earlier";
/// Channels of such a job besides the agent's and its own.
pub const CHANNELS: usize = 2;

/// Directory of the objects that a container writes.
pub const OUTPUT_DIR: &str = "/opt/ml/output/data";

/// The directories of the objects that a container reads, the first one first.
pub fn channel_dirs() -> Vec<PathBuf> {
    [STAGE_CHANNEL, EARLIER_CHANNEL].map(|name| bootstrap::data_dir().join(name)).to_vec()
}

/// Key prefix under which SageMaker stores the objects that a container has written.
pub fn output(keys: &SessionKeys, training_job: &str) -> String {
    format!("{}/{training_job}/output/data/", keys.output())
}

/// The content of the object that lists the objects of a channel, for `S3DataType` `ManifestFile`: `keys` below the URI `prefix`.
pub fn channel_list(prefix: &str, keys: &[String]) -> Vec<u8> {
    let first = serde_json::json!({ "prefix": prefix });
    let all: Vec<_> = std::iter::once(first).chain(keys.iter().map(|key| serde_json::json!(key))).collect();
    serde_json::to_vec(&all).expect("texts only")
}

/// The files of a stage that is a training job of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFiles {
    /// The project comes from the container of the stage before; `None`: from the host.
    pub earlier: Option<EarlierStage>,
    pub keep: KeepTree,
}

/// A stage whose container has kept its project for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierStage {
    /// [`SessionKeys::root`] of the stage.
    pub root: String,
    /// [`SessionKeys::root`] of the first stage, and the attempt in which the host sent the project: the files that the host has.
    pub first_root: String,
    pub attempt: u32,
}

impl EarlierStage {
    /// The keys of the project that the stage has kept, and of the one that the host has sent.
    pub fn keys(&self, seal: &Seal, packs: &str) -> (TransferKeys, TransferKeys) {
        let of = |root: &String| SessionKeys::new(root.clone(), seal.clone());
        (of(&self.root).kept_tree(packs), of(&self.first_root).workspace(self.attempt, packs))
    }
}

/// Whether a stage's container sends its whole project, for the next stage, in place of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepTree {
    /// No stage follows.
    Never,
    /// A stage follows if this one succeeds.
    OnSuccess,
    Always,
}

impl KeepTree {
    pub fn applies(self, code: i32) -> bool {
        match self {
            Self::Never => false,
            Self::OnSuccess => code == 0,
            Self::Always => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_lists_its_objects_as_sagemaker_reads_them() {
        let list = channel_list("s3://bucket/ci/", &["a/b".to_owned(), "c".to_owned()]);
        assert_eq!(String::from_utf8(list).unwrap(), r#"[{"prefix":"s3://bucket/ci/"},"a/b","c"]"#);
    }

    #[test]
    fn a_tree_is_kept_for_a_stage_that_follows() {
        let kept = |keep: KeepTree| [0, 1].map(|code| keep.applies(code));
        assert_eq!(
            [KeepTree::Never, KeepTree::OnSuccess, KeepTree::Always].map(kept),
            [[false, false], [true, false], [true, true]]
        );
    }
}
