//! Effects of a job's variables and of the runner's feature flags on the stages on the runner's host.

use std::fmt::Write as _;

use rustix::process::geteuid;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use super::sagemaker_host::{all_stages, all_stages_and, has_note, ordinary, row, rows, sources, with};
use crate::support::driver;
use crate::support::job::{Artifacts, Cache, Job, Variable};
use crate::support::scenario::{With, play};
use crate::support::waiting::tell;
use crate::support::world::{Settings, World};

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

    /// A wish that is misspelt is no silent default.
    misspelt_wish(row(
        "misspelt_wish",
        |world| vec![world.run(&Job::new().set("SAGEMAKER_INSTANCE_TYPES", "ml.g5.xlarge").script(["echo on"]))],
        |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[0].shows("`SAGEMAKER_INSTANCE_TYPES` is not known").shows("did you mean `SAGEMAKER_INSTANCE_TYPE`?");
        },
    ));
}
