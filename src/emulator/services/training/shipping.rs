//! Ships a container's output to its log stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock;
use crate::event::InputLogEvent;
use crate::quirks::mixed;
use crate::services::logs::{Ingest, JOB_GROUP, Logs};
use crate::shared::Shared;

/// The log group and stream of a container.
#[derive(Debug, Clone)]
pub(crate) struct LogPlace {
    pub(crate) group: String,
    pub(crate) stream: String,
}

impl LogPlace {
    /// A stream of training jobs.
    pub(super) fn of_job(stream: String) -> Self {
        Self { group: JOB_GROUP.to_owned(), stream }
    }
}

/// Ships one container's output to its log stream, in batches, also after the job has ended. Without a stream, because the role
/// may not write one, the output is lost. Calls `seen` with each event.
pub(crate) async fn ship(
    shared: Arc<Shared>,
    logs: Arc<Logs>,
    place: Option<LogPlace>,
    mut output: mpsc::Receiver<Vec<u8>>,
    seen: impl Fn(&InputLogEvent),
) {
    let Some(LogPlace { group, stream }) = place else {
        while output.recv().await.is_some() {}
        return;
    };
    let delay = shared.config.quirks.batch_delay;
    let mut ingest = Ingest::new(&shared.config.quirks);
    let mut due: Option<Instant> = None;
    let longest_lag = u64::try_from(shared.config.quirks.ingestion_lag.as_millis()).unwrap_or(u64::MAX);
    let (mut batches, mut ingested) = (0, 0);
    let mut publish = |events: Vec<InputLogEvent>| {
        if events.is_empty() {
            return;
        }
        events.iter().for_each(&seen);
        let batch = shared.faults.events(events);
        let late = u64::try_from(batch.late.as_millis()).unwrap_or(u64::MAX);
        batches += 1;
        let lag = mixed(shared.config.seed, &stream, batches).checked_rem(longest_lag).unwrap_or(0);
        ingested = clock::now_ms().saturating_add(lag).max(ingested);
        logs.append(&group, &stream, batch.events, ingested.saturating_add(late));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::config::EmulatorConfig;

    #[tokio::test]
    async fn batches_are_ingested_late_and_in_order() {
        let lag = Duration::from_mins(1);
        let mut config = EmulatorConfig::new("unused").without_delays();
        config.quirks.ingestion_lag = lag;
        let logs = Arc::new(Logs::new(config.seed, &config.quirks));
        let shared = Arc::new(Shared::new(config, String::new()).unwrap());
        let before = clock::now_ms();
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        for number in 0..8 {
            sender.send(format!("{number}\n").into_bytes()).await.unwrap();
        }
        drop(sender);
        ship(shared, Arc::clone(&logs), Some(LogPlace::of_job("job/algo-1-1".into())), receiver, |_| ()).await;
        let dump = logs.dump("job/");
        let events: Vec<Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let times: Vec<u64> = events.iter().map(|event| event["ingestionTime"].as_u64().unwrap()).collect();
        assert_eq!(times.len(), 8);
        assert!(times.is_sorted(), "{times:?}");
        let latest = clock::now_ms() + u64::try_from(lag.as_millis()).unwrap();
        assert!(times.iter().all(|time| (before..latest).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time > before + 1000), "{times:?}");
        assert_eq!(logs.dump("other/"), "");
    }
}
