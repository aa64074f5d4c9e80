//! Fake of an account: its caller, images, roles and quotas.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::faults::Fake;
use crate::cloud::{
    AccountQuotas, AccountRole, AccountRoles, BucketEncryption, CallerIdentity, CloudError, CredentialSight,
    DenialReason, ExpiringPrefix, ImageRegistry, KeySight, RepositoryImage, RepositoryImages, RouteTableSight,
    SecurityGroupSight, SubnetSight, VpcEndpointSight,
};

/// An account in maps.
pub type MemoryAccount = Fake<AccountState>;

#[derive(Debug, Default)]
pub struct AccountState {
    caller: String,
    /// Platforms by `REPOSITORY@DIGEST`.
    images: BTreeMap<String, Vec<String>>,
    /// By repository.
    stored: BTreeMap<String, Vec<RepositoryImage>>,
    /// Repositories that other accounts may read.
    shared: BTreeSet<String>,
    roles: BTreeMap<String, AccountRole>,
    /// ARNs of roles that callers may pass.
    passed: Vec<String>,
    quotas: BTreeMap<String, f64>,
    pub(super) settings: AccountSettings,
}

/// The policy of a new key: the policies of IAM decide.
const KEY_POLICY: &str = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:root"},"Action":"kms:*","Resource":"*"}}"#;
/// A bucket's policy that keeps the agent of the executor to role `host`.
const BUCKET_POLICY: &str = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::memory/sagemaker-executor/agents/*","Condition":{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::210987654321:role/host"}}}}"#;

/// Settings that an operator makes once, in the form of an account in which all is well.
#[derive(Debug, Clone)]
pub struct AccountSettings {
    pub credentials: CredentialSight,
    pub encryption: BucketEncryption,
    pub blocks_public_access: bool,
    pub bucket_policy: Option<String>,
    pub expiring_prefixes: Vec<ExpiringPrefix>,
    /// By the id, ARN or alias that names them.
    pub keys: BTreeMap<String, KeySight>,
    /// The policy of each of them.
    pub key_policy: String,
    pub subnets: Vec<SubnetSight>,
    pub security_groups: Vec<SecurityGroupSight>,
    pub route_tables: Vec<RouteTableSight>,
    pub endpoints: Vec<VpcEndpointSight>,
    /// Actions that no policy allows, and values of conditions that none has.
    pub denied: BTreeSet<String>,
    /// The reason for all of them.
    pub denied_by: DenialReason,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self {
            credentials: CredentialSight { region: "eu-west-1".to_owned(), ..CredentialSight::default() },
            encryption: BucketEncryption::S3,
            blocks_public_access: true,
            bucket_policy: Some(BUCKET_POLICY.to_owned()),
            expiring_prefixes: vec![ExpiringPrefix { prefix: String::new(), days: 35 }],
            key_policy: KEY_POLICY.to_owned(),
            keys: BTreeMap::new(),
            subnets: Vec::new(),
            security_groups: Vec::new(),
            route_tables: Vec::new(),
            endpoints: Vec::new(),
            denied: BTreeSet::new(),
            denied_by: DenialReason::NoStatement,
        }
    }
}

impl MemoryAccount {
    pub fn set_caller(&self, arn: &str) {
        arn.clone_into(&mut self.inner().service.caller);
    }

    pub fn set_image(&self, image: &str, platforms: &[&str]) {
        let platforms = platforms.iter().map(|&platform| platform.to_owned()).collect();
        self.inner().service.images.insert(image.to_owned(), platforms);
    }

    /// Puts an image into a repository.
    pub fn store_image(&self, repository: &str, image: RepositoryImage) {
        self.inner().service.stored.entry(repository.to_owned()).or_default().push(image);
    }

    /// Gives an image of a repository one more tag.
    pub fn tag_image(&self, repository: &str, digest: &str, tag: &str) {
        let stored = &mut self.inner().service.stored;
        let images = stored.get_mut(repository).into_iter().flatten();
        for image in images.filter(|image| image.digest == digest) {
            image.tags.push(tag.to_owned());
        }
    }

    /// Lets other accounts read a repository.
    pub fn share(&self, repository: &str) {
        self.inner().service.shared.insert(repository.to_owned());
    }

    /// Digests of the images of a repository.
    pub fn digests(&self, repository: &str) -> Vec<String> {
        let service = &self.inner().service;
        let images = service.stored.get(repository).into_iter().flatten();
        images.map(|image| image.digest.clone()).collect()
    }

    /// Adds a role, which callers may pass.
    pub fn set_role(&self, arn: &str, trust: &str) {
        let name = arn.rsplit('/').next().unwrap_or_default().to_owned();
        let service = &mut self.inner().service;
        service.roles.insert(name, AccountRole { arn: arn.to_owned(), trust: trust.to_owned() });
        service.passed.push(arn.to_owned());
    }

    /// Callers may pass no role any more.
    pub fn pass_no_role(&self) {
        self.inner().service.passed.clear();
    }

    /// Changes the settings of the account.
    pub fn change_settings(&self, change: impl FnOnce(&mut AccountSettings)) {
        change(&mut self.inner().service.settings);
    }

    pub fn set_quota(&self, instance_type: &str, instances: f64) {
        self.inner().service.quotas.insert(instance_type.to_owned(), instances);
    }
}

#[async_trait]
impl CallerIdentity for MemoryAccount {
    async fn arn(&self) -> Result<String, CloudError> {
        self.call("arn", "", |service| Ok(service.caller.clone())).await
    }

    async fn credentials(&self) -> Result<CredentialSight, CloudError> {
        self.call("credentials", "", |service| Ok(service.settings.credentials.clone())).await
    }
}

#[async_trait]
impl ImageRegistry for MemoryAccount {
    async fn platforms(&self, _: &str, repository: &str, digest: &str) -> Result<Option<Vec<String>>, CloudError> {
        let image = format!("{repository}@{digest}");
        self.call("platforms", &image, |service| Ok(service.images.get(&image).cloned())).await
    }
}

#[async_trait]
impl RepositoryImages for MemoryAccount {
    async fn repository_images(&self, _: &str, repository: &str) -> Result<Vec<RepositoryImage>, CloudError> {
        let act = |service: &mut AccountState| Ok(service.stored.get(repository).cloned().unwrap_or_default());
        self.call("repository_images", repository, act).await
    }

    async fn is_shared(&self, _: &str, repository: &str) -> Result<bool, CloudError> {
        self.call("is_shared", repository, |service| Ok(service.shared.contains(repository))).await
    }

    async fn delete_images(
        &self,
        _: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<(String, String)>, CloudError> {
        let act = |service: &mut AccountState| {
            let images = service.stored.entry(repository.to_owned()).or_default();
            images.retain(|image| !digests.contains(&image.digest));
            Ok(Vec::new())
        };
        self.call("delete_images", &digests.join(" "), act).await
    }
}

#[async_trait]
impl AccountRoles for MemoryAccount {
    async fn find(&self, name: &str) -> Result<Option<AccountRole>, CloudError> {
        self.call("find", name, |service| Ok(service.roles.get(name).cloned())).await
    }

    async fn may_pass(&self, _: &str, role: &str) -> Result<bool, CloudError> {
        self.call("may_pass", role, |service| Ok(service.passed.iter().any(|one| one == role))).await
    }
}

#[async_trait]
impl AccountQuotas for MemoryAccount {
    async fn endpoint_instances(&self, instance_type: &str) -> Result<Option<f64>, CloudError> {
        self.call("endpoint_instances", instance_type, |service| Ok(service.quotas.get(instance_type).copied())).await
    }

    async fn all(&self) -> Result<BTreeMap<String, f64>, CloudError> {
        self.call("all", "", |service| Ok(service.quotas.clone())).await
    }
}
