//! The policies of secrets, which open a secret to other accounts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::records::SecretVault;
use crate::caller::Caller;
use crate::iam::{Document, PolicyKind};
use crate::protocol::{Answer, ApiError, text};

pub(super) fn put(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let sent = text(request, "ResourcePolicy").unwrap_or_default();
    let policy = serde_json::from_str(sent).map_err(|error| error.to_string());
    let document = policy.and_then(|policy: Value| Document::parse(PolicyKind::Resource, &policy));
    let malformed = |error| {
        ApiError::new("MalformedPolicyDocumentException", format!("This resource policy is malformed: {error}"))
    };
    let document = Arc::new(document.map_err(malformed)?);
    vault.with_usable(request, caller, |arn, secret| {
        secret.policy = Some((sent.to_owned(), document));
        Ok(Some(json!({"ARN": arn, "Name": secret.name})))
    })
}

pub(super) fn get(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    vault.with(request, caller, |arn, secret| {
        let mut answer = json!({"ARN": arn, "Name": secret.name});
        if let Some((text, _)) = &secret.policy {
            answer["ResourcePolicy"] = json!(text);
        }
        Ok(Some(answer))
    })
}

pub(super) fn delete(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    vault.with_usable(request, caller, |arn, secret| {
        secret.policy = None;
        Ok(Some(json!({"ARN": arn, "Name": secret.name})))
    })
}
