//! GitLab behind a certificate authority that only the runner's configuration knows (`tls-ca-file`): sources, submodules
//! and artifacts are fetched with it. The runner double does not speak TLS, so only GitLab Runner itself runs these.

use crate::support::driver::{self, Driver};
use crate::support::job::{Artifacts, Job};
use crate::support::tls;
use crate::support::waiting::{enter_gate, find_program, tell};
use crate::support::world::{Runner, Settings, World};

fn play(driver: Driver) {
    let Some(runner) = Runner::real() else {
        tell("SKIPPED: GitLab with its own certificate authority: no gitlab-runner on PATH");
        return;
    };
    if let Some(missing) = tls::NEEDS.iter().chain(&["git"]).find(|program| find_program(program).is_none()) {
        tell(&format!("SKIPPED: GitLab with its own certificate authority: no {missing} on PATH"));
        return;
    }
    let _place = enter_gate();
    let world = World::new(runner, driver, Settings { tls: true, ..Settings::default() });
    let (repository, sha) = super::sources::nested(&world);
    let job = |strategy: &str| {
        Job::new()
            .sources(&repository, "main", &sha)
            .set("GIT_STRATEGY", strategy)
            .set("GIT_SUBMODULE_STRATEGY", "recursive")
            .script(["cat a.txt sub/sub.txt sub/inner/inner.txt", "echo made > model.txt"])
            .artifacts(Artifacts::paths(["model.txt"]))
    };
    for (strategy, text) in [("clone", "Created fresh repository"), ("fetch", "Fetching changes")] {
        let outcome = world.run(&job(strategy));
        outcome.succeeded().shows(text).shows("content of a").shows("content of sub").shows("content of inner");
        assert_eq!(outcome.artifact("archive").files()["model.txt"], b"made\n");
    }
    world.is_left_clean();
}

#[test]
fn reference_driver_with_an_authority_of_its_own() {
    play(driver::reference());
}

#[test]
fn sagemaker_executor_with_an_authority_of_its_own() {
    play(driver::sagemaker());
}

#[test]
fn the_sandbox_with_an_authority_of_gitlabs_own() {
    play(driver::sandboxed());
    play(driver::sandboxed_as_root());
}
