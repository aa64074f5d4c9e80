//! Port of one registry of images, for the commands that build images: its repositories, tags and password. `aws` and `testing` implement it.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::error::CloudError;

/// A repository of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRepositorySight {
    /// Account whose registry has it: twelve digits.
    pub account: String,
    pub name: String,
    /// `ACCOUNT.dkr.ecr.REGION.DOMAIN/NAME`.
    pub uri: String,
    /// A tag that is there cannot be moved to another image, except those of `exceptions`; without it, those alone cannot.
    pub is_immutable: bool,
    /// Patterns of tags, with `*` for any text.
    pub exceptions: Vec<String>,
}

impl ImageRepositorySight {
    /// Tells that the tag, once there, cannot be moved to another image.
    pub fn keeps(&self, tag: &str) -> bool {
        self.is_immutable != self.exceptions.iter().any(|pattern| matches(pattern, tag))
    }
}

/// Compares a text with a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter_map(|at| text.get(at..)).any(|text| matches(rest, text))
}

/// An image, as another tag for it is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its manifest, byte for byte: the digest is of these bytes.
    pub manifest: String,
    pub media_type: Option<String>,
}

/// The address of a registry, with a name and a password that it takes for some hours.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// `https://HOST`, where images are pushed.
    pub endpoint: String,
    pub user: String,
    pub password: String,
}

/// Without the password.
impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The registry of the caller's account in the region.
#[async_trait]
pub trait TaggedImages: Send + Sync {
    /// `None` when there is no repository of this name.
    async fn repository(&self, name: &str) -> Result<Option<ImageRepositorySight>, CloudError>;

    /// The images that have these tags, by tag; at most 100 tags. A tag without an image is left out.
    async fn tagged(
        &self,
        repository: &ImageRepositorySight,
        tags: &[String],
    ) -> Result<BTreeMap<String, StoredImage>, CloudError>;

    /// The image of a digest; `None` when the repository has no such image.
    async fn image(&self, repository: &ImageRepositorySight, digest: &str) -> Result<Option<StoredImage>, CloudError>;

    /// Gives an image that is there one more tag, or moves the tag to it.
    ///
    /// # Errors
    /// [`Exists`](super::CloudErrorKind::Exists) when the tag is of another image, and the repository's tags are immutable.
    async fn add_tag(
        &self,
        repository: &ImageRepositorySight,
        image: &StoredImage,
        tag: &str,
    ) -> Result<(), CloudError>;

    async fn login(&self) -> Result<RegistryLogin, CloudError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_turn_the_rule_of_tags_around() {
        let repository = |is_immutable, exceptions: &[&str]| ImageRepositorySight {
            account: "123456789012".to_owned(),
            name: "train".to_owned(),
            uri: String::new(),
            is_immutable,
            exceptions: exceptions.iter().map(|&one| one.to_owned()).collect(),
        };
        assert!(repository(true, &[]).keeps("1") && !repository(false, &[]).keeps("1"));
        let excepted = repository(true, &["latest", "dev-*-x*"]);
        for (tag, keeps) in [("latest", false), ("latest2", true), ("dev-1-x", false), ("dev-1-y", true), ("", true)] {
            assert_eq!(excepted.keeps(tag), keeps, "{tag}");
        }
        assert!(repository(false, &["v*"]).keeps("v1") && !repository(false, &["v*"]).keeps("1"));
    }
}
