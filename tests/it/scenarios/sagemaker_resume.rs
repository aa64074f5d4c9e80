//! The driver's process is killed while it prints, and another takes over: nothing twice, nothing missing.

use rustix::process::Signal;

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::support::job::Job;
use crate::support::waiting::poll;

const COUNTING: &str =
    "i=0; while [ $i -lt 160 ]; do i=$((i + 1)); echo \"line $i\"; sleep 0.05; done; printf end; exit 3";

fn counted() -> String {
    let lines: Vec<String> = (1..=160).map(|number| format!("line {number}")).collect();
    lines.join("\n") + "\nend"
}

/// Kills the stage three times and lets the fourth end.
fn is_followed_on(tail: &str) {
    let desk = Desk::with(&Job::new().script(["true"]), &["--log-delay", "500ms"], tail).prepared();
    let mut printed = Vec::new();
    for line in ["line 3\n", "\nline", "\nline"] {
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
    is_followed_on("");
}

#[test]
fn a_killed_stage_is_followed_on_through_cloudwatch() {
    is_followed_on("[trace]\nlive_copy = false");
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
