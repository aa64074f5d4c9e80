//! Which node of the training job this container is: `/opt/ml/input/config/resourceconfig.json`.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// This container among its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `algo-<n>` by position: its name in the mailbox, whatever the platform calls the host.
    pub name: String,
    /// Host names as the platform gives them, in order.
    pub hosts: Vec<String>,
    /// The first node sends the results.
    pub is_leader: bool,
}

#[derive(Deserialize)]
struct ResourceConfig {
    current_host: String,
    hosts: Vec<String>,
}

impl Node {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let config: ResourceConfig =
            serde_json::from_slice(&text).with_context(|| format!("failed to understand {}", path.display()))?;
        Ok(Self::of(config))
    }

    fn of(mut config: ResourceConfig) -> Self {
        // The platform sorts by text: algo-10 stands before algo-2.
        config.hosts.sort_by_key(|host| (trailing_number(host), host.clone()));
        let position = config.hosts.iter().position(|host| *host == config.current_host).unwrap_or(0);
        Self { name: format!("algo-{}", position + 1), hosts: config.hosts, is_leader: position == 0 }
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
        let node = Node::of(ResourceConfig { current_host: "algo-10".into(), hosts: hosts.clone() });
        assert_eq!((node.name.as_str(), node.is_leader), ("algo-3", false));
        assert!(Node::of(ResourceConfig { current_host: "algo-1".into(), hosts }).is_leader);
    }
}
