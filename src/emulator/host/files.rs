//! Functions on files, folders and mounts of this machine: list, make private, quote for a shell, remove.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Removes a container's scratch directory, with what the container made read-only; an absent one is success.
pub fn discard(scratch: &Path) -> anyhow::Result<()> {
    remove_tree(scratch).with_context(|| format!("failed to remove {}", scratch.display()))
}

/// Creates a directory and its parents with exactly these permission bits; an existing one gets them.
pub(super) fn create_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777)))
        .with_context(|| format!("failed to create {}", path.display()))
}

/// A file that only we can read.
pub(super) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let _ = fs::remove_file(path);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).with_context(|| format!("failed to write {}", path.display()))
}

/// Removes a tree, also directories without permissions; an absent one is success. Follows no link.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    fn unlock(directory: &Path) {
        let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                unlock(&entry.path());
            }
        }
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            unlock(path);
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A word for a POSIX shell.
pub(crate) fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// Mount points of `/proc/self/mountinfo` with the kind of file system on top of each.
pub(super) fn mount_points(mountinfo: &str) -> BTreeMap<PathBuf, String> {
    let parse = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        Some((PathBuf::from(unescape(fields.split(' ').nth(4)?)), rest.split(' ').next()?.to_owned()))
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The kernel writes blanks and backslashes of a path as three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (Some(code), Some(rest)) = (code, part.get(3..)) {
            path.push(char::from(code));
            path.push_str(rest);
        } else {
            path.push('\\');
            path.push_str(part);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let mounts = mount_points(
            "27 1 254:0 / / rw - ext4 /dev/vda rw\n36 27 0:9 / /media/my\\040disk rw,relatime shared:3 - vfat /dev/sdb rw\n",
        );
        let expected =
            [("/", "ext4"), ("/media/my disk", "vfat")].map(|(at, kind)| (PathBuf::from(at), kind.to_owned()));
        assert_eq!(mounts, BTreeMap::from(expected));
    }

    #[test]
    fn a_quoted_word_keeps_its_quotes() {
        assert_eq!(quote(Path::new("/it's; rm")), "'/it'\\''s; rm'");
    }

    #[test]
    fn a_tree_without_permissions_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let tree = temporary.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
