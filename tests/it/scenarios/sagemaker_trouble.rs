//! Failures of the training job: killed, stopped, out of time, out of capacity, a missing image; and minimal images.

use serde_json::json;

use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::container::{busybox_root, dash_root};
use crate::support::driver::sagemaker_with;
use crate::support::emulator::quota_text;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::waiting::{find_program, tell};
use crate::support::world::{Settings, World};

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["model.txt"]).when("always"))
}

/// A killed container takes everything with it; the trace has what was written before.
#[test]
fn the_container_is_killed() {
    let mut desk = Desk::new(&job());
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(desk.project()).unwrap();
    let mut run = desk.start_run("build_script", "echo before; sleep 3600");
    run.until("before\n");
    desk.emulator.strike("kill");
    let ended = run.end();
    ended.with_code(BUILD_FAILURE).one_error().says("killed with SIGKILL (137)").says("exit code: 137");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("before\n", Some("137")));
    // The stages that follow end soon, without a training job to talk to.
    desk.run("after_script", "echo never").passed().hides("error: ").says("`after_script` is skipped");
    desk.run("upload_artifacts_on_failure", "echo on the host").passed();
    desk.close();
}

/// The runner takes no notice of a failed `after_script`: without its artifacts the job must not succeed all the same.
#[test]
fn the_container_is_killed_with_the_results() {
    let mut desk = Desk::new(&job());
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(desk.project()).unwrap();
    desk.run("build_script", "echo made > model.txt").passed();
    let mut run = desk.start_run("after_script", "echo after; sleep 3600");
    run.until("after\n");
    desk.emulator.strike("kill");
    let ended = run.end();
    ended.with_code(BUILD_FAILURE).one_error().says("killed with SIGKILL (137)");
    let ended = desk.run("upload_artifacts_on_success", "echo never");
    ended.with_code(BUILD_FAILURE).one_error().says("before it sent its results").says("SIGKILL");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("", None));
    desk.run("cleanup_file_variables", "true").passed();
    desk.close();
}

/// Whoever stops the job in the console leaves 120 s: the script is ended, its results are brought back.
#[test]
fn the_training_job_is_stopped_from_outside() {
    let desk = Desk::new(&job()).prepared();
    let mut running = desk.start_run("build_script", "echo half > model.txt; echo reached; sleep 3600");
    running.until("reached");
    desk.emulator.stop_job(desk.training_job()["TrainingJobName"].as_str().unwrap());
    let ended = running.end();
    ended.with_code(SYSTEM_FAILURE).one_error().says("stopped from outside").says("`StopTrainingJob` in CloudTrail");
    ended.hides("again:");
    assert_eq!(ended.exit_code, None);
    desk.run("after_script", "echo never").passed().hides("error: ").says("`after_script` is skipped");
    desk.run("upload_artifacts_on_failure", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("model.txt")).unwrap(), "half\n");
    desk.close();
}

/// The job's own limit is its own failure: a retry would end the same way.
#[test]
fn the_longest_run_time_passes() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_MAX_RUNTIME", "3");
    let desk = desk.prepared();
    assert_eq!(desk.training_job()["StoppingCondition"]["MaxRuntimeInSeconds"], 3);
    let ended = desk.run("build_script", "echo half > model.txt; echo reached; sleep 3600");
    ended.with_code(BUILD_FAILURE).one_error().says("`SAGEMAKER_MAX_RUNTIME`");
    assert_eq!(ended.out(), "reached\n");
    desk.run("upload_artifacts_on_failure", "true").passed();
    assert_eq!(std::fs::read_to_string(desk.project().join("model.txt")).unwrap(), "half\n");
    desk.close();
}

/// Plays both container stages of a job that never comes to life.
fn never_alive(desk: Desk, code: i32, words: &[&str]) {
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo never");
    ended.with_code(code).one_error();
    // Told once.
    let after = desk.run("after_script", "echo never");
    after.passed().hides("error: ").says("`after_script` is skipped");
    for word in words {
        ended.says(word);
        after.hides(word);
    }
    for ended in [ended, after] {
        assert_eq!(ended.out(), "");
        assert_eq!(ended.exit_code, None);
    }
    desk.run("upload_artifacts_on_failure", "echo on the host").passed();
    desk.close();
}

#[test]
fn no_capacity() {
    let desk = Desk::new(&job());
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "capacity"}]}));
    never_alive(desk, SYSTEM_FAILURE, &["CapacityError"]);
}

#[test]
fn an_internal_error_of_the_platform() {
    let desk = Desk::new(&job());
    desk.emulator.set_faults(&json!({"jobs": [{"trouble": "internal"}]}));
    never_alive(desk, SYSTEM_FAILURE, &["InternalServerError"]);
}

#[test]
fn an_image_that_does_not_exist() {
    never_alive(Desk::with(&job(), &["--strict-images"], ""), BUILD_FAILURE, &["`image:`"]);
}

/// The account's quota refuses the first type, so the second is asked for.
#[test]
fn the_next_instance_type_is_taken() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge, ml.g5.2xlarge");
    // It refuses the list too.
    desk.emulator.set_faults(&json!({"calls": [{"operation": "CreateTrainingJob", "count": 2,
        "error": "ResourceLimitExceeded", "message": quota_text("ml.g5.xlarge", 0)}]}));
    let desk = desk.prepared();
    assert_eq!(desk.training_job()["ResourceConfig"]["InstanceType"], "ml.g5.2xlarge");
    desk.run("build_script", "echo there").passed();
    desk.close();
}

/// The agent is not PID 1's child but PID 1 itself: the kernel shields it from the script.
#[test]
fn a_script_cannot_kill_the_agent_and_may_kill_itself() {
    let desk = Desk::new(&job()).prepared();
    let ended = desk.run("build_script", "kill -9 1; echo alive; kill -9 $$");
    ended.with_code(BUILD_FAILURE);
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("alive\n", Some("137")), "{ended}");
    desk.close();
}

/// The role of the training job is another than that of the host: what it lacks is told, and soon.
#[test]
fn a_role_without_its_permissions() {
    for (operation, permission) in [("PutObject", "`s3:PutObject`"), ("GetObject", "`s3:GetObject`")] {
        // An object that the driver could read before may be refused for one lease.
        let desk = Desk::with(&job(), &["--training-delay", "6s"], "lease_seconds = 60").prepared();
        let mut run = desk.start_run("build_script", "echo never");
        // The driver has sent all it has to send and waits.
        run.until("Provisioning ml.m5.large");
        desk.emulator.set_faults(&json!({"calls": [
            {"operation": operation, "error": "AccessDenied", "message": "Access Denied", "status": 403}]}));
        let ended = run.end();
        ended.with_code(SYSTEM_FAILURE).one_error().says(permission);
        desk.emulator.set_faults(&json!({}));
        desk.close();
    }
}

/// The agent collects what the script leaves behind: no zombie stays, and nothing is said about it.
#[test]
fn orphans_are_collected() {
    let desk = Desk::new(&job()).prepared();
    let script = "sh -c 'sleep 0.2 &'; n=0; sleep 1
        while grep -qs '^State:.Z' /proc/[0-9]*/status && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done
        grep -ls '^State:.Z' /proc/[0-9]*/status; echo done";
    let ended = desk.run("build_script", script);
    ended.passed().hides("panicked");
    assert_eq!(ended.out(), "done\n");
    desk.close();
}

/// dash as the shell, and the few commands that the runner's scripts call.
fn dash_with_commands() -> Option<tempfile::TempDir> {
    let root = dash_root()?;
    let busybox = std::path::Path::new("/usr/bin/busybox");
    if !busybox.exists() {
        tell("SKIPPED: an image with dash and a few commands: no /usr/bin/busybox");
        return None;
    }
    for name in ["mkdir", "rm", "cat", "chmod", "touch"] {
        std::fs::copy(busybox, root.path().join("bin").join(name)).unwrap();
    }
    Some(root)
}

/// A job through the runner in an image with one shell and nothing else.
fn in_image(root: Option<tempfile::TempDir>, with: With, row: &Scenario) {
    let Some(root) = root else { return };
    if find_program("bwrap").is_none() {
        tell("SKIPPED: images of our own: no bwrap on PATH");
        return;
    }
    let image = format!("registry.example.com/train:2.4={}", root.path().display());
    let driver = sagemaker_with(&["--image", &image, "--strict-images"], "");
    play(row, with, driver);
}

fn row(name: &'static str, play: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) -> Scenario {
    Scenario { name, needs: &["unzip", "tar"], settings: Settings::default, play, expect }
}

fn little_image() -> Scenario {
    fn job() -> Job {
        Job::new()
            .script(["echo made-by-$CI_JOB_NAME > model.txt", "echo \"it's ü 'quoted'\""])
            .after_script(["read -r line < model.txt; echo after-$line"])
            .artifacts(Artifacts::paths(["model.txt"]))
    }
    row(
        "little_image",
        |world| vec![world.run(&job())],
        |_, outcomes| {
            outcomes[0].succeeded().shows("\nit's ü 'quoted'").shows("\nafter-made-by-train");
            assert_eq!(outcomes[0].artifact("archive").files()["model.txt"], b"made-by-train\n");
        },
    )
}

fn wrong_shell() -> Scenario {
    row(
        "wrong_shell",
        |world| vec![world.run(&Job::new().script(["echo never"]))],
        |_, outcomes| {
            assert_eq!(outcomes[0].state.as_deref(), Some("failed"), "{}", outcomes[0]);
            outcomes[0].shows("Install bash in the image, or busybox.").hides("\nnever");
        },
    )
}

#[test]
fn busybox_image_real() {
    in_image(busybox_root(), With::RealRunner, &little_image());
}
#[test]
fn busybox_image_double() {
    in_image(busybox_root(), With::RunnerDouble, &little_image());
}
#[test]
fn dash_image_real() {
    in_image(dash_with_commands(), With::RealRunner, &wrong_shell());
}
