//! Object keys in the bucket, relative to the configured prefix.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::base::node::NodeId;
use crate::base::seal::{Label, Seal, SealKey};

/// Key prefix of the agent's files of every version.
pub const AGENTS: &str = "agents/";

/// Key prefix of the agent's files; `hash` is over all of them.
pub fn agent(hash: &str) -> String {
    format!("{AGENTS}{hash}")
}

/// Key of one of the agent's files; with an empty name, the folder of all.
pub fn agent_file(agent: &str, name: &str) -> String {
    format!("{agent}/{name}")
}

/// Object with the key of the projects' scopes. Training jobs cannot read it.
pub const SCOPE_KEY: &str = "hosts/scope-key";

/// Key prefix of the packs that later jobs of the project reuse.
pub fn project_packs(scope: &str) -> String {
    format!("projects/{scope}/packs")
}

/// Key prefix of the checkpoints of the jobs of one name and ref, with a slash at its end. They stay when their session ends.
pub fn checkpoints(scope: &str, git_ref: &str, job: &str) -> String {
    format!("checkpoints/{scope}/{}/{}/", part(git_ref), part(job))
}

/// One part of a key for a name of any characters: its beginning, to be read by people, and its hash.
fn part(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let beginning: String = name.chars().map(plain).take(40).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{beginning}-{}", hash.get(..32).unwrap_or_default())
}

/// Name of the object that an agent reads first; the driver writes it before it creates the training job.
pub const OPEN: &str = "open";

/// Key prefix of all sessions.
pub const SESSIONS: &str = "sessions/";

/// Key prefix of everything that any process stored for a session.
pub fn session_folder(id: &str) -> String {
    format!("{SESSIONS}{id}/")
}

/// Key prefix of the sessions with these numbers of project and job.
pub fn sessions_with(numbers: &str) -> String {
    format!("{SESSIONS}{numbers}-")
}

/// Key of the `open` object in this folder of a session's folder.
pub fn open_in(folder: &str) -> String {
    format!("{folder}{OPEN}")
}

/// The token in the key of a session's `open` object; `folder` is the session's [`session_folder`].
pub fn token_of_open(folder: &str, key: &str) -> Option<Token> {
    Token::parse(key.strip_prefix(folder)?.strip_suffix(OPEN)?.strip_suffix('/')?)
}

/// Where a session's objects are, and the key that seals its messages. Both are random and made once for a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPlace {
    pub token: Token,
    pub key: SealKey,
}

/// 128 random bits, as 32 hex digits, in the keys of a session's objects: a role that may not list them finds them only with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    pub const BYTES: usize = 16;

    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (text.len() == Self::BYTES * 2 && is_hex).then(|| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("the token of a session is not 32 hex digits")
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

/// The content of the object [`OPEN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub version: u32,
    pub key: SealKey,
    /// Length of the session's lease, for a sweep of any host; agents have it in their environment. Absent in a session that an earlier
    /// version began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// Key of the GitLab job, by which a driver without a record finds the earlier attempts of its job. Absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_key: Option<String>,
}

/// Object keys of one session, below its root, and the seal of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeys {
    root: String,
    seal: Seal,
}

impl SessionKeys {
    /// `root` is another process's [`SessionKeys::root`].
    pub fn new(root: impl Into<String>, seal: Seal) -> Self {
        Self { root: root.into(), seal }
    }
    /// A session without a place was begun by a version whose sessions had no key.
    pub fn of_session(id: &str, place: Option<&SessionPlace>) -> Self {
        match place {
            Some(place) => Self::new(format!("sessions/{id}/{}", place.token.0), Seal::Keyed(place.key.clone())),
            None => Self::new(format!("sessions/{id}"), Seal::Absent),
        }
    }
    /// The session's key prefix, without a slash at its end.
    pub fn root(&self) -> &str {
        &self.root
    }
    pub fn seal(&self) -> &Seal {
        &self.seal
    }
    pub fn open(&self) -> String {
        format!("{}/{OPEN}", self.root)
    }
    /// The keys of one stage of a job without network, where each stage is a training job of its own; stages are counted from 1.
    #[must_use]
    pub fn of_stage(&self, stage: u32) -> Self {
        Self { root: format!("{}/stages/{stage:06}", self.root), seal: self.seal.clone() }
    }
    /// Key prefix of SageMaker's own output. The executor reads it for jobs without network alone.
    pub fn output(&self) -> String {
        format!("{}/output", self.root)
    }
    pub fn order(&self, seq: u32) -> String {
        format!("{}/orders/{seq:06}.json", self.root)
    }
    pub fn orders(&self) -> String {
        format!("{}/orders/", self.root)
    }
    /// The number in an order's key.
    pub fn order_number(&self, key: &str) -> Option<u32> {
        key.strip_prefix(&self.orders())?.strip_suffix(".json")?.parse().ok()
    }
    pub fn report(&self, node: NodeId, seq: u32) -> String {
        format!("{}/reports/{node}/{seq:06}.json", self.root)
    }
    pub fn reports(&self) -> String {
        format!("{}/reports/", self.root)
    }
    pub fn lease(&self) -> String {
        format!("{}/lease.json", self.root)
    }
    /// The script of one run. It holds the job's variables in clear; `cleanup` deletes it.
    pub fn script(&self, run: u32) -> String {
        format!("{}/scripts/{run:06}", self.root)
    }
    /// The agent's copy of one run's frames, in batches numbered from 0.
    pub fn trace(&self, node: NodeId, run: u32, batch: u32) -> String {
        format!("{}/trace/{node}/{run:06}/{batch:06}", self.root)
    }
    /// The measurements of the agent in a container that was started again `restarts` times.
    pub fn measurements(&self, node: NodeId, restarts: u32) -> String {
        format!("{}/measurements/{node}/{restarts:06}.json", self.root)
    }
    /// The workspace's transfer to the container; `packs` comes from [`project_packs`].
    pub fn workspace(&self, attempt: u32, packs: &str) -> TransferKeys {
        TransferKeys {
            seal: self.seal.clone(),
            first: Label::project_part(attempt, 0),
            manifest: format!("{}/workspace/{attempt:06}", self.root),
            packs: packs.to_owned(),
            private: format!("{}/workspace/packs", self.root),
        }
    }
    /// The transfer of the project from the container of one stage to that of the next, in a job without network.
    pub fn kept_tree(&self, packs: &str) -> TransferKeys {
        TransferKeys {
            seal: self.seal.clone(),
            first: Label::kept_part(NodeId::LEADER, 0),
            manifest: format!("{}/kept/manifest", self.root),
            packs: packs.to_owned(),
            private: format!("{}/kept/packs", self.root),
        }
    }
    /// The results' transfer to the host, from a node's container that was started again `restarts` times.
    pub fn results(&self, node: NodeId, restarts: u32) -> TransferKeys {
        let folder = if node == NodeId::LEADER { "results".to_owned() } else { format!("results/{node}") };
        let folder = if restarts == 0 { folder } else { format!("{folder}/{restarts:06}") };
        let (manifest, packs) = (format!("{}/{folder}/manifest", self.root), format!("{}/{folder}/packs", self.root));
        let first = Label::results_part(node, restarts, 0);
        TransferKeys { seal: self.seal.clone(), first, manifest, packs: packs.clone(), private: packs }
    }
}

/// Object keys of one transfer, and the seal of its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferKeys {
    pub seal: Seal,
    /// Of the first part of its manifest.
    pub first: Label,
    /// Key prefix of the manifest's parts, used by this transfer alone.
    pub manifest: String,
    /// Key prefix of the packs that other transfers of the project may reuse.
    pub packs: String,
    /// Key prefix of the packs that are deleted with this transfer: they may hold secrets of the job.
    pub private: String,
}

impl TransferKeys {
    pub fn part(&self, number: u32) -> String {
        format!("{}/{number:06}", self.manifest)
    }

    pub fn label(&self, part: u32) -> Label {
        self.first.numbered(part)
    }

    pub fn shared_pack(&self, id: impl Display) -> String {
        format!("{}/{id}", self.packs)
    }

    pub fn private_pack(&self, id: impl Display) -> String {
        format!("{}/{id}", self.private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes of different versions meet at these, so none may change.
    #[test]
    fn keys_are_as_documented() {
        let (token, node) = ("0123456789abcdef0123456789abcdef", NodeId::at(1));
        let place = SessionPlace { token: Token::parse(token).unwrap(), key: SealKey::new([7; 32]) };
        let keys = SessionKeys::of_session("gitlab-1-2-abcdef12", Some(&place));
        let root = format!("{}{token}", session_folder("gitlab-1-2-abcdef12"));
        assert_eq!((keys.root(), keys.seal()), (root.as_str(), &Seal::Keyed(place.key)));
        let below = |key: &str| key.strip_prefix(&root).unwrap().to_owned();
        let all = [
            keys.open(),
            keys.output(),
            keys.orders(),
            keys.order(7),
            keys.reports(),
            keys.report(node, 12),
            keys.lease(),
            keys.script(3),
            keys.trace(node, 3, 0),
            keys.measurements(node, 1),
        ];
        let expected = [
            "/open",
            "/output",
            "/orders/",
            "/orders/000007.json",
            "/reports/",
            "/reports/algo-2/000012.json",
            "/lease.json",
            "/scripts/000003",
            "/trace/algo-2/000003/000000",
            "/measurements/algo-2/000001.json",
        ];
        assert_eq!(all.map(|key| below(&key)), expected);
        assert_eq!((keys.order_number(&keys.order(7)), keys.order_number(&keys.script(7))), (Some(7), None));
        let folder = session_folder("gitlab-1-2-abcdef12");
        assert_eq!(token_of_open(&folder, &keys.open()), Token::parse(token));
        assert_eq!(token_of_open(&folder, &keys.lease()), None);
        let packs = project_packs("7-0123456789abcdef");
        let (up, down) = (keys.workspace(1, &packs), keys.results(NodeId::LEADER, 0));
        assert_eq!(below(&up.part(0)), "/workspace/000001/000000");
        assert_eq!(up.shared_pack("ab"), "projects/7-0123456789abcdef/packs/ab");
        assert_eq!(below(&up.private_pack("ab")), "/workspace/packs/ab");
        assert_eq!(below(&down.part(2)), "/results/manifest/000002");
        assert_eq!(below(&keys.results(NodeId::LEADER, 3).part(2)), "/results/000003/manifest/000002");
        assert_eq!((below(&down.shared_pack("ab")), below(&down.private_pack("ab"))), twice("/results/packs/ab"));
        let stage = keys.of_stage(2);
        assert_eq!(below(&stage.order(1)), "/stages/000002/orders/000001.json");
        assert_eq!(below(&stage.kept_tree(&packs).part(0)), "/stages/000002/kept/manifest/000000");
        assert_eq!(below(&stage.kept_tree(&packs).private_pack("ab")), "/stages/000002/kept/packs/ab");
        assert_eq!(agent_file(&agent("00ff"), "start.sh"), "agents/00ff/start.sh");
    }

    #[test]
    fn checkpoints_of_every_ref_and_job_have_a_folder_of_their_own() {
        let of = |git_ref: &str, job: &str| checkpoints("7-0a", git_ref, job);
        let folder = of("feature/x", "train 1/3");
        let (start, hashes) =
            (folder.strip_prefix("checkpoints/7-0a/feature-x-").unwrap(), folder.matches('/').count());
        assert!(start.contains("/train-1-3-") && folder.ends_with('/') && hashes == 4, "{folder}");
        assert_ne!(folder, of("feature-x", "train 1/3"));
        assert_ne!(folder, of("feature/x", "train-1-3"));
        assert!(of(&"ü".repeat(1024), "..").len() < 200);
    }

    #[test]
    fn a_session_that_a_version_without_keys_began_is_where_that_version_put_it() {
        let keys = SessionKeys::of_session("gitlab-1-2-abcdef12", None);
        assert_eq!((keys.root(), keys.seal()), ("sessions/gitlab-1-2-abcdef12", &Seal::Absent));
    }

    #[test]
    fn a_token_is_32_hex_digits() {
        assert_eq!(String::from(Token::new([0x0a; Token::BYTES])), "0a".repeat(16));
        for wrong in ["", "0a", "../../../../../../../../../../aa", &"0A".repeat(16), &"0a".repeat(17)] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }

    fn twice(text: &str) -> (String, String) {
        (text.to_owned(), text.to_owned())
    }
}
