//! Application Auto Scaling for variants of endpoints: scalable targets and their policies.
//!
//! Nothing scales by load. `registration.rs` has the operations on targets, `policies.rs` those on policies.

mod policies;
mod registration;

use std::sync::Arc;

use serde_json::{Value, json};

use super::cloudwatch::CloudWatch;
use super::endpoints::Endpoints;
use super::scalable_targets::{ScalableTargets, TargetKey};
use crate::caller::Caller;
use crate::model::Model;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, text};
use crate::service::{JsonService, Operation};
use crate::shared::Shared;

/// Entries of a page when the request does not say how many.
const PAGE: usize = 50;

/// The service.
pub(crate) struct Autoscaling {
    shared: Arc<Shared>,
    targets: Arc<ScalableTargets>,
    endpoints: Arc<Endpoints>,
    cloudwatch: Arc<CloudWatch>,
}

impl Autoscaling {
    pub(crate) fn new(shared: &Arc<Shared>, endpoints: &Arc<Endpoints>, cloudwatch: &Arc<CloudWatch>) -> Self {
        Self {
            shared: Arc::clone(shared),
            targets: Arc::clone(endpoints.scalable_targets()),
            endpoints: Arc::clone(endpoints),
            cloudwatch: Arc::clone(cloudwatch),
        }
    }
}

impl JsonService for Autoscaling {
    const SIGNING_NAME: &'static str = "application-autoscaling";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("RegisterScalableTarget", registration::register),
        ("DescribeScalableTargets", registration::describe),
        ("DeregisterScalableTarget", registration::deregister),
        ("PutScalingPolicy", policies::put),
        ("DescribeScalingPolicies", policies::describe),
        ("DeleteScalingPolicy", policies::delete),
    ];

    fn model() -> &'static Model {
        Model::autoscaling()
    }
}

/// `SERVICE, resource ID: ID, scalable dimension: DIMENSION`, as errors name a target.
fn words(key: &TargetKey) -> String {
    format!("service namespace: sagemaker, resource ID: {}, scalable dimension: {}", key.resource, key.dimension)
}

fn not_found(message: String) -> ApiError {
    ApiError::new("ObjectNotFoundException", message)
}

/// One page of what the request asks for.
fn page(request: &Value, member: &str, all: Vec<Value>) -> Answer {
    let limit = request["MaxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let bad_token = || ApiError::new("InvalidNextTokenException", "The next token is invalid.");
    let (shown, next) = cut(text(request, "NextToken"), limit, member, all).ok_or_else(bad_token)?;
    Ok(Some(json!({member: shown, "NextToken": next})))
}

/// Whether a target is one of the caller that the request asks for.
fn is_asked_for(key: &TargetKey, request: &Value, caller: &Caller) -> bool {
    key.account == caller.account
        && key.region == caller.region
        && text(request, "ServiceNamespace") == Some("sagemaker")
        && text(request, "ScalableDimension").is_none_or(|dimension| key.dimension == dimension)
}
