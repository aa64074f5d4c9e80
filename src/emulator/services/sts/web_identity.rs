//! `AssumeRoleWithWebIdentity`: a session of a role for the bearer of an identity provider's token.

use super::assume_role::{check_duration, duration, invalid, issued, session_name, session_policy};
use super::token::{self, IdToken};
use crate::authorization::{NeededAction, RoleSession, account_of};
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{ApiError, escape_xml};
use crate::services::form::Form;
use crate::shared::Shared;

/// Its requests have no signature: the token proves the caller.
pub(super) const OPERATION: &str = "AssumeRoleWithWebIdentity";

/// Begins a session; the text is the result in XML.
pub(super) fn assume_role(shared: &Shared, caller: &Caller, form: &Form) -> Result<String, ApiError> {
    let member = |name: &str, shown: &str| form.text(name).ok_or_else(|| invalid(shown, "", "Member must not be null"));
    let arn = member("RoleArn", "roleArn")?;
    let text = member("WebIdentityToken", "webIdentityToken")?;
    let (name, seconds) = (session_name(form)?, duration(form)?);
    let token = IdToken::parse(text)?;
    let issuer = token.issuer()?;
    let jwks = shared.config.oidc.get(issuer).ok_or_else(|| {
        token::invalid(&format!("No OpenIDConnect provider found in your account for https://{issuer}"))
    })?;
    let claims = token.verify(jwks, clock::now_ms() / 1000)?;
    let refused = || ApiError {
        status: 403,
        ..ApiError::new("AccessDenied", format!("Not authorized to perform sts:{OPERATION}"))
    };
    // Only a trust policy can open a role to a token.
    let role = shared.authority.role(arn).ok_or_else(refused)?;
    // Each account has the same providers.
    let owner = account_of(arn).unwrap_or_default();
    let provider = format!("arn:aws:iam::{owner}:oidc-provider/{issuer}");
    let needed = NeededAction::new(format!("sts:{OPERATION}"), arn)
        .owned_by(owner)
        .key("sts:RoleSessionName", [name])
        .key(&format!("{issuer}:sub"), [claims.subject.as_str()])
        .key(&format!("{issuer}:aud"), [claims.audience.as_str()])
        .resource_tags("iam", &role.tags);
    if !shared.authority.admits(caller, &provider, role, &needed) {
        return Err(refused());
    }
    check_duration(caller, Some(role), seconds)?;
    let mut session = RoleSession::new(arn, &role.id, name);
    session.policy = session_policy(form)?;
    session.expires_ms = Some(clock::now_ms() + seconds * 1000);
    Ok(format!(
        "{}<SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken><Provider>{}</Provider><Audience>{}</Audience>",
        issued(shared, session)?,
        escape_xml(&claims.subject),
        escape_xml(&provider),
        escape_xml(&claims.audience)
    ))
}
