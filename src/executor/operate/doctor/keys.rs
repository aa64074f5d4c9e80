//! Checks of the keys of KMS that the operator's file names, and of their policies.

use serde_json::Value;

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::arn::Arn;
use crate::base::policy_statement::{self, Facts, StatementReach};
use crate::cloud::KeySight;

/// A key of the file, and the roles that use it, each with an action.
struct NamedKey<'a> {
    setting: &'static str,
    key: &'a str,
    uses: Vec<(&'a str, &'static str)>,
}

/// The keys of the operator's file.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let port = match installation.connect.encryption_keys(&installation.access).await {
        Ok(port) => port,
        Err(error) => return vec![DoctorFinding::skipped("kms.key", "", format!("{error:#}"))],
    };
    let jobs = installation.job_roles();
    let mut findings = Vec::new();
    for named in named(installation, caller, &jobs) {
        let key = named.key;
        let found = match installation.within("KMS", port.describe(key)).await {
            Ok(found) => found,
            Err(error) => {
                findings.push(of_error("kms.key", key, &error));
                continue;
            }
        };
        findings.push(of_key(named.setting, key, found.as_ref(), &caller.region));
        // An alias has no policy of its own.
        let Some(found) = found else { continue };
        let id = if found.arn.is_empty() { key } else { &found.arn };
        findings.push(match installation.within("KMS", port.policy(id)).await {
            Ok(policy) => of_policy(&named, &policy, &caller.account),
            Err(error) => of_error("kms.policy", key, &error),
        });
    }
    findings
}

fn named<'a>(installation: &'a Installation<'_>, caller: &'a CallerSight, jobs: &'a [String]) -> Vec<NamedKey<'a>> {
    let settings = installation.settings;
    let (host, creator) = (caller.host.as_deref(), settings.aws.creator_role_arn.as_deref());
    let all = |first: Option<&'a str>, action: &'static str, of_jobs: &'static str| {
        let jobs = jobs.iter().map(move |role| (role.as_str(), of_jobs));
        first.map(|role| (role, action)).into_iter().chain(jobs).collect()
    };
    let storage = settings.storage.kms_key_id.as_deref().map(|key| NamedKey {
        setting: "storage.kms_key_id",
        key,
        uses: all(host, "kms:GenerateDataKey", "kms:Decrypt"),
    });
    let volume = settings.job.volume_kms_key_id.as_deref().map(|key| NamedKey {
        setting: "job.volume_kms_key_id",
        key,
        uses: all(creator.or(host), "kms:CreateGrant", "kms:CreateGrant"),
    });
    storage.into_iter().chain(volume).collect()
}

/// A policy that names the account leaves the decision to the policies of IAM.
fn of_policy(of: &NamedKey<'_>, policy: &str, account: &str) -> DoctorFinding {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = policy_statement::statements(&policy);
    let reached = |effect: &str, role: &str, action: &str| {
        let of_effect = statements.iter().filter(|one| one["Effect"] == effect);
        of_effect.map(|one| reach(one, role, account, action)).max().unwrap_or(StatementReach::No)
    };
    let (setting, key) = (of.setting, of.key);
    let change =
        format!("apply the key policy of `sagemaker-executor policy iam` to the key, or set `{setting}` to another");
    for (role, action) in &of.uses {
        if reached("Deny", role, action) == StatementReach::Yes {
            let text = format!("a statement of its policy denies {role} {action}");
            return DoctorFinding::failure("kms.policy", key, text, change);
        }
        if reached("Allow", role, action) == StatementReach::No {
            let text = format!("its policy lets neither {role} nor the policies of the account decide on {action}");
            return DoctorFinding::failure("kms.policy", key, text, change);
        }
    }
    DoctorFinding::ok("kms.policy", key, "its policy lets the roles use it, or leaves it to the policies of IAM")
}

fn reach(statement: &Value, role: &str, account: &str, action: &str) -> StatementReach {
    if !policy_statement::is_about(statement, action) {
        return StatementReach::No;
    }
    let named = policy_statement::principals(statement, role, account);
    if named != StatementReach::Yes {
        return named;
    }
    let facts: &Facts<'_> =
        &[("aws:PrincipalArn", role), ("aws:PrincipalAccount", account), ("kms:CallerAccount", account)];
    policy_statement::conditions(statement, facts)
}

/// `true` for the id of a key, an ARN, or an alias with its prefix.
fn is_id(key: &str) -> bool {
    let is_uuid = key.len() == 36 && key.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    is_uuid || key.starts_with("mrk-") || key.contains([':', '/'])
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
        None if !is_id(key) => failure(
            "does not exist".to_owned(),
            format!("set `{setting}` to the id or ARN of a key in {region}; an alias is written `alias/{key}`"),
        ),
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
