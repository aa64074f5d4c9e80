//! Renews the lease of a session while a stage works on it. Agents leave when the lease expires.
//!
//! A container stage renews it when it attaches. From then on a thread with a client of its own renews it, because the
//! stage's thread blocks while stdout is not read. A host stage does it when it attaches only if the last renewal is a third of the
//! lease ago: so most short stages make no client, and many of them do not leave the lease alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, oneshot};

use crate::base::clock::Clock;
use crate::base::worker::Worker;
use crate::cloud::{Access, Connect, ObjectStore};
use crate::protocol::keys::SessionKeys;
use crate::protocol::mailbox;
use crate::session::id::SessionId;
use crate::session::record::Records;
use crate::session::stamp::Stamp;

/// When the lease was last renewed, for the part of the process that prints.
#[derive(Debug, Clone, Default)]
pub struct RenewalTime(Arc<Mutex<Option<Instant>>>);

impl RenewalTime {
    /// `None` before the first renewal.
    pub fn age(&self) -> Option<Duration> {
        self.0.lock().map(|at| at.elapsed())
    }
}

/// Notes on this host when the lease was renewed, for the next stage.
#[derive(Debug, Clone)]
pub struct LeaseNote {
    pub records: Records,
    pub id: SessionId,
    pub clock: Arc<dyn Clock>,
}

impl LeaseNote {
    /// `true` when the last renewal is a third of `lease` ago. Without a note, as on a full disk, the thread alone renews the lease.
    pub fn is_due(&self, lease: Duration) -> bool {
        self.records.renewed(&self.id).is_some_and(|at| at.age(&Stamp::of(&*self.clock)) >= lease / 3)
    }

    pub fn write(&self) {
        if let Err(error) = self.records.note_renewal(&self.id, &Stamp::of(&*self.clock)) {
            tracing::debug!(error = format!("{error:#}"), "failed to note the renewal of the lease");
        }
    }
}

/// Renews the lease every third of its length, until it is dropped.
pub struct LeaseKeeper {
    renewals: Arc<Renewals>,
    _worker: Worker,
}

impl LeaseKeeper {
    /// Starts the thread. It makes its client at the first renewal, a third of `lease` from now.
    pub fn start(
        keys: &SessionKeys,
        lease: Duration,
        note: LeaseNote,
        connect: Arc<dyn Connect>,
        access: Access,
    ) -> anyhow::Result<Self> {
        // The counter starts at the process id, so that values of different processes differ.
        let last = AtomicU64::new(u64::from(std::process::id()) << 32);
        let renewals = Arc::new(Renewals { keys: keys.clone(), last, renewed: RenewalTime::default(), note });
        let kept = Arc::clone(&renewals);
        let keep = move |stopped| async move { kept.keep(lease / 3, &*connect, &access, stopped).await };
        Ok(Self { renewals, _worker: Worker::start("lease", keep)? })
    }

    /// The last renewal, now and later.
    pub fn renewed(&self) -> RenewalTime {
        self.renewals.renewed.clone()
    }

    /// Renews the lease now, besides the thread. A failure does not fail the job: the lease lasts longer than one
    /// interval.
    pub async fn renew(&self, objects: &dyn ObjectStore) {
        if let Err(error) = self.renewals.renew(objects).await {
            tracing::warn!(error = format!("{error:#}"), "failed to renew the lease");
        }
    }
}

struct Renewals {
    keys: SessionKeys,
    last: AtomicU64,
    renewed: RenewalTime,
    note: LeaseNote,
}

impl Renewals {
    async fn keep(
        &self,
        every: Duration,
        connect: &dyn Connect,
        access: &Access,
        mut stopped: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let client = OnceCell::new();
        let mut pause = every;
        loop {
            // A renewal is never aborted: it could take effect after the session was cleaned up.
            tokio::select! {
                _ = &mut stopped => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            let renewed = async {
                let objects = client.get_or_try_init(|| connect.objects_apart(access)).await?;
                self.renew(&**objects).await
            };
            pause = every;
            if let Err(error) = renewed.await {
                tracing::warn!(error = format!("{error:#}"), "failed to renew the lease");
                pause = every / 10;
            }
        }
    }

    async fn renew(&self, objects: &dyn ObjectStore) -> anyhow::Result<()> {
        let beat = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        objects.put(&self.keys.lease(), mailbox::encode_lease(&self.keys, beat)).await?;
        *self.renewed.0.lock() = Some(Instant::now());
        self.note.write();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;
    use crate::base::seal::{Seal, SealKey};
    use crate::cloud::CloudErrorKind;
    use crate::cloud::testing::{Fault, Memory, When};
    use crate::session::record::SessionRecord;

    const LEASE: Duration = Duration::from_millis(60);

    struct Kept {
        memory: Memory,
        keys: SessionKeys,
        keeper: LeaseKeeper,
        note: LeaseNote,
        _dir: tempfile::TempDir,
    }

    impl Kept {
        fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
            let (memory, keys) = (Memory::new(), SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([7; 32]))));
            memory.objects.plan(faults);
            let dir = tempfile::tempdir().unwrap();
            let records = Records::open(dir.path()).unwrap();
            let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
            records.save(&id, &SessionRecord::default()).unwrap();
            let note = LeaseNote { records, id, clock: Arc::new(HostClock) };
            let connect = Arc::new(memory.clone());
            let keeper = LeaseKeeper::start(&keys, LEASE, note.clone(), connect, Access::default()).unwrap();
            Self { memory, keys, keeper, note, _dir: dir }
        }

        /// Number of renewals up to the stored one.
        fn renewals(&self) -> u64 {
            let Some(body) = self.memory.objects.contents(&self.keys.lease()) else { return 0 };
            mailbox::decode_lease(&self.keys, &body).unwrap() - (u64::from(std::process::id()) << 32)
        }

        /// Blocks this thread until that many were stored.
        fn stand_still_until(&self, renewals: u64) {
            let deadline = Instant::now() + Duration::from_mins(1);
            while self.renewals() < renewals {
                assert!(Instant::now() < deadline, "the lease is not renewed");
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    /// The test's runtime has one thread, like a stage's.
    #[tokio::test]
    async fn the_lease_goes_on_while_the_main_thread_stands_still() {
        let kept = Kept::start([]);
        kept.keeper.renew(&*kept.memory.objects).await;
        let before = Instant::now();
        kept.stand_still_until(8);
        assert!(before.elapsed() > LEASE, "for longer than a lease");
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again() {
        let kept = Kept::start([Fault::new("put", 1, When::Before, CloudErrorKind::Transient).times(2)]);
        kept.stand_still_until(4);
    }

    /// Stages that are each too short for a renewal make one together.
    #[test]
    fn the_next_stage_knows_when_the_last_one_renewed_it() {
        let kept = Kept::start([]);
        assert!(!kept.note.is_due(Duration::ZERO), "no stage has noted one");
        kept.stand_still_until(2);
        assert!(kept.note.is_due(Duration::ZERO) && !kept.note.is_due(Duration::from_hours(1)));
    }

    #[test]
    fn a_keeper_that_is_dropped_renews_nothing_and_lets_its_client_go() {
        let kept = Kept::start([]);
        kept.stand_still_until(1);
        drop(kept.keeper);
        // The fake of endpoints holds the objects too.
        let unused = Memory::new();
        assert_eq!(Arc::strong_count(&kept.memory.objects), Arc::strong_count(&unused.objects));
    }
}
