//! ECR: the account's repositories of images. Clients push and pull as at any registry of the OCI distribution specification.
//!
//! `records.rs` holds what exists, and `blobs.rs` its bytes on the disk; `repositories.rs`, `images.rs`, `scans.rs` and `tokens.rs` are the operations of
//! the JSON protocol, `distribution/` the registry's own protocol, which takes the `passwords.rs` that were given out. `containers.rs` makes the root
//! directory of a pushed image for jobs and endpoints. `listed.rs` has the images that the command line names, which have no layers.

mod blobs;
mod containers;
mod distribution;
mod errors;
mod images;
mod layers;
mod listed;
mod manifest;
mod passwords;
mod records;
mod repositories;
mod scan;
mod scans;
mod tokens;

pub(crate) use self::distribution::{Distribution, operation as distribution_operation};
pub(crate) use self::records::ImageStore;
use crate::model::Model;
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
        ("GetRepositoryPolicy", repositories::policy),
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
