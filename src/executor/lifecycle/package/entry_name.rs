//! Names and links that a package may have, when it is written and when it is read. Pure.

use std::path::{Component, Path};

/// Longest name, in bytes.
const LONGEST: usize = 1024;

/// Why a name cannot be in a package.
pub(super) fn mistake(name: &str) -> Option<&'static str> {
    let parts = || name.split('/');
    if name.len() > LONGEST {
        return Some("is longer than 1024 bytes");
    }
    if name.contains('\\') || name.contains(char::is_control) {
        return Some("has a backslash or a control character in its name");
    }
    if parts().any(str::is_empty) {
        return Some("has an empty part in its name");
    }
    parts().any(|part| part == "." || part == "..").then_some("has `.` or `..` as a part of its name")
}

/// Whether the target of a link in a folder of the package stays in that folder, by its words alone.
pub(super) fn link_stays(link: &str, target: &str) -> bool {
    // The first part of the link's name is the folder.
    let mut depth = Path::new(link).components().count().saturating_sub(2);
    !target.is_empty()
        && !target.contains(['\\', '\0'])
        && Path::new(target).components().all(|part| match part {
            Component::Normal(_) => {
                depth += 1;
                true
            }
            Component::CurDir => true,
            Component::ParentDir if depth > 0 => {
                depth -= 1;
                true
            }
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("source/a b/ü.py" => true)]
    #[test_case("source/..a" => true)]
    #[test_case("/etc/passwd" => false)]
    #[test_case("source/../../x" => false)]
    #[test_case("source//x" => false)]
    #[test_case("source/" => false)]
    #[test_case("" => false)]
    #[test_case("source\\..\\x" => false)]
    #[test_case("source/a\u{1b}[2K" => false)]
    fn a_name_may_be_in_a_package(name: &str) -> bool {
        mistake(name).is_none()
    }

    #[test_case("source/a", "b" => true; "beside it")]
    #[test_case("source/d/a", "../b" => true; "in the folder above")]
    #[test_case("source/a", "../b" => false; "above the folder")]
    #[test_case("source/a", "/etc/passwd" => false; "absolute")]
    #[test_case("source/a", "" => false; "empty")]
    fn a_link_stays(link: &str, target: &str) -> bool {
        link_stays(link, target)
    }
}
