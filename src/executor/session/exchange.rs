//! The exchange of a session with its agents, as a trait without its transport. The one implementation is the mailbox
//! in S3.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::node::NodeId;
use crate::base::seal::Seal;
use crate::cloud::{CloudError, ObjectStore};
use crate::protocol;
use crate::protocol::keys::{self, Open, SessionKeys, SessionPlace, TransferKeys};
use crate::protocol::mailbox::{Order, VERSION};
use crate::protocol::project::Trees;
use crate::session::mailbox;
use crate::session::state::SessionState;
use crate::workspace::{self, AllSent, Bounds, Destination, Summary, TransferProgress};

/// An `open` object of a driver is smaller.
const OPEN_BYTES: u64 = 1 << 10;
/// Most of them that are read: other jobs of the role can store any number.
const MOST_OPENS: usize = 100;

/// The objects of a session that a deletion leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The order with this number.
    pub order: Option<u32>,
    /// The `open` objects: they prove whose a training job is that still has to be ended.
    pub is_open: bool,
}

/// The project as one attempt sends it.
#[derive(Debug, Clone, Copy)]
pub struct ProjectUpload<'a> {
    pub attempt: u32,
    /// Prefix of the project's packs.
    pub packs: &'a str,
    pub trees: &'a Trees,
    /// This host's cache of which packs are in the bucket.
    pub cache: &'a Path,
    pub now: SystemTime,
}

#[async_trait(?Send)]
pub trait Exchange: Send + Sync {
    /// Sends an order under the next number, and returns the number. An order that a killed process of this job sent
    /// keeps its number.
    async fn send(&self, state: &SessionState, order: &Order) -> anyhow::Result<u32>;
    async fn deliver_project(
        &self,
        project: ProjectUpload<'_>,
        progress: &Arc<TransferProgress>,
    ) -> anyhow::Result<Summary>;
    /// Deletes a pack that a node found damaged, so that its chunks are sent again.
    async fn forget_pack(&self, project: ProjectUpload<'_>, pack: &str) -> anyhow::Result<()>;
    /// Downloads the results as they arrive from a node whose container was started again `restarts` times, and applies them; see
    /// [`workspace::apply_changes`].
    async fn fetch_results(
        &self,
        node: NodeId,
        restarts: u32,
        destination: Destination<'_>,
        bounds: Bounds<'_>,
        all_sent: &AllSent,
        progress: &Arc<TransferProgress>,
    ) -> anyhow::Result<Summary>;
    /// Stores the script of a run, which the order to run it names.
    async fn deliver_script(&self, run: u32, body: Vec<u8>) -> Result<(), CloudError>;
    /// Lets the agents read the session's key; before this, they read nothing else. `lease` is the length of the session's lease,
    /// `job_key` the key of its GitLab job.
    async fn open(&self, lease: Duration, job_key: &str) -> Result<(), CloudError>;
    /// Finds where the session's objects are, when no record tells it; `key_hash` is the key's commitment. `None` when nothing is
    /// there.
    async fn find_place(&self, key_hash: &str) -> Result<Option<SessionPlace>, CloudError>;
    /// `true` when anything of the session is stored.
    async fn has_objects(&self) -> Result<bool, CloudError>;
    /// Deletes the scripts up to this run's, and the orders up to its own: they hold secrets, and every node has read them.
    async fn forget_script(&self, run: u32, order: u32) -> Result<(), CloudError>;
    /// Number of the last order that is stored.
    async fn orders(&self) -> Result<u32, CloudError>;
    /// Returns a node's report of this number, from 1 on, if it has arrived.
    async fn report(&self, node: NodeId, seq: u32) -> Result<Option<Vec<u8>>, CloudError>;
    /// Stores a report that came by the log of a container without network. Another writer's is dropped.
    async fn pass_on(&self, node: NodeId, seq: u32, report: &[u8]) -> Result<(), CloudError>;
    /// `true` when the node has sent a report.
    async fn has_reported(&self, node: NodeId) -> Result<bool, CloudError>;
    /// When the last of these reports was sent, by the clock of the exchange.
    async fn last_reported(&self, reports: &[(NodeId, u32)]) -> Result<Option<SystemTime>, CloudError>;
    /// Returns what a node's agent measured in a container that was started again `restarts` times, if it has arrived.
    async fn measurements(&self, node: NodeId, restarts: u32) -> Result<Option<Vec<u8>>, CloudError>;
    /// Returns one batch of the agent's copy of a run's output, from 0 on, if it has arrived.
    async fn output(&self, node: NodeId, run: u32, batch: u32) -> Result<Option<Vec<u8>>, CloudError>;
    /// Deletes the session's objects, except those that are kept. An agent that is being killed may write until its end.
    async fn delete(&self, kept: Kept) -> Result<(), CloudError>;
}

/// A higher number was not reached by counting.
const MOST_ORDERS: u32 = 1_000_000;

/// The exchange through objects in S3.
#[derive(Clone)]
pub struct StoreExchange {
    objects: Arc<dyn ObjectStore>,
    keys: SessionKeys,
    /// Key prefix of all of the session's objects, wherever a process put them.
    folder: String,
}

impl StoreExchange {
    pub fn new(objects: Arc<dyn ObjectStore>, keys: SessionKeys, folder: String) -> Self {
        Self { objects, keys, folder }
    }

    fn route(&self, project: ProjectUpload<'_>) -> TransferKeys {
        self.keys.workspace(project.attempt, project.packs)
    }
}

#[async_trait(?Send)]
impl Exchange for StoreExchange {
    async fn send(&self, state: &SessionState, order: &Order) -> anyhow::Result<u32> {
        mailbox::send(&*self.objects, &self.keys, state, order).await
    }

    async fn deliver_project(
        &self,
        project: ProjectUpload<'_>,
        progress: &Arc<TransferProgress>,
    ) -> anyhow::Result<Summary> {
        let ProjectUpload { trees, cache, now, .. } = project;
        workspace::send(&*self.objects, &self.route(project), trees, cache, now, progress).await
    }

    async fn forget_pack(&self, project: ProjectUpload<'_>, pack: &str) -> anyhow::Result<()> {
        workspace::forget(&*self.objects, &self.route(project), pack, project.cache).await
    }

    async fn fetch_results(
        &self,
        node: NodeId,
        restarts: u32,
        destination: Destination<'_>,
        bounds: Bounds<'_>,
        all_sent: &AllSent,
        progress: &Arc<TransferProgress>,
    ) -> anyhow::Result<Summary> {
        workspace::apply_changes(
            &*self.objects,
            &self.keys.results(node, restarts),
            destination,
            bounds,
            all_sent,
            progress,
        )
        .await
    }

    async fn deliver_script(&self, run: u32, body: Vec<u8>) -> Result<(), CloudError> {
        self.objects.put(&self.keys.script(run), body).await
    }

    async fn open(&self, lease: Duration, job_key: &str) -> Result<(), CloudError> {
        let Seal::Keyed(key) = self.keys.seal() else { return Ok(()) };
        let (lease_seconds, job_key) = (Some(lease.as_secs()), Some(job_key.to_owned()));
        let open = Open { version: VERSION, key: key.clone(), lease_seconds, job_key };
        let body = serde_json::to_vec(&open).expect("a number and a text");
        self.objects.put(&self.keys.open(), body).await
    }

    async fn find_place(&self, key_hash: &str) -> Result<Option<SessionPlace>, CloudError> {
        let mut small = self.objects.inventory(&self.folder).await?;
        small.retain(|object| object.bytes < OPEN_BYTES);
        // The driver's comes before those of any container.
        small.sort_by_key(|object| object.modified);
        let opens =
            small.into_iter().filter_map(|object| Some((keys::token_of_open(&self.folder, &object.key)?, object.key)));
        for (token, key) in opens.take(MOST_OPENS) {
            // One that cannot be read is not the driver's.
            let Ok(Some(body)) = self.objects.get(&key).await else { continue };
            let open = serde_json::from_slice::<Open>(&body).ok();
            if let Some(Open { key, .. }) = open.filter(|open| open.key.commitment() == key_hash) {
                return Ok(Some(SessionPlace { token, key }));
            }
        }
        Ok(None)
    }

    async fn has_objects(&self) -> Result<bool, CloudError> {
        Ok(!self.objects.list(&self.folder).await?.is_empty())
    }

    async fn forget_script(&self, run: u32, order: u32) -> Result<(), CloudError> {
        let orders = (1..=order).map(|seq| self.keys.order(seq));
        let keys: Vec<_> = (1..=run).map(|run| self.keys.script(run)).chain(orders).collect();
        self.objects.delete(&keys).await
    }

    async fn orders(&self) -> Result<u32, CloudError> {
        let orders = self.objects.list(&self.keys.orders()).await?;
        let numbers = orders.iter().filter_map(|key| self.keys.order_number(key));
        Ok(numbers.filter(|number| *number <= MOST_ORDERS).max().unwrap_or(0))
    }

    async fn report(&self, node: NodeId, seq: u32) -> Result<Option<Vec<u8>>, CloudError> {
        self.objects.get(&self.keys.report(node, seq)).await
    }

    async fn pass_on(&self, node: NodeId, seq: u32, report: &[u8]) -> Result<(), CloudError> {
        if protocol::mailbox::decode_report(&self.keys, node, seq, report).is_err() {
            return Ok(());
        }
        let key = self.keys.report(node, seq);
        self.objects.put_if_absent(&key, Bytes::copy_from_slice(report)).await.map(drop)
    }

    async fn has_reported(&self, node: NodeId) -> Result<bool, CloudError> {
        Ok(self.objects.size(&self.keys.report(node, 1)).await?.is_some())
    }

    async fn last_reported(&self, reports: &[(NodeId, u32)]) -> Result<Option<SystemTime>, CloudError> {
        let keys: Vec<_> = reports.iter().map(|(node, seq)| self.keys.report(*node, *seq)).collect();
        let listed = self.objects.inventory(&self.keys.reports()).await?;
        Ok(listed.into_iter().filter(|object| keys.contains(&object.key)).filter_map(|object| object.modified).max())
    }

    async fn measurements(&self, node: NodeId, restarts: u32) -> Result<Option<Vec<u8>>, CloudError> {
        self.objects.get(&self.keys.measurements(node, restarts)).await
    }

    async fn output(&self, node: NodeId, run: u32, batch: u32) -> Result<Option<Vec<u8>>, CloudError> {
        self.objects.get(&self.keys.trace(node, run, batch)).await
    }

    async fn delete(&self, kept: Kept) -> Result<(), CloudError> {
        let order = kept.order.map(|seq| self.keys.order(seq));
        let is_kept = |key: &String| {
            Some(key) == order.as_ref() || kept.is_open && keys::token_of_open(&self.folder, key).is_some()
        };
        let mut keys = self.objects.list(&self.folder).await?;
        keys.retain(|key| !is_kept(key));
        if keys.is_empty() { Ok(()) } else { self.objects.delete(&keys).await }
    }
}
