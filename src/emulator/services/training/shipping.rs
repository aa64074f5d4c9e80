//! From a container's output to its log stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock;
use crate::event::Event;
use crate::quirks::mixed;
use crate::services::logs::{Ingest, JOB_GROUP, Logs};
use crate::shared::Shared;

/// Carries one container's output to its log stream, in batches, also after the job has ended.
pub(crate) async fn ship(shared: Arc<Shared>, logs: Arc<Logs>, stream: String, mut output: mpsc::Receiver<Vec<u8>>) {
    let delay = shared.config.quirks.batch_delay;
    let mut ingest = Ingest::new(&shared.config.quirks);
    let mut due: Option<Instant> = None;
    let longest_lag = u64::try_from(shared.config.quirks.ingestion_lag.as_millis()).unwrap_or(u64::MAX);
    let (mut batches, mut ingested) = (0, 0);
    let mut publish = |events: Vec<Event>| {
        if events.is_empty() {
            return;
        }
        let batch = shared.faults.events(events);
        let late = u64::try_from(batch.late.as_millis()).unwrap_or(u64::MAX);
        batches += 1;
        let lag = mixed(shared.config.seed, &stream, batches).checked_rem(longest_lag).unwrap_or(0);
        ingested = clock::now_ms().saturating_add(lag).max(ingested);
        logs.append(JOB_GROUP, &stream, batch.events, ingested.saturating_add(late));
    };
    loop {
        tokio::select! {
            chunk = output.recv() => {
                let Some(chunk) = chunk else { break };
                ingest.push(&chunk, clock::now_ms());
                if delay.is_zero() {
                    publish(ingest.flush());
                } else if due.is_none() && ingest.has_events() {
                    due = Some(Instant::now() + delay);
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                publish(ingest.flush());
            }
        }
    }
    let tail = ingest.finish(clock::now_ms());
    if !tail.is_empty() {
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + delay)) => {}
            () = shared.shutdown.cancelled() => {}
        }
    }
    publish(tail);
}
