//! ECR: the account's repositories of images. Clients push and pull as at any registry of the OCI distribution specification.
//!
//! `records.rs` holds what exists, and `blobs.rs` its bytes on the disk; `repositories.rs`, `images.rs` and `scans.rs` are the operations of
//! the JSON protocol, `distribution/` the registry's own protocol, for which `tokens.rs` makes passwords. `containers.rs` makes the root
//! directory of a pushed image for jobs and endpoints. `listed.rs` has the images that the command line names, which have no layers.

mod blobs;
mod containers;
mod distribution;
mod images;
mod layers;
mod listed;
mod manifest;
mod records;
mod repositories;
mod scans;
mod tokens;

pub(crate) use self::distribution::{Distribution, operation as distribution_operation};
pub(crate) use self::records::ImageStore;
use crate::model::Model;
use crate::protocol::ApiError;
use crate::service::{JsonService, Operation};

impl JsonService for ImageStore {
    const SIGNING_NAME: &'static str = "ecr";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("BatchCheckLayerAvailability", images::check_layers),
        ("BatchDeleteImage", images::delete),
        ("BatchGetImage", images::get),
        ("CreateRepository", repositories::create),
        ("DeleteRepository", repositories::delete),
        ("DescribeImageScanFindings", scans::findings),
        ("DescribeImages", images::describe),
        ("DescribeRepositories", repositories::describe),
        ("GetAuthorizationToken", tokens::get),
        ("GetDownloadUrlForLayer", images::download_url),
        ("ListImages", images::list),
        ("ListTagsForResource", repositories::list_tags),
        ("PutImage", images::put),
        ("StartImageScan", scans::start),
        ("TagResource", repositories::tag),
        ("UntagResource", repositories::untag),
    ];
    const INVALID: &'static str = "InvalidParameterException";

    fn model() -> &'static Model {
        Model::ecr()
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterException", message)
}
