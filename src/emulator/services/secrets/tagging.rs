//! The operations on the tags of a secret.

use std::sync::Arc;

use serde_json::Value;

use super::inventory::known;
use super::records::SecretVault;
use crate::caller::Caller;
use crate::protocol::Answer;
use crate::tags::{TagMap, check_tags, tag_map};

pub(super) fn tag(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    change(vault, request, caller, |tags| tags.extend(tag_map(request.get("Tags"))))
}

pub(super) fn untag(vault: &Arc<SecretVault>, request: &Value, caller: &Caller) -> Answer {
    let removed = request["TagKeys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    change(vault, request, caller, |tags| removed.for_each(|key| drop(tags.remove(key))))
}

fn change(vault: &Arc<SecretVault>, request: &Value, caller: &Caller, act: impl FnOnce(&mut TagMap)) -> Answer {
    let arn = known(vault, request, caller)?;
    vault.shared.tags.with(&arn, |one| act(&mut one.tags));
    Ok(None)
}
