//! Tags of images by format, as `build-{pipeline}-{short_sha}`. Pure.

use crate::base::failure::Failure;
use crate::base::plain;

/// Begin of the tag that names a context by its hash. No format makes such a tag.
pub(super) const CONTEXT_TAG: &str = "context-";
/// Most tags of an image.
const MOST_TAGS: usize = 20;
/// Longest tag (OCI distribution specification).
const LONGEST_TAG: usize = 128;
/// Digits of a commit that GitLab shows.
const SHORT: usize = 8;

/// Names that stand in braces, each with the variable of the job that has its value.
const NAMES: [(&str, &str); 6] = [
    ("sha", "CI_COMMIT_SHA"),
    ("short_sha", "CI_COMMIT_SHA"),
    ("pipeline", "CI_PIPELINE_ID"),
    ("pipeline_iid", "CI_PIPELINE_IID"),
    ("branch", "CI_COMMIT_REF_SLUG"),
    ("tag", "CI_COMMIT_TAG"),
];

/// The tags of these formats, each once, in their order.
///
/// # Errors
/// Failures of the user: an unknown name in braces, a variable without a value, a text that is no tag.
pub(super) fn tags<'a>(formats: &[String], variable: impl Fn(&str) -> Option<&'a str>) -> Result<Vec<String>, Failure> {
    let mut tags = Vec::new();
    for format in formats {
        let tag = tag(format, &variable)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MOST_TAGS {
        return Err(Failure::user(format!("the image has {} tags; the most are {MOST_TAGS}", tags.len()))
            .hint("change `image.tags` in the manifest, or `--tag`"));
    }
    Ok(tags)
}

fn tag<'a>(format: &str, variable: impl Fn(&str) -> Option<&'a str>) -> Result<String, Failure> {
    let shown = plain::line(format, 200);
    let wrong = |why: String| {
        let known: Vec<_> = NAMES.iter().map(|(name, _)| format!("`{{{name}}}`")).collect();
        Failure::user(format!("the format of a tag `{shown}` {why}"))
            .hint(format!("change `image.tags` in the manifest, or `--tag`; names are {}", known.join(", ")))
    };
    let (mut tag, mut rest) = (String::new(), format);
    while let Some((before, after)) = rest.split_once('{') {
        tag.push_str(before);
        let (name, after) = after.split_once('}').ok_or_else(|| wrong("has a `{` without `}`".to_owned()))?;
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let (_, source) = known.ok_or_else(|| wrong(format!("has the unknown name `{}`", plain::line(name, 50))))?;
        let value = variable(source).ok_or_else(|| {
            Failure::user(format!("the format of a tag `{shown}` needs the variable `{source}`, which is not set"))
                .hint(format!("set `{source}`, or give another format with `--tag`"))
        })?;
        tag.push_str(if name == "short_sha" { value.get(..SHORT).unwrap_or(value) } else { value });
        rest = after;
    }
    tag.push_str(rest);
    if !is_tag(&tag) {
        return Err(wrong(format!(
            "makes `{}`, which is no tag: 1 to {LONGEST_TAG} letters, digits and `_.-`, with a letter, digit or `_` first",
            plain::line(&tag, 200)
        )));
    }
    if tag.starts_with(CONTEXT_TAG) {
        return Err(wrong(format!("begins with `{CONTEXT_TAG}`: those tags name contexts by their hashes")));
    }
    Ok(tag)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn made(formats: &[&str]) -> Result<Vec<String>, String> {
        let variable = |name: &str| match name {
            "CI_COMMIT_SHA" => Some("0123456789abcdef0123456789abcdef01234567"),
            "CI_PIPELINE_ID" => Some("71"),
            "CI_COMMIT_REF_SLUG" => Some("main"),
            "CI_COMMIT_TAG" => Some("v1/2"),
            _ => None,
        };
        let formats: Vec<_> = formats.iter().map(|&format| format.to_owned()).collect();
        tags(&formats, variable).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn formats_make_tags_each_once_and_in_order() {
        let formats = ["build-{pipeline}-{short_sha}", "{short_sha}", "{branch}", "main", "latest"];
        assert_eq!(made(&formats).unwrap(), ["build-71-01234567", "01234567", "main", "latest"]);
        assert_eq!(made(&["{sha}"]).unwrap(), ["0123456789abcdef0123456789abcdef01234567"]);
        assert_eq!(made(&[]).unwrap(), Vec::<String>::new(), "`latest` comes from nowhere");
    }

    #[test_case("{shortsha}" => "the format of a tag `{shortsha}` has the unknown name `shortsha`"; "unknown")]
    #[test_case("{sha" => "the format of a tag `{sha` has a `{` without `}`"; "open")]
    #[test_case("{pipeline_iid}" => "the format of a tag `{pipeline_iid}` needs the variable `CI_PIPELINE_IID`, which is not set"; "unset")]
    #[test_case("{tag}" => "the format of a tag `{tag}` makes `v1/2`, which is no tag: 1 to 128 letters, digits and `_.-`, with a letter, digit or `_` first"; "slash")]
    #[test_case(".a" => "the format of a tag `.a` makes `.a`, which is no tag: 1 to 128 letters, digits and `_.-`, with a letter, digit or `_` first"; "first")]
    #[test_case("" => "the format of a tag `` makes ``, which is no tag: 1 to 128 letters, digits and `_.-`, with a letter, digit or `_` first"; "empty")]
    #[test_case("context-1" => "the format of a tag `context-1` begins with `context-`: those tags name contexts by their hashes"; "hash")]
    fn another_text_is_an_error(format: &str) -> String {
        made(&[format]).unwrap_err()
    }

    #[test]
    fn an_image_has_a_limited_number_of_tags() {
        let formats: Vec<_> = (0..=MOST_TAGS).map(|number| number.to_string()).collect();
        assert!(tags(&formats[1..], |_| None).is_ok() && tags(&formats, |_| None).is_err());
    }
}
