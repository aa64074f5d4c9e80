//! The text of a release: the package's release notes, and what identifies the package. Pure.

use std::fmt::Write as _;

use crate::base::human::human_bytes;
use crate::base::plain;
use crate::lifecycle::package::{PackageMetadata, inline};

/// Name of the release notes in a package.
pub(super) const NOTES: &str = "docs/RELEASE_NOTES.md";
/// Longest release notes that are taken whole, in bytes. GitLab takes a million characters.
pub(super) const LONGEST_NOTES: u64 = 400 << 10;

/// Markdown. What identifies the package comes first: the notes are a file of the package, and an open comment or block of code there
/// would hide all that follows. The notes have the commits and the table of metrics; without them the package has too many.
pub(super) fn description(notes: Option<&str>, metadata: &PackageMetadata, sha256: &str, bytes: u64) -> String {
    let model = &metadata.model;
    let mut rows = vec![
        ("File", format!("`{}`, {}", metadata.name, human_bytes(bytes))),
        ("SHA-256", format!("`{sha256}`")),
        ("Commit", metadata.commit.id.clone()),
        ("Image", format!("`{}`", model.image_digest)),
        ("Model, SHA-256", format!("`{}`", model.archive.sha256)),
    ];
    rows.extend(model.package_arn.as_deref().map(|arn| ("Version of the model", inline(arn))));
    let mut text = "| Package | |\n| --- | --- |\n".to_owned();
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = write!(text, "\nCheck the file with `sagemaker-executor package verify {}`.\n\n", metadata.name);
    match notes {
        Some(notes) => text.push_str(plain::lines(notes).trim_end()),
        None => {
            let _ = write!(text, "# Release notes\n\n`{NOTES}` in the package has them.");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::metadata;
    use super::*;
    use crate::lifecycle::package::PackageKind;

    #[test]
    fn a_release_tells_what_identifies_the_package() {
        let mut metadata = metadata(PackageKind::Stable);
        metadata.model.package_arn = Some("arn:`x`|y\u{1b}[2K".to_owned());
        let text =
            description(Some("# Release notes\n\n- one\u{202e}\n```\n<!--\n\n"), &metadata, &"5".repeat(64), 2048);
        let digits = |digit: &str| digit.repeat(64);
        let expected = format!(
            "| Package | |\n| --- | --- |\n\
             | File | `stable-20261129T045233Z.zip`, 2.0 KiB |\n| SHA-256 | `{}` |\n\
             | Commit | 0123456789abcdef0123456789abcdef01234567 |\n| Image | `sha256:{}` |\n| Model, SHA-256 | `{}` |\n\
             | Version of the model | arn\\:\\`x\\`\\|y\\\\x1b\\[2K |\n\n\
             Check the file with `sagemaker-executor package verify stable-20261129T045233Z.zip`.\n\n\
             # Release notes\n\n- one\\u{{202e}}\n```\n<!--\n",
            digits("5"),
            digits("1"),
            digits("0")
        );
        assert_eq!(text, expected);
        assert!(
            description(None, &metadata, "", 0)
                .ends_with("# Release notes\n\n`docs/RELEASE_NOTES.md` in the package has them.\n")
        );
    }
}
