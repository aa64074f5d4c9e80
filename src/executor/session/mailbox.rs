//! The driver's end of the mailbox: numbered orders out, numbered reports in.

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::base::node::NodeId;
use crate::base::plain;
use crate::cloud::ObjectStore;
use crate::protocol::keys::Layout;
use crate::protocol::mailbox::{self, Order, Report};
use crate::session::node_record::NodeRecord;
use crate::session::record::SessionRecord;

/// Of a text in a report, in bytes.
const LONGEST_TEXT: usize = 2000;

/// Orders are numbered from 1 without gaps. A number that is taken was taken by a process of this job that was killed
/// before it noted it, or that lives beside this one; an order that none of them can have sent is an error.
pub async fn send(
    objects: &dyn ObjectStore,
    layout: &Layout,
    record: &mut SessionRecord,
    order: &Order,
) -> anyhow::Result<()> {
    let failed = || format!("failed to send the order `{}` to the agent", order.kind());
    loop {
        let seq = record.orders + 1;
        let (key, body) = (layout.order(seq), mailbox::encode(seq, order));
        if objects.put_if_absent(&key, body.clone().into()).await.with_context(failed)? {
            record.orders = seq;
            return Ok(());
        }
        // Deleted since, as by a cleanup: the number is free again.
        let Some(found) = objects.get(&key).await.with_context(failed)? else { continue };
        if found != body && !mailbox::decode(&key, seq, &found).is_ok_and(|found| is_possible(record, &found)) {
            return Err(foreign(&key));
        }
        record.orders = seq;
        // Our own, whose reply was lost, or a predecessor's that says the same.
        if found == body {
            return Ok(());
        }
    }
}

/// Whether a process of this job may have sent the order: each notes what it is about to send.
fn is_possible(record: &SessionRecord, order: &Order) -> bool {
    match order {
        Order::Workspace(order) => order.attempt <= record.workspace_attempt,
        Order::Run(order) => {
            record.current.as_ref().is_some_and(|current| current.run == order.run && current.stage == order.stage)
        }
        Order::Cancel { run } => *run <= record.runs,
        Order::Finish { .. } => true,
    }
}

fn foreign(key: &str) -> anyhow::Error {
    Failure::system(format!("another writer has stored an order of this job under `{key}`"))
        .hint("allow `s3:PutObject` on `sessions/*/orders/` to the runner host only; give projects that do not trust each other roles of their own")
        .into()
}

/// The next report of a node, if it has come.
pub async fn receive(
    objects: &dyn ObjectStore,
    layout: &Layout,
    record: &mut SessionRecord,
    node: NodeId,
) -> anyhow::Result<Option<Report>> {
    let Some(NodeRecord { reports: read, .. }) = record.nodes.get_mut(node) else {
        return Ok(None);
    };
    let key = layout.report(node, *read + 1);
    let Some(bytes) = objects.get(&key).await? else {
        return Ok(None);
    };
    *read += 1;
    let report = mailbox::decode(&key, *read, &bytes).context("failed to understand the agent")?;
    Ok(Some(tamed(report)))
}

/// A container may write any text into its reports, and all of it may be printed.
fn tamed(report: Report) -> Report {
    let text = |text: String| plain::line(&text, LONGEST_TEXT);
    match report {
        Report::Received { summary } => Report::Received { summary: text(summary) },
        Report::Collected { summary } => Report::Collected { summary: text(summary) },
        Report::Damaged { pack, chunk } => Report::Damaged { pack: text(pack), chunk: text(chunk) },
        Report::Failed { order, reason, by_job } => Report::Failed { order: text(order), reason: text(reason), by_job },
        same @ (Report::Ready { .. }
        | Report::Missing { .. }
        | Report::Started { .. }
        | Report::Exited { .. }
        | Report::Bye { .. }) => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::Memory;
    use crate::protocol::mailbox::RunOrder;
    use crate::session::record::CurrentRun;

    fn run(stage: &str) -> Order {
        let (masks, mask_prefixes) = (Vec::new(), Vec::new());
        Order::Run(RunOrder { run: 1, stage: stage.to_owned(), masks, mask_prefixes, grace: 1, live_copy: true })
    }

    /// Sends a cancel where `found` has its number already; the number of orders afterwards.
    async fn sent_after(found: &Order) -> anyhow::Result<u32> {
        let (memory, layout) = (Memory::new(), Layout::new("sessions/s"));
        memory.objects.insert(&layout.order(1), mailbox::encode(1, found));
        let current = CurrentRun { run: 1, stage: "step_script".to_owned(), ..CurrentRun::default() };
        let mut record = SessionRecord { runs: 1, current: Some(current), ..SessionRecord::default() };
        send(&*memory.objects, &layout, &mut record, &Order::Cancel { run: 1 }).await?;
        Ok(record.orders)
    }

    #[tokio::test]
    async fn a_number_taken_by_this_job_is_used_or_skipped() {
        assert_eq!(sent_after(&Order::Cancel { run: 1 }).await.unwrap(), 1, "the same order, whose reply was lost");
        assert_eq!(sent_after(&run("step_script")).await.unwrap(), 2, "a predecessor's, killed before it noted it");
        assert_eq!(sent_after(&Order::Finish { collect: false }).await.unwrap(), 2, "a cleanup beside");
    }

    #[tokio::test]
    async fn an_order_that_no_process_of_this_job_can_have_sent_is_an_error() {
        for forged in [run("after_script"), Order::Cancel { run: 2 }] {
            let error = sent_after(&forged).await.unwrap_err();
            assert!(error.to_string().contains("another writer"), "{error:#}");
        }
    }
}
