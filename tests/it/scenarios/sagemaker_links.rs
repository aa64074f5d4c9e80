//! Links that a host stage makes in place of the directories of jobs: refused, neither read nor written, and removed before the
//! next job.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::driver::sagemaker;
use crate::support::job::{Artifacts, Cache, Job};

fn job() -> Job {
    Job::new().script(["true"]).artifacts(Artifacts::paths([]).untracked()).cache(Cache::new("k", ["c"]))
}

/// A directory of another project, with a file that is nobody else's.
fn victim(desk: &Desk) -> PathBuf {
    let victim = desk.root().join("builds/999");
    std::fs::create_dir_all(&victim).unwrap();
    std::fs::write(victim.join("secret"), "confidential").unwrap();
    victim
}

/// Puts a link in place of a directory.
fn replace(directory: &PathBuf, target: &PathBuf) {
    if directory.exists() {
        std::fs::rename(directory, directory.with_extension("moved")).unwrap();
    }
    symlink(target, directory).unwrap();
}

#[track_caller]
fn is_untouched(victim: &PathBuf) {
    let names: Vec<_> = std::fs::read_dir(victim).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
}

#[test]
fn a_link_in_place_of_the_project_or_a_directory_above_it_is_refused() {
    for place in ["231/tok/0/ml/churn", "231/tok/0/ml", "231/tok", "231/tok/0/ml/churn.tmp"] {
        let mut desk = Desk::new(&job()).prepared();
        let victim = victim(&desk);
        for below in ["churn", "ml/churn", "0/ml/churn"] {
            std::fs::create_dir_all(victim.join(below)).unwrap();
        }
        let link = desk.root().join("builds").join(place);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        replace(&link, &victim);
        for below in ["churn", "ml", "0"] {
            std::fs::remove_dir_all(victim.join(below)).unwrap();
        }
        let why = format!("{place} is a link");
        desk.run("build_script", "cat secret; echo x > planted").with_code(BUILD_FAILURE).one_error().says(&why);
        // The runner's own scripts would go through it as well.
        for stage in ["get_sources", "upload_artifacts_on_failure", "cleanup_file_variables"] {
            let ended = desk.run(stage, "echo it-ran");
            ended.with_code(BUILD_FAILURE).says(&why);
            assert_eq!(ended.out(), "");
        }
        is_untouched(&victim);
        desk.cleanup().passed();
        // The next job in this place works.
        desk.next_job(&job(), 4712);
        assert!(!link.is_symlink());
        desk.run("get_sources", &format!("mkdir -p '{}'", desk.project().display())).passed();
        desk.run("build_script", "echo fine").passed();
        is_untouched(&victim);
        desk.close();
    }
}

#[test]
fn a_link_in_the_cache_is_refused_and_gone_before_the_next_job() {
    let mut desk = Desk::new(&job()).prepared();
    let victim = victim(&desk);
    let link = desk.root().join("cache/231/ml");
    symlink(&victim, &link).unwrap();
    for stage in ["restore_cache", "archive_cache"] {
        let ended = desk.run(stage, "echo it-ran");
        ended.with_code(BUILD_FAILURE).says("cache/231/ml is a link");
    }
    desk.run("get_sources", "true").passed();
    desk.cleanup().passed();
    desk.next_job(&job(), 4712);
    assert!(!link.is_symlink());
    desk.run("restore_cache", "true").passed();
    is_untouched(&victim);
    desk.close();
}

#[test]
fn the_paths_of_the_operator_may_lead_through_links_and_a_projects_folder_may_not() {
    let mut desk = Desk::new(&job());
    for name in ["builds", "cache"] {
        std::fs::create_dir(desk.root().join(format!("big-{name}"))).unwrap();
        symlink(format!("big-{name}"), desk.root().join(name)).unwrap();
    }
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(desk.project()).unwrap();
    desk.run("restore_cache", "true").passed();
    desk.run("build_script", "echo made > new").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("new")).unwrap(), "made\n");
    desk.cleanup().passed();
    let folder = desk.root().join("builds/231");
    replace(&folder, &folder.with_extension("moved"));
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).says("builds/231 is a link").says("`runner.builds_dir`");
    desk.close();
}

rows! {
    /// The hook of a job, which runs on the host, removes the project and makes a link of its name.
    a_hook_links_the_project_elsewhere {
        driver: sagemaker(),
        needs: ["git"],
        play: |world| {
            let victim = world.dirs.builds().join("999");
            std::fs::create_dir(&victim).unwrap();
            std::fs::write(victim.join("secret"), "confidential").unwrap();
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a.txt", "a")]);
            let job = || Job::new().sources(&repository, "main", &sha).script(["cat secret || true", "echo x > planted"]).artifacts(Artifacts::paths([]).untracked());
            let hook = "cd / && rm -rf \"$CI_PROJECT_DIR\" && ln -s \"$(dirname \"$CI_BUILDS_DIR\")/999\" \"$CI_PROJECT_DIR\"";
            vec![world.run(&job().hook("post_get_sources_script", [hook])), world.run(&job())]
        },
        expect: |world, outcomes| {
            outcomes[0].failed("script_failure", Some(1)).shows("is a link").hides("confidential");
            outcomes[1].succeeded().shows("was removed");
            let names: Vec<_> = std::fs::read_dir(world.dirs.builds().join("999")).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(names, ["secret"]);
        },
    }
}
