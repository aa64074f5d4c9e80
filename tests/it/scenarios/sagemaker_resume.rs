//! The driver's process is killed while it prints, and another takes over: no output is printed twice or lost.

use rustix::process::Signal;

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::support::driver::{Act, Fault, sagemaker};
use crate::support::job::{Artifacts, Job};
use crate::support::scenario::{Scenario, With, one, play};
use crate::support::waiting::poll;
use crate::support::world::Settings;

const COUNTING: &str =
    "i=0; while [ $i -lt 160 ]; do i=$((i + 1)); echo \"line $i\"; sleep 0.05; done; printf end; exit 3";

fn counted() -> String {
    let lines: Vec<String> = (1..=160).map(|number| format!("line {number}")).collect();
    lines.join("\n") + "\nend"
}

fn desk(tail: &str) -> Desk {
    Desk::with(&Job::new().script(["true"]), &["--log-delay", "500ms"], tail)
}

const KILLS: [&str; 3] = ["line 3\n", "\nline", "\nline"];

/// Kills the stage whenever it has printed one of the texts, and lets the last one end.
pub(super) fn is_followed_on(desk: Desk, kills: &[&str]) {
    let desk = desk.prepared();
    let mut printed = Vec::new();
    for line in kills {
        let mut run = desk.start_run("build_script", COUNTING);
        run.until(line);
        run.signal(Signal::KILL);
        let killed = run.end();
        assert_eq!(killed.code, None, "{killed}");
        printed.extend(killed.stdout);
    }
    let ended = desk.run("build_script", COUNTING);
    ended.with_code(BUILD_FAILURE);
    assert_eq!(ended.exit_code.as_deref(), Some("3"));
    printed.extend(&ended.stdout);
    assert_eq!(String::from_utf8(printed).unwrap(), counted(), "{ended}");
    desk.close();
}

#[test]
fn a_killed_stage_is_followed_on() {
    is_followed_on(desk(""), &KILLS);
}

#[test]
fn a_killed_stage_is_followed_on_through_cloudwatch() {
    is_followed_on(desk("[trace]\nlive_copy = false"), &KILLS);
}

/// Output that is fast enough to stand in every buffer on the way when the kill comes.
#[test]
fn a_kill_in_the_middle_of_a_flood_loses_nothing() {
    let script = "seq 1 400000; exit 4";
    let numbers: Vec<String> = (1..=400_000).map(|number| number.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let mut printed = Vec::new();
    for _ in 0..3 {
        let mut run = desk.start_run("build_script", script);
        run.until("\n");
        run.signal(Signal::KILL);
        printed.extend(run.end().stdout);
    }
    let ended = desk.run("build_script", script);
    ended.with_code(BUILD_FAILURE);
    printed.extend(&ended.stdout);
    assert_eq!(printed.len(), expected.len(), "{}", ended.stderr);
    assert!(printed == expected.as_bytes(), "other bytes, or another order");
    desk.close();
}

/// GitLab Runner takes a killed stage for a system failure and goes on with `after_script`.
#[test]
fn the_next_stage_ends_the_script_of_a_killed_one_and_prints_its_rest() {
    let desk = Desk::new(&Job::new().script(["true"]).after_script(["true"])).prepared();
    let mut run = desk
        .start_run("build_script", "echo one; trap 'echo three; exit 1' TERM; echo two; while :; do sleep 0.1; done");
    run.until("two");
    run.signal(Signal::KILL);
    let killed = run.end();
    let after = desk.run("after_script", "echo four");
    after.passed().says("was killed; its script is ended first");
    // A shell may tell of its `sleep`.
    let printed = (killed.out() + &after.out()).replace("Terminated\n", "");
    assert_eq!(printed, "one\ntwo\nthree\nfour\n", "{after}");
    desk.close();
}

/// The recorder kills the driver once some output is printed: the runner goes on to the host stages of the failed job.
fn driver_killed() -> Settings {
    let act = Act::Shell(
        "state=$(dirname \"$0\")/state/sessions
         ( until [ \"$(od -An -tu1 -j9 -N1 \"$state\"/*.cursor 2>/dev/null | tr -d ' ')\" -gt 0 ]; do sleep 0.05; done
           kill -KILL $$ ) >/dev/null 2>&1 &",
    );
    Settings { faults: vec![Fault { stage: "run build_script", times: 1, act }], ..Settings::default() }
}

fn a_host_stage_after_a_killed_one(with: With) {
    let row = Scenario {
        name: "a_host_stage_after_a_killed_one",
        needs: &["od", "unzip"],
        settings: driver_killed,
        play: |world| {
            let script = "trap 'echo half > model.txt; echo ended-by-the-trap; exit 1' TERM; printf '%5000s\\n' .; while :; do sleep 0.1; done";
            one(world, &Job::new().script([script]).artifacts(Artifacts::paths(["model.txt"]).when("always")))
        },
        expect: |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None).called("run after_script", 0);
            assert_eq!(outcomes[0].count("\nended-by-the-trap"), 1, "{}", outcomes[0]);
            assert_eq!(outcomes[0].artifact("archive").files()["model.txt"], b"half\n");
        },
    };
    play(&row, with, sagemaker());
}

#[test]
fn a_host_stage_ends_the_script_of_a_killed_one_real() {
    a_host_stage_after_a_killed_one(With::RealRunner);
}

#[test]
fn a_host_stage_ends_the_script_of_a_killed_one_double() {
    a_host_stage_after_a_killed_one(With::RunnerDouble);
}

/// Without artifacts the only stage that follows is the one that removes the file variables.
#[test]
fn the_last_host_stage_ends_the_script_of_a_killed_one() {
    let desk = Desk::new(&Job::new().script(["true"])).prepared();
    let mut run =
        desk.start_run("build_script", "echo one; trap 'echo two; exit 1' TERM; echo set; while :; do sleep 0.1; done");
    run.until("set");
    run.signal(Signal::KILL);
    let killed = run.end();
    let next = desk.run("cleanup_file_variables", "echo three");
    next.passed().says("was killed; its script is ended first");
    let printed = (killed.out() + &next.out()).replace("Terminated\n", "");
    assert_eq!(printed, "one\nset\ntwo\nthree\n", "{next}");
    desk.close();
}

/// A script that never began, since there was no instance yet: nothing is waited for.
#[test]
fn a_host_stage_after_a_driver_that_was_killed_while_it_waited() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--starting-delay", "1h"], "").prepared();
    let mut run = desk.start_run("build_script", "echo never");
    run.until("Starting (");
    run.signal(Signal::KILL);
    run.end();
    let next = desk.run("upload_artifacts_on_failure", "echo on the host");
    next.passed();
    assert_eq!(next.out(), "on the host\n");
    desk.close();
}

#[test]
fn cleanup_prints_what_a_killed_stage_did_not() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--log-delay", "0s"], "").prepared();
    let mut run = desk.start_run(
        "build_script",
        "echo one; trap 'echo three; exit 1' TERM; sleep 1; echo two; while :; do sleep 0.1; done",
    );
    run.until("one");
    run.signal(Signal::KILL);
    let killed = run.end();
    let written = poll(std::time::Duration::from_mins(1), || desk.emulator.log_text().contains("two").then_some(()));
    assert!(written.is_some(), "the script went on");
    let cleanup = desk.cleanup();
    cleanup.passed();
    let printed = (killed.out() + &cleanup.out()).replace("Terminated\n", "");
    assert_eq!(printed, "one\ntwo\nthree\n", "{cleanup}");
    desk.is_left_clean();
}

/// What others wrote into the container's log stands beside the output, also where nothing of the output is missing.
#[test]
fn cleanup_prints_what_others_wrote_beside_a_killed_stage() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--log-delay", "0s"], "").prepared();
    let script = "echo one; i=0; while [ $i -lt 20 ]; do i=$((i + 1)); echo \"theirs $i.\" >/proc/$PPID/fd/1; sleep 0.05; done; sleep 60";
    let mut run = desk.start_run("build_script", script);
    run.until("one");
    run.signal(Signal::KILL);
    let killed = run.end();
    let written =
        poll(std::time::Duration::from_mins(1), || desk.emulator.log_text().contains("theirs 20.").then_some(()));
    assert!(written.is_some(), "the script went on");
    let cleanup = desk.cleanup();
    cleanup.passed();
    let shown = killed.stderr.clone() + &cleanup.stderr;
    for number in 1..=20 {
        let line = format!("[container] theirs {number}.\n");
        assert_eq!(shown.matches(&line).count(), 1, "{line}{killed}{cleanup}");
    }
    assert_eq!(killed.out() + &cleanup.out().replace("Terminated\n", ""), "one\n");
    desk.is_left_clean();
}
