//! The driver's end of the mailbox: numbered orders out, numbered reports in, the lease renewed.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::cloud::{Cloud, ObjectStore};
use crate::mailbox::{self, Layout, Lease, Order, Report};
use crate::session::record::SessionRecord;

/// Orders are numbered from 1 without gaps; a number that another process took in between is skipped over.
pub async fn send(
    objects: &dyn ObjectStore,
    layout: &Layout,
    record: &mut SessionRecord,
    order: &Order,
) -> anyhow::Result<()> {
    loop {
        let seq = record.orders + 1;
        let stored = objects
            .put_if_absent(&layout.order(seq), mailbox::encode(seq, order).into())
            .await
            .with_context(|| format!("failed to send the order `{}` to the agent", order.kind()))?;
        record.orders = seq;
        if stored {
            return Ok(());
        }
    }
}

/// The next report of a node, if it has come.
pub async fn receive(
    objects: &dyn ObjectStore,
    layout: &Layout,
    record: &mut SessionRecord,
    node: &str,
) -> anyhow::Result<Option<Report>> {
    let read = record.reports.entry(node.to_owned()).or_default();
    let key = layout.report(node, *read + 1);
    let Some(bytes) = objects.get(&key).await? else {
        return Ok(None);
    };
    *read += 1;
    let report = mailbox::decode(&key, *read, &bytes).context("failed to understand the agent")?;
    Ok(Some(report))
}

/// Renews the lease when a third of it has passed since the last time.
#[derive(Debug)]
pub struct LeaseKeeper {
    every: Duration,
    last: Option<Instant>,
    beat: u64,
}

impl LeaseKeeper {
    /// `started` tells beats of one process from another's: any number that differs will do.
    pub fn new(lease: Duration, started: u64) -> Self {
        Self { every: lease / 3, last: None, beat: started }
    }

    pub fn is_due(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= self.every)
    }

    /// Failing to renew is not worth a job while the lease lasts: it is tried again at the next turn.
    pub async fn renew(&mut self, cloud: &Cloud, layout: &Layout) {
        self.last = Some(Instant::now());
        self.beat += 1;
        let lease = Lease { version: mailbox::VERSION, beat: self.beat };
        let body = serde_json::to_vec(&lease).unwrap_or_default();
        if let Err(error) = cloud.objects.put(&layout.lease(), body).await {
            tracing::warn!(%error, "failed to renew the lease");
            self.last = None;
        }
    }
}
