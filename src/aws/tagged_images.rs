//! One registry of images in ECR, over the SDK, for the commands that build images.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::types::{Image, ImageIdentifier, ImageTagMutability, Repository};
use base64_simd::STANDARD;
use executor::cloud::{CloudError, CloudErrorKind, ImageRepositorySight, RegistryLogin, StoredImage, TaggedImages};

use super::clients::Clients;
use super::images::MANIFESTS;

#[derive(Debug)]
pub(super) struct AwsTaggedImages {
    clients: Arc<Clients>,
}

impl AwsTaggedImages {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    async fn get(
        &self,
        repository: &ImageRepositorySight,
        ids: Vec<ImageIdentifier>,
    ) -> Result<Vec<Image>, CloudError> {
        let what = format!("the images of the repository {}", repository.name);
        let call = self.clients.call("look for", what, "ecr:BatchGetImage");
        let request = self.clients.ecr().batch_get_image().registry_id(&repository.account);
        let request = request.repository_name(&repository.name).set_image_ids(Some(ids));
        let request = request.set_accepted_media_types(Some(MANIFESTS.map(str::to_owned).into()));
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        Ok(reply.images.unwrap_or_default())
    }
}

fn sight(repository: &Repository) -> Option<ImageRepositorySight> {
    let kind = repository.image_tag_mutability();
    let is_immutable = matches!(kind, Some(ImageTagMutability::Immutable | ImageTagMutability::ImmutableWithExclusion));
    let exceptions = repository.image_tag_mutability_exclusion_filters().iter().map(|filter| filter.filter.clone());
    Some(ImageRepositorySight {
        account: repository.registry_id()?.to_owned(),
        name: repository.repository_name()?.to_owned(),
        uri: repository.repository_uri()?.to_owned(),
        is_immutable,
        exceptions: exceptions.collect(),
    })
}

fn stored(image: &Image) -> Option<StoredImage> {
    Some(StoredImage {
        digest: image.image_id()?.image_digest()?.to_owned(),
        manifest: image.image_manifest()?.to_owned(),
        media_type: image.image_manifest_media_type().map(str::to_owned),
    })
}

#[async_trait]
impl TaggedImages for AwsTaggedImages {
    async fn repository(&self, name: &str) -> Result<Option<ImageRepositorySight>, CloudError> {
        let call = self.clients.call("look for", format!("the repository {name}"), "ecr:DescribeRepositories");
        let request = self.clients.ecr().describe_repositories().repository_names(name);
        let reply = match request.send().await {
            Err(error) if error.code() == Some("RepositoryNotFoundException") => return Ok(None),
            reply => reply.map_err(|error| call.failed(&error))?,
        };
        Ok(reply.repositories().first().and_then(sight))
    }

    async fn tagged(
        &self,
        repository: &ImageRepositorySight,
        tags: &[String],
    ) -> Result<BTreeMap<String, StoredImage>, CloudError> {
        let ids = tags.iter().map(|tag| ImageIdentifier::builder().image_tag(tag).build());
        let images = self.get(repository, ids.collect()).await?;
        let of_tag = |image: &Image| Some((image.image_id()?.image_tag()?.to_owned(), stored(image)?));
        Ok(images.iter().filter_map(of_tag).collect())
    }

    async fn image(&self, repository: &ImageRepositorySight, digest: &str) -> Result<Option<StoredImage>, CloudError> {
        let id = ImageIdentifier::builder().image_digest(digest).build();
        let images = self.get(repository, vec![id]).await?;
        Ok(images.iter().find_map(stored))
    }

    async fn add_tag(
        &self,
        repository: &ImageRepositorySight,
        image: &StoredImage,
        tag: &str,
    ) -> Result<(), CloudError> {
        let call =
            self.clients.call("put", format!("the tag {tag} into the repository {}", repository.name), "ecr:PutImage");
        let request = self.clients.ecr().put_image().registry_id(&repository.account).image_tag(tag);
        let request = request.repository_name(&repository.name).image_manifest(&image.manifest);
        let request = request.set_image_manifest_media_type(image.media_type.clone()).image_digest(&image.digest);
        match request.send().await {
            // The same tag on the same image.
            Err(error) if error.code() == Some("ImageAlreadyExistsException") => Ok(()),
            Err(error) if error.code() == Some("ImageTagAlreadyExistsException") => {
                Err(CloudError { kind: CloudErrorKind::Exists, ..call.failed(&error) })
            }
            reply => reply.map(drop).map_err(|error| call.failed(&error)),
        }
    }

    async fn login(&self) -> Result<RegistryLogin, CloudError> {
        let call = self.clients.call("get", "a password of the registry", "ecr:GetAuthorizationToken");
        let reply = self.clients.ecr().get_authorization_token().send().await.map_err(|error| call.failed(&error))?;
        let unusable = || call.error(CloudErrorKind::Other, "the reply has no password and address of a registry");
        let data = reply.authorization_data().first().ok_or_else(unusable)?;
        let pair = STANDARD.decode_to_vec(data.authorization_token().unwrap_or_default()).map_err(|_| unusable())?;
        let pair = String::from_utf8(pair).map_err(|_| unusable())?;
        let (user, password) = pair.split_once(':').ok_or_else(unusable)?;
        let endpoint = data.proxy_endpoint().filter(|address| !address.is_empty()).ok_or_else(unusable)?;
        Ok(RegistryLogin { endpoint: endpoint.to_owned(), user: user.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    fn repository() -> ImageRepositorySight {
        ImageRepositorySight {
            account: "123456789012".to_owned(),
            name: "train".to_owned(),
            uri: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train".to_owned(),
            is_immutable: true,
            exceptions: vec!["dev*".to_owned()],
        }
    }

    #[tokio::test]
    async fn a_repository_has_its_account_and_the_rule_of_its_tags() {
        let stub = Stub::start().await;
        let store = AwsTaggedImages::new(Arc::clone(&stub.clients));
        let expected = repository();
        let described = json!({"repositories": [{
            "registryId": expected.account, "repositoryName": "train", "repositoryUri": expected.uri,
            "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev*"}],
        }]});
        stub.push(reply(200, described.to_string()));
        assert_eq!(store.repository("train").await.unwrap(), Some(expected));
        stub.push(refusal(400, "RepositoryNotFoundException", "no"));
        assert_eq!(store.repository("train").await.unwrap(), None);
        stub.push(refusal(400, "AccessDeniedException", "no"));
        assert_eq!(store.repository("train").await.unwrap_err().action, "ecr:DescribeRepositories");
    }

    #[tokio::test]
    async fn a_tag_that_is_there_is_told_from_other_refusals() {
        let stub = Stub::start().await;
        let store = AwsTaggedImages::new(Arc::clone(&stub.clients));
        let image = StoredImage { digest: "sha256:a".to_owned(), manifest: "{}".to_owned(), media_type: None };
        stub.push(refusal(400, "ImageTagAlreadyExistsException", "no"));
        let error = store.add_tag(&repository(), &image, "1").await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Exists);
        stub.push(refusal(400, "ImageAlreadyExistsException", "no"));
        store.add_tag(&repository(), &image, "1").await.unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&stub.seen()[1].body).unwrap();
        assert_eq!((&sent["imageTag"], &sent["imageDigest"]), (&json!("1"), &json!("sha256:a")));
    }

    #[tokio::test]
    async fn a_password_is_not_shown() {
        let stub = Stub::start().await;
        let store = AwsTaggedImages::new(Arc::clone(&stub.clients));
        let token = STANDARD.encode_to_string("AWS:s3cret");
        let data = json!({"authorizationData": [{"authorizationToken": token, "proxyEndpoint": "https://r"}]});
        stub.push(reply(200, data.to_string()));
        let login = store.login().await.unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_str(), login.endpoint.as_str()),
            ("AWS", "s3cret", "https://r")
        );
        assert!(!format!("{login:?}").contains("s3cret"));
        stub.push(reply(200, json!({"authorizationData": [{"authorizationToken": "s3cret"}]}).to_string()));
        assert!(!store.login().await.unwrap_err().to_string().contains("s3cret"));
    }
}
