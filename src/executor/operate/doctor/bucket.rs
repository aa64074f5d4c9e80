//! Checks of the bucket and of the keys of KMS.

use serde_json::Value;

use super::account::{CallerSight, of_error, of_needed};
use super::host;
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::arn::Arn;
use crate::cloud::{BucketConfiguration, BucketEncryption, InputPrefix, KeySight};
use crate::protocol::keys;
use crate::session::retention;

/// Folders of the bucket whose objects a lifecycle rule must delete.
const EXPIRING: [&str; 3] = [keys::SESSIONS, "projects/", keys::AGENTS];
const LIFECYCLE: &str =
    "apply the rules of `runner-config/bucket-lifecycle.json`: `aws s3api put-bucket-lifecycle-configuration`";

/// Findings, and whether the bucket is there and in the right region.
pub(super) async fn check(installation: &Installation<'_>) -> (bool, Vec<DoctorFinding>) {
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
                Ok(settings) => of_settings(installation, &*settings).await,
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

async fn of_settings(installation: &Installation<'_>, settings: &dyn BucketConfiguration) -> Vec<DoctorFinding> {
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
    findings.push(match expiring {
        Ok(prefixes) => lifecycle(bucket, &prefixes),
        Err(error) => of_error("bucket.lifecycle", bucket, &error),
    });
    findings.push(match policy {
        Ok(Some(policy)) if is_open(&policy) => DoctorFinding::failure(
            "bucket.policy",
            bucket,
            "has a policy that lets everybody in: a statement with `Allow` for the principal `*`, without a condition",
            "remove the statement, and apply `bucket-policy.json` of `sagemaker-executor policy iam`",
        ),
        Ok(Some(_)) => DoctorFinding::ok("bucket.policy", bucket, "has a policy"),
        Ok(None) => DoctorFinding::warning(
            "bucket.policy",
            bucket,
            "has no policy: every role of the account that may write objects can replace the agent that all jobs run",
            "apply `bucket-policy.json` of `sagemaker-executor policy iam`",
        ),
        Err(error) => of_error("bucket.policy", bucket, &error),
    });
    findings
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

fn lifecycle(bucket: &str, prefixes: &[String]) -> DoctorFinding {
    let is_covered = |folder: &str| prefixes.iter().any(|prefix| folder.starts_with(prefix.as_str()));
    let missing: Vec<&str> = EXPIRING.into_iter().filter(|folder| !is_covered(folder)).collect();
    if missing.is_empty() {
        return DoctorFinding::ok("bucket.lifecycle", bucket, "deletes what no cleanup removes");
    }
    let text = format!("no lifecycle rule deletes what is left below {} of the executor's prefix", missing.join(", "));
    DoctorFinding::warning("bucket.lifecycle", bucket, text, LIFECYCLE)
}

/// A statement lets everybody in.
fn is_open(policy: &str) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = match &policy["Statement"] {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let is_all = |principal: &Value| {
        principal == "*"
            || principal["AWS"] == "*"
            || principal["AWS"].as_array().is_some_and(|all| all.iter().any(|one| one == "*"))
    };
    statements
        .into_iter()
        .any(|one| one["Effect"] == "Allow" && one["Condition"].is_null() && is_all(&one["Principal"]))
}

/// The keys of the operator's file.
pub(super) async fn keys(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let settings = installation.settings;
    let named = [
        ("storage.kms_key_id", settings.storage.kms_key_id.as_deref()),
        ("job.volume_kms_key_id", settings.job.volume_kms_key_id.as_deref()),
    ];
    let port = match installation.connect.encryption_keys(&installation.access).await {
        Ok(port) => port,
        Err(error) => return vec![DoctorFinding::skipped("kms.key", "", format!("{error:#}"))],
    };
    let mut findings = Vec::new();
    for (setting, key) in named.into_iter().filter_map(|(setting, key)| Some((setting, key?))) {
        findings.push(match installation.within("KMS", port.describe(key)).await {
            Ok(found) => of_key(setting, key, found.as_ref(), &caller.region),
            Err(error) => of_error("kms.key", key, &error),
        });
    }
    findings
}

fn of_key(setting: &str, key: &str, found: Option<&KeySight>, region: &str) -> DoctorFinding {
    let failure = |text: String, change: String| DoctorFinding::failure("kms.key", key, text, change);
    let named = Arn::parse(key).map(|arn| arn.region).filter(|there| *there != region);
    if let Some(there) = named {
        return failure(
            format!("is in the region {there}, and the jobs in {region}"),
            format!("set `{setting}` to a key of {region}"),
        );
    }
    match found {
        None => failure("does not exist".to_owned(), format!("correct `{setting}`, or create the key in {region}")),
        Some(found) if found.state != "Enabled" => failure(
            format!("is in the state `{}`: nothing can be encrypted with it", found.state),
            format!("enable the key, or set `{setting}` to another"),
        ),
        Some(found) if !found.is_symmetric => failure(
            "is no symmetric key: S3 and SageMaker take no other".to_owned(),
            format!("set `{setting}` to a symmetric key for encryption"),
        ),
        Some(_) => DoctorFinding::ok("kms.key", key, format!("is enabled (`{setting}`)")),
    }
}
