//! Unpacks the layers of an image into a directory, one over the other. Blocking.
//!
//! An entry that would leave the directory ends the work: layers are made by others.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Begins the name of a file that says: this name of a lower layer is gone.
const WHITEOUT: &[u8] = b".wh.";
/// The name of a file that says: all that lower layers have in this directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Lays one layer over what is in the directory.
pub(super) fn apply(layer: &Path, root: &Path) -> anyhow::Result<()> {
    let mut file = File::open(layer).with_context(|| format!("failed to open {}", layer.display()))?;
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    ensure!(!magic.starts_with(&ZSTD), "failed to unpack a layer: zstd is not supported by the emulator");
    let file = BufReader::new(file);
    if magic.starts_with(&GZIP) {
        unpack(Archive::new(MultiGzDecoder::new(file)), root)
    } else {
        unpack(Archive::new(file), root)
    }
}

fn unpack(mut archive: Archive<impl Read>, root: &Path) -> anyhow::Result<()> {
    let root = fs::canonicalize(root).context("failed to find the directory of an image")?;
    let is_root = rustix::process::geteuid().is_root();
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(is_root);
    archive.set_unpack_xattrs(false);
    for entry in archive.entries().context("failed to read a layer")? {
        let mut entry = entry.context("failed to read a layer")?;
        let path = entry.path().context("failed to read a name in a layer")?.into_owned();
        place(&mut entry, &path, &root).with_context(|| format!("failed to unpack {}", path.display()))?;
    }
    Ok(())
}

fn place(entry: &mut Entry<'_, impl Read>, path: &Path, root: &Path) -> anyhow::Result<()> {
    let Some(target) = inside(path, root)? else { return Ok(()) };
    let parent = target.parent().unwrap_or(root);
    let name = target.file_name().unwrap_or_default().as_bytes();
    if name == OPAQUE {
        for below in fs::read_dir(parent).into_iter().flatten().flatten() {
            remove(&below.path())?;
        }
        return Ok(());
    }
    if let Some(gone) = name.strip_prefix(WHITEOUT) {
        ensure!(!matches!(gone, b"" | b"." | b".."), "the name says that a directory above it is gone");
        return remove(&parent.join(std::ffi::OsStr::from_bytes(gone)));
    }
    let kind = entry.header().entry_type();
    if kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
        return Ok(()); // A container gets its own `/dev`.
    }
    let was_directory = fs::symlink_metadata(&target).ok().map(|found| found.is_dir());
    if was_directory.is_some_and(|was_directory| !(was_directory && kind.is_dir())) {
        remove(&target)?;
    }
    let unpacked = entry.unpack_in(root)?;
    ensure!(unpacked, "the name leads out of the image");
    Ok(())
}

/// Where an entry goes; `None` for the root itself. Links of lower layers may lead elsewhere in the image, and nowhere else.
fn inside(path: &Path, root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => bail!("the name leads out of the image"),
        }
    }
    let Some(last) = names.pop() else { return Ok(None) };
    let parent: PathBuf = root.components().map(Component::as_os_str).chain(names).collect();
    if let Ok(real) = fs::canonicalize(&parent) {
        ensure!(real.starts_with(root), "a link of a lower layer leads out of the image");
    }
    Ok(Some(parent.join(last)))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.with_context(|| format!("failed to remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, EntryType, Header};

    use super::*;

    /// A layer of files (`text`), directories (no text) and links (`-> target`).
    fn layer(entries: &[(&str, Option<&str>)], gzip: bool) -> tempfile::NamedTempFile {
        let mut builder = Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let content = content.map(|content| (content, content.strip_prefix("-> ")));
            match content {
                None => header.set_entry_type(EntryType::Directory),
                Some((_, Some(_))) => header.set_entry_type(EntryType::Symlink),
                Some((text, None)) => header.set_size(text.len() as u64),
            }
            // Written into the header itself: `append_data` refuses what a hostile layer has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let text = match content {
                Some((_, Some(target))) => {
                    header.set_link_name(target).unwrap();
                    ""
                }
                Some((text, None)) => text,
                None => "",
            };
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        if gzip {
            let mut encoder = GzEncoder::new(&mut file, Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            file.write_all(&bytes).unwrap();
        }
        file
    }

    #[test]
    fn a_layer_replaces_and_removes_what_lower_ones_have() {
        let root = tempfile::tempdir().unwrap();
        let lower = [
            ("usr/bin/", None),
            ("bin", Some("-> usr/bin")),
            ("usr/bin/a", Some("a")),
            ("etc/old", Some("x")),
            ("opt/all/one", Some("1")),
            ("dir/file", Some("f")),
        ];
        apply(layer(&lower, true).path(), root.path()).unwrap();
        let upper = [
            ("bin/b", Some("b")),
            ("etc/.wh.old", Some("")),
            ("opt/all/.wh..wh..opq", Some("")),
            ("opt/all/two", Some("2")),
            ("dir", Some("now a file")),
        ];
        apply(layer(&upper, false).path(), root.path()).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).ok();
        assert_eq!(read("usr/bin/b").as_deref(), Some("b"), "through the link of the lower layer");
        assert_eq!((read("usr/bin/a"), read("etc/old"), read("opt/all/one")), (Some("a".to_owned()), None, None));
        assert_eq!((read("opt/all/two").as_deref(), read("dir").as_deref()), (Some("2"), Some("now a file")));
    }

    #[test]
    fn a_removal_names_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for name in [".wh.", ".wh..", ".wh...", "dir/.wh..", "dir/.wh..."] {
            fs::create_dir_all(root.join("dir")).unwrap();
            fs::write(folder.path().join("kept"), "kept").unwrap();
            let error = format!("{:#}", apply(layer(&[(name, Some(""))], false).path(), &root).unwrap_err());
            assert!(error.contains("a directory above it is gone"), "{name}: {error}");
            assert!(root.join("dir").is_dir() && folder.path().join("kept").is_file(), "{name}");
        }
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let target = format!("-> {}", outside.display());
        for entries in [
            vec![("../outside/kept", Some("changed"))],
            vec![("out", Some(target.as_str())), ("out/kept", Some("changed"))],
            vec![("away", Some("-> ../outside")), ("away/.wh.kept", Some(""))],
            vec![("gone", Some("-> ../outside")), ("gone/.wh..wh..opq", Some(""))],
        ] {
            let error = format!("{:#}", apply(layer(&entries, false).path(), &root).unwrap_err());
            assert!(error.contains("leads out of the image"), "{error}");
            assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept", "{entries:?}");
        }
    }
}
