//! `AssumeRoleWithWebIdentity`: a session of a role for the bearer of an identity provider's token.

use std::borrow::Cow;

use super::assume_role::{check_duration, duration, invalid, issued, session_name, session_policy};
use super::published;
use super::token::{self, IdToken};
use crate::authorization::{NeededAction, RoleSession, account_of};
use crate::caller::Caller;
use crate::clock;
use crate::config::ProviderKeys;
use crate::protocol::{ApiError, escape_xml};
use crate::services::form::Form;
use crate::shared::Shared;
use crate::store::Store;

/// Its requests have no signature: the token proves the caller.
pub(super) const OPERATION: &str = "AssumeRoleWithWebIdentity";

/// Begins a session; the text is the result in XML.
pub(super) fn assume_role(shared: &Shared, store: &Store, caller: &Caller, form: &Form) -> Result<String, ApiError> {
    let member = |name: &str, shown: &str| form.text(name).ok_or_else(|| invalid(shown, "", "Member must not be null"));
    let arn = member("RoleArn", "roleArn")?;
    let text = member("WebIdentityToken", "webIdentityToken")?;
    let (name, seconds) = (session_name(form)?, duration(form)?);
    let token = IdToken::parse(text)?;
    let issuer = token.issuer()?;
    let keys = shared.config.oidc.get(issuer).ok_or_else(|| {
        token::invalid(&format!("No OpenIDConnect provider found in your account for https://{issuer}"))
    })?;
    let partition = arn.split(':').nth(1).unwrap_or_default();
    let jwks = match keys {
        ProviderKeys::Given(jwks) => Cow::Borrowed(jwks),
        ProviderKeys::Published { bucket, prefix } => Cow::Owned(
            published::keys((shared, store), issuer, partition, (bucket, prefix)).ok_or_else(token::unknown_key)?,
        ),
    };
    let claims = token.verify(&jwks, clock::now_ms() / 1000)?;
    let audiences = &shared.config.oidc_audiences;
    if !audiences.is_empty() && !audiences.contains(&claims.audience) {
        return Err(token::invalid("Incorrect token audience"));
    }
    let refused = || ApiError {
        status: 403,
        ..ApiError::new("AccessDenied", format!("Not authorized to perform sts:{OPERATION}"))
    };
    // Only a trust policy can open a role to a token.
    let role = shared.authority.role(arn).ok_or_else(refused)?;
    // Each account has the same providers.
    let owner = account_of(arn).unwrap_or_default();
    let provider = format!("arn:{partition}:iam::{owner}:oidc-provider/{issuer}");
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
