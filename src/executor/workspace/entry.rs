//! What travels, one entry at a time: a path in one of the two trees, its kind and its attributes.
//!
//! Names are bytes, as the kernel has them. This module does no I/O and judges nothing except a name by itself.

use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use super::warnings::LeftOut;

/// Longest relative path that travels, in bytes. The kernel takes 4096 per call, but deeper trees can be made.
pub(super) const LONGEST_PATH: usize = 16 * 1024;

/// Most directories above an entry that comes back: what a container makes up must not cost the host much.
pub(super) const DEEPEST: usize = 256;

/// Longest target of a link that comes back, in bytes: some file systems take no longer one.
const LONGEST_TARGET: usize = 1023;

/// Which of the two trees an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Place {
    Project,
    Tmp,
}

/// What an entry is. Sockets, FIFOs and devices never travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
    /// The path was there when the workspace arrived and is gone now.
    Deleted,
    /// Anything else. No sender of ours tells of it.
    Special,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Instant {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// One entry of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// Relative to the tree, `/` between components; empty for the tree's own directory.
    #[serde(with = "serde_bytes")]
    pub(super) path: Vec<u8>,
    /// Permission bits, at most `0o7777`.
    pub(super) mode: u32,
    pub(super) mtime: Instant,
    /// Bytes of a file's content.
    pub(super) size: u64,
    /// Where a link points.
    #[serde(with = "serde_bytes")]
    pub(super) target: Vec<u8>,
}

/// File systems tell time in ticks of up to 10 ms.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// Some tell it in whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// A state of a file: another content, another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct StateId(pub(super) [u8; 16]);

/// What tells whether an entry changed: any change of content or attributes changes at least `ctime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: Instant,
    ctime: Instant,
    inode: u64,
}

impl Mark {
    /// `None` for what never travels: sockets, FIFOs, devices.
    pub(super) fn of(stat: &Stat) -> Option<Self> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => return None,
        };
        Some(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: mtime(stat),
            ctime: Instant { seconds: stat.st_ctime, nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0) },
            inode: stat.st_ino,
        })
    }

    /// Names this state of the file at `path`, for whoever reads it afterwards. `None` while another change could leave no trace.
    pub(super) fn state(&self, path: &[u8]) -> Option<StateId> {
        if self.is_fresh() {
            return None;
        }
        let mut hash = blake3::Hasher::new();
        hash.update(&self.mode.to_le_bytes());
        hash.update(&self.size.to_le_bytes());
        hash.update(&self.inode.to_le_bytes());
        for time in [self.mtime, self.ctime] {
            hash.update(&time.seconds.to_le_bytes());
            hash.update(&time.nanos.to_le_bytes());
        }
        hash.update(path);
        let mut id = [0; 16];
        hash.finalize_xof().fill(&mut id);
        Some(StateId(id))
    }

    /// It changed just now, and may change again without a trace.
    pub(super) fn is_fresh(&self) -> bool {
        let changed = Duration::new(u64::try_from(self.ctime.seconds).unwrap_or(0), self.ctime.nanos);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let tick = if self.ctime.nanos == 0 { COARSE_TICK } else { TICK };
        now.checked_sub(changed).is_none_or(|age| age < tick)
    }

    /// The same state of the same entry. A directory's size and inode say nothing about it.
    pub(super) fn is_same(&self, other: &Mark) -> bool {
        match (self.kind, other.kind) {
            (Kind::Directory, Kind::Directory) => self.mode == other.mode && self.mtime == other.mtime,
            _ => self == other,
        }
    }

    pub(super) fn entry(&self, place: Place, path: Vec<u8>, target: Vec<u8>) -> Entry {
        Entry { place, kind: self.kind, path, mode: self.mode, mtime: self.mtime, size: self.size, target }
    }
}

pub(super) fn mtime(stat: &Stat) -> Instant {
    Instant { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// The path for a message: control characters and invalid UTF-8 made visible, in backticks.
pub(super) fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return "the directory itself".to_owned();
    }
    let mut text = String::from("`");
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
    text.push('`');
    text
}

/// The directory that holds `path` (empty: the tree itself) and the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Every directory above `path` inside its tree, nearest the root first, without the tree itself.
pub(super) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Why `path` is no plain relative path, if it is none.
pub(super) fn malformed(path: &[u8]) -> Option<&'static str> {
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

/// True when a component is `.git`, or would be on a file system that folds case, ignores code points or shortens names.
pub(super) fn enters_git(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/' || byte == b'\\').any(is_git)
}

/// In a `.git`, and neither an object nor an index: configuration, hooks and references may hold the job's credentials. A
/// submodule may be called as it likes, so an object is known by its own name.
pub(super) fn is_private_of_git(path: &[u8]) -> bool {
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
    // HFS+ ignores these when it compares names; invalid UTF-8 cannot be ignored and stays.
    let mut name = Vec::with_capacity(component.len());
    for chunk in component.utf8_chunks() {
        for character in chunk.valid().chars().filter(|&character| !is_ignorable(character)) {
            name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        name.extend_from_slice(chunk.invalid());
    }
    // NTFS: a stream name follows a colon, trailing dots and spaces are dropped.
    let name = name.split(|&byte| byte == b':').next().unwrap_or(&[]);
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |at| at + 1);
    let name = name[..end].to_ascii_lowercase();
    name == b".git"
        || name.strip_prefix(b"git~").is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
}

fn is_ignorable(character: char) -> bool {
    matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// Why a link of the project must not reach the host, if it must not: only leading `..` that stay inside, and absolute
/// targets below `project`, are let through. `..` after a name is refused, for the name may be a link itself.
pub(super) fn stray_link(project: &[u8], path: &[u8], target: &[u8]) -> Option<LeftOut> {
    if target.is_empty() || target.contains(&0) || target.len() > LONGEST_TARGET {
        return Some(LeftOut::UnusableLink);
    }
    if enters_git(target.strip_prefix(project).unwrap_or(target)) {
        return Some(LeftOut::GitLink);
    }
    let (mut depth, relative) = if target.starts_with(b"/") {
        match target.strip_prefix(project) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => (0, rest),
            _ => return Some(LeftOut::OutsideLink),
        }
    } else {
        (ancestors(path).count(), target)
    };
    let mut named = false;
    for component in relative.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if named => return Some(LeftOut::DotsLink),
            b".." if depth == 0 => return Some(LeftOut::OutsideLink),
            b".." => depth -= 1,
            _ => named = true,
        }
    }
    None
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

    #[test_case(b"a", b"b", false)]
    #[test_case(b"a", b"..", true)]
    #[test_case(b"d/a", b"../b", false)]
    #[test_case(b"d/a", b"../../b", true)]
    #[test_case(b"d/a", b"..", false; "the project itself")]
    #[test_case(b"a", b"/etc/passwd", true; "absolute")]
    #[test_case(b"a", b"/builds/p", false; "absolute, the project")]
    #[test_case(b"a", b"/builds/p/x/y", false; "absolute, inside")]
    #[test_case(b"a", b"/builds/p/../x", true; "absolute, leaves again")]
    #[test_case(b"a", b"/builds/p.tmp/x", true; "a sibling with the same beginning")]
    #[test_case(b"d/e/a", b"x/../../y", true; "dots after a name")]
    #[test_case(b"a", b".git/config", true; "into git")]
    #[test_case(b"a", b"", true; "empty")]
    fn links_must_stay_inside(path: &[u8], target: &[u8], stray: bool) {
        assert_eq!(stray_link(b"/builds/p", path, target).is_some(), stray);
    }

    #[test]
    fn names_are_shown_on_one_line() {
        assert_eq!(shown(b"a\nb\x1b[31m\xff"), "`a\\nb\\u{1b}[31m\\xff`");
    }

    #[test]
    fn paths_come_apart() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
    }
}
