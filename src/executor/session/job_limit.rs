//! Jobs of one rule at once on this host: `allow.max_jobs`.
//!
//! Each session of such a rule reserves a turn: one file, `state_dir/rules/<hash of the rule's name>/<session id>`. It ends
//! with the session, or after 20 minutes when the session has no record.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::base::failure::Failure;
use crate::session::id::SessionId;
use crate::session::record::Records;

/// Age at which a turn without a record ends: `prepare` has written the record by then, or never will.
const UNRECORDED: Duration = Duration::from_mins(20);

/// Reserves a turn for the session; `false` when `most` other sessions have one.
pub fn reserve(state_dir: &Path, rule: &str, most: u32, id: &SessionId, now: SystemTime) -> anyhow::Result<bool> {
    let records = Records::open(state_dir)?;
    let folder = folder(state_dir).join(name(rule));
    let reserved = (|| {
        fs::create_dir_all(&folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        lock.lock()?;
        let mut others = 0;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match holder(&path) {
                Some(holder) if holder != *id => others += u32::from(is_live(&path, &holder, &records, now)?),
                _ => {}
            }
        }
        if others >= most {
            return Ok(false);
        }
        File::create(folder.join(id.as_str()))?;
        Ok(true)
    })();
    reserved.map_err(|error: io::Error| {
        Failure::system(format!("failed to count the jobs of the rule in {}", folder.display()))
            .hint("make `runner.state_dir` a directory that the runner's user can write, with room on its disk")
            .caused_by(error)
            .into()
    })
}

/// Gives the session's turns back. A folder that cannot be read keeps them until their time is over.
pub fn release(state_dir: &Path, id: &SessionId) {
    let folders = fs::read_dir(folder(state_dir)).into_iter().flatten().flatten();
    for folder in folders {
        let _ = fs::remove_file(folder.path().join(id.as_str()));
    }
}

const LOCK: &str = "lock";

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("rules")
}

/// A rule's name may hold slashes.
fn name(rule: &str) -> String {
    blake3::hash(rule.as_bytes()).to_hex().chars().take(32).collect()
}

fn holder(path: &Path) -> Option<SessionId> {
    SessionId::parse(path.file_name()?.to_str()?)
}

/// `false` for a turn whose session is over; its file is removed.
fn is_live(path: &Path, holder: &SessionId, records: &Records, now: SystemTime) -> io::Result<bool> {
    // An unreadable record may belong to a live session.
    if !matches!(records.load(holder), Ok(None)) {
        return Ok(true);
    }
    let since = now.duration_since(path.metadata()?.modified()?);
    if since.is_ok_and(|since| since > UNRECORDED) {
        fs::remove_file(path)?;
        return Ok(false);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::SessionRecord;

    fn session(job: u32) -> SessionId {
        SessionId::parse(&format!("gitlab-1-{job}-abcdef12")).unwrap()
    }

    #[test]
    fn a_rule_has_as_many_turns_as_it_says_and_each_session_one() {
        let dir = tempfile::tempdir().unwrap();
        let take = |rule: &str, job| reserve(dir.path(), rule, 2, &session(job), SystemTime::now()).unwrap();
        assert_eq!([take("a/b", 1), take("a/b", 1), take("a/b", 2), take("a/b", 3)], [true, true, true, false]);
        assert!(take("other", 3), "rules are counted apart");
        release(dir.path(), &session(2));
        release(dir.path(), &session(9));
        assert!(take("a/b", 3));
    }

    #[test]
    fn a_turn_ends_with_its_session() {
        let dir = tempfile::tempdir().unwrap();
        let later = SystemTime::now() + UNRECORDED * 2;
        let take = |job, now| reserve(dir.path(), "r", 1, &session(job), now).unwrap();
        assert!(take(1, SystemTime::now()));
        let records = Records::open(dir.path()).unwrap();
        records
            .save(&session(1), &SessionRecord { session: session(1).to_string(), ..SessionRecord::default() })
            .unwrap();
        assert!(!take(2, later), "a session with a record lives");
        records.remove(&session(1)).unwrap();
        assert!(!take(2, SystemTime::now()), "its record may come yet");
        assert!(take(2, later));
    }
}
