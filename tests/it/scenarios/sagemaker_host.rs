//! Effects of a job's files and of the runner's service on the stages on the runner's host.

use rustix::process::geteuid;

use super::sagemaker_desk::Desk;
use crate::support::account::{Account, ORDINARY};
use crate::support::driver::{self, Act, Fault};
use crate::support::gitlab::Repository;
use crate::support::job::{Artifacts, Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::waiting::tell;
use crate::support::world::{Settings, World};

/// A row and its tests with the driver under test; the reference driver has no host of its own.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident($row:expr);)*) => {
        $($(#[$doc])* mod $name {
            use super::*;
            #[test]
            fn real() {
                play(&$row, With::RealRunner, driver::sagemaker());
            }
            #[test]
            fn double() {
                play(&$row, With::RunnerDouble, driver::sagemaker());
            }
            #[test]
            fn sandboxed_real() {
                play(&$row, With::RealRunner, driver::sandboxed());
            }
            /// Another user's sandbox is that of `sandboxed_real`.
            #[test]
            fn sandboxed_root_real() {
                if geteuid().is_root() {
                    play(&$row, With::RealRunner, driver::sandboxed_as_root());
                }
            }
        })*
    };
}

pub(super) use rows;

pub(super) fn row(name: &'static str, play: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) -> Scenario {
    Scenario { name, needs: &["git", "unzip", "tar"], settings: Settings::default, play, expect }
}

pub(super) fn ordinary(scenario: Scenario) -> Scenario {
    with(scenario, || Settings { ordinary_user: true, ..Settings::default() })
}

pub(super) fn with(mut scenario: Scenario, settings: fn() -> Settings) -> Scenario {
    scenario.settings = settings;
    scenario
}

/// A runner that is killed removes neither file variables nor the lines of `GITLAB_ENV`; the next job of the directory must not get them.
#[test]
fn what_a_killed_job_left_beside_the_project_reaches_no_other_job() {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let tmp = format!("{}.tmp", desk.project().display());
    std::fs::create_dir_all(&tmp).unwrap();
    for name in ["DEPLOY_KEY", "gitlab_runner_env"] {
        std::fs::write(format!("{tmp}/{name}"), "A=secret").unwrap();
    }
    let first = desk.run("get_sources", &format!("mkdir -p '{tmp}'; echo first > '{tmp}/OWN'; ls '{tmp}'"));
    assert_eq!(first.passed().out(), "OWN\n");
    let next = desk.run("download_artifacts", &format!("ls '{tmp}'"));
    assert_eq!(next.passed().out(), "OWN\n");
    desk.close();
}

pub(super) fn sources(world: &World) -> (Repository, String) {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("train.py", "print(1)\n")]);
    (repository, sha)
}

/// A job with all kinds of host stages.
pub(super) fn all_stages(sources: &(Repository, String)) -> Job {
    all_stages_and(sources, "true", "true")
}

/// The same with one more line in `script` and one in `after_script`.
pub(super) fn all_stages_and((repository, sha): &(Repository, String), line: &str, last: &str) -> Job {
    Job::new()
        .sources(repository, "main", sha)
        .set("NOTE", "two\nlines; it's")
        .hook("pre_get_sources_script", ["echo hook on the host"])
        .script([
            "cat train.py",
            "if true\nthen mkdir -p out kept\nfi",
            "echo \"$NOTE\" > out/note",
            "echo x >> kept/x",
            line,
        ])
        .after_script(["cat kept/x", last])
        .cache(Cache::new("k", ["kept"]))
        .artifacts(Artifacts::paths(["out"]))
}

pub(super) fn has_note(outcome: &Outcome) {
    outcome.succeeded();
    assert_eq!(outcome.artifact("archive").files()["out/note"], b"two\nlines; it's\n", "{outcome}");
}

/// Without the runner's own program in the PATH of its service.
fn without_helper(name: &'static str, with: With, play_it: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) {
    const PATH: &str = "/usr/bin:/bin";
    if PATH.split(':').any(|folder| std::path::Path::new(folder).join("gitlab-runner").exists()) {
        tell("SKIPPED: gitlab-runner lies in /usr/bin or /bin");
        return;
    }
    let mut driver = driver::sagemaker();
    driver.env.push(("PATH".to_owned(), PATH.to_owned()));
    play(&row(name, play_it, expect), with, driver);
}

fn with_artifacts(world: &World) -> Vec<Outcome> {
    vec![world.run(&Job::new().script(["echo never"]).artifacts(Artifacts::paths(["x"])))]
}

fn is_refused(_: &World, outcomes: &[Outcome]) {
    outcomes[0].failed("runner_system_failure", None).hides("\nnever").called("run prepare_script", 0);
    outcomes[0].shows("`gitlab-runner` is not in the runner's PATH").shows("its systemd unit");
}

#[test]
fn a_job_that_needs_the_helper_is_refused_without_it_real() {
    without_helper("needed", With::RealRunner, with_artifacts, is_refused);
}

#[test]
fn a_job_that_needs_the_helper_is_refused_without_it_double() {
    without_helper("needed", With::RunnerDouble, with_artifacts, is_refused);
    let dependency =
        |world: &World| vec![world.run(&Job::new().script(["echo never"]).dependency(4_700_000, "earlier"))];
    without_helper("dependency", With::RunnerDouble, dependency, is_refused);
    let cache = |world: &World| vec![world.run(&Job::new().script(["echo never"]).cache(Cache::new("k", ["x"])))];
    without_helper("cache", With::RunnerDouble, cache, is_refused);
    let without = |world: &World| vec![world.run(&Job::new().script(["echo on"]))];
    without_helper("not needed", With::RunnerDouble, without, |_, outcomes| {
        outcomes[0].succeeded().shows("\non\n");
    });
}

/// Two jobs are in `get_sources` at once: each waits there until the other is there too.
const MEETING: Fault = Fault {
    stage: "run get_sources",
    times: 2,
    act: Act::Shell(
        "here=$(dirname \"$0\")/here; touch \"$here-$$\"; until [ $(ls -d \"$here\"-* | wc -l) = 2 ]; do sleep 0.1; done",
    ),
};

rows! {
    /// Modules of Go come without their owner's right to write, and a script may do worse.
    read_only_directories(ordinary(row(
        "read_only_directories",
        |world| {
            let line = "if [ -e .go/pkg/mod/x@v1/f ]; then echo cached; fi
                mkdir -p .go/pkg/mod/x@v1 out/dark; echo f > .go/pkg/mod/x@v1/f; echo d > out/dark/d
                chmod 0 out/dark/d out/dark; chmod 0444 .go/pkg/mod/x@v1/f; chmod -R a-w .go";
            let job = all_stages_and(&sources(world), line, "true").cache(Cache::new("go", [".go/"]));
            let job = |times: usize| (0..times).map(|_| world.run(&job)).collect::<Vec<_>>();
            job(3)
        },
        |_, outcomes| {
            for outcome in outcomes {
                outcome.succeeded().hides("Permission denied").hides("permission denied");
                assert_eq!(outcome.artifact("archive").files()["out/dark/d"], b"d\n", "{outcome}");
            }
            for outcome in &outcomes[1..] {
                outcome.shows("\ncached\n").hides("Failed to");
            }
        },
    )));

    /// What a job's hooks do to the directories on the host is over with the job.
    left_on_the_host(ordinary(row(
        "left_on_the_host",
        |world| {
            let lines = [
                "mkdir -p junk/deep && echo x > junk/deep/f && chmod 0 junk/deep junk && mkfifo pipe",
                "touch .git/index.lock .git/packed-refs.lock .git/shallow.lock .git/HEAD.lock .git/FETCH_HEAD.lock; chmod a-w .git/objects",
            ];
            let sources = sources(world);
            let broken = |line: &str| all_stages(&sources).hook("post_get_sources_script", [line]);
            let mut outcomes: Vec<_> = lines.iter().map(|line| world.run(&broken(line))).collect();
            // These fail themselves, the first of them late.
            let closed = format!(
                "chmod 0500 .. ../..; chmod -R 0500 '{}/231-protected'; chmod 0 ../../../..; exit 3",
                world.dirs.cache().display()
            );
            let lines = [
                "chmod 0500 \"$CI_PROJECT_DIR.tmp\"",
                "rm -rf .git; echo gone > .git; exit 3",
                "cd ..; rm -rf \"$CI_PROJECT_DIR\"; touch \"$CI_PROJECT_DIR\"; exit 3",
                &closed,
                "rm -rf \"$CI_PROJECT_DIR.tmp\"; touch \"$CI_PROJECT_DIR.tmp\"; exit 3",
                "mkdir \"$CI_PROJECT_DIR.tmp/d\" && ln -s / \"$CI_PROJECT_DIR.tmp/d/l\" && chmod 0555 \"$CI_PROJECT_DIR.tmp/d\"; exit 3",
            ];
            for line in lines {
                world.run(&broken(line));
                outcomes.push(world.run(&all_stages(&sources)));
            }
            outcomes
        },
        |_, outcomes| outcomes.iter().for_each(has_note),
    )));

    /// Two runner processes with one token each number their jobs from 0.
    two_runners(with(row(
        "two_runners",
        |world| {
            let (repository, sha) = sources(world);
            let job = Job::new()
                .sources(&repository, "main", &sha)
                .script(["echo \"directory $CI_PROJECT_DIR\"; cat train.py"]);
            std::thread::scope(|threads| {
                let other = threads.spawn(|| world.run(&job));
                let ids = [world.run(&job).id, other.join().unwrap().id];
                // Each runner took one of the two, and not by order.
                let mut outcomes = ids.map(|id| world.outcome(id)).to_vec();
                outcomes.push(world.run(&Job::new().sources(&repository, "main", &sha).script(["echo \"directory $CI_PROJECT_DIR\""])));
                outcomes
            })
        },
        |world, outcomes| {
            let directory = |outcome: &Outcome| {
                let text = outcome.succeeded().text();
                text.lines().find_map(|line| line.strip_prefix("directory ").map(str::to_owned)).unwrap()
            };
            let slot = |number: u32| format!("{}/231-protected/{number}/", world.dirs.builds().display());
            let mut found: Vec<_> = outcomes.iter().map(directory).collect();
            if world.driver.name == driver::SANDBOXED {
                assert!(found.iter().all(|path| path == "/tmp/builds/ml/churn"), "{found:?}");
                assert!([0, 1].iter().all(|number| std::path::Path::new(&slot(*number)).is_dir()));
                return;
            }
            assert!(found[2].starts_with(&slot(0)), "{found:?}");
            found[..2].sort();
            assert!(found[0].starts_with(&slot(0)) && found[1].starts_with(&slot(1)), "{found:?}");
        },
    ), || Settings { faults: vec![MEETING], ..Settings::default() }));

    /// Clone, cache, artifacts and cleanup, with a runner that is not root.
    ordinary_user(ordinary(row(
        "ordinary_user",
        |world| {
            let (repository, sha) = sources(world);
            let job = Job::new()
                .sources(&repository, "main", &sha)
                .hook("pre_get_sources_script", ["echo host user $(id -u)"])
                .script(["cat train.py", "mkdir -p out kept", "echo model > out/model", "echo x >> kept/x"])
                .after_script(["cat kept/x"])
                .cache(Cache::new("k", ["kept"]))
                .artifacts(Artifacts::paths(["out"]));
            vec![world.run(&job), world.run(&job)]
        },
        |world, outcomes| {
            let user = if world.account == Account::own() { geteuid().as_raw() } else { ORDINARY };
            for outcome in outcomes {
                outcome.succeeded().shows(&format!("host user {user}\n"));
                assert_eq!(outcome.artifact("archive").files()["out/model"], b"model\n");
            }
            outcomes[1].shows("\nx\nx\n");
        },
    )));

    /// A script on the host cannot read the driver's environment, which holds AWS credentials; its own is open as usual.
    environment_of_the_driver(ordinary(row(
        "environment_of_the_driver",
        |world| {
            let (repository, sha) = sources(world);
            let read = "cat /proc/$PPID/environ >/dev/null 2>&1 && echo driver is open || echo driver is closed";
            let dump = "ulimit -c; cat /proc/$$/environ >/dev/null && echo own is open";
            let secrets = "grep -qsa AWS_SECRET /proc/[0-9]*/environ && echo a secret is open";
            let job = Job::new()
                .sources(&repository, "main", &sha)
                .hook("pre_get_sources_script", ["echo host user $(id -u), parent $(cat /proc/$PPID/comm)", read, dump, secrets, "true"])
                .script(["true"]);
            vec![world.run(&job)]
        },
        |world, outcomes| {
            for outcome in outcomes {
                outcome.succeeded().shows("\n0\nown is open\n");
                if world.driver.is_sandboxed() {
                    // The parent is the sandbox's first process, whose environment is the script's own.
                    outcome.shows("parent sandbox-init\n").hides("\na secret is open");
                } else {
                    outcome.shows("parent sagemaker-execu\n").shows("\ndriver is closed\n");
                }
            }
        },
    )));
}
