//! The agent reads orders and writes reports in a store that fails, is slow, or has lost objects.

use super::*;
use crate::base::seal::{Seal, SealKey};
use crate::cloud::testing::{Fault, Memory, When};
use crate::protocol::mailbox::ByeReason;

const NODE: NodeId = NodeId::LEADER;
const LEASE: Duration = Duration::from_mins(15);

fn mailbox(memory: &Memory) -> AgentMailbox {
    AgentMailbox::new(memory.objects.clone(), keys(), NODE, LEASE)
}

fn keys() -> SessionKeys {
    SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([7; 32])))
}

fn encode(seq: u32, report: &Report) -> Vec<u8> {
    mailbox::encode_report(&keys(), NODE, seq, report)
}

#[tokio::test]
async fn a_container_that_is_started_again_knows_what_it_did() {
    let memory = Memory::new();
    let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
    let mut first = mailbox(&memory);
    assert_eq!(first.resume(&ready).await.unwrap(), EarlierStarts::default());
    first.report(&ready).await.unwrap();

    let mut second = mailbox(&memory);
    let idle = EarlierStarts { count: 1, ..EarlierStarts::default() };
    assert_eq!(second.resume(&ready).await.unwrap(), idle, "no script had begun");
    second.report(&Report::Bye { reason: ByeReason::Stopped }).await.unwrap();

    let mut second = mailbox(&memory);
    assert_eq!(second.resume(&ready).await.unwrap(), idle, "stopped before any script");
    second.report(&ready).await.unwrap();
    second.report(&Report::Started { run: 1, order: 2 }).await.unwrap();

    let mut third = mailbox(&memory);
    let worked = EarlierStarts { count: 2, did_something: true, last_run: 2, ..EarlierStarts::default() };
    assert_eq!(third.resume(&ready).await.unwrap(), worked);
    third.report(&Report::Collected { summary: String::new(), restarts: 2 }).await.unwrap();
    let sent = mailbox(&memory).resume(&ready).await.unwrap();
    assert_eq!(sent, EarlierStarts { has_collected: true, ..worked }, "stopped after the script");
    assert!(idle.may_go_on(false) && worked.may_go_on(true) && !worked.may_go_on(false));
    third.report(&Report::Bye { reason: ByeReason::Other }).await.unwrap();
    let last = memory.objects.contents("sessions/s/reports/algo-1/000006.json").expect("old reports stay");
    assert_eq!(mailbox::decode_report(&keys(), NODE, 6, &last).unwrap(), Report::Bye { reason: ByeReason::Other });
}

/// As by an interruption while SageMaker uploads the model: nobody would end an agent that waited for orders.
#[tokio::test]
async fn an_agent_does_not_go_on_after_the_end_of_the_session() {
    let memory = Memory::new();
    let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
    let mut first = mailbox(&memory);
    for report in [ready.clone(), Report::Started { run: 1, order: 2 }, Report::Bye { reason: ByeReason::Finished }] {
        first.report(&report).await.unwrap();
    }
    let earlier = mailbox(&memory).resume(&ready).await.unwrap();
    assert!(earlier.has_finished && !earlier.may_go_on(true), "{earlier:?}");
}

#[tokio::test]
async fn a_report_whose_reply_was_lost_is_our_own() {
    let memory = Memory::new();
    let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
    memory.objects.insert("sessions/s/reports/algo-1/000001.json", encode(1, &ready));
    let mut mailbox = mailbox(&memory);
    mailbox.report(&ready).await.unwrap();
    mailbox.report(&Report::Started { run: 1, order: 2 }).await.unwrap();
    assert_eq!(memory.objects.keys().len(), 2);
}

/// One report of an agent whose store has been out of reach since before it, for so long.
async fn reported_after(outage: Duration) -> anyhow::Result<()> {
    let memory = Memory::new();
    memory.objects.plan([Fault::new("put_if_absent", 1, When::Before, CloudErrorKind::Transient).forever()]);
    let mut mailbox = mailbox(&memory);
    let bye = Report::Bye { reason: ByeReason::Finished };
    let report = mailbox.report(&bye);
    tokio::pin!(report);
    tokio::select! {
        early = &mut report => return early,
        () = tokio::time::sleep(outage) => memory.objects.plan([]),
    }
    report.await
}

#[tokio::test(start_paused = true)]
async fn a_report_outlasts_an_outage_that_is_shorter_than_the_lease() {
    reported_after(LEASE.saturating_sub(Duration::from_secs(2))).await.unwrap();
    let error = reported_after(LEASE * 2).await.unwrap_err();
    assert!(error.to_string().contains("failed to report to the driver"), "{error:#}");
}

#[tokio::test]
async fn a_report_of_another_writer_is_an_error() {
    let memory = Memory::new();
    let forged = encode(1, &Report::Bye { reason: ByeReason::Finished });
    memory.objects.insert("sessions/s/reports/algo-1/000001.json", forged);
    let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
    let error = mailbox(&memory).report(&ready).await.unwrap_err();
    assert!(crate::base::failure::render(&error).contains("another writer"), "{error:#}");
    let error = mailbox(&memory).resume(&ready).await.unwrap_err();
    assert!(error.to_string().contains("another writer"), "forged before the container began: {error:#}");
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_waited_out_for_one_lease_and_no_longer() {
    for kind in [CloudErrorKind::Unauthenticated, CloudErrorKind::Denied, CloudErrorKind::Transient] {
        let memory = Memory::new();
        let mut mailbox = mailbox(&memory);
        mailbox.report(&Report::Bye { reason: ByeReason::Stopped }).await.unwrap();
        let tries = usize::try_from(LEASE.as_secs()).unwrap() - 2;
        memory.objects.plan([Fault::new("put_if_absent", 1, When::Before, kind).times(tries)]);
        mailbox.report(&Report::Started { run: 1, order: 2 }).await.unwrap();
        memory.objects.plan([Fault::new("put_if_absent", 1, When::Before, kind).forever()]);
        let start = Instant::now();
        let error = mailbox.report(&Report::Started { run: 1, order: 2 }).await.unwrap_err();
        assert!(format!("{error:#}").contains("with the role of the training job"), "{error:#}");
        assert!((LEASE..LEASE * 2).contains(&start.elapsed()), "{kind:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_write_is_told_in_seconds() {
    let memory = Memory::new();
    memory.objects.plan([Fault::new("put_if_absent", 1, When::Before, CloudErrorKind::Denied).forever()]);
    let start = Instant::now();
    let error = mailbox(&memory).report(&Report::Started { run: 1, order: 2 }).await.unwrap_err();
    assert!(format!("{error:#}").contains("with the role of the training job"), "{error:#}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_while_the_store_is_out_of_reach_waits_for_it() {
    let (memory, ready) = (Memory::new(), Report::Started { run: 1, order: 2 });
    memory.objects.plan([Fault::new("get", 1, When::Before, CloudErrorKind::Transient).times(600)]);
    assert_eq!(mailbox(&memory).resume(&ready).await.unwrap(), EarlierStarts::default());
}

#[tokio::test(start_paused = true)]
async fn orders_and_scripts_are_read_again_until_the_credentials_are_renewed() {
    let memory = Memory::new();
    let mut mailbox = mailbox(&memory);
    memory.objects.insert(&keys().script(1), b"train".to_vec());
    let refused = Fault::new("get", 1, When::Before, CloudErrorKind::Unauthenticated);
    memory.objects.plan([refused.times(50)]);
    assert_eq!(mailbox.script(1).await.unwrap(), b"train");
    memory.objects.plan([refused.forever()]);
    for _ in 0..5 {
        assert!(mailbox.next_order().await.unwrap().is_none());
        mailbox.check_access().unwrap();
        tokio::time::advance(LEASE / 5).await;
    }
    assert!(mailbox.next_order().await.unwrap().is_none());
    assert!(mailbox.check_access().unwrap_err().to_string().contains("role of the training job"));
}

#[tokio::test]
async fn a_session_is_closed_once_its_reports_are_deleted() {
    let memory = Memory::new();
    let mut mailbox = mailbox(&memory);
    mailbox.report(&Report::Bye { reason: ByeReason::Finished }).await.unwrap();
    assert!(!mailbox.is_closed().await);
    memory.objects.delete(&[keys().report(NODE, 1)]).await.unwrap();
    assert!(mailbox.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_another_writer_is_seen_while_a_script_runs() {
    let memory = Memory::new();
    let mut mailbox = mailbox(&memory);
    mailbox.report(&Report::Started { run: 1, order: 2 }).await.unwrap();
    let forged = encode(2, &Report::Bye { reason: ByeReason::Finished });
    memory.objects.insert("sessions/s/reports/algo-1/000002.json", forged);
    mailbox.check_for_others().await.unwrap();
    tokio::time::advance(LOOK_FOR_OTHERS).await;
    let error = mailbox.check_for_others().await.unwrap_err();
    assert!(error.to_string().contains("another writer"), "{error:#}");
}

#[tokio::test]
async fn an_order_that_this_sessions_driver_did_not_write_is_an_error() {
    let other = SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([8; 32])));
    let (cancel, finish) = (Order::Cancel { run: 1 }, Order::Finish { collect: false });
    let replayed = mailbox::encode_order(&keys(), 2, &cancel);
    for forged in [mailbox::encode_order(&other, 1, &finish), replayed, b"{}".to_vec()] {
        let memory = Memory::new();
        memory.objects.insert(&keys().order(1), forged);
        let error = mailbox(&memory).next_order().await.unwrap_err();
        assert!(error.to_string().contains("another writer"), "{error:#}");
    }
}

/// The whole lease, in looks of a sixth of it.
async fn expires(mailbox: &mut AgentMailbox) -> bool {
    for _ in 0..6 {
        tokio::time::advance(LEASE / 6).await;
        if mailbox.lease_expired().await {
            return true;
        }
    }
    false
}

#[tokio::test(start_paused = true)]
async fn only_a_new_beat_of_this_sessions_driver_renews_the_lease() {
    let memory = Memory::new();
    let mut mailbox = mailbox(&memory);
    let other = SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([8; 32])));
    let store = |keys: &SessionKeys, beat| memory.objects.insert(&keys.lease(), mailbox::encode_lease(keys, beat));
    for beat in [1, 2, 3] {
        store(&keys(), beat);
        assert!(!expires(&mut mailbox).await, "beat {beat}");
    }
    store(&keys(), 1);
    assert!(expires(&mut mailbox).await, "an old lease, stored again");
    store(&other, 4);
    assert!(expires(&mut mailbox).await, "a forged lease");
    store(&keys(), 5);
    assert!(!expires(&mut mailbox).await);
}
