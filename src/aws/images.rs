//! Images in ECR, over the SDK.
//!
//! The platform of an image with one is in its configuration, which ECR serves by a presigned address.

mod stored;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::types::ImageIdentifier;
use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use executor::cloud::{CloudError, CloudErrorKind, ImageRegistry};
use serde_json::Value;

use super::clients::Clients;

pub(super) const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Largest configuration of an image, in bytes.
const LARGEST_CONFIGURATION: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct AwsImages {
    clients: Arc<Clients>,
}

impl AwsImages {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    /// The configuration of an image with one platform.
    async fn configuration(&self, account: &str, repository: &str, digest: &str) -> Result<Value, CloudError> {
        let what = format!("the configuration of an image in {repository}");
        let call = self.clients.call("get", what, "ecr:GetDownloadUrlForLayer");
        let request = self.clients.ecr().get_download_url_for_layer().registry_id(account);
        let request = request.repository_name(repository).layer_digest(digest);
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        let address = reply.download_url.unwrap_or_default();
        let request = self.clients.s3().get_object().bucket("image-layers").key("configuration");
        let reply = request.customize().interceptor(Presigned(address)).send().await;
        let body = reply.map_err(|error| call.failed(&error))?.body;
        let unusable = |text: &str| call.error(CloudErrorKind::Other, text);
        let mut bytes = Vec::new();
        let mut body = body;
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(|_| unusable("the connection ended within the configuration"))?);
            if bytes.len() > LARGEST_CONFIGURATION {
                return Err(unusable("the configuration is larger than that of an image"));
            }
        }
        serde_json::from_slice(&bytes).map_err(|_| unusable("the configuration is not JSON"))
    }
}

#[async_trait]
impl ImageRegistry for AwsImages {
    async fn platforms(
        &self,
        account: &str,
        repository: &str,
        digest: &str,
    ) -> Result<Option<Vec<String>>, CloudError> {
        let call = self.clients.call("look for", format!("the image {repository}@{digest}"), "ecr:BatchGetImage");
        let id = ImageIdentifier::builder().image_digest(digest).build();
        let request = self.clients.ecr().batch_get_image().registry_id(account).repository_name(repository);
        let request = request.image_ids(id).set_accepted_media_types(Some(MANIFESTS.map(str::to_owned).into()));
        let reply = match request.send().await {
            Err(error) if error.code() == Some("RepositoryNotFoundException") => return Ok(None),
            reply => reply.map_err(|error| call.failed(&error))?,
        };
        let Some(text) = reply.images().iter().find_map(|image| image.image_manifest()) else { return Ok(None) };
        let manifest: Value = serde_json::from_str(text)
            .map_err(|_| call.error(CloudErrorKind::Other, "the image's manifest is not JSON"))?;
        if let Some(entries) = manifest["manifests"].as_array() {
            let all: Vec<_> = entries.iter().filter_map(|entry| platform(&entry["platform"])).collect();
            return Ok(Some(all));
        }
        let configuration = manifest["config"]["digest"].as_str().unwrap_or_default();
        let configuration = self.configuration(account, repository, configuration).await?;
        Ok(Some(platform(&configuration).into_iter().collect()))
    }
}

/// `linux/amd64`. Attestations are listed beside images as `unknown/unknown`.
fn platform(value: &Value) -> Option<String> {
    let (system, architecture) = (value["os"].as_str()?, value["architecture"].as_str()?);
    (system != "unknown").then(|| format!("{system}/{architecture}"))
}

/// Sends the request to a presigned address, without any header: that address is its proof.
#[derive(Debug)]
struct Presigned(String);

impl Intercept for Presigned {
    fn name(&self) -> &'static str {
        "Presigned"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut request = HttpRequest::empty();
        request.set_uri(self.0.as_str())?;
        *context.request_mut() = request;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    fn found(manifest: &str) -> axum::response::Response {
        let answer = serde_json::json!({"images": [{"imageManifest": manifest}], "failures": []});
        reply(200, answer.to_string())
    }

    async fn platforms(stub: &Stub) -> Result<Option<Vec<String>>, CloudError> {
        AwsImages::new(Arc::clone(&stub.clients)).platforms("123456789012", "serve", "sha256:a").await
    }

    #[tokio::test]
    async fn a_list_names_its_platforms_and_attestations_are_none() {
        let stub = Stub::start().await;
        stub.push(found(
            r#"{"manifests": [{"platform": {"os": "linux", "architecture": "arm64"}}, {"platform": {"os": "unknown", "architecture": "unknown"}}]}"#,
        ));
        assert_eq!(platforms(&stub).await.unwrap(), Some(vec!["linux/arm64".to_owned()]));
    }

    #[tokio::test]
    async fn a_single_image_is_asked_for_its_configuration_without_credentials() {
        let stub = Stub::start().await;
        let address = format!("{}/layers/c?X-Amz-Signature=s", stub.access.endpoint_url.as_ref().unwrap());
        stub.push(found(r#"{"config": {"digest": "sha256:c"}}"#));
        stub.push(reply(200, serde_json::json!({"downloadUrl": address, "layerDigest": "sha256:c"}).to_string()));
        stub.push(reply(200, r#"{"os": "linux", "architecture": "amd64"}"#));
        assert_eq!(platforms(&stub).await.unwrap(), Some(vec!["linux/amd64".to_owned()]));
        let [_, _, fetched] = stub.seen().try_into().unwrap();
        assert_eq!((fetched.uri.as_str(), fetched.authorization), ("/layers/c?X-Amz-Signature=s", None));
    }

    #[tokio::test]
    async fn an_absent_image_or_repository_is_none() {
        let stub = Stub::start().await;
        stub.push(reply(200, r#"{"images": [], "failures": [{"failureCode": "ImageNotFound"}]}"#));
        assert_eq!(platforms(&stub).await.unwrap(), None);
        stub.push(crate::stub::refusal(400, "RepositoryNotFoundException", "no"));
        assert_eq!(platforms(&stub).await.unwrap(), None);
        stub.push(crate::stub::refusal(400, "AccessDeniedException", "no"));
        assert_eq!(platforms(&stub).await.unwrap_err().action, "ecr:BatchGetImage");
    }
}
