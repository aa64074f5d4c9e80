//! Warns when the bucket keeps the sessions' deleted objects: scripts and orders hold the job's variables.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::failure::{Failure, render};
use crate::cloud::{CloudErrorKind, ObjectStore, Retention};
use crate::protocol::keys;
use crate::ui::Printer;

/// Old versions that are deleted within this time cause no warning.
const MOST_DAYS: u32 = 7;
/// The drivers of a host ask once in this time.
const INTERVAL: Duration = Duration::from_hours(24);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// When this host last asked, and of which bucket.
#[derive(Serialize, Deserialize)]
struct AskedNote {
    bucket: String,
    /// Seconds since 1970.
    asked: u64,
}

/// Asks S3, at most once a day, and warns. Fails no job.
pub async fn warn(objects: &dyn ObjectStore, state_dir: &Path, printer: &Printer, now: SystemTime) {
    let (note, bucket) = (state_dir.join("retention.json"), objects.uri(keys::SESSIONS));
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if was_asked(&note, &bucket, seconds) {
        return;
    }
    match tokio::time::timeout(ANSWERED_WITHIN, objects.retention()).await {
        Ok(Ok(retention)) if keeps_secrets(&retention) => printer.warn(kept(&bucket)),
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind == CloudErrorKind::Denied => {
            tracing::info!(%error, "nobody checks how long the bucket keeps deleted objects");
        }
        Ok(Err(error)) => {
            tracing::info!(%error, "failed to check how long the bucket keeps deleted objects");
            return;
        }
        Err(_) => {
            tracing::info!("S3 did not say in time how long the bucket keeps deleted objects");
            return;
        }
    }
    // Without the note the next job asks again.
    if let Ok(text) = serde_json::to_vec(&AskedNote { bucket, asked: seconds }) {
        drop(std::fs::write(note, text));
    }
}

fn was_asked(note: &Path, bucket: &str, now: u64) -> bool {
    let note = std::fs::read(note).ok().and_then(|text| serde_json::from_slice::<AskedNote>(&text).ok());
    let age = note.filter(|note| note.bucket == bucket).and_then(|note| now.checked_sub(note.asked));
    age.is_some_and(|age| age < INTERVAL.as_secs())
}

/// Tells whether deleted objects with scripts and variables stay readable for longer than a week.
pub fn keeps_secrets(retention: &Retention) -> bool {
    let deletes = |prefix: &str, days| days <= MOST_DAYS && keys::SESSIONS.starts_with(prefix);
    retention.is_versioned && !retention.expirations.iter().any(|rule| deletes(&rule.prefix, rule.days))
}

fn kept(bucket: &str) -> String {
    let failure = Failure::system(format!(
        "the bucket is versioned, and no lifecycle rule deletes old versions below {bucket} within {MOST_DAYS} days: scripts of \
         jobs, with their variables, stay readable after `cleanup`"
    ))
    .hint("apply the rules of `runner-config/bucket-lifecycle.json` to the bucket");
    let text = render(&failure.into());
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::VersionExpiration;
    use crate::cloud::testing::{Fault, Memory, When};

    struct Host {
        memory: Memory,
        state_dir: tempfile::TempDir,
    }

    impl Host {
        fn new(is_versioned: bool, expirations: &[(&str, u32)]) -> Self {
            let (memory, state_dir) = (Memory::new(), tempfile::tempdir().unwrap());
            let rule = |(prefix, days): &(&str, u32)| VersionExpiration { prefix: (*prefix).to_owned(), days: *days };
            let expirations = expirations.iter().map(rule).collect();
            memory.objects.set_retention(Retention { is_versioned, expirations });
            Self { memory, state_dir }
        }

        /// The output of a job that begins after these hours.
        async fn job(&self, hours: u64) -> String {
            let (printer, captured) = Printer::captured();
            let now = UNIX_EPOCH + Duration::from_hours(500_000 + hours);
            warn(&*self.memory.objects, self.state_dir.path(), &printer, now).await;
            captured.text()
        }

        fn asked(&self) -> usize {
            self.memory.objects.calls().len()
        }
    }

    #[tokio::test]
    async fn a_bucket_that_keeps_deleted_scripts_is_named_once_a_day() {
        let host = Host::new(true, &[("sessions/gitlab-1", 1), ("projects/", 1), ("", 30)]);
        let warning = host.job(0).await;
        assert!(warning.contains("s3://memory/sessions/") && warning.contains("bucket-lifecycle.json"), "{warning}");
        assert_eq!((host.job(23).await, host.asked()), (String::new(), 1));
        assert!(!host.job(24).await.is_empty());
        // The clock was set back.
        assert!(!host.job(1).await.is_empty());
    }

    #[tokio::test]
    async fn a_bucket_without_old_versions_is_no_matter() {
        for host in
            [Host::new(false, &[]), Host::new(true, &[("", 7)]), Host::new(true, &[("sess", 30), ("sessions/", 1)])]
        {
            assert_eq!((host.job(0).await, host.job(1).await, host.asked()), (String::new(), String::new(), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_is_no_warning_and_one_that_is_denied_is_not_repeated() {
        for (kind, is_repeated) in [(CloudErrorKind::Denied, false), (CloudErrorKind::Transient, true)] {
            let host = Host::new(true, &[]);
            host.memory.objects.plan([Fault::new("retention", 1, When::Before, kind)]);
            assert_eq!(host.job(0).await, "");
            assert_eq!(!host.job(1).await.is_empty(), is_repeated, "{kind:?}");
        }
        let host = Host::new(true, &[]);
        host.memory.objects.plan([Fault::slow("retention", Duration::from_hours(1))]);
        assert_eq!(host.job(0).await, "");
    }
}
