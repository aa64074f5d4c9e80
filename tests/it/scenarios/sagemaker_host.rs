//! Effects of a job's variables, files and flags on the stages on the runner's host.

use std::fmt::Write as _;

use rustix::process::geteuid;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::account::{Account, ORDINARY};
use crate::support::driver::{self, Act, Fault};
use crate::support::gitlab::Repository;
use crate::support::job::{Artifacts, Cache, Job, Variable};
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

fn row(name: &'static str, play: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) -> Scenario {
    Scenario { name, needs: &["git", "unzip", "tar"], settings: Settings::default, play, expect }
}

fn ordinary(scenario: Scenario) -> Scenario {
    with(scenario, || Settings { ordinary_user: true, ..Settings::default() })
}

/// Values that a shell would take apart, or run, if they were not quoted. `RUN` is a command that leaves a file on the host.
const ODD_VALUES: &[&str] = &[
    "v2.0\n\nchangelog\n",
    "wip\n\nRUN\n",
    "\nRUN\n",
    "a;RUN",
    ";RUN;",
    "a\tRUN",
    "\t",
    "\n",
    " ",
    "   ",
    "",
    "~",
    "~root",
    "a~b",
    "{a,b}",
    "{RUN}",
    "{ RUN; }",
    "it's",
    "'",
    "\"",
    "a\"b'c",
    "$HOME",
    "${HOME}",
    "$(RUN)",
    "`RUN`",
    "$'\\n'",
    "\\",
    "a\\nb",
    "\\\\",
    "*",
    "?",
    "[a-z]*",
    "!",
    "!!",
    "a!b",
    "#",
    "# RUN",
    "a #b",
    "&",
    "a & RUN &",
    "|RUN",
    "a||RUN",
    "<",
    ">/dev/null",
    "<<EOF",
    "(RUN)",
    "-n",
    "-e x",
    "--",
    "=",
    "a=b",
    "%s%n",
    "%",
    "\r",
    "a\r\nb\r\n",
    "\u{1f600}",
    "ü ß é",
    "\u{7f}\u{1b}[31m",
    "a\u{a0}b",
    ",",
    "@",
    ":",
    "+x",
    "^",
    "]",
    ")",
    "}",
    "a\u{b}\u{c}b",
];

fn odd_job(world: &World) -> Job {
    let run = format!("touch {}/ran", world.dirs.root().display());
    let mut job = Job::new();
    let mut script = String::from("set +x\n");
    for (number, value) in ODD_VALUES.iter().enumerate() {
        job = job.variable(Variable::new(&format!("ODD_{number}"), &value.replace("RUN", &run)).raw());
        let _ = writeln!(script, "printf %s \"$ODD_{number}\" | od -An -v -tx1 | tr -d ' \\n'; echo =");
    }
    job.set("CI_COMMIT_MESSAGE", "wip\n\nid\n").script([&script]).artifacts(Artifacts::paths(["none"]))
}

fn with(mut scenario: Scenario, settings: fn() -> Settings) -> Scenario {
    scenario.settings = settings;
    scenario
}

/// With the real runner only: the double does not read that file.
#[test]
fn odd_values_arrive_whole_with_the_shipped_config() {
    let scenario = row(
        "odd_values",
        |world| vec![world.run(&odd_job(world))],
        |world, outcomes| {
            outcomes[0].succeeded().hides("uid=");
            let run = format!("touch {}/ran", world.dirs.root().display());
            for (number, value) in ODD_VALUES.iter().enumerate() {
                let hex =
                    value.replace("RUN", &run).bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                assert!(
                    outcomes[0].text().contains(&format!("\n{hex}=\n")),
                    "{number} {value:?} {hex}\n{}",
                    outcomes[0]
                );
            }
            assert!(!world.dirs.root().join("ran").exists(), "a value ran on the host\n{}", outcomes[0]);
        },
    );
    let scenario = with(scenario, || Settings { shipped_config: true, ordinary_user: true, ..Settings::default() });
    play(&scenario, With::RealRunner, driver::sagemaker());
}

/// An operator's `config.toml` that still has the flag on; the double has no feature flags of the runner.
#[test]
fn the_operators_flag_is_refused() {
    let scenario = row(
        "the_operators_flag",
        |world| vec![world.run(&Job::new().script(["echo never"]))],
        |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None).hides("\nnever").called("run prepare_script", 0);
            outcomes[0].shows("set `FF_POSIXLY_CORRECT_ESCAPES = false` in `[runners.feature_flags]`");
        },
    );
    let settings = || Settings { feature_flags: vec![("FF_POSIXLY_CORRECT_ESCAPES", true)], ..Settings::default() };
    play(&with(scenario, settings), With::RealRunner, driver::sagemaker());
}

/// Whatever `prepare` was told, a script in that form is not run.
#[test]
fn a_script_that_was_written_with_the_flag_is_not_run() {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let ended =
        desk.run("prepare_script", "trap 'exit 1' TERM\n(trap 'exit 1' TERM; eval \"echo ran\") < /dev/null\nexit 0\n");
    ended.with_code(SYSTEM_FAILURE);
    ended.says("`FF_POSIXLY_CORRECT_ESCAPES` is on").hides("ran\n");
    desk.close();
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

fn sources(world: &World) -> (Repository, String) {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("train.py", "print(1)\n")]);
    (repository, sha)
}

/// A job with all kinds of host stages.
fn all_stages(sources: &(Repository, String)) -> Job {
    all_stages_and(sources, "true", "true")
}

/// The same with one more line in `script` and one in `after_script`.
fn all_stages_and((repository, sha): &(Repository, String), line: &str, last: &str) -> Job {
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

fn has_note(outcome: &Outcome) {
    outcome.succeeded();
    assert_eq!(outcome.artifact("archive").files()["out/note"], b"two\nlines; it's\n", "{outcome}");
}

/// Every flag of GitLab Runner 19.4 that changes a script for bash, and some that say they would.
const FLAGS: &[(&str, &str)] = &[
    ("FF_USE_LEGACY_BASH_EVAL", "true"),
    ("FF_ENABLE_BASH_EXIT_CODE_CHECK", "true"),
    ("FF_SCRIPT_SECTIONS", "true"),
    ("FF_ENABLE_JOB_CLEANUP", "true"),
    ("FF_CLEAN_UP_FAILED_CACHE_EXTRACT", "true"),
    ("FF_GIT_URLS_WITHOUT_TOKENS", "true"),
    ("FF_HASH_CACHE_KEYS", "true"),
    ("FF_USE_GIT_NATIVE_CLONE", "true"),
    ("FF_USE_GIT_PROACTIVE_AUTH", "true"),
    ("FF_USE_POWERSHELL_PATH_RESOLVER", "true"),
    ("FF_NETWORK_PER_BUILD", "true"),
    ("FF_USE_FASTZIP", "false"),
    ("FF_SCRIPT_TO_STEP_MIGRATION", "true"),
    ("FF_CONCRETE", "true"),
];

#[test]
fn the_runners_other_flags_work() {
    let scenario = row(
        "flags",
        |world| {
            let sources = sources(world);
            FLAGS.iter().map(|(flag, value)| world.run(&all_stages(&sources).set(flag, value))).collect()
        },
        |_, outcomes| {
            for (outcome, (flag, _)) in outcomes.iter().zip(FLAGS) {
                tell(&format!("with {flag}"));
                has_note(outcome);
            }
        },
    );
    play(&ordinary(scenario), With::RealRunner, driver::sagemaker());
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
    /// A job that turns on the flag that opens the host.
    the_jobs_flag(row(
        "the_jobs_flag",
        |world| vec![world.run(&Job::new().set("FF_POSIXLY_CORRECT_ESCAPES", "1").script(["echo never"]))],
        |_, outcomes| {
            outcomes[0].failed("script_failure", Some(1)).hides("\nnever").called("prepare", 1).called("run prepare_script", 0);
            outcomes[0].shows("remove the variable `FF_POSIXLY_CORRECT_ESCAPES` from the job");
        },
    ));

    /// The runner puts a cache's key where the host's shell would run it.
    a_branch_that_is_a_command(row(
        "a_branch_that_is_a_command",
        |world| {
            let command = format!("$(touch${{IFS}}{}/ran)", world.dirs.root().display());
            let named = |key: &str| Job::new().script(["mkdir c; echo on > c/x"]).cache(Cache::new(key, ["c"]));
            let branch = Variable::new("CI_COMMIT_REF_NAME", &command).raw();
            vec![
                world.run(&named("$CI_COMMIT_REF_NAME-c").variable(branch.clone())),
                world.run(&named("").variable(branch)),
                world.run(&named(&command)),
                world.run(&named("$CI_COMMIT_REF_NAME")),
            ]
        },
        |world, outcomes| {
            for outcome in &outcomes[..3] {
                outcome.failed("script_failure", Some(1)).called("prepare", 1).called("run prepare_script", 0);
                outcome.shows("set `cache:key` to plain text or to variables such as `$CI_COMMIT_REF_SLUG`");
            }
            outcomes[3].succeeded();
            assert!(!world.dirs.root().join("ran").exists());
        },
    ));

    /// Variables that are meant for the image leave git, the shell and the helper on the host alone.
    container_variables(ordinary(row(
        "container_variables",
        |world| {
            let last = "echo \"container: $PATH|$HOME|$TMPDIR|$LD_LIBRARY_PATH|$GIT_AUTHOR_NAME\"";
            let job = all_stages_and(&sources(world), "true", last)
                .set("PATH", "/opt/conda/bin:/usr/bin:/bin")
                .set("HOME", "/nowhere")
                .set("TMPDIR", "/nowhere")
                .set("LD_LIBRARY_PATH", "/nowhere")
                .set("PYTHONHOME", "/nowhere")
                .set("LC_ALL", "xx_XX.UTF-8")
                .set("BASH_ENV", "/nowhere")
                .set("ENV", "/nowhere")
                .set("PS4", "x")
                .set("PERL5LIB", "/nowhere")
                .set("PERL5OPT", "-Mnone")
                .set("RUBYOPT", "-rnone")
                .set("NODE_OPTIONS", "--none")
                .set("GODEBUG", "gctrace=1,inittrace=1")
                .set("SSL_CERT_FILE", "/nowhere/ca.pem")
                .set("CDPATH", "/")
                .set("GIT_AUTHOR_NAME", "of the job")
                .hook("post_get_sources_script", ["echo \"host: $PATH|$HOME|$GIT_AUTHOR_NAME\""]);
            vec![world.run(&job), world.run(&job)]
        },
        |world, outcomes| {
            let home = if world.driver.is_sandboxed() { "/tmp/home".into() } else { world.dirs.home() };
            let host = format!("|{}|of the job\n", home.display());
            for outcome in outcomes {
                has_note(outcome);
                outcome.shows(&host).shows("container: /opt/conda/bin:/usr/bin:/bin|/nowhere|/nowhere|/nowhere|of the job\n");
                outcome.shows("For the container alone, not for stages on the runner's host: BASH_ENV, CDPATH, ENV, GODEBUG, HOME,");
                outcome.hides("Missing gitlab-runner").hides("host: /opt/conda").hides("init internal");
            }
            outcomes[1].shows("\nx\nx\n");
        },
    )));

    /// Names that mean something to the host's shell, the runner or a version: all of them are a job's to use.
    odd_names(ordinary(row(
        "odd_names",
        |world| {
            // The runner's own name, before the one that is for the container.
            let mut job = all_stages_and(
                &sources(world),
                "mkdir dist-$PYTHON_VERSION-$NODE_ENV && echo wheel > dist-$PYTHON_VERSION-$NODE_ENV/w",
                "echo \"$RANDOM_SEED|$RUBY_VERSION|${#BIG}\"",
            )
            .set("GCM_INTERACTIVE", "Always")
            .set("PATH", "/opt/conda/bin:/usr/bin:/bin")
            .set("PYTHON_VERSION", "3.12")
            .set("NODE_ENV", "test")
            .set("RUBY_VERSION", "3")
            .set("RANDOM_SEED", "7")
            .set("CACHE_METADATA", "mine")
            .set("BIG", &"x y".repeat(33_000));
            for name in ["export", "line", "local", "eval", "readonly", "SECONDS", "RANDOM", "OPTIND", "HISTCMD"] {
                job = job.set(name, "1");
            }
            for name in ["GROUPS", "FUNCNAME", "DIRSTACK", "PIPESTATUS", "PWD", "OLDPWD", "USER", "_", "BASH", "TMP"] {
                job = job.set(name, "a b");
            }
            let job = job
                .hook("post_get_sources_script", ["echo \"host: $PATH\"; export PATH=$PATH:/hook; echo \"own: $PATH\""])
                .artifacts(Artifacts::paths(["out", "dist-$PYTHON_VERSION-$NODE_ENV"]));
            vec![world.run(&job)]
        },
        |_, outcomes| {
            has_note(&outcomes[0]);
            let wheels = outcomes[0].artifact("archive").files();
            assert_eq!(wheels["dist-3.12-test/w"], b"wheel\n");
            outcomes[0].shows("\n7|3|99000\n").hides("host: /opt/conda").hides("syntax error");
            assert!(outcomes[0].text().lines().any(|line| line.starts_with("own: ") && line.ends_with(":/hook")));
        },
    )));

    /// A container's variables for later stages do not choose the programs of the host.
    variables_of_the_container(ordinary(row(
        "variables_of_the_container",
        |world| {
            let program = format!("printf '#!/bin/sh\\ntouch {}/owned\\n' > out/gitlab-runner", world.dirs.root().display());
            let job = Job::new()
                .script([
                    "mkdir out",
                    &program,
                    "chmod +x out/gitlab-runner && cp out/gitlab-runner out/git && echo r > out/report-7.txt",
                    "printf 'PATH=%s/out:/usr/bin:/bin\\nNUMBER=7\\n  LD_PRELOAD=x\\nhttps_proxy=http://x\\n\\n' \"$CI_PROJECT_DIR\" >> \"$GITLAB_ENV\"",
                    "printf 'a[$(touch %s/owned)]=1\\nKEY =v\\nPA\\0TH=/x\\nGIT_SSH_COMMAND=x\\nBASH_ENV=x\\n' \"$ROOT\" >> \"$GITLAB_ENV\"",
                    "printf 'RANDOM=a[$(touch %s/owned)]\\nOPTIND=a[$(touch %s/owned)]\\n' \"$ROOT\" \"$ROOT\" >> \"$GITLAB_ENV\"",
                    "for i in 1 2 3 4 5 6 7 8; do printf 'LONG+='; head -c 100000 /dev/zero | tr '\\0' x; echo; done >> \"$GITLAB_ENV\"",
                ])
                .set("ROOT", &world.dirs.root().display().to_string())
                .artifacts(Artifacts::paths(["out/report-$NUMBER.txt"]));
            vec![world.run(&job)]
        },
        |world, outcomes| {
            outcomes[0].succeeded();
            assert_eq!(outcomes[0].artifact("archive").files()["out/report-7.txt"], b"r\n", "{}", outcomes[0]);
            assert!(!world.dirs.root().join("owned").exists(), "the container's program ran on the host\n{}", outcomes[0]);
            outcomes[0].shows(
                "left out of `gitlab_runner_env`: variables that stages on the runner's host do not take from a container: \
                 BASH_ENV, GIT_SSH_COMMAND, LD_PRELOAD, LONG, OPTIND, PATH, RANDOM, https_proxy; 2 lines that are no `KEY=value`",
            );
        },
    )));

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

    /// A wish that is misspelt is no silent default.
    misspelt_wish(row(
        "misspelt_wish",
        |world| vec![world.run(&Job::new().set("SAGEMAKER_INSTANCE_TYPES", "ml.g5.xlarge").script(["echo on"]))],
        |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[0].shows("`SAGEMAKER_INSTANCE_TYPES` is not known").shows("did you mean `SAGEMAKER_INSTANCE_TYPE`?");
        },
    ));

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
