//! Reads this container's node of the training job from `/opt/ml/input/config/resourceconfig.json`.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::base::node::NodeId;

/// This container's node and the hosts of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThisNode {
    /// Position in `hosts`, independent of the host's name.
    pub id: NodeId,
    /// Host names as SageMaker gives them, sorted by their number: as the log streams are named.
    pub hosts: Vec<String>,
    /// The host name of this node.
    pub host: String,
    /// The whole file.
    pub resources: Value,
}

#[derive(Deserialize)]
struct ResourceConfig {
    current_host: String,
    hosts: Vec<String>,
}

impl ThisNode {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_slice(&text)
            .and_then(Self::of)
            .with_context(|| format!("failed to understand {}", path.display()))
    }

    pub(super) fn of(resources: Value) -> serde_json::Result<Self> {
        let ResourceConfig { current_host, mut hosts } = ResourceConfig::deserialize(&resources)?;
        // SageMaker sorts them as text: algo-10 before algo-2. Both orders begin with algo-1; only with hosts of another
        // form, which have no numbers of their own, does the text alone decide.
        hosts.sort();
        let numbers = hosts.iter().map(|host| NodeId::parse(host)).collect::<Option<Vec<_>>>();
        if numbers.is_some_and(|numbers| numbers.contains(&NodeId::LEADER)) {
            hosts.sort_by_key(|host| NodeId::parse(host));
        }
        let position = hosts.iter().position(|host| *host == current_host).unwrap_or(0);
        Ok(Self { id: NodeId::at(position), hosts, host: current_host, resources })
    }

    /// The hosts in SageMaker's order, which gives programs their ranks. It begins with the leader.
    pub fn ranked(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        hosts.sort_unstable();
        hosts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(host: &str, hosts: &[&str]) -> ThisNode {
        ThisNode::of(json!({"current_host": host, "hosts": hosts})).unwrap()
    }

    #[test]
    fn nodes_are_counted_by_number() {
        let hosts = ["algo-1", "algo-10", "algo-2"];
        assert_eq!(node("algo-10", &hosts).id, NodeId::at(2));
        assert_eq!(node("algo-1", &hosts).id, NodeId::LEADER);
        assert_eq!(node("algo-1", &hosts).ranked(), hosts);
    }

    #[test]
    fn the_leader_has_the_first_rank_whatever_the_hosts_are_called() {
        for hosts in [["algo-2", "algo-10", "algo-1"], ["ip-10", "ip-9", "x"], ["algo-10", "algo-9", "algo-2"]] {
            let first = node(hosts[0], &hosts).ranked()[0].to_owned();
            assert_eq!(node(&first, &hosts).id, NodeId::LEADER, "{hosts:?}");
        }
    }
}
