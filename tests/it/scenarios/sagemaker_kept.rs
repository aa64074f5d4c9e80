//! The files of a job that the next job finds: links that lead out, nested repositories, a clean tree for git.

use std::path::Path;
use std::process::Command;

use super::sagemaker::rows;
use super::sources::nested;
use crate::support::driver::{sagemaker, sagemaker_with};
use crate::support::job::{Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::waiting::tell;
use crate::support::world::{Settings, World};

/// A virtualenv whose interpreter lies outside, a dependency that was cloned, and a name that stands for `.git` elsewhere.
const INSTALL: &str = "mkdir -p venv/bin venv/src/dep/.git venv/lib && echo x = 1 > venv/lib/m.py && echo code > venv/src/dep/code
    echo ref > venv/src/dep/.git/HEAD && echo x > venv/git~1
    ln -s /bin/sh venv/bin/python && ln -s python venv/bin/python3 && for n in 1 2 3 4; do ln -s /bin/cat venv/bin/tool$n; done";
const USE: &str = "cat venv/src/dep/code; venv/bin/python3 -c 'echo it-runs' || echo code-$?";

fn two_jobs(world: &World) -> Vec<Outcome> {
    let job = |script| Job::new().script([script]).cache(Cache::new("venv", ["venv/"]));
    let first = world.run(&job(INSTALL));
    std::fs::remove_dir_all(world.dirs.builds()).unwrap();
    vec![first, world.run(&job(USE))]
}

/// Every way of git to look for changes, with a filter for all files that the image lacks: it fails where git reads a file again.
const LOOK: &str = "echo '* filter=f' > /tmp/attributes
    look() { git -c core.attributesFile=/tmp/attributes -c filter.f.clean=missing -c filter.f.required=true \"$@\" || echo failed-$1; }
    for each in . sub sub/inner; do (cd $each && look status --porcelain; look diff-files; look diff-index HEAD; look describe --always --dirty=-dirty); done
    rm a.txt; look status --porcelain; echo looked";

/// The second job finds the checkout of the first one: its index knows the host's files.
fn checkout_twice(world: &World) -> Vec<Outcome> {
    let (repository, sha) = nested(world);
    let job = |script| {
        Job::new()
            .sources(&repository, "main", &sha)
            .set("GIT_STRATEGY", "fetch")
            .set("GIT_SUBMODULE_STRATEGY", "recursive")
            .script([script])
    };
    let first = world.run(&job("true"));
    make_older(&world.dirs.builds());
    vec![first, world.run(&job(LOOK))]
}

/// Makes all checked out files older than the indexes that tell of them. Git reads a file again whose second of change is
/// that of the index, which happens when two jobs take less than a second.
fn make_older(builds: &Path) {
    let older = ["-name", ".git", "-prune", "-o", "-type", "f", "-exec", "touch", "-d", "-1 hour", "{}", "+"];
    let tell = ["-name", ".git", "-prune", "-execdir", "git", "update-index", "-q", "--refresh", ";"];
    for arguments in [&older[..], &tell] {
        assert!(Command::new("find").arg(builds).args(arguments).status().unwrap().success());
    }
}

fn is_clean(outcomes: &[Outcome]) {
    outcomes[0].succeeded();
    let second = outcomes[1].succeeded().shows("Reinitialized existing").shows("\n D a.txt\nlooked\n");
    second.hides("failed-").hides("-dirty\n").hides("fatal:");
}

/// Nor does git find that the repository is another user's.
fn for_the_user_of_the_image(with: With) {
    if !rustix::process::geteuid().is_root() {
        tell("SKIPPED: a clean checkout for the user of an image: starting a container as another user needs root");
        return;
    }
    let row = Scenario {
        name: "a_clean_checkout_is_clean_for_the_user_of_the_image",
        needs: &["git"],
        settings: Settings::default,
        play: checkout_twice,
        expect: |_, outcomes| is_clean(outcomes),
    };
    play(&row, with, sagemaker_with(&["--image-user", "registry.example.com/train:2.4=1000"], ""));
}

#[test]
fn a_clean_checkout_is_clean_for_the_user_of_the_image_real() {
    for_the_user_of_the_image(With::RealRunner);
}
#[test]
fn a_clean_checkout_is_clean_for_the_user_of_the_image_double() {
    for_the_user_of_the_image(With::RunnerDouble);
}

rows! {
    a_clean_checkout_is_clean {
        driver: sagemaker(),
        needs: ["git"],
        play: checkout_twice,
        expect: |_, outcomes| is_clean(outcomes),
    }
    /// What no path selects is gone with its container, whatever the flags of the next checkout.
    files_that_nothing_selects_are_gone {
        driver: sagemaker(),
        needs: ["git", "tar"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a.txt", "a")]);
            let job = |script| Job::new().sources(&repository, "main", &sha).set("GIT_STRATEGY", "fetch")
                .set("GIT_CLEAN_FLAGS", "-ffdx -e data/ -e kept/").cache(Cache::new("kept", ["kept/"])).script([script]);
            vec![
                world.run(&job("mkdir data kept && echo x > data/x && echo y > kept/y")),
                world.run(&job("cat kept/y; ls data || echo gone")),
            ]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].succeeded().shows("\ny\n").shows("\ngone\n");
        },
    }
    /// By default each kind that stays behind is named once.
    a_virtualenv_in_the_cache {
        driver: sagemaker(),
        needs: ["tar"],
        play: two_jobs,
        expect: |_, outcomes| {
            outcomes[0].succeeded()
                .shows("left out: 5 links that lead out of the project: `venv/bin/python`, `venv/bin/tool1`, `venv/bin/tool2` and 2 more")
                .shows("`results.keep_outside_links`")
                .shows("left out: 1 nested git repository: `venv/src/dep/.git`")
                .shows("left out: 1 name that some file systems take for `.git`: `venv/git~1`");
            assert_eq!(outcomes[0].count("left out: "), 3, "{}", outcomes[0]);
            outcomes[1].succeeded().shows("\ncode\n").shows("\ncode-127");
        },
    }
    a_virtualenv_in_the_cache_with_its_links {
        driver: sagemaker_with(&[], "[results]\nkeep_outside_links = true"),
        needs: ["tar"],
        play: two_jobs,
        expect: |_, outcomes| {
            outcomes[0].succeeded().hides("links that lead out").shows("left out: 1 nested git repository");
            outcomes[1].succeeded().shows("\ncode\n").shows("\nit-runs");
        },
    }
}
