//! Sends numbered orders into the mailbox.

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::cloud::ObjectStore;
use crate::protocol::keys::SessionKeys;
use crate::protocol::mailbox::{self, Order};
use crate::session::state::SessionState;

/// Stores an order under the next free number, from 1 without gaps, and returns the number. A taken number was taken by
/// a process of this job that was killed before it saved the number, or that still runs; an order that none of them can
/// have sent is an error.
pub async fn send(
    objects: &dyn ObjectStore,
    keys: &SessionKeys,
    state: &SessionState,
    order: &Order,
) -> anyhow::Result<u32> {
    let failed = || format!("failed to send the order `{}` to the agent", order.kind());
    let mut seq = state.orders() + 1;
    loop {
        let (key, body) = (keys.order(seq), mailbox::encode_order(keys, seq, order));
        if objects.put_if_absent(&key, body.clone().into()).await.with_context(failed)? {
            return Ok(seq);
        }
        // Deleted in the meantime, as by a cleanup: the number is free again.
        let Some(found) = objects.get(&key).await.with_context(failed)? else { continue };
        if found != body && !mailbox::decode_order(keys, seq, &found).is_ok_and(|found| is_possible(state, &found)) {
            return Err(foreign(&key));
        }
        // Our own, whose reply was lost, or the same order of an earlier process.
        if found == body {
            return Ok(seq);
        }
        seq += 1;
    }
}

/// `true` when a process of this job may have sent the order: each saves what it is about to send.
fn is_possible(state: &SessionState, order: &Order) -> bool {
    match order {
        Order::Workspace(order) => order.attempt <= state.project_attempt(),
        Order::Run(order) => {
            state.run().is_some_and(|current| current.run == order.run && current.stage == order.stage)
        }
        Order::Cancel { run } => *run <= state.runs(),
        Order::Finish { .. } => true,
    }
}

fn foreign(key: &str) -> anyhow::Error {
    Failure::system(format!("another writer has stored an order of this job under `{key}`"))
        .hint("another job of this role knows where this session's objects are: allow `sagemaker:DescribeTrainingJob` to the runner hosts only, and compare the bucket's policy with `runner-config/iam/`")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::{Seal, SealKey};
    use crate::cloud::testing::Memory;
    use crate::protocol::mailbox::RunOrder;
    use crate::session::event::SessionEvent;

    fn keys() -> SessionKeys {
        SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([7; 32])))
    }

    fn run(stage: &str) -> Order {
        let (masks, mask_prefixes) = (Vec::new(), Vec::new());
        Order::Run(RunOrder {
            run: 1,
            stage: stage.to_owned(),
            script: String::new(),
            masks,
            mask_prefixes,
            grace: 1,
            live_copy: true,
            ..RunOrder::default()
        })
    }

    /// Sends a cancel where `found` has taken its number; returns the number that the cancel gets.
    async fn sent_after(found: &Order) -> anyhow::Result<u32> {
        let (memory, keys) = (Memory::new(), keys());
        memory.objects.insert(&keys.order(1), mailbox::encode_order(&keys, 1, found));
        let mut state = SessionState::default();
        state.apply(SessionEvent::RunBegun { stage: "step_script", script: "" });
        send(&*memory.objects, &keys, &state, &Order::Cancel { run: 1 }).await
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

    #[tokio::test]
    async fn an_order_of_another_session_under_our_number_is_an_error() {
        let memory = Memory::new();
        let other = SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([8; 32])));
        let order = Order::Finish { collect: false };
        memory.objects.insert(&keys().order(1), mailbox::encode_order(&other, 1, &order));
        let error = send(&*memory.objects, &keys(), &SessionState::default(), &order).await.unwrap_err();
        assert!(error.to_string().contains("another writer"), "{error:#}");
    }
}
