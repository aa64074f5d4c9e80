//! Per-node part of the session record: a table in memory, and one JSON field per column on disk.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::node::{NodeId, Nodes};

/// State of one node, as the processes of the job know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its agent has reported that it is ready.
    pub ready: bool,
    /// Its agent has left, or ended with the training job.
    pub left: bool,
    /// Its receipt of the project was printed.
    pub told: bool,
    /// Number of its reports that were read.
    pub reports: u32,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Columns {
    nodes: Vec<NodeId>,
    ready: BTreeSet<NodeId>,
    left: BTreeSet<NodeId>,
    told: BTreeSet<NodeId>,
    reports: BTreeMap<NodeId, u32>,
}

pub(super) fn serialize<S: Serializer>(nodes: &Nodes<NodeRecord>, serializer: S) -> Result<S::Ok, S::Error> {
    let marked = |is_marked: fn(&NodeRecord) -> bool| {
        nodes.iter().filter(|(_, node)| is_marked(node)).map(|(id, _)| id).collect::<BTreeSet<_>>()
    };
    let columns = Columns {
        nodes: nodes.ids().collect(),
        ready: marked(|node| node.ready),
        left: marked(|node| node.left),
        told: marked(|node| node.told),
        reports: reports(nodes),
    };
    columns.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nodes<NodeRecord>, D::Error> {
    let Columns { nodes, ready, left, told, reports } = Columns::deserialize(deserializer)?;
    Ok(Nodes::new(nodes.len(), |id| NodeRecord {
        ready: ready.contains(&id),
        left: left.contains(&id),
        told: told.contains(&id),
        reports: reports.get(&id).copied().unwrap_or_default(),
    }))
}

/// Number of reports read, by node.
pub(super) fn reports(nodes: &Nodes<NodeRecord>) -> BTreeMap<NodeId, u32> {
    nodes.iter().filter(|(_, node)| node.reports > 0).map(|(id, node)| (id, node.reports)).collect()
}
