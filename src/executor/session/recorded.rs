//! Tests with messages that earlier versions of the program stored during a job, as `tests/fixtures/messages` has them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::node::NodeId;
use crate::base::seal::Seal;
use crate::protocol::keys::{Open, SessionKeys};
use crate::protocol::mailbox::{ByeReason, Order, Report, decode_lease, decode_order, decode_report};
use crate::trace::decode::FrameDecoder;

/// Of the first program whose messages have version 2, and of a later one.
const VERSIONS: [&str; 2] = [
    include_str!("../../../tests/fixtures/messages/version-2-first.json"),
    include_str!("../../../tests/fixtures/messages/version-2.json"),
];

#[derive(Deserialize)]
struct Recorded {
    /// By key below the session's root.
    messages: BTreeMap<String, String>,
    /// The output of each run.
    output: BTreeMap<String, String>,
}

impl Recorded {
    fn keys(&self) -> SessionKeys {
        let open: Open = serde_json::from_str(&self.messages["open"]).unwrap();
        SessionKeys::new("", Seal::Keyed(open.key))
    }

    /// Messages below the folder, with their numbers.
    fn numbered(&self, folder: &str) -> Vec<(u32, &[u8])> {
        let messages = self.messages.iter().filter_map(|(key, text)| Some((key.strip_prefix(folder)?, text)));
        messages.map(|(name, text)| (name.trim_end_matches(".json").parse().unwrap(), text.as_bytes())).collect()
    }
}

#[test]
fn messages_of_all_versions_are_understood() {
    for text in VERSIONS {
        let recorded: Recorded = serde_json::from_str(text).unwrap();
        let keys = recorded.keys();
        assert!(decode_lease(&keys, recorded.messages["lease.json"].as_bytes()).is_some());

        let orders = recorded.numbered("orders/");
        let orders: Vec<Order> =
            orders.iter().map(|(number, bytes)| decode_order(&keys, *number, bytes).unwrap()).collect();
        let kinds: Vec<_> = orders.iter().map(Order::kind).collect();
        assert_eq!(kinds, ["workspace", "run", "run", "finish"]);
        let Order::Run(run) = &orders[1] else { unreachable!() };
        assert!(
            run.run == 1 && run.script.len() == 64 && run.masks.iter().any(|mask| mask == "glcbt-64_desk_job_token")
        );

        let reports = recorded.numbered("reports/algo-1/");
        let reports: Vec<Report> = reports
            .iter()
            .map(|(number, bytes)| decode_report(&keys, NodeId::LEADER, *number, bytes).unwrap())
            .collect();
        assert!(matches!(&reports[0], Report::Ready { nodes, .. } if nodes == &["algo-1"]), "{reports:?}");
        let exits = reports.iter().filter(|report| matches!(report, Report::Exited { exit, .. } if exit.code == 0));
        assert_eq!(exits.count(), 2, "{reports:?}");
        assert_eq!(reports.last(), Some(&Report::Bye { reason: ByeReason::Finished }));
    }
}

#[test]
fn output_of_all_versions_is_understood() {
    for text in VERSIONS {
        let recorded: Recorded = serde_json::from_str(text).unwrap();
        for (number, expected) in &recorded.output {
            let run = number.parse().unwrap();
            let mut decoder = FrameDecoder::new(run, recorded.keys().seal().of_node(NodeId::LEADER));
            for (_, batch) in recorded.numbered(&format!("trace/algo-1/{number}/")) {
                std::str::from_utf8(batch).unwrap().lines().for_each(|line| {
                    decoder.push_message(line);
                });
            }
            assert!(decoder.finish().is_ok_and(|end| end.code == 0), "{:?}", decoder.finish());
            assert_eq!(String::from_utf8(decoder.take()).unwrap(), *expected);
        }
    }
}
