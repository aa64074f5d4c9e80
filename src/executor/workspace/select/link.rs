//! Finds links of the results that must not reach the host.

use crate::workspace::path::{ancestors, enters_git};
use crate::workspace::warnings::LeftOut;

/// Longest target of a link of the results, in bytes: the limit of some file systems.
const LONGEST_TARGET: usize = 1023;

/// Returns why a link of the project must not reach the host, if so. Allowed are leading `..` that stay inside and absolute targets
/// below `project`. `..` after a name is refused, since the name may itself be a link.
pub(crate) fn stray_link(project: &[u8], path: &[u8], target: &[u8]) -> Option<LeftOut> {
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
}
