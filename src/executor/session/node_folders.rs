//! The folders of the project for the files of the other nodes: each has the name of its node.

use std::fs;

use crate::base::failure::Failure;
use crate::base::node::{NodeId, Nodes};
use crate::protocol::project::Trees;
use crate::session::Session;
use crate::session::node_record::NodeRecord;
use crate::workspace::Summary;

/// Refuses a project that has a file in the place of such a folder.
pub(super) fn check(nodes: &Nodes<NodeRecord>, trees: &Trees) -> Result<(), Failure> {
    let mut others = nodes.ids().filter(|node| *node != NodeId::LEADER);
    let is_taken = |node: &NodeId| {
        let found = fs::symlink_metadata(trees.project_here().join(node.to_string()));
        found.is_ok_and(|found| !found.is_dir())
    };
    others.find(is_taken).map_or(Ok(()), |node| {
        let text =
            format!("the project has a file `{node}`, but the files of the node {node} go into a folder `{node}/`");
        Err(Failure::user(text).hint("rename the file, or set `SAGEMAKER_RESULTS` to `leader`"))
    })
}

/// Warns of files that the first node has written into such a folder.
pub(super) fn warn_of_shared(session: &Session<'_>, received: &Summary) {
    if !sends_every_node(session) {
        return;
    }
    let others = session.state.nodes().ids().filter(|node| *node != NodeId::LEADER);
    for node in others.filter(|node| received.folders.contains(&node.to_string())) {
        session.printer.warn(format!(
            "The first node has written files into `{node}/`, which is for the files of {node}: those replace files of the same path. \
             Write them into a folder of another name"
        ));
    }
}

pub(super) fn sends_every_node(session: &Session<'_>) -> bool {
    session.state.selection().is_some_and(|selection| selection.every_node)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn anything_but_a_folder_is_in_the_way() {
        let project = tempfile::tempdir().unwrap();
        let at = |name: &str| project.path().join(name);
        let trees = Trees { project: project.path().to_owned(), tmp: at("tmp"), host: None };
        let nodes = Nodes::new(3, |_| NodeRecord::default());
        fs::create_dir(at("algo-2")).unwrap();
        for name in ["algo-1", "algo-4"] {
            fs::write(at(name), "").unwrap();
        }
        assert!(check(&nodes, &trees).is_ok());
        symlink("algo-2", at("algo-3")).unwrap();
        let failure = check(&nodes, &trees).unwrap_err();
        assert!(failure.to_string().contains("a file `algo-3`"), "{failure}");
    }
}
