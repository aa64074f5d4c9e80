//! Checks of the roles: of the training jobs, and of the creator of these.

use futures::future::join_all;

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::permissions;
use super::report::DoctorFinding;
use crate::base::arn::Arn;
use crate::base::policy_statement::Facts;
use crate::base::role_trust::{self, ASSUME, TAG_SESSION, Trust};
use crate::cloud::{AccountRole, AccountRoles, DenialReason, PermissionQuestion};
use crate::protocol::session_tag;

const SAGEMAKER: &str = "sagemaker.amazonaws.com";
/// A training job, for conditions on its name.
const A_JOB: &str = "gitlab-doctor";
const SETTLED: &str = "of which only AWS knows whether they hold: `--job` settles it";

/// All findings about roles.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let roles = match installation.connect.roles(&installation.access).await {
        Ok(roles) => roles,
        Err(error) => return vec![DoctorFinding::skipped("role.exists", "", format!("{error:#}"))],
    };
    let creator = installation.settings.aws.creator_role_arn.as_deref();
    let (roles, names) = (&*roles, installation.job_roles());
    let of_creator = async {
        match creator {
            Some(creator) => of_creator((installation, roles), creator, caller).await,
            None => Vec::new(),
        }
    };
    let of_jobs = join_all(names.iter().map(async |role| {
        let found = match find((installation, roles), role, "`job.role_arn` or `allow.roles`").await {
            Ok(found) => found,
            Err(finding) => {
                let waiting = ["role.trust", "role.pass"].map(|id| DoctorFinding::waiting(id, "role.exists"));
                return std::iter::once(finding).chain(waiting).collect();
            }
        };
        let mut findings = of_job(&found, creator, &caller.region);
        if let Some(passes) = creator.or(caller.host.as_deref()) {
            findings.push(pass((installation, roles), role, passes).await);
        }
        findings
    }));
    let (mut findings, of_jobs) = tokio::join!(of_creator, of_jobs);
    findings.extend(of_jobs.concat());
    findings
}

/// The way to the roles.
type Port<'a> = (&'a Installation<'a>, &'a dyn AccountRoles);

async fn find((installation, roles): Port<'_>, arn: &str, setting: &str) -> Result<AccountRole, DoctorFinding> {
    let name = arn.rsplit('/').next().unwrap_or_default();
    match installation.within("IAM", roles.find(name)).await {
        Err(error) => Err(of_error("role.exists", arn, &error)),
        Ok(None) => Err(DoctorFinding::failure(
            "role.exists",
            arn,
            "the account has no such role",
            format!("create it, or correct {setting}"),
        )),
        Ok(Some(role)) if role.arn != arn => Err(DoctorFinding::failure(
            "role.exists",
            arn,
            format!("the role of this name is {}", role.arn),
            format!("write the whole ARN, with the path, in {setting}"),
        )),
        Ok(Some(role)) => Ok(role),
    }
}

async fn of_creator(port: Port<'_>, arn: &str, caller: &CallerSight) -> Vec<DoctorFinding> {
    let role = match find(port, arn, "`aws.creator_role_arn`").await {
        Ok(role) => role,
        Err(finding) => return vec![finding, DoctorFinding::waiting("role.creator", "role.exists")],
    };
    let Some(principal) = &caller.host else {
        return vec![DoctorFinding::skipped("role.creator", arn, "the account's root cannot assume a role")];
    };
    let tags = session_tag::ALL.map(|tag| (format!("aws:RequestTag/{tag}"), tag));
    let facts = of_session(principal, &tags);
    let answers = [ASSUME, TAG_SESSION]
        .map(|action| (action, role_trust::of_caller(&role.trust, (principal, &caller.account), action, &facts)));
    let of_answer =
        |wanted: Trust| answers.iter().filter(move |(_, trust)| *trust == wanted).map(|(action, _)| *action);
    let refused: Vec<_> = of_answer(Trust::Refused).collect();
    vec![if refused.is_empty() && of_answer(Trust::Conditional).next().is_none() {
        DoctorFinding::ok("role.creator", arn, format!("its trust policy lets {principal} assume it with its tags"))
    } else if refused.is_empty() {
        DoctorFinding::skipped(
            "role.creator",
            arn,
            format!("its trust policy has conditions for {principal}, {SETTLED}"),
        )
    } else {
        DoctorFinding::failure(
            "role.creator",
            arn,
            format!("its trust policy does not let {principal} {}: no training job is created", refused.join(" and ")),
            "apply `creator-trust.json` of `sagemaker-executor policy iam` as the trust policy of the role",
        )
    }]
}

/// Facts about a session of the creator's role, as a runner host asks for it.
fn of_session<'a>(principal: &'a str, tags: &'a [(String, &'static str)]) -> Vec<(&'a str, &'a str)> {
    let value = |tag: &str| if tag == session_tag::PROTECTED { "true" } else { A_JOB };
    let of_tags = tags.iter().flat_map(|(key, tag)| [(key.as_str(), value(tag)), ("aws:TagKeys", *tag)]);
    [("aws:PrincipalArn", principal), ("sts:RoleSessionName", A_JOB)].into_iter().chain(of_tags).collect()
}

fn of_job(role: &AccountRole, creator: Option<&str>, region: &str) -> Vec<DoctorFinding> {
    let arn = &role.arn;
    let mut findings = vec![DoctorFinding::ok("role.exists", arn, "is there")];
    let change = "apply `training-job-trust.json` of `sagemaker-executor policy iam` as the trust policy of the role";
    let place = Arn::parse(arn).map(|arn| (arn.partition, arn.account)).unwrap_or_default();
    let source = format!("arn:{}:sagemaker:{region}:{}:training-job/{A_JOB}", place.0, place.1);
    let facts: &Facts<'_> = &[("aws:SourceAccount", place.1), ("aws:SourceArn", &source)];
    findings.push(match role_trust::of_service_with(&role.trust, SAGEMAKER, ASSUME, facts) {
        Trust::Given => DoctorFinding::ok("role.trust", arn, "SageMaker may assume it"),
        Trust::Conditional => DoctorFinding::skipped(
            "role.trust",
            arn,
            format!("its trust policy has conditions for SageMaker, {SETTLED}"),
        ),
        Trust::Refused if role_trust::of_service(&role.trust, SAGEMAKER, ASSUME) != Trust::Refused => DoctorFinding::failure(
            "role.trust",
            arn,
            format!(
                "its trust policy lets SageMaker in for others alone: its conditions on `aws:SourceAccount` or `aws:SourceArn` do not \
                 hold for {source}"
            ),
            change,
        ),
        Trust::Refused => DoctorFinding::failure(
            "role.trust",
            arn,
            format!("its trust policy does not let `{SAGEMAKER}` call `{ASSUME}`: no job starts"),
            change,
        ),
    });
    if creator.is_some() {
        findings.push(match role_trust::of_service_with(&role.trust, SAGEMAKER, TAG_SESSION, facts) {
            Trust::Refused => DoctorFinding::failure(
                "role.tags",
                arn,
                format!("its trust policy does not let `{SAGEMAKER}` call `{TAG_SESSION}`: with `aws.creator_role_arn` no job starts"),
                change,
            ),
            Trust::Conditional => {
                let text = format!("its trust policy has conditions for `{TAG_SESSION}`, {SETTLED}");
                DoctorFinding::skipped("role.tags", arn, text)
            }
            Trust::Given => DoctorFinding::ok("role.tags", arn, "SageMaker may give its session tags"),
        });
    }
    findings
}

async fn pass((installation, roles): Port<'_>, arn: &str, by: &str) -> DoctorFinding {
    match installation.within("IAM", roles.may_pass(by, arn)).await {
        Ok(true) => DoctorFinding::ok("role.pass", arn, format!("{by} may pass it to SageMaker")),
        Ok(false) => {
            let why = why_not(installation, arn, by).await;
            let is_creator = installation.settings.aws.creator_role_arn.as_deref() == Some(by);
            let policy = if is_creator { "creator.json" } else { "runner-host.json" };
            let (reason, change) = permissions::advice(&why, policy);
            let text = format!("{by} may not pass it to SageMaker (`iam:PassRole`){reason}");
            let finding = DoctorFinding::failure("role.pass", arn, text, change);
            if why != DenialReason::NoStatement {
                return finding;
            }
            finding.with_statement(serde_json::json!({
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": arn,
                "Condition": {"StringEquals": {"iam:PassedToService": SAGEMAKER}},
            }))
        }
        Err(error) => of_error("role.pass", arn, &error),
    }
}

/// The kind of policy that a role cannot be passed by.
async fn why_not(installation: &Installation<'_>, arn: &str, by: &str) -> DenialReason {
    let service = ("string", vec![SAGEMAKER.to_owned()]);
    let question = PermissionQuestion {
        actions: vec!["iam:PassRole".to_owned()],
        resources: vec![arn.to_owned()],
        context: [("iam:PassedToService".to_owned(), service)].into(),
    };
    let Ok(port) = installation.connect.permissions(&installation.access).await else {
        return DenialReason::NoStatement;
    };
    let denied = installation.within("IAM", port.denied(by, &question)).await.unwrap_or_default();
    denied.into_iter().next().map_or(DenialReason::NoStatement, |denied| denied.why)
}
