//! Object keys in the bucket, relative to the configured prefix.

use std::fmt::Display;

use crate::base::node::NodeId;

/// Key prefix of SageMaker's own output, which the executor does not read.
pub const OUTPUT: &str = "output";

/// Key prefix of the agent's files; `hash` is over all of them.
pub fn agent(hash: &str) -> String {
    format!("agents/{hash}")
}

/// Key of one of the agent's files; with an empty name, the folder of all.
pub fn agent_file(agent: &str, name: &str) -> String {
    format!("{agent}/{name}")
}

/// Key prefix of the packs that later jobs of the project reuse.
pub fn project_packs(scope: &str) -> String {
    format!("projects/{scope}/packs")
}

/// Object keys of one session, below its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeys {
    root: String,
}

impl SessionKeys {
    /// `root` is another process's [`SessionKeys::name`].
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into() }
    }
    pub fn of_session(id: &str) -> Self {
        Self::new(format!("sessions/{id}"))
    }
    /// The session's key prefix, without a slash at its end.
    pub fn name(&self) -> &str {
        &self.root
    }
    pub fn root(&self) -> String {
        format!("{}/", self.root)
    }
    pub fn order(&self, seq: u32) -> String {
        format!("{}/orders/{seq:06}.json", self.root)
    }
    pub fn orders(&self) -> String {
        format!("{}/orders/", self.root)
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
    /// The workspace's transfer to the container; `packs` comes from [`project_packs`].
    pub fn workspace(&self, attempt: u32, packs: &str) -> TransferKeys {
        TransferKeys {
            manifest: format!("{}/workspace/{attempt:06}", self.root),
            packs: packs.to_owned(),
            private: format!("{}/workspace/packs", self.root),
        }
    }
    /// The results' transfer to the host.
    pub fn results(&self) -> TransferKeys {
        let packs = format!("{}/results/packs", self.root);
        TransferKeys { manifest: format!("{}/results/manifest", self.root), packs: packs.clone(), private: packs }
    }
}

/// Object keys of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferKeys {
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
        let (keys, node) = (SessionKeys::of_session("gitlab-1-2-abcdef12"), NodeId::at(1));
        assert_eq!(keys.name(), "sessions/gitlab-1-2-abcdef12");
        assert_eq!(SessionKeys::new(keys.name()), keys);
        let below = |key: &str| key.strip_prefix("sessions/gitlab-1-2-abcdef12").unwrap().to_owned();
        let all = [
            keys.root(),
            keys.orders(),
            keys.order(7),
            keys.reports(),
            keys.report(node, 12),
            keys.lease(),
            keys.script(3),
            keys.trace(node, 3, 0),
        ];
        let expected = [
            "/",
            "/orders/",
            "/orders/000007.json",
            "/reports/",
            "/reports/algo-2/000012.json",
            "/lease.json",
            "/scripts/000003",
            "/trace/algo-2/000003/000000",
        ];
        assert_eq!(all.map(|key| below(&key)), expected);
        let packs = project_packs("7-0123456789abcdef");
        let (up, down) = (keys.workspace(1, &packs), keys.results());
        assert_eq!(below(&up.part(0)), "/workspace/000001/000000");
        assert_eq!(up.shared_pack("ab"), "projects/7-0123456789abcdef/packs/ab");
        assert_eq!(below(&up.private_pack("ab")), "/workspace/packs/ab");
        assert_eq!(below(&down.part(2)), "/results/manifest/000002");
        assert_eq!((below(&down.shared_pack("ab")), below(&down.private_pack("ab"))), twice("/results/packs/ab"));
        assert_eq!(agent_file(&agent("00ff"), "start.sh"), "agents/00ff/start.sh");
    }

    fn twice(text: &str) -> (String, String) {
        (text.to_owned(), text.to_owned())
    }
}
