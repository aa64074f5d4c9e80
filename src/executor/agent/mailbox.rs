//! The agent's side of the mailbox: reads orders, writes reports, watches the lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ConstantBuilder, Retryable as _};
use tokio::time::Instant;

use super::role_store::patience;
use super::spool::OutputSpool;
use crate::base::failure::Failure;
use crate::base::node::NodeId;
use crate::cloud::{CloudError, CloudErrorKind, MOST_BYTES, ObjectStore};
use crate::protocol::keys::SessionKeys;
use crate::protocol::mailbox::{self, ByeReason, MailboxError, Order, Report};
use crate::trace::frame;

/// A report of an agent whose lease has run out is tried this long, and every other one for the length of the lease.
const REPORT_WITHIN: Duration = Duration::from_mins(1);
/// Pause between two tries of a call that must succeed.
const AGAIN: Duration = Duration::from_secs(1);

/// Interval of the check for reports by another writer under this node's name.
const LOOK_FOR_OTHERS: Duration = Duration::from_secs(30);

/// Reads the orders of one session and writes the reports of one node, each numbered from 1.
pub(super) struct AgentMailbox {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) keys: SessionKeys,
    node: NodeId,
    orders: u32,
    reports: u32,
    next_look_for_others: Instant,
    lease: LeaseWatch,
    /// Start of the current series of reads of orders for which AWS did not accept the credentials, and the last error.
    denied: Option<(Instant, String)>,
    /// Reports go into the container's log too.
    log: Option<Arc<OutputSpool>>,
    /// The last of them as it is there.
    logged: Vec<u8>,
}

/// Earlier starts of the container, as their reports tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EarlierStarts {
    pub(super) count: u32,
    /// A script had begun, or an order had failed.
    pub(super) did_something: bool,
    /// Number of the last order to run a script that was carried out; 0: none, or not known.
    pub(super) last_run: u32,
    /// An agent had carried out the order to end the session.
    pub(super) has_finished: bool,
    /// An agent had sent the results after the last script.
    pub(super) has_collected: bool,
}

impl EarlierStarts {
    /// The session goes on. `may_rerun`: a script that an interruption has ended may run again.
    pub(super) fn may_go_on(&self, may_rerun: bool) -> bool {
        !self.did_something || (may_rerun && self.last_run > 0 && !self.has_finished)
    }
}

/// The lease, timed on this machine's own clock.
struct LeaseWatch {
    length: Duration,
    /// All that were seen: none counts twice, so that an old lease cannot be stored again.
    beats: BTreeSet<u64>,
    changed: Instant,
    next_look: Instant,
}

impl AgentMailbox {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, keys: SessionKeys, node: NodeId, lease: Duration) -> Self {
        let now = Instant::now();
        Self {
            objects,
            keys,
            node,
            orders: 0,
            reports: 0,
            next_look_for_others: now + LOOK_FOR_OTHERS,
            lease: LeaseWatch { length: lease, beats: BTreeSet::new(), changed: now, next_look: now + lease / 6 },
            denied: None,
            log: None,
            logged: Vec::new(),
        }
    }

    pub(super) fn with_log(self, log: Arc<OutputSpool>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Reads the reports of earlier starts of this container and continues their numbers. The first report must equal `ready`.
    pub(super) async fn resume(&mut self, ready: &Report) -> anyhow::Result<EarlierStarts> {
        let mut earlier = EarlierStarts::default();
        loop {
            let seq = self.reports + 1;
            let key = self.keys.report(self.node, seq);
            let Some(bytes) = self.read(&key).await.context("failed to look for earlier reports")? else {
                return Ok(earlier);
            };
            let report = mailbox::decode_report(&self.keys, self.node, seq, &bytes);
            let mut report = report.map_err(|error| unusable(&key, error, "failed to understand an earlier report"))?;
            if let Report::Ready { checkpoints, .. } = &mut report {
                // Other than before.
                *checkpoints = None;
            }
            if seq == 1 && report != *ready {
                return Err(foreign(&key));
            }
            match report {
                Report::Ready { .. } => earlier.count += 1,
                Report::Started { order, .. } => {
                    (earlier.did_something, earlier.last_run, earlier.has_collected) = (true, order, false);
                }
                Report::Collected { .. } => earlier.has_collected = true,
                // An agent that is stopped before any script reports that none began, sends results and leaves.
                Report::Received { .. }
                | Report::Missing { .. }
                | Report::Kept { .. }
                | Report::Exited { .. }
                | Report::Unsent { .. }
                | Report::Bye { reason: ByeReason::Stopped } => {}
                Report::Damaged { .. } | Report::Failed { .. } => earlier.did_something = true,
                Report::Bye { reason } => {
                    earlier.did_something = true;
                    earlier.has_finished |= reason == ByeReason::Finished;
                }
            }
            self.reports = seq;
        }
    }

    /// Number of the order that was read last.
    pub(super) fn last_order(&self) -> u32 {
        self.orders
    }

    /// Goes on with the order behind this one.
    pub(super) fn skip_orders(&mut self, last: u32) {
        self.orders = last;
    }

    /// Returns the next order, if there is one. A failed read is logged and counts as no order: the lease limits how long that may
    /// last.
    pub(super) async fn next_order(&mut self) -> anyhow::Result<Option<Order>> {
        let key = self.keys.order(self.orders + 1);
        let found = self.objects.get(&key).await;
        self.denied = match &found {
            Err(error) if error.kind == CloudErrorKind::Unauthenticated => {
                let since = self.denied.take().map_or_else(Instant::now, |(since, _)| since);
                Some((since, error.to_string()))
            }
            Ok(_) | Err(_) => None,
        };
        match found {
            Ok(Some(bytes)) => {
                self.orders += 1;
                let order = mailbox::decode_order(&self.keys, self.orders, &bytes);
                order.map(Some).map_err(|error| unusable(&key, error, "failed to read an order of the driver"))
            }
            Ok(None) => Ok(None),
            // One that is too large to be read would look absent for ever.
            Err(error) if error.kind == CloudErrorKind::Other && self.is_oversize(&key).await => {
                tracing::error!(%error, "failed to read an order");
                Err(foreign(&key))
            }
            Err(error) => {
                tracing::warn!(%error, "failed to look for orders");
                Ok(None)
            }
        }
    }

    async fn is_oversize(&self, key: &str) -> bool {
        let size = self.objects.size(key).await;
        size.is_ok_and(|size| size.is_some_and(|size| size > MOST_BYTES))
    }

    /// Fails when AWS has not accepted the role's credentials for one lease: they are renewed in less, no order will arrive, and the
    /// instance costs money.
    pub(super) fn check_access(&self) -> anyhow::Result<()> {
        match &self.denied {
            Some((since, error)) if since.elapsed() >= self.lease.length => {
                Err(anyhow::anyhow!(error.clone())
                    .context("failed to look for orders with the role of the training job"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the script of a run.
    pub(super) async fn script(&self, run: u32) -> anyhow::Result<Vec<u8>> {
        self.read(&self.keys.script(run)).await?.context("the script is not in the store")
    }

    /// Reads an object, and tries again while S3 has faults or the role's credentials are renewed.
    async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let until = self.patience_ends();
        let is_passing = |error: &CloudError| error.kind.may_pass() || error.kind == CloudErrorKind::Unauthenticated;
        (|| self.objects.get(key))
            .retry(ConstantBuilder::new().with_delay(AGAIN).without_max_times())
            .when(|error| is_passing(error) && Instant::now() < until)
            .notify(|error, _| tracing::warn!(%error, "failed to read an object of the session, trying again"))
            .await
    }

    /// Until then a call is tried again that must succeed.
    fn patience_ends(&self) -> Instant {
        let is_over = self.lease.changed.elapsed() >= self.lease.length;
        Instant::now() + if is_over { REPORT_WITHIN } else { self.lease.length }
    }

    /// Stores a report, and tries again for one lease. The first one shows that the role may write: a refusal of it is permanent soon.
    pub(super) async fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let (begun, until) = (Instant::now(), self.patience_ends());
        let may_write = self.reports > 0;
        let ends =
            |error: &CloudError| if may_write { until } else { until.min(begun + patience(error, self.lease.length)) };
        let seq = self.reports + 1;
        let key = self.keys.report(self.node, seq);
        let body = mailbox::encode_report(&self.keys, self.node, seq, report);
        let stored = (|| self.put_once(&key, &body))
            .retry(ConstantBuilder::new().with_delay(AGAIN).without_max_times())
            .when(|error| Instant::now() < ends(error))
            .notify(|error, _| tracing::warn!(%error, "failed to send a report, trying again"))
            .await
            .context("failed to report to the driver with the role of the training job")?;
        match stored {
            Stored::Ours => self.reports = seq,
            Stored::Foreign => return Err(foreign(&key)),
        }
        let framed = self.log.as_ref().zip(frame::report_frame(self.keys.seal().of_node(self.node), seq, &body));
        if let Some((log, line)) = framed {
            log.write(&line);
            self.logged = line;
        }
        Ok(())
    }

    /// Shows in the container's log that this agent goes on: repeats its last report, of which readers take the first copy.
    pub(super) fn repeat_report(&self) {
        if let Some(log) = &self.log {
            log.write(&self.logged);
        }
    }

    /// Fails when another writer has stored this node's next report: the driver may have acted on it, so no script may go on.
    pub(super) async fn check_for_others(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if now < self.next_look_for_others {
            return Ok(());
        }
        self.next_look_for_others = now + LOOK_FOR_OTHERS;
        let key = self.keys.report(self.node, self.reports + 1);
        match self.objects.size(&key).await {
            Ok(Some(_)) => Err(foreign(&key)),
            Ok(None) => Ok(()),
            // The lease limits how long the store may be out of reach.
            Err(error) => {
                tracing::debug!(%error, "failed to look for reports of another writer");
                Ok(())
            }
        }
    }

    /// `true` when `cleanup` has deleted the session's objects, this agent's last report among them.
    pub(super) async fn is_closed(&self) -> bool {
        let key = self.keys.report(self.node, self.reports);
        matches!(self.objects.size(&key).await, Ok(None))
    }

    /// Stores a report. One with the same content under the same key is ours: its reply was lost.
    async fn put_once(&self, key: &str, body: &[u8]) -> Result<Stored, CloudError> {
        if self.objects.put_if_absent(key, body.to_vec().into()).await? {
            return Ok(Stored::Ours);
        }
        let is_ours = match self.objects.get(key).await? {
            Some(found) => found == body,
            // `cleanup` has deleted it, or it is there and this role may not read it, as an archived object.
            None => self.objects.size(key).await?.is_none(),
        };
        Ok(if is_ours { Stored::Ours } else { Stored::Foreign })
    }

    /// True when the lease has not changed for its length.
    pub(super) async fn lease_expired(&mut self) -> bool {
        let now = Instant::now();
        if now < self.lease.next_look {
            return false;
        }
        self.lease.next_look = now + self.lease.length / 6;
        match self.objects.get(&self.keys.lease()).await {
            Ok(bytes) => {
                let beat = bytes.and_then(|bytes| mailbox::decode_lease(&self.keys, &bytes));
                if beat.is_some_and(|beat| self.lease.beats.insert(beat)) {
                    self.lease.changed = now;
                }
            }
            Err(error) => tracing::warn!(%error, "failed to read the lease"),
        }
        self.lease.changed.elapsed() >= self.lease.length
    }
}

/// The writer of a stored report.
enum Stored {
    /// This agent; also when `cleanup` has deleted the report since.
    Ours,
    Foreign,
}

/// A second writer: the reports of this node can no longer be trusted.
fn foreign(key: &str) -> anyhow::Error {
    Failure::system(format!("another writer has stored a message of this session under `{key}`"))
        .hint("another job of this role knows where this session's objects are: allow `sagemaker:DescribeTrainingJob` to the runner hosts only, and compare the bucket's policy with `runner-config/iam/`")
        .into()
}

/// The error for a message that cannot be used: another writer's, or one of another version.
fn unusable(key: &str, error: MailboxError, what: &'static str) -> anyhow::Error {
    match error {
        MailboxError::Forged(_) | MailboxError::TooLarge(_) => foreign(key),
        error => anyhow::Error::from(error).context(what),
    }
}

#[cfg(test)]
mod tests {
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
        for report in [ready.clone(), Report::Started { run: 1, order: 2 }, Report::Bye { reason: ByeReason::Finished }]
        {
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
}
