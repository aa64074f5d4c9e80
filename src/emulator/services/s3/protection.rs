//! Encryption and block of public access of a bucket: kept and shown; nothing acts by them.

use s3s::dto;
use s3s::{S3Result, s3_error};
use serde_json::json;

use super::convert::fault;
use super::operations::S3Operations;

impl S3Operations {
    /// Every bucket of S3 is encrypted, since 2023 by keys of S3 when nobody says more.
    pub(super) fn encryption(&self, bucket: &str) -> S3Result<dto::GetBucketEncryptionOutput> {
        let stored = self.store.settings(bucket).map_err(fault)?.encryption;
        let stored = stored.unwrap_or_else(|| json!({"algorithm": "AES256"}));
        let text = |name: &str| stored[name].as_str().map(str::to_owned);
        let default = dto::ServerSideEncryptionByDefault {
            sse_algorithm: dto::ServerSideEncryption::from(text("algorithm").unwrap_or_default()),
            kms_master_key_id: text("key"),
        };
        let rule = dto::ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(default),
            ..Default::default()
        };
        let configuration = dto::ServerSideEncryptionConfiguration { rules: vec![rule] };
        Ok(dto::GetBucketEncryptionOutput { server_side_encryption_configuration: Some(configuration) })
    }

    pub(super) fn put_encryption(&self, input: &dto::PutBucketEncryptionInput) -> S3Result<()> {
        let rules = &input.server_side_encryption_configuration.rules;
        let default = rules.iter().find_map(|rule| rule.apply_server_side_encryption_by_default.as_ref());
        let default = default.ok_or_else(|| s3_error!(MalformedXML))?;
        let stored = json!({"algorithm": default.sse_algorithm.as_str(), "key": default.kms_master_key_id});
        self.store.change_settings(&input.bucket, |settings| settings.encryption = Some(stored)).map_err(fault)
    }

    /// New buckets of S3 block all public access.
    pub(super) fn public_access(&self, bucket: &str) -> S3Result<dto::GetPublicAccessBlockOutput> {
        let stored = self.store.settings(bucket).map_err(fault)?.public_access;
        let switch = |number: usize| stored.as_ref().map_or(Some(true), |stored| stored[number].as_bool());
        let configuration = dto::PublicAccessBlockConfiguration {
            block_public_acls: switch(0),
            ignore_public_acls: switch(1),
            block_public_policy: switch(2),
            restrict_public_buckets: switch(3),
        };
        Ok(dto::GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) })
    }

    pub(super) fn set_public_access(&self, bucket: &str, block: &dto::PublicAccessBlockConfiguration) -> S3Result<()> {
        let stored = json!([
            block.block_public_acls,
            block.ignore_public_acls,
            block.block_public_policy,
            block.restrict_public_buckets
        ]);
        self.store.change_settings(bucket, |settings| settings.public_access = Some(stored)).map_err(fault)
    }
}
