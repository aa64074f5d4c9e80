//! What is mounted on this machine. Pure: from the kernel's list to paths.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
}
