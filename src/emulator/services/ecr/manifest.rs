//! Manifests of images as clients push them: what they refer to. Pure.

use serde_json::Value;

use crate::protocol::text;

pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImageManifest {
    Image {
        configuration: String,
        /// Digests, the lowest layer first.
        layers: Vec<String>,
        /// Bytes of all layers as they are stored.
        bytes: u64,
    },
    /// Digest and platform (`linux/amd64`) of each image.
    List(Vec<(String, Option<String>)>),
}

impl ImageManifest {
    /// Reads a manifest; `None` when it is none of the media types that ECR takes, or misses a part.
    pub(super) fn parse(bytes: &[u8], media_type: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        match media_type {
            IMAGE | DOCKER_IMAGE => {
                let layers = value["layers"].as_array()?;
                let digests =
                    layers.iter().map(|layer| text(layer, "digest").map(str::to_owned)).collect::<Option<_>>();
                let bytes = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
                let configuration = text(&value["config"], "digest")?.to_owned();
                Some(Self::Image { configuration, layers: digests?, bytes })
            }
            INDEX | DOCKER_LIST => {
                let entries = value["manifests"].as_array()?.iter().map(|entry| {
                    let platform = &entry["platform"];
                    let parts = text(platform, "os").zip(text(platform, "architecture"));
                    let platform = parts.map(|(system, architecture)| format!("{system}/{architecture}"));
                    Some((text(entry, "digest")?.to_owned(), platform))
                });
                entries.collect::<Option<_>>().map(Self::List)
            }
            _ => None,
        }
    }

    /// The media type that a manifest gives itself.
    pub(super) fn own_media_type(bytes: &[u8]) -> Option<String> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        text(&value, "mediaType").map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_lists_are_read_and_others_are_not() {
        let image = br#"{"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:1", "size": 3}, {"digest": "sha256:2", "size": 4}]}"#;
        let expected = ImageManifest::Image {
            configuration: "sha256:c".into(),
            layers: vec!["sha256:1".into(), "sha256:2".into()],
            bytes: 7,
        };
        assert_eq!(ImageManifest::parse(image, DOCKER_IMAGE), Some(expected));
        let list = br#"{"manifests": [{"digest": "sha256:1", "platform": {"os": "linux", "architecture": "arm64"}}, {"digest": "sha256:2"}]}"#;
        let expected = [("sha256:1".into(), Some("linux/arm64".into())), ("sha256:2".into(), None)];
        assert_eq!(ImageManifest::parse(list, INDEX), Some(ImageManifest::List(expected.to_vec())));
        assert_eq!(ImageManifest::parse(image, "application/vnd.docker.distribution.manifest.v1+json"), None);
        assert_eq!(ImageManifest::parse(b"{}", IMAGE), None);
        assert_eq!(ImageManifest::own_media_type(br#"{"mediaType": "a"}"#), Some("a".to_owned()));
    }
}
