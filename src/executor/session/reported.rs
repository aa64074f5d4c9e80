//! Notes in a session's record what a node reported. Pure.

use crate::base::node::NodeId;
use crate::protocol::mailbox::Report;
use crate::session::record::SessionRecord;

/// `None`: the report cannot be read.
pub(super) fn note(record: &mut SessionRecord, id: NodeId, report: Option<&Report>) {
    let Some(node) = record.nodes.get_mut(id) else { return };
    node.reports += 1;
    let known = &mut record.restarts;
    match report {
        Some(Report::Ready { restarts, after, .. }) => {
            (node.ready, node.left) = (true, false);
            record.models.remove(&id);
            known.after = known.after.max(*after);
            if id == NodeId::LEADER {
                known.leader = known.leader.max(*restarts);
                // Files that an agent sent before any script are no results.
                record.collected &= *after > 0;
            }
        }
        Some(Report::Bye { .. }) => node.left = true,
        Some(Report::Unsent { files, first }) => record.note_unsent(id, *files, first),
        Some(Report::Exited { exit, .. }) if exit.has_model => drop(record.models.insert(id)),
        Some(Report::Exited { .. }) => drop(record.models.remove(&id)),
        Some(Report::Collected { restarts, .. }) if id == NodeId::LEADER => {
            (record.collected, known.collected) = (true, *restarts);
        }
        // These concern the run that is followed, or the stage that reads them.
        Some(
            Report::Received { .. }
            | Report::Missing { .. }
            | Report::Damaged { .. }
            | Report::Started { .. }
            | Report::Kept { .. }
            | Report::Collected { .. }
            | Report::Failed { .. },
        )
        | None => {}
    }
}
