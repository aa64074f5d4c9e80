//! Messages between driver and agent: numbered, versioned objects with one writer each, never rewritten.
//!
//! The driver writes orders and renews the lease; each node's agent writes reports. [`keys`](super::keys) has their keys.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::base::metric::MetricDefinition;
use crate::base::node::NodeId;
use crate::base::seal::{Label, Seal};
use crate::protocol::isolation::StageFiles;
use crate::protocol::keys::SessionKeys;
use crate::protocol::project::{Selection, Trees};

/// Version of every message of a session with a key. A reader refuses a higher one and ignores unknown fields.
pub const VERSION: u32 = 2;
/// Of a session without one, which a version before this began.
const VERSION_WITHOUT_KEY: u32 = 1;

/// A message with its version and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    pub version: u32,
    pub seq: u32,
    pub body: T,
}

/// A message of the driver. The sequence is `Workspace`, then `Run` (and `Cancel`) for each stage, then `Finish`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Fetch the project before anything else.
    Workspace(WorkspaceOrder),
    /// Run the script stored under [`SessionKeys::script`](super::keys::SessionKeys::script).
    Run(RunOrder),
    Cancel {
        run: u32,
    },
    /// No script follows: send the results if `collect`, then end. Of several nodes, one whose script failed waits for a second one, without
    /// `collect`, after it has sent its results.
    Finish {
        collect: bool,
    },
}

/// Also holds what the agent needs to send results without a further order, when it is stopped or its lease expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceOrder {
    /// Counted from 1; a higher attempt replaces the earlier ones. The manifest is at
    /// [`SessionKeys::workspace`](super::keys::SessionKeys::workspace).
    pub attempt: u32,
    /// Key prefix of the packs.
    pub packs: String,
    pub trees: Trees,
    pub selection: Selection,
    /// Of a job without network: this stage is a training job of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageFiles>,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    pub run: u32,
    pub stage: String,
    /// BLAKE3 of the script, in hex. Empty from a version that did not tell.
    #[serde(default)]
    pub script: String,
    /// Values to remove from the output.
    pub masks: Vec<String>,
    pub mask_prefixes: Vec<String>,
    /// Seconds between SIGTERM and SIGKILL when the run is canceled.
    pub grace: u64,
    /// The driver reads the copy of the output while the script runs; if not, batches are stored less often.
    #[serde(default = "yes")]
    pub live_copy: bool,
    /// Values to read from the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricDefinition>,
    /// Updates of a progress bar that the output keeps in a second; 0 keeps all.
    #[serde(default)]
    pub progress_rate: u32,
    /// Seconds that the container is kept when the script fails.
    #[serde(default)]
    pub keep_on_failure: u64,
    /// Variables of the script that nothing else holds: values of secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Measure the use of the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub samples: bool,
}

impl Order {
    /// The kind alone, for logs: a `Run` carries secrets.
    pub fn kind(&self) -> &'static str {
        match self {
            Order::Workspace(_) => "workspace",
            Order::Run(_) => "run",
            Order::Cancel { .. } => "cancel",
            Order::Finish { .. } => "finish",
        }
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

/// A message of the agent of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first report of each start of the container: it runs and reaches the mailbox.
    Ready {
        agent: String,
        nodes: Vec<String>,
        /// How often SageMaker has started the container again.
        #[serde(default)]
        restarts: u32,
        /// Number of the last order to run a script that an earlier start of the container carried out; 0: none. Earlier orders are
        /// not read again, and the project is gone.
        #[serde(default)]
        after: u32,
        /// Of the leader, in a job that keeps checkpoints. `None`: an older agent does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoints: Option<CheckpointFolder>,
    },
    /// The project is in place.
    Received { summary: String },
    /// A pack named by the manifest of this attempt is not in the store. The agent waits for another attempt.
    Missing { attempt: u32 },
    /// The content of a chunk does not match its hash; the pack is unusable.
    Damaged { pack: String, chunk: String },
    Started {
        run: u32,
        /// Number of the order to run it. 0: an older agent does not say.
        #[serde(default)]
        order: u32,
    },
    /// The script has failed, and the container is kept until the order to cancel the run, `until`, or the file `release` is there.
    Kept {
        run: u32,
        code: i32,
        /// Size of the script's output.
        bytes: u64,
        /// Milliseconds since 1970 by the node's clock.
        until: u64,
        release: String,
    },
    /// Sent after the copy of the run's output is complete in the store.
    Exited { run: u32, exit: ExitReport },
    /// The results are in the store.
    Collected {
        summary: String,
        /// As in `Ready`; it tells where they are.
        #[serde(default)]
        restarts: u32,
    },
    /// Files of a node that sends none, although the job's paths name them: their number, and the first of them.
    Unsent { files: u64, first: Vec<String> },
    /// The agent could not carry out an order; it waits for the next one.
    Failed {
        order: String,
        reason: String,
        /// A mistake of the job or its image: a retry would fail in the same way.
        #[serde(default)]
        by_job: bool,
    },
    /// The last report: the agent ends, after a failure on several nodes once it is let go.
    Bye { reason: ByeReason },
}

/// The files that stand in the folder of checkpoints when the container starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFolder {
    pub files: u64,
    pub bytes: u64,
}

/// The end of a script on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Exit code; 128 + n when killed by signal n, as in a shell.
    pub code: i32,
    /// Size of the output in bytes, and its hash as in the end frame.
    pub bytes: u64,
    pub hash: String,
    /// The agent ended the script: after an order, a stop of the job or the end of the lease.
    pub canceled: bool,
    /// When the script ended: milliseconds since 1970 by the node's clock. 0: the script never began, or an older agent does not say.
    #[serde(default)]
    pub at: u64,
    /// How long the script ran, in milliseconds by the node's clock. `None`: it never began, or an older agent does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<u64>,
    /// Number of batches in the complete copy of the output. `None`: the copy is incomplete, and only the log has every frame.
    #[serde(default)]
    pub copy: Option<u32>,
    /// There are files in `/opt/ml/model`.
    #[serde(default)]
    pub has_model: bool,
}

fn yes() -> bool {
    true
}

/// Why an agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByeReason {
    /// The driver sent `Finish`.
    Finished,
    /// SIGTERM: `StopTrainingJob`, or the job's longest run time.
    Stopped,
    /// The driver did not renew the lease.
    LeaseExpired,
    /// The container was started again after a script had begun that must not run twice; also any reason that this version does not know.
    #[serde(other)]
    Other,
}

/// The driver's heartbeat. The agent times the changes of `beat` on its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub version: u32,
    pub beat: u64,
}

/// Why a message cannot be used. Messages never show its content: orders carry secrets, reports come from a container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MailboxError {
    #[error("message {0} is larger than {MAX_BYTES} bytes")]
    TooLarge(String),
    #[error("message {0} is not of the expected form (line {1}, column {2})")]
    Malformed(String, usize, usize),
    #[error("message {0} has version {1}; this program knows {VERSION}")]
    Version(String, u32),
    #[error("message {0} carries number {1}")]
    Number(String, u32),
    #[error("message {0} does not have the tag of this session: another writer has stored it, or it is damaged")]
    Forged(String),
}

/// Upper bound of a message, checked before it is decoded.
pub const MAX_BYTES: usize = 4 << 20;

pub fn encode_order(keys: &SessionKeys, seq: u32, order: &Order) -> Vec<u8> {
    encode(keys.seal(), Label::order(seq), &Envelope { version: version(keys.seal()), seq, body: order })
}

pub fn decode_order(keys: &SessionKeys, seq: u32, bytes: &[u8]) -> Result<Order, MailboxError> {
    decode(keys.seal(), Label::order(seq), &keys.order(seq), seq, bytes)
}

pub fn encode_report(keys: &SessionKeys, node: NodeId, seq: u32, report: &Report) -> Vec<u8> {
    encode(keys.seal(), Label::report(node, seq), &Envelope { version: version(keys.seal()), seq, body: report })
}

pub fn decode_report(keys: &SessionKeys, node: NodeId, seq: u32, bytes: &[u8]) -> Result<Report, MailboxError> {
    decode(keys.seal(), Label::report(node, seq), &keys.report(node, seq), seq, bytes)
}

pub fn encode_lease(keys: &SessionKeys, beat: u64) -> Vec<u8> {
    encode(keys.seal(), Label::lease(), &Lease { version: version(keys.seal()), beat })
}

/// The lease's beat. A lease that another writer stored has none.
pub fn decode_lease(keys: &SessionKeys, bytes: &[u8]) -> Option<u64> {
    let lease: Lease = serde_json::from_slice(unsealed(keys.seal(), Label::lease(), bytes)?).ok()?;
    Some(lease.beat)
}

pub(super) fn version(seal: &Seal) -> u32 {
    match seal {
        Seal::Keyed(_) => VERSION,
        Seal::Absent => VERSION_WITHOUT_KEY,
    }
}

/// A line with the tag of the JSON text, in hex, and the text. In a session without a key, the text alone.
pub(super) fn encode(seal: &Seal, label: Label, message: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(message).expect("messages hold strings and numbers only");
    match seal.tag(label, &text) {
        Some(tag) => [tag.to_hex().as_bytes(), b"\n", &text].concat(),
        None => text,
    }
}

/// The text of a message, if its tag is the session's.
fn unsealed<'a>(seal: &Seal, label: Label, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if *seal == Seal::Absent {
        return Some(bytes);
    }
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let (tag, text) = (blake3::Hash::from_hex(bytes.get(..at)?).ok()?, bytes.get(at + 1..)?);
    (seal.tag(label, text)? == tag).then_some(text)
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(
    seal: &Seal,
    label: Label,
    key: &str,
    seq: u32,
    bytes: &[u8],
) -> Result<T, MailboxError> {
    if bytes.len() > MAX_BYTES {
        return Err(MailboxError::TooLarge(key.to_owned()));
    }
    let text = unsealed(seal, label, bytes).ok_or_else(|| MailboxError::Forged(key.to_owned()))?;
    let malformed = |error: serde_json::Error| MailboxError::Malformed(key.to_owned(), error.line(), error.column());
    // Check the version first: a newer body may not parse.
    let head: Envelope<IgnoredAny> = serde_json::from_slice(text).map_err(malformed)?;
    if head.version > version(seal) {
        return Err(MailboxError::Version(key.to_owned(), head.version));
    }
    if head.seq != seq {
        return Err(MailboxError::Number(key.to_owned(), head.seq));
    }
    let envelope: Envelope<T> = serde_json::from_slice(text).map_err(malformed)?;
    Ok(envelope.body)
}

#[cfg(test)]
mod tests;
