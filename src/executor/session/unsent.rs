//! Tells which files of the other nodes stay there although the job's paths name them: without the node's folder, a path means the files of
//! the first node alone.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::node::NodeId;
use crate::base::signals::Cancellation;
use crate::protocol::mailbox::Report;
use crate::session::Session;
use crate::session::inbox::Inbox;
use crate::session::node_folders;

/// Longest wait for the other nodes, which end at the same time as the first one.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Most names in the sentence.
const NAMES: usize = 3;

/// Waits for what the other nodes report, and warns of their files. It is a help alone: errors end it.
pub(super) async fn tell(session: &mut Session<'_>, cancel: &Cancellation) {
    let others: Vec<NodeId> = session.state.nodes().ids().filter(|node| *node != NodeId::LEADER).collect();
    let known = session.state.stage_jobs().map(|stages| stages.unsent.clone()).unwrap_or_default();
    let (mut inbox, mut found) = (Inbox::default(), known);
    let until = Instant::now() + PATIENCE;
    loop {
        let is_there = |node: &NodeId| session.state.nodes().get(*node).is_some_and(|row| row.ready && !row.left);
        let waiting: Vec<NodeId> = others.iter().copied().filter(is_there).collect();
        if waiting.is_empty() || cancel.asked() || Instant::now() >= until {
            break;
        }
        let mut came = false;
        for node in waiting {
            match inbox.next(session, node).await {
                Ok(None) => {}
                Ok(Some(report)) => {
                    came = true;
                    if let Report::Unsent { files, first } = report {
                        found.insert(node, (files, first));
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "failed to read what {node} keeps");
                    return;
                }
            }
        }
        if !came {
            tokio::time::sleep(POLL).await;
        }
    }
    if let Some(sentence) = sentence(&found, node_folders::sends_every_node(session)) {
        session.printer.warn(sentence);
    }
}

fn sentence(found: &BTreeMap<NodeId, (u64, Vec<String>)>, every_node: bool) -> Option<String> {
    let count: u64 = found.values().map(|(files, _)| files).sum();
    let (first, _) = found.first_key_value()?;
    let all = found.iter().flat_map(|(node, (_, first))| first.iter().map(move |name| format!("{name} of {node}")));
    let mut names: Vec<String> = all.take(NAMES).collect();
    let more = count.saturating_sub(names.len() as u64);
    names.extend((more > 0).then(|| format!("{more} more")));
    let (files, stay) = if count == 1 { ("file", "stays") } else { ("files", "stay") };
    let (why, set) = if every_node {
        ("the paths of other nodes begin with their folder", "")
    } else {
        ("the first node alone sends its files", "set `SAGEMAKER_RESULTS` to `all` and ")
    };
    Some(format!(
        "{count} {files} that `artifacts` or `cache` name {stay} on other nodes, because {why}: {}. To keep them, {set}name folders of nodes \
         in the paths, such as `{first}/` or `algo-*/`",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::node::Nodes;
    use crate::cloud::testing::Memory;
    use crate::config::settings::Settings;
    use crate::protocol::mailbox::ByeReason;
    use crate::session::event::SessionEvent;
    use crate::session::node_record::NodeRecord;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::stage_jobs::StageJobs;
    use crate::session::{Host, SessionId};
    use crate::ui::Printer;

    #[test]
    fn the_first_files_are_named_and_all_are_counted() {
        assert_eq!(sentence(&BTreeMap::new(), false), None);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut found =
            BTreeMap::from([(NodeId::at(1), (1, names(&["a"]))), (NodeId::at(2), (7, names(&["b", "c", "d"])))]);
        let text = sentence(&found, false).unwrap();
        assert!(text.starts_with("8 files that `artifacts` or `cache` name stay on other nodes"), "{text}");
        assert!(text.contains(": a of algo-2, b of algo-3, c of algo-3, 5 more. To keep them"), "{text}");
        let text = sentence(&found, true).unwrap();
        assert!(text.contains("5 more. To keep them, name folders of nodes in the paths, such as `algo-2/`"), "{text}");
        found.remove(&NodeId::at(2));
        assert!(sentence(&found, false).unwrap().starts_with("1 file that `artifacts` or `cache` name stays on"));
    }

    /// Of a container without network, all reports came with the log, and were read with those of the script.
    #[tokio::test]
    async fn files_of_nodes_that_have_left_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let ((printer, shown), id) = (Printer::captured(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
        let record = SessionRecord {
            nodes: Nodes::new(2, |_| NodeRecord::default()),
            stage_jobs: Some(StageJobs::default()),
            ..SessionRecord::default()
        };
        Records::open(dir.path()).unwrap().save(&id, &record).unwrap();
        let (memory, host) = (Memory::new(), Host::with_real_time(&settings, &printer));
        let mut session = Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap();
        let node = NodeId::at(1);
        let unsent = Report::Unsent { files: 2, first: vec!["`out/a`".to_owned(), "`out/b`".to_owned()] };
        for report in [&unsent, &Report::Bye { reason: ByeReason::Finished }] {
            session.apply(SessionEvent::Reported { node, report: Some(report) }).unwrap();
        }
        tell(&mut session, &Cancellation::default()).await;
        assert!(shown.text().contains("2 files that `artifacts` or `cache` name stay"), "{}", shown.text());
    }
}
