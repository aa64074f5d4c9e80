//! The operations on the images of a repository.

use std::sync::Arc;

use serde_json::{Value, json};

use super::blobs::digest_of;
use super::errors::{image_not_found, invalid};
use super::manifest::ImageManifest;
use super::records::{Image, ImageRepository, ImageStore, RepositoryKey, image_id};
use super::repositories::page;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};
use crate::shared::LAYERS_PATH;

fn ids(request: &Value) -> impl Iterator<Item = &Value> {
    request["imageIds"].as_array().into_iter().flatten()
}

fn failure(id: &Value) -> Value {
    json!({"imageId": id, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"})
}

pub(super) fn get(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    store.with(&key, |repository| {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for id in ids(request) {
            let digest = repository.digest(id);
            let Some((digest, image)) = digest.and_then(|digest| repository.images.get_key_value(digest)) else {
                failures.push(failure(id));
                continue;
            };
            found.push(whole(&key, digest, text(id, "imageTag"), image));
        }
        Ok(Some(json!({"images": found, "failures": failures})))
    })
}

/// An image with its manifest.
fn whole(key: &RepositoryKey, digest: &str, tag: Option<&str>, image: &Image) -> Value {
    json!({
        "registryId": key.account,
        "repositoryName": key.name,
        "imageId": image_id(digest, tag),
        "imageManifest": String::from_utf8_lossy(&image.manifest),
        "imageManifestMediaType": image.media_type,
    })
}

pub(super) fn describe(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    store.with(&key, |repository| {
        let detail = |digest: &String, image: &Image| {
            let mut detail = json!({
                "registryId": key.account,
                "repositoryName": key.name,
                "imageDigest": digest,
                "imageSizeInBytes": image.bytes,
                "imagePushedAt": epoch_seconds(image.pushed_ms),
                "imageManifestMediaType": image.media_type,
            });
            let tags = repository.tags_of(digest);
            if !tags.is_empty() {
                detail["imageTags"] = json!(tags);
            }
            if let Some(scan) = &image.scan {
                scan.describe(&mut detail, clock::now_ms());
            }
            detail
        };
        if request["imageIds"].is_null() {
            let filter = request.pointer("/filter/tagStatus").and_then(Value::as_str);
            let shown = repository.images.iter().filter(|(digest, _)| is_shown(repository, digest, filter));
            let details = shown.map(|(digest, image)| detail(digest, image));
            return page(request, "imageDetails", "images", details.collect());
        }
        let details = ids(request).map(|id| {
            let digest = repository.digest(id).ok_or_else(|| image_not_found(&key, id))?;
            let (digest, image) = repository.images.get_key_value(digest).ok_or_else(|| image_not_found(&key, id))?;
            Ok(detail(digest, image))
        });
        Ok(Some(json!({"imageDetails": details.collect::<Result<Vec<_>, ApiError>>()?})))
    })
}

fn is_shown(repository: &ImageRepository, digest: &str, filter: Option<&str>) -> bool {
    let has_tag = repository.tags.values().any(|of| of == digest);
    match filter {
        Some("TAGGED") => has_tag,
        Some("UNTAGGED") => !has_tag,
        _ => true,
    }
}

/// An entry for each tag, and one for each image without.
pub(super) fn list(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let filter = request.pointer("/filter/tagStatus").and_then(Value::as_str);
    store.with(&key, |repository| {
        let shown = repository.images.keys().filter(|digest| is_shown(repository, digest, filter));
        let entries = shown.flat_map(|digest| {
            let tags = repository.tags_of(digest);
            if tags.is_empty() {
                return vec![image_id(digest, None)];
            }
            tags.into_iter().map(|tag| image_id(digest, Some(tag))).collect()
        });
        page(request, "imageIds", "ids", entries.collect())
    })
}

/// Deletes a tag, and with its last one the image; or an image with all its tags.
pub(super) fn delete(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    store.with(&key, |repository| {
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in ids(request) {
            let Some(digest) = repository.digest(id).map(str::to_owned) else {
                failures.push(failure(id));
                continue;
            };
            let tags: Vec<String> = match text(id, "imageTag").filter(|_| id["imageDigest"].is_null()) {
                Some(tag) => vec![tag.to_owned()],
                None => repository.tags_of(&digest).into_iter().map(str::to_owned).collect(),
            };
            let keeps_image = repository.tags_of(&digest).len() > tags.len();
            if let Some(list) = list_with(repository, &digest).filter(|_| !keeps_image) {
                failures.push(json!({
                    "imageId": id,
                    "failureCode": "ImageReferencedByManifestList",
                    "failureReason": format!("Requested image referenced by manifest list: [{list}]"),
                }));
                continue;
            }
            for tag in &tags {
                repository.tags.remove(tag);
            }
            if !repository.tags.values().any(|of| *of == digest) {
                repository.images.remove(&digest);
            }
            deleted.push(image_id(&digest, tags.first().map(String::as_str)));
        }
        Ok(Some(json!({"imageIds": deleted, "failures": failures})))
    })
}

/// The digest of a list of the repository that has this image.
fn list_with<'r>(repository: &'r ImageRepository, digest: &str) -> Option<&'r str> {
    let has = |image: &Image| match ImageManifest::parse(&image.manifest, &image.media_type) {
        Some(ImageManifest::List(entries)) => entries.iter().any(|(part, _)| part == digest),
        _ => false,
    };
    repository.images.iter().find(|(_, image)| has(image)).map(|(list, _)| list.as_str())
}

pub(super) fn check_layers(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    store.with(&key, |repository| {
        let (mut layers, mut failures) = (Vec::new(), Vec::new());
        for digest in request["layerDigests"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if store.blobs.path(digest).is_none() {
                failures.push(json!({
                    "layerDigest": digest,
                    "failureCode": "InvalidLayerDigest",
                    "failureReason": "Invalid layer digest",
                }));
                continue;
            }
            let size = store.blobs.size(digest).filter(|_| repository.blobs.contains(digest));
            layers.push(match size {
                Some(size) => json!({"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size}),
                None => json!({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}),
            });
        }
        Ok(Some(json!({"layers": layers, "failures": failures})))
    })
}

pub(super) fn download_url(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let digest = text(request, "layerDigest").unwrap_or_default();
    let is_here = store.with(&key, |repository| Ok(repository.blobs.contains(digest)))?;
    if !is_here && super::listed::configuration(&store.shared.config.ecr_images, digest).is_none() {
        return Err(ApiError::new("LayersNotFoundException", format!("The layer with digest {digest} does not exist")));
    }
    let address = format!("{}{LAYERS_PATH}{digest}", store.shared.endpoint);
    Ok(Some(json!({"downloadUrl": address, "layerDigest": digest})))
}

/// Adds an image, or a tag to one that is there.
pub(super) fn put(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let manifest = text(request, "imageManifest").unwrap_or_default();
    let media_type = text(request, "imageManifestMediaType").map(str::to_owned);
    let image = NewImage { manifest: manifest.as_bytes(), media_type, tag: text(request, "imageTag") };
    let digest = add(store, &key, image)?;
    if text(request, "imageDigest").is_some_and(|wanted| wanted != digest) {
        return Err(ApiError::new("ImageDigestDoesNotMatchException", "The digest does not match the manifest"));
    }
    let tag = text(request, "imageTag");
    store.with(&key, |repository| {
        let image = repository.images.get(&digest).ok_or_else(|| image_not_found(&key, &image_id(&digest, tag)))?;
        Ok(Some(json!({"image": whole(&key, &digest, tag, image)})))
    })
}

/// An image as a client sends it.
pub(super) struct NewImage<'a> {
    pub(super) manifest: &'a [u8],
    pub(super) media_type: Option<String>,
    pub(super) tag: Option<&'a str>,
}

/// Adds an image whose layers are there, and gives back its digest.
pub(super) fn add(store: &ImageStore, key: &RepositoryKey, new: NewImage<'_>) -> Result<String, ApiError> {
    let media_type = new.media_type.or_else(|| ImageManifest::own_media_type(new.manifest)).unwrap_or_default();
    let manifest = ImageManifest::parse(new.manifest, &media_type)
        .ok_or_else(|| invalid(format!("Invalid parameter at 'imageManifest': '{media_type}' is not supported")))?;
    let digest = digest_of(new.manifest);
    let has_scan =
        |repository: &ImageRepository| repository.scans_on_push && matches!(manifest, ImageManifest::Image { .. });
    store.with(key, |repository| {
        let bytes = match &manifest {
            ImageManifest::Image { configuration, layers, bytes } => {
                let absent = layers.iter().chain([configuration]).find(|digest| !repository.blobs.contains(*digest));
                if let Some(absent) = absent {
                    let message = format!("Layers with digests '[{absent}]' required for pushing image into repository with name '{}' in the registry with id '{}' do not exist", key.name, key.account);
                    return Err(ApiError::new("LayersNotFoundException", message));
                }
                *bytes
            }
            ImageManifest::List(entries) => {
                if let Some((absent, _)) = entries.iter().find(|(digest, _)| !repository.images.contains_key(digest)) {
                    let message = format!("Images with digests '[{absent}]' required for pushing image into repository with name '{}' do not exist", key.name);
                    return Err(ApiError::new("ReferencedImagesNotFoundException", message));
                }
                0
            }
        };
        if let Some((tag, other)) = new.tag.and_then(|tag| repository.tags.get_key_value(tag))
            && repository.is_immutable
            && *other != digest
        {
            let message = format!("The image tag '{tag}' already exists in the '{}' repository and cannot be overwritten because the tag is immutable.", key.name);
            return Err(ApiError::new("ImageTagAlreadyExistsException", message));
        }
        let scan = has_scan(repository).then(|| store.scan(key));
        let now_ms = clock::now_ms();
        repository.images.entry(digest.clone()).or_insert_with(|| Image {
            media_type,
            manifest: new.manifest.to_vec(),
            bytes,
            pushed_ms: now_ms,
            scan,
        });
        repository.tags.extend(new.tag.map(|tag| (tag.to_owned(), digest.clone())));
        Ok(digest.clone())
    })
}
