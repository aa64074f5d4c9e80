//! The operations on the values of a secret, and on their staging labels.

use std::sync::Arc;

use serde_json::{Value, json};

use super::inventory::{page, token};
use super::records::{CURRENT, Secret, SecretVault, invalid, sent};
use crate::caller::Caller;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};

pub(super) fn put(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let missing =
        || ApiError::new("InvalidParameterException", "You must provide either SecretString or SecretBinary.");
    let value = sent(request)?.ok_or_else(missing)?;
    let labels: Vec<String> = match request["VersionStages"].as_array() {
        Some(labels) => labels.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => vec![CURRENT.to_owned()],
    };
    let id = token(vault, request);
    vault.with_usable(request, caller, |arn, secret| {
        // The first value of a secret is the current one.
        let is_first = secret.versions.is_empty() && !labels.iter().any(|label| label == CURRENT);
        let labels: Vec<_> = labels.iter().cloned().chain(is_first.then(|| CURRENT.to_owned())).collect();
        let id = secret.add(id, value, &labels)?;
        let labels = secret.versions.get(&id).map(|version| version.labels.clone());
        Ok(Some(json!({"ARN": arn, "Name": secret.name, "VersionId": id, "VersionStages": labels})))
    })
}

pub(super) fn get(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    vault.with_usable(request, caller, |arn, secret| value_of(arn, secret, request).map(Some))
}

/// A value with its version: that of a label and an id, when the request has them.
pub(super) fn value_of(arn: &str, secret: &Secret, request: &Value) -> Result<Value, ApiError> {
    let (id, label) = (text(request, "VersionId"), text(request, "VersionStage"));
    let current = label.unwrap_or(CURRENT);
    let (found, wanted) = match id {
        Some(id) => (secret.versions.get_key_value(id), format!("VersionId: {id}")),
        None => (secret.labeled(current), format!("staging label: {current}")),
    };
    let (id, version) = found.ok_or_else(|| absent(&wanted))?;
    if label.is_some_and(|label| !version.labels.iter().any(|one| one == label)) {
        return Err(invalid("You provided a VersionStage that is not associated to the provided VersionId."));
    }
    Ok(json!({
        "ARN": arn,
        "Name": secret.name,
        "VersionId": id,
        (version.member): version.value,
        "VersionStages": version.labels,
        "CreatedDate": epoch_seconds(version.created_ms),
    }))
}

fn absent(what: &str) -> ApiError {
    let message = format!("Secrets Manager can't find the specified secret value for {what}");
    ApiError::new("ResourceNotFoundException", message)
}

pub(super) fn list_versions(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let (arn, name, versions) = vault.with(request, caller, |arn, secret| {
        let shown = secret
            .versions
            .iter()
            .filter(|(_, version)| !version.labels.is_empty() || request["IncludeDeprecated"] == true);
        let versions = shown.map(|(id, version)| {
            let created = epoch_seconds(version.created_ms);
            json!({"VersionId": id, "VersionStages": version.labels, "CreatedDate": created})
        });
        Ok((arn.to_owned(), secret.name.clone(), versions.collect()))
    })?;
    let mut answer = page(request, "Versions", "versions", versions)?.unwrap_or_default();
    (answer["ARN"], answer["Name"]) = (json!(arn), json!(name));
    Ok(Some(answer))
}

pub(super) fn move_label(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let label = text(request, "VersionStage").unwrap_or_default();
    let (from, to) = (text(request, "RemoveFromVersionId"), text(request, "MoveToVersionId"));
    vault.with_usable(request, caller, |arn, secret| {
        let holder = secret.labeled(label).map(|(id, _)| id.clone());
        if holder.is_some() && from != holder.as_deref() && to != holder.as_deref() {
            let message = format!(
                "The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached to version {}, so you must \
                 explicitly reference that version in RemoveFromVersionId.",
                holder.unwrap_or_default()
            );
            return Err(ApiError::new("InvalidParameterException", message));
        }
        match to {
            Some(to) if secret.versions.contains_key(to) => secret.label(to, label),
            Some(to) => return Err(absent(&format!("VersionId: {to}"))),
            None if label == CURRENT => {
                return Err(invalid("You can't remove the staging label AWSCURRENT from a version without moving it."));
            }
            None => {
                if let Some(version) = holder.and_then(|id| secret.versions.get_mut(&id)) {
                    version.labels.retain(|one| one != label);
                }
            }
        }
        Ok(Some(json!({"ARN": arn, "Name": secret.name})))
    })
}
