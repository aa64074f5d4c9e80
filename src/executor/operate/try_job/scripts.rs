//! The stage scripts of a try, where GitLab Runner would write its own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;

use super::place::Place;

pub(super) fn nothing() -> String {
    "#!/bin/sh\n".to_owned()
}

/// Copies the current directory: what git would hand on when it is a work tree, else everything.
pub(super) fn get_sources(place: &Place) -> String {
    format!(
        r#"set -eu
project={project}
mkdir -p "$project" "$project.tmp"
cd {origin}
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  # A file that was deleted and not yet committed is still listed.
  git ls-files -z -co --exclude-standard | while IFS= read -r -d '' f; do [ -e "$f" ] || [ -L "$f" ] && printf '%s\0' "$f"; done \
    | tar --null --no-recursion -T - -cf - | tar -xf - -C "$project"
else
  tar -cf - . | tar -xf - -C "$project"
fi
touch {stamp}
"#,
        project = quoted(&place.project()),
        origin = quoted(&place.origin),
        stamp = quoted(&place.root.join("stamp")),
    )
}

/// The command in the project directory. Its arguments are passed as they are.
pub(super) fn build(place: &Place, command: &[OsString]) -> anyhow::Result<String> {
    let words: Vec<String> = command.iter().map(word_of).collect::<Option<_>>().context("the command is not UTF-8")?;
    Ok(format!("set -e\ncd {}\n{}\n", quoted(&place.project()), words.join(" ")))
}

/// Brings what the command made or changed back into the current directory.
pub(super) fn upload(place: &Place) -> String {
    format!(
        r"set -eu
cd {project}
find . -path ./.git -prune -o \( -type f -o -type l \) -newer {stamp} -print0 > {list}
tar --null -T {list} -cf - | tar -xf - -C {origin}
tr '\0' '\n' < {list} | sed 's|^\./|Artifact: |'
",
        project = quoted(&place.project()),
        stamp = quoted(&place.root.join("stamp")),
        list = quoted(&place.root.join("changed")),
        origin = quoted(&place.origin),
    )
}

fn quoted(path: &Path) -> String {
    quote(&String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

fn word_of(word: &OsString) -> Option<String> {
    word.to_str().map(quote)
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
    }
}
