//! Checks of the credentials, the account and region, and each action of the policy that the operator's file asks for.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::arn::{Arn, partition};
use crate::cloud::{CloudError, CloudErrorKind, CredentialSight, PermissionQuestion};
use crate::config::settings::Settings;
use crate::iam;

/// Credentials that end so soon are told.
const SOON: Duration = Duration::from_hours(12);
/// Text in place of a wildcard of a policy, for a resource that a policy with the wildcard allows.
const FILLED: &str = "doctor";

/// The identity behind the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallerSight {
    pub(super) arn: String,
    pub(super) account: String,
    /// The user, or the role of the session; `None` for the account's root.
    pub(super) principal: Option<String>,
    pub(super) region: String,
}

/// A call that failed, as a finding. What `doctor` itself may not do, or could not ask, is no mistake of the installation.
pub(super) fn of_error(id: &'static str, subject: &str, error: &CloudError) -> DoctorFinding {
    match error.kind {
        CloudErrorKind::Denied => {
            let (operation, action) = (&error.operation, error.action);
            let text = format!("these credentials may not {operation}; allow them `{action}` for this check");
            DoctorFinding::skipped(id, subject, text)
        }
        CloudErrorKind::Unauthenticated => refused(id, subject, error),
        CloudErrorKind::Invalid | CloudErrorKind::NotFound => {
            let change = "correct the key of the operator's file that names it, by the message of AWS";
            DoctorFinding::failure(id, subject, error.to_string(), change)
        }
        _ => DoctorFinding::skipped(id, subject, error.to_string()),
    }
}

/// A call without which no other can be made: its error fails the installation, whatever it is.
fn refused(id: &'static str, subject: &str, error: &CloudError) -> DoctorFinding {
    let change = if error.kind.may_pass() {
        "look at the host's way to AWS: routes, proxy, security groups, `aws.ca_bundle`; in a VPC, endpoints for STS, S3 and SageMaker"
    } else {
        "give the host an instance profile with the role of the runner hosts, or renew the keys in the environment of the runner's service"
    };
    DoctorFinding::failure(id, subject, error.to_string(), change)
}

/// Finds the caller; without one no other check of AWS can be made.
pub(super) async fn caller(installation: &Installation<'_>) -> (Option<CallerSight>, Vec<DoctorFinding>) {
    let identity = match installation.connect.identity(&installation.access).await {
        Ok(identity) => identity,
        Err(error) => {
            let change = "set `aws.region` in the operator's file; with `aws.ca_bundle`, name a PEM file";
            return (None, vec![DoctorFinding::failure("aws.credentials", "", format!("{error:#}"), change)]);
        }
    };
    let arn = match identity.arn().await {
        Ok(arn) => arn,
        Err(error) => return (None, vec![refused("aws.credentials", "", &error)]),
    };
    let credentials = identity.credentials().await;
    let region = installation.settings.aws.region.clone();
    let region = region.or_else(|| credentials.as_ref().ok().map(|found| found.region.clone())).unwrap_or_default();
    let mut findings =
        vec![DoctorFinding::ok("aws.credentials", &arn, format!("is the caller, in the region {region}"))];
    match &credentials {
        Ok(found) => findings.push(expiry(found, installation.clock.now())),
        Err(error) => findings.push(of_error("aws.expiry", &arn, error)),
    }
    let account = Arn::parse(&arn).map(|arn| arn.account.to_owned()).unwrap_or_default();
    let principal = principal(installation, &arn).await;
    (Some(CallerSight { arn, account, principal, region }), findings)
}

fn expiry(found: &CredentialSight, now: SystemTime) -> DoctorFinding {
    let change = "an instance profile renews itself; so does a profile with `credential_process`, in place of keys in the service's environment";
    let Some(expires) = found.expires else {
        if found.is_session {
            let text = "are those of a session, and nothing tells when it ends or who renews them";
            return DoctorFinding::warning("aws.expiry", "the credentials", text, change);
        }
        return DoctorFinding::ok("aws.expiry", "the credentials", "do not end by themselves");
    };
    match expires.duration_since(now) {
        Err(_) => DoctorFinding::failure("aws.expiry", "the credentials", "have ended", change),
        Ok(left) if left < SOON => DoctorFinding::ok(
            "aws.expiry",
            "the credentials",
            format!("are good for {} minutes, and their source gives new ones", left.as_secs() / 60),
        ),
        Ok(_) => DoctorFinding::ok("aws.expiry", "the credentials", "are good for longer than 12 hours"),
    }
}

/// The user or role whose policies count. The ARN of a session lacks the path of its role.
async fn principal(installation: &Installation<'_>, arn: &str) -> Option<String> {
    let parsed = Arn::parse(arn)?;
    let mut parts = parsed.resource.split('/');
    match (parts.next(), parts.next()) {
        (Some("assumed-role"), Some(name)) => {
            let plain = format!("arn:{}:iam::{}:role/{name}", parsed.partition, parsed.account);
            let roles = installation.connect.roles(&installation.access).await.ok()?;
            Some(roles.find(name).await.ok().flatten().map_or(plain, |role| role.arn))
        }
        (Some("user"), Some(_)) => Some(arn.to_owned()),
        _ => None,
    }
}

/// Account, partition and role, compared with the operator's file.
pub(super) fn place(settings: &Settings, caller: &CallerSight, roles: &[String]) -> Vec<DoctorFinding> {
    let (mut findings, arn) = (Vec::new(), &caller.arn);
    let named = |role: &&String| Arn::parse(role).is_some_and(|role| role.account != caller.account);
    findings.push(match roles.iter().find(named) {
        Some(role) => DoctorFinding::failure(
            "aws.account",
            arn,
            format!("is of the account {}, and the operator's file names {role}", caller.account),
            "take credentials of that account, or correct `job.role_arn`, `allow.roles` and `aws.creator_role_arn`",
        ),
        None => DoctorFinding::ok(
            "aws.account",
            arn,
            format!("is of the account {}, like all roles of the file", caller.account),
        ),
    });
    let (of_region, of_caller) = (partition(&caller.region), Arn::parse(arn).map_or("", |arn| arn.partition));
    // The operator's file is refused when its roles are of another partition than its region.
    findings.push(if of_region == of_caller {
        DoctorFinding::ok("aws.partition", arn, format!("is of the partition {of_region}"))
    } else {
        let text = format!("is of the partition {of_caller}, which has no region {}", caller.region);
        DoctorFinding::failure(
            "aws.partition",
            arn,
            text,
            "correct `aws.region`, or take credentials of that partition",
        )
    });
    if let Some(role) = &settings.iam.host_role_arn {
        findings.push(if caller.principal.as_ref() == Some(role) {
            DoctorFinding::ok("aws.host_role", arn, "is `iam.host_role_arn`")
        } else {
            let text = format!("`iam.host_role_arn` is {role}, and the policies of the bucket and the creator let that role in alone");
            let change = "run `doctor` with the credentials of the runner's service, or correct `iam.host_role_arn` and apply `policy iam` again";
            DoctorFinding::warning("aws.host_role", arn, text, change)
        });
    }
    findings
}

/// Asks for each statement of the runner host's policy whether the caller may do all of it.
pub(super) async fn actions(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let Some(principal) = &caller.principal else {
        let text = "is the account's root, which has no policies";
        let change = "give the host a role of its own: `policy iam` makes its policy";
        return vec![DoctorFinding::warning("aws.actions", &caller.arn, text, change)];
    };
    let mut settings = installation.settings.clone();
    settings.iam.host_role_arn.get_or_insert_with(|| principal.clone());
    settings.aws.region.get_or_insert_with(|| caller.region.clone());
    let policies = match iam::policies(&settings) {
        Ok(policies) => policies,
        Err(failure) => return vec![DoctorFinding::skipped("aws.actions", principal, failure.message())],
    };
    let policy =
        policies.get("runner-host.json").and_then(|policy| serde_json::to_value(policy).ok()).unwrap_or_default();
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    let port = match installation.connect.permissions(&installation.access).await {
        Ok(port) => port,
        Err(error) => return vec![DoctorFinding::skipped("aws.actions", principal, format!("{error:#}"))],
    };
    let questions = statements.into_iter().filter_map(|statement| Some((question(&statement)?, statement)));
    let asked = questions.map(|(question, statement)| {
        let port = &port;
        async move { (port.denied(principal, &question).await, question, statement) }
    });
    let mut findings = Vec::new();
    for (answer, question, statement) in futures::future::join_all(asked).await {
        findings.push(of_statement(principal, &answer, &question, statement));
    }
    findings
}

fn of_statement(
    principal: &str,
    answer: &Result<Vec<(String, String)>, CloudError>,
    question: &PermissionQuestion,
    statement: Value,
) -> DoctorFinding {
    let name = statement["Sid"].as_str().unwrap_or_default().to_owned();
    match answer {
        Err(error) => of_error("aws.actions", &name, error),
        Ok(denied) if denied.is_empty() => {
            DoctorFinding::ok("aws.actions", principal, format!("may do {} ({name})", question.actions.join(", ")))
        }
        Ok(denied) => {
            let pairs: Vec<_> = denied.iter().map(|(action, resource)| format!("{action} on {resource}")).collect();
            let change = "add the statement to the policy of this user or role; `policy iam` writes the whole policy";
            DoctorFinding::failure("aws.actions", principal, format!("may not {}", pairs.join(", ")), change)
                .with_statement(statement)
        }
    }
}

/// A question that a policy with the statement answers with yes: its actions on its resources, with values that its conditions hold for.
pub(super) fn question(statement: &Value) -> Option<PermissionQuestion> {
    if statement["Effect"] != "Allow" {
        return None;
    }
    let mut context = BTreeMap::new();
    for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
        for (key, values) in keys.as_object().into_iter().flatten() {
            let Some(value) = texts(values).into_iter().next().filter(|value| !value.contains("${")) else { continue };
            if let Some(kind) = kind_of(operator) {
                context.entry(key.clone()).or_insert_with(|| (kind, vec![filled(&value)]));
            }
        }
    }
    let resources = texts(&statement["Resource"]).iter().map(|resource| filled(resource)).collect();
    Some(PermissionQuestion { actions: texts(&statement["Action"]), resources, context })
}

/// Type of a condition key, as the simulator names it; `None` for a condition on its absence.
fn kind_of(operator: &str) -> Option<&'static str> {
    let of_list = operator.starts_with("ForAllValues:") || operator.starts_with("ForAnyValue:");
    match operator.split(':').next_back().unwrap_or_default() {
        "Null" => None,
        name if name.starts_with("Numeric") => Some("numeric"),
        name if name.starts_with("Bool") => Some("boolean"),
        _ if of_list => Some("stringList"),
        _ => Some("string"),
    }
}

fn filled(pattern: &str) -> String {
    if pattern == "*" { pattern.to_owned() } else { pattern.replace('*', FILLED).replace('?', "0") }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_fits_the_statement_that_it_is_made_of() {
        let question = question(&json!({
            "Effect": "Allow",
            "Action": ["sagemaker:CreateTrainingJob"],
            "Resource": "arn:aws:sagemaker:eu-west-1:1:training-job/gitlab-*",
            "Condition": {
                "ForAllValues:StringLike": {"sagemaker:InstanceTypes": ["ml.m5.*", "ml.g5.*"]},
                "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": "86400"},
                "Null": {"sagemaker:VpcSubnets": "true"},
                "StringEquals": {"aws:ResourceTag/x": "${aws:PrincipalTag/x}"},
            },
        }))
        .unwrap();
        assert_eq!(question.resources, ["arn:aws:sagemaker:eu-west-1:1:training-job/gitlab-doctor"]);
        let expected = [
            ("sagemaker:InstanceTypes", ("stringList", vec!["ml.m5.doctor".to_owned()])),
            ("sagemaker:MaxRuntimeInSeconds", ("numeric", vec!["86400".to_owned()])),
        ];
        assert_eq!(question.context, expected.map(|(key, value)| (key.to_owned(), value)).into());
        assert_eq!(super::question(&json!({"Effect": "Deny", "Action": "*", "Resource": "*"})), None);
    }

    #[test]
    fn credentials_of_a_session_that_nobody_renews_are_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let sight = |expires, is_session| CredentialSight { expires, is_session, region: String::new() };
        assert!(!expiry(&sight(None, false), now).asks_for_a_change());
        assert!(expiry(&sight(None, true), now).asks_for_a_change());
        assert!(!expiry(&sight(Some(now + Duration::from_hours(1)), true), now).asks_for_a_change());
        assert!(expiry(&sight(Some(now - Duration::from_secs(1)), true), now).asks_for_a_change());
    }
}
