//! Channels from EFS and `FSx` for Lustre: folders of this machine that the emulator's operator gives for file systems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::host::BindMount;
use crate::protocol::text;

/// The mount of a channel's directory.
pub(super) fn mount(
    file_systems: &BTreeMap<String, PathBuf>,
    source: &Value,
    channel: &str,
) -> anyhow::Result<BindMount> {
    let id = text(source, "FileSystemId").unwrap_or_default();
    let path = text(source, "DirectoryPath").unwrap_or_default();
    let failed = || format!("Unable to mount file system: the directory '{path}' of '{id}' could not be found");
    let root = file_systems.get(id).with_context(failed)?.canonicalize().with_context(failed)?;
    let from = root.join(path.trim_start_matches('/')).canonicalize().with_context(failed)?;
    anyhow::ensure!(from.starts_with(&root) && from.is_dir(), failed());
    let at = Path::new("/opt/ml/input/data").join(channel);
    Ok(BindMount { from, at, writable: text(source, "FileSystemAccessMode") == Some("rw") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_directories_of_the_file_system_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("fs/data")).unwrap();
        std::fs::create_dir_all(folder.path().join("other")).unwrap();
        std::os::unix::fs::symlink("../other", folder.path().join("fs/link")).unwrap();
        let known = BTreeMap::from([("fs-12345678".to_owned(), folder.path().join("fs"))]);
        let mount = |id: &str, path: &str, mode: &str| {
            let source = json!({"FileSystemId": id, "DirectoryPath": path, "FileSystemAccessMode": mode});
            mount(&known, &source, "c").map(|mount| (mount.from, mount.writable))
        };
        let data = folder.path().join("fs/data").canonicalize().unwrap();
        assert_eq!(mount("fs-12345678", "/data", "ro").unwrap(), (data.clone(), false));
        assert_eq!(mount("fs-12345678", "/data/", "rw").unwrap(), (data, true));
        for (id, path) in
            [("fs-12345678", "/none"), ("fs-12345678", "/../other"), ("fs-12345678", "/link"), ("fs-87654321", "/")]
        {
            assert!(mount(id, path, "ro").is_err(), "{id} {path}");
        }
    }
}
