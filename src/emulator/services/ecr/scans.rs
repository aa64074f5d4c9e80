//! Scans of images for known vulnerabilities. Nothing is scanned: the findings are those of `--image-findings`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::errors::{image_not_found, invalid};
use super::records::{ImageStore, RepositoryKey, image_id};
use super::repositories::PAGE;
use super::scan::Scan;
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};

pub(super) fn start(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let scan = store.scan(&key);
    with_image(store, &key, &request["imageId"], |found| {
        // AWS scans an image at most once in a day.
        if found.is_some() {
            let message = "The scan quota per image has been exceeded. Wait and try again.";
            return Err(ApiError::new("LimitExceededException", message));
        }
        Ok(found.insert(scan).status(clock::now_ms()))
    })
    .map(|(digest, status)| {
        let id = image_id(&digest, text(&request["imageId"], "imageTag"));
        Some(json!({"registryId": key.account, "repositoryName": key.name, "imageId": id, "imageScanStatus": status}))
    })
}

pub(super) fn findings(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let id = &request["imageId"];
    let (digest, scan) = with_image(store, &key, id, |found| {
        found.clone().ok_or_else(|| {
            let message = format!("Image scan does not exist for the image with '{id}' in the repository with name '{}' in the registry with id '{}'", key.name, key.account);
            ApiError::new("ScanNotFoundException", message)
        })
    })?;
    let now_ms = clock::now_ms();
    let mut answer = json!({
        "registryId": key.account,
        "repositoryName": key.name,
        "imageId": image_id(&digest, text(id, "imageTag")),
        "imageScanStatus": scan.status(now_ms),
    });
    if scan.is_complete(now_ms) {
        let limit = request["maxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
        let counts = json!(scan.counts());
        let bad_token = || invalid("Invalid token");
        let (shown, next) = cut(text(request, "nextToken"), limit, "findings", scan.findings).ok_or_else(bad_token)?;
        answer["imageScanFindings"] = json!({
            "imageScanCompletedAt": epoch_seconds(scan.ends_ms),
            "vulnerabilitySourceUpdatedAt": epoch_seconds(scan.begun_ms),
            "findingSeverityCounts": counts,
            "findings": shown,
        });
        if let Some(next) = next {
            answer["nextToken"] = json!(next);
        }
    }
    Ok(Some(answer))
}

/// Runs an action on the scan of the image that a request names, and gives back the image's digest too.
fn with_image<T>(
    store: &ImageStore,
    key: &RepositoryKey,
    id: &Value,
    act: impl FnOnce(&mut Option<Scan>) -> Result<T, ApiError>,
) -> Result<(String, T), ApiError> {
    store.with(key, |repository| {
        let digest = repository.digest(id).map(str::to_owned).ok_or_else(|| image_not_found(key, id))?;
        let image = repository.images.get_mut(&digest).ok_or_else(|| image_not_found(key, id))?;
        let result = act(&mut image.scan)?;
        Ok((digest, result))
    })
}
