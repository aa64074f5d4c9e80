//! The operations on secrets as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::records::{CURRENT, Secret, SecretVault, description, invalid, not_found, sent};
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};
use crate::secret_names::secret_arn;
use crate::tags::{check_tags, tag_map};

/// Days between the request and the deletion.
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;
/// Entries of a page when the request does not say how many.
const PAGE: usize = 100;

pub(super) fn create(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    let name = text(request, "Name").unwrap_or_default();
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&byte)) {
        let message =
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!";
        return Err(ApiError::validation(message));
    }
    let arn = secret_arn(name, caller);
    let value = sent(request)?;
    let mut all = vault.secrets();
    match all.get(&arn) {
        Some(secret) if secret.deleted_ms.is_some() => {
            return Err(invalid(
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
            ));
        }
        Some(_) => {
            let message = format!("The operation failed because the secret {name} already exists.");
            return Err(ApiError::new("ResourceExistsException", message));
        }
        None => {}
    }
    let now = clock::now_ms();
    let mut secret = Secret {
        name: name.to_owned(),
        description: text(request, "Description").map(str::to_owned),
        kms_key: text(request, "KmsKeyId").map(str::to_owned),
        versions: BTreeMap::new(),
        created_ms: now,
        changed_ms: now,
        deleted_ms: None,
        policy: None,
    };
    let mut answer = json!({"ARN": arn, "Name": name});
    if let Some(value) = value {
        let id = token(vault, request);
        answer["VersionId"] = json!(secret.add(id, value, &[CURRENT.to_owned()])?);
    }
    vault.shared.tags.create(&arn, tag_map(request.get("Tags")));
    all.insert(arn, secret);
    Ok(Some(answer))
}

/// The id of a new version: the request's token.
pub(super) fn token(vault: &SecretVault, request: &Value) -> String {
    text(request, "ClientRequestToken").map_or_else(|| vault.shared.next_id(), str::to_owned)
}

pub(super) fn update(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let value = sent(request)?;
    let id = token(vault, request);
    vault.with_usable(request, caller, |arn, secret| {
        let change = |member: &str, known: &mut Option<String>| {
            if let Some(new) = text(request, member) {
                *known = Some(new.to_owned());
            }
        };
        change("Description", &mut secret.description);
        change("KmsKeyId", &mut secret.kms_key);
        secret.changed_ms = clock::now_ms();
        let mut answer = json!({"ARN": arn, "Name": secret.name});
        if let Some(value) = value {
            answer["VersionId"] = json!(secret.add(id, value, &[CURRENT.to_owned()])?);
        }
        Ok(Some(answer))
    })
}

pub(super) fn delete(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let is_forced = request["ForceDeleteWithoutRecovery"] == true;
    let days = request["RecoveryWindowInDays"].as_u64();
    if is_forced && days.is_some() {
        let message = "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.";
        return Err(ApiError::new("InvalidParameterException", message));
    }
    if days.is_some_and(|days| !(7..=30).contains(&days)) {
        let message = "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).";
        return Err(ApiError::new("InvalidParameterException", message));
    }
    let after = if is_forced { 0 } else { days.unwrap_or(DAYS) * DAY_MS };
    let at = clock::now_ms() + after;
    vault.with_usable(request, caller, |arn, secret| {
        secret.deleted_ms = Some(at);
        Ok(Some(json!({"ARN": arn, "Name": secret.name, "DeletionDate": epoch_seconds(at)})))
    })
}

pub(super) fn restore(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    vault.with(request, caller, |arn, secret| {
        secret.deleted_ms = None;
        Ok(Some(json!({"ARN": arn, "Name": secret.name})))
    })
}

pub(super) fn describe(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    vault.with(request, caller, |arn, secret| Ok(Some(description(vault, arn, secret, "VersionIdsToStages"))))
}

/// Secrets of the caller's account and region, oldest first.
pub(super) fn list(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let all = vault.secrets();
    let mut own = selected(vault, &all, request, caller);
    own.retain(|(_, secret)| secret.deleted_ms.is_none() || request["IncludePlannedDeletion"] == true);
    own.sort_by_key(|(_, secret)| secret.created_ms);
    if text(request, "SortOrder") == Some("desc") {
        own.reverse();
    }
    let listed = own.into_iter().map(|(arn, secret)| description(vault, arn, secret, "SecretVersionsToStages"));
    page(request, "SecretList", "secrets", listed.collect())
}

/// The secrets of the caller's account and region that the filters of a request select.
pub(super) fn selected<'a>(
    vault: &SecretVault,
    all: &'a BTreeMap<String, Secret>,
    request: &Value,
    caller: &Caller,
) -> Vec<(&'a String, &'a Secret)> {
    let place = secret_arn("", caller);
    let place = place.rsplit_once(":secret:").map_or("", |(place, _)| place);
    let own = all.iter().filter(|(arn, _)| arn.starts_with(&format!("{place}:secret:")));
    own.filter(|(arn, secret)| is_selected(vault, arn, secret, &request["Filters"])).collect()
}

/// All filters must hold, and of the values of one any. A value is compared with the beginning; `!` before it negates.
fn is_selected(vault: &SecretVault, arn: &str, secret: &Secret, filters: &Value) -> bool {
    let tags = vault.shared.tags.with(arn, |one| one.tags.clone()).unwrap_or_default();
    filters.as_array().into_iter().flatten().all(|filter| {
        let texts: Vec<String> = match text(filter, "Key") {
            Some("name") => vec![secret.name.clone()],
            Some("description") => secret.description.clone().into_iter().collect(),
            Some("tag-key") => tags.keys().cloned().collect(),
            Some("tag-value") => tags.values().cloned().collect(),
            Some("all") => std::iter::once(secret.name.clone())
                .chain(secret.description.clone())
                .chain(tags.clone().into_iter().flat_map(|(key, value)| [key, value]))
                .collect(),
            _ => Vec::new(),
        };
        filter["Values"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|value| {
            let (wanted, start) = value.strip_prefix('!').map_or((true, value), |start| (false, start));
            texts.iter().any(|text| text.starts_with(start)) == wanted
        })
    })
}

/// The page of a list that a request asks for.
pub(super) fn page(request: &Value, member: &str, kind: &str, all: Vec<Value>) -> Answer {
    let limit = request["MaxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let wrong = || ApiError::new("InvalidNextTokenException", "The NextToken value is invalid.");
    let (shown, next) = cut(text(request, "NextToken"), limit, kind, all).ok_or_else(wrong)?;
    let mut answer = json!({member: shown});
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(Some(answer))
}

/// The ARN of a secret that exists.
pub(super) fn known(vault: &SecretVault, request: &Value, caller: &Caller) -> Result<String, ApiError> {
    let arn = secret_arn(text(request, "SecretId").unwrap_or_default(), caller);
    if vault.secrets().contains_key(&arn) { Ok(arn) } else { Err(not_found()) }
}
