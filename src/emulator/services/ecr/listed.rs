//! Images that the command line lists: a configuration for each platform, without layers. Pure.

use serde_json::{Value, json};

use super::blobs::digest_of;
use super::manifest::{CONFIGURATION, IMAGE, INDEX};
use crate::config::EcrImage;

/// The configuration of this digest, of any listed image.
pub(super) fn configuration(images: &[EcrImage], digest: &str) -> Option<String> {
    let all = images.iter().flat_map(|image| &image.platforms).map(|platform| of_platform(platform));
    all.into_iter().find(|one| digest_of(one.as_bytes()) == digest)
}

/// The manifest of one image, or a list of an image for each platform, with its media type.
pub(super) fn manifest(image: &EcrImage) -> (&'static str, Value) {
    if let [platform] = image.platforms.as_slice() {
        let configuration = of_platform(platform);
        let config = json!({
            "mediaType": CONFIGURATION,
            "digest": digest_of(configuration.as_bytes()),
            "size": configuration.len(),
        });
        return (IMAGE, json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []}));
    }
    let entries = image.platforms.iter().map(|platform| {
        let (system, architecture) = parts(platform);
        let digest = digest_of(format!("{}{platform}", image.digest).as_bytes());
        json!({"mediaType": IMAGE, "digest": digest, "size": 0, "platform": {"os": system, "architecture": architecture}})
    });
    let entries: Vec<_> = entries.collect();
    (INDEX, json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
}

fn of_platform(platform: &str) -> String {
    let (system, architecture) = parts(platform);
    json!({"architecture": architecture, "os": system, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
        .to_string()
}

fn parts(platform: &str) -> (&str, &str) {
    platform.split_once('/').unwrap_or((platform, ""))
}
