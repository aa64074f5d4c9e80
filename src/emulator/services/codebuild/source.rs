//! Unpacks the source of a build: a zip file in S3.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::Context as _;
use zip::ZipArchive;

/// Kind of file in the mode of an entry, and that of a symbolic link.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
/// Longest target of a link, in bytes.
const LONGEST_TARGET: u64 = 4096;

/// Unpacks an archive into an empty folder. Blocking.
///
/// # Errors
/// The archive cannot be read, or has an entry outside the folder.
pub(super) fn unpack(archive: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(File::open(archive)?).context("the source is no zip file")?;
    // Links last: no file is written through one.
    let mut links = Vec::new();
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number)?;
        let name = entry.enclosed_name().context("the source has an entry outside of its folder")?;
        let path = folder.join(name);
        let mode = entry.unix_mode().unwrap_or(0o100_644);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        if mode & KIND == LINK {
            let mut target = String::new();
            (&mut entry).take(LONGEST_TARGET).read_to_string(&mut target)?;
            links.push((target, path));
            continue;
        }
        let mut file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        io::copy(&mut entry, &mut file).with_context(|| format!("failed to unpack {}", path.display()))?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    }
    for (target, path) in links {
        symlink(target, &path).with_context(|| format!("failed to create {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    #[test]
    fn modes_and_links_are_kept_and_nothing_leaves_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let archive = place.path().join("a.zip");
        let write = |names: &[(&str, u32)]| {
            let mut zip = ZipWriter::new(File::create(&archive).unwrap());
            for (name, mode) in names {
                zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
                zip.write_all(b"x").unwrap();
            }
            zip.add_symlink("link", "d/run", SimpleFileOptions::default()).unwrap();
            zip.finish().unwrap();
        };
        write(&[("d/run", 0o755), ("plain", 0o644)]);
        let folder = place.path().join("out");
        unpack(&archive, &folder).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("d/run"), mode("plain"), mode("link")), (0o755, 0o644, 0o755));
        write(&[("../outside", 0o644)]);
        unpack(&archive, &place.path().join("second")).unwrap_err();
        assert!(!place.path().join("outside").exists());
    }
}
