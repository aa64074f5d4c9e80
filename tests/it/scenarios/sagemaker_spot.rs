//! Interrupted spot instances: SageMaker starts the container again, and the script runs again in the same stage and trace.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, Ended, Running, SYSTEM_FAILURE};
use super::sagemaker_power::allowing;
use crate::support::driver::{Driver, sagemaker_with};
use crate::support::emulator::BUCKET;
use crate::support::job::{Artifacts, Job};
use crate::support::random::Random;
use crate::support::scenario::struck;
use crate::support::waiting::poll;

/// Longer than all interruptions and runs together.
const PATIENCE: Duration = Duration::from_mins(8);
/// Chooses the epochs of the random interruptions, and the content of files.
const SEED: u64 = 18;
const NTH: [&str; 10] = ["2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th", "11th"];
const RUNS_AGAIN: &str = "; SageMaker started a new one, and the script runs again (";

/// A job on spot instances whose checkpoints are kept.
fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["log.txt"]))
}

fn driver(emulator: &[&str]) -> Driver {
    allowing(sagemaker_with(emulator, ""))
}

/// A desk for the job on spot instances, with further variables.
fn desk(job: &Job, emulator: &[&str], variables: &[(&str, &str)]) -> Desk {
    let mut desk = Desk::of(&driver(emulator), &std::env::temp_dir(), job);
    for (key, value) in [("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_CHECKPOINTS", "true")].iter().chain(variables) {
        desk.set(key, value);
    }
    desk.prepared()
}

/// A training script: one checkpoint an epoch, in one step, that holds its own log. It resumes from its checkpoint. The first
/// run stays in epoch `stays` until it is interrupted.
fn training(epochs: u32, stays: u32, pause: &str) -> String {
    format!(
        "project=$PWD; cd /opt/ml/checkpoints; [ -e log.txt ] || {{ : > log.txt; first=yes; }}
         epoch=$(wc -l < log.txt)
         while [ $epoch -lt {epochs} ]; do
           epoch=$((epoch + 1)); cp log.txt next; echo epoch $epoch >> next; mv next log.txt; echo epoch $epoch
           [ \"$first$epoch\" = yes{stays} ] && sleep 3600
           sleep {pause}
         done
         cp log.txt \"$project\"
         exit $EXIT"
    )
}

fn epochs(numbers: std::ops::RangeInclusive<u32>) -> String {
    numbers.map(|number| format!("epoch {number}\n")).collect::<Vec<_>>().concat()
}

/// The output of the script, without the shell's word about a signal.
fn out(ended: &Ended) -> String {
    ended.out().replace("Terminated\n", "")
}

/// How often the trace says that the script runs again, numbered from 2.
#[track_caller]
fn reruns(stderr: &str) -> usize {
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains(RUNS_AGAIN)).collect();
    for (line, nth) in lines.iter().zip(NTH) {
        assert!(line.ends_with(&format!("({nth} run)")), "{lines:?}");
        assert!(
            line.contains("warning: the spot instance was interrupted at ") && line.contains(" UTC; "),
            "{lines:?}"
        );
    }
    lines.len()
}

fn transitions(desk: &Desk, status: &str) -> usize {
    let job = desk.training_job();
    let transitions = job["SecondaryStatusTransitions"].as_array().unwrap().clone();
    transitions.iter().filter(|transition| transition["Status"] == status).count()
}

rows! {
    /// The runner sees one job: one script, one `after_script`, and the files of the last run.
    an_interrupted_script_runs_again {
        driver: driver(&[]),
        needs: ["unzip"],
        play: |world| {
            let script = training(5, 3, "0.1").replace("exit $EXIT", "true");
            let job = Job::new().artifacts(Artifacts::paths(["log.txt"])).set("SAGEMAKER_SPOT", "true")
                .set("SAGEMAKER_CHECKPOINTS", "true")
                .script([script.as_str()]).after_script(["echo after-$CI_JOB_STATUS"]);
            vec![struck(world, "epoch 3", "interrupt", &job)]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows(RUNS_AGAIN).shows("\nafter-success");
            for number in 1..=5 {
                assert_eq!(outcomes[0].count(&format!("\nepoch {number}\n")), 1, "{}", outcomes[0]);
            }
            assert_eq!(outcomes[0].count("(2nd run)"), 1, "{}", outcomes[0]);
            outcomes[0].shows("\nTrained ").shows(" in 2 starts, waited ").shows(" % saved, list price)");
            assert_eq!(outcomes[0].artifact("archive").files()["log.txt"], epochs(1..=5).as_bytes());
        },
    }
}

/// The exit code is that of the second run; output and code of each run are told apart.
#[test]
fn one_interruption_in_the_middle_of_a_script() {
    let desk = desk(&job(), &[], &[]);
    let mut run = desk.start_run("build_script", &training(6, 3, "0.2").replace("$EXIT", "7"));
    run.until("epoch 3\n");
    desk.emulator.interrupt();
    let ended = run.end();
    ended.with_code(BUILD_FAILURE);
    assert_eq!(ended.exit_code.as_deref(), Some("7"));
    assert_eq!(out(&ended), epochs(1..=6), "{ended}");
    assert_eq!(reruns(&ended.stderr), 1, "{ended}");
    assert_eq!(ended.stderr.matches("Project received by").count(), 1, "{ended}");
    ended.says("\nScript: interrupted after ").says("exit code 7 after ");
    // Shorter than the time between two looks at the training job.
    ended.says("Provisioning ml.m5.large, 2nd start").says("Downloading image and input, 2nd start");
    let after = desk.run("after_script", "ls; echo after");
    after.passed();
    assert_eq!((out(&after).as_str(), reruns(&after.stderr)), ("log.txt\nafter\n", 0), "{after}");
    desk.run("upload_artifacts_on_failure", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("log.txt")).unwrap(), epochs(1..=6));
    desk.close();
}

fn last_epoch(run: &Running) -> u64 {
    let out = run.out();
    out.lines().rev().find_map(|line| line.strip_prefix("epoch ")?.parse().ok()).unwrap_or(0)
}

/// `LONG_TESTS=1`: as often as the instances of a long training may be taken away.
#[expect(clippy::disallowed_methods, reason = "the suite's own switch, in no product code")]
fn is_long() -> bool {
    std::env::var_os("LONG_TESTS").is_some()
}

/// The instances vanish at once, when the trace shows one of the epochs that the seed chooses.
#[test]
fn interruptions_at_random_moments() {
    let interrupted = if is_long() { 10 } else { 3 };
    let mut random = Random(SEED);
    let desk = desk(&job(), &["--stop-grace", "0s"], &[]);
    let most = interrupted * 10;
    let mut run = desk.start_run("build_script", &training(most, 0, "0.5").replace("$EXIT", "0"));
    for nth in NTH.iter().take(interrupted as usize) {
        let wanted = last_epoch(&run) + 1 + random.below(4);
        assert!(
            poll(PATIENCE, || (last_epoch(&run) >= wanted).then_some(())).is_some(),
            "no epoch {wanted}: {}",
            run.out()
        );
        desk.emulator.interrupt();
        run.until(&format!("({nth} run)"));
    }
    let ended = run.end_within(PATIENCE);
    ended.passed();
    assert_eq!(transitions(&desk, "Interrupted"), interrupted as usize, "{ended}");
    assert_eq!(reruns(&ended.stderr), interrupted as usize, "{ended}");
    let printed: Vec<u32> = (out(&ended).lines())
        .map(|line| line.strip_prefix("epoch ").unwrap_or_else(|| panic!("{line}\n{ended}")).parse().unwrap())
        .collect();
    assert!(printed.is_sorted_by(|one, next| one < next), "out of order, or twice: {printed:?}");
    // An instance takes with it what has not left it: the last lines of a run.
    assert!(printed.last() == Some(&most), "{printed:?}\n{ended}");
    desk.run("after_script", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("log.txt")).unwrap(), epochs(1..=most));
    desk.close();
}

/// 4 MB that no compression makes smaller.
fn large() -> Vec<u8> {
    let mut random = Random(SEED);
    std::iter::repeat_with(|| random.below(u64::MAX).to_le_bytes()).take(500_000).flatten().collect()
}

/// Takes the instance away while its calls of the operation with the path wait, from the `from`th on: it ends between two of them.
fn interrupt_within(desk: &Desk, operation: &str, path: &str, from: u64, start: impl FnOnce() -> Running) -> Running {
    let before = transitions(desk, "Interrupted");
    let held = json!({"operation": operation, "path": path, "from": from, "delay_ms": PATIENCE.as_millis()});
    desk.emulator.set_faults(&json!({"calls": [held]}));
    let run = start();
    until_stored(desk, path);
    desk.emulator.interrupt();
    let is_gone = || (transitions(desk, "Interrupted") > before).then_some(());
    assert!(poll(PATIENCE, is_gone).is_some(), "{:?}", desk.training_job());
    desk.emulator.set_faults(&json!({}));
    run
}

fn until_stored(desk: &Desk, part: &str) {
    let stored = poll(PATIENCE, || desk.emulator.objects().iter().any(|key| key.contains(part)).then_some(()));
    assert!(stored.is_some(), "no object of {part} was stored");
}

/// Before the first stage, and while the container receives the project: the script has not begun, so nothing runs again.
#[test]
fn an_interruption_before_the_script_is_no_second_run() {
    let desk = desk(&job(), &[], &[]);
    desk.put("data.bin", &large());
    until_stored(&desk, "/reports/");
    desk.emulator.interrupt();
    // The second one must find the new container as soon as it begins to receive.
    let is_back = || (transitions(&desk, "Training") == 2).then_some(());
    assert!(poll(PATIENCE, is_back).is_some(), "{:?}", desk.training_job());
    let start = || desk.start_run("build_script", "wc -c < data.bin; cp data.bin log.txt");
    let ended = interrupt_within(&desk, "GetObject", "/workspace/000001/", 1, start).end();
    ended.passed();
    assert_eq!((out(&ended).as_str(), reruns(&ended.stderr)), ("4000000\n", 0), "{ended}");
    assert_eq!(transitions(&desk, "Interrupted"), 2, "{ended}");
    desk.run("after_script", "true").passed();
    assert!(std::fs::read(desk.project().join("log.txt")).unwrap() == large(), "{ended}");
    desk.close();
}

/// The script had ended, and its files are gone before they were sent: it makes them again.
#[test]
fn an_interruption_while_the_results_are_sent() {
    let job = Job::new().script(["true"]).artifacts(Artifacts::paths(["big.bin"]));
    let desk = desk(&job, &["--stop-grace", "0s"], &[]);
    let script = "[ -e /opt/ml/checkpoints/done ] && { head -c 1000 /dev/zero > big.bin; echo second; exit 0; }
         head -c 1000000 /dev/urandom > big.bin; touch /opt/ml/checkpoints/done; sleep 2; echo first";
    let start = || desk.start_run("build_script", script);
    // The first object is the pack; the second would name it.
    let ended = interrupt_within(&desk, "PutObject", "/results/", 2, start).end();
    ended.passed();
    assert_eq!(out(&ended), "first\nsecond\n", "{ended}");
    assert_eq!(reruns(&ended.stderr), 1, "{ended}");
    assert_eq!(std::fs::read(desk.project().join("big.bin")).unwrap(), [0; 1000]);
    desk.run("upload_artifacts_on_success", "true").passed();
    desk.close();
}

/// In `after_script` the files of the script are lost: the job fails as the system's failure, so that a retry resumes.
#[test]
fn an_interruption_in_after_script() {
    let desk = desk(&job(), &[], &[]);
    desk.run("build_script", "echo made > log.txt").passed();
    let mut run = desk.start_run("after_script", "echo after; [ -e log.txt ] && sleep 3600; true");
    run.until("after\n");
    desk.emulator.interrupt();
    let after = run.end();
    after.passed();
    assert_eq!((out(&after).as_str(), reruns(&after.stderr)), ("after\nafter\n", 1), "{after}");
    after.one_error().says("the files of the script that had ended before are lost");
    desk.run("upload_artifacts_on_success", "true").with_code(SYSTEM_FAILURE).says("the files of the script");
    desk.close();
}

/// The driver of the first run is killed; the interruption comes while none follows the script.
#[test]
fn a_killed_driver_and_an_interruption() {
    let desk = desk(&job(), &[], &[]);
    let script = training(6, 3, "0.2").replace("$EXIT", "0");
    let mut run = desk.start_run("build_script", &script);
    run.until("epoch 2\n");
    run.signal(Signal::KILL);
    let killed = run.end();
    let is_in_third = || desk.emulator.log_text().contains("epoch 3").then_some(());
    assert!(poll(PATIENCE, is_in_third).is_some(), "the script went on");
    desk.emulator.interrupt();
    let is_back = || (transitions(&desk, "Training") == 2).then_some(());
    assert!(poll(PATIENCE, is_back).is_some(), "{:?}", desk.training_job());
    let ended = desk.run("build_script", &script);
    ended.passed();
    assert_eq!(out(&killed) + &out(&ended), epochs(1..=6), "{killed}{ended}");
    assert_eq!(reruns(&ended.stderr), 1, "{ended}");
    desk.run("after_script", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("log.txt")).unwrap(), epochs(1..=6));
    desk.close();
}

/// Every node starts again, and runs the script again.
#[test]
fn two_nodes_run_the_script_again() {
    let desk = desk(&job(), &[], &[("SAGEMAKER_INSTANCE_COUNT", "2")]);
    let script = "cd /opt/ml/checkpoints
         [ -e $(hostname) ] || { touch $(hostname); echo first on $(hostname); sleep 3600; }; echo second";
    let mut run = desk.start_run("build_script", script);
    for node in ["first on algo-1", "first on algo-2"] {
        run.until(node);
    }
    desk.emulator.interrupt();
    let ended = run.end();
    ended.passed();
    let text = ended.out();
    let mut lines: Vec<_> = text.lines().filter(|line| !line.ends_with("Terminated")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[algo-2] first on algo-2", "[algo-2] second", "first on algo-1", "second"], "{ended}");
    ended.says("the spot instances were interrupted at ");
    assert_eq!(ended.stderr.matches("the script runs again (2nd run)").count(), 1, "{ended}");
    desk.close();
}

/// A script that must not run twice says so.
#[test]
fn a_script_that_must_not_run_twice() {
    let desk = desk(&job(), &[], &[("SAGEMAKER_RERUN", "false")]);
    let mut run = desk.start_run("build_script", "echo once; sleep 3600");
    run.until("once\n");
    desk.emulator.interrupt();
    let ended = run.end();
    ended.with_code(SYSTEM_FAILURE).one_error().says("SageMaker started the container again after a script had begun");
    assert_eq!((out(&ended).as_str(), reruns(&ended.stderr)), ("once\n", 0), "{ended}");
    desk.close();
}

/// The script has ended, and the model is gone with the instance: the job fails as the system's failure, so that a retry resumes.
#[test]
fn an_interruption_while_the_model_is_uploaded() {
    let mut driver = driver(&["--uploading-delay", "10s"]);
    let outputs = format!("model_outputs = [\"s3://{BUCKET}/models/**\"], inputs = ");
    driver.operator_config = driver.operator_config.replace("inputs = ", &outputs);
    let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    for (key, value) in [("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_MODEL_OUTPUT", &format!("s3://{BUCKET}/models/a"))] {
        desk.set(key, value);
    }
    let desk = desk.prepared();
    let run = desk.start_run("build_script", "echo weights > /opt/ml/model/w; echo made");
    let is_uploading = || (desk.training_job()["SecondaryStatus"] == "Uploading").then_some(());
    assert!(poll(PATIENCE, is_uploading).is_some(), "{:?}", desk.training_job());
    desk.emulator.interrupt();
    let ended = run.end();
    ended.with_code(SYSTEM_FAILURE).one_error().says("the model: the spot instance was interrupted meanwhile");
    assert_eq!(out(&ended), "made\n", "{ended}");
    desk.close();
}

/// SageMaker starts the container again after an internal error of its own, as the job asks.
#[test]
fn a_lost_instance_after_the_script_began() {
    let mut desk = Desk::of(&driver(&[]), &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.set("SAGEMAKER_RETRIES", "1");
    desk.set("SAGEMAKER_CHECKPOINTS", "true");
    let desk = desk.prepared();
    let script =
        "cd /opt/ml/checkpoints; [ -e begun ] && { echo second; exit 0; }; touch begun; echo first; sleep 3600";
    let mut run = desk.start_run("build_script", script);
    run.until("first\n");
    desk.emulator.strike("host-failure");
    let ended = run.end();
    ended.passed().says("SageMaker started the container again, and the script runs again (2nd run)");
    assert_eq!(out(&ended), "first\nsecond\n", "{ended}");
    assert_eq!(desk.training_job()["RetryStrategy"]["MaximumRetryAttempts"], 1);
    desk.close();
}
