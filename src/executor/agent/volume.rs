//! Places the project and the agent's temporary files on the container's large volume.
//!
//! SageMaker mounts the volume at `/opt/ml` and `/tmp`; other directories are on a small system disk. Scripts may empty `/tmp`, so
//! the agent prefers other directories of the volume that it can write to. The project has the same path in every container, so
//! an environment that one job made and cached works in the next.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::Access;

use super::spool::OutputSpool;
use crate::base::failure::Failure;
use crate::protocol::bootstrap;
use crate::protocol::project::Trees;

const TMP: &str = "/tmp";
/// Last resorts for temporary files, for when scripts filled or removed the directories before.
const LAST_PLACES: [&str; 3] = ["/var/tmp", "/dev/shm", "/"];
/// The agent's folder in [`TMP`].
const FOLDER: &str = "sagemaker-executor";
/// Subfolder for directories that would otherwise be on the small disk.
const MOVED: &str = "volume";
/// Upper bound of the output that waits on disk for its reader.
const SPOOL_BYTES: u64 = 1 << 30;

/// Directories for the agent's temporary files, best first.
fn places() -> impl Iterator<Item = PathBuf> {
    [bootstrap::channel_dir(), PathBuf::from(TMP)].into_iter().chain(LAST_PLACES.map(PathBuf::from))
}

/// Calls `make` with each of [`places`] and returns the first success.
fn first_of<T>(make: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    first_among(places(), make)
}

fn first_among<T>(places: impl Iterator<Item = PathBuf>, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let mut refused = None;
    for place in places {
        // A script may have removed the directory.
        if place.as_path() == Path::new(TMP) && !place.is_dir() {
            let _ = fs::DirBuilder::new().mode(0o1777).create(&place);
        }
        match make(&place) {
            Ok(result) => return Ok(result),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Calls `make` with directories to which all users of the container have a way, and returns the first success.
pub(super) fn for_everyone<T>(make: impl Fn(&Path) -> io::Result<T>) -> anyhow::Result<T> {
    let places = [TMP].into_iter().chain(LAST_PLACES).map(PathBuf::from).chain([bootstrap::channel_dir()]);
    first_among(places, make).context("no directory of the container can be written to")
}

/// Writes a script into a private folder, which is removed with the returned value.
pub(super) fn script(text: &[u8]) -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    first_of(|place| script_in(place, text)).context("failed to store the script in the container")
}

fn script_in(place: &Path, text: &[u8]) -> io::Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("sagemaker-executor-").tempdir_in(place)?;
    let path = folder.path().join("script");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok((folder, path))
}

/// Makes a spool on the volume. Its limit is half of the free space, [`SPOOL_BYTES`] at most; without a file the writer waits
/// for the reader.
pub(super) fn spool() -> OutputSpool {
    let make = |place: &Path| {
        let file = tempfile::tempfile_in(place)?;
        Ok((file, rustix::fs::statvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))))
    };
    match first_of(make) {
        Ok((file, free)) => OutputSpool::new(Some(file), SPOOL_BYTES.min(free / 2)),
        Err(error) => {
            tracing::warn!(%error, "failed to make a temporary file");
            OutputSpool::new(None, 0)
        }
    }
}

/// Makes the directories of both trees. When the builds directory does not exist yet and its disk is smaller than the volume, the
/// topmost missing directory on the way becomes a link to a fixed path on the volume.
///
/// A directory that cannot be made is a failure of the image; the error says what to change.
pub(super) fn create_trees(trees: &Trees) -> anyhow::Result<()> {
    if let Some(parent) = trees.project.parent() {
        let moved = move_to_volume(parent, &[bootstrap::channel_dir(), PathBuf::from(TMP)]);
        moved.and_then(|()| make(parent)).map_err(|error| refused(&trees.project, error))?;
    }
    for tree in [&trees.project, &trees.tmp] {
        make(tree).map_err(|error| refused(&trees.project, error))?;
        // A directory of the image may belong to another user.
        let may_write = rustix::fs::access(tree, Access::WRITE_OK | Access::EXEC_OK);
        may_write.map_err(|error| refused(&trees.project, error.into()))?;
    }
    Ok(())
}

fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)
}

/// Links the topmost missing parent of `directory` to the first of `volumes` that is larger than its disk.
fn move_to_volume(directory: &Path, volumes: &[PathBuf]) -> io::Result<()> {
    let Some(missing) = topmost_missing(directory) else { return Ok(()) };
    let Some(existing) = missing.parent() else { return Ok(()) };
    if missing.starts_with(TMP) || missing.starts_with("/opt/ml") {
        return Ok(());
    }
    for volume in volumes.iter().filter(|volume| is_larger(volume, existing)) {
        match volume_dir(volume, &missing) {
            Ok(target) => return symlink(target, &missing),
            Err(error) => tracing::info!(%error, "no room for the project in {}", volume.display()),
        }
    }
    Ok(())
}

/// Makes an empty directory for `missing` on the volume; its path depends on `missing` alone.
fn volume_dir(volume: &Path, missing: &Path) -> io::Result<PathBuf> {
    let folder = if volume == Path::new(TMP) { volume.join(FOLDER) } else { volume.to_owned() };
    if folder != volume {
        own_directory(&folder)?;
    }
    let moved = folder.join(MOVED);
    own_directory(&moved)?;
    let target = moved.join(missing.strip_prefix("/").unwrap_or(missing));
    // No link of this container leads there: its content is left from an earlier container on the same instance.
    remove(&moved)?;
    own_directory(&moved)?;
    make(&target)?;
    Ok(target)
}

/// Makes the directory, or checks that it is ours and that no other user may write to it. Follows no link.
fn own_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_ours { Ok(()) } else { Err(io::Error::other(format!("{} is writable by another user", path.display()))) }
}

/// Removes a tree, including directories without permissions; follows no link.
fn remove(tree: &Path) -> io::Result<()> {
    fn unlock(directory: &Path) {
        let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                unlock(&entry.path());
            }
        }
    }
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(tree);
            fs::remove_dir_all(tree)
        }
        removed => removed,
    }
}

/// Directory of the channel in which projects are that would otherwise be on the small disk.
pub(super) fn moved_in_channel() -> PathBuf {
    bootstrap::channel_dir().join(MOVED)
}

/// `true` when there is an entry in the directory.
pub(super) fn has_files(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn topmost_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|path| fs::symlink_metadata(path).is_err()).last().map(Path::to_path_buf)
}

/// True when the volume is another disk and its size exceeds the free space of the disk of `than`. Free space of the volume does
/// not count, so that every container of the image decides the same.
fn is_larger(volume: &Path, than: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let Ok((a, b)) = device(volume).and_then(|a| Ok((a, device(than)?))) else { return false };
    let (Ok(volume), Ok(than)) = (rustix::fs::statvfs(volume), rustix::fs::statvfs(than)) else { return false };
    let bytes = |blocks: u64, size: u64| blocks.saturating_mul(size);
    let (all, there) = (bytes(volume.f_blocks, volume.f_frsize), bytes(than.f_blocks, than.f_frsize));
    // An overlay reports the size of the disk below it, so equal sizes mean one disk.
    a != b && all != there && all > bytes(than.f_bavail, than.f_frsize)
}

/// The failure of a project directory that cannot be made or written to.
fn refused(project: &Path, error: io::Error) -> anyhow::Error {
    let user = rustix::process::geteuid().as_raw();
    let first = topmost_missing(project).unwrap_or_else(|| project.to_owned());
    let own_user = format!(
        "add `RUN mkdir -p {0} && chmod 1777 {0}` to the Dockerfile before its `USER`, or set `USER root`; or ask the operator for a \
         `sandbox.builds_dir` below `/tmp`",
        first.display()
    );
    let failure = |why: String, hint: String| {
        Failure::user(format!("failed to make the project directory {}: {why}", project.display())).hint(hint)
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure(format!("user {user} of the image may not write there"), own_user).into()
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            failure("the image's file system is read-only there".to_owned(), own_user).into()
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            let hint =
                "remove the file from the image, or ask the operator for another `sandbox.builds_dir`".to_owned();
            failure("the image has a file in its place, or in that of a directory above it".to_owned(), hint).into()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full().caused_by(error).into(),
        _ => anyhow::Error::from(error).context(format!("failed to make the project directory {}", project.display())),
    }
}

/// Turns a full disk into a failure of the job: a retry would meet it again.
pub(super) fn explained(error: anyhow::Error) -> anyhow::Error {
    let is_full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let is_full = is_full
        .map(io::Error::kind)
        .any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
    if is_full { full().caused_by(error).into() } else { error }
}

fn full() -> Failure {
    Failure::user("the project does not fit on the disk of the instance").hint("raise `SAGEMAKER_VOLUME_SIZE_GB`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_missing_parent_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(topmost_missing(dir.path()), None);
        assert_eq!(topmost_missing(&dir.path().join("a/b/c")), Some(dir.path().join("a")));
    }

    /// A folder fits where its script does not.
    #[test]
    fn a_script_is_stored_where_there_is_room_for_it() {
        let (full, free) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let places = [full.path().to_owned(), free.path().to_owned()];
        let make = |place: &Path| {
            let stored = script_in(place, b"true")?;
            if place == full.path() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(stored) }
        };
        let (_folder, path) = first_among(places.into_iter(), make).unwrap();
        assert!(path.starts_with(free.path()) && fs::read(&path).unwrap() == b"true");
        assert_eq!(fs::read_dir(full.path()).unwrap().count(), 0, "nothing is left behind");
    }

    fn trees(project: PathBuf) -> Trees {
        let tmp = project.with_extension("tmp");
        Trees { project, tmp, host: None }
    }

    #[test]
    fn directories_are_made() {
        let dir = tempfile::tempdir().unwrap();
        create_trees(&trees(dir.path().join("a/b/project"))).unwrap();
        assert!(dir.path().join("a/b/project").is_dir() && dir.path().join("a/b/project.tmp").is_dir());
    }

    #[test]
    fn what_the_image_has_in_the_way_is_told_with_what_to_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for project in ["file", "file/below"] {
            let error = create_trees(&trees(dir.path().join(project))).unwrap_err();
            assert_eq!(crate::base::failure::kind_of(&error), crate::base::failure::Kind::User);
            assert!(crate::base::failure::render(&error).contains("`sandbox.builds_dir`"), "{error:#}");
        }
        let denied = refused(Path::new("/var/lib/x"), io::ErrorKind::PermissionDenied.into());
        let line = "`RUN mkdir -p /var/lib/x && chmod 1777 /var/lib/x`";
        assert!(crate::base::failure::render(&denied).contains(line), "{denied:#}");
    }

    #[test]
    fn a_place_on_the_volume_is_fixed_empty_and_ours() {
        let volume = tempfile::tempdir().unwrap();
        let missing = Path::new("/var/lib/builds");
        let place = volume_dir(volume.path(), missing).unwrap();
        assert_eq!(place, volume.path().join("volume/var/lib/builds"));
        // An earlier container's files, and a link that leads elsewhere.
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        fs::create_dir(place.join("old")).unwrap();
        fs::write(place.join("old/file"), "").unwrap();
        fs::set_permissions(place.join("old"), fs::Permissions::from_mode(0o500)).unwrap();
        symlink(outside.path(), place.join("link")).unwrap();
        assert_eq!(volume_dir(volume.path(), missing).unwrap(), place);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
        fs::remove_dir_all(volume.path().join("volume")).unwrap();
        symlink(outside.path(), volume.path().join("volume")).unwrap();
        assert!(volume_dir(volume.path(), missing).is_err(), "a link is not followed");
        fs::remove_file(volume.path().join("volume")).unwrap();
        fs::create_dir(volume.path().join("volume")).unwrap();
        fs::set_permissions(volume.path().join("volume"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(volume_dir(volume.path(), missing).is_err(), "others may write there");
    }
}
