//! The hash of everything that an image is built from, as a tag. Pure.
//!
//! The same hash means the same Dockerfile, arguments, target, platform, bases by their digests, and files with their modes. What a build
//! fetches from the network by itself, and the values of its secrets, are not in it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::tag_format::CONTEXT_TAG;
use crate::lifecycle::hex::hex;

/// Changed with every change of what is hashed.
const VERSION: &[u8] = b"image-context-1";
/// Digits of the hash in a tag: 160 bits.
const DIGITS: usize = 40;

/// A file of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContextEntry {
    File,
    Executable,
    Link,
}

/// The inputs of an image beside its files.
#[derive(Debug)]
pub(super) struct BuildInputs<'a> {
    pub(super) dockerfile: &'a [u8],
    pub(super) target: Option<&'a str>,
    pub(super) args: &'a BTreeMap<String, String>,
    /// Images of others by the names that the Dockerfile gives them, each with its digest.
    pub(super) bases: &'a [(String, String)],
    /// `linux/amd64`
    pub(super) platform: &'a str,
}

/// Hashes files one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct ContextHash(Sha256);

impl ContextHash {
    /// Adds a file; files come in the order of their paths. `content` is the hash of its bytes, or of the text of a link.
    pub(super) fn add(&mut self, path: &[u8], kind: ContextEntry, content: &[u8; 32]) {
        let kind = match kind {
            ContextEntry::File => b"f",
            ContextEntry::Executable => b"x",
            ContextEntry::Link => b"l",
        };
        part(&mut self.0, kind);
        part(&mut self.0, path);
        self.0.update(content);
    }
}

/// The tag of a context with these files.
pub(super) fn context_tag(files: &ContextHash, inputs: &BuildInputs<'_>) -> String {
    let mut hash = Sha256::new();
    part(&mut hash, VERSION);
    part(&mut hash, inputs.platform.as_bytes());
    part(&mut hash, inputs.dockerfile);
    part(&mut hash, inputs.target.unwrap_or_default().as_bytes());
    for (name, value) in inputs.args {
        part(&mut hash, name.as_bytes());
        part(&mut hash, value.as_bytes());
    }
    part(&mut hash, b"");
    for (name, digest) in inputs.bases {
        part(&mut hash, name.as_bytes());
        part(&mut hash, digest.as_bytes());
    }
    part(&mut hash, b"");
    hash.update(files.0.clone().finalize());
    let digits = hex(&hash.finalize());
    format!("{CONTEXT_TAG}{}", digits.get(..DIGITS).unwrap_or_default())
}

/// A part with its length before it, so that no two lists of parts give the same bytes.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(change: impl FnOnce(&mut Parts)) -> String {
        let mut parts = Parts {
            files: vec![(b"a".to_vec(), ContextEntry::File, [1; 32])],
            dockerfile: b"FROM scratch".to_vec(),
            target: None,
            args: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            bases: vec![("base".to_owned(), "sha256:0".to_owned())],
            platform: "linux/amd64",
        };
        change(&mut parts);
        let mut files = ContextHash::default();
        for (path, kind, content) in &parts.files {
            files.add(path, *kind, content);
        }
        let Parts { dockerfile, target, args, bases, platform, .. } = &parts;
        context_tag(&files, &BuildInputs { dockerfile, target: target.as_deref(), args, bases, platform })
    }

    struct Parts {
        files: Vec<(Vec<u8>, ContextEntry, [u8; 32])>,
        dockerfile: Vec<u8>,
        target: Option<String>,
        args: BTreeMap<String, String>,
        bases: Vec<(String, String)>,
        platform: &'static str,
    }

    #[test]
    fn every_part_changes_the_tag_and_nothing_else_does() {
        let same = tag(|_| {});
        assert_eq!(same, tag(|_| {}));
        assert!(same.starts_with(CONTEXT_TAG) && same.len() == CONTEXT_TAG.len() + DIGITS, "{same}");
        let changes: [fn(&mut Parts); 10] = [
            |parts| parts.files[0].0 = b"b".to_vec(),
            |parts| parts.files[0].1 = ContextEntry::Executable,
            |parts| parts.files[0].1 = ContextEntry::Link,
            |parts| parts.files[0].2 = [2; 32],
            |parts| parts.files.clear(),
            |parts| parts.dockerfile.push(b'\n'),
            |parts| parts.target = Some("a".to_owned()),
            |parts| drop(parts.args.insert("A".to_owned(), "2".to_owned())),
            |parts| parts.bases[0].1.push('1'),
            |parts| parts.platform = "linux/arm64",
        ];
        let tags: std::collections::BTreeSet<_> = changes.into_iter().map(tag).chain([same]).collect();
        assert_eq!(tags.len(), 11);
    }

    #[test]
    fn parts_that_are_moved_into_another_give_another_tag() {
        let one = tag(|parts| {
            parts.args = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
            parts.bases.clear();
        });
        let other = tag(|parts| {
            parts.args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
            parts.bases = vec![("B".to_owned(), "2".to_owned())];
        });
        assert_ne!(one, other);
    }
}
