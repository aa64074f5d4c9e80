//! Functions on paths as bytes: splitting, joining, and checks by name only. No I/O.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Longest relative path of a transfer, in bytes. The kernel accepts 4096 per call, but deeper trees can exist.
pub(crate) const LONGEST_PATH: usize = 16 * 1024;
/// Most directories above an entry of the results: a container must not be able to cost the host much.
pub(crate) const DEEPEST: usize = 256;

/// Formats the path for a message, in backticks, with control characters and invalid UTF-8 escaped.
pub(crate) fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return "the directory itself".to_owned();
    }
    format!("`{}`", escaped(path))
}

/// Formats the absolute path for a message, on one line: control characters and invalid UTF-8 are escaped.
pub(crate) fn masked(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    text
}

/// Splits `path` into its directory (empty: the tree itself) and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The directories above `path` inside its tree, from the top, without the tree itself.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Returns the reason why `path` is not a plain relative path, if it is not.
pub(crate) fn malformed(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return Some("its name is empty");
    }
    if path.len() > LONGEST_PATH {
        return Some("its path is longer than 16 KiB");
    }
    if path.starts_with(b"/") {
        return Some("its path is absolute");
    }
    path.split(|&byte| byte == b'/').find_map(|component| match component {
        b"" => Some("its path has an empty component"),
        b"." => Some("its path has a `.` component"),
        b".." => Some("its path has a `..` component"),
        _ if component.contains(&0) => Some("its path holds a NUL byte"),
        _ if component.len() > 255 => Some("a component of its path is longer than 255 bytes"),
        _ => None,
    })
}

/// True when a component is `.git`, or is treated as `.git` by a file system that folds case, ignores code points or shortens names.
pub(crate) fn enters_git(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/' || byte == b'\\').any(is_git)
}

/// True when the path leads into the `.git` of the project itself, as [`enters_git`] recognizes it.
pub(crate) fn enters_own_git(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/' || byte == b'\\').next().is_some_and(is_git)
}

/// True for a file in a `.git` that is neither an object nor an index: configuration, hooks and references may contain the job's
/// credentials. Submodules may have any name, so objects are recognized by their own names.
pub(crate) fn is_private_of_git(path: &[u8]) -> bool {
    let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').skip_while(|name| !is_git(name)).skip(1).collect();
    let is_hex =
        |name: &[u8], lengths: &[usize]| lengths.contains(&name.len()) && name.iter().all(u8::is_ascii_hexdigit);
    match names.as_slice() {
        [] => false,
        [.., b"lfs", b"objects", first, second, name] if is_hex(name, &[64]) => {
            !(is_hex(first, &[2]) && is_hex(second, &[2]))
        }
        [.., b"objects", b"pack", name] => !name.starts_with(b"pack-"),
        [.., b"objects", first, name] if is_hex(first, &[2]) => !is_hex(name, &[38, 62]),
        [.., name] => *name != b"index",
    }
}

fn is_git(component: &[u8]) -> bool {
    // HFS+ ignores these code points when it compares names; invalid UTF-8 stays.
    let mut name = Vec::with_capacity(component.len());
    for chunk in component.utf8_chunks() {
        for character in chunk.valid().chars().filter(|&character| !is_ignorable(character)) {
            name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        name.extend_from_slice(chunk.invalid());
    }
    // NTFS: the text after a colon is a stream name; trailing dots and spaces are ignored.
    let name = name.split(|&byte| byte == b':').next().unwrap_or(&[]);
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |at| at + 1);
    let name = name[..end].to_ascii_lowercase();
    name == b".git"
        || name.strip_prefix(b"git~").is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
}

fn is_ignorable(character: char) -> bool {
    matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(b".git", true)]
    #[test_case(b".GIT/config", true)]
    #[test_case(b"sub/.Git/hooks/x", true)]
    #[test_case(b"a/.git. . /x", true; "trailing dots and spaces")]
    #[test_case(b".git::$INDEX_ALLOCATION/x", true; "ntfs stream")]
    #[test_case(b"GIT~1", true)]
    #[test_case(b"git~12/x", true)]
    #[test_case(".g\u{200c}it".as_bytes(), true; "hfs ignorable")]
    #[test_case(b"a\\.git\\x", true; "backslash")]
    #[test_case(b".gitignore", false)]
    #[test_case(b".github/x", false)]
    #[test_case(b"git", false)]
    #[test_case(b"x.git", false)]
    #[test_case(b"git~", false)]
    #[test_case(b".g\xffit", false; "invalid utf-8 is not ignored")]
    fn git_is_seen_through_disguises(path: &[u8], expected: bool) {
        assert_eq!(enters_git(path), expected);
    }

    #[test_case(b".git/config", true)]
    #[test_case(b".git/modules/sub/config", true)]
    #[test_case(b"sub/.git/hooks/pre-commit", true)]
    #[test_case(b".git/modules/third_party/lfs/config", true)]
    #[test_case(b".git/modules/objects/config", true)]
    #[test_case(b".git/modules/objects/pack/config", true)]
    #[test_case(b".git/modules/index/hooks/x", true)]
    #[test_case(b".git/objects/info/alternates", true)]
    #[test_case(b".git/objects/pack/pack-1.pack", false)]
    #[test_case(b".git/objects/ab/0123456789012345678901234567890123456f", false; "an object")]
    #[test_case(b".git/modules/sub/objects/00/01234567890123456789012345678901234567", false; "an object of a submodule")]
    #[test_case(
        b".git/lfs/objects/00/11/0123456789012345678901234567890123456789012345678901234567890123", false; "large files"
    )]
    #[test_case(b".git/index", false; "the index")]
    #[test_case(b".git", false; "a submodule's file")]
    #[test_case(b"config", false; "the project's own")]
    #[test_case(b".gitlab/config", false)]
    fn what_of_git_is_private(path: &[u8], expected: bool) {
        assert_eq!(is_private_of_git(path), expected);
    }

    #[test]
    fn names_are_shown_on_one_line() {
        assert_eq!(shown(b"a\nb\x1b[31m\xff"), "`a\\nb\\u{1b}[31m\\xff`");
        assert_eq!(masked(Path::new("/b/x\r\nerror: y")), "/b/x\\r\\nerror: y");
    }

    #[test]
    fn paths_come_apart() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
    }
}
