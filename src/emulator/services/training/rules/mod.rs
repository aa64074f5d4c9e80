//! The rules of `CreateTrainingJob` that the service model does not hold, as a table: most of them relate two members.

mod data;
mod request;
mod resources;
mod rule;
mod settings;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::request::CreateRequest;
use self::rule::{CreateRule, LONGEST_KEEP};
use crate::protocol::ApiError;
use crate::tags::check_tags;

/// All rules, in the order in which they are checked.
fn rules() -> impl Iterator<Item = &'static CreateRule> {
    settings::ALGORITHM.iter().chain(resources::RULES).chain(settings::RULES).chain(data::RULES)
}

/// Checks a request that satisfies the model.
pub(crate) fn check_create(request: &Value) -> Result<(), ApiError> {
    let request = CreateRequest(request);
    for rule in rules() {
        if let Some(breach) = (rule.breach)(&request) {
            return Err(ApiError::validation(rule.message.replace("{}", &breach)));
        }
    }
    check_tags(request.0.get("Tags"))
}

/// Checks a change of the time for which instances stay.
pub(crate) fn check_keep_alive(request: &Value, seconds: &Value) -> Result<(), ApiError> {
    if CreateRequest(request).is_on("/EnableManagedSpotTraining") {
        return Err(ApiError::validation(resources::KEPT_SPOT));
    }
    if seconds.as_u64().is_some_and(|seconds| seconds > LONGEST_KEEP) {
        return Err(ApiError::validation(resources::KEPT_TOO_LONG));
    }
    Ok(())
}
