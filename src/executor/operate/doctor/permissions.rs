//! Checks of what the roles may do: each statement of the generated policies, asked of IAM's simulator.

use futures::future::join_all;
use serde_json::Value;

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::questions::{self, AskedStatement};
use super::report::DoctorFinding;
use crate::cloud::{CloudError, DenialReason, DeniedAction, PermissionQuestion, Permissions};
use crate::iam;

/// Statements of the training role without which jobs still run.
const SPARED: [&str; 4] = ["InstanceMetrics", "RegistryLogin", "Checkpoints", "NamesOfCheckpoints"];
/// Most values of one condition that are asked one by one.
const MOST_VALUES: usize = 30;

/// One role and the policy that it should have.
struct AskedRole<'a> {
    id: &'static str,
    role: &'a str,
    /// The name among the generated policies.
    policy: &'static str,
}

/// All findings about permissions: of the runner hosts, of the creator, of the training jobs.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let Some(host) = &caller.host else {
        let text = "is the account's root, which has no policies";
        let change = "give the host a role of its own: `policy iam` makes its policy";
        let root = DoctorFinding::warning("aws.actions", &caller.arn, text, change);
        return vec![root, DoctorFinding::waiting("role.permissions", "aws.actions")];
    };
    let mut settings = installation.settings.clone();
    settings.iam.host_role_arn.get_or_insert_with(|| host.clone());
    settings.aws.region.get_or_insert_with(|| caller.region.clone());
    let policies = match iam::policies(&settings) {
        Ok(policies) => policies,
        Err(failure) => return vec![DoctorFinding::skipped("aws.actions", host, failure.message())],
    };
    let port = match installation.connect.permissions(&installation.access).await {
        Ok(port) => port,
        Err(error) => return vec![DoctorFinding::skipped("aws.actions", host, format!("{error:#}"))],
    };
    let (roles, creator) = (installation.job_roles(), settings.aws.creator_role_arn.as_deref());
    let mut asked = vec![AskedRole { id: "aws.actions", role: host, policy: "runner-host.json" }];
    asked.extend(creator.map(|role| AskedRole { id: "aws.actions", role, policy: "creator.json" }));
    asked.extend(roles.iter().map(|role| AskedRole { id: "role.permissions", role, policy: "training-job.json" }));
    let (port, policies) = (&*port, &policies);
    let findings = asked.iter().map(async |asked| {
        let policy =
            policies.get(asked.policy).and_then(|policy| serde_json::to_value(policy).ok()).unwrap_or_default();
        of_role(installation, port, asked, &policy).await
    });
    join_all(findings).await.concat()
}

async fn of_role(
    installation: &Installation<'_>,
    port: &dyn Permissions,
    asked: &AskedRole<'_>,
    policy: &Value,
) -> Vec<DoctorFinding> {
    let statements = questions::of_policy(policy);
    let findings = statements.iter().map(async |one| {
        let answers = one.questions.iter().map(|question| answer(installation, port, asked.role, question));
        let answer: Result<Vec<Vec<_>>, _> = join_all(answers).await.into_iter().collect();
        of_statement(asked, one, answer.map(|denied| denied.concat()))
    });
    let mut findings = join_all(findings).await.concat();
    // One line tells that nobody could ask, or that there is no such role.
    findings.dedup();
    findings
}

/// Denied actions, each with the value of a condition that it is denied for, if one alone is.
async fn answer(
    installation: &Installation<'_>,
    port: &dyn Permissions,
    role: &str,
    question: &PermissionQuestion,
) -> Result<Vec<(DeniedAction, Option<String>)>, CloudError> {
    let denied = installation.within("IAM", port.denied(role, question)).await?;
    let single = if denied.is_empty() { Vec::new() } else { questions::one_by_one(question) };
    let single = single.iter().take(MOST_VALUES).map(async |(value, question)| {
        let denied = installation.within("IAM", port.denied(role, question)).await?;
        Ok::<_, CloudError>((value, !denied.is_empty()))
    });
    // Without all answers no value is known to be the reason.
    let single: Vec<_> = join_all(single).await.into_iter().collect::<Result<_, _>>().unwrap_or_default();
    let values: Vec<_> = single.iter().filter(|(_, is_denied)| *is_denied).map(|(value, _)| value.as_str()).collect();
    // All values are denied: they are not the reason.
    let values = (!values.is_empty() && values.len() < single.len()).then(|| values.join(", "));
    Ok(denied.into_iter().map(|denied| (denied, values.clone())).collect())
}

fn of_statement(
    asked: &AskedRole<'_>,
    of: &AskedStatement,
    answer: Result<Vec<(DeniedAction, Option<String>)>, CloudError>,
) -> Vec<DoctorFinding> {
    let (id, role) = (asked.id, asked.role);
    let name = of.statement["Sid"].as_str().unwrap_or_default();
    let denied = match answer {
        Ok(denied) => denied,
        Err(error) => return vec![of_error(id, role, &error)],
    };
    if denied.is_empty() {
        let mut actions: Vec<_> =
            of.questions.iter().flat_map(|question| &question.actions).map(String::as_str).collect();
        actions.sort_unstable();
        actions.dedup();
        return vec![DoctorFinding::ok(id, role, format!("may do {} ({name})", actions.join(", ")))];
    }
    // One finding for each reason: what mends one leaves the others.
    let mut reasons: Vec<&DenialReason> = Vec::new();
    for (one, _) in &denied {
        if !reasons.contains(&&one.why) {
            reasons.push(&one.why);
        }
    }
    let finding = |reason: &DenialReason| {
        let of_reason = denied.iter().filter(|(denied, _)| denied.why == *reason);
        let mut pairs: Vec<_> = of_reason
            .map(|(denied, value)| {
                let value = value.as_ref().map(|value| format!(" with {value}")).unwrap_or_default();
                format!("{} on {}{value}", denied.action, denied.resource)
            })
            .collect();
        pairs.dedup();
        let (why, change) = advice(reason, asked.policy);
        let text = format!("may not {}{why}", pairs.join(", "));
        let finding = if id == "role.permissions" && SPARED.contains(&name) {
            DoctorFinding::warning(id, role, text, change)
        } else {
            DoctorFinding::failure(id, role, text, change)
        };
        // A statement that allows something mends no denial.
        if *reason == DenialReason::NoStatement { finding.with_statement(of.statement.clone()) } else { finding }
    };
    reasons.into_iter().map(finding).collect()
}

/// The reason for the text, and what to change.
pub(super) fn advice(why: &DenialReason, policy: &str) -> (String, String) {
    match why {
        DenialReason::NoStatement => {
            let change = format!(
                "add the statement to the policy of this user or role; `{policy}` of `policy iam` is the whole policy"
            );
            (String::new(), change)
        }
        DenialReason::Statement { policies } => {
            let names = if policies.is_empty() { "its policies".to_owned() } else { policies.join(", ") };
            let change = format!(
                "remove or narrow the statement with `\"Effect\": \"Deny\"` in {names}: it wins over all that allow"
            );
            (format!(": a statement of {names} denies it"), change)
        }
        DenialReason::Boundary => {
            let change = format!(
                "add the actions to the permissions boundary of this user or role, as `{policy}` of `policy iam` has them"
            );
            (": its permissions boundary does not allow it".to_owned(), change)
        }
        DenialReason::Organization => {
            let change = "ask who manages the organization for an exception in its service control policies (SCP, RCP)";
            (": a policy of the organization does not allow it".to_owned(), change.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_reason_of_a_denial_is_told() {
        let denied =
            |action: &str, why| (DeniedAction { action: action.to_owned(), resource: "*".to_owned(), why }, None);
        let asked = AskedRole { id: "aws.actions", role: "r", policy: "runner-host.json" };
        let of = AskedStatement { statement: json!({"Sid": "TrainingJobs"}), questions: Vec::new() };
        let answer = vec![
            denied("s3:GetObject", DenialReason::NoStatement),
            denied("s3:PutObject", DenialReason::Organization),
            denied("s3:ListBucket", DenialReason::NoStatement),
        ];
        let findings = of_statement(&asked, &of, Ok(answer));
        let [missing, of_organization] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(missing.text, "may not s3:GetObject on *, s3:ListBucket on *");
        assert!(missing.statement.is_some() && of_organization.statement.is_none());
        assert!(of_organization.text.starts_with("may not s3:PutObject on *:"), "{}", of_organization.text);
    }
}
