//! An in-memory snapshot of a directory tree that resolves paths as the kernel does.
//!
//! The tree is at its real path below `/`, so that absolute paths, `..` and links resolve as in the kernel. Outside the tree only the
//! directories on the way to it exist: nothing is read from disk.

use std::collections::{BTreeSet, HashMap};

use crate::workspace::path::{join, split};

/// Most links followed on one path, as in the kernel.
const MOST_LINKS: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node<'a> {
    Directory,
    /// With its target; empty when it is unknown, and then resolving it fails.
    Link(&'a [u8]),
    Other,
}

/// The tree. Absolute paths have no trailing slash: the root of the file system is the empty path.
#[derive(Debug)]
pub(crate) struct TreeView<'a> {
    /// The directory that relative paths start at.
    project: Vec<u8>,
    /// Where the tree is: the project, or a folder in it.
    root: Vec<u8>,
    nodes: HashMap<&'a [u8], Node<'a>>,
    /// Names by directory.
    names: HashMap<&'a [u8], Vec<&'a [u8]>>,
}

impl<'a> TreeView<'a> {
    /// `nodes` by their paths below the absolute directory `project`.
    pub(crate) fn new(project: &[u8], nodes: impl IntoIterator<Item = (&'a [u8], Node<'a>)>) -> Self {
        let mut view = Self { project: Vec::new(), root: Vec::new(), nodes: HashMap::new(), names: HashMap::new() };
        for name in project.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            view.project.push(b'/');
            view.project.extend_from_slice(name);
        }
        for (path, node) in nodes.into_iter().filter(|(path, _)| !path.is_empty()) {
            let (directory, name) = split(path);
            view.names.entry(directory).or_default().push(name);
            view.nodes.insert(path, node);
        }
        view.root.clone_from(&view.project);
        view
    }

    /// The same tree as a folder of the project, which has nothing else.
    #[must_use]
    pub(crate) fn within(mut self, folder: &str) -> Self {
        self.root.push(b'/');
        self.root.extend_from_slice(folder.as_bytes());
        self
    }

    /// The path of an entry relative to the project.
    pub(crate) fn named(&self, path: &[u8]) -> Vec<u8> {
        match self.root.get(self.project.len() + 1..) {
            Some(folder) => join(folder, path),
            None => path.to_vec(),
        }
    }

    /// The absolute path of the project.
    pub(crate) fn project(&self) -> &[u8] {
        &self.project
    }

    /// Every path of the tree.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &'a [u8]> {
        self.nodes.keys().copied()
    }

    /// The path relative to the tree, empty for the tree itself; `None` outside the tree.
    pub(crate) fn inside<'p>(&self, absolute: &'p [u8]) -> Option<&'p [u8]> {
        match absolute.strip_prefix(self.root.as_slice())? {
            [] => Some(&[]),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    fn node(&self, absolute: &[u8]) -> Option<Node<'a>> {
        match self.inside(absolute) {
            Some([]) => Some(Node::Directory),
            Some(path) => self.nodes.get(path).copied(),
            None => self.next_to_project(absolute).map(|_| Node::Directory),
        }
    }

    /// For a directory on the way to the tree: the name of its entry on that way.
    fn next_to_project(&self, absolute: &[u8]) -> Option<&[u8]> {
        let rest = self.root.strip_prefix(absolute)?.strip_prefix(b"/")?;
        rest.split(|&byte| byte == b'/').next()
    }

    /// The entries of a directory; links are not followed.
    pub(crate) fn list<'v>(&'v self, absolute: &[u8]) -> Vec<(&'v [u8], Node<'a>)> {
        match self.inside(absolute) {
            Some(path) => {
                let names = self.names.get(path).map(Vec::as_slice).unwrap_or_default();
                let node = |name: &[u8]| self.nodes.get(join(path, name).as_slice()).copied();
                names.iter().filter_map(|&name| Some((name, node(name)?))).collect()
            }
            None => self.next_to_project(absolute).map(|name| (name, Node::Directory)).into_iter().collect(),
        }
    }

    /// Resolves `path`, which is absolute or relative to the project, to a node. Adds to `links` the tree's links on the way, relative to the
    /// tree, even when they lead nowhere, and the directories left again by `..`. Follows a link at the end if `follow`.
    pub(crate) fn resolve(
        &self,
        path: &[u8],
        follow: bool,
        links: &mut BTreeSet<Vec<u8>>,
    ) -> Option<(Vec<u8>, Node<'a>)> {
        let mut at = if path.starts_with(b"/") { Vec::new() } else { self.project.clone() };
        let mut node = Node::Directory;
        let mut waiting: Vec<&[u8]> = components(path).collect();
        let mut followed = 0;
        // Directories entered by name since the beginning or the last link.
        let mut entered = 0_usize;
        while let Some(name) = waiting.pop() {
            if node != Node::Directory {
                return None;
            }
            if name == b".." {
                if entered > 0 {
                    entered -= 1;
                    links.extend(self.inside(&at).filter(|path| !path.is_empty()).map(<[u8]>::to_vec));
                }
                at.truncate(split(&at).0.len());
                continue;
            }
            let next = [at.as_slice(), b"/", name].concat();
            node = self.node(&next)?;
            match node {
                Node::Link(target) if follow || !waiting.is_empty() => {
                    followed += 1;
                    links.extend(self.inside(&next).map(<[u8]>::to_vec));
                    if target.is_empty() || followed > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    node = Node::Directory;
                    entered = 0;
                    waiting.extend(components(target));
                }
                _ => {
                    entered += 1;
                    at = next;
                }
            }
        }
        Some((at, node))
    }
}

/// The components except empty ones and `.`, the last first.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.rsplit(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a/b", true, Some("/p/q/a/b"), &[]; "plain")]
    #[test_case("/p/q/a/b", true, Some("/p/q/a/b"), &[]; "absolute")]
    #[test_case("../q/a", true, Some("/p/q/a"), &[]; "out and in")]
    #[test_case("../../..", true, Some(""), &[]; "above the root")]
    #[test_case("../other", true, None, &[]; "elsewhere")]
    #[test_case("a/b/..", true, None, &[]; "a file is no directory")]
    #[test_case("l/b", true, Some("/p/q/a/b"), &["l"]; "through a link")]
    #[test_case("l", false, Some("/p/q/l"), &[]; "a link itself")]
    #[test_case("l", true, Some("/p/q/a"), &["l"]; "a link at the end")]
    #[test_case("abs/b", true, Some("/p/q/a/b"), &["abs", "l"]; "through two links")]
    #[test_case("a/up", true, Some("/p/q/a"), &["a/up", "l"]; "a link upwards")]
    #[test_case("loop", true, None, &["loop"]; "a loop")]
    #[test_case("gone/b", true, None, &["gone"]; "a link with an unknown target")]
    #[test_case("dots/b", true, Some("/p/q/a/b"), &["a", "dots"]; "a directory that is left again")]
    fn paths_end_where_the_kernel_ends(path: &str, follow: bool, expected: Option<&str>, through: &[&str]) {
        let nodes = [
            ("a", Node::Directory),
            ("a/b", Node::Other),
            ("a/up", Node::Link(b"../l/.")),
            ("l", Node::Link(b"a")),
            ("abs", Node::Link(b"/p/q/l/")),
            ("loop", Node::Link(b"loop")),
            ("gone", Node::Link(b"")),
            ("dots", Node::Link(b"a/../a")),
        ];
        let view = TreeView::new(b"/p/q", nodes.map(|(path, node)| (path.as_bytes(), node)));
        let mut links = BTreeSet::new();
        let end = view.resolve(path.as_bytes(), follow, &mut links).map(|(end, _)| String::from_utf8(end).unwrap());
        assert_eq!(end.as_deref(), expected);
        assert_eq!(links.iter().map(|link| std::str::from_utf8(link).unwrap()).collect::<Vec<_>>(), through);
    }
}
