//! What of a job's files is there in the next job: links that lead out, nested repositories, a clean tree for git.

use super::sagemaker::rows;
use crate::support::driver::{sagemaker, sagemaker_with};
use crate::support::job::{Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::world::World;

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

rows! {
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
