//! `BatchGetSecretValue`: each secret needs the permission to read it, besides that for the request.

use std::sync::Arc;

use serde_json::{Value, json};

use super::inventory::{page, selected};
use super::records::SecretVault;
use super::values;
use crate::authorization::secret_action;
use crate::caller::Caller;
use crate::protocol::{Answer, ApiError};
use crate::service::JsonService as _;

pub(super) fn get(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let ids: Vec<String> = match (request["SecretIdList"].as_array(), request["Filters"].as_array()) {
        (Some(ids), None) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        (None, Some(_)) => {
            let all = vault.secrets();
            let found = selected(vault, &all, request, caller);
            found.into_iter().filter(|(_, secret)| secret.deleted_ms.is_none()).map(|(arn, _)| arn.clone()).collect()
        }
        _ => {
            let message = "Either 'SecretIdList' or 'Filters' must be provided, but not both.";
            return Err(ApiError::new("InvalidParameterException", message));
        }
    };
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for id in ids {
        match one(vault, &id, caller) {
            Ok(value) => values.extend(value),
            Err(ApiError { code, message, .. }) => {
                errors.push(json!({"SecretId": id, "ErrorCode": code, "Message": message}));
            }
        }
    }
    let mut answer = page(request, "SecretValues", "values", values)?.unwrap_or_default();
    answer["Errors"] = json!(errors);
    Ok(Some(answer))
}

fn one(vault: &Arc<SecretVault>, id: &str, caller: &Caller) -> Answer {
    let request = json!({"SecretId": id});
    let needed = secret_action("GetSecretValue", &request, caller, &vault.shared.tags);
    let policy = vault.resource_policy(&needed.resource);
    let allowed = vault.shared.authority.allows(caller, &needed, policy.as_deref());
    allowed.map_err(|message| ApiError::new("AccessDeniedException", message))?;
    values::get(vault, &request, caller)
}
