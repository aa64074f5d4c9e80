//! The service role of a project: whether CodeBuild may assume it, and the session in which its builds run.

use crate::authorization::{Authority, NeededAction, RoleSession};
use crate::caller::Caller;
use crate::iam::{Principal, Question, Verdict, trusts};
use crate::protocol::ApiError;

use super::records::invalid;

/// The service that runs builds.
const CODEBUILD: &str = "codebuild.amazonaws.com";
/// Id of roles when no account was given.
const UNKNOWN_ID: &str = "AROAEMULATOR";

/// A session of the role for a project or a build of the caller, or the refusal of the request.
pub(super) fn service_role(
    authority: &Authority,
    arn: &str,
    caller: &Caller,
    for_arn: &str,
    session: &str,
) -> Result<RoleSession, ApiError> {
    if arn.split(':').nth(4) != Some(caller.account.as_str()) {
        return Err(invalid("Invalid service role: Service role account ID does not match caller's account"));
    }
    if authority.accounts().is_empty() {
        return Ok(RoleSession::new(arn, UNKNOWN_ID, session));
    }
    let refused = || {
        invalid(format!(
            "CodeBuild is not authorized to perform: sts:AssumeRole on service role. Please verify that: 1) The provided service role exists, 2) The role name is case-sensitive and matches exactly, and 3) The role has the necessary trust policy configured: {arn}"
        ))
    };
    let role = authority.role(arn).ok_or_else(refused)?;
    let codebuild = Principal { arn: CODEBUILD, role_arn: None, account: &caller.account, service: Some(CODEBUILD) };
    let needed = NeededAction::new("sts:AssumeRole", &role.arn)
        .key("aws:SourceArn", [for_arn])
        .key("aws:SourceAccount", [caller.account.as_str()])
        .key("sts:RoleSessionName", [session]);
    let question = Question { action: "sts:AssumeRole", resource: &role.arn, keys: &needed.keys };
    let is_trusting = role.trust.as_ref().is_some_and(|trust| trusts(trust, &codebuild, &question) == Verdict::Allowed);
    if !is_trusting {
        return Err(refused());
    }
    Ok(RoleSession::new(arn, &role.id, session))
}
