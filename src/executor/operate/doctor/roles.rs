//! Checks of the roles: of the training jobs, and of the creator of these.

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::base::role_trust::{self, ASSUME, TAG_SESSION, Trust};
use crate::cloud::{AccountRole, AccountRoles};

const SAGEMAKER: &str = "sagemaker.amazonaws.com";

/// All findings about roles.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let roles = match installation.connect.roles(&installation.access).await {
        Ok(roles) => roles,
        Err(error) => return vec![DoctorFinding::skipped("role.exists", "", format!("{error:#}"))],
    };
    let creator = installation.settings.aws.creator_role_arn.as_deref();
    let mut findings = Vec::new();
    if let Some(creator) = creator {
        findings.extend(of_creator(&*roles, creator, caller).await);
    }
    for role in installation.job_roles() {
        let found = match find(&*roles, &role, "`job.role_arn` or `allow.roles`").await {
            Ok(found) => found,
            Err(finding) => {
                let waiting = ["role.trust", "role.pass"].map(|id| DoctorFinding::waiting(id, "role.exists"));
                findings.push(finding);
                findings.extend(waiting);
                continue;
            }
        };
        findings.extend(of_job(&found, creator));
        if let Some(passes) = creator.or(caller.principal.as_deref()) {
            findings.push(pass(&*roles, &role, passes).await);
        }
    }
    findings
}

async fn find(roles: &dyn AccountRoles, arn: &str, setting: &str) -> Result<AccountRole, DoctorFinding> {
    let name = arn.rsplit('/').next().unwrap_or_default();
    match roles.find(name).await {
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

async fn of_creator(roles: &dyn AccountRoles, arn: &str, caller: &CallerSight) -> Vec<DoctorFinding> {
    let role = match find(roles, arn, "`aws.creator_role_arn`").await {
        Ok(role) => role,
        Err(finding) => return vec![finding, DoctorFinding::waiting("role.creator", "role.exists")],
    };
    let Some(principal) = &caller.principal else {
        return vec![DoctorFinding::skipped("role.creator", arn, "the account's root cannot assume a role")];
    };
    let refused = [ASSUME, TAG_SESSION]
        .into_iter()
        .filter(|action| role_trust::of_caller(&role.trust, principal, &caller.account, action) == Trust::Refused);
    let refused: Vec<_> = refused.collect();
    vec![if refused.is_empty() {
        DoctorFinding::ok("role.creator", arn, format!("its trust policy names {principal}"))
    } else {
        DoctorFinding::failure(
            "role.creator",
            arn,
            format!("its trust policy does not let {principal} {}: no training job is created", refused.join(" and ")),
            "apply `creator-trust.json` of `sagemaker-executor policy iam` as the trust policy of the role",
        )
    }]
}

fn of_job(role: &AccountRole, creator: Option<&str>) -> Vec<DoctorFinding> {
    let arn = &role.arn;
    let mut findings = vec![DoctorFinding::ok("role.exists", arn, "is there")];
    let change = "apply `training-job-trust.json` of `sagemaker-executor policy iam` as the trust policy of the role";
    findings.push(match role_trust::of_service(&role.trust, SAGEMAKER, ASSUME) {
        Trust::Given => DoctorFinding::ok("role.trust", arn, "SageMaker may assume it"),
        Trust::Conditional => DoctorFinding::ok(
            "role.trust",
            arn,
            "its trust policy has conditions for SageMaker, which are not evaluated here",
        ),
        Trust::Refused => DoctorFinding::failure(
            "role.trust",
            arn,
            format!("its trust policy does not let `{SAGEMAKER}` call `{ASSUME}`: no job starts"),
            change,
        ),
    });
    if creator.is_some() {
        findings.push(match role_trust::of_service(&role.trust, SAGEMAKER, TAG_SESSION) {
            Trust::Refused => DoctorFinding::failure(
                "role.tags",
                arn,
                format!("its trust policy does not let `{SAGEMAKER}` call `{TAG_SESSION}`: with `aws.creator_role_arn` no job starts"),
                change,
            ),
            _ => DoctorFinding::ok("role.tags", arn, "SageMaker may give its session tags"),
        });
    }
    findings
}

async fn pass(roles: &dyn AccountRoles, arn: &str, by: &str) -> DoctorFinding {
    match roles.may_pass(by, arn).await {
        Ok(true) => DoctorFinding::ok("role.pass", arn, format!("{by} may pass it to SageMaker")),
        Ok(false) => DoctorFinding::failure(
            "role.pass",
            arn,
            format!("{by} may not pass it to SageMaker (`iam:PassRole`)"),
            "add the statement to the policy of that role",
        )
        .with_statement(serde_json::json!({
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": arn,
            "Condition": {"StringEquals": {"iam:PassedToService": SAGEMAKER}},
        })),
        Err(error) => of_error("role.pass", arn, &error),
    }
}
