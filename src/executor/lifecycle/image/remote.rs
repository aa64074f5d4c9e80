//! A build in CodeBuild: whether the registry has the image of these files, and its tags when CodeBuild has pushed it.

use std::path::{Component, Path};
use std::sync::Arc;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::built::{BuiltParts, ImageStatus};
use super::codebuild::{self, BuildOrder};
use super::fingerprint::{self, BuildInputs, ContextEntry, ContextHash};
use super::source_zip::{ProjectSource, SourceLimits};
use super::spec::BuildSpec;
use super::tagging::{self, TagPlan};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::cloud::{ImageRepositorySight, Sha256Hash, StoredImage, TaggedImages};
use crate::lifecycle::manifest::CodeBuildEntry;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::{CommandInputs, until_canceled};

/// One build in CodeBuild.
pub(super) struct RemoteBuild<'a> {
    pub(super) inputs: &'a CommandInputs,
    pub(super) target: &'a ProjectTarget,
    pub(super) entry: &'a CodeBuildEntry,
    pub(super) spec: &'a BuildSpec,
    pub(super) store: &'a dyn TaggedImages,
    pub(super) repository: &'a ImageRepositorySight,
}

impl RemoteBuild<'_> {
    /// Builds unless the registry has the image of these files, and gives it the tags.
    ///
    /// # Errors
    /// Failures of the user: a path outside of the project, a tag that cannot be moved, a build that fails or pushes nothing. A signal.
    pub(super) async fn run(
        &self,
        dockerfile: &str,
        bases: &[(String, String)],
        tags: Vec<String>,
        cancellation: &Cancellation,
    ) -> anyhow::Result<BuiltParts> {
        let Self { inputs, target, spec, store, repository, entry } = *self;
        target.require_bucket()?;
        let dockerfile_path = below(&target.folder, &spec.dockerfile, "image.dockerfile")?;
        let context = below(&target.folder, &spec.context, "image.context")?;
        if spec.cache.is_some() {
            inputs.printer.warn("`image.cache` is for buildah in the job: CodeBuild builds without it");
        }
        let source = Arc::new(until_canceled(cancellation.clone(), self.source()).await?);
        let files = files_hash(source.sha256(), &dockerfile_path, &context);
        let context_tag = self.context_tag(&files, dockerfile, bases);
        let looked_for: Vec<_> = tags.iter().chain([&context_tag]).cloned().collect();
        let found =
            until_canceled(cancellation.clone(), async { Ok(store.tagged(repository, &looked_for).await?) }).await?;
        let (status, image) = match tagging::decide(repository, &context_tag, &tags, &found)? {
            TagPlan::Reuse(image) => {
                inputs.printer.line("The registry has the image of these files: nothing is sent, and nothing is built");
                (ImageStatus::Unchanged, image)
            }
            TagPlan::Build => {
                let order = BuildOrder {
                    repository_uri: &repository.uri,
                    tag: &context_tag,
                    dockerfile: &dockerfile_path,
                    context: &context,
                    target: spec.target.as_deref(),
                    args: &spec.args,
                };
                codebuild::build(inputs, target, entry, &source, &order, cancellation).await?;
                (ImageStatus::Built, self.pushed(&context_tag).await?)
            }
        };
        tagging::add(store, repository, &image, &tags, &found).await?;
        Ok(BuiltParts { status, digest: image.digest, tags, context_tag })
    }

    async fn source(&self) -> anyhow::Result<ProjectSource> {
        let (folder, env) = (self.target.folder.clone(), self.inputs.env.clone());
        let limits = SourceLimits { bytes: self.spec.limit_bytes, files: self.spec.limit_files };
        let reading = tokio::task::spawn_blocking(move || ProjectSource::read(&folder, &env, limits));
        reading.await.context("failed to read the project's files")?
    }

    /// The tag of everything that the image is built from: all files of the source, since a buildspec may use each.
    fn context_tag(&self, files: &ContextHash, dockerfile: &str, bases: &[(String, String)]) -> String {
        let inputs = BuildInputs {
            dockerfile: self.entry.buildspec.as_deref().unwrap_or(dockerfile).as_bytes(),
            target: self.spec.target.as_deref(),
            args: &self.spec.args,
            bases,
            platform: if self.entry.is_arm() { "linux/arm64" } else { "linux/amd64" },
        };
        fingerprint::context_tag(files, &inputs)
    }

    /// The image that the build has pushed.
    async fn pushed(&self, context_tag: &str) -> anyhow::Result<StoredImage> {
        let found = self.store.tagged(self.repository, &[context_tag.to_owned()]).await?;
        let image = found.into_values().next().ok_or_else(|| {
            Failure::user(format!("the build ended well and pushed no image with the tag {context_tag}"))
                .hint("let the buildspec push `$IMAGE_REPOSITORY_URI:$IMAGE_TAG`, which are variables of the build")
        })?;
        Ok(image)
    }
}

/// The hash of the source, and of the places in it that a build is told: a source may have several Dockerfiles and contexts.
fn files_hash(source: &Sha256Hash, dockerfile: &str, context: &str) -> ContextHash {
    let mut files = ContextHash::default();
    files.add(b"source", ContextEntry::File, source);
    files.add(b"dockerfile", ContextEntry::File, &Sha256::digest(dockerfile).into());
    files.add(b"context", ContextEntry::File, &Sha256::digest(context).into());
    files
}

/// A path relative to the project's folder.
fn below(folder: &Path, path: &Path, key: &str) -> Result<String, Failure> {
    let refused = || {
        let shown = plain::line(&path.to_string_lossy(), 200);
        Failure::user(format!("{shown} is not below the manifest's folder, whose files CodeBuild gets"))
            .hint(format!("change `{key}` in the manifest to a path below it"))
    };
    let inner = path.strip_prefix(folder).map_err(|_| refused())?;
    let mut parts = Vec::new();
    for part in inner.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str().ok_or_else(refused)?),
            _ => return Err(refused()),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn contexts_and_dockerfiles_of_one_source_have_tags_of_their_own() {
        let args = BTreeMap::new();
        // An own buildspec: the text of the Dockerfile is not known.
        let inputs =
            BuildInputs { dockerfile: b"ci/build.yml", target: None, args: &args, bases: &[], platform: "linux/amd64" };
        let tag = |dockerfile: &str, context: &str| {
            fingerprint::context_tag(&files_hash(&[1; 32], dockerfile, context), &inputs)
        };
        let places = [("Dockerfile", "A"), ("Dockerfile", "B"), ("A/Dockerfile", "A"), ("A", "Dockerfile")];
        let tags: BTreeSet<_> = places.iter().map(|(dockerfile, context)| tag(dockerfile, context)).collect();
        assert_eq!(tags.len(), places.len());
        assert_eq!(tag("Dockerfile", "A"), tag("Dockerfile", "A"));
    }

    #[test]
    fn paths_are_below_the_manifests_folder() {
        let inner = |folder: &str, path: &str| below(Path::new(folder), Path::new(path), "image.context").ok();
        for (folder, path, expected) in [
            ("", "Dockerfile", Some("Dockerfile")),
            ("", "./a/./b", Some("a/b")),
            ("", ".", Some(".")),
            ("p", "p/.", Some(".")),
            ("p", "p/a", Some("a")),
            ("p", "Dockerfile", None),
            ("", "../a", None),
            ("p", "p/../a", None),
            ("", "/a", None),
        ] {
            assert_eq!(inner(folder, path).as_deref(), expected, "{folder} {path}");
        }
    }
}
