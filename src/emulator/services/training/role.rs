//! The execution role of a job: whether `SageMaker` may assume it, and the session that the job gets.

use serde_json::Value;

use super::state::Training;
use crate::authorization::{Authority, IamEntity, NeededAction, RoleSession, SAGEMAKER};
use crate::caller::Caller;
use crate::iam::{Principal, Question, Verdict, trusts};
use crate::protocol::{ApiError, text};
use crate::tags::TagMap;

/// Name of the sessions in which jobs run.
const SESSION: &str = "SageMaker";
/// Id of roles when no account was given.
const UNKNOWN_ID: &str = "AROAEMULATOR";

/// The session of the role that a request names, or the refusal of the request.
pub(super) fn execution_role(
    training: &Training,
    request: &Value,
    caller: &Caller,
    job_arn: &str,
) -> Result<RoleSession, ApiError> {
    let chains = request["SessionChainingConfig"]["EnableSessionTagChaining"] == true;
    // The tags of the caller's session are handed on, not those of its role.
    let tags = caller.identity.session().filter(|_| chains).map(|session| session.tags.clone()).unwrap_or_default();
    let role = text(request, "RoleArn").unwrap_or_default();
    let session = role_session(&training.shared.authority, role, caller, tags, job_arn)?;
    Ok(RoleSession { job: text(request, "TrainingJobName").map(str::to_owned), ..session })
}

/// A session of a role in which `SageMaker` acts for a resource of the caller, or the refusal of the request.
pub(crate) fn role_session(
    authority: &Authority,
    arn: &str,
    caller: &Caller,
    tags: TagMap,
    for_arn: &str,
) -> Result<RoleSession, ApiError> {
    if arn.split(':').nth(4) != Some(caller.account.as_str()) {
        return Err(ApiError::new("AccessDeniedException", "Cross-account pass role is not allowed."));
    }
    let mut id = UNKNOWN_ID;
    if !authority.accounts().is_empty() {
        let role = authority.role(arn).filter(|role| is_trusting(role, caller, &tags, for_arn));
        let role = role.ok_or_else(|| {
            ApiError::validation(format!(
                "Could not assume role {arn}. Please ensure that the role exists and allows principal \
                 'sagemaker.amazonaws.com' to assume the role."
            ))
        })?;
        id = &role.id;
    }
    Ok(RoleSession { tags, ..RoleSession::new(arn, id, SESSION) })
}

/// Whether the role's trust policy lets `SageMaker` assume it for this job, with these tags.
fn is_trusting(role: &IamEntity, caller: &Caller, tags: &TagMap, job_arn: &str) -> bool {
    let sagemaker = Principal { arn: SAGEMAKER, role_arn: None, account: &caller.account, service: Some(SAGEMAKER) };
    let actions = ["sts:AssumeRole", "sts:TagSession"].into_iter().take(if tags.is_empty() { 1 } else { 2 });
    actions.into_iter().all(|action| {
        let needed = NeededAction::new(action, &role.arn)
            .key("aws:SourceArn", [job_arn])
            .key("aws:SourceAccount", [caller.account.as_str()])
            .key("sts:RoleSessionName", [SESSION])
            .request_tags(tags);
        let question = Question { action, resource: &role.arn, keys: &needed.keys };
        role.trust.as_ref().is_some_and(|trust| trusts(trust, &sagemaker, &question) == Verdict::Allowed)
    })
}
