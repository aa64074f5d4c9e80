//! Errors of several operations.

use serde_json::Value;

use super::records::RepositoryKey;
use crate::protocol::{ApiError, text};

pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterException", message)
}

/// The error for an image that is not there, as `DescribeImages` words it.
pub(super) fn image_not_found(key: &RepositoryKey, id: &Value) -> ApiError {
    let part = |name: &str| text(id, name).map(|value| format!("{name}:'{value}'"));
    let parts: Vec<_> = ["imageDigest", "imageTag"].into_iter().filter_map(part).collect();
    let RepositoryKey { account, name, .. } = key;
    let message = format!(
        "The image with imageId {{{}}} does not exist within the repository with name '{name}' in the registry with id '{account}'",
        parts.join(", ")
    );
    ApiError::new("ImageNotFoundException", message)
}
