//! Keys of the bucket, relative to the store's prefix.

use std::fmt::Display;

use crate::base::node::NodeId;

/// Where SageMaker puts its own output, which nobody reads.
pub const OUTPUT: &str = "output";

/// Prefix of the agent's files; `hash` covers all of them.
pub fn agent(hash: &str) -> String {
    format!("agents/{hash}")
}

/// One of the agent's files; with an empty name, the folder of all.
pub fn agent_file(agent: &str, name: &str) -> String {
    format!("{agent}/{name}")
}

/// Prefix of the packs that stay for later jobs of a project.
pub fn project_packs(scope: &str) -> String {
    format!("projects/{scope}/packs")
}

/// Object keys of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

impl Layout {
    /// `root` as another process gives it with [`Layout::name`].
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into() }
    }
    pub fn of_session(id: &str) -> Self {
        Self::new(format!("sessions/{id}"))
    }
    /// The root without a slash at its end: the session's place in the store.
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
    /// The script of one run: holds the job's variables in clear, deleted by cleanup.
    pub fn script(&self, run: u32) -> String {
        format!("{}/scripts/{run:06}", self.root)
    }
    /// The agent's copy of one run's frames, in batches numbered from 0.
    pub fn trace(&self, node: NodeId, run: u32, batch: u32) -> String {
        format!("{}/trace/{node}/{run:06}/{batch:06}", self.root)
    }
    /// The workspace on its way to the container; `packs` is as [`project_packs`] gives it.
    pub fn workspace(&self, attempt: u32, packs: &str) -> Route {
        Route {
            manifest: format!("{}/workspace/{attempt:06}", self.root),
            packs: packs.to_owned(),
            private: format!("{}/workspace/packs", self.root),
        }
    }
    /// What comes back to the host.
    pub fn results(&self) -> Route {
        let packs = format!("{}/results/packs", self.root);
        Route { manifest: format!("{}/results/manifest", self.root), packs: packs.clone(), private: packs }
    }
}

/// Where a transfer lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Prefix of the parts of its manifest; nobody else's.
    pub manifest: String,
    /// Prefix of packs that stay for other transfers of the project.
    pub packs: String,
    /// Prefix of packs that are this transfer's own and vanish with it: what may hold secrets of the job.
    pub private: String,
}

impl Route {
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
        let (layout, node) = (Layout::of_session("gitlab-1-2-abcdef12"), NodeId::at(1));
        assert_eq!(layout.name(), "sessions/gitlab-1-2-abcdef12");
        assert_eq!(Layout::new(layout.name()), layout);
        let below = |key: &str| key.strip_prefix("sessions/gitlab-1-2-abcdef12").unwrap().to_owned();
        let keys = [
            layout.root(),
            layout.orders(),
            layout.order(7),
            layout.reports(),
            layout.report(node, 12),
            layout.lease(),
            layout.script(3),
            layout.trace(node, 3, 0),
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
        assert_eq!(keys.map(|key| below(&key)), expected);
        let packs = project_packs("7-0123456789abcdef");
        let (up, down) = (layout.workspace(1, &packs), layout.results());
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
