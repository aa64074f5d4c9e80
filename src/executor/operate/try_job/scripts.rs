//! The stage scripts of a try, where GitLab Runner would write its own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;

use super::place::Place;

pub(super) fn nothing() -> String {
    "#!/bin/sh\n".to_owned()
}

/// Copies the files of the current directory that a job gets.
pub(super) fn get_sources(place: &Place) -> String {
    format!(
        r"set -eu -o pipefail
mkdir -p {project} {project}.tmp
tar --null --no-recursion -C {origin} -T {sources} -cf - | tar -xf - -C {project}
touch {stamp}
",
        project = quoted(&place.project()),
        origin = quoted(&place.origin),
        sources = quoted(&place.sources()),
        stamp = quoted(&place.root.join("stamp")),
    )
}

/// The command in the project directory.
pub(super) fn build(place: &Place, command: &str) -> String {
    format!("set -e\ncd {}\n{command}\n", quoted(&place.project()))
}

/// The command as a line of a shell script. Its arguments are passed as they are.
pub(super) fn command_line(command: &[OsString]) -> anyhow::Result<String> {
    let words: Vec<String> = command.iter().map(word_of).collect::<Option<_>>().context("the command is not UTF-8")?;
    Ok(words.join(" "))
}

/// Brings what the command made or changed back into the current directory. A new file may have an old time of its content, so
/// that of its inode counts.
pub(super) fn upload(place: &Place) -> String {
    format!(
        r"set -eu -o pipefail
cd {project}
find . -path ./.git -prune -o \( -type f -o -type l \) -cnewer {stamp} -print0 > {list}
tar --null -T {list} -cf - | tar -xf - -C {origin}
",
        project = quoted(&place.project()),
        stamp = quoted(&place.root.join("stamp")),
        list = quoted(&place.changed()),
        origin = quoted(&place.origin),
    )
}

fn quoted(path: &Path) -> String {
    quote(&String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

fn word_of(word: &OsString) -> Option<String> {
    word.to_str().map(|word| if is_plain(word) { word.to_owned() } else { quote(word) })
}

/// A shell takes it as it is.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:,+@%".contains(c))
}

/// One shell word, whatever it holds.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
        let words = ["sh", "-c", "echo hi", "", "a=b", "~"].map(OsString::from);
        assert_eq!(command_line(&words).unwrap(), "sh -c 'echo hi' '' 'a=b' '~'");
    }
}
