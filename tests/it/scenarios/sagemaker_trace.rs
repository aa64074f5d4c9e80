//! The output byte for byte, from both sources and with all quirks of CloudWatch.

use std::time::Duration;

use serde_json::{Value, json};

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::support::driver::write_program;
use crate::support::job::{Job, Variable};
use crate::support::waiting::poll;

const CLOUDWATCH_ALONE: &str = "[trace]\nlive_copy = false";

/// What a log loses: control bytes, invalid UTF-8, white space at both ends, blank lines, length, and its own escapes.
fn awkward() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\n\n\n  indented\n\ttab\n#015 #033[0m #011 ##\n\\n \\x41 \\\\\ntrailing  \n \n");
    bytes.extend(b"\r 10%\r 20%\r100%\n\x1b[0Ksection_start:1:x\r\x1b[0Kheadline\n");
    bytes.extend("ü😀\u{2028}\u{feff}".as_bytes());
    bytes.push(b'\n');
    bytes.extend((0..50_000_u32).map(|number| b'a' + u8::try_from(number % 26).unwrap()));
    bytes.extend(b"\n\n");
    for number in 0..3000 {
        bytes.extend(format!("{number:>8} line\n").as_bytes());
    }
    bytes.extend(b"no newline at the end");
    bytes
}

/// Runs a script that writes `awkward` at once and once more slowly, and compares.
fn is_carried(emulator: &[&str], tail: &str, faults: &Value) {
    let mut desk = Desk::with(&Job::new().script(["true"]), emulator, tail);
    desk.set("SAGEMAKER_PROGRESS_RATE", "0");
    desk.emulator.set_faults(faults);
    let desk = desk.prepared();
    let bytes = awkward();
    std::fs::write(desk.project().join("awkward"), &bytes).unwrap();
    let ended = desk.run(
        "build_script",
        "cat awkward; echo; i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo \" slow $i\" >&2; sleep 0.1; done; cat awkward; exit 3",
    );
    ended.with_code(BUILD_FAILURE);
    assert_eq!(ended.exit_code.as_deref(), Some("3"));
    let slow = (1..=40).map(|number| format!(" slow {number}\n")).collect::<Vec<_>>().concat();
    let expected = [&bytes, b"\n".as_slice(), slow.as_bytes(), &bytes].concat();
    let differs = ended.stdout.iter().zip(&expected).position(|(one, other)| one != other);
    assert!(
        ended.stdout == expected,
        "{} bytes instead of {}, different at {differs:?}\n{}",
        ended.stdout.len(),
        expected.len(),
        ended.stderr
    );
    desk.emulator.set_faults(&json!({}));
    desk.close();
}

#[test]
fn through_the_live_copy() {
    is_carried(&[], "", &json!({}));
}

#[test]
fn through_cloudwatch() {
    is_carried(&["--log-delay", "1s"], CLOUDWATCH_ALONE, &json!({}));
}

#[test]
fn through_a_log_that_loses_doubles_shuffles_and_delays() {
    let faults = json!({"logs": {"lost": 200, "doubled": 300, "shuffled": 500, "late": 300, "late_ms": 1500}});
    is_carried(&["--log-delay", "500ms"], CLOUDWATCH_ALONE, &faults);
    is_carried(&["--log-delay", "500ms"], "", &faults);
}

/// Without the live copy a line shows while the script still runs: only CloudWatch can have brought it.
#[test]
fn cloudwatch_is_live() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--log-delay", "500ms"], CLOUDWATCH_ALONE).prepared();
    let mut run = desk.start_run("build_script", "echo first; until [ -e go-on ]; do sleep 0.1; done");
    run.until("first");
    run.signal(rustix::process::Signal::TERM);
    let ended = run.end();
    assert_eq!(ended.out(), "first\n");
    desk.close();
}

/// GitLab masks only its own trace, so the agent masks what CloudWatch and the store get.
#[test]
fn secrets_do_not_reach_cloudwatch() {
    let secret = "correct-horse-battery";
    let job = Job::new().script(["true"]).variable(Variable::new("PASSWORD", secret).masked());
    let mut desk = Desk::with(&job, &["--log-delay", "0s"], "");
    desk.set("PASSWORD", secret);
    let desk = desk.prepared();
    let script = format!(
        "p={secret}; echo \"<$p>\"; printf %s correct-horse; sleep 0.3; echo -battery; echo {}",
        super::sagemaker_desk::TOKEN
    );
    let ended = desk.run("build_script", &script);
    ended.passed();
    assert_eq!(ended.out(), "<[MASKED]>\n[MASKED]\n[MASKED]\n");
    assert!(desk.emulator.log_text().contains("[MASKED]"), "the log is not looked at");
    desk.close();
}

/// A library that writes into the container's log past the agent; the log itself loses everything here.
#[test]
fn what_others_write_is_shown_live_and_marked() {
    let desk = Desk::new(&Job::new().script(["true"]));
    desk.emulator.set_faults(&json!({"logs": {"lost": 1000}}));
    let desk = desk.prepared();
    let script = "echo mine; echo theirs >/proc/$PPID/fd/1; echo and error >/proc/$PPID/fd/2
        until [ -e go-on ]; do sleep 0.1; done";
    let mut run = desk.start_run("build_script", script);
    run.until("[container] theirs\n");
    run.until("[container] and error\n");
    run.signal(rustix::process::Signal::TERM);
    let ended = run.end();
    assert_eq!(ended.out(), "mine\n");
    assert_eq!(ended.stderr.matches("[container] theirs").count(), 1, "{ended}");
    desk.close();
}

/// The first node's lines are as they were written, the others' name their node; the code is that of the node that failed first, and the others are listed.
#[test]
fn several_nodes_in_one_trace() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.set("SAGEMAKER_INSTANCE_COUNT", "3");
    let desk = desk.prepared();
    let script = "case $(hostname) in \
        algo-1) printf ' 10%%\\r100%%\\n'; sleep 2; printf 'no end'; exit 7 ;; \
        algo-2) printf 'one\\n\\ntwo\\n'; exit 5 ;; \
        *) echo fine ;; esac";
    let ended = desk.run("build_script", script);
    ended.with_code(BUILD_FAILURE).says("algo-2 failed first, with exit code 5; algo-1 (exit code 7) failed too");
    assert_eq!(ended.exit_code.as_deref(), Some("5"));
    let out = ended.out();
    for text in [" 10%\r100%\n", "[algo-2] one\n", "[algo-2] \n", "[algo-2] two\n", "[algo-3] fine\n"] {
        assert!(out.contains(text), "{text:?} is missing\n{ended}");
    }
    assert!(out.ends_with("\nno end") && !out.contains("[algo-1]"), "{ended}");
    desk.close();
}

/// Names of sections that begin, in order; each must end before the next one begins.
fn sections(stderr: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = None;
    for line in stderr.lines() {
        let mark =
            |kind: &str| line.strip_prefix(kind)?.split_once(':')?.1.split(['[', '\r']).next().map(str::to_owned);
        if let Some(name) = mark("section_start:") {
            assert_eq!(open.replace(name.clone()), None, "{stderr}");
            names.push(name);
        } else if let Some(name) = mark("section_end:") {
            assert_eq!(open.take(), Some(name), "{stderr}");
        }
    }
    assert_eq!(open, None, "{stderr}");
    names
}

/// The phases are sections with SageMaker's own times, and a reason that SageMaker gives is shown.
#[test]
fn phases_are_sections() {
    let delays = ["--starting-delay", "2s", "--downloading-delay", "1s", "--training-delay", "1s"];
    let desk = Desk::with(&Job::new().script(["true"]), &delays, "").prepared();
    let ended = desk.run("build_script", "echo hello");
    ended.passed().says("exit code 0");
    assert_eq!(ended.out(), "hello\n");
    let names = ["sagemaker_provisioning", "sagemaker_download"];
    assert_eq!(sections(&ended.stderr), names, "{ended}");
    desk.close();

    let desk = Desk::new(&Job::new().script(["true"]));
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "capacity"}]}));
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo never");
    assert_eq!(sections(&ended.stderr), ["sagemaker_provisioning"], "{ended}");
    let after_sections = ended.stderr.rsplit("section_end").next().unwrap_or_default();
    assert!(after_sections.contains("CapacityError"), "the reason is not hidden in a section\n{ended}");
    desk.emulator.set_faults(&json!({}));
    desk.close();
}

/// An error that ends the waiting stands below the section, not in it.
#[test]
fn an_error_while_waiting_is_not_hidden_in_a_section() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--starting-delay", "30s"], "").prepared();
    let mut run = desk.start_run("build_script", "echo never");
    run.until("Provisioning ml.m5.large");
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "GetObject", "error": "InvalidRequest", "message": "No time helps", "status": 400}]}));
    let ended = run.end();
    assert_eq!(sections(&ended.stderr), ["sagemaker_provisioning"], "{ended}");
    let below = ended.stderr.rsplit("section_end").next().unwrap_or_default();
    assert!(below.contains("\nerror: "), "{ended}");
    desk.emulator.set_faults(&json!({}));
    desk.close();
}

/// While the store takes nothing, the log still gets the output; what is missing in the copy comes from there or later.
#[test]
fn an_outage_of_the_store_does_not_keep_output_from_the_log() {
    let desk = Desk::with(&Job::new().script(["true"]), &["--log-delay", "0s"], "").prepared();
    let script = "i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo line $i; sleep 0.05; done; echo the last";
    let mut run = desk.start_run("build_script", script);
    run.until("line 1\n");
    desk.emulator.set_faults(&json!({"calls": [{"operation": "PutObject", "error": "SlowDown", "status": 503}]}));
    let logged = poll(Duration::from_mins(1), || desk.emulator.log_text().contains("the last").then_some(()));
    desk.emulator.set_faults(&json!({}));
    let ended = run.end();
    assert!(logged.is_some(), "the log had to wait for the store\n{ended}");
    ended.passed();
    let lines: Vec<String> = (1..=60).map(|number| format!("line {number}\n")).collect();
    assert_eq!(ended.out(), lines.concat() + "the last\n", "{ended}");
    desk.close();
}

/// Neither live copy nor log: the copy is read all the same, before the script ends.
#[test]
fn a_log_that_cannot_be_read_is_replaced_by_the_copy() {
    let desk = Desk::with(&Job::new().script(["true"]), &[], CLOUDWATCH_ALONE).prepared();
    let denied = |operation: &str| json!({"operation": operation, "error": "AccessDeniedException", "status": 400});
    desk.emulator.set_faults(&json!({"calls": [denied("FilterLogEvents"), denied("DescribeLogStreams")]}));
    let mut run = desk.start_run("build_script", "echo first; until [ -e go-on ]; do sleep 0.1; done");
    run.until("first");
    run.signal(rustix::process::Signal::TERM);
    assert_eq!(run.end().out(), "first\n");
    desk.emulator.set_faults(&json!({}));
    desk.close();
}

/// As GitLab Runner does while GitLab is out of reach: the driver's own thread stands still on the full pipe, for longer than the lease.
#[test]
fn a_reader_that_stalls_for_longer_than_the_lease_loses_no_job() {
    let mut desk = Desk::with(&Job::new().script(["true"]), &[], "lease_seconds = 60").prepared();
    let read_on = desk.root().join("read-on");
    let reader = desk.root().join("reader-that-stalls");
    let driver = std::mem::replace(&mut desk.program, reader);
    let script = format!(
        "#!/usr/bin/env bash\n'{}' \"$@\" | {{ dd bs=1 count=1000 status=none; until [ -e '{}' ]; do sleep 0.1; done; cat; }}\n\
         exit ${{PIPESTATUS[0]}}\n",
        driver.display(),
        read_on.display()
    );
    write_program(&desk.program, &script);
    // The script outlives the lease, without which the agent would end it.
    let mut run = desk.start_run("build_script", "seq 200000; sleep 90; echo the last");
    run.until("\n200\n");
    let lease = desk.emulator.session_objects().into_iter().find(|key| key.ends_with("/lease.json")).unwrap();
    // Between two renewals is a third of the lease.
    let mut beats = std::collections::BTreeSet::new();
    let stalled = poll(Duration::from_mins(3), || {
        beats.insert(std::fs::read(desk.emulator.object_file(&lease)).ok()?);
        (beats.len() == 5).then_some(())
    });
    std::fs::write(read_on, "").unwrap();
    let ended = run.end();
    assert!(stalled.is_some(), "the lease was renewed {} times\n{ended}", beats.len());
    ended.passed();
    let lines: Vec<String> = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(ended.out() == lines.concat() + "the last\n", "{ended}");
    desk.program = driver;
    desk.close();
}
