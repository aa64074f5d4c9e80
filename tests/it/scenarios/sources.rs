//! Sources: strategies, branches, submodules, attempts, cleaning of the project directory.

use crate::support::driver::{Act, Fault, REFERENCE, SANDBOXED};
use crate::support::gitlab::Repository;
use crate::support::job::Job;
use crate::support::outcome::Outcome;
use crate::support::scenario::{one, scenarios};
use crate::support::world::{Settings, World};

fn simple(world: &World) -> (Repository, String) {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "content of a\n"), (".gitignore", "ignored\n")]);
    (repository, sha)
}

/// `ml/churn` with `sub` (relative URL), which has `inner` (absolute URL).
pub(super) fn nested(world: &World) -> (Repository, String) {
    let inner = world.repository("ml/inner");
    inner.commit("main", &[("inner.txt", "content of inner\n")]);
    let sub = world.repository("ml/sub");
    sub.commit("main", &[("sub.txt", "content of sub\n")]);
    sub.add_submodule("main", "inner", &format!("{}/ml/inner.git", world.gitlab.url()), &inner);
    let repository = world.repository("ml/churn");
    repository.commit("main", &[("a.txt", "content of a\n")]);
    let sha = repository.add_submodule("main", "sub", "../sub.git", &sub);
    (repository, sha)
}

/// Two jobs in the same directory; the first leaves an untracked file.
fn twice(
    world: &World,
    sources: fn(&World) -> (Repository, String),
    submodules: &str,
    strategy: &str,
    cleanup: &str,
) -> Vec<Outcome> {
    let (repository, sha) = sources(world);
    let job = |line: &str| {
        Job::new()
            .sources(&repository, "main", &sha)
            .set("GIT_STRATEGY", strategy)
            .set("GIT_SUBMODULE_STRATEGY", submodules)
            .set("FF_ENABLE_JOB_CLEANUP", cleanup)
            .hook("pre_get_sources_script", ["echo the-pre-hook"])
            .hook("post_get_sources_script", ["echo the-post-hook"])
            .script([line, "cat a.txt"])
    };
    vec![world.run(&job("touch untracked.txt")), world.run(&job("ls untracked.txt 2>/dev/null || echo no-leftover"))]
}

scenarios! {
    clone_twice {
        needs: ["git"],
        play: |world| twice(world, simple, "none", "clone", "false"),
        expect: |_, outcomes| {
            for outcome in outcomes {
                outcome.succeeded().shows("Created fresh repository").shows("\nthe-pre-hook").shows("\nthe-post-hook").shows("content of a");
            }
            outcomes[1].shows("\nno-leftover");
        },
    }
    /// The runner removes `.git/config`, so that "Created fresh repository" appears again; the objects stay.
    fetch_twice {
        needs: ["git"],
        play: |world| twice(world, nested, "recursive", "fetch", "false"),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Created fresh repository").shows("Fetching changes");
            outcomes[1].succeeded().shows("Reinitialized existing Git repository").shows("Fetching changes").shows("\nno-leftover");
        },
    }
    no_checkout {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = simple(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GIT_STRATEGY", "clone").set("GIT_CHECKOUT", "false")
                .script(["ls a.txt 2>/dev/null || echo nothing-here"]))
        },
        expect: |_, outcomes| { outcomes[0].succeeded().shows("Skipping Git checkout").shows("\nnothing-here"); },
    }
    submodules_recursive {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = nested(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GIT_SUBMODULE_STRATEGY", "recursive")
                .script(["cat sub/sub.txt sub/inner/inner.txt"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Updating/initializing submodules recursively").shows("content of sub")
                .shows("content of inner");
        },
    }
    submodules_normal {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = nested(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GIT_SUBMODULE_STRATEGY", "normal")
                .script(["cat sub/sub.txt", "ls sub/inner/inner.txt 2>/dev/null || echo not-deeper"]))
        },
        expect: |_, outcomes| { outcomes[0].succeeded().shows("content of sub").shows("\nnot-deeper"); },
    }
    strategy_none {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = nested(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GIT_STRATEGY", "none")
                .set("GIT_SUBMODULE_STRATEGY", "recursive").set("GIT_CHECKOUT", "false").script(["ls -A | wc -l"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Skipping Git repository setup").shows("Skipping Git checkout")
                .shows("Skipping Git submodules setup").hides("Fetching changes").shows("\n0\n");
        },
    }
    strategy_empty {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = nested(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GIT_STRATEGY", "empty")
                .set("GIT_SUBMODULE_STRATEGY", "recursive").set("GIT_CHECKOUT", "false").script(["ls -A | wc -l", "pwd"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Skipping Git repository setup and creating an empty build directory")
                .hides("Fetching changes").shows("\n0\n");
        },
    }
    /// The second job works on another branch in the directory of the first.
    another_branch {
        needs: ["git"],
        play: |world| {
            let (repository, first) = simple(world);
            let second = repository.commit("other", &[("a.txt", "content on other\n")]);
            let job = |branch: &str, sha: &str| Job::new().sources(&repository, branch, sha).set("GIT_STRATEGY", "fetch")
                .script(["cat a.txt", "[ \"$(git rev-parse HEAD)\" = \"$CI_COMMIT_SHA\" ] && echo right-commit"]);
            vec![world.run(&job("main", &first)), world.run(&job("other", &second)), world.run(&job("main", &first))]
        },
        expect: |_, outcomes| {
            for (outcome, content) in outcomes.iter().zip(["content of a", "content on other", "content of a"]) {
                outcome.succeeded().shows(content).shows("\nright-commit");
            }
        },
    }
    /// The directory that `config_exec` names is the one the job works in.
    builds_directory {
        play: |world| one(world, &Job::new().script(["pwd", "echo dir=$CI_PROJECT_DIR builds=$CI_BUILDS_DIR"])),
        expect: |world, outcomes| {
            let (builds, project) = seen(world);
            outcomes[0].succeeded().shows(&format!("\n{project}\n")).shows(&format!("dir={project} builds={builds}"));
        },
    }
    clone_path_is_forbidden {
        play: |world| one(world, &Job::new().set("GIT_CLONE_PATH", "$CI_BUILDS_DIR/mine").script(["pwd"])),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", None).shows("setting GIT_CLONE_PATH is not allowed").called("prepare", 0);
        },
    }
    /// The first attempt fails in the driver; the worktree is cleared before the second.
    second_attempt {
        needs: ["git"],
        settings: || Settings {
            faults: vec![Fault { stage: "run get_sources", times: 1, act: Act::Exit(1) }],
            ..Settings::default()
        },
        play: |world| {
            let (repository, sha) = simple(world);
            one(world, &Job::new().sources(&repository, "main", &sha).set("GET_SOURCES_ATTEMPTS", "2").script(["cat a.txt"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("content of a").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run clear_worktree", "run get_sources",
                "run build_script", "run cleanup_file_variables", "cleanup",
            ]);
        },
    }
    /// Without sources the user's script does not run, but the stages for a failed job do.
    get_sources_fails {
        needs: ["git"],
        play: |world| {
            let (repository, _) = simple(world);
            one(world, &Job::new().sources(&repository, "main", &"0".repeat(40)).script(["echo never-said"]).after_script(["echo never-said"]))
        },
        expect: |_, outcomes| {
            let outcome = &outcomes[0];
            assert_eq!(outcome.failure_reason.as_deref(), Some("script_failure"), "{outcome}");
            outcome.hides("never-said").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run cleanup_file_variables", "cleanup",
            ]);
        },
    }
    /// `FF_ENABLE_JOB_CLEANUP` leaves no untracked file behind.
    cleanup_after_fetch {
        needs: ["git"],
        play: |world| twice(world, simple, "none", "fetch", "true"),
        expect: |world, outcomes| { removes(world, &outcomes[0], "untracked.txt"); outcomes[1].succeeded(); },
    }
    cleanup_after_clone {
        needs: ["git"],
        play: |world| twice(world, simple, "none", "clone", "true"),
        expect: |world, outcomes| {
            outcomes[1].succeeded();
            let left = ["ml/churn", "a1b2c3d4e/0/ml/churn"].map(|project| builds(world).join(project).exists());
            assert!(builds(world).exists() && left == [false, false], "the project is left in {}", builds(world).display());
        },
    }
    cleanup_of_submodules_normal {
        needs: ["git"],
        play: |world| cleanup_of_submodules(world, "normal", "touch sub/untracked-in-sub.txt"),
        expect: |world, outcomes| removes(world, &outcomes[0], "untracked-in-sub.txt"),
    }
    cleanup_of_submodules_recursive {
        needs: ["git"],
        play: |world| cleanup_of_submodules(world, "recursive", "touch sub/inner/untracked-deeper.txt"),
        expect: |world, outcomes| removes(world, &outcomes[0], "untracked-deeper.txt"),
    }
    /// The runner removes git hooks and configuration that a job planted, before git runs again.
    planted_hook {
        needs: ["git"],
        play: |world| {
            let (repository, sha) = simple(world);
            let job = || Job::new().sources(&repository, "main", &sha).set("GIT_STRATEGY", "fetch");
            vec![
                world.run(&job().script(["mkdir -p .git/hooks", "printf '#!/bin/sh\\necho planted-hook-ran\\n' > .git/hooks/post-checkout", "chmod +x .git/hooks/post-checkout"])),
                world.run(&job().script(["echo second-job"])),
            ]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].succeeded().hides("planted-hook-ran");
        },
    }
}

/// The directory in which the driver keeps the job's builds: ours has one for each slot of a project's protected refs.
fn builds(world: &World) -> std::path::PathBuf {
    let all = world.dirs.builds();
    if world.driver.name == REFERENCE { all } else { all.join("231-protected/0") }
}

/// The builds directory and the project directory as scripts see them.
fn seen(world: &World) -> (String, String) {
    if world.driver.name == SANDBOXED {
        return ("/tmp/builds".to_owned(), "/tmp/builds/ml/churn".to_owned());
    }
    let builds = builds(world).display().to_string();
    let project = format!("{builds}/a1b2c3d4e/0/ml/churn");
    (builds, project)
}

/// The job's cleanup removes an untracked file from the host. What a training job left beside its artifacts never came there.
fn removes(world: &World, outcome: &Outcome, name: &str) {
    let line = format!("Removing {name}");
    if world.driver.name == REFERENCE {
        outcome.succeeded().shows(&line)
    } else {
        outcome.succeeded().hides(&line)
    };
}

fn cleanup_of_submodules(world: &World, strategy: &str, line: &str) -> Vec<Outcome> {
    let (repository, sha) = nested(world);
    one(
        world,
        &Job::new()
            .sources(&repository, "main", &sha)
            .set("GIT_STRATEGY", "fetch")
            .set("GIT_SUBMODULE_STRATEGY", strategy)
            .set("FF_ENABLE_JOB_CLEANUP", "true")
            .script([line]),
    )
}
