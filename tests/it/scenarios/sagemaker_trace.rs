//! The output byte for byte, whatever way it takes and whatever CloudWatch does to it.

use serde_json::{Value, json};

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::support::job::{Job, Variable};

const CLOUDWATCH_ALONE: &str = "[trace]\nlive_copy = false\ncloudwatch_interval_seconds = 1";

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
    let desk = Desk::with(&Job::new().script(["true"]), emulator, tail);
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
