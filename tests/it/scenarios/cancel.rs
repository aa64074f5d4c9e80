//! Jobs that end early: cancel, abort, time limits, a runner that is told to exit.

use std::time::Duration;

use crate::support::driver::{Act, Fault, reference};
use crate::support::job::{Artifacts, Cache, Job, Trigger};
use crate::support::scenario::{one, scenarios};
use crate::support::waiting::{enter_gate, poll};
use crate::support::world::{Runner, Settings, World};

/// Says something every 0.1 s for a minute, as the runner only asks GitLab while there is output.
const TALK: &str = "for i in $(seq 600); do echo tick; sleep 0.1; done";

fn hanging() -> Job {
    Job::new()
        .script(["echo reached-the-script", "sleep 3600", "echo never"])
        .after_script(["echo status-$CI_JOB_STATUS"])
}

scenarios! {
    cancel_in_script {
        play: |world| one(world, &hanging().when_trace_contains("\nreached-the-script", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).shows("status-canceled").hides("\nnever").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run build_script", "run after_script",
                "run cleanup_file_variables", "cleanup",
            ]);
        },
    }
    /// The text of the script does not appear when its shell is terminated.
    no_script_body_on_cancel {
        play: |world| one(world, &Job::new()
            .script(["echo reached-the-script", "sleep 3600; SECRET_WORD=hidden-in-the-body"])
            .when_trace_contains("\nreached-the-script", Trigger::Cancel)),
        expect: |_, outcomes| {
            let shown = outcomes[0].failed("job_canceled", None).count("hidden-in-the-body");
            assert!(shown <= 1, "only the echo of the command may show it\n{}", outcomes[0]);
        },
    }
    /// Artifacts with `when: always` and such a cache are kept when a job is canceled.
    artifacts_after_cancel {
        needs: ["unzip", "tar"],
        play: |world| one(world, &Job::new()
            .script(["echo half > model.txt", "echo reached-the-script", "sleep 3600"])
            .artifacts(Artifacts::paths(["model.txt"]).when("always"))
            .cache(Cache::new("k", ["model.txt"]).when("always"))
            .when_trace_contains("\nreached-the-script", Trigger::Cancel)),
        expect: |_, outcomes| {
            let outcome = outcomes[0].failed("job_canceled", None);
            outcome.called("run archive_cache_on_failure", 1).called("run upload_artifacts_on_failure", 1);
            assert_eq!(outcome.artifact("archive").files()["model.txt"], b"half\n");
        },
    }
    /// Before the user's script a cancel ends everything; only cleanup follows.
    cancel_in_get_sources {
        needs: ["git"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a", "a")]);
            one(world, &hanging().sources(&repository, "main", &sha)
                .hook("pre_get_sources_script", ["echo in-the-hook", TALK])
                .when_trace_contains("\nin-the-hook", Trigger::Cancel))
        },
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).hides("reached-the-script").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "cleanup",
            ]);
        },
    }
    /// A cancel during `after_script` comes too late: the job goes on and reports its own result.
    cancel_in_after_script {
        play: |world| one(world, &Job::new().script(["echo done"])
            .after_script(["echo in-after-script", "for i in $(seq 40); do echo tick; sleep 0.1; done", "echo all-said"])
            .when_trace_contains("\nin-after-script", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("\nall-said").called("run cleanup_file_variables", 1);
        },
    }
    /// Preparation is terminated as a system failure; the runner does not try again.
    cancel_in_prepare {
        settings: || Settings {
            faults: vec![Fault { stage: "prepare", times: 1, act: Act::Shell(
                "trap 'exit $SYSTEM_FAILURE_EXIT_CODE' TERM; echo in-prepare; for i in $(seq 600); do echo tick; sleep 0.1; done") }],
            ..Settings::default()
        },
        play: |world| one(world, &hanging().when_trace_contains("in-prepare", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).ran(&["config", "prepare", "cleanup"]);
        },
    }
    /// Why preparation must leave with the system code when it is terminated: code 1 hides the cancel.
    cancel_in_prepare_with_code_1 {
        settings: || Settings {
            faults: vec![Fault { stage: "prepare", times: 1, act: Act::Shell(
                "trap 'exit 1' TERM; echo in-prepare; for i in $(seq 600); do echo tick; sleep 0.1; done") }],
            ..Settings::default()
        },
        play: |world| one(world, &hanging().when_trace_contains("in-prepare", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(1)).ran(&["config", "prepare", "cleanup"]);
        },
    }
    abort_in_script {
        play: |world| one(world, &hanging().when_trace_contains("\nreached-the-script", Trigger::Abort)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None).hides("status-").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run build_script", "cleanup",
            ]);
        },
    }
    runner_interrupted {
        play: |world| one(world, &hanging().when_trace_contains("\nreached-the-script", Trigger::InterruptRunner)),
        expect: |_, outcomes| {
            outcomes[0].failed("runner_interrupted", None).shows("aborted: terminated").hides("status-").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run build_script", "cleanup",
            ]);
        },
    }
    script_timeout {
        play: |world| one(world, &hanging().set("RUNNER_SCRIPT_TIMEOUT", "1s")),
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None).shows("status-timedout")
                .shows("could not run to completion because the timeout was exceeded").called("run after_script", 1);
        },
    }
    after_script_timeout {
        play: |world| one(world, &Job::new().set("RUNNER_AFTER_SCRIPT_TIMEOUT", "1s").script(["echo fine"])
            .after_script(["echo in-after-script", "sleep 3600"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("after_script failed, but job will continue unaffected")
                .called("run cleanup_file_variables", 1);
        },
    }
    after_script_errors_count {
        play: |world| one(world, &Job::new().set("AFTER_SCRIPT_IGNORE_ERRORS", "false").script(["echo fine"])
            .after_script(["exit 9"])),
        expect: |_, outcomes| { outcomes[0].failed("script_failure", Some(9)); },
    }
    job_timeout {
        play: |world| one(world, &hanging().timeout(2)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None).shows("execution took longer than 2s")
                .called("run after_script", 0).called("run cleanup_file_variables", 0).called("cleanup", 1);
        },
    }
    get_sources_timeout {
        needs: ["git"],
        settings: || Settings { get_sources_timeout: Some("1s"), ..Settings::default() },
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a", "a")]);
            one(world, &hanging().sources(&repository, "main", &sha).hook("pre_get_sources_script", ["sleep 3600"]))
        },
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None)
                .ran(&["config", "prepare", "run prepare_script", "run get_sources", "cleanup"]);
        },
    }
    /// A driver that ignores SIGTERM is killed, and the job goes on with `after_script`.
    driver_deaf_to_cancel {
        settings: || Settings {
            graceful_kill_timeout: 1,
            faults: vec![Fault { stage: "run build_script", times: 1, act: Act::Shell("echo reached-the-script; trap '' TERM; exec sleep 3600") }],
            ..Settings::default()
        },
        play: |world| one(world, &hanging().when_trace_contains("reached-the-script", Trigger::Cancel)),
        expect: |_, outcomes| { outcomes[0].failed("job_canceled", None).shows("status-canceled"); },
    }
}

/// A runner that is killed tells nobody: the driver lives on in its own process group until it writes into the
/// broken pipe, and no cleanup follows.
#[test]
fn killed_runner_leaves_the_driver_running() {
    let Some(runner) = Runner::real() else {
        crate::support::waiting::tell("SKIPPED: killed runner: no gitlab-runner on PATH");
        return;
    };
    let _place = enter_gate();
    let world = World::new(runner, reference(), Settings::default());
    let job = Job::new()
        .script(["echo reached-the-script; until [ -e $HOME/go-on ]; do sleep 0.05; done; touch $HOME/went-on"])
        .when_trace_contains("\nreached-the-script", Trigger::KillRunner);
    let outcome = world.run(&job);
    assert_eq!(outcome.state, None, "{outcome}");
    outcome.called("run build_script", 1).called("cleanup", 0);
    std::fs::write(world.dirs.home().join("go-on"), "").unwrap();
    let lived = poll(Duration::from_secs(30), || world.dirs.home().join("went-on").exists().then_some(()));
    assert!(lived.is_some(), "the driver did not live on");
}
