//! Decides the training image: the job's `image:`, else the operator's, as far as the rule allows it.

use super::bounds::JobBounds;
use super::matching::matches;
use super::refusal::{asked, listed};
use crate::base::failure::Failure;
use crate::config::rules::ImageTags;
use crate::config::settings::Settings;
use crate::gitlab::JobContext;

/// `TrainingImage`: 255 characters at most.
const IMAGE: usize = 255;

/// Names of the only platform of SageMaker's training instances: none of the types in its model has an Arm processor.
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/x86_64", "linux/amd64/v1"];

pub(super) fn image(job: &JobContext, settings: &Settings, bounds: &JobBounds) -> Result<String, Failure> {
    let image = Some(job.image.name.trim()).filter(|name| !name.is_empty()).or(settings.job.image.as_deref());
    let Some(image) = image else {
        return Err(Failure::user("the job names no training image")
            .hint("set `image:` in the job, or ask the operator for a default in `job.image`"));
    };
    if image.len() > IMAGE || image.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::user(format!("the job's image is not a usable name of at most {IMAGE} characters"))
            .hint("check `image:`; a variable in it may be undefined"));
    }
    let platform = job.image.options.docker.platform.trim();
    if !platform.is_empty() && !PLATFORMS.contains(&platform) {
        return Err(Failure::user(format!(
            "`image:docker:platform` asks for `{platform}`, and SageMaker's training instances are `{}`",
            PLATFORMS[0]
        ))
        .hint(format!("remove `image:docker:platform`, or set it to `{}`, and name an image for it", PLATFORMS[0])));
    }
    // Without `image:` the rule refuses the operator's own default.
    let key = if job.image.name.trim().is_empty() { "job.image" } else { "image" };
    match &bounds.images {
        Some(allowed) if !allowed.iter().any(|pattern| is_allowed(pattern, image)) => {
            return Err(asked(bounds, key, &format!("`{image}`"), &listed(allowed), "images"));
        }
        _ => {}
    }
    if bounds.image_tags == ImageTags::Refuse && !is_by_digest(image) {
        return Err(asked(bounds, key, &format!("`{image}`, a tag"), "images by digest alone", "image_tags")
            .hint("write `image:` as `<repository>@sha256:<digest>`"));
    }
    Ok(image.to_owned())
}

/// The sentence about parts of the job's `image:` that have no effect. An entrypoint that is empty asks for what happens anyway.
pub(super) fn without_effect(job: &JobContext) -> Option<String> {
    let has_entrypoint = job.image.entrypoint.iter().any(|part| !part.is_empty());
    let has_user = !job.image.options.docker.user.is_empty();
    let names = match (has_entrypoint, has_user) {
        (false, false) => return None,
        (true, false) => "`image:entrypoint` has",
        (false, true) => "`image:docker:user` has",
        (true, true) => "`image:entrypoint` and `image:docker:user` have",
    };
    Some(format!(
        "{names} no effect: the executor's agent is the entrypoint of the container and runs as the image's own user; call what the \
         script needs in `before_script`"
    ))
}

/// `true` when the name leads to the same image for ever.
pub fn is_by_digest(image: &str) -> bool {
    image.rsplit_once("@sha256:").is_some_and(|(repository, digest)| {
        !repository.is_empty() && digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Whether a glob stands for the whole name, or for the repository in it.
fn is_allowed(pattern: &str, image: &str) -> bool {
    matches(pattern, image) || matches(pattern, repository(image))
}

/// The name without digest and tag; a port is no tag.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("registry:5000/a/b:1", "registry:5000/a/b"; "port and tag")]
    #[test_case("registry:5000/a/b", "registry:5000/a/b"; "port alone")]
    #[test_case("a@sha256:00", "a"; "digest")]
    #[test_case("a:1@sha256:00", "a"; "tag and digest")]
    fn a_repository_has_neither_tag_nor_digest(image: &str, expected: &str) {
        assert_eq!(repository(image), expected);
    }

    #[test]
    fn only_a_whole_digest_counts() {
        assert!(is_by_digest(&format!("a@sha256:{}", "0".repeat(64))));
        for image in ["a:1", "a@sha256:0", "@sha256:", &format!("a@sha256:{}", "g".repeat(64))] {
            assert!(!is_by_digest(image), "{image}");
        }
    }
}
