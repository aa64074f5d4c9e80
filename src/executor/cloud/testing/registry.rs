//! Fake of SageMaker's model registry. Versions are completed at once, unless a test says otherwise.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use super::faults::Fake;
use crate::cloud::{
    Approval, CloudError, CloudErrorKind, GroupSpec, ModelRegistry, ModelVersion, ModelVersionPage, RegistrationState,
    VersionChange, VersionSpec, VersionSummary,
};

/// Groups and versions in a map.
pub type MemoryRegistry = Fake<RegistryState>;

/// Region and account of all ARNs.
const PLACE: &str = "eu-west-1:123456789012";
/// Versions of one page.
const PAGE: usize = 2;

#[derive(Debug, Default)]
pub struct RegistryState {
    groups: BTreeMap<String, GroupSpec>,
    versions: Vec<ModelVersion>,
    /// The requests of the versions, in their order.
    requests: Vec<VersionSpec>,
    /// State of versions that are made from now on.
    begins_as: Option<RegistrationState>,
    /// An update replaces the metadata, instead of adding to it.
    replaces: bool,
    /// Versions of one page, when a test sets them.
    page: Option<usize>,
    /// Lists show no version, so many times.
    late_lists: usize,
}

impl MemoryRegistry {
    /// All versions, in the order in which they were made.
    pub fn all(&self) -> Vec<ModelVersion> {
        self.inner().service.versions.clone()
    }

    /// The requests that made the versions.
    pub fn requests(&self) -> Vec<VersionSpec> {
        self.inner().service.requests.clone()
    }

    /// The groups.
    pub fn groups(&self) -> Vec<GroupSpec> {
        self.inner().service.groups.values().cloned().collect()
    }

    /// Changes a version by hand.
    pub fn change(&self, arn: &str, change: impl FnOnce(&mut ModelVersion)) {
        if let Some(version) = self.inner().service.versions.iter_mut().find(|version| version.arn == arn) {
            change(version);
        }
    }

    /// Updates replace the metadata.
    pub fn replace_metadata(&self) {
        self.inner().service.replaces = true;
    }

    /// Pages have so many versions.
    pub fn set_page(&self, versions: usize) {
        self.inner().service.page = Some(versions);
    }

    /// So many lists show no version.
    pub fn list_late(&self, lists: usize) {
        self.inner().service.late_lists = lists;
    }

    /// Versions that are made from now on have this state.
    pub fn begin_as(&self, state: RegistrationState) {
        self.inner().service.begins_as = Some(state);
    }
}

fn error(kind: CloudErrorKind, operation: String, message: &str) -> CloudError {
    CloudError { kind, operation, message: message.to_owned(), action: "" }
}

fn summary(version: &ModelVersion) -> VersionSummary {
    VersionSummary {
        arn: version.arn.clone(),
        number: version.number,
        description: version.description.clone(),
        state: version.state.clone(),
        approval: version.approval,
        created: version.created,
    }
}

impl RegistryState {
    fn create(&mut self, spec: &VersionSpec) -> Result<String, CloudError> {
        let operation = || format!("create a version of {}", spec.group);
        if let Some(at) = self.requests.iter().position(|known| known.client_token == spec.client_token) {
            if self.requests.get(at) != Some(spec) {
                return Err(error(CloudErrorKind::Exists, operation(), "ConflictException"));
            }
            return Ok(self.versions.get(at).map(|version| version.arn.clone()).unwrap_or_default());
        }
        if !self.groups.contains_key(&spec.group) {
            return Err(error(CloudErrorKind::NotFound, operation(), "no such group"));
        }
        let of_group = self.versions.iter().filter(|version| version.group == spec.group);
        let number = of_group.map(|version| version.number).max().unwrap_or(0) + 1;
        let version = ModelVersion {
            arn: format!("arn:aws:sagemaker:{PLACE}:model-package/{}/{number}", spec.group),
            group: spec.group.clone(),
            number,
            description: spec.description.clone(),
            state: self.begins_as.clone().unwrap_or(RegistrationState::Completed),
            approval: Approval::Pending,
            approval_description: String::new(),
            created: Some(SystemTime::UNIX_EPOCH),
            image: spec.image.clone(),
            image_digest: None,
            images: vec![spec.image.clone()],
            model_data_url: spec.model_data_url.clone(),
            environment: spec.environment.clone(),
            metrics: spec.metrics.clone(),
            metadata: spec.metadata.clone(),
        };
        self.requests.push(spec.clone());
        self.versions.push(version.clone());
        Ok(version.arn)
    }
}

/// Version 3 of the group `wine`, approved.
pub fn example_version() -> ModelVersion {
    ModelVersion {
        arn: "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/3".to_owned(),
        group: "wine".to_owned(),
        number: 3,
        description: String::new(),
        state: RegistrationState::Completed,
        approval: Approval::Approved,
        approval_description: String::new(),
        created: None,
        image: "r/serve".to_owned(),
        image_digest: Some("sha256:1".to_owned()),
        images: Vec::new(),
        model_data_url: "s3://b/models/1/model.tar.gz".to_owned(),
        environment: BTreeMap::from([("LEVEL".to_owned(), "1".to_owned())]),
        metrics: None,
        metadata: BTreeMap::new(),
    }
}

#[async_trait]
impl ModelRegistry for MemoryRegistry {
    async fn group(&self, name: &str) -> Result<Option<String>, CloudError> {
        let arn = format!("arn:aws:sagemaker:{PLACE}:model-package-group/{name}");
        self.call("group", name, |service| Ok(service.groups.contains_key(name).then_some(arn))).await
    }

    async fn create_group(&self, group: &GroupSpec) -> Result<String, CloudError> {
        let act = |service: &mut RegistryState| {
            if service.groups.contains_key(&group.name) {
                let operation = format!("create model package group {}", group.name);
                return Err(error(CloudErrorKind::Invalid, operation, "Model Package Group already exists."));
            }
            service.groups.insert(group.name.clone(), group.clone());
            Ok(format!("arn:aws:sagemaker:{PLACE}:model-package-group/{}", group.name))
        };
        self.call("create_group", &group.name, act).await
    }

    async fn versions(
        &self,
        group: &str,
        approval: Option<Approval>,
        page: Option<String>,
    ) -> Result<ModelVersionPage, CloudError> {
        let act = |service: &mut RegistryState| {
            if service.late_lists > 0 {
                service.late_lists -= 1;
                return Ok(ModelVersionPage::default());
            }
            let is_meant = |version: &&ModelVersion| {
                version.group == group && approval.is_none_or(|approval| version.approval == approval)
            };
            let from: usize = page.and_then(|page| page.parse().ok()).unwrap_or_default();
            let all: Vec<_> = service.versions.iter().rev().filter(is_meant).collect();
            let page = service.page.unwrap_or(PAGE);
            let versions = all.iter().skip(from).take(page).map(|version| summary(version));
            let next = (from + page < all.len()).then(|| (from + page).to_string());
            Ok(ModelVersionPage { versions: versions.collect(), next })
        };
        self.call("versions", group, act).await
    }

    async fn all_versions(&self, after: Option<SystemTime>) -> Result<Vec<VersionSummary>, CloudError> {
        let act = |service: &mut RegistryState| {
            let is_meant = |version: &&ModelVersion| version.created.is_none_or(|created| Some(created) > after);
            Ok(service.versions.iter().rev().filter(is_meant).map(summary).collect())
        };
        self.call("all_versions", "", act).await
    }

    async fn version(&self, arn: &str) -> Result<Option<ModelVersion>, CloudError> {
        let act = |service: &mut RegistryState| Ok(service.versions.iter().find(|version| version.arn == arn).cloned());
        self.call("version", arn, act).await
    }

    async fn create_version(&self, version: &VersionSpec) -> Result<String, CloudError> {
        self.call("create_version", &version.group, |service| service.create(version)).await
    }

    async fn delete_version(&self, arn: &str) -> Result<(), CloudError> {
        let act = |service: &mut RegistryState| {
            if let Some(at) = service.versions.iter().position(|version| version.arn == arn) {
                service.versions.remove(at);
                service.requests.remove(at);
            }
            Ok(())
        };
        self.call("delete_version", arn, act).await
    }

    async fn update_version(&self, arn: &str, change: &VersionChange) -> Result<(), CloudError> {
        let act = |service: &mut RegistryState| {
            let Some(version) = service.versions.iter_mut().find(|version| version.arn == arn) else {
                return Err(error(CloudErrorKind::NotFound, format!("update {arn}"), "no such version"));
            };
            version.approval = change.approval.unwrap_or(version.approval);
            if let Some(description) = &change.approval_description {
                version.approval_description.clone_from(description);
            }
            if service.replaces && !change.metadata.is_empty() {
                version.metadata.clear();
            }
            version.metadata.extend(change.metadata.clone());
            Ok(())
        };
        self.call("update_version", arn, act).await
    }
}
