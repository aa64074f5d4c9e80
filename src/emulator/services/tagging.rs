//! `SageMaker`'s operations on the tags of any resource.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::model::Model;
use crate::protocol::{Answer, ApiError, text};
use crate::service::{JsonService, Operation};
use crate::shared::Shared;
use crate::tags::{TagMap, check_tags, tag_list, tag_map};

/// Operations on the tags, which all services share.
#[derive(Debug)]
pub(crate) struct Tagging(pub(crate) Arc<Shared>);

impl JsonService for Tagging {
    const SIGNING_NAME: &'static str = "sagemaker";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] =
        &[("AddTags", add), ("ListTags", list), ("DeleteTags", delete)];

    fn model() -> &'static Model {
        Model::sagemaker()
    }
}

fn with_tags(Tagging(shared): &Tagging, request: &Value, act: impl FnOnce(&mut TagMap) -> Answer) -> Answer {
    let arn = text(request, "ResourceArn").unwrap_or_default();
    let found = shared.tags.with(arn, |one| shared.is_visible(one.created_ms).then(|| act(&mut one.tags)));
    found.flatten().unwrap_or_else(|| Err(ApiError::validation(format!("Could not find resource {arn}."))))
}

fn add(tagging: &Arc<Tagging>, request: &Value, _: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    with_tags(tagging, request, |tags| {
        let mut all = tags.clone();
        all.extend(tag_map(request.get("Tags")));
        if all.len() > 50 {
            return Err(ApiError::new("ResourceLimitExceeded", "A resource can have at most 50 tags."));
        }
        *tags = all;
        Ok(Some(json!({"Tags": tag_list(tags)})))
    })
}

fn list(tagging: &Arc<Tagging>, request: &Value, _: &Caller) -> Answer {
    with_tags(tagging, request, |tags| Ok(Some(json!({"Tags": tag_list(tags)}))))
}

fn delete(tagging: &Arc<Tagging>, request: &Value, _: &Caller) -> Answer {
    with_tags(tagging, request, |tags| {
        for key in request.get("TagKeys").and_then(Value::as_array).into_iter().flatten() {
            tags.remove(key.as_str().unwrap_or_default());
        }
        Ok(Some(json!({})))
    })
}
