//! Hosts that are gone or lost their disk: `sweep` on any host finds their sessions in AWS, and leaves those of live hosts alone.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::sagemaker_desk::{Desk, TOKEN};
use crate::support::job::Job;
use crate::support::waiting::poll;

const NOTHING: &str = "Nothing is left over";
/// Longer than four leases of the default length.
const LONG: u64 = 2 * 3600;

fn job() -> Job {
    Job::new().script(["true"])
}

/// Calls from now on are those of another host: it has a state directory of its own.
fn change_host(desk: &Desk, from: &str, to: &str) {
    desk.edit_operator_file(&format!("/{from}\""), &format!("/{to}\""));
}

/// A job with a living training job, and a script in the bucket, whose driver was killed.
fn abandoned() -> Desk {
    let desk = Desk::new(&job()).prepared();
    abandon(&desk);
    desk
}

fn abandon(desk: &Desk) {
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(Signal::KILL);
    run.end();
}

fn session(desk: &Desk) -> String {
    desk.session.clone().unwrap()
}

/// Makes the objects of a session as old as if nobody had written any since.
fn silence(desk: &Desk, session: &str) {
    assert!(desk.emulator.age(&format!("sagemaker-executor/sessions/{session}/"), LONG) > 1);
}

fn is_live(desk: &Desk, session: &str) -> bool {
    desk.emulator.live_jobs().iter().any(|job| job.contains(session))
}

fn records(desk: &Desk, state: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(desk.root().join(state).join("sessions"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn another_host_ends_what_a_dead_host_left_and_nothing_of_a_live_one() {
    let mut desk = abandoned();
    let dead = session(&desk);
    // The live host runs a script, and has just renewed its lease.
    change_host(&desk, "state", "state-of-the-live");
    desk.next_job(&job(), 4712);
    let live = session(&desk);
    let mut run = desk.start_run("build_script", "echo reached; until [ -e swept ]; do sleep 0.1; done");
    run.until("reached");
    change_host(&desk, "state-of-the-live", "state-of-a-third");
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says(NOTHING);
    silence(&desk, &dead);
    desk.call(&["sweep", "--older-than", "1day"]).with_code(0).says(NOTHING);
    let listed = desk.call(&["sweep", "--dry-run", "--json"]);
    let report: Value = serde_json::from_slice(&listed.with_code(0).stdout).unwrap();
    let row = json!({"session": dead, "found_by": "objects", "outcome": "would_end"});
    let rows = report["sessions"].as_array().unwrap();
    assert!(rows.len() == 1 && row.as_object().unwrap().iter().all(|(key, value)| rows[0][key] == *value), "{report}");
    assert!(is_live(&desk, &dead), "a dry run");
    desk.call(&["sweep"]).with_code(0).says(&format!("Ended {dead}, found by its objects")).hides(&live);
    assert!(!is_live(&desk, &dead) && is_live(&desk, &live));
    assert!(desk.emulator.session_objects().iter().all(|key| key.contains(&live)));
    assert!(records(&desk, "state-of-a-third").is_empty());
    // The live job goes on to its own end.
    change_host(&desk, "state-of-a-third", "state-of-the-live");
    let container = desk.project().join("swept");
    std::fs::create_dir_all(desk.project()).unwrap();
    std::fs::write(&container, "").unwrap();
    run.signal(Signal::TERM);
    assert!(run.end().out().contains("reached"));
    desk.cleanup().passed();
    // The dead host comes back: it finds that its job has ended.
    change_host(&desk, "state-of-the-live", "state");
    desk.session = Some(dead.clone());
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says(&format!("Ended {dead}, untouched for"));
    desk.is_left_clean();
}

/// The host that lost its disk finds its own session, and two sweeps at one moment do no harm.
#[test]
fn a_host_without_its_disk_and_two_sweeps_at_once() {
    let desk = abandoned();
    std::fs::remove_dir_all(desk.root().join("state")).unwrap();
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says(NOTHING);
    silence(&desk, &session(&desk));
    let sweeps = [desk.start(&["sweep"]), desk.start(&["sweep"])];
    let ended = sweeps.map(super::sagemaker_desk::Running::end);
    for sweep in &ended {
        sweep.with_code(0);
    }
    assert!(ended.iter().any(|sweep| sweep.stderr.contains("found by its objects")), "{}", ended[0]);
    assert!(desk.emulator.live_jobs().is_empty());
    desk.is_left_clean();
}

/// Scripts of a job whose training job has long ended are secrets that nobody needs.
#[test]
fn objects_without_a_training_job_are_deleted() {
    let desk = abandoned();
    let dead = session(&desk);
    std::fs::remove_dir_all(desk.root().join("state")).unwrap();
    desk.emulator.stop_job(&dead);
    assert!(poll(std::time::Duration::from_mins(1), || (!is_live(&desk, &dead)).then_some(())).is_some());
    silence(&desk, &dead);
    let stops = desk.emulator.requests("StopTrainingJob");
    desk.call(&["sweep"]).with_code(0).says("found by its objects");
    assert_eq!(desk.emulator.requests("StopTrainingJob"), stops);
    desk.is_left_clean();
}

/// The policy of an earlier version does not let the host list jobs: the sessions with objects are ended, and the code tells of the rest.
#[test]
fn a_host_that_may_not_list_training_jobs() {
    let desk = abandoned();
    let dead = session(&desk);
    std::fs::remove_dir_all(desk.root().join("state")).unwrap();
    silence(&desk, &dead);
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "ListTrainingJobs", "error": "AccessDeniedException", "message": "no", "status": 400}]}));
    let swept = desk.call(&["sweep"]);
    swept.with_code(2).says(&format!("Ended {dead}")).says("`sagemaker:ListTrainingJobs`");
    swept.says("the search for sessions is incomplete");
    desk.emulator.set_faults(&json!({}));
    desk.call(&["sweep"]).with_code(0).says(NOTHING);
    desk.is_left_clean();
}

/// The runner repeats `prepare` when its cleanup was killed: the older training job is stopped before the next is made, and only one
/// runs the script.
#[test]
fn a_second_attempt_stops_the_training_job_of_the_first() {
    second_attempt(Host::Same);
}

/// As [`a_second_attempt_stops_the_training_job_of_the_first`], on a host that has no record of the first.
#[test]
fn a_second_attempt_on_another_host_stops_the_training_job_of_the_first() {
    second_attempt(Host::Another);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Same,
    Another,
}

fn second_attempt(host: Host) {
    let mut desk = Desk::with(&job(), &["--starting-delay", "2s"], "").prepared();
    let first = session(&desk);
    // The payload is in another directory each time.
    let again = desk.root().join("again");
    std::fs::create_dir(&again).unwrap();
    let payload = job().payload(4711, TOKEN, "http://gitlab.example.com");
    std::fs::write(again.join("response.json"), payload.to_string()).unwrap();
    desk.env.push(("JOB_RESPONSE_FILE".to_owned(), again.join("response.json").to_string_lossy().into_owned()));
    if host == Host::Another {
        desk.edit_operator_file("/state\"", "/state-of-another-host\"");
    }
    desk.config().passed();
    let second = session(&desk);
    assert_ne!(first, second);
    let stopped = desk.emulator.requests("StopTrainingJob");
    desk.prepare().passed();
    assert!(desk.emulator.requests("StopTrainingJob") > stopped);
    assert!(desk.emulator.session_objects().iter().all(|key| key.contains(&second)), "no order for the first is left");
    let ran = desk.run("build_script", "echo only-once");
    assert_eq!(ran.passed().out(), "only-once\n");
    let minute = std::time::Duration::from_mins(1);
    let logged = poll(minute, || Some(desk.emulator.log_text()).filter(|text| text.contains("only-once")));
    assert_eq!(logged.map(|text| text.matches("only-once").count()), Some(1));
    desk.cleanup().passed();
    if host == Host::Another {
        desk.edit_operator_file("/state-of-another-host\"", "/state\"");
    }
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0);
    desk.close();
}

/// A request that is on its way when its `prepare` is killed, and takes effect after the record is lost and `cleanup` has run.
#[test]
fn a_late_training_job_without_a_record_runs_no_script() {
    let mut desk = Desk::new(&job());
    desk.config().passed();
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "CreateTrainingJob", "count": 1, "delay_ms": 9000, "accepted": true}]}));
    let prepare = desk.start(&["prepare"]);
    let asked =
        poll(std::time::Duration::from_mins(1), || (desk.emulator.requests("CreateTrainingJob") > 0).then_some(()));
    assert!(asked.is_some());
    prepare.signal(Signal::KILL);
    prepare.end();
    std::fs::remove_dir_all(desk.root().join("state")).unwrap();
    desk.cleanup().passed().says("SageMaker may still create the training job");
    let came = poll(std::time::Duration::from_mins(1), || is_live(&desk, &session(&desk)).then_some(()));
    assert!(came.is_some(), "the request took no effect");
    desk.call(&["sweep"]).with_code(0).says("Ended gitlab-");
    desk.is_left_clean();
}
