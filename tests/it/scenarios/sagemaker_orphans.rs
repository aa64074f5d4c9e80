//! GitLab Runner is killed, and no cleanup follows: its drivers notice it, end the job, and leave nothing.

use std::time::Duration;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use super::variables::find_files;
use crate::support::driver::{sagemaker, sandboxed, sandboxed_as_root, write_program};
use crate::support::job::{Job, Trigger};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, one, play};
use crate::support::waiting::poll;
use crate::support::world::{Settings, World};

/// The runner ended without a word to GitLab; waits until its last driver has closed the session.
fn is_closed_without_a_cleanup(world: &World, outcomes: &[Outcome]) {
    assert_eq!(outcomes[0].state, None, "{}", outcomes[0]);
    outcomes[0].called("cleanup", 0);
    let sessions = world.dirs.root().join("state/sessions");
    let is_closed = || std::fs::read_dir(&sessions).is_ok_and(|mut entries| entries.next().is_none()).then_some(());
    assert!(poll(Duration::from_mins(1), is_closed).is_some(), "the session is still open");
}

fn killed(name: &'static str, play_it: fn(&World) -> Vec<Outcome>) {
    let row = Scenario {
        name,
        needs: &["git"],
        settings: Settings::default,
        play: play_it,
        expect: is_closed_without_a_cleanup,
    };
    play(&row, With::RealRunner, sagemaker());
}

/// The script of a host stage is ended too.
#[test]
fn the_runner_is_killed_while_a_host_stage_hangs() {
    killed("runner_killed_in_a_host_stage", |world| {
        let repository = world.repository("ml/churn");
        let sha = repository.commit("main", &[("a.py", "a")]);
        let job = Job::new().sources(&repository, "main", &sha).script(["true"]);
        let job = job.hook("pre_get_sources_script", ["echo reached-the-hook", "sleep 3600"]);
        one(world, &job.when_trace_contains("\nreached-the-hook", Trigger::KillRunner))
    });
}

/// In the sandbox the script has its grace too: it is asked to end, and what it writes then is on the disk.
#[test]
fn the_runner_is_killed_while_a_host_stage_hangs_in_the_sandbox() {
    let hang = |world: &World| {
        let repository = world.repository("ml/churn");
        let sha = repository.commit("main", &[("a.py", "a")]);
        // The shell tells of an ended program, and nobody reads what it prints.
        let hook = "echo reached-the-hook
            (trap 'sleep 1; echo done > \"$CI_PROJECT_DIR/saved\"; exit' TERM; while true; do sleep 0.1 || true; done) > /dev/null 2>&1";
        let job = Job::new().sources(&repository, "main", &sha).hook("post_get_sources_script", [hook]);
        one(world, &job.script(["true"]).when_trace_contains("\nreached-the-hook", Trigger::KillRunner))
    };
    let is_saved = |world: &World, outcomes: &[Outcome]| {
        is_closed_without_a_cleanup(world, outcomes);
        assert_eq!(find_files(&world.dirs.builds(), "saved").len(), 1);
    };
    let row = Scenario {
        name: "runner_killed_in_the_sandbox",
        needs: &["git"],
        settings: Settings::default,
        play: hang,
        expect: is_saved,
    };
    play(&row, With::RealRunner, sandboxed());
    play(&row, With::RealRunner, sandboxed_as_root());
}

#[test]
fn the_runner_is_killed_while_a_script_is_silent() {
    killed("runner_killed_in_a_silent_script", |world| {
        let job = Job::new().script(["echo reached-the-script", "sleep 3600"]).after_script(["true"]);
        one(world, &job.when_trace_contains("\nreached-the-script", Trigger::KillRunner))
    });
}

#[test]
fn the_runner_is_killed_while_the_instance_is_provisioned() {
    let row = Scenario {
        name: "runner_killed_while_provisioning",
        needs: &[],
        settings: Settings::default,
        play: |world| one(world, &Job::new().script(["true"]).when_trace_contains("\nStarting (", Trigger::KillRunner)),
        expect: is_closed_without_a_cleanup,
    };
    play(&row, With::RealRunner, crate::support::driver::sagemaker_with(&["--starting-delay", "60s"], ""));
}

/// A reader that leaves while the script talks: the stage sees it when it prints.
#[test]
fn the_reader_of_a_talkative_script_goes() {
    let mut desk = Desk::new(&Job::new().script(["true"])).prepared();
    let reader = desk.root().join("reader-that-goes");
    let driver = std::mem::replace(&mut desk.program, reader);
    let script =
        format!("#!/usr/bin/env bash\n'{}' \"$@\" | head -n 1 >&2\nexit ${{PIPESTATUS[0]}}\n", driver.display());
    write_program(&desk.program, &script);
    let ended = desk.run("build_script", "echo reached; for i in $(seq 600); do echo tick; sleep 0.1; done");
    ended.with_code(SYSTEM_FAILURE).one_error().says("has gone");
    desk.program = driver;
    desk.is_left_clean();
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says("Nothing is left over");
    desk.close();
}

/// As with a wrapper that logs what the driver prints: the reader outlives the process that started the stage.
#[test]
fn the_process_that_started_a_silent_script_goes() {
    let mut desk = Desk::new(&Job::new().script(["true"])).prepared();
    let wrapper = desk.root().join("wrapper-that-goes");
    let driver = std::mem::replace(&mut desk.program, wrapper);
    write_program(&desk.program, &format!("#!/usr/bin/env bash\n'{}' \"$@\" | cat\n", driver.display()));
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(rustix::process::Signal::KILL);
    assert_eq!(run.end().code, None);
    desk.program = driver;
    is_closed(&desk);
    desk.is_left_clean();
}

/// The runner has forgotten the stage: ten minutes after the job's timeout the driver ends it. `FAULTS=all` plays this.
#[test]
fn a_stage_outlives_the_jobs_timeout() {
    if super::reliability::asked().as_deref() != Some("all") {
        return;
    }
    let job = Job::new().script(["true"]).timeout(60);
    let desk = Desk::new(&job).prepared();
    let run = desk.start_run("get_sources", "sleep 3600");
    let ended = run.end_within(Duration::from_mins(13));
    ended.with_code(SYSTEM_FAILURE).one_error().says("timeout").says("so the training job was stopped");
    is_closed(&desk);
    desk.is_left_clean();
}

/// The session is closed without a `cleanup`: nothing of it is at AWS.
#[track_caller]
fn is_closed(desk: &Desk) {
    let left = || [desk.emulator.live_jobs(), desk.emulator.session_objects()].concat();
    let closed = poll(Duration::from_mins(1), || left().is_empty().then_some(()));
    assert!(closed.is_some(), "{:?}", left());
}

/// Nobody is told of the end of a stage whose driver was killed too: a sweep ends the session.
#[test]
fn a_host_that_lost_everything_is_swept_up_after() {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(rustix::process::Signal::KILL);
    run.end();
    desk.call(&["sweep"]).with_code(0).says("Nothing is left over");
    desk.call(&["sweep", "--older-than", "0s", "--dry-run"]).with_code(0).says("Would end gitlab-");
    let listed = desk.call(&["sweep", "--older-than", "0s", "--dry-run", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(report["sessions"][0]["outcome"], "would_end", "{report}");
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says("Ended gitlab-");
    desk.is_left_clean();
    desk.close();
}
