//! The version of a package in the registry of the environment that deploys it.
//!
//! The same package is the same version, whichever pipeline deploys it and whoever runs the job: what was approved once stays approved
//! for these bytes, and for no others.

use std::sync::Arc;

use super::approvals::ApprovalRule;
use super::lineage::PackageOrigin;
use super::register::Registration;
use super::source::{MetricsFile, ModelOrigin};
use crate::base::failure::Failure;
use crate::cloud::{ModelRegistry, ModelVersion, ObjectStore, Sha256Hash};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::gate;
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::target::ProjectTarget;

/// A package's version, before it is looked for.
pub(crate) struct PackagedVersion<'a> {
    registration: Registration<'a>,
}

impl<'a> PackagedVersion<'a> {
    /// `archive` is the hash of the model's archive, and `image_digest` that of the manifest's image, with its kind. The version will
    /// need the approvals of the `rule` at least.
    ///
    /// # Errors
    /// Failures of AWS; the metrics are below the manifest's bars.
    pub(in crate::lifecycle) async fn new(
        inputs: &CommandInputs,
        target: &'a ProjectTarget,
        package: &'a PackageOrigin,
        (archive, image_digest): (Sha256Hash, &'a str),
        metrics: Vec<MetricsFile>,
        author: Option<JobUser>,
        rule: ApprovalRule,
    ) -> anyhow::Result<Self> {
        let model = target.model()?;
        if !model.require.is_empty() {
            let evidence: Vec<_> = metrics.iter().map(MetricsFile::source).collect();
            gate::check_bars(model, &evidence).map_err(|failure| of_package(failure, &package.name))?;
        }
        let (connect, access) = (&inputs.connect, &target.access);
        let registry: Arc<dyn ModelRegistry> = connect.registry(access).await?;
        let objects: Arc<dyn ObjectStore> = connect.objects(access).await?;
        let registration = Registration {
            registry,
            objects,
            sources: connect.source_objects(access).await?,
            target,
            image_digest,
            model: ModelOrigin::Stored { identity: format!("package {}", package.sha256), hash: archive },
            metrics,
            author,
            package: Some(package),
            rule,
        };
        Ok(Self { registration })
    }

    /// The version, if it is there.
    ///
    /// # Errors
    /// A version with the mark of this package is another one.
    pub(crate) async fn find(&self) -> anyhow::Result<Option<ModelVersion>> {
        self.registration.found().await
    }

    /// The version, which is made unless it is there. The model's archive must be stored.
    ///
    /// # Errors
    /// As [`PackagedVersion::find`], and failures of AWS.
    pub(crate) async fn register(&self) -> anyhow::Result<(&'static str, ModelVersion)> {
        self.registration.run().await
    }
}

fn of_package(failure: Failure, name: &str) -> Failure {
    failure.hint(format!("the metrics are those of the package {name}: deploy another one"))
}
