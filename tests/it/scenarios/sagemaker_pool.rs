//! Warm pools: no job finds files of an earlier one on its instance, the trace says whether a pool was reused, and a job that gets one
//! does not wait for an instance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::sagemaker_desk::{Desk, Ended, TOKEN};
use super::sagemaker_power::allowing;
use crate::support::driver::{Driver, sagemaker_with, sagemaker_with_creator};
use crate::support::job::Job;
use crate::support::waiting::poll;

/// Another project than that of the payload of the tests.
const OTHER_PROJECT: u64 = 777;
/// Leaves a file in each place that a job can write to.
const LEAVES: &str = "mkdir -p /opt/ml/mine /var/tmp/deep/er /opt/ml/checkpoints
    for at in /tmp /var/tmp/deep/er \"$SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY\" /opt/ml/mine /opt/ml/checkpoints /opt/ml/model \
              /opt/ml/output/data \"$HOME\" \"$PWD\"; do
      echo secret >\"$at/left-behind\"; done
    chmod 500 /opt/ml/mine; ln -s /etc /tmp/link; echo all left";
/// Names the files that [`LEAVES`] has left, in the container of another job.
const TELLS: &str = "find / -name left-behind -not -path '/proc/*' 2>/dev/null | sort |
    sed -e \"s,^$HOME/,HOME/,\" -e 's/^/found /'; ls /etc/hosts";

fn job() -> Job {
    Job::new().script(["true"])
}

/// A desk whose jobs keep their instances.
fn desk(driver: Driver) -> Desk {
    let mut desk = Desk::of(&allowing(driver), &std::env::temp_dir(), &job());
    desk.set("SAGEMAKER_KEEP_ALIVE", "10m");
    desk
}

/// From now on only a job that gets a warm pool has instances.
fn take_all_capacity(desk: &Desk) {
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "capacity"}]}));
}

/// Waits until the instances of the newest job are in a pool; returns the job's name.
fn wait_for_pool(desk: &Desk) -> String {
    let pooled = |job: &Value| job["WarmPoolStatus"]["Status"] == "Available";
    let name = poll(Duration::from_mins(1), || {
        let jobs = desk.emulator.jobs();
        jobs.first().filter(|job| pooled(job)).map(|job| job["TrainingJobName"].as_str().unwrap().to_owned())
    });
    name.unwrap_or_else(|| panic!("no warm pool: {:?}", desk.emulator.jobs()))
}

fn next_job_of(desk: &mut Desk, id: u64, project: u64) {
    let mut payload = job().payload(id, TOKEN, "http://gitlab.example.com");
    payload["job_info"]["project_id"] = json!(project);
    let directory = desk.root().join(format!("builds/{project}/tok/0/ml/churn"));
    desk.env.push(("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR".to_owned(), format!("{}.tmp", directory.display())));
    std::fs::write(desk.root().join("response.json"), payload.to_string()).unwrap();
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(directory).unwrap();
}

/// Files of that name on the instances of the emulator.
fn left_behind(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() == "left-behind" {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(left_behind(&entry.path()));
        }
    }
    found
}

/// The lines of the job that say where it found something.
#[track_caller]
fn finds(ended: &Ended) -> Vec<String> {
    ended.passed();
    let out = ended.out();
    assert!(out.contains("/etc/hosts"), "a link was followed\n{ended}");
    out.lines().filter_map(|line| line.strip_prefix("found ").map(str::to_owned)).collect()
}

#[test]
fn a_job_finds_nothing_of_another_project() {
    let mut desk = desk(sagemaker_with(&[], "")).prepared();
    desk.run("build_script", LEAVES).passed();
    desk.cleanup().passed();
    let name = wait_for_pool(&desk);
    // What the agent leaves is the home of the image, and what SageMaker uploads or deletes itself.
    let left = left_behind(&desk.root().join("emulator"));
    let others = left.iter().filter(|path| !path.components().any(|part| part.as_os_str() == "upper"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{left:?}");
    take_all_capacity(&desk);
    next_job_of(&mut desk, 4712, OTHER_PROJECT);
    let ended = desk.run("build_script", TELLS);
    assert_eq!(finds(&ended), ["HOME/left-behind"], "{ended}");
    let jobs = desk.emulator.jobs();
    let pool = jobs.iter().find(|job| job["TrainingJobName"] == name).unwrap();
    assert_eq!(pool["WarmPoolStatus"]["Status"], "Reused", "{pool}");
    desk.close();
}

/// The agent of the job that left the files is killed before it can remove them.
fn finds_after_a_kill(keep_alive: &str, expected: &[&str]) {
    let mut desk = desk(sagemaker_with(&["--stop-grace", "0s"], "")).prepared();
    let mut run = desk.start_run("build_script", &format!("{LEAVES}; sleep 600"));
    run.until("all left");
    let name = desk.training_job()["TrainingJobName"].as_str().unwrap().to_owned();
    desk.emulator.stop_job(&name);
    run.end();
    desk.cleanup().passed();
    wait_for_pool(&desk);
    assert!(left_behind(&desk.root().join("emulator")).len() > 3, "the agent was not killed");
    take_all_capacity(&desk);
    desk.set("SAGEMAKER_KEEP_ALIVE", keep_alive);
    next_job_of(&mut desk, 4712, OTHER_PROJECT);
    let ended = desk.run("build_script", TELLS);
    assert_eq!(finds(&ended), expected, "{ended}");
    desk.close();
}

#[test]
fn a_job_finds_nothing_of_one_that_was_killed() {
    finds_after_a_kill("10m", &["HOME/left-behind"]);
}

/// It gets the instances too, but other directories of `/opt/ml` may be SageMaker's.
#[test]
fn a_job_without_a_keep_alive_finds_little_of_one_that_was_killed() {
    finds_after_a_kill("0", &["/opt/ml/mine/left-behind", "HOME/left-behind"]);
}

/// A job that resumes from its checkpoints finds them, on new instances and on those of a pool.
#[test]
fn checkpoints_of_the_job_itself_stay() {
    let mut desk = desk(sagemaker_with(&[], ""));
    desk.set("SAGEMAKER_CHECKPOINTS", "true");
    let mut desk = desk.prepared();
    let epoch = "echo \"epochs: $(cat /opt/ml/checkpoints/epochs 2>/dev/null)\"; printf x >>/opt/ml/checkpoints/epochs";
    let stored = |desk: &Desk| {
        let keys = desk.emulator.objects().into_iter().filter(|key| key.contains("/checkpoints/"));
        keys.map(|key| desk.emulator.get_object(&key)).collect::<Vec<_>>()
    };
    assert!(desk.run("build_script", epoch).out().contains("epochs: \n"));
    desk.cleanup().passed();
    wait_for_pool(&desk);
    assert_eq!(stored(&desk), [Some("x".to_owned())]);
    take_all_capacity(&desk);
    next_job_of(&mut desk, 4712, 231);
    let ended = desk.run("build_script", epoch);
    assert!(ended.out().contains("epochs: x\n"), "{ended}");
    desk.close();
}

fn tells_what_became_of_the_pool(driver: Driver) {
    let mut desk = desk(driver);
    desk.config().passed();
    desk.prepare().passed().says("Keep-alive: the instances stay for 10 min after the job");
    std::fs::create_dir_all(desk.project()).unwrap();
    let first = desk.run("build_script", "true");
    first.passed().says("The project had no warm pool; the instances stay for 10 min after this job");
    first
        .says("The instances stay until about ")
        .says(" UTC, billed, for the next job with the same instance type and count,");
    desk.cleanup().passed();
    let name = wait_for_pool(&desk);

    // A job of another size, which gets instances of its own.
    desk.set("SAGEMAKER_VOLUME_SIZE_GB", "77");
    next_job_of(&mut desk, 4712, 231);
    desk.run("build_script", "true")
        .passed()
        .says(&format!("No warm pool matched: {name} has volume size 50 GB, this job 77 GB"));
    desk.cleanup().passed();
    let larger = wait_for_pool(&desk);

    take_all_capacity(&desk);
    let lists = desk.emulator.requests("ListTrainingJobs");
    next_job_of(&mut desk, 4713, 231);
    // One, and its repetitions when this row's own looks have used up the rate of two a second.
    let lists = desk.emulator.requests("ListTrainingJobs") - lists;
    assert!((1..=3).contains(&lists), "{lists}");
    let reused = desk.run("build_script", "echo first line");
    reused.passed().says(&format!("Warm pool of {larger}: reused, ")).says(" s after the request");
    assert_eq!(reused.out(), "first line\n");
    desk.close();
}

/// With a hit there is no wait for an instance: nobody else would get one.
#[test]
fn the_trace_tells_what_became_of_the_pool() {
    tells_what_became_of_the_pool(sagemaker_with(&[], ""));
}

#[test]
fn the_trace_tells_it_under_a_creator() {
    tells_what_became_of_the_pool(sagemaker_with_creator());
}

/// The policy lacks the permission: the job runs, and the trace names what to allow.
#[test]
fn without_the_permission_the_job_runs() {
    let mut desk = desk(sagemaker_with(&[], ""));
    let denied =
        json!({"operation": "ListTrainingJobs", "count": 1, "error": "AccessDeniedException", "message": "no"});
    desk.emulator.set_faults(&json!({"calls": [denied]}));
    desk.config().passed();
    desk.prepare().passed().says("the warm pools of the project are not known").says("sagemaker:ListTrainingJobs");
    std::fs::create_dir_all(desk.project()).unwrap();
    desk.run("build_script", "true").passed().hides("warm pool");
    desk.close();
}
