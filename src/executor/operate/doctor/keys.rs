//! Checks of the keys of KMS that the operator's file names, and of their policies.

use serde_json::Value;

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::arn::{Arn, partition};
use crate::base::policy_statement::{self, StatementReach};
use crate::cloud::KeySight;

/// A key of the file, and the roles that use it, each with an action.
struct NamedKey<'a> {
    setting: &'static str,
    key: &'a str,
    uses: Vec<(&'a str, &'static str)>,
    /// The services that use it in the name of these roles, as `kms:ViaService` names them.
    via: Vec<String>,
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
        // Nobody asks KMS about a key of another region: it knows none.
        if let Some(finding) = of_another_region(named.setting, key, &caller.region) {
            findings.extend([finding, DoctorFinding::waiting("kms.policy", "kms.key")]);
            continue;
        }
        let found = match installation.within("KMS", port.describe(key)).await {
            Ok(found) => found,
            Err(error) => {
                findings.extend([of_error("kms.key", key, &error), DoctorFinding::waiting("kms.policy", "kms.key")]);
                continue;
            }
        };
        findings.push(of_key(named.setting, key, found.as_ref(), &caller.region));
        // An alias has no policy of its own.
        let Some(found) = found else {
            findings.push(DoctorFinding::waiting("kms.policy", "kms.key"));
            continue;
        };
        let id = if found.arn.is_empty() { key } else { &found.arn };
        if let Some(other) = Arn::parse(id).map(|arn| arn.account).filter(|account| *account != caller.account) {
            let text = format!("is a key of the account {other}, whose credentials alone read its policy");
            findings.push(DoctorFinding::skipped("kms.policy", key, text));
            continue;
        }
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
        via: via(&["s3"], &caller.region),
    });
    let volume = settings.job.volume_kms_key_id.as_deref().map(|key| NamedKey {
        setting: "job.volume_kms_key_id",
        key,
        uses: all(creator.or(host), "kms:CreateGrant", "kms:CreateGrant"),
        via: via(&["sagemaker", "ec2"], &caller.region),
    });
    storage.into_iter().chain(volume).collect()
}

/// Values of `kms:ViaService`. For China both domains: which of them KMS compares with is not verified.
fn via(services: &[&str], region: &str) -> Vec<String> {
    let domains: &[&str] =
        if partition(region) == "aws-cn" { &["amazonaws.com.cn", "amazonaws.com"] } else { &["amazonaws.com"] };
    let names = |service| domains.iter().map(move |domain| format!("{service}.{region}.{domain}"));
    services.iter().flat_map(names).collect()
}

/// A policy that names the account leaves the decision to the policies of IAM.
fn of_policy(of: &NamedKey<'_>, policy: &str, account: &str) -> DoctorFinding {
    let (setting, key) = (of.setting, of.key);
    let Ok(policy) = serde_json::from_str::<Value>(policy) else {
        return DoctorFinding::skipped("kms.policy", key, "its policy is not JSON");
    };
    let statements = policy_statement::statements(&policy);
    let reached = |effect: &str, role: &str, action: &str| {
        let of_effect = statements.iter().filter(|one| one["Effect"] == effect);
        of_effect.map(|one| reach(one, (role, account), action, &of.via)).max().unwrap_or(StatementReach::No)
    };
    let mut is_known = true;
    let change =
        format!("apply the key policy of `sagemaker-executor policy iam` to the key, or set `{setting}` to another");
    for (role, action) in &of.uses {
        let (denied, allowed) = (reached("Deny", role, action), reached("Allow", role, action));
        if denied == StatementReach::Yes {
            let text = format!("a statement of its policy denies {role} {action}");
            return DoctorFinding::failure("kms.policy", key, text, change);
        }
        if allowed == StatementReach::No {
            let text = format!("its policy lets neither {role} nor the policies of the account decide on {action}");
            return DoctorFinding::failure("kms.policy", key, text, change);
        }
        is_known &= denied == StatementReach::No && allowed == StatementReach::Yes;
    }
    if !is_known {
        let text =
            "its policy has conditions for the roles, of which only AWS knows whether they hold: `--job` settles it";
        return DoctorFinding::skipped("kms.policy", key, text);
    }
    DoctorFinding::ok("kms.policy", key, "its policy lets the roles use it, or leaves it to the policies of IAM")
}

fn reach(statement: &Value, (role, account): (&str, &str), action: &str, via: &[String]) -> StatementReach {
    if !policy_statement::is_about(statement, action) {
        return StatementReach::No;
    }
    // SageMaker makes grants on behalf of a service of AWS.
    let facts = |via| {
        let of_role: [(&str, &str); 5] = [
            ("aws:PrincipalArn", role),
            ("aws:PrincipalAccount", account),
            ("kms:CallerAccount", account),
            ("kms:GrantIsForAWSResource", "true"),
            ("kms:ViaService", via),
        ];
        policy_statement::conditions(statement, &of_role)
    };
    let each: Vec<StatementReach> = via.iter().map(|via| facts(via.as_str())).collect();
    // A condition that holds for one of the services alone may hold.
    let conditions = match (each.iter().min(), each.iter().max()) {
        (Some(least), Some(most)) if least == most => *least,
        _ => StatementReach::Perhaps,
    };
    policy_statement::principals(statement, role, account).min(conditions)
}

fn of_another_region(setting: &str, key: &str, region: &str) -> Option<DoctorFinding> {
    let there = Arn::parse(key).map(|arn| arn.region).filter(|there| *there != region)?;
    let text = format!("is in the region {there}, and the jobs in {region}");
    Some(DoctorFinding::failure("kms.key", key, text, format!("set `{setting}` to a key of {region}")))
}

/// `true` for the id of a key, an ARN, or an alias with its prefix.
fn is_id(key: &str) -> bool {
    let is_uuid = key.len() == 36 && key.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    is_uuid || key.starts_with("mrk-") || key.contains([':', '/'])
}

fn of_key(setting: &str, key: &str, found: Option<&KeySight>, region: &str) -> DoctorFinding {
    let failure = |text: String, change: String| DoctorFinding::failure("kms.key", key, text, change);
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

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "each row makes its value")]

    use serde_json::json;
    use test_case::test_case;

    use super::*;
    use crate::config::operator_file;
    use crate::iam;
    use crate::operate::doctor::report::CheckVerdict::{self, Failure, Ok, Skipped};

    const HOST: &str = "arn:aws:iam::210987654321:role/host";
    const ACCOUNT: &str = "210987654321";

    fn storage(policy: &str) -> CheckVerdict {
        let uses = vec![(HOST, "kms:GenerateDataKey")];
        let of = NamedKey { setting: "storage.kms_key_id", key: "k", uses, via: via(&["s3"], "eu-west-1") };
        of_policy(&of, policy, ACCOUNT).verdict
    }

    fn allow(condition: Value) -> Value {
        json!({"Effect": "Allow", "Principal": {"AWS": HOST}, "Action": "kms:*", "Resource": "*", "Condition": condition})
    }

    #[test_case(json!([allow(Value::Null)]) => Ok; "allowed")]
    #[test_case(json!([allow(json!({"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}))]) => Ok; "by S3")]
    #[test_case(json!([allow(json!({"StringEquals": {"kms:ViaService": "rds.eu-west-1.amazonaws.com"}}))]) => Failure; "by another service")]
    #[test_case(json!([allow(json!({"StringEquals": {"aws:SourceVpce": "vpce-1"}}))]) => Skipped; "on a condition that nobody here knows")]
    #[test_case(json!([allow(Value::Null), {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*", "Condition": {"Bool": {"a:b": "1"}}}]) => Skipped; "denied on such a condition")]
    #[test_case(json!([allow(Value::Null), {"Effect": "Deny", "NotPrincipal": {"AWS": "1"}, "Action": "kms:*", "Resource": "*", "Condition": {"StringEquals": {"kms:CallerAccount": "1"}}}]) => Ok; "denied to another account")]
    fn a_policy_of_a_key_is_judged(statements: Value) -> CheckVerdict {
        storage(&json!({ "Statement": statements }).to_string())
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_not_judged() {
        assert_eq!(storage("{"), Skipped);
    }

    #[test]
    fn one_service_of_several_decides_nothing() {
        let condition = json!({"StringEquals": {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"}});
        let of = |services: &[&str]| {
            reach(&allow(condition.clone()), (HOST, ACCOUNT), "kms:CreateGrant", &via(services, "eu-west-1"))
        };
        assert_eq!(of(&["sagemaker", "ec2"]), StatementReach::Perhaps);
        assert_eq!((of(&["ec2"]), of(&["sagemaker"])), (StatementReach::Yes, StatementReach::No));
    }

    /// The policies of `policy iam` themselves leave nothing open.
    #[test_case("eu-west-1", "aws"; "commercial regions")]
    #[test_case("cn-north-1", "aws-cn"; "China")]
    fn the_generated_policies_are_whole(region: &str, partition: &str) {
        let (host, job) =
            (HOST.replace(":aws:", &format!(":{partition}:")), format!("arn:{partition}:iam::{ACCOUNT}:role/train"));
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let text = format!(
            "[aws]\nregion = {region:?}\n[storage]\nbucket = \"bucket\"\nkms_key_id = {id:?}\n[job]\nrole_arn = {job:?}\n\
             volume_kms_key_id = \"2234abcd-12ab-34cd-56ef-1234567890ab\"\n[iam]\nhost_role_arn = {host:?}\n"
        );
        let settings = operator_file::parse(&text).unwrap();
        let policies = iam::policies(&settings).unwrap();
        let of = |file: &str, actions: [&'static str; 2], services: &[&str]| {
            let uses = vec![(host.as_str(), actions[0]), (job.as_str(), actions[1])];
            let of = NamedKey { setting: "", key: id, uses, via: via(services, region) };
            of_policy(&of, &serde_json::to_string(&policies[file]).unwrap(), ACCOUNT)
        };
        let storage = of("storage-key-policy.json", ["kms:GenerateDataKey", "kms:Decrypt"], &["s3"]);
        let volume = of("volume-key-policy.json", ["kms:CreateGrant"; 2], &["sagemaker", "ec2"]);
        assert_eq!((storage.verdict, volume.verdict), (Ok, Ok), "{storage:?} {volume:?}");
    }
}
