//! Slots: numbered directories of a project on this host, one for each of its concurrent jobs.
//!
//! The runner numbers its concurrent jobs, but two runner processes with one token both begin at 0. So each session
//! reserves the lowest free number of its project. A reservation is one file, `state_dir/slots/<project id>/<number>`,
//! that holds the session's id. It ends with the session, or after 20 minutes when the session has no record.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::session::id::SessionId;
use crate::session::record::Records;

/// Age at which a reservation without a record ends: `prepare` has written the record by then, or never will.
const UNRECORDED: Duration = Duration::from_mins(20);
/// Upper bound of the numbers, only to bound the loop.
const MOST: u32 = 10_000;

/// Reserves the lowest free number.
pub fn reserve(state_dir: &Path, id: &SessionId, now: SystemTime) -> anyhow::Result<u32> {
    let records = Records::open(state_dir)?;
    let folder = folder(state_dir, id);
    let reserved = (|| {
        fs::create_dir_all(&folder)?;
        let _lock = lock(&folder)?;
        for number in 0..MOST {
            let file = folder.join(number.to_string());
            if is_free(&file, &records, now)? {
                fs::write(&file, id.as_str())?;
                return Ok(number);
            }
        }
        Err(io::Error::other("all numbers are taken"))
    })();
    reserved.map_err(|error: io::Error| {
        Failure::system(format!("failed to reserve a directory for the job in {}", folder.display()))
            .hint("make `runner.state_dir` a directory that the runner's user can write, with room on its disk")
            .caused_by(error)
            .into()
    })
}

/// `true` when the number is the session's.
pub fn is_held(state_dir: &Path, id: &SessionId, number: u32) -> bool {
    holder(&folder(state_dir, id).join(number.to_string())).is_ok_and(|holder| holder.as_ref() == Some(id))
}

/// Releases the session's number, if it has one.
pub fn release(state_dir: &Path, id: &SessionId) -> anyhow::Result<()> {
    let folder = folder(state_dir, id);
    if !folder.exists() {
        return Ok(());
    }
    let failed = || format!("failed to release the job's directory in {}", folder.display());
    let _lock = lock(&folder).with_context(failed)?;
    for entry in fs::read_dir(&folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if holder(&path).with_context(failed)?.as_ref() == Some(id) {
            fs::remove_file(&path).with_context(failed)?;
        }
    }
    Ok(())
}

fn folder(state_dir: &Path, id: &SessionId) -> PathBuf {
    state_dir.join("slots").join(id.project())
}

/// Locks the folder until the file is dropped. The file stays: after a removal two processes could hold two locks.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Session that holds the number; `None` when the file is missing or incomplete.
fn holder(file: &Path) -> io::Result<Option<SessionId>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(SessionId::parse(&text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_free(file: &Path, records: &Records, now: SystemTime) -> io::Result<bool> {
    let Some(holder) = holder(file)? else { return Ok(true) };
    // An unreadable record may belong to a live session.
    if !matches!(records.load(&holder), Ok(None)) {
        return Ok(false);
    }
    let since = now.duration_since(file.metadata()?.modified()?);
    Ok(since.is_ok_and(|since| since > UNRECORDED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::SessionRecord;

    fn session(project: u32, job: u32) -> SessionId {
        SessionId::parse(&format!("gitlab-{project}-{job}-abcdef12")).unwrap()
    }

    #[test]
    fn jobs_at_once_have_numbers_of_their_own_and_the_lowest_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let take = |project, job| reserve(dir.path(), &session(project, job), SystemTime::now()).unwrap();
        assert_eq!([take(1, 1), take(1, 2), take(2, 3), take(1, 4)], [0, 1, 0, 2]);
        release(dir.path(), &session(1, 2)).unwrap();
        release(dir.path(), &session(1, 2)).unwrap();
        release(dir.path(), &session(9, 9)).unwrap();
        assert_eq!([take(1, 5), take(1, 6)], [1, 3]);
    }

    #[test]
    fn a_number_stays_taken_while_its_session_has_a_record_and_for_a_while_before() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let later = SystemTime::now() + UNRECORDED + Duration::from_mins(1);
        let (a, b, c) = (session(1, 1), session(1, 2), session(1, 3));
        assert_eq!(reserve(dir.path(), &a, SystemTime::now()).unwrap(), 0);
        records.save(&a, &SessionRecord::default()).unwrap();
        assert_eq!(reserve(dir.path(), &b, later).unwrap(), 1);
        // `b` never got a record.
        assert_eq!(reserve(dir.path(), &c, later).unwrap(), 1);
        fs::write(dir.path().join("sessions").join(format!("{a}.json")), "").unwrap();
        assert_eq!(reserve(dir.path(), &b, later).unwrap(), 1, "a record that cannot be read keeps its number");
        fs::remove_file(dir.path().join("sessions").join(format!("{a}.json"))).unwrap();
        assert_eq!(reserve(dir.path(), &session(1, 5), later).unwrap(), 0);
        fs::write(dir.path().join("slots/1/1"), "").unwrap();
        let now = SystemTime::now();
        assert_eq!(reserve(dir.path(), &session(1, 6), now).unwrap(), 1, "a reservation that was cut off");
    }
}
