//! The objects of a channel, and their way into the folder of a container: as copies, or as links to one file.
//!
//! All functions block and run on the blocking pool.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::location::S3Location;
use super::platform::PlatformStore;
use crate::protocol::text;
use crate::store::Stored;

/// Smaller files are never shared, in bytes.
const SHARED_FROM: u64 = 1 << 20;

/// An object with its path below the folder of its channel.
pub(super) type PlacedObject = (String, Arc<Stored>);

/// The objects of a channel that lies in S3; with several hosts, only the share of this one.
pub(super) fn objects_of(
    store: &PlatformStore,
    source: &Value,
    (index, count): (usize, usize),
) -> anyhow::Result<Vec<PlacedObject>> {
    let Some(from) = text(source, "S3Uri").and_then(S3Location::parse) else { return Ok(Vec::new()) };
    let share = match text(source, "S3DataDistributionType") {
        Some("ShardedByS3Key") => (index, count),
        _ => (0, 1),
    };
    if text(source, "S3DataType") == Some("ManifestFile") {
        return objects_of_manifest(store, &from, share);
    }
    let all = store.objects(&from)?;
    if all.is_empty() {
        // They were there when the job was created.
        let S3Location { bucket, key, .. } = &from;
        bail!("No S3 objects found under S3 URL \"s3://{bucket}/{key}\" given in input data source.");
    }
    Ok(share_of(all, &from, share))
}

fn objects_below(store: &PlatformStore, from: &S3Location, share: (usize, usize)) -> anyhow::Result<Vec<PlacedObject>> {
    Ok(share_of(store.objects(from)?, from, share))
}

/// One host's share of the objects, in the order of their keys.
fn share_of(all: Vec<(String, Arc<Stored>)>, from: &S3Location, share: (usize, usize)) -> Vec<PlacedObject> {
    let mine = all.into_iter().skip(share.0).step_by(share.1);
    mine.map(|(key, stored)| (relative_to(&from.key, &key).to_owned(), stored)).collect()
}

/// A manifest is a list: first a prefix, then names below it.
fn objects_of_manifest(
    store: &PlatformStore,
    from: &S3Location,
    share: (usize, usize),
) -> anyhow::Result<Vec<PlacedObject>> {
    let manifest = store.object(&from.bucket, &from.key)?;
    let mut content = Vec::new();
    for (path, _) in manifest.files() {
        content.extend(std::fs::read(path)?);
    }
    let entries: Vec<Value> = serde_json::from_slice(&content).context("failed to read the manifest as a JSON list")?;
    let (first, names) = entries.split_first().context("failed to use the manifest: it is empty")?;
    let prefix = text(first, "prefix").and_then(S3Location::parse).context("failed to find the manifest's prefix")?;
    let names = names.iter().filter_map(Value::as_str).skip(share.0).step_by(share.1);
    names.map(|name| Ok((name.to_owned(), store.object(&prefix.bucket, &format!("{}{name}", prefix.key))?))).collect()
}

/// Copies the objects below a prefix; with several hosts, only the share of this one.
pub(crate) fn copy_down(
    store: &PlatformStore,
    from: &S3Location,
    folder: &Path,
    share: (usize, usize),
    shared: Option<&Path>,
) -> anyhow::Result<()> {
    let objects = objects_below(store, from, share)?;
    objects.iter().try_for_each(|(relative, stored)| write_down(stored, folder, relative, shared))
}

/// Writes an object as a plain file: S3 keeps no mode bits. With a folder for `shared` files, a large one is a link to one copy there.
pub(super) fn write_down(stored: &Stored, folder: &Path, relative: &str, shared: Option<&Path>) -> anyhow::Result<()> {
    let Some(target) = target_of(folder, relative)? else { return Ok(()) };
    let files = stored.files();
    // A body's name is never given to another one.
    let name = files.first().and_then(|(body, _)| body.file_name());
    let (Some(shared), Some(name), true) = (shared, name, stored.object.bytes >= SHARED_FROM) else {
        return fill(&files, &target);
    };
    let one = shared.join(name);
    if !one.exists() {
        // Written completely before it is renamed, because several containers may create it at once.
        std::fs::create_dir_all(shared).with_context(|| format!("failed to create {}", shared.display()))?;
        let fresh = tempfile::NamedTempFile::new_in(shared).context("failed to create a temporary file")?;
        fill(&files, fresh.path())?;
        fresh.persist(&one).with_context(|| format!("failed to create {}", one.display()))?;
    }
    std::fs::hard_link(&one, &target).with_context(|| format!("failed to create {}", target.display()))
}

/// Puts an object into a folder without a copy: as a link to the file of the store. An object of several parts is copied once, to
/// the folder `shared`.
pub(super) fn link_down(stored: &Stored, folder: &Path, relative: &str, shared: &Path) -> anyhow::Result<()> {
    let files = stored.files();
    let [(body, _)] = files.as_slice() else { return write_down(stored, folder, relative, Some(shared)) };
    let Some(target) = target_of(folder, relative)? else { return Ok(()) };
    std::fs::hard_link(body, &target).with_context(|| format!("failed to create {}", target.display()))
}

/// The file of an object below a folder, whose parents are created; `None` for what is only a folder.
fn target_of(folder: &Path, relative: &str) -> anyhow::Result<Option<PathBuf>> {
    let path = Path::new(relative);
    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        bail!("failed to place the object {relative}: its key is not a plain path");
    }
    let target = folder.join(path);
    let only_folder = relative.is_empty() || relative.ends_with('/');
    let made = if only_folder { Some(target.as_path()) } else { target.parent() };
    if let Some(made) = made {
        std::fs::create_dir_all(made).with_context(|| format!("failed to create {}", made.display()))?;
    }
    Ok((!only_folder).then_some(target))
}

/// The path of a key below the folder of its channel.
fn relative_to<'a>(prefix: &str, key: &'a str) -> &'a str {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    if prefix.is_empty() || prefix.ends_with('/') {
        return rest;
    }
    if let Some(below) = rest.strip_prefix('/') {
        return below;
    }
    // The prefix ends within a name: paths are relative to its folder.
    let parent = prefix.rfind('/').map_or(0, |at| at + 1);
    key.get(parent..).unwrap_or(rest)
}

fn fill(files: &[(PathBuf, u64)], target: &Path) -> anyhow::Result<()> {
    let mut out = std::fs::File::create(target).with_context(|| format!("failed to create {}", target.display()))?;
    for (source, _) in files {
        let mut source = std::fs::File::open(source).context("failed to open an object's body")?;
        io::copy(&mut source, &mut out).with_context(|| format!("failed to write {}", target.display()))?;
    }
    out.set_permissions(std::fs::Permissions::from_mode(0o644))
        .with_context(|| format!("failed to set the mode of {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn keys_land_below_their_channel() {
        let cases = [
            ("a/", "a/x", "x"),
            ("a", "a/x/y", "x/y"),
            ("a/fi", "a/file.csv", "file.csv"),
            ("a/file.csv", "a/file.csv", "file.csv"),
            ("", "x", "x"),
            ("a/", "a/", ""),
        ];
        for (prefix, key, path) in cases {
            assert_eq!(relative_to(prefix, key), path, "{prefix} {key}");
        }
    }

    #[test]
    fn a_key_cannot_leave_its_channel() {
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("b").unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "x").unwrap();
        store.put_file("b", "in/../../evil", &source).unwrap();
        let from = S3Location::parse("s3://b/in/").unwrap();
        let channel = folder.path().join("channel/deep");
        assert!(copy_down(&store, &from, &channel, (0, 1), None).is_err());
        assert!(!folder.path().join("evil").exists());
    }

    #[test]
    fn large_files_are_links_to_one_copy_only_when_asked_for() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("bucket").unwrap();
        let large = vec![7; usize::try_from(SHARED_FROM).unwrap()];
        for (key, content) in [("c/large", large.as_slice()), ("c/small", b"x")] {
            let source = folder.path().join("source");
            std::fs::write(&source, content).unwrap();
            store.put_file("bucket", key, &source).unwrap();
        }
        let from = S3Location::parse("s3://bucket/c/").unwrap();
        let shared = folder.path().join("shared");
        let inode = |job: &str, name: &str, shared: Option<&Path>| {
            let channel = folder.path().join(job);
            copy_down(&store, &from, &channel, (0, 1), shared).unwrap();
            let found = std::fs::metadata(channel.join(name)).unwrap();
            assert_eq!(found.mode() & 0o777, 0o644);
            found.ino()
        };
        assert_eq!(inode("one", "large", Some(&shared)), inode("two", "large", Some(&shared)));
        assert_eq!(std::fs::read(folder.path().join("two/large")).unwrap(), large);
        assert_ne!(inode("three", "small", Some(&shared)), inode("four", "small", Some(&shared)));
        assert_ne!(inode("five", "large", None), inode("six", "large", None));
        let stored = store.object("bucket", "c/large").unwrap().files();
        assert_ne!(std::fs::metadata(&stored[0].0).unwrap().ino(), inode("seven", "large", Some(&shared)));
    }

    #[test]
    fn an_object_is_linked_without_a_copy() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("bucket").unwrap();
        let (fresh, path) = store.store().fresh_file("bucket").unwrap();
        // 100 GB that take no room.
        let bytes = 100_u64 << 30;
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let object = crate::store::Object {
            tag: "tag".to_owned(),
            bytes,
            modified_ms: 0,
            segments: vec![crate::store::FileSegment { file: fresh, bytes }],
            attributes: crate::store::Attributes::default(),
            version: None,
        };
        let stored = store.store().commit("bucket", "c/deep/large", object, &crate::store::Precondition::None).unwrap();
        let (channel, shared) = (folder.path().join("channel"), folder.path().join("shared"));
        link_down(&stored, &channel, "deep/large", &shared).unwrap();
        let found = std::fs::metadata(channel.join("deep/large")).unwrap();
        assert_eq!((found.ino(), found.len()), (std::fs::metadata(path).unwrap().ino(), bytes));
        assert!(!shared.exists());
    }
}
