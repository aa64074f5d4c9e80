//! The result of `image build`: the image by its digest, for people and for later jobs.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use crate::cloud::ImageRepositorySight;
use crate::lifecycle::output::Data;

/// Use of an image, which names the variable for later jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ImageUse {
    /// `TRAINING_IMAGE`, of training jobs
    Training,
    /// `SERVING_IMAGE`, of the registered model and its endpoint
    Serving,
}

impl ImageUse {
    fn variable(self) -> &'static str {
        match self {
            Self::Training => "TRAINING_IMAGE",
            Self::Serving => "SERVING_IMAGE",
        }
    }
}

/// How the image came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ImageStatus {
    Built,
    /// The repository had the image of this context: nothing was built.
    Unchanged,
}

/// An image that a builder made or found, with its tags.
#[derive(Debug)]
pub(super) struct BuiltParts {
    pub(super) status: ImageStatus,
    pub(super) digest: String,
    pub(super) tags: Vec<String>,
    pub(super) context_tag: String,
}

/// An image that is in its repository with all its tags.
#[derive(Debug, Serialize)]
pub(super) struct BuiltImage {
    pub(super) status: ImageStatus,
    /// `REPOSITORY_URI@sha256:...`
    pub(super) uri: String,
    pub(super) repository: String,
    pub(super) digest: String,
    pub(super) tags: Vec<String>,
    /// The tag that names the context.
    pub(super) context_tag: String,
    #[serde(skip)]
    pub(super) for_use: Option<ImageUse>,
}

impl BuiltImage {
    pub(super) fn new(
        status: ImageStatus,
        repository: &ImageRepositorySight,
        digest: &str,
        tags: Vec<String>,
        context_tag: String,
        for_use: Option<ImageUse>,
    ) -> Self {
        let uri = format!("{}@{digest}", repository.uri);
        let (repository, digest) = (repository.name.clone(), digest.to_owned());
        Self { status, uri, repository, digest, tags, context_tag, for_use }
    }
}

impl Data for BuiltImage {
    fn text(&self) -> String {
        let status = match self.status {
            ImageStatus::Built => "built",
            ImageStatus::Unchanged => "unchanged, not built again",
        };
        let tags = if self.tags.is_empty() { "none".to_owned() } else { self.tags.join(", ") };
        format!("{}\n  status   {status}\n  tags     {tags}\n  context  {}\n", self.uri, self.context_tag)
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let mut variables = BTreeMap::from([("IMAGE_URI", self.uri.clone()), ("IMAGE_DIGEST", self.digest.clone())]);
        variables.extend(self.tags.first().map(|tag| ("IMAGE_TAG", tag.clone())));
        variables.extend(self.for_use.map(|one| (one.variable(), self.uri.clone())));
        variables
    }
}
