//! The service's state, and what its operations have in common.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, text};
use crate::services::cloudwatch::CloudWatch;
use crate::services::endpoints::Endpoints;
use crate::services::scalable_targets::{ScalableTargets, TargetKey};
use crate::shared::Shared;

/// Entries of a page when the request does not say how many.
const PAGE: usize = 50;

/// The service.
pub(crate) struct ApplicationAutoscaling {
    pub(super) shared: Arc<Shared>,
    pub(super) targets: Arc<ScalableTargets>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) cloudwatch: Arc<CloudWatch>,
}

impl ApplicationAutoscaling {
    pub(crate) fn new(shared: &Arc<Shared>, endpoints: &Arc<Endpoints>, cloudwatch: &Arc<CloudWatch>) -> Self {
        Self {
            shared: Arc::clone(shared),
            targets: Arc::clone(endpoints.scalable_targets()),
            endpoints: Arc::clone(endpoints),
            cloudwatch: Arc::clone(cloudwatch),
        }
    }
}

/// `SERVICE, resource ID: ID, scalable dimension: DIMENSION`, as errors name a target.
pub(super) fn words(key: &TargetKey) -> String {
    format!("service namespace: sagemaker, resource ID: {}, scalable dimension: {}", key.resource, key.dimension)
}

pub(super) fn not_found(message: String) -> ApiError {
    ApiError::new("ObjectNotFoundException", message)
}

/// One page of what the request asks for.
pub(super) fn page(request: &Value, member: &str, all: Vec<Value>) -> Answer {
    let limit = request["MaxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let bad_token = || ApiError::new("InvalidNextTokenException", "The next token is invalid.");
    let (shown, next) = cut(text(request, "NextToken"), limit, member, all).ok_or_else(bad_token)?;
    Ok(Some(json!({member: shown, "NextToken": next})))
}

/// Whether a target is one of the caller that the request asks for.
pub(super) fn is_asked_for(key: &TargetKey, request: &Value, caller: &Caller) -> bool {
    key.account == caller.account
        && key.region == caller.region
        && text(request, "ServiceNamespace") == Some("sagemaker")
        && text(request, "ScalableDimension").is_none_or(|dimension| key.dimension == dimension)
}
