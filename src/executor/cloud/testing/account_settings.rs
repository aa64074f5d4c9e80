//! Fake of what an operator sets in an account: bucket, keys, networks, permissions. Part of [`MemoryAccount`].

use async_trait::async_trait;

use super::account::{AccountState, MemoryAccount};
use crate::cloud::{
    AccountNetworks, BucketConfiguration, BucketEncryption, CloudError, DeniedAction, EncryptionKeys, ExpiringPrefix,
    KeySight, PermissionQuestion, Permissions, RouteTableSight, SecurityGroupSight, SubnetSight, VpcEndpointSight,
};

#[async_trait]
impl BucketConfiguration for MemoryAccount {
    async fn encryption(&self) -> Result<BucketEncryption, CloudError> {
        self.call("encryption", "", |service| Ok(service.settings.encryption.clone())).await
    }

    async fn blocks_public_access(&self) -> Result<bool, CloudError> {
        self.call("blocks_public_access", "", |service| Ok(service.settings.blocks_public_access)).await
    }

    async fn policy(&self) -> Result<Option<String>, CloudError> {
        self.call("policy", "", |service| Ok(service.settings.bucket_policy.clone())).await
    }

    async fn expiring_prefixes(&self) -> Result<Vec<ExpiringPrefix>, CloudError> {
        self.call("expiring_prefixes", "", |service| Ok(service.settings.expiring_prefixes.clone())).await
    }
}

#[async_trait]
impl EncryptionKeys for MemoryAccount {
    async fn describe(&self, key: &str) -> Result<Option<KeySight>, CloudError> {
        self.call("describe", key, |service| Ok(service.settings.keys.get(key).cloned())).await
    }

    async fn policy(&self, key: &str) -> Result<String, CloudError> {
        self.call("key_policy", key, |service| Ok(service.settings.key_policy.clone())).await
    }
}

#[async_trait]
impl AccountNetworks for MemoryAccount {
    async fn subnet(&self, id: &str) -> Result<Option<SubnetSight>, CloudError> {
        let find =
            |service: &mut AccountState| Ok(service.settings.subnets.iter().find(|subnet| subnet.id == id).cloned());
        self.call("subnet", id, find).await
    }

    async fn security_group(&self, id: &str) -> Result<Option<SecurityGroupSight>, CloudError> {
        let find = |service: &mut AccountState| {
            Ok(service.settings.security_groups.iter().find(|group| group.id == id).cloned())
        };
        self.call("security_group", id, find).await
    }

    async fn route_tables(&self, vpc: &str) -> Result<Vec<RouteTableSight>, CloudError> {
        self.call("route_tables", vpc, |service| Ok(service.settings.route_tables.clone())).await
    }

    async fn endpoints(&self, vpc: &str) -> Result<Vec<VpcEndpointSight>, CloudError> {
        self.call("endpoints", vpc, |service| Ok(service.settings.endpoints.clone())).await
    }
}

#[async_trait]
impl Permissions for MemoryAccount {
    async fn denied(&self, principal: &str, question: &PermissionQuestion) -> Result<Vec<DeniedAction>, CloudError> {
        let find = |service: &mut AccountState| {
            let settings = &service.settings;
            let mut values = question.context.values().flat_map(|(_, values)| values);
            let lacks_value = values.any(|value| settings.denied.contains(value));
            let denied = question.actions.iter().filter(|action| lacks_value || settings.denied.contains(*action));
            let pairs = denied.flat_map(|action| question.resources.iter().map(move |resource| (action, resource)));
            let denied = pairs.map(|(action, resource)| DeniedAction {
                action: action.clone(),
                resource: resource.clone(),
                why: settings.denied_by.clone(),
            });
            Ok(denied.collect())
        };
        self.call("denied", principal, find).await
    }
}
