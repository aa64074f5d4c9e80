//! Which tags an image gets, and whether it must be built for that. The decision is pure; tags are put through the port.

use std::collections::BTreeMap;

use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{CloudErrorKind, ImageRepositorySight, StoredImage, TaggedImages};

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TagPlan {
    /// The image of this context is there.
    Reuse(StoredImage),
    Build,
}

/// Decides by the images that the repository has, by tag.
///
/// # Errors
/// Failures of the user: a tag is of another image and cannot be moved.
pub(super) fn decide(
    repository: &ImageRepositorySight,
    context_tag: &str,
    wanted: &[String],
    found: &BTreeMap<String, StoredImage>,
) -> Result<TagPlan, Failure> {
    let built = found.get(context_tag);
    let is_other =
        |tag: &&String| found.get(*tag).is_some_and(|image| built.is_none_or(|built| built.digest != image.digest));
    let taken: Vec<_> = wanted.iter().filter(is_other).filter(|tag| repository.keeps(tag)).cloned().collect();
    if !taken.is_empty() {
        return Err(conflict(repository, &taken));
    }
    Ok(built.cloned().map_or(TagPlan::Build, TagPlan::Reuse))
}

fn conflict(repository: &ImageRepositorySight, tags: &[String]) -> Failure {
    let tags: Vec<_> = tags.iter().map(|tag| format!("`{}`", plain::line(tag, 128))).collect();
    let (noun, verb) = if tags.len() == 1 { ("tag", "is") } else { ("tags", "are") };
    Failure::user(format!(
        "the {noun} {} of {} {verb} of another image, and cannot be moved: the repository keeps its tags",
        tags.join(", "),
        repository.name
    ))
    .hint("change `image.tags` in the manifest, or `--tag`, to a format with another value in each pipeline, such as `build-{pipeline}-{short_sha}`")
}

/// Gives an image that is there the wanted tags, except those that it has.
///
/// # Errors
/// Another job gave a tag to another image meanwhile; or AWS refused.
pub(super) async fn add(
    store: &dyn TaggedImages,
    repository: &ImageRepositorySight,
    image: &StoredImage,
    wanted: &[String],
    found: &BTreeMap<String, StoredImage>,
) -> anyhow::Result<()> {
    for tag in wanted {
        if found.get(tag).is_some_and(|known| known.digest == image.digest) {
            continue;
        }
        match store.add_tag(repository, image, tag).await {
            Err(error) if error.kind == CloudErrorKind::Exists => {
                return Err(conflict(repository, std::slice::from_ref(tag)).caused_by(error).into());
            }
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::failure;
    use crate::cloud::testing::MemoryImages;

    const CONTEXT: &str = "context-1";

    async fn sights(
        is_immutable: bool,
        there: &[(&str, &str)],
    ) -> (MemoryImages, ImageRepositorySight, BTreeMap<String, StoredImage>) {
        let images = MemoryImages::default();
        images.set_repository("train", is_immutable);
        for (tag, digest) in there {
            images.put("train", digest, &[tag]);
        }
        let repository = images.repository("train").await.unwrap().unwrap();
        let tags: Vec<_> = there.iter().map(|(tag, _)| (*tag).to_owned()).collect();
        let found = images.tagged(&repository, &tags).await.unwrap();
        (images, repository, found)
    }

    #[test_case(true, &[], "build"; "nothing is there")]
    #[test_case(true, &[(CONTEXT, "a")], "a"; "the context is there")]
    #[test_case(true, &[(CONTEXT, "a"), ("1", "a")], "a"; "all is there")]
    #[test_case(true, &[(CONTEXT, "a"), ("1", "b")], "conflict"; "a tag of another image")]
    #[test_case(true, &[("1", "b")], "conflict"; "a tag of another context")]
    #[test_case(false, &[("1", "b")], "build"; "a tag that can be moved")]
    #[test_case(false, &[(CONTEXT, "a"), ("1", "b")], "a"; "a tag that can be moved to what is there")]
    #[tokio::test]
    async fn a_repository_decides(is_immutable: bool, there: &[(&str, &str)], expected: &str) {
        let (_, repository, found) = sights(is_immutable, there).await;
        let decided = match decide(&repository, CONTEXT, &["1".to_owned()], &found) {
            Ok(TagPlan::Build) => "build".to_owned(),
            Ok(TagPlan::Reuse(image)) => image.digest,
            Err(failure) => {
                assert!(failure.message().contains("the tag `1` of train is of another image"), "{failure}");
                "conflict".to_owned()
            }
        };
        assert_eq!(decided, expected);
    }

    #[tokio::test]
    async fn tags_that_are_there_are_not_put_again() {
        let (images, repository, found) = sights(true, &[(CONTEXT, "a"), ("1", "a")]).await;
        let image = found[CONTEXT].clone();
        add(&images, &repository, &image, &["1".to_owned(), "2".to_owned()], &found).await.unwrap();
        assert_eq!(images.tags("train")["2"], "a");
        assert_eq!(images.count("add_tag"), 1);
    }

    #[tokio::test]
    async fn a_tag_that_another_job_was_faster_with_is_told() {
        let (images, repository, found) = sights(true, &[(CONTEXT, "a")]).await;
        images.put("train", "b", &["1"]);
        let error = add(&images, &repository, &found[CONTEXT], &["1".to_owned()], &found).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), failure::Kind::User);
        assert_eq!(images.tags("train")["1"], "b");
    }
}
