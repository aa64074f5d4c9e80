//! Names and links that a package may have, when it is written and when it is read. Pure.

use std::collections::BTreeMap;

use crate::base::plain;

/// Longest name, in bytes.
const LONGEST: usize = 1024;
/// Most links on the way of one: more are a circle, or no system follows them.
const MOST_FOLLOWED: usize = 40;
/// Most parts of names that are looked at for the links of one package.
const MOST_STEPS: usize = 20_000_000;

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

/// The first name that no system could extract safely, and why: one below a link or a file, or a link that leaves `source/`, also by
/// way of other links. Keys are the names of all files, values the targets of those that are links.
pub(super) fn unsafe_name(entries: &BTreeMap<String, Option<String>>) -> Option<(&str, &'static str)> {
    let mut steps = MOST_STEPS;
    entries.iter().find_map(|(name, target)| {
        let above = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        if above.into_iter().any(|above| entries.contains_key(above)) {
            return Some((name.as_str(), "lies below a link or a file"));
        }
        let target = target.as_deref()?;
        (!stays(name, target, entries, &mut steps)).then_some((name.as_str(), "is a link that leaves `source/`"))
    })
}

/// Two names that are one on a system that ignores case, as macOS and Windows do: of two files, or of a file and a folder.
pub(super) fn alike<'a>(names: impl Iterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    // `\0` stands for the slash: it is the first of all characters, so that what lies below a name follows it at once.
    let mut all: Vec<_> = names.map(|name| (name.to_lowercase().replace('/', "\0"), name)).collect();
    all.sort_unstable();
    all.array_windows().find_map(|[(one, first), (other, second)]| {
        let rest = other.strip_prefix(one.as_str())?;
        (rest.is_empty() || rest.starts_with('\0')).then_some((*first, *second))
    })
}

/// Says that two names are [`alike`].
pub(super) fn alike_text(one: &str, other: &str) -> String {
    let [one, other] = [one, other].map(|name| plain::line(name, 300));
    format!("{one} and {other} are one name on systems that ignore case")
}

/// Whether a link stays in `source/`, as a system follows it.
fn stays(link: &str, target: &str, entries: &BTreeMap<String, Option<String>>, steps: &mut usize) -> bool {
    let below = link.strip_prefix("source").filter(|below| below.starts_with('/'));
    let Some((parent, _)) = below.and_then(|below| below.rsplit_once('/')) else { return false };
    let mut place = format!("source{parent}");
    let is_possible = |target: &str| !target.is_empty() && !target.starts_with('/') && !target.contains(['\\', '\0']);
    if !is_possible(target) {
        return false;
    }
    let mut left: Vec<&str> = target.rsplit('/').collect();
    let mut followed = 0;
    while let Some(part) = left.pop() {
        let Some(fewer) = steps.checked_sub(1) else { return false };
        *steps = fewer;
        match part {
            "" | "." => {}
            ".." => match place.rfind('/') {
                Some(end) => place.truncate(end),
                None => return false,
            },
            part => {
                let parent = place.len();
                place.push('/');
                place.push_str(part);
                if let Some(Some(next)) = entries.get(&place) {
                    followed += 1;
                    if followed > MOST_FOLLOWED || !is_possible(next) {
                        return false;
                    }
                    place.truncate(parent);
                    left.extend(next.rsplit('/'));
                }
            }
        }
    }
    true
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

    #[test_case(&[("source/a", "b")] => None; "beside it")]
    #[test_case(&[("source/d/a", "../b/./c//")] => None; "in the folder above")]
    #[test_case(&[("source/d/a", "..")] => None; "the folder")]
    #[test_case(&[("source/a", "../b")] => Some("source/a"); "above the folder")]
    #[test_case(&[("source/a", "../source/b")] => Some("source/a"); "above the folder and back")]
    #[test_case(&[("source/a", "/etc/passwd")] => Some("source/a"); "absolute")]
    #[test_case(&[("source/a", "")] => Some("source/a"); "empty")]
    #[test_case(&[("source/a", "b\\c")] => Some("source/a"); "with a backslash")]
    #[test_case(&[("deploy/a", "b")] => Some("deploy/a"); "in another folder")]
    #[test_case(&[("sourceother/a", "b")] => Some("sourceother/a"); "in a folder of a similar name")]
    #[test_case(&[("source/d/l", ".."), ("source/x", "d/l/d/l")] => None; "by way of a link")]
    #[test_case(&[("source/d/l", ".."), ("source/x", "d/l/../evil")] => Some("source/x"); "by way of a link, above the folder")]
    #[test_case(&[("source/d/l", ".."), ("source/y", "d/l/../.."), ("source/z", "y/etc")] => Some("source/y"); "by way of links")]
    #[test_case(&[("source/a", "b"), ("source/b", "a")] => Some("source/a"); "in a circle")]
    #[test_case(&[("source/d", "a"), ("source/d/f", "x")] => Some("source/d/f"); "below a link")]
    fn a_link_is_refused(links: &[(&'static str, &str)]) -> Option<&'static str> {
        let entries = links.iter().map(|(name, target)| ((*name).to_owned(), Some((*target).to_owned()))).collect();
        let (refused, _) = unsafe_name(&entries)?;
        links.iter().map(|(link, _)| *link).find(|link| *link == refused)
    }

    #[test_case(&["source/a", "source/b/a"] => None; "other names")]
    #[test_case(&["source/README", "source/readme"] => Some(("source/README", "source/readme")); "another case")]
    #[test_case(&["source/Ä", "source/ä"] => Some(("source/Ä", "source/ä")); "no ascii")]
    #[test_case(&["source/A/x", "source/a/y", "source/a-b"] => None; "folders that become one")]
    #[test_case(&["source/A/x", "source/a", "source/a-b"] => Some(("source/a", "source/A/x")); "a file and a folder")]
    fn names_are_alike<'a>(names: &[&'a str]) -> Option<(&'a str, &'a str)> {
        alike(names.iter().copied())
    }

    #[test]
    fn links_that_multiply_end() {
        let mut entries: BTreeMap<_, _> = (1..5000)
            .map(|number| (format!("source/{number}"), Some(format!("{}/", number - 1).repeat(2000))))
            .collect();
        entries.insert("source/file".to_owned(), None);
        assert!(unsafe_name(&entries).is_some());
        entries.retain(|_, target| target.is_none());
        assert_eq!(unsafe_name(&entries), None);
        entries.insert("source/file/below".to_owned(), None);
        assert_eq!(unsafe_name(&entries), Some(("source/file/below", "lies below a link or a file")));
    }
}
