//! Checks of the credentials, the account and the region.

use std::time::{Duration, SystemTime};

use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::arn::{Arn, partition};
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, CredentialSight};
use crate::config::settings::Settings;

/// Credentials that end so soon are told.
const SOON: Duration = Duration::from_hours(12);
/// Part of an error that the clock of the host is the reason of.
const CLOCK: &str = "set the clock of the host";

const LONGEST_URL: usize = 200;
const GIVE: &str = "give the host an instance profile with the role of the runner hosts, or renew the keys in the environment of the runner's service";
const REACH: &str = "look at the host's way to AWS: DNS, routes, proxy, security groups, `aws.ca_bundle`; in a VPC, endpoints for STS, S3 and SageMaker";

/// The identity behind the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallerSight {
    pub(super) arn: String,
    pub(super) account: String,
    /// The user, or the role of the session; `None` for the account's root.
    pub(super) principal: Option<String>,
    /// The user or role of the runner hosts: `iam.host_role_arn`, else that of the caller.
    pub(super) host: Option<String>,
    pub(super) region: String,
}

/// A call that failed, as a finding. What `doctor` itself may not do, or could not ask, is no mistake of the installation.
pub(super) fn of_error(id: &'static str, subject: &str, error: &CloudError) -> DoctorFinding {
    match error.kind {
        CloudErrorKind::Denied | CloudErrorKind::Unauthenticated if error.message.contains(CLOCK) => {
            DoctorFinding::skipped(id, subject, "AWS refuses the time of this host; see `host.clock`")
        }
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

/// A service without which no job runs.
pub(super) fn of_needed(id: &'static str, subject: &str, error: &CloudError) -> DoctorFinding {
    if error.kind == CloudErrorKind::Transient {
        return DoctorFinding::failure(id, subject, error.to_string(), REACH);
    }
    of_error(id, subject, error)
}

/// A call without which no other can be made: its error fails the installation, whatever it is.
fn refused(id: &'static str, subject: &str, error: &CloudError) -> DoctorFinding {
    let is_absent = error.message.contains("credentials") && error.kind.may_pass();
    let change = match error.kind {
        _ if error.message.contains(CLOCK) => "set the clock, and let chrony or systemd-timesyncd keep it",
        CloudErrorKind::Denied | CloudErrorKind::Unauthenticated => GIVE,
        _ if is_absent => {
            "give the host an instance profile with the role of the runner hosts, or correct `AWS_PROFILE` and the profile's source of credentials"
        }
        kind if kind.may_pass() => REACH,
        _ => "correct `aws.region` and `aws.endpoint_url`: what answers there is not AWS",
    };
    DoctorFinding::failure(id, subject, error.to_string(), change)
}

/// Names the place that all requests go to in place of AWS, if the settings have one.
fn of_place(mut finding: DoctorFinding, settings: &Settings) -> DoctorFinding {
    if let (Some(url), Some(change)) = (&settings.aws.endpoint_url, &mut finding.change) {
        let place = plain::line(&plain::without_password(url), LONGEST_URL);
        *change = format!(
            "{change}; every request goes to {place}, by `aws.endpoint_url` of the operator's file or `AWS_ENDPOINT_URL`: remove it where AWS itself is meant"
        );
    }
    finding
}

/// Finds the caller; without one no other check of AWS can be made.
pub(super) async fn caller(installation: &Installation<'_>) -> (Option<CallerSight>, Vec<DoctorFinding>) {
    let identity = match installation.within("STS", installation.connect.identity(&installation.access)).await {
        Ok(identity) => identity,
        Err(error) => {
            let text = format!("{error:#}");
            let change = if text.contains("CA bundle") {
                "name a PEM file in `aws.ca_bundle` of the operator's file, or in `AWS_CA_BUNDLE`"
            } else {
                "set `aws.region` in the operator's file"
            };
            return (None, vec![DoctorFinding::failure("aws.credentials", "", text, change)]);
        }
    };
    let arn = match installation.within("STS", identity.arn()).await {
        Ok(arn) => arn,
        Err(error) => return (None, vec![of_place(refused("aws.credentials", "", &error), installation.settings)]),
    };
    let (credentials, principal) = tokio::join!(
        installation.within("the source of the credentials", identity.credentials()),
        principal(installation, &arn)
    );
    let region = installation.settings.aws.region.clone();
    let region = region.or_else(|| credentials.as_ref().ok().map(|found| found.region.clone())).unwrap_or_default();
    let mut findings =
        vec![DoctorFinding::ok("aws.credentials", &arn, format!("is the caller, in the region {region}"))];
    match &credentials {
        Ok(found) => findings.push(expiry(found, installation.clock.now())),
        Err(error) => findings.push(of_error("aws.expiry", &arn, error)),
    }
    let account = Arn::parse(&arn).map(|arn| arn.account.to_owned()).unwrap_or_default();
    let host = installation.settings.iam.host_role_arn.clone().or_else(|| principal.clone());
    (Some(CallerSight { arn, account, principal, host, region }), findings)
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
            Some(installation.within("IAM", roles.find(name)).await.ok().flatten().map_or(plain, |role| role.arn))
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

#[cfg(test)]
mod tests {
    use super::*;

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
