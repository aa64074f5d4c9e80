//! The commit that is packed: its files, and its manifest as it is there.

use std::collections::BTreeMap;
use std::path::Path;

use super::git::{PackedCommit, Repository, TreeEntry};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::config::env::Environment;
use crate::lifecycle::manifest::ManifestText;

/// Bytes of a manifest that are read: a larger one is refused.
const LARGEST_MANIFEST: u64 = 16 << 20;

/// A commit, and what it has below the manifest's folder.
pub(super) struct CommittedProject {
    pub(super) repository: Repository,
    pub(super) commit: PackedCommit,
    pub(super) entries: Vec<TreeEntry>,
    /// Ids of regular files by name; names that are not UTF-8 are left out.
    pub(super) files: BTreeMap<String, String>,
    /// Name of the manifest in its folder, and its text.
    pub(super) manifest_name: String,
    pub(super) manifest: ManifestText,
}

impl CommittedProject {
    /// Reads the commit that is checked out in the manifest's folder.
    ///
    /// # Errors
    /// Failures of the user: there is no commit, or the manifest is not in it.
    pub(super) fn read(manifest: &Path, env: &Environment) -> anyhow::Result<Self> {
        let repository = Repository::of(manifest.parent().unwrap_or(Path::new("")), env);
        let commit = repository.head()?;
        let entries = repository.tree(&commit.id)?;
        let files = regular_files(&entries);
        let manifest_name = manifest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let absent = || {
            let (shown, id) = (plain::line(&manifest.display().to_string(), 300), &commit.id);
            Failure::user(format!("the manifest {shown} is no regular file of the commit {id}"))
                .hint("commit it, or name the project's manifest with `--manifest FILE`")
        };
        let id = files.get(&manifest_name).ok_or_else(absent)?;
        let content = repository.contents()?.read(id, LARGEST_MANIFEST)?.ok_or_else(absent)?;
        let text = ManifestText::of_file(manifest, content)?;
        Ok(Self { repository, commit, entries, files, manifest_name, manifest: text })
    }
}

fn regular_files(entries: &[TreeEntry]) -> BTreeMap<String, String> {
    let regular = entries.iter().filter(|entry| entry.mode.starts_with("100"));
    regular.filter_map(|entry| Some((String::from_utf8(entry.path.clone()).ok()?, entry.id.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_submodules_are_no_files() {
        let entries = ["100644", "100755", "120000", "160000"].map(|mode| TreeEntry {
            mode: mode.to_owned(),
            id: "1".to_owned(),
            path: mode.as_bytes().to_owned(),
        });
        assert_eq!(regular_files(&entries).into_keys().collect::<Vec<_>>(), ["100644", "100755"]);
    }
}
