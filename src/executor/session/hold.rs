//! Liveness of sessions on this host. Each stage holds a shared lock on its session's `.alive` file and writes a time
//! stamp into it. A stage that ends says so there: then a pause begins, in which no pass ends the session, until the runner calls the
//! next stage. A stage that was killed says nothing. A pass that closes left-over sessions takes the lock exclusively.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::session::id::SessionId;
use crate::session::record::{Records, is_absent, not_writable};
use crate::session::stamp::Stamp;

/// How long a stage waits for a claim to end: checking the age takes a moment, closing a session longer.
const CLAIMED_FOR: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);
const BEAT: Duration = Duration::from_mins(1);
/// Size of the file; the longest note fits.
const NOTE_BYTES: usize = 192;
/// The runner calls the next stage within this time: it waits up to five minutes when it repeats one, or cannot reach GitLab.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Content of the `.alive` file.
#[derive(Debug, Serialize, Deserialize)]
struct AliveNote {
    /// Flat, as earlier versions read it.
    #[serde(flatten)]
    stamp: Stamp,
    /// The stage has ended. Earlier versions do not tell.
    #[serde(default)]
    paused: Option<bool>,
}

/// Exclusive claim on a session, for closing it.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held for its lock")] Option<File>);

/// A stage's hold on its session, until it is dropped.
#[derive(Debug, Default)]
pub struct Hold {
    file: Option<Arc<Alive>>,
    _beat: Option<AbortOnDropHandle<()>>,
}

/// The locked `.alive` file.
#[derive(Debug)]
struct Alive {
    file: File,
    clock: Arc<dyn Clock>,
}

impl Hold {
    /// Writes the stamp every minute: a killed stage writes none at its end.
    fn of(file: File, clock: Arc<dyn Clock>) -> Self {
        let alive = Arc::new(Alive { file, clock });
        alive.write(false);
        let beating = Arc::clone(&alive);
        let beat = tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                beating.write(false);
            }
        });
        Self { file: Some(alive), _beat: Some(AbortOnDropHandle::new(beat)) }
    }
}

impl Drop for Hold {
    /// The pause until the next stage begins now.
    fn drop(&mut self) {
        if let Some(alive) = &self.file {
            alive.write(true);
            // The task that shares the file may end a moment later.
            if let Err(error) = alive.file.unlock() {
                tracing::debug!(%error, "failed to unlock the session");
            }
        }
    }
}

impl Alive {
    fn write(&self, paused: bool) {
        let write = || -> std::io::Result<()> {
            let mut text = serde_json::to_vec(&AliveNote { stamp: Stamp::of(&*self.clock), paused: Some(paused) })?;
            text.resize(text.len().max(NOTE_BYTES), b' ');
            // One write over the old text, so that the file always holds a note.
            self.file.write_all_at(&text, 0)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "failed to write the session's time stamp");
        }
    }
}

impl Records {
    /// Holds the session for a stage. A job goes on without a hold that cannot be had, as on a full disk or beside a
    /// pass that closes the session. Without a record there is nothing to hold.
    pub async fn hold(&self, id: &SessionId, clock: &Arc<dyn Clock>) -> Hold {
        let deadline = Instant::now() + CLAIMED_FOR;
        if !self.file(id, "json").exists() {
            return Hold::default();
        }
        loop {
            let file = match writable(&self.file(id, "alive")) {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(%error, "failed to hold the session");
                    return Hold::default();
                }
            };
            match file.try_lock_shared() {
                Ok(()) => return Hold::of(file, Arc::clone(clock)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                Err(error) => {
                    tracing::warn!(%error, "failed to hold the session");
                    return Hold::default();
                }
            }
        }
    }

    /// Claims a session that no stage holds; `None` when one does. The claim lasts until it is dropped.
    ///
    /// A lock file that is absent and cannot be made, as on a full or read-only disk, counts as free. One that cannot be opened
    /// for another reason, as without free descriptors, is an error.
    pub fn claim(&self, id: &SessionId) -> anyhow::Result<Option<Claim>> {
        // A container stage holds the session's lock too, and one of an older program holds only that. It is tried
        // second: a stage that finds it taken fails, even if only this check took it.
        let mut claim = None;
        for extension in ["alive", "lock"] {
            let path = self.file(id, extension);
            let file = match writable(&path).or_else(|made| File::open(&path).map_err(|error| (made, error))) {
                Ok(file) => file,
                Err((made, error)) if is_absent(&error) && is_full_or_read_only(&made) => continue,
                Err((_, error)) => return Err(not_readable(&path, error)),
            };
            match file.try_lock() {
                Ok(()) if extension == "alive" => claim = Some(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(not_writable(&path, error)),
            }
        }
        Ok(Some(Claim(claim)))
    }

    /// Time for which the runner may still call the session's next stage; zero when the last stage was killed. `age` is
    /// that of [`Records::untouched_for`].
    pub fn pause_left(&self, id: &SessionId, age: Duration) -> anyhow::Result<Duration> {
        // Without a note, a stage has begun the session and was not able to write one, or is about to.
        let was_killed = self.note(id)?.is_some_and(|note| note.paused == Some(false));
        Ok(if was_killed { Duration::ZERO } else { LONGEST_PAUSE.saturating_sub(age) })
    }

    /// `None` when there is no note, or none that can be understood.
    fn note(&self, id: &SessionId) -> anyhow::Result<Option<AliveNote>> {
        let path = self.file(id, "alive");
        let mut text = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut text)) {
            Ok(_) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(not_readable(&path, error)),
        }
    }

    /// Time since a stage of the session last wrote its stamp; `None` when the session has no files.
    pub fn untouched_for(&self, id: &SessionId, now: &Stamp) -> anyhow::Result<Option<Duration>> {
        Ok(self.touched(id)?.map(|touched| touched.age(now)))
    }

    /// When a stage of the session last wrote its stamp; `None` when the session has no files.
    pub fn touched(&self, id: &SessionId) -> anyhow::Result<Option<Stamp>> {
        if let Some(note) = self.note(id)? {
            return Ok(Some(note.stamp));
        }
        // No stamp: the disk was full when the stages began, or an older program wrote the record. Lock files made by
        // this check are younger than the session, so the record's modification time comes first.
        if let Ok(modified) = fs::metadata(self.file(id, "json")).and_then(|metadata| metadata.modified()) {
            return Ok(Some(Stamp::of_day(modified)));
        }
        let failed = || format!("failed to read the files of the session {id}");
        let mut newest = None;
        for path in self.files(id).with_context(failed)? {
            match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                Ok(modified) => newest = newest.max(Some(modified)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(failed),
            }
        }
        Ok(newest.map(Stamp::of_day))
    }
}

/// Nothing can be made there.
fn is_full_or_read_only(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) || is_absent(error)
}

fn not_readable(path: &Path, error: io::Error) -> anyhow::Error {
    Failure::system(format!("failed to open {}", path.display()))
        .hint("make `runner.state_dir` readable for the runner's user, and see that the process may open enough files (`ulimit -n`)")
        .caused_by(error)
        .into()
}

fn writable(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;
    use crate::session::record::SessionRecord;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(HostClock)
    }

    fn id() -> SessionId {
        SessionId::parse("gitlab-1-2-abcdef12").unwrap()
    }

    #[tokio::test]
    async fn what_a_stage_holds_is_not_claimed_and_the_pause_begins_with_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        assert!(records.untouched_for(&id(), &Stamp::of(&HostClock)).unwrap().is_none());
        drop(records.hold(&id(), &clock()).await);
        assert!(records.sessions().unwrap().is_empty(), "without a record nothing is held");
        records.save(&id(), &SessionRecord::default()).unwrap();
        let (first, second) = (records.hold(&id(), &clock()).await, records.hold(&id(), &clock()).await);
        assert!(records.claim(&id()).unwrap().is_none());
        drop(first);
        assert!(records.claim(&id()).unwrap().is_none());
        assert!(!records.file(&id(), "lock").exists(), "a stage that holds the session finds its lock free");
        drop(second);
        assert!(records.claim(&id()).unwrap().is_some());
        assert!(records.untouched_for(&id(), &Stamp::of(&HostClock)).unwrap().unwrap() < Duration::from_mins(5));
    }

    #[tokio::test]
    async fn a_stage_that_ended_leaves_a_pause_and_a_killed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.save(&id(), &SessionRecord::default()).unwrap();
        let (age, left) = (Duration::from_mins(4), Duration::from_mins(6));
        assert_eq!(records.pause_left(&id(), age).unwrap(), left, "`prepare` is about to hold it");
        drop(records.hold(&id(), &clock()).await);
        assert_eq!(records.pause_left(&id(), age).unwrap(), left);
        assert_eq!(records.pause_left(&id(), LONGEST_PAUSE).unwrap(), Duration::ZERO);
        // As after a kill: the lock is gone, and nothing was written.
        let killed = records.hold(&id(), &clock()).await;
        assert_eq!(records.pause_left(&id(), age).unwrap(), Duration::ZERO);
        // An earlier version reads the stamp, and writes its own.
        let text = fs::read_to_string(records.file(&id(), "alive")).unwrap();
        assert!(text.len() == NOTE_BYTES && serde_json::from_str::<Stamp>(&text).unwrap() != Stamp::default());
        drop(killed);
        fs::write(records.file(&id(), "alive"), serde_json::to_vec(&Stamp::of(&HostClock)).unwrap()).unwrap();
        assert_eq!(records.pause_left(&id(), age).unwrap(), left);
    }

    /// A clock that jumps ahead makes every file look old.
    #[tokio::test]
    async fn a_clock_that_jumps_makes_no_session_old() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.save(&id(), &SessionRecord::default()).unwrap();
        drop(records.hold(&id(), &clock()).await);
        let yesterday = std::time::SystemTime::now() - Duration::from_hours(48);
        for path in records.files(&id()).unwrap() {
            File::options().append(true).open(path).unwrap().set_modified(yesterday).unwrap();
        }
        assert!(records.untouched_for(&id(), &Stamp::of(&HostClock)).unwrap().unwrap() < Duration::from_mins(5));
        // Without the stamp the files' times are all there is.
        fs::remove_file(records.file(&id(), "alive")).unwrap();
        assert!(records.untouched_for(&id(), &Stamp::of(&HostClock)).unwrap().unwrap() > Duration::from_hours(24));
    }

    #[tokio::test]
    async fn a_container_stage_is_not_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.save(&id(), &SessionRecord::default()).unwrap();
        let _lock = records.lock(&id()).unwrap().unwrap();
        assert!(records.claim(&id()).unwrap().is_none());
    }

    /// A link to itself stands for a file that the kernel does not open, as without free descriptors.
    #[test]
    fn a_file_that_cannot_be_opened_is_neither_free_nor_without_a_note() {
        for extension in ["alive", "lock"] {
            let dir = tempfile::tempdir().unwrap();
            let records = Records::open(dir.path()).unwrap();
            records.save(&id(), &SessionRecord::default()).unwrap();
            let path = records.file(&id(), extension);
            std::os::unix::fs::symlink(&path, &path).unwrap();
            assert!(records.claim(&id()).unwrap_err().to_string().contains("failed to open"), "{extension}");
            let is_alive = extension == "alive";
            assert_eq!(records.untouched_for(&id(), &Stamp::of(&HostClock)).is_err(), is_alive);
            assert_eq!(records.pause_left(&id(), Duration::ZERO).is_err(), is_alive);
        }
        // Where nothing can be made, nobody holds anything.
        assert!(Records::at(Path::new("/proc/none")).claim(&id()).unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_does_not_hold_up_a_stage_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.save(&id(), &SessionRecord::default()).unwrap();
        let _claim = records.claim(&id()).unwrap().unwrap();
        assert!(records.hold(&id(), &clock()).await.file.is_none());
    }
}
