//! Empties the directories in which one job can leave files for the next: SageMaker keeps the volumes of an instance in a warm pool.
//!
//! The container itself is new for each job. So a directory is emptied before the job only when it is mounted into the container:
//! what lies elsewhere is the image's own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::volume;
use crate::cloud::CHECKPOINTS_DIR;
use crate::protocol::agent_env::AgentEnv;
use crate::protocol::project::Trees;

/// SageMaker's variable for [`POOL_CACHE`].
pub(super) const POOL_CACHE_VARIABLE: &str = "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY";
/// The only directory that SageMaker promises to keep.
const POOL_CACHE: &str = "/opt/ml/sagemaker/warmpoolcache";
const OPT_ML: &str = "/opt/ml";
/// Directories of SageMaker; their content is removed only as [`WritablePlaces::before_the_job`] says.
const OF_SAGEMAKER: [&str; 4] = ["/opt/ml/input", "/opt/ml/model", "/opt/ml/output", CHECKPOINTS_DIR];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Results of a job, which SageMaker uploads after its end. Before the job they are another's.
const RESULTS: [&str; 2] = ["/opt/ml/model", "/opt/ml/output/data"];

/// The directories of this container that a job may have written to.
#[derive(Debug, Clone)]
pub(super) struct WritablePlaces {
    instance_stays: bool,
    has_checkpoints: bool,
    pool_cache: PathBuf,
    kept: Vec<PathBuf>,
}

impl WritablePlaces {
    /// `pool_cache` is the value of [`POOL_CACHE_VARIABLE`], `agent` this program's file.
    pub(super) fn new(env: &AgentEnv, pool_cache: Option<&str>, agent: Option<PathBuf>) -> Self {
        // The job could set the variable: only a directory that nothing else uses is taken.
        let is_usual = |dir: &&str| Path::new(dir).starts_with("/opt/ml/sagemaker") && !dir.contains("..");
        let pool_cache = PathBuf::from(pool_cache.filter(is_usual).unwrap_or(POOL_CACHE));
        let kept = OF_SAGEMAKER.iter().map(PathBuf::from).chain([pool_cache.clone()]).chain(agent).collect();
        Self { instance_stays: env.instance_stays, has_checkpoints: env.checkpoints, pool_cache, kept }
    }

    /// The job keeps checkpoints.
    pub(super) fn has_checkpoints(&self) -> bool {
        self.has_checkpoints
    }

    /// Removes the files of an earlier job. To be called once in a training job, before its project is received. Blocks.
    pub(super) fn before_the_job(&self) {
        for place in self.of_earlier_jobs().iter().filter(|place| is_mounted(place)) {
            let removed = empty(place, &self.kept);
            if removed > 0 {
                tracing::info!("removed {removed} files and directories of an earlier job from {}", place.display());
            }
        }
    }

    /// Removes the files of this job, if its instance stays for another one. SageMaker uploads the results, and deletes in S3 the
    /// checkpoints that are deleted here: both stay. Blocks.
    pub(super) fn after_the_job(&self, trees: Option<&Trees>) {
        if !self.instance_stays {
            return;
        }
        for place in self.of_this_job(trees) {
            empty(&place, &self.kept);
        }
    }

    fn of_earlier_jobs(&self) -> Vec<PathBuf> {
        let checkpoints = (!self.has_checkpoints).then_some(CHECKPOINTS_DIR);
        // Other directories there may be SageMaker's, so they are left alone where no job of a warm pool is to be expected.
        let others = self.instance_stays.then_some(OPT_ML);
        let places = TEMPORARY.into_iter().chain(RESULTS).chain(checkpoints).chain(others);
        [self.pool_cache.clone()].into_iter().chain(places.map(PathBuf::from)).collect()
    }

    fn of_this_job(&self, trees: Option<&Trees>) -> Vec<PathBuf> {
        let trees = trees.into_iter().flat_map(|trees| [trees.project.clone(), trees.tmp.clone()]);
        let checkpoints = (!self.has_checkpoints).then_some(CHECKPOINTS_DIR);
        let places = TEMPORARY.into_iter().chain(checkpoints).chain([OPT_ML]).map(PathBuf::from);
        trees.chain([self.pool_cache.clone(), volume::moved_in_channel()]).chain(places).collect()
    }
}

/// Removes what is in the directory, but for `kept`. Follows no link, enters no other file system, and passes over what this user
/// may not remove. Returns the number of removed entries.
fn empty(directory: &Path, kept: &[PathBuf]) -> usize {
    let mut removed = 0;
    // Not recursive: a job may nest directories without end.
    let mut open = vec![(directory.to_owned(), false)];
    while let Some((path, was_listed)) = open.pop() {
        if was_listed {
            removed += usize::from(fs::remove_dir(&path).is_ok());
            continue;
        }
        if !is_directory(&path) {
            continue;
        }
        if path != directory {
            open.push((path.clone(), true));
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let (at, kind) = (entry.path(), entry.file_type());
            if kept.contains(&at) || is_mount(&at) {
                continue;
            }
            match kind {
                Ok(kind) if kind.is_dir() => open.push((at, false)),
                Ok(_) => removed += usize::from(fs::remove_file(&at).is_ok()),
                Err(error) => tracing::debug!(%error, "failed to look at {}", at.display()),
            }
        }
    }
    removed
}

/// `true` for a directory, which is made readable and writable; `false` for a link.
fn is_directory(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    if found.is_dir() && found.mode() & 0o700 != 0o700 {
        // Another user's directory stays as it is.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    found.is_dir()
}

/// The directory, or one above it but for the root, is where a file system is mounted.
fn is_mounted(directory: &Path) -> bool {
    directory.ancestors().filter(|path| path.parent().is_some()).any(is_mount)
}

fn is_mount(path: &Path) -> bool {
    let Ok(found) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) else { return false };
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    // Before Linux 5.8 only another disk is known.
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;

    fn places(instance_stays: bool, checkpoints: bool, pool_cache: Option<&str>) -> WritablePlaces {
        let variables = BTreeMap::from([
            ("SAGEMAKER_EXECUTOR_ROOT", "r"),
            ("SAGEMAKER_EXECUTOR_BUCKET", "b"),
            ("SAGEMAKER_EXECUTOR_PREFIX", "p"),
            ("SAGEMAKER_EXECUTOR_LEASE_SECONDS", "60"),
        ]);
        let env = AgentEnv::read(|name| variables.get(name).copied()).unwrap();
        let env = AgentEnv { instance_stays, checkpoints, ..env };
        WritablePlaces::new(&env, pool_cache, Some("/tmp/agent".into()))
    }

    fn texts(places: &[PathBuf]) -> Vec<&str> {
        places.iter().map(|place| place.to_str().unwrap()).collect()
    }

    #[test]
    fn checkpoints_of_the_job_stay_and_those_of_another_go() {
        let usual = [POOL_CACHE, "/tmp", "/var/tmp", "/opt/ml/model", "/opt/ml/output/data"];
        assert_eq!(texts(&places(false, true, None).of_earlier_jobs()), usual);
        let all = [&usual[..], &[CHECKPOINTS_DIR, OPT_ML]].concat();
        assert_eq!(texts(&places(true, false, None).of_earlier_jobs()), all);
        let project = Trees { project: "/builds/p".into(), tmp: "/builds/p.tmp".into(), host: None };
        let own = places(true, true, None).of_this_job(Some(&project));
        let moved = "/opt/ml/input/data/sagemaker-executor/volume";
        assert_eq!(texts(&own), ["/builds/p", "/builds/p.tmp", POOL_CACHE, moved, "/tmp", "/var/tmp", OPT_ML]);
        for kept in ["/opt/ml/input", "/opt/ml/model", "/opt/ml/output", CHECKPOINTS_DIR, POOL_CACHE, "/tmp/agent"] {
            assert!(places(true, true, None).kept.contains(&PathBuf::from(kept)), "{kept}");
        }
    }

    #[test]
    fn a_job_cannot_name_any_directory_as_the_cache() {
        assert_eq!(
            places(true, false, Some("/opt/ml/sagemaker/other")).pool_cache,
            Path::new("/opt/ml/sagemaker/other")
        );
        for wrong in ["/", "/usr", "/opt/ml/input", "/opt/ml/sagemaker/../input", ""] {
            assert_eq!(places(true, false, Some(wrong)).pool_cache, Path::new(POOL_CACHE), "{wrong}");
        }
    }

    #[test]
    fn everything_goes_but_what_is_kept_and_no_link_is_followed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), "").unwrap();
        let at = |name: &str| folder.path().join(name);
        for directory in ["a/b/c", "locked/below", "deep/kept"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["file", "a/b/c/file", "locked/below/file", "deep/file", "deep/kept/file"] {
            fs::write(at(file), "").unwrap();
        }
        symlink(outside.path(), at("a/link")).unwrap();
        for directory in ["locked/below", "locked"] {
            fs::set_permissions(at(directory), fs::Permissions::from_mode(0o500)).unwrap();
        }
        assert_eq!(empty(folder.path(), &[at("deep/kept")]), 10);
        assert!(outside.path().join("file").exists() && at("deep/kept/file").exists());
        assert!(!at("a").exists() && !at("locked").exists() && !at("file").exists() && !at("deep/file").exists());
        // A link in place of the directory, and none at all.
        symlink(outside.path(), at("link")).unwrap();
        assert_eq!((empty(&at("link"), &[]), empty(&at("absent"), &[])), (0, 0));
        assert!(outside.path().join("file").exists());
    }

    #[test]
    fn a_chain_of_directories_that_no_path_can_name_is_no_crash() {
        let folder = tempfile::tempdir().unwrap();
        let mut below = fs::File::open(folder.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&below, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
            below = rustix::fs::openat(&below, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
        }
        assert_eq!(empty(folder.path(), &[]), 0, "the innermost has to go first");
        // Neither can the standard library remove it.
        std::process::Command::new("rm").arg("-rf").arg(folder.path()).status().unwrap();
    }

    #[test]
    fn a_mount_is_known() {
        assert!(is_mounted(Path::new("/proc/self")) && !is_mounted(Path::new("/")));
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mount(folder.path()));
    }
}
