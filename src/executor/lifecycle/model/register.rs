//! `sagemaker-executor model register`: stores a model, and makes a version of it in the registry.
//!
//! Each step finds its own result and leaves it: a command that was ended at any point goes on when it is run again.

use std::sync::Arc;

use clap::Args;

use super::approvals::ApprovalRule;
use super::change::{ATTEMPTS, pauses};
use super::lineage::{PackageOrigin, StoredModel, VersionContent, description, differences, package_entries};
use super::metadata::{property, without_credentials};
use super::source::{MetricsFile, ModelArchive, ModelOrigin, metrics};
use super::version_data::{VersionData, image};
use super::versions::{completed, with_content};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{
    CloudErrorKind, GroupSpec, ModelRegistry, ModelVersion, ObjectStore, RegistrationState, SourceObjects,
    StoredMetrics, VersionSpec,
};
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::pipeline::Pipeline;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};
use crate::lifecycle::{CommandInputs, gate};

/// Most versions of one content and pipeline that SageMaker may fail.
const MOST_FAILED: u32 = 10;

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: RegisterArgs) -> anyhow::Result<()> {
    let mut target = args.target.load(inputs)?;
    let model = target.model()?;
    let read = model.metrics.iter().chain([&model.path]).map(|path| target.folder.join(path));
    args.output.check(&read.chain([args.target.manifest]).collect::<Vec<_>>())?;
    let image_digest = image_digest(&target.model()?.image)?.to_owned();
    if target.access.bucket.is_empty() {
        let failure = Failure::user("there is no bucket for the model");
        return Err(failure.hint("set `environments.<name>.bucket` in the manifest, and give `--environment`").into());
    }
    let metrics = metrics(&target)?;
    if !target.model()?.require.is_empty() {
        let evidence: Vec<_> = metrics.iter().map(MetricsFile::source).collect();
        gate::check_bars(target.model()?, &evidence)?;
    }
    let author = args.identity.token(inputs, &target)?.map(|token| token.work_as(&mut target.access));
    target.check_account(inputs).await?;
    let (connect, access) = (&inputs.connect, &target.access);
    let sources = connect.source_objects(access).await?;
    let model = ModelOrigin::find(&target, &*sources).await?;
    let registration = Registration {
        registry: connect.registry(access).await?,
        objects: connect.objects(access).await?,
        sources,
        target: &target,
        image_digest: &image_digest,
        model,
        metrics,
        author,
        package: None,
        rule: ApprovalRule::of(&target.model()?.approvals, None, false),
    };
    let (outcome, version) = registration.run().await?;
    args.output.leave(&VersionData::new(outcome, &version), &inputs.printer)
}

/// The digest of an image's name. A tag alone may name another image tomorrow.
pub(crate) fn image_digest(image: &str) -> anyhow::Result<&str> {
    let digest = image.split_once('@').map(|(_, digest)| digest);
    let is_whole = |digest: &&str| {
        let digits = digest.strip_prefix("sha256:").unwrap_or_default();
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    digest.filter(is_whole).ok_or_else(|| {
        Failure::user(format!("the image {image} has no digest"))
            .hint("write `model.image` in the manifest as `REGISTRY/NAME@sha256:` with the 64 digits of the image's digest")
            .into()
    })
}

/// A version that is wanted in the registry.
pub(super) struct Registration<'a> {
    pub(super) registry: Arc<dyn ModelRegistry>,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) sources: Arc<dyn SourceObjects>,
    pub(super) target: &'a ProjectTarget,
    pub(super) image_digest: &'a str,
    pub(super) model: ModelOrigin,
    pub(super) metrics: Vec<MetricsFile>,
    pub(super) author: Option<JobUser>,
    /// `None` for a model of this pipeline.
    pub(super) package: Option<&'a PackageOrigin>,
    /// The approvals that the version needs at least.
    pub(super) rule: ApprovalRule,
}

impl Registration<'_> {
    /// The version with this content, if it is there; nothing is written.
    pub(super) async fn found(&self) -> anyhow::Result<Option<ModelVersion>> {
        let (identity, keys) = self.parts();
        let content = VersionContent { model: &identity, image_digest: self.image_digest, metrics: &keys };
        let (token, found) = self.find(&content).await?;
        let Some(found) = found else { return Ok(None) };
        let archive = self.model.archive(&*self.objects).await?;
        let spec = self.spec(&content, &archive, token)?;
        Ok(Some(self.unchanged(found, &spec).await?.1))
    }

    /// The model's identity, and the keys of the metrics.
    fn parts(&self) -> (String, Vec<String>) {
        (self.model.identity(), self.metrics.iter().map(|file| file.key.clone()).collect())
    }

    /// The pipeline that the version tells as its origin.
    fn pipeline(&self) -> &Pipeline {
        self.package.map_or(&self.target.pipeline, |package| &package.pipeline)
    }

    /// The version, and `registered` or `unchanged`.
    pub(super) async fn run(&self) -> anyhow::Result<(&'static str, ModelVersion)> {
        let group = &self.target.model()?.group;
        let (identity, keys) = self.parts();
        let content = VersionContent { model: &identity, image_digest: self.image_digest, metrics: &keys };
        let (token, found) = self.find(&content).await?;
        let archive = self.model.archive(&*self.objects).await?;
        let spec = self.spec(&content, &archive, token)?;
        if let Some(found) = found {
            return self.unchanged(found, &spec).await;
        }
        self.ensure_group().await?;
        self.model.store(&archive, &*self.objects, &*self.sources).await?;
        for file in &self.metrics {
            file.store(&self.objects).await?;
        }
        match self.registry.create_version(&spec).await {
            Ok(arn) => Ok(("registered", completed(&*self.registry, &arn).await?)),
            // Another job of the pipeline made it meanwhile, with the same token.
            Err(error) if matches!(error.kind, CloudErrorKind::Exists | CloudErrorKind::Invalid) => {
                let searches = if error.kind == CloudErrorKind::Exists { ATTEMPTS } else { 1 };
                let mut pauses = pauses();
                for search in 1..=searches {
                    if let Some(found) = with_content(&*self.registry, group, &spec.client_token).await? {
                        return self.unchanged(found, &spec).await;
                    }
                    if search < searches {
                        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                    }
                }
                if error.kind == CloudErrorKind::Invalid {
                    return Err(error.into());
                }
                let message =
                    format!("another job makes the same version, which the group `{group}` does not show yet");
                let failure = Failure::verdict(exit_codes::TRY_LATER, message).caused_by(error);
                Err(failure.hint("run the same command again").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The token of this attempt, and the version with it. A version that SageMaker failed ends an attempt.
    async fn find(&self, content: &VersionContent<'_>) -> anyhow::Result<(String, Option<ModelVersion>)> {
        let model = self.target.model()?;
        for attempt in 0..MOST_FAILED {
            let token = match self.package {
                None => content.token(model, &self.target.pipeline, self.author.as_ref(), attempt),
                // Every pipeline and user finds the version again.
                Some(_) => content.token(model, &Pipeline::default(), None, attempt),
            };
            match with_content(&*self.registry, &model.group, &token).await? {
                Some(ModelVersion { state: RegistrationState::Failed(_), .. }) => {}
                found => return Ok((token, found)),
            }
        }
        let message = format!("SageMaker failed {MOST_FAILED} versions of this content in the group `{}`", model.group);
        let failure = Failure::user(message);
        Err(failure
            .hint("`DescribeModelPackage` tells the reasons; the same content registers again in a new pipeline")
            .into())
    }

    /// The request for the version.
    fn spec(&self, content: &VersionContent<'_>, archive: &ModelArchive, token: String) -> anyhow::Result<VersionSpec> {
        let (model, pipeline) = (self.target.model()?, self.pipeline());
        let stored = StoredModel { hash: archive.hash, index_key: self.model.index_key() };
        let (manifest, author) = (&self.target.manifest, self.author.as_ref());
        let mut metadata = content.metadata(&token, &stored, manifest, pipeline, author, self.rule)?;
        metadata.extend(self.package.into_iter().flat_map(package_entries));
        let url = |url: &Option<String>| property(&without_credentials(url.as_deref()?));
        Ok(VersionSpec {
            group: model.group.clone(),
            description: description(model, &token),
            image: model.image.clone(),
            model_data_url: archive.uri(&*self.objects),
            environment: model.environment.clone(),
            content_types: model.content_types.clone(),
            response_types: model.response_types.clone(),
            instance_types: model.instance_types.clone(),
            metrics: self.metrics.first().map(|file| StoredMetrics {
                uri: self.objects.uri(&file.key),
                content_type: file.content_type().to_owned(),
                digest: Some(file.digest()),
            }),
            metadata,
            commit: pipeline.commit.as_deref().and_then(property),
            repository: url(&pipeline.repository),
            generated_by: url(&pipeline.url),
            project: pipeline.project.as_deref().and_then(property),
            client_token: token,
        })
    }

    /// The version that was found, if it is what the request would make.
    async fn unchanged(&self, found: ModelVersion, spec: &VersionSpec) -> anyhow::Result<(&'static str, ModelVersion)> {
        let differences = differences(&found, &image(&found), spec);
        if differences.is_empty() {
            return Ok(("unchanged", self.whole(found).await?));
        }
        let message = format!(
            "{} is marked as this content, and differs in: {}",
            plain::line(&found.arn, 300),
            differences.join(", ")
        );
        let other = if self.package.is_some() { "" } else { ", or register in a new pipeline" };
        Err(Failure::user(message)
            .hint(format!("find out who made it (`CreateModelPackage` in CloudTrail) and delete it{other}"))
            .into())
    }

    async fn whole(&self, found: ModelVersion) -> anyhow::Result<ModelVersion> {
        match found.state {
            RegistrationState::Completed => Ok(found),
            _ => completed(&*self.registry, &found.arn).await,
        }
    }

    /// Makes the group if there is none.
    async fn ensure_group(&self) -> anyhow::Result<()> {
        let model = self.target.model()?;
        if self.registry.group(&model.group).await?.is_some() {
            return Ok(());
        }
        let tags = self.target.manifest.tags.0.clone();
        let group = GroupSpec { name: model.group.clone(), description: None, tags };
        let Err(error) = self.registry.create_group(&group).await else { return Ok(()) };
        // Another job made it meanwhile, or the answer was lost.
        match self.registry.group(&model.group).await? {
            Some(_) => Ok(()),
            None => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_needs_a_whole_digest() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(image_digest(&format!("r/i:1@sha256:{digits}")).unwrap(), format!("sha256:{digits}"));
        for image in
            ["r/i".to_owned(), "r/i:latest".to_owned(), "r/i@sha256:12".to_owned(), format!("r/i@sha256:{digits}0")]
        {
            assert!(image_digest(&image).unwrap_err().to_string().ends_with("has no digest"), "{image}");
        }
    }
}
