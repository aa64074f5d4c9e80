//! Single objects of any bucket, and copies of them within S3, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective, ServerSideEncryption};
use executor::cloud::{Access, CloudError, CloudErrorKind, Sha256Hash, SourceObject, SourceObjects};
use sha2::{Digest as _, Sha256};

use super::clients::{Clients, TRANSFER_ATTEMPT_TIMEOUT, timeouts};
use super::errors::AwsCall;
use super::objects::decoded;

#[derive(Debug)]
pub(super) struct AwsSourceObjects {
    clients: Arc<Clients>,
    bucket: String,
    prefix: String,
    kms_key_id: Option<String>,
}

impl AwsSourceObjects {
    pub(super) fn new(clients: Arc<Clients>, access: &Access) -> Self {
        Self {
            clients,
            bucket: access.bucket.clone(),
            prefix: access.prefix.trim_matches('/').to_owned(),
            kms_key_id: access.kms_key_id.clone(),
        }
    }

    fn call(&self, verb: &str, bucket: &str, key: &str, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("object s3://{bucket}/{key}"), action)
    }
}

#[async_trait]
impl SourceObjects for AwsSourceObjects {
    async fn look(&self, bucket: &str, key: &str) -> Result<Option<SourceObject>, CloudError> {
        let call = self.call("look at", bucket, key, "s3:GetObject");
        let request = self.clients.s3().head_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        match request.send().await {
            Ok(reply) => Ok(Some(SourceObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                bytes: reply.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                hash: reply.checksum_sha256().and_then(decoded),
                etag: reply.e_tag.unwrap_or_default(),
            })),
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound { Ok(None) } else { Err(error) }
            }
        }
    }

    async fn hash(&self, source: &SourceObject) -> Result<Sha256Hash, CloudError> {
        let call = self.call("get", &source.bucket, &source.key, "s3:GetObject");
        let request = self.clients.s3().get_object().bucket(&source.bucket).key(&source.key).if_match(&source.etag);
        let mut body = request.send().await.map_err(|error| call.failed(&error))?.body;
        let mut hash = Sha256::new();
        while let Some(part) = body.next().await {
            hash.update(part.map_err(|error| call.broke_off(&error))?);
        }
        Ok(hash.finalize().into())
    }

    async fn copy(&self, source: &SourceObject, key: &str) -> Result<(), CloudError> {
        let key = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        let call = self.call("copy", &source.bucket, &source.key, "s3:GetObject");
        let limit = timeouts(TRANSFER_ATTEMPT_TIMEOUT);
        self.clients
            .s3()
            .copy_object()
            .copy_source(format!("{}/{}", source.bucket, escaped(&source.key)))
            .copy_source_if_match(&source.etag)
            .bucket(&self.bucket)
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .metadata_directive(MetadataDirective::Replace)
            .set_server_side_encryption(self.kms_key_id.as_ref().map(|_| ServerSideEncryption::AwsKms))
            .set_ssekms_key_id(self.kms_key_id.clone())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(limit))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call.failed(&error))
    }
}

/// The key as the header of a copy has it: in the form of a URL, with its slashes.
fn escaped(key: &str) -> String {
    key.split('/').map(|part| urlencoding::encode(part).into_owned()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply, s3_refusal};

    fn source() -> SourceObject {
        SourceObject {
            bucket: "data".to_owned(),
            key: "a b/model+1.tar.gz".to_owned(),
            bytes: 3,
            etag: "\"e\"".to_owned(),
            hash: None,
        }
    }

    #[tokio::test]
    async fn a_copy_is_one_request_within_s3_for_one_content() {
        let stub = Stub::start().await;
        stub.push(reply(200, "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>"));
        stub.source_objects.copy(&source(), "models/1/model.tar.gz").await.unwrap();
        let [seen] = stub.seen().try_into().unwrap();
        assert_eq!((seen.method.as_str(), seen.body.len()), ("PUT", 0));
        assert!(seen.uri.starts_with("/bucket/pre/fix/models/1/model.tar.gz"), "{}", seen.uri);
        assert_eq!(seen.copy_source.as_deref(), Some("data/a%20b/model%2B1.tar.gz if \"e\""));
    }

    #[tokio::test]
    async fn a_hash_that_the_store_lacks_is_made_of_the_body() {
        let stub = Stub::start().await;
        stub.push(reply(200, "abc"));
        assert_eq!(stub.source_objects.hash(&source()).await.unwrap().as_slice(), Sha256::digest("abc").as_slice());
        stub.push(s3_refusal(412, "PreconditionFailed"));
        assert_eq!(stub.source_objects.hash(&source()).await.unwrap_err().kind, CloudErrorKind::Exists);
        stub.push(reply(404, ""));
        assert_eq!(stub.source_objects.look("data", "x").await.unwrap(), None);
    }
}
