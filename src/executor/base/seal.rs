//! Authenticates the messages of a session: driver and agents act on nothing that others wrote.
//!
//! A tag is a BLAKE3 hash with the session's key over the message's [`Label`] and bytes. The label holds writer, node, kind and
//! numbers, so that a message is refused under another number, from another node, in another run and in the other direction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::node::NodeId;

/// 32 random bytes. The key of a session stands in its record, in its `open` object, and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealKey([u8; blake3::KEY_LEN]);

impl SealKey {
    pub fn new(bytes: [u8; blake3::KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A hash of the key for the training job's environment: it shows whether a key is the session's, and does not reveal it.
    pub fn commitment(&self) -> String {
        let hash = blake3::Hasher::new_derive_key("sagemaker-executor session key v1").update(&self.0).finalize();
        hash.to_hex().to_string()
    }

    /// Begins a hash with this key, for another purpose than a message.
    pub fn hasher(&self, purpose: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher
    }

    fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl TryFrom<String> for SealKey {
    /// The text is not repeated: it may be most of a key.
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = blake3::Hash::from_hex(text).map_err(|_| "the key of a session is not 64 hex digits")?;
        Ok(Self(*bytes.as_bytes()))
    }
}

impl From<SealKey> for String {
    fn from(key: SealKey) -> Self {
        key.to_hex()
    }
}

/// How the messages of a session are told from forged ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    Keyed(SealKey),
    /// Not at all: a version without keys began the session, and its agent knows none.
    Absent,
}

impl Seal {
    /// The tag of a message, unless the session has no key.
    pub fn tag(&self, label: Label, bytes: &[u8]) -> Option<blake3::Hash> {
        let Self::Keyed(key) = self else { return None };
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(&label.to_bytes());
        hasher.update(bytes);
        Some(hasher.finalize())
    }

    /// [`SealKey::commitment`] of the key.
    pub fn commitment(&self) -> Option<String> {
        match self {
            Self::Keyed(key) => Some(key.commitment()),
            Self::Absent => None,
        }
    }

    /// For what one node writes.
    pub fn of_node(&self, node: NodeId) -> NodeSeal {
        NodeSeal { seal: self.clone(), node }
    }
}

/// The seal of what one node writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeal {
    pub seal: Seal,
    pub node: NodeId,
}

/// A kind of message, with its code in a [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Order = 1,
    Report = 2,
    Lease = 3,
    /// A part of the manifest of the project, on its way to the container.
    ProjectPart = 4,
    /// A part of the manifest of the results, on its way back.
    ResultsPart = 5,
    /// A frame of a script's output.
    Output = 6,
    /// A frame of a line that another process of the container wrote.
    ForeignLine = 7,
    /// The frame that ends a script's output.
    EndOfOutput = 8,
    /// The measurements of the agent.
    Measurements = 9,
    /// A part of the manifest of a project that one stage's container keeps for the next.
    KeptPart = 10,
    /// A frame of a report.
    FramedReport = 11,
}

/// Which message of a session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    kind: MessageKind,
    /// The agent that writes it; `None`: the driver does.
    node: Option<NodeId>,
    /// Run, attempt or restarts of the container; 0 for messages of the session.
    group: u32,
    number: u64,
}

impl Label {
    pub fn order(seq: u32) -> Self {
        Self { kind: MessageKind::Order, node: None, group: 0, number: seq.into() }
    }

    pub fn report(node: NodeId, seq: u32) -> Self {
        Self { kind: MessageKind::Report, node: Some(node), group: 0, number: seq.into() }
    }

    pub fn lease() -> Self {
        Self { kind: MessageKind::Lease, node: None, group: 0, number: 0 }
    }

    pub fn project_part(attempt: u32, number: u32) -> Self {
        Self { kind: MessageKind::ProjectPart, node: None, group: attempt, number: number.into() }
    }

    pub fn results_part(node: NodeId, restarts: u32, number: u32) -> Self {
        Self { kind: MessageKind::ResultsPart, node: Some(node), group: restarts, number: number.into() }
    }

    pub fn measurements(node: NodeId, restarts: u32) -> Self {
        Self { kind: MessageKind::Measurements, node: Some(node), group: restarts, number: 0 }
    }

    pub fn kept_part(node: NodeId, number: u32) -> Self {
        Self { kind: MessageKind::KeptPart, node: Some(node), group: 0, number: number.into() }
    }

    /// Another message of the same kind.
    #[must_use]
    pub fn numbered(self, number: u32) -> Self {
        Self { number: number.into(), ..self }
    }

    /// `kind` is one of the four of frames; `number` is the frame's own.
    pub fn frame(kind: MessageKind, node: NodeId, run: u32, number: u64) -> Self {
        Self { kind, node: Some(node), group: run, number }
    }

    /// All numbers are little-endian, and all labels are of one length: what follows cannot be taken for a part of it.
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let node = self.node.map_or(0, NodeId::number);
        bytes[0] = self.kind as u8;
        bytes[1] = if self.node.is_some() { b'A' } else { b'D' };
        bytes[2..4].copy_from_slice(&node.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.group.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_tag_is_of_one_key_label_and_text() {
        let key = |byte| Seal::Keyed(SealKey::new([byte; 32]));
        let (one, two) = (NodeId::LEADER, NodeId::at(1));
        let labels = [
            Label::order(1),
            Label::order(2),
            Label::report(one, 1),
            Label::report(two, 1),
            Label::report(one, 2),
            Label::lease(),
            Label::project_part(1, 1),
            Label::project_part(2, 1),
            Label::results_part(one, 0, 1),
            Label::results_part(one, 1, 1),
            Label::measurements(one, 1),
            Label::frame(MessageKind::Output, one, 1, 1),
            Label::frame(MessageKind::Output, one, 2, 1),
            Label::frame(MessageKind::Output, two, 1, 1),
            Label::frame(MessageKind::ForeignLine, one, 1, 1),
            Label::frame(MessageKind::EndOfOutput, one, 1, 1),
        ];
        let mut tags = HashSet::new();
        for seal in [key(1), key(2)] {
            for label in labels {
                for text in ["", "a", "b"] {
                    assert!(tags.insert(seal.tag(label, text.as_bytes()).unwrap()), "{label:?}");
                }
            }
        }
        assert_eq!(Seal::Absent.tag(Label::order(1), b""), None);
    }

    #[test]
    fn a_key_travels_as_hex_and_is_never_shown() {
        let key = SealKey::new([0xab; 32]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<SealKey>(&text).unwrap(), key);
        let error = serde_json::from_str::<SealKey>("\"abab\"").unwrap_err().to_string();
        assert!(!error.contains("abab") && !format!("{key:?}").contains("ab"), "{error}");
    }
}
