//! Repairs a job's directories before the next stage on the host.
//!
//! A directory without its owner's permissions stops git and the runner's helper; in the sandbox, where root has no capabilities, also those
//! of root. Locks of a killed git stop the next git. Follows no link; changes only modes and what git would fail at.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::base::Base;
use super::fs::{change_mode, is_absent};
use crate::base::descent::{self, Descent, Found};
use crate::base::removal;
use crate::protocol::project::Trees;
use crate::workspace::path::{masked, shown};

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
    let Some(host) = &trees.host else { return Ok(lines) };
    let Some(base) = Base::open(&host.base)? else { return Ok(lines) };
    for path in [&host.project, &host.tmp] {
        base.clear_way(path)?;
        let Some(directory) = base.directory(path)? else { continue };
        let is_repository = next == Next::Git && *path == host.project;
        open_up(&directory, path, is_repository, &mut lines)?;
    }
    Ok(lines)
}

/// As [`make_usable`], for the caches of a project below `base`.
pub fn make_cache_usable(base: &Path, path: &Path) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let base = Base::open(base)?;
    if let Some(directory) = base.map(|base| base.directory(path)).transpose()?.flatten() {
        open_up(&directory, path, false, &mut lines)?;
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
    let name = CString::new(name.as_bytes())?;
    removal::remove(above.as_fd(), &name).with_context(|| format!("failed to remove {}", masked(tmp)))
}

/// Gives each directory its owner's permissions, parents first. In a repository also removes the obstacles of git ([`mend_git`]), and
/// directories too deep for git, which its checkout and `git clean` would fail at.
fn open_up(top: &OwnedFd, root: &Path, is_repository: bool, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let mut warn = |unusable: Option<String>, path: &[u8]| {
        if let Some(why) = unusable
            && lines.len() < MOST
        {
            let (path, root) = (shown(path), masked(root));
            lines.push(format!("the directory {path} of {root} {why}: later stages may fail at it; remove it as root"));
        }
    };
    let failed = || format!("failed to list the directories of {}", masked(root));
    warn(make_directory_usable(top).with_context(failed)?, b"");
    let mut descent = match Descent::of(top.as_fd()) {
        Err(error) if cannot_be_listed(&error) => return Ok(()),
        descent => descent.with_context(failed)?,
    };
    while let Some(found) = descent.advance() {
        let found = found.with_context(failed)?;
        if is_repository {
            mend_git(&descent, &found).with_context(|| format!("failed to mend the repository in {}", masked(root)))?;
        }
        if found.kind != FileType::Directory {
            continue;
        }
        if descent.is_deepest() {
            if is_repository {
                removal::remove(descent.above()?, &found.name)
                    .with_context(|| format!("failed to remove deep directories in {}", masked(root)))?;
            }
            continue;
        }
        let directory = match descent::open(descent.above()?, &found.name) {
            Err(error) if cannot_be_listed(&error) => continue,
            directory => directory.with_context(failed)?,
        };
        warn(make_directory_usable(&directory).with_context(failed)?, descent.path());
        match descent.enter_at(directory.as_fd()) {
            Err(error) if !cannot_be_listed(&error) => return Err(error).with_context(failed),
            _ => {}
        }
    }
    Ok(())
}

/// The directory has gone, or a warning tells that it belongs to another user.
fn cannot_be_listed(error: &io::Error) -> bool {
    is_absent(error) || error.kind() == io::ErrorKind::PermissionDenied
}

/// Removes a git lock, which is stale since no git runs now, and a `.git` that is not a directory, which the runner did not make.
fn mend_git(descent: &Descent, found: &Found) -> io::Result<()> {
    let is_obstacle = match found.kind {
        FileType::Directory => false,
        FileType::RegularFile if descent.path().starts_with(b".git/") => found.name.to_bytes().ends_with(b".lock"),
        _ => descent.path() == b".git",
    };
    if !is_obstacle {
        return Ok(());
    }
    match rustix::fs::unlinkat(descent.above()?, &found.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the directory its owner's permissions. Returns the reason if it stays unusable.
fn make_directory_usable(fd: &OwnedFd) -> io::Result<Option<String>> {
    const OWNERS: u16 = 0o700;
    let look = || rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let mut stat = look()?;
    if stat.stx_mode & OWNERS != OWNERS && change_mode(fd.as_fd(), u32::from((stat.stx_mode | OWNERS) & 0o7777)).is_ok()
    {
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
        let (project, tmp) = (folder.join("p"), folder.join("p.tmp"));
        let host = HostTrees { base: folder.to_owned(), project: project.clone(), tmp: tmp.clone() };
        Trees { project, tmp, host: Some(host) }
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

    #[test]
    fn pipes_and_sockets_go_and_so_do_files_in_the_place_of_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let of_group = trees(&folder.path().join("g"));
        let host = HostTrees { base: folder.path().to_owned(), ..of_group.host.clone().unwrap() };
        let trees = Trees { host: Some(host), ..of_group };
        fs::write(folder.path().join("g"), "").unwrap();
        make_usable(&trees, Next::Git).unwrap();
        fs::create_dir(folder.path().join("g")).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &trees.project, pipe, rustix::fs::Mode::RWXU, 0).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&trees.tmp).unwrap();
        make_usable(&trees, Next::Git).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("g")).unwrap().count(), 0);
        drop(socket);
    }

    #[test]
    fn a_file_behind_a_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("host")).unwrap();
        fs::write(folder.path().join("host/p"), "").unwrap();
        symlink("host", folder.path().join("g")).unwrap();
        let of_group = trees(&folder.path().join("g"));
        let host = HostTrees { base: folder.path().to_owned(), ..of_group.host.clone().unwrap() };
        let made = make_usable(&Trees { host: Some(host), ..of_group }, Next::Git);
        assert!(made.is_err() && folder.path().join("host/p").exists());
    }

    #[test]
    fn a_repository_loses_what_is_too_deep_for_git() {
        let folder = tempfile::tempdir().unwrap();
        let trees = trees(folder.path());
        let deep = |levels| trees.project.join("d/".repeat(levels));
        fs::create_dir_all(deep(descent::DEEPEST + 40)).unwrap();
        make_usable(&trees, Next::Files).unwrap();
        assert!(deep(descent::DEEPEST + 40).exists());
        make_usable(&trees, Next::Git).unwrap();
        assert!(deep(descent::DEEPEST - 1).exists() && !deep(descent::DEEPEST).exists());
    }
}
