//! Settings of the executor's bucket, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, ServerSideEncryption};
use executor::cloud::{Access, BucketConfiguration, BucketEncryption, CloudError, ExpiringPrefix};

use super::clients::Clients;
use super::errors::AwsCall;
use super::objects::full_key;

#[derive(Debug)]
pub(super) struct AwsBucketConfiguration {
    clients: Arc<Clients>,
    bucket: String,
    prefix: String,
}

impl AwsBucketConfiguration {
    pub(super) fn new(clients: Arc<Clients>, access: &Access) -> Self {
        Self { clients, bucket: access.bucket.clone(), prefix: access.prefix.clone() }
    }

    fn call(&self, what: &str, action: &'static str) -> AwsCall {
        self.clients.call("read", format!("{what} of the bucket {}", self.bucket), action)
    }
}

#[async_trait]
impl BucketConfiguration for AwsBucketConfiguration {
    async fn encryption(&self) -> Result<BucketEncryption, CloudError> {
        let call = self.call("the encryption", "s3:GetEncryptionConfiguration");
        let reply = match self.clients.s3().get_bucket_encryption().bucket(&self.bucket).send().await {
            // Since 2023 every bucket has one; a store that keeps none encrypts as S3 does by itself.
            Err(error) if error.code() == Some("ServerSideEncryptionConfigurationNotFoundError") => {
                return Ok(BucketEncryption::S3);
            }
            reply => reply.map_err(|error| call.failed(&error))?,
        };
        let rules = reply.server_side_encryption_configuration.map(|one| one.rules).unwrap_or_default();
        let default = rules.into_iter().find_map(|rule| rule.apply_server_side_encryption_by_default);
        Ok(match default {
            Some(default) if default.sse_algorithm != ServerSideEncryption::Aes256 => {
                BucketEncryption::Kms { key: default.kms_master_key_id }
            }
            _ => BucketEncryption::S3,
        })
    }

    async fn blocks_public_access(&self) -> Result<bool, CloudError> {
        let call = self.call("the block of public access", "s3:GetBucketPublicAccessBlock");
        let reply = match self.clients.s3().get_public_access_block().bucket(&self.bucket).send().await {
            Err(error) if error.code() == Some("NoSuchPublicAccessBlockConfiguration") => return Ok(false),
            reply => reply.map_err(|error| call.failed(&error))?,
        };
        let block = reply.public_access_block_configuration;
        Ok(block.is_some_and(|block| {
            let switches = [
                block.block_public_acls,
                block.ignore_public_acls,
                block.block_public_policy,
                block.restrict_public_buckets,
            ];
            switches.iter().all(|switch| *switch == Some(true))
        }))
    }

    async fn policy(&self) -> Result<Option<String>, CloudError> {
        let call = self.call("the policy", "s3:GetBucketPolicy");
        match self.clients.s3().get_bucket_policy().bucket(&self.bucket).send().await {
            Err(error) if error.code() == Some("NoSuchBucketPolicy") => Ok(None),
            reply => Ok(reply.map_err(|error| call.failed(&error))?.policy),
        }
    }

    async fn expiring_prefixes(&self) -> Result<Vec<ExpiringPrefix>, CloudError> {
        let call = self.call("the lifecycle rules", "s3:GetLifecycleConfiguration");
        let rules = match self.clients.s3().get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await {
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
            reply => reply.map_err(|error| call.failed(&error))?.rules.unwrap_or_default(),
        };
        let own = full_key(&self.prefix, "");
        Ok(rules.iter().filter_map(|rule| expiring(rule, &own)).collect())
    }
}

/// The prefix of a rule that deletes objects, relative to the executor's own; `own` is the full key of the empty key.
fn expiring(rule: &LifecycleRule, own: &str) -> Option<ExpiringPrefix> {
    let days = rule.expiration.as_ref().and_then(|expiration| expiration.days);
    let days = days.and_then(|days| u32::try_from(days).ok()).filter(|days| *days > 0)?;
    if rule.status != ExpirationStatus::Enabled {
        return None;
    }
    let filter = rule.filter.as_ref();
    // A rule for some tags or sizes is not for all objects.
    let is_partial = filter.is_some_and(|filter| {
        filter.tag.is_some()
            || filter.and.is_some()
            || filter.object_size_greater_than.is_some()
            || filter.object_size_less_than.is_some()
    });
    if is_partial {
        return None;
    }
    let prefix = filter.and_then(|filter| filter.prefix.clone()).unwrap_or_default();
    let prefix = if own.starts_with(&prefix) { "" } else { prefix.strip_prefix(own)? };
    Some(ExpiringPrefix { prefix: prefix.to_owned(), days })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    #[tokio::test]
    async fn the_settings_of_a_bucket_are_read() {
        let stub = Stub::start().await;
        let settings = AwsBucketConfiguration::new(Arc::clone(&stub.clients), &stub.access);
        stub.push(reply(
            200,
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>\
             <KMSMasterKeyID>k</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
        ));
        assert_eq!(settings.encryption().await.unwrap(), BucketEncryption::Kms { key: Some("k".to_owned()) });
        stub.push(reply(
            200,
            "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
             <BlockPublicPolicy>false</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>",
        ));
        assert!(!settings.blocks_public_access().await.unwrap());
        let absent = |code: &str| reply(404, format!("<Error><Code>{code}</Code><Message>no</Message></Error>"));
        stub.push(absent("NoSuchPublicAccessBlockConfiguration"));
        assert!(!settings.blocks_public_access().await.unwrap());
        stub.push(absent("NoSuchBucketPolicy"));
        assert_eq!(settings.policy().await.unwrap(), None);
        let rule = |status: &str, prefix: &str, end: &str| {
            format!("<Rule><Status>{status}</Status><Filter><Prefix>{prefix}</Prefix></Filter>{end}</Rule>")
        };
        let days = "<Expiration><Days>7</Days></Expiration>";
        let rules = [
            rule("Enabled", "pre/fix/sessions/", days),
            rule("Disabled", "pre/fix/projects/", days),
            rule(
                "Enabled",
                "pre/",
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
            ),
            rule("Enabled", "other/", days),
        ];
        stub.push(reply(200, format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat())));
        let sessions = ExpiringPrefix { prefix: "sessions/".to_owned(), days: 7 };
        assert_eq!(settings.expiring_prefixes().await.unwrap(), [sessions]);
    }
}
