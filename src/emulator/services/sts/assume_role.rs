//! `AssumeRole`: who may assume the role, with which tags, and for how long.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use regex::Regex;
use serde_json::Value;

use crate::authorization::{IamEntity, NeededAction, RoleSession, account_of};
use crate::caller::Caller;
use crate::clock;
use crate::iam::{Document, PolicyKind};
use crate::protocol::{ApiError, escape_xml};
use crate::services::form::{Form, tag_map};
use crate::shared::Shared;

/// The longest session of a role that another role's session begins, in seconds.
const CHAINED_SECONDS: u64 = 3600;
const MOST_TAGS: usize = 50;
/// Id of roles when no account was given.
const UNKNOWN_ID: &str = "AROAEMULATOR";

static SESSION_NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[\w+=,.@-]{2,64}$").expect("the pattern is valid"));
static TAG_TEXT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$").expect("the pattern is valid"));

/// Begins a session; the text is the result in XML.
pub(super) fn assume_role(shared: &Shared, caller: &Caller, form: &Form) -> Result<String, ApiError> {
    let arn = form.text("RoleArn").ok_or_else(|| invalid("roleArn", "", "Member must not be null"))?;
    let name = session_name(form)?;
    let seconds = duration(form)?;
    let tags = session_tags(form)?;
    let transitive = form.list("TransitiveTagKeys");
    let refused = |action: &str| {
        let message = format!("User: {} is not authorized to perform: {action} on resource: {arn}", caller.arn());
        ApiError { status: 403, ..ApiError::new("AccessDenied", message) }
    };
    let authority = &shared.authority;
    let owner = account_of(arn).unwrap_or_default();
    let role = authority.role(arn);
    // Without accounts each role of the emulator's own exists.
    if role.is_none() && (!authority.accounts().is_empty() || owner != caller.account) {
        return Err(refused("sts:AssumeRole"));
    }
    let tagged = !tags.is_empty() || !transitive.is_empty();
    let actions = ["sts:AssumeRole", "sts:TagSession"].into_iter().take(if tagged { 2 } else { 1 });
    for action in actions {
        let mut needed = NeededAction::new(action, arn)
            .owned_by(owner)
            .key("sts:RoleSessionName", [name])
            .request_tags(&tag_map(&tags))
            .resource_tags("iam", &role.map(|role| role.tags.clone()).unwrap_or_default());
        needed.keys.set("sts:TransitiveTagKeys", transitive.clone());
        needed.keys.set("sts:ExternalId", form.text("ExternalId"));
        if !authority.assumes(caller, role, &needed) {
            return Err(refused(action));
        }
    }
    check_duration(caller, role, seconds)?;
    let mut session = RoleSession::new(arn, role.map_or(UNKNOWN_ID, |role| &role.id), name);
    session.tags = tag_map(&tags);
    session.transitive = transitive.iter().map(|key| (*key).to_owned()).collect();
    inherit(&mut session, caller)?;
    session.policy = session_policy(form)?;
    session.expires_ms = Some(clock::now_ms() + seconds * 1000);
    issued(shared, session)
}

/// The result of a session that begins.
pub(super) fn issued(shared: &Shared, session: RoleSession) -> Result<String, ApiError> {
    let expires = UNIX_EPOCH + Duration::from_millis(session.expires_ms.unwrap_or_default());
    let (arn, id) = (session.arn(), format!("{}:{}", session.role_id, session.name));
    let credentials = shared.keys.issue(session);
    let credentials = credentials.map_err(|error| ApiError::new("InternalFailure", format!("{error:#}")))?;
    Ok(format!(
        "<AssumedRoleUser><Arn>{}</Arn><AssumedRoleId>{}</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{}\
         </AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{}</Expiration>\
         </Credentials><PackedPolicySize>1</PackedPolicySize>",
        escape_xml(&arn),
        escape_xml(&id),
        credentials.access_key_id,
        credentials.secret_access_key,
        credentials.session_token.unwrap_or_default(),
        humantime::format_rfc3339_seconds(expires),
    ))
}

pub(super) fn session_name(form: &Form) -> Result<&str, ApiError> {
    let name = form.text("RoleSessionName").unwrap_or_default();
    let constraint = r"Member must satisfy regular expression pattern: [\w+=,.@-]*";
    if SESSION_NAME.is_match(name) { Ok(name) } else { Err(invalid("roleSessionName", name, constraint)) }
}

/// The seconds that are asked for.
pub(super) fn duration(form: &Form) -> Result<u64, ApiError> {
    let Some(text) = form.text("DurationSeconds") else { return Ok(CHAINED_SECONDS) };
    let constraint = "Member must have value between 900 and 43200";
    let seconds = text.parse().ok().filter(|seconds| (900..=43_200).contains(seconds));
    seconds.ok_or_else(|| invalid("durationSeconds", text, constraint))
}

pub(super) fn check_duration(caller: &Caller, role: Option<&IamEntity>, seconds: u64) -> Result<(), ApiError> {
    let fail = |message: &str| Err(ApiError::new("ValidationError", message));
    if caller.identity.session().is_some() && seconds > CHAINED_SECONDS {
        return fail(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        );
    }
    if role.is_some_and(|role| seconds > role.max_session_seconds) {
        return fail("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.");
    }
    Ok(())
}

fn session_tags(form: &Form) -> Result<Vec<(&str, &str)>, ApiError> {
    let tags = form.tags();
    if tags.len() > MOST_TAGS {
        return Err(invalid("tags", "", "Member must have length less than or equal to 50"));
    }
    let mut seen = BTreeSet::new();
    for (key, value) in &tags {
        if !(1..=128).contains(&key.chars().count()) || !TAG_TEXT.is_match(key) {
            return Err(invalid(
                "tags.member.key",
                key,
                "Member must satisfy regular expression pattern and length 1 to 128",
            ));
        }
        if value.chars().count() > 256 || !TAG_TEXT.is_match(value) {
            return Err(invalid(
                "tags.member.value",
                value,
                "Member must satisfy regular expression pattern and length 0 to 256",
            ));
        }
        let refused = |message: &str| Err(ApiError::new("InvalidParameterValue", message));
        if key.to_lowercase().starts_with("aws:") {
            return refused("Tag keys with the prefix aws: are reserved for system use.");
        }
        if !seen.insert(key.to_lowercase()) {
            return refused("Duplicate tag keys found. Please note that Tag keys are case insensitive.");
        }
    }
    Ok(tags)
}

/// Adds the transitive tags of the session that begins this one.
fn inherit(session: &mut RoleSession, caller: &Caller) -> Result<(), ApiError> {
    let Some(before) = caller.identity.session() else { return Ok(()) };
    for key in &before.transitive {
        let Some(value) = before.tags.get(key) else { continue };
        if session.tags.keys().any(|own| own.eq_ignore_ascii_case(key)) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from \
                 the calling session.",
            ));
        }
        session.tags.insert(key.clone(), value.clone());
        session.transitive.insert(key.clone());
    }
    Ok(())
}

pub(super) fn session_policy(form: &Form) -> Result<Option<Arc<Document>>, ApiError> {
    let malformed = |message: String| ApiError::new("MalformedPolicyDocument", message);
    if form.text("PolicyArns.member.1.arn").is_some() {
        return Err(ApiError::new("ValidationError", "PolicyArns is not emulated: send the policy in Policy."));
    }
    let Some(text) = form.text("Policy") else { return Ok(None) };
    let value: Value = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    Document::parse(PolicyKind::Session, &value).map(|policy| Some(Arc::new(policy))).map_err(malformed)
}

pub(super) fn invalid(member: &str, value: &str, constraint: &str) -> ApiError {
    let message = format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    );
    ApiError::new("ValidationError", message)
}
