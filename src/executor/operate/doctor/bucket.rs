//! Checks of the bucket.

use super::account::{CallerSight, of_error, of_needed};
use super::bucket_policy::{self, BucketUse};
use super::host;
use super::installation::Installation;
use super::report::{DoctorFinding, counted};
use crate::base::arn::partition;
use crate::cloud::{BucketConfiguration, BucketEncryption, ExpiringPrefix, InputPrefix};
use crate::protocol::keys;
use crate::session::retention;

/// Folders of the bucket whose objects a lifecycle rule must delete.
const EXPIRING: [&str; 3] = [keys::SESSIONS, "projects/", keys::AGENTS];
const DAY: u64 = 86_400;
const LIFECYCLE: &str =
    "apply the rules of `runner-config/bucket-lifecycle.json`: `aws s3api put-bucket-lifecycle-configuration`";

/// Findings, and whether the bucket is there and in the right region.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> (bool, Vec<DoctorFinding>) {
    let bucket = &installation.settings.storage.bucket;
    let data = match installation.connect.input_data(&installation.access).await {
        Ok(data) => data,
        Err(error) => return (false, vec![DoctorFinding::skipped("bucket.exists", bucket, format!("{error:#}"))]),
    };
    let found = match installation.within("S3", data.find_bucket(bucket, None)).await {
        Ok(found) => found,
        Err(error) => return (false, vec![of_needed("bucket.exists", bucket, &error)]),
    };
    let (is_usable, mut findings) = existence(bucket, &found);
    if is_usable {
        let settings = async {
            match installation.connect.bucket_configuration(&installation.access).await {
                Ok(settings) => of_settings(installation, &*settings, caller).await,
                Err(error) => vec![DoctorFinding::skipped("bucket.encryption", bucket, format!("{error:#}"))],
            }
        };
        let (clock, settings, versioning) = tokio::join!(clock(installation), settings, versioning(installation));
        findings.extend(settings.into_iter().chain([clock, versioning]));
    }
    (is_usable, findings)
}

fn existence(bucket: &str, found: &InputPrefix) -> (bool, Vec<DoctorFinding>) {
    let failure = |id, text: &str, change: &str| (false, vec![DoctorFinding::failure(id, bucket, text, change)]);
    match found {
        InputPrefix::NoBucket => failure(
            "bucket.exists",
            "does not exist",
            "create it in the region of the jobs, or correct `storage.bucket` in the operator's file",
        ),
        InputPrefix::OtherRegion { bucket: there, jobs } => failure(
            "bucket.region",
            &format!("is in the region {there}, and the jobs in {jobs}"),
            "set `aws.region` in the operator's file to the region of `storage.bucket`, or name a bucket of that region",
        ),
        InputPrefix::Unreadable | InputPrefix::OtherOwner => failure(
            "bucket.exists",
            "exists, and is of another account, or its policy or the caller's policy keeps the caller out",
            "correct `storage.bucket`, or allow the role of the runner hosts `s3:ListBucket` on it; `policy iam` writes both policies",
        ),
        InputPrefix::Found | InputPrefix::Object | InputPrefix::Empty => (
            true,
            vec![
                DoctorFinding::ok("bucket.exists", bucket, "is there, and can be listed"),
                DoctorFinding::ok("bucket.region", bucket, "is in the region of the jobs"),
            ],
        ),
    }
}

/// The clock of this host against that of S3.
async fn clock(installation: &Installation<'_>) -> DoctorFinding {
    let there = match installation.connect.survey(&installation.access).await {
        Ok(survey) => installation.within("S3", survey.now()).await,
        Err(error) => return DoctorFinding::skipped("host.clock", "the clock", format!("{error:#}")),
    };
    match there {
        Ok(there) => host::clock(installation.clock.now(), there),
        Err(error) => of_error("host.clock", "the clock", &error),
    }
}

async fn of_settings(
    installation: &Installation<'_>,
    settings: &dyn BucketConfiguration,
    caller: &CallerSight,
) -> Vec<DoctorFinding> {
    let bucket = &installation.settings.storage.bucket;
    let (encryption, blocks, policy, expiring) = tokio::join!(
        installation.within("S3", settings.encryption()),
        installation.within("S3", settings.blocks_public_access()),
        installation.within("S3", settings.policy()),
        installation.within("S3", settings.expiring_prefixes())
    );
    let mut findings = vec![match encryption {
        Ok(found) => of_encryption(bucket, installation.settings.storage.kms_key_id.as_deref(), &found),
        Err(error) => of_error("bucket.encryption", bucket, &error),
    }];
    findings.push(match blocks {
        Ok(true) => DoctorFinding::ok("bucket.public_access", bucket, "blocks all public access"),
        Ok(false) => DoctorFinding::failure(
            "bucket.public_access",
            bucket,
            "does not block all public access, and it holds scripts and variables of jobs",
            format!("switch on all four settings of \"Block public access\": `aws s3api put-public-access-block --bucket {bucket} ...`"),
        ),
        Err(error) => of_error("bucket.public_access", bucket, &error),
    });
    match expiring {
        Ok(prefixes) => findings.extend(lifecycle(bucket, &prefixes, longest_job(installation))),
        Err(error) => findings.push(of_error("bucket.lifecycle", bucket, &error)),
    }
    findings.push(match policy {
        Ok(policy) => of_policy(installation, caller, policy.as_deref()),
        Err(error) => of_error("bucket.policy", bucket, &error),
    });
    findings
}

fn of_policy(installation: &Installation<'_>, caller: &CallerSight, policy: Option<&str>) -> DoctorFinding {
    let storage = &installation.settings.storage;
    let prefix = if storage.prefix.is_empty() { String::new() } else { format!("/{}", storage.prefix) };
    let place = format!("arn:{}:s3:::{}{prefix}", partition(&caller.region), storage.bucket);
    let jobs = installation.job_roles();
    let (account, host) = (caller.account.as_str(), caller.host.as_deref());
    bucket_policy::judge(policy, &BucketUse { bucket: &storage.bucket, place: &place, account, host, jobs: &jobs })
}

fn of_encryption(bucket: &str, wanted: Option<&str>, found: &BucketEncryption) -> DoctorFinding {
    match (found, wanted) {
        (BucketEncryption::Kms { key: Some(key) }, None) => DoctorFinding::warning(
            "bucket.encryption",
            bucket,
            format!("is encrypted with the KMS key {key}, which the generated policies do not allow the jobs"),
            format!("set `storage.kms_key_id = \"{key}\"` in the operator's file, and apply `policy iam` again"),
        ),
        (BucketEncryption::Kms { .. }, None) => {
            DoctorFinding::ok("bucket.encryption", bucket, "is encrypted with AWS's own key")
        }
        (BucketEncryption::S3, None) => DoctorFinding::ok("bucket.encryption", bucket, "is encrypted with keys of S3"),
        (_, Some(key)) => {
            DoctorFinding::ok("bucket.encryption", bucket, format!("each object is encrypted with {key}"))
        }
    }
}

async fn versioning(installation: &Installation<'_>) -> DoctorFinding {
    let bucket = &installation.settings.storage.bucket;
    let retention = match installation.connect.objects(&installation.access).await {
        Ok(objects) => installation.within("S3", objects.retention()).await,
        Err(error) => return DoctorFinding::skipped("bucket.versioning", bucket, format!("{error:#}")),
    };
    match retention {
        Ok(kept) if retention::keeps_secrets(&kept) => DoctorFinding::warning(
            "bucket.versioning",
            bucket,
            "keeps old versions for longer than 7 days: scripts of jobs, with their variables, stay readable after `cleanup`",
            LIFECYCLE,
        ),
        Ok(kept) if kept.is_versioned => {
            DoctorFinding::ok("bucket.versioning", bucket, "deletes old versions within 7 days")
        }
        Ok(_) => DoctorFinding::ok("bucket.versioning", bucket, "keeps no old versions"),
        Err(error) => of_error("bucket.versioning", bucket, &error),
    }
}

/// Longest time from the first object of a job to the last that is read, in seconds.
fn longest_job(installation: &Installation<'_>) -> u64 {
    let limits = &installation.settings.limits;
    let longest = installation.bounds.iter().map(|bounds| bounds.max_runtime).max();
    longest.unwrap_or_default() + limits.provisioning_seconds
}

/// A rule that is too short and a folder without a rule are told both.
fn lifecycle(bucket: &str, rules: &[ExpiringPrefix], longest: u64) -> Vec<DoctorFinding> {
    let of_sessions = |rule: &&ExpiringPrefix| keys::SESSIONS.starts_with(rule.prefix.as_str());
    let short = rules.iter().filter(of_sessions).filter(|rule| u64::from(rule.days) * DAY < longest);
    let short = short.min_by_key(|rule| rule.days).map(|rule| {
        let text = format!(
            "a lifecycle rule deletes objects {} after they are written, and a job may take {}: its own objects go while it runs",
            counted(rule.days, "day"),
            counted(longest.div_ceil(3600), "hour")
        );
        DoctorFinding::warning("bucket.lifecycle", bucket, text, LIFECYCLE)
    });
    let is_covered = |folder: &str| rules.iter().any(|rule| folder.starts_with(rule.prefix.as_str()));
    let missing: Vec<&str> = EXPIRING.into_iter().filter(|folder| !is_covered(folder)).collect();
    let missing = (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        let text = format!("no lifecycle rule deletes what is left below {missing} of the executor's prefix");
        DoctorFinding::warning("bucket.lifecycle", bucket, text, LIFECYCLE)
    });
    let findings: Vec<_> = short.into_iter().chain(missing).collect();
    if findings.is_empty() {
        return vec![DoctorFinding::ok("bucket.lifecycle", bucket, "deletes what no cleanup removes")];
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_rule_and_a_folder_without_one_are_told_both() {
        let rules = [("sessions/", 3), ("sessions/", 1), ("agents/", 35)]
            .map(|(prefix, days)| ExpiringPrefix { prefix: prefix.to_owned(), days });
        let findings = lifecycle("b", &rules, 4 * DAY);
        let [short, missing] = &findings[..] else { panic!("{findings:?}") };
        assert!(short.text.contains("objects 1 day after") && short.text.contains("96 hours:"), "{}", short.text);
        assert!(missing.text.contains("below projects/ of"), "{}", missing.text);
    }
}
