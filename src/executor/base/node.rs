//! Nodes of a training job: their names, and a table with one row per node.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node, counted from 1. Its name, `algo-<n>`, is used in SageMaker's log streams, in object keys, in records and in
/// messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(u16);

impl NodeId {
    /// The first node, which sends the results.
    pub const LEADER: Self = Self(1);

    /// The node at a position, counted from 0.
    pub fn at(index: usize) -> Self {
        Self(u16::try_from(index + 1).unwrap_or(u16::MAX))
    }

    /// The node's position, counted from 0.
    pub fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// Counted from 1.
    pub fn number(self) -> u16 {
        self.0
    }

    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("algo-").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok().filter(|number| *number > 0).map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "algo-{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for NodeId {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name).ok_or("the name of a node is not of the form `algo-<n>`")
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.to_string()
    }
}

/// A table with one row per node of a training job. Rows are made with the table and never added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes<Row>(Vec<Row>);

impl<Row> Nodes<Row> {
    pub fn new(count: usize, row: impl FnMut(NodeId) -> Row) -> Self {
        Self((0..count).map(NodeId::at).map(row).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes, in order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<Row> {
        (0..self.0.len()).map(NodeId::at)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.iter()
    }

    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.0.iter_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Row)> {
        self.ids().zip(&self.0)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Row)> {
        self.ids().zip(&mut self.0)
    }

    /// `None` for a node that the training job does not have.
    pub fn get(&self, node: NodeId) -> Option<&Row> {
        self.0.get(node.index())
    }

    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Row> {
        self.0.get_mut(node.index())
    }

    /// Changes a node's row, if there is one.
    pub fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Row)) {
        self.get_mut(node).map(change);
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("algo-1" => Some(0); "the first")]
    #[test_case("algo-12" => Some(11); "the twelfth")]
    #[test_case("algo-0" => None; "nodes count from one")]
    #[test_case("algo-" => None; "no number")]
    #[test_case("algo-+1" => None; "a sign")]
    #[test_case("algo-65536" => None; "too many")]
    #[test_case("profiler-1" => None; "another container")]
    fn a_node_is_told_by_its_name(name: &str) -> Option<usize> {
        NodeId::parse(name).map(NodeId::index)
    }

    #[test]
    fn a_node_is_a_string_in_json_and_sorts_by_number() {
        let nodes = [NodeId::at(1), NodeId::at(9)];
        assert_eq!(serde_json::to_string(&nodes).unwrap(), r#"["algo-2","algo-10"]"#);
        assert_eq!(serde_json::from_str::<[NodeId; 2]>(r#"["algo-2","algo-10"]"#).unwrap(), nodes);
        assert!(nodes[0] < nodes[1]);
        assert!(serde_json::from_str::<NodeId>("\"host\"").unwrap_err().to_string().contains("`algo-<n>`"));
    }
}
