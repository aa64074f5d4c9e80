//! `SageMaker`'s model registry: model package groups, their versions, packages without a group, and policies of groups.
//!
//! `records.rs` holds what exists, `groups.rs`, `policies.rs`, `creation.rs`, `changes.rs` and `reading.rs` the operations.

mod changes;
mod creation;
mod group;
mod groups;
mod listing;
mod package;
mod policies;
mod reading;
mod records;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use self::package::kept;
pub(crate) use self::records::Registry;
use crate::iam::Document;
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for Registry {
    const SIGNING_NAME: &'static str = "sagemaker";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("CreateModelPackageGroup", groups::create),
        ("DescribeModelPackageGroup", groups::describe),
        ("ListModelPackageGroups", groups::list),
        ("DeleteModelPackageGroup", groups::delete),
        ("PutModelPackageGroupPolicy", policies::put),
        ("GetModelPackageGroupPolicy", policies::get),
        ("DeleteModelPackageGroupPolicy", policies::delete),
        ("CreateModelPackage", creation::create),
        ("DescribeModelPackage", reading::describe),
        ("BatchDescribeModelPackage", reading::batch_describe),
        ("ListModelPackages", reading::list),
        ("UpdateModelPackage", changes::update),
        ("DeleteModelPackage", changes::delete),
    ];

    fn model() -> &'static Model {
        Model::sagemaker()
    }

    fn resource_policy(&self, resource: &str) -> Option<Arc<Document>> {
        policies::of_resource(self, resource)
    }
}
