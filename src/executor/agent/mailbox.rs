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
mod tests;
