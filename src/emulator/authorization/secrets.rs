//! The actions that operations of Secrets Manager need.

use serde_json::Value;

use super::context::NeededAction;
use super::identity::account_of;
use crate::caller::Caller;
use crate::protocol::text;
use crate::secret_names::secret_arn;
use crate::tags::{Tags, tag_map};

/// The action on the secret that a request names; lists are of no resource.
pub(crate) fn secret_action(operation: &str, request: &Value, caller: &Caller, tags: &Tags) -> NeededAction {
    let action = format!("secretsmanager:{operation}");
    let id = text(request, "SecretId").or(text(request, "Name").filter(|_| operation == "CreateSecret"));
    let Some(id) = id else { return NeededAction::new(action, "*") };
    let resource = secret_arn(id, caller);
    let known = tags.with(&resource, |one| one.tags.clone()).unwrap_or_default();
    let owner = account_of(&resource).unwrap_or(&caller.account).to_owned();
    let needed = NeededAction::new(action, resource).owned_by(&owner).request_tags(&tag_map(request.get("Tags")));
    let needed = needed.resource_tags("secretsmanager", &known);
    let keys = [
        ("secretsmanager:SecretId", text(request, "SecretId")),
        ("secretsmanager:Name", text(request, "Name")),
        ("secretsmanager:VersionId", text(request, "VersionId")),
        ("secretsmanager:VersionStage", text(request, "VersionStage")),
    ];
    keys.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .fold(needed, |needed, (key, value)| needed.key(key, [value]))
}
