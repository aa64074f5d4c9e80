//! ECR: images that the command line lists, without their layers.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::caller::Caller;
use crate::config::EcrImage;
use crate::model::Model;
use crate::protocol::{Answer, ApiError, text};
use crate::service::{JsonService, Operation};
use crate::shared::{LAYERS_PATH, Shared};

/// The registry of the emulator's account, in every region.
#[derive(Debug)]
pub(crate) struct Ecr(pub(crate) Arc<Shared>);

impl JsonService for Ecr {
    const SIGNING_NAME: &'static str = "ecr";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] =
        &[("BatchGetImage", batch_get), ("DescribeImages", describe), ("GetDownloadUrlForLayer", download_url)];
    const INVALID: &'static str = "InvalidParameterException";

    fn model() -> &'static Model {
        Model::ecr()
    }
}

impl Ecr {
    /// The images of a request's repository.
    fn repository(&self, request: &Value, caller: &Caller) -> Result<Vec<&EcrImage>, ApiError> {
        let name = text(request, "repositoryName").unwrap_or_default();
        let registry = text(request, "registryId").unwrap_or(&caller.account);
        let images = self.0.config.ecr_images.iter().filter(|image| image.repository == name);
        let images: Vec<_> = images.filter(|_| registry == self.0.config.account).collect();
        if images.is_empty() {
            let message =
                format!("The repository with name '{name}' does not exist in the registry with id '{registry}'");
            return Err(ApiError::new("RepositoryNotFoundException", message));
        }
        Ok(images)
    }
}

fn batch_get(ecr: &Arc<Ecr>, request: &Value, caller: &Caller) -> Answer {
    let images = ecr.repository(request, caller)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for id in request["imageIds"].as_array().into_iter().flatten() {
        let digest = text(id, "imageDigest").unwrap_or_default();
        match images.iter().find(|image| image.digest == digest) {
            Some(image) => {
                let manifest = manifest(image);
                found.push(json!({
                    "registryId": ecr.0.config.account,
                    "repositoryName": image.repository,
                    "imageId": {"imageDigest": image.digest},
                    "imageManifest": manifest.to_string(),
                    "imageManifestMediaType": manifest["mediaType"],
                }));
            }
            None => failures.push(json!({
                "imageId": id,
                "failureCode": "ImageNotFound",
                "failureReason": "Requested image not found",
            })),
        }
    }
    Ok(Some(json!({"images": found, "failures": failures})))
}

fn describe(ecr: &Arc<Ecr>, request: &Value, caller: &Caller) -> Answer {
    let images = ecr.repository(request, caller)?;
    let wanted: Vec<_> =
        request["imageIds"].as_array().into_iter().flatten().filter_map(|id| text(id, "imageDigest")).collect();
    if let Some(absent) = wanted.iter().find(|digest| !images.iter().any(|image| image.digest == **digest)) {
        let message = format!("The image with imageId {{imageDigest:'{absent}'}} does not exist within the repository");
        return Err(ApiError::new("ImageNotFoundException", message));
    }
    let shown = images.into_iter().filter(|image| wanted.is_empty() || wanted.contains(&image.digest.as_str()));
    let details = shown.map(|image| {
        json!({
            "registryId": ecr.0.config.account,
            "repositoryName": image.repository,
            "imageDigest": image.digest,
            "imageManifestMediaType": manifest(image)["mediaType"],
        })
    });
    Ok(Some(json!({"imageDetails": details.collect::<Vec<_>>()})))
}

fn download_url(ecr: &Arc<Ecr>, request: &Value, caller: &Caller) -> Answer {
    let images = ecr.repository(request, caller)?;
    let digest = text(request, "layerDigest").unwrap_or_default();
    let configurations = images.iter().flat_map(|image| &image.platforms).map(|platform| configuration(platform));
    if !configurations.into_iter().any(|one| digest_of(&one) == digest) {
        return Err(ApiError::new("LayersNotFoundException", format!("The layer with digest {digest} does not exist")));
    }
    let address = format!("{}{LAYERS_PATH}{digest}", ecr.0.endpoint);
    Ok(Some(json!({"downloadUrl": address, "layerDigest": digest})))
}

/// The configuration of this digest.
pub(crate) fn layer(images: &[EcrImage], digest: &str) -> Option<String> {
    let configurations = images.iter().flat_map(|image| &image.platforms).map(|platform| configuration(platform));
    configurations.into_iter().find(|one| digest_of(one) == digest)
}

/// One image, or a list of an image for each platform.
fn manifest(image: &EcrImage) -> Value {
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    if let [platform] = image.platforms.as_slice() {
        let configuration = configuration(platform);
        let config = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(&configuration),
            "size": configuration.len(),
        });
        return json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []});
    }
    let entries = image.platforms.iter().map(|platform| {
        let (system, architecture) = parts(platform);
        let digest = digest_of(&format!("{}{platform}", image.digest));
        json!({"mediaType": IMAGE, "digest": digest, "size": 0, "platform": {"os": system, "architecture": architecture}})
    });
    let entries: Vec<_> = entries.collect();
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries})
}

fn configuration(platform: &str) -> String {
    let (system, architecture) = parts(platform);
    json!({"architecture": architecture, "os": system, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
        .to_string()
}

fn parts(platform: &str) -> (&str, &str) {
    platform.split_once('/').unwrap_or((platform, ""))
}

fn digest_of(text: &str) -> String {
    let digits: Vec<_> = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}
