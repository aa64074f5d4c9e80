//! Reads this container's node of the training job from `/opt/ml/input/config/resourceconfig.json`.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::base::node::NodeId;

/// This container's node and the hosts of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThisNode {
    /// Position in `hosts`, independent of the host's name.
    pub id: NodeId,
    /// Host names as SageMaker gives them, sorted by their number.
    pub hosts: Vec<String>,
}

#[derive(Deserialize)]
struct ResourceConfig {
    current_host: String,
    hosts: Vec<String>,
}

impl ThisNode {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let config: ResourceConfig =
            serde_json::from_slice(&text).with_context(|| format!("failed to understand {}", path.display()))?;
        Ok(Self::of(config))
    }

    fn of(mut config: ResourceConfig) -> Self {
        // SageMaker sorts them as text: algo-10 before algo-2.
        config.hosts.sort_by_key(|host| (trailing_number(host), host.clone()));
        let position = config.hosts.iter().position(|host| *host == config.current_host).unwrap_or(0);
        Self { id: NodeId::at(position), hosts: config.hosts }
    }
}

fn trailing_number(host: &str) -> u64 {
    let digits = host.len() - host.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    host.get(host.len() - digits..).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_by_number() {
        let hosts = ["algo-1", "algo-10", "algo-2"].map(str::to_owned).to_vec();
        let node = ThisNode::of(ResourceConfig { current_host: "algo-10".into(), hosts: hosts.clone() });
        assert_eq!(node.id, NodeId::at(2));
        assert_eq!(ThisNode::of(ResourceConfig { current_host: "algo-1".into(), hosts }).id, NodeId::LEADER);
    }
}
