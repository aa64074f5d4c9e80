//! Application Auto Scaling for variants of endpoints: scalable targets and their policies.
//!
//! Nothing scales by load. `registration.rs` has the operations on targets, `policies.rs` those on policies.

mod policies;
mod records;
mod registration;

pub(crate) use self::records::ApplicationAutoscaling;
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for ApplicationAutoscaling {
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
