//! `docs/` of a package: release notes, and how to use it. Pure.

use std::fmt::Write as _;

use super::git::NotedCommits;
use super::metadata::PackageMetadata;
use crate::base::plain;

const LONGEST_SUBJECT: usize = 200;

/// The commits that the pipeline brings.
pub(super) fn release_notes(metadata: &PackageMetadata, noted: &NotedCommits) -> String {
    let mut text = format!("# Release notes\n\n{}, of commit {}.\n\n", inline(&metadata.name), metadata.commit.id);
    if noted.is_shallow {
        text.push_str(
            "The clone had not all commits, so that only the packed one is listed. Set `GIT_DEPTH: \"0\"` in the job for all that the pipeline brings.\n\n",
        );
    } else if let Some(base) = &noted.since {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Commits since {}:\n", base.get(..8).unwrap_or(base));
    } else {
        text.push_str("The newest commits:\n\n");
    }
    for (id, subject) in &noted.commits {
        let _ = writeln!(text, "- {} ({})", inline(subject), id.get(..8).unwrap_or(id));
    }
    if noted.number > noted.commits.len() {
        let _ = writeln!(text, "- and {} earlier ones", noted.number - noted.commits.len());
    }
    if !metadata.metrics.is_empty() {
        text.push_str("\n## Metrics\n\n| Metric | Value |\n| --- | --- |\n");
        for (name, value) in &metadata.metrics {
            let _ = writeln!(text, "| {} | {value} |", inline(name));
        }
    }
    text
}

/// How to use the package.
pub(super) fn usage(metadata: &PackageMetadata) -> String {
    let PackageMetadata { name, model, .. } = metadata;
    let place = match (&model.archive.file, &model.archive.uri) {
        (Some(file), _) => format!("`{file}`"),
        (None, Some(uri)) => format!("not in the package, but at `{}`", plain::line(uri, 1100)),
        (None, None) => "not in the package".to_owned(),
    };
    let version = model
        .package_arn
        .as_deref()
        .map_or(String::new(), |arn| format!(" It is registered as `{}`.", plain::line(arn, 300)));
    format!(
        "# How to use this package\n\n\
         Check that every file is as it was packed:\n\n```sh\nsagemaker-executor package verify {name}\n```\n\n\
         Deploy it in an environment of its manifest:\n\n```sh\nsagemaker-executor endpoint deploy --package {name} --environment NAME\n```\n\n\
         | Place | For |\n| --- | --- |\n\
         | `source/` | the project's files of commit {commit} |\n\
         | `model/` | the model, and the files of its metrics, as the job had them |\n\
         | `deploy/` | what a deployment needs: the manifest and the samples of the endpoint's test as in the commit, and the model's container |\n\
         | `docs/` | this file, and the release notes |\n\
         | `metadata.json` | size and SHA-256 of each file, and where the package comes from |\n\n\
         The model's archive is {place}; its SHA-256 is `{sha256}`.{version} The image that serves it is `{image}`.\n\n\
         `unzip` and Python's `zipfile` open the package as well. Of a release and of an artifact, compare the SHA-256 of the whole file with \
         `PACKAGE_SHA256` of the job that made it.\n",
        commit = metadata.commit.id,
        sha256 = model.archive.sha256,
        image = plain::line(&model.image, 300),
    )
}

/// Text of others in Markdown: one line, and no markup. Nor any of GitLab's own: mentions, references, emoji, formulas, and addresses
/// that become links.
pub(crate) fn inline(text: &str) -> String {
    const MARKUP: &str = "\\`*_{}[]<>#|!~@%&$:^";
    let line = plain::line(text, LONGEST_SUBJECT);
    let line = line.trim_start();
    let mut made = String::with_capacity(line.len());
    for (at, letter) in line.char_indices() {
        let before = &line[..at];
        let is_digits = !before.is_empty() && before.bytes().all(|digit| digit.is_ascii_digit());
        // At its start a line can be a list or an underline, and `www.` makes an address without a scheme.
        let begins = (at == 0 && "-+=".contains(letter)) || (is_digits && ".)".contains(letter));
        let is_host = letter == '.' && before.len() >= 3 && before.to_ascii_lowercase().ends_with("www");
        if MARKUP.contains(letter) || begins || is_host {
            made.push('\\');
        }
        made.push(letter);
    }
    made
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::inline;

    #[test_case("Improve it - fast. (v1.2)" => "Improve it - fast. (v1.2)"; "plain")]
    #[test_case("@all see %1, &1, !2 and #3" => r"\@all see \%1, \&1, \!2 and \#3"; "references")]
    #[test_case("$x^2$ :smile:" => r"\$x\^2\$ \:smile\:"; "formulas and emoji")]
    #[test_case("https://e.example www.e.example WWW.e" => r"https\://e.example www\.e.example WWW\.e"; "addresses")]
    #[test_case("- a - b" => r"\- a - b"; "a list")]
    #[test_case("  + a" => r"\+ a"; "an indented list")]
    #[test_case("12. a 3. b" => r"12\. a 3. b"; "a list of numbers")]
    #[test_case("é`<b>" => r"é\`\<b\>"; "markup")]
    fn text_of_others_is(text: &str) -> String {
        inline(text)
    }
}
