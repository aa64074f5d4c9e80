//! The directories of one job on this host, and the paths under which its scripts see them.
//!
//! A host keeps each job's builds in `<runner.builds_dir>/<folder>/<slot>`: the folder belongs to the protected or to the other refs of one
//! project, and the slot to one job at a time ([`super::slots`]). In the sandbox, and in every container, this directory has the path
//! `sandbox.builds_dir`, so a project has one path on all hosts and slots.

use std::path::{Component, Path, PathBuf};

use crate::base::failure::Failure;
use crate::config::env::{self, Environment};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::protocol::project::{HostTrees, Trees};
use crate::workspace::Base;

/// End of the name of a folder of protected refs. What other refs leave, protected ones never read.
const PROTECTED: &str = "-protected";

/// The directories of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDirectories {
    /// `runner.builds_dir`.
    builds_base: PathBuf,
    /// `runner.cache_dir`.
    cache_base: PathBuf,
    /// Name of the job's folder in both.
    folder: String,
    /// `None` in a job that a version without slots prepared.
    slot: Option<u32>,
    /// `sandbox.builds_dir`.
    seen: PathBuf,
}

impl JobDirectories {
    /// The directories of a new job.
    pub fn new(settings: &Settings, job: &JobContext, slot: u32) -> Self {
        let project = job.job_info.project_id.to_string();
        let is_protected = job.git_info.protected == Some(true);
        let folder = if is_protected { project + PROTECTED } else { project };
        Self { slot: Some(slot), ..Self::of(settings, folder) }
    }

    /// The directories that `config` told the runner. A version before may have told others: it kept all refs of a project in one folder.
    pub fn of_job(environment: &Environment, settings: &Settings, job: &JobContext) -> Self {
        let project = job.job_info.project_id.to_string();
        let told = environment.get(env::FOLDER).filter(|told| told.strip_suffix(PROTECTED).unwrap_or(told) == project);
        let folder = told.map_or_else(|| project.clone(), str::to_owned);
        let slot = environment.get(env::SLOT).and_then(|slot| slot.parse().ok());
        Self { slot, ..Self::of(settings, folder) }
    }

    fn of(settings: &Settings, folder: String) -> Self {
        Self {
            builds_base: settings.runner.builds_dir.clone(),
            cache_base: settings.runner.cache_dir.clone(),
            folder,
            slot: None,
            seen: settings.sandbox.builds_dir.clone(),
        }
    }

    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The builds of all slots.
    pub fn all_builds(&self) -> PathBuf {
        self.builds_base.join(&self.folder)
    }

    /// The builds of this job.
    pub fn builds(&self) -> PathBuf {
        let all = self.all_builds();
        self.slot.map_or_else(|| all.clone(), |slot| all.join(slot.to_string()))
    }

    /// The path of [`JobDirectories::builds`] in the sandbox and in containers.
    pub fn builds_seen(&self) -> &Path {
        &self.seen
    }

    /// The local caches. The jobs of the folder share them, and the runner's helper replaces an archive whole.
    pub fn cache(&self) -> PathBuf {
        self.cache_base.join(&self.folder)
    }

    /// Makes the directory of the builds, without following links of jobs.
    pub fn make_builds(&self) -> anyhow::Result<()> {
        Base::create(&self.builds_base)?.make(&self.builds()).map(drop)
    }

    /// Makes the directory of the caches, without following links of jobs.
    pub fn make_cache(&self) -> anyhow::Result<()> {
        Base::create(&self.cache_base)?.make(&self.cache()).map(drop)
    }

    /// The project directory and its `.tmp` neighbour, as the runner's scripts use them.
    ///
    /// `RUNNER_TEMP_PROJECT_DIR` is the one variable about it that the runner sets after the job's own; the result must
    /// lie below the job's own builds all the same.
    pub fn trees(&self, environment: &Environment) -> anyhow::Result<Trees> {
        let tmp = environment.job_variable("RUNNER_TEMP_PROJECT_DIR").and_then(|dir| dir.strip_suffix(".tmp"));
        let project = tmp.or_else(|| environment.job_variable("CI_PROJECT_DIR")).map(PathBuf::from).unwrap_or_default();
        let builds = self.builds();
        for root in [&builds, &self.seen] {
            if let Some(below) = project.strip_prefix(root).ok().filter(|below| is_plain(below)) {
                let here = builds.join(below);
                let host = HostTrees { base: self.builds_base.clone(), tmp: with_tmp(&here), project: here };
                return Ok(Trees { tmp: with_tmp(&project), project, host: Some(host) });
            }
        }
        Err(Failure::user("the job's project directory lies outside the builds directory of its project")
            .hint(format!(
                "remove `CI_PROJECT_DIR` or `GIT_CLONE_PATH` from the job's variables; the project belongs below `{}`",
                environment.job_variable("CI_BUILDS_DIR").map_or(self.seen.as_path(), Path::new).display()
            ))
            .into())
    }

    /// Refuses symbolic links on the way to the directories of a host stage, because its script and the runner's helper
    /// follow links. `of_cache`: the stage reads or writes the cache.
    pub fn check_links(&self, trees: &Trees, of_cache: bool) -> anyhow::Result<()> {
        if let Some(base) = Base::open(&self.builds_base)? {
            base.check(trees.project_here())?;
            base.check_all(trees.tmp_here())?;
        }
        if of_cache && let Some(base) = Base::open(&self.cache_base)? {
            base.check_all(&self.cache())?;
        }
        Ok(())
    }

    /// Removes the links that an earlier job left and [`JobDirectories::check_links`] would refuse, and returns what it removed: they are
    /// not this job's mistake.
    pub fn remove_links(&self, trees: Option<&Trees>) -> anyhow::Result<Vec<String>> {
        let mut removed = Vec::new();
        if let (Some(trees), Some(base)) = (trees, Base::open(&self.builds_base)?) {
            for path in [trees.project_here(), trees.tmp_here()] {
                removed.extend(base.remove_links_to(path, &self.all_builds())?);
            }
            removed.extend(base.remove_links_below(trees.tmp_here())?);
        }
        if let Some(base) = Base::open(&self.cache_base)? {
            removed.extend(base.remove_links_below(&self.cache())?);
        }
        Ok(removed)
    }

    /// Fails unless a file can be written in each directory; the error names the operator's key.
    pub fn check_access(&self) -> anyhow::Result<()> {
        for (key, base, dir) in [
            ("runner.builds_dir", &self.builds_base, self.all_builds()),
            ("runner.cache_dir", &self.cache_base, self.cache()),
        ] {
            let made = Base::create(base).and_then(|base| base.make(&dir));
            made.and_then(|made| Ok(tempfile::tempfile_in(crate::workspace::path_of(&made))?)).map_err(|error| {
                Failure::system(format!("failed to write {}", dir.display()))
                    .hint(format!("make `{key}` a directory that the runner's user can write"))
                    .caused_by(error)
            })?;
        }
        Ok(())
    }
}

fn with_tmp(project: &Path) -> PathBuf {
    let mut tmp = project.as_os_str().to_owned();
    tmp.push(".tmp");
    PathBuf::from(tmp)
}

fn is_plain(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        toml::from_str("[storage]\nbucket = \"b\"\n[job]\n[runner]\nbuilds_dir = \"/b\"\ncache_dir = \"/c\"\n").unwrap()
    }

    fn job(protected: Option<bool>) -> JobContext {
        let job = serde_json::json!({"id": 1, "job_info": {"project_id": 7}, "git_info": {"protected": protected}});
        serde_json::from_value(job).unwrap()
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn protected_refs_have_directories_of_their_own() {
        let of = |protected| JobDirectories::new(&settings(), &job(protected), 3);
        let paths = |of: &JobDirectories| (of.builds(), of.cache());
        assert_eq!(paths(&of(Some(true))), ("/b/7-protected/3".into(), "/c/7-protected".into()));
        for unknown in [Some(false), None] {
            assert_eq!(paths(&of(unknown)), ("/b/7/3".into(), "/c/7".into()));
        }
    }

    #[test]
    fn later_stages_use_the_directories_that_config_told() {
        let of = |pairs: &[(&str, &str)]| JobDirectories::of_job(&environment(pairs), &settings(), &job(Some(true)));
        let told = of(&[(env::FOLDER, "7-protected"), (env::SLOT, "3")]);
        assert_eq!(told, JobDirectories::new(&settings(), &job(Some(true)), 3));
        assert_eq!(of(&[(env::SLOT, "3")]).builds(), Path::new("/b/7/3"), "of a version without folders");
        assert_eq!(of(&[]).builds(), Path::new("/b/7"), "of a version without slots");
        for wrong in ["8", "8-protected", "7-protected-protected", "../x", ""] {
            assert_eq!(of(&[(env::FOLDER, wrong)]).builds(), Path::new("/b/7"), "{wrong}");
        }
    }

    #[test]
    fn the_project_directory_must_lie_in_the_jobs_builds() {
        let of = |tmp: &str| {
            let environment = environment(&[
                (env::SLOT, "3"),
                ("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", tmp),
                ("CUSTOM_ENV_CI_PROJECT_DIR", "/b/8/other"),
            ]);
            JobDirectories::of_job(&environment, &settings(), &job(None)).trees(&environment)
        };
        let plain = of("/b/7/3/tok/0/ml/churn.tmp").unwrap();
        assert_eq!(plain.project, Path::new("/b/7/3/tok/0/ml/churn"));
        assert_eq!(plain.tmp, Path::new("/b/7/3/tok/0/ml/churn.tmp"));
        assert_eq!(plain.project_here(), plain.project);
        let seen = of("/tmp/builds/ml/churn.tmp").unwrap();
        assert_eq!(seen.project, Path::new("/tmp/builds/ml/churn"));
        assert_eq!(seen.tmp_here(), Path::new("/b/7/3/ml/churn.tmp"));
        for wrong in
            ["/b/8/x.tmp", "/b/7/3/../8/x.tmp", "/b/7/3.tmp", "/tmp/builds.tmp", "/tmp/builds/../x.tmp", "x.tmp", ""]
        {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
