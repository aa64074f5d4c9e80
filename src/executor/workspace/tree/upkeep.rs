//! Repairs a job's directories before the next stage on the host.
//!
//! A directory without its owner's permissions stops git and the runner's helper; in the sandbox, where root has no capabilities, also those
//! of root. Locks of a killed git stop the next git. Follows no link; changes only modes and what git would fail at.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::base::Base;
use super::fs::{change_mode, is_absent, path_of};
use super::walker::{Root, Walker};
use crate::protocol::project::Trees;
use crate::workspace::path::{join, shown};

/// The next stage's use of the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// git works in the project: fetches, checks out, cleans.
    Git,
    /// The runner's helper writes into the project, or the runner cleans up.
    Files,
}

/// Most warnings about the directories of one stage.
const MOST: usize = 10;

/// Makes the directories usable. Returns warnings about those that cannot be repaired.
pub fn make_usable(trees: &Trees, next: Next) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in [trees.project_here(), trees.tmp_here()] {
        remove_file_in_the_way(path)?;
        let Some(root) = trees.open(path)? else { continue };
        let mut walker = Walker::unlocking(&root);
        open_up(&mut walker, path, &mut lines)?;
        if next == Next::Git && path == trees.project_here() {
            mend_git(&mut walker).with_context(|| format!("failed to mend the repository in {}", path.display()))?;
        }
    }
    Ok(lines)
}

/// As [`make_usable`], for the caches of a project below `base`.
pub fn make_cache_usable(base: &Path, path: &Path) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    if let Some(root) = Root::open_below(base, path)? {
        open_up(&mut Walker::unlocking(&root), path, &mut lines)?;
    }
    Ok(lines)
}

/// Removes the temporary directory beside the project: the job's file variables and its lines of `GITLAB_ENV`. Follows no link below
/// the operator's directory.
pub fn remove_temporary(trees: &Trees) -> anyhow::Result<()> {
    let base = trees.host.as_ref().map(|host| Base::open(&host.base)).transpose()?.flatten();
    let tmp = trees.tmp_here();
    let (Some(base), Some(above), Some(name)) = (base, tmp.parent(), tmp.file_name()) else {
        return Ok(());
    };
    let Some(above) = base.directory(above)? else { return Ok(()) };
    let path = path_of(&above).join(name);
    let removed = match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(&path),
        removed => removed,
    };
    match removed {
        Err(error) if !is_absent(&error) => Err(error).with_context(|| format!("failed to remove {}", tmp.display())),
        _ => Ok(()),
    }
}

/// Removes a file at the directory's path, made by a stage or a host script of the job: the runner's `mkdir` would fail.
fn remove_file_in_the_way(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => {
            std::fs::remove_file(path).with_context(|| format!("failed to remove the file {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Gives each directory its owner's permissions, parents first.
fn open_up(walker: &mut Walker, root: &Path, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let unusable = match walker.usable_directory(&path) {
            Ok(unusable) => unusable,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error).with_context(|| format!("failed to look at {}", shown(&path))),
        };
        if let Some(why) = unusable
            && lines.len() < MOST
        {
            lines.push(format!(
                "the directory {} of {} {why}: later stages may fail at it; remove it as root",
                shown(&path),
                root.display()
            ));
        }
        match walker.subdirectories(&path) {
            Ok(names) => left.extend(names.iter().map(|name| join(&path, name))),
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error).with_context(|| format!("failed to list {}", shown(&path))),
        }
    }
    Ok(())
}

/// Removes all git locks, which are stale since no git runs now, and a `.git` that is not a directory, which the runner did not make.
fn mend_git(walker: &mut Walker) -> io::Result<()> {
    const GIT: &[u8] = b".git";
    match walker.stat(GIT)? {
        None => return Ok(()),
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
        Some(_) => return Ok(rustix::fs::unlinkat(walker.directory(b"", false)?, GIT, AtFlags::empty())?),
    }
    let mut left = vec![GIT.to_vec()];
    while let Some(path) = left.pop() {
        for (name, kind) in walker.names(&path)? {
            match kind {
                FileType::Directory => left.push(join(&path, &name)),
                FileType::RegularFile if name.ends_with(b".lock") => {
                    match rustix::fs::unlinkat(walker.directory(&path, false)?, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

impl Walker {
    /// Gives the directory its owner's permissions. Returns the reason if it stays unusable.
    fn usable_directory(&mut self, path: &[u8]) -> io::Result<Option<String>> {
        const OWNERS: u16 = 0o700;
        let fd = self.directory(path, false)?;
        let look = || rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        let mut stat = look()?;
        if stat.stx_mode & OWNERS != OWNERS && change_mode(fd, u32::from((stat.stx_mode | OWNERS) & 0o7777)).is_ok() {
            stat = look()?;
        }
        if stat.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
            return Ok(Some("cannot be changed (attribute `immutable` or `append only`)".to_owned()));
        }
        let own = rustix::process::geteuid().as_raw();
        // Also covers write permission through the group.
        let is_writable = rustix::fs::accessat(
            fd,
            ".",
            rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
            AtFlags::EACCESS,
        );
        Ok(is_writable.is_err().then(|| format!("belongs to the user id {}, and the runner's is {own}", stat.stx_uid)))
    }

    fn subdirectories(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let names = self.names(path)?;
        Ok(names.into_iter().filter(|(_, kind)| *kind == FileType::Directory).map(|(name, _)| name).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;
    use crate::protocol::project::HostTrees;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn trees(folder: &Path) -> Trees {
        Trees { project: folder.join("p"), tmp: folder.join("p.tmp"), host: None }
    }

    #[test]
    fn directories_get_their_owners_bits_and_keep_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let trees = trees(folder.path());
        let deep = trees.project.join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(&trees.tmp).unwrap();
        fs::create_dir(folder.path().join("else")).unwrap();
        symlink(folder.path().join("else"), trees.project.join("link")).unwrap();
        fs::write(deep.join("f"), "").unwrap();
        for (path, mode) in
            [(&deep.join("f"), 0o444), (&deep, 0o555), (&trees.project.join("a"), 0), (&trees.tmp, 0o500)]
        {
            set(path, mode);
        }
        set(&folder.path().join("else"), 0o500);
        set(&trees.project, 0o2050);
        assert!(make_usable(&trees, Next::Files).unwrap().is_empty());
        let found =
            [&trees.project, &trees.project.join("a"), &deep, &deep.join("f"), &trees.tmp].map(|path| mode(path));
        assert_eq!(found, [0o2750, 0o700, 0o755, 0o444, 0o700]);
        assert_eq!(mode(&folder.path().join("else")), 0o500, "behind a link");
        fs::remove_dir_all(&trees.project).unwrap();
    }

    #[test]
    fn what_lies_beside_the_project_goes_with_its_job() {
        let folder = tempfile::tempdir().unwrap();
        let of_host = |tmp: PathBuf| {
            let host = HostTrees { base: folder.path().to_owned(), project: folder.path().join("p"), tmp };
            Trees { host: Some(host), ..trees(folder.path()) }
        };
        let trees = of_host(folder.path().join("p.tmp"));
        remove_temporary(&trees).unwrap();
        fs::create_dir_all(trees.tmp.join("deep")).unwrap();
        fs::write(trees.tmp.join("TOKEN"), "secret").unwrap();
        fs::write(folder.path().join("kept"), "").unwrap();
        symlink(folder.path(), trees.tmp.join("deep/link")).unwrap();
        remove_temporary(&trees).unwrap();
        assert!(!trees.tmp.exists() && folder.path().join("kept").exists());
        // A link goes, and what it leads to stays.
        fs::create_dir(folder.path().join("else")).unwrap();
        fs::write(folder.path().join("else/f"), "").unwrap();
        symlink(folder.path().join("else"), &trees.tmp).unwrap();
        remove_temporary(&trees).unwrap();
        assert!(trees.tmp.symlink_metadata().is_err() && folder.path().join("else/f").exists());
        fs::write(&trees.tmp, "secret").unwrap();
        remove_temporary(&trees).unwrap();
        assert!(!trees.tmp.exists());
        // Nothing is removed through a link on the way.
        symlink("else", folder.path().join("way")).unwrap();
        fs::create_dir(folder.path().join("else/p.tmp")).unwrap();
        let through = of_host(folder.path().join("way/p.tmp"));
        assert!(remove_temporary(&through).is_err() && folder.path().join("else/p.tmp").exists());
    }

    #[test]
    fn a_killed_gits_locks_go_and_files_of_such_names_stay() {
        let folder = tempfile::tempdir().unwrap();
        let trees = trees(folder.path());
        let git = trees.project.join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::create_dir_all(git.join("modules/m")).unwrap();
        let locks = ["index.lock", "packed-refs.lock", "refs/heads/main.lock", "modules/m/index.lock"];
        for name in locks.iter().chain(&["config", "lock"]) {
            fs::write(git.join(name), "").unwrap();
        }
        fs::write(trees.project.join("Cargo.lock"), "").unwrap();
        make_usable(&trees, Next::Files).unwrap();
        assert!(git.join("index.lock").exists());
        make_usable(&trees, Next::Git).unwrap();
        assert!(locks.iter().all(|name| !git.join(name).exists()));
        assert!(git.join("config").exists() && git.join("lock").exists() && trees.project.join("Cargo.lock").exists());
    }

    #[test]
    fn files_in_the_place_of_directories_go() {
        let folder = tempfile::tempdir().unwrap();
        let trees = trees(folder.path());
        make_usable(&trees, Next::Git).unwrap();
        fs::create_dir(&trees.project).unwrap();
        fs::write(trees.project.join(".git"), "gitdir: /etc").unwrap();
        fs::write(&trees.tmp, "").unwrap();
        make_usable(&trees, Next::Git).unwrap();
        assert!(!trees.project.join(".git").exists() && !trees.tmp.exists());
        fs::remove_dir(&trees.project).unwrap();
        fs::write(&trees.project, "").unwrap();
        make_usable(&trees, Next::Git).unwrap();
        assert!(!trees.project.exists());
    }
}
