//! Puts the data of a model into the folder that becomes `/opt/ml/model`. All functions block.

use std::io::Read;
use std::path::{Component, Path};

use anyhow::{Context as _, bail};
use flate2::read::GzDecoder;
use serde_json::Value;
use tar::{Archive, EntryType};

use crate::protocol::text;
use crate::services::training::{PlatformStore, S3Location, copy_down};

/// Downloads the data of a container; one without data leaves the folder empty.
pub(super) fn download(store: &PlatformStore, container: &Value, folder: &Path) -> anyhow::Result<()> {
    let source = &container["ModelDataSource"]["S3DataSource"];
    let Some(uri) = text(container, "ModelDataUrl").or_else(|| text(source, "S3Uri")) else { return Ok(()) };
    let place = S3Location::parse(uri).with_context(|| format!("{uri} is not an S3 address"))?;
    if text(source, "CompressionType") == Some("None") {
        return copy_down(store, &place, folder, (0, 1), None);
    }
    let stored = store.object(&place.bucket, &place.key).with_context(|| format!("failed to read {uri}"))?;
    let mut content: Box<dyn Read> = Box::new(std::io::empty());
    for (path, _) in stored.files() {
        let file = std::fs::File::open(&path).context("failed to open an object's body")?;
        content = Box::new(content.chain(file));
    }
    extract(content, folder).with_context(|| format!("failed to extract {uri}"))
}

/// Extracts a `tar.gz`. Nothing in it may lead out of the folder.
fn extract(content: impl Read, folder: &Path) -> anyhow::Result<()> {
    let mut archive = Archive::new(GzDecoder::new(content));
    archive.set_preserve_permissions(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if !is_inside(&path) {
            bail!("the entry {} leads out of the folder", path.display());
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::XGlobalHeader => continue,
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                if !is_inside(&target) {
                    bail!("the link {} leads out of the folder", path.display());
                }
            }
            _ => bail!("the entry {} is neither a file nor a folder", path.display()),
        }
        entry.unpack_in(folder)?;
    }
    Ok(())
}

/// Whether a path stays in its folder, with no step up.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(fill: impl FnOnce(&mut tar::Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        fill(&mut builder);
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn entry(kind: EntryType, path: &str, target: &str) -> Vec<u8> {
        packed(|builder| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(0);
            // `set_path` would refuse a hostile path.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        })
    }

    #[test]
    fn files_land_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let content = packed(|builder| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_size(2);
            builder.append_data(&mut header, "./code/weights", b"42".as_slice()).unwrap();
        });
        extract(content.as_slice(), folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("code/weights")).unwrap(), b"42");
    }

    #[test]
    fn a_hostile_archive_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        for (kind, path, target) in [
            (EntryType::Regular, "../evil", ""),
            (EntryType::Regular, "/evil", ""),
            (EntryType::Symlink, "link", "/etc"),
            (EntryType::Symlink, "link", "a/../../evil"),
            (EntryType::Link, "link", "../evil"),
            (EntryType::Fifo, "pipe", ""),
            (EntryType::Char, "device", ""),
        ] {
            assert!(extract(entry(kind, path, target).as_slice(), &folder).is_err(), "{path} {target}");
        }
        assert!(extract(b"no archive".as_slice(), &folder).is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
