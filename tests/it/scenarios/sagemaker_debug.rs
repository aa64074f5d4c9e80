//! Ways for people to look into a job: a shell in its container, the container of a failed script, the requests to AWS, and progress bars
//! that the log can hold.

use rustix::process::Signal;

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::support::driver::{Driver, sagemaker, sagemaker_with};
use crate::support::job::Job;
use crate::support::scenario::one;

/// The driver's rule lets people in, and a price is known.
fn open() -> Driver {
    opened(sagemaker())
}

fn opened(driver: Driver) -> Driver {
    let more =
        "max_volume_size_gb = 16384, spot = \"allow\", remote_debug = \"allow\", max_keep_on_failure_seconds = 3600";
    let operator_config = driver.operator_config.replace("max_volume_size_gb = 16384", more);
    assert_ne!(operator_config, driver.operator_config);
    Driver { operator_config: operator_config.replace("[aws]", "[prices]\n\"ml.m5.large\" = 0.6\n[aws]"), ..driver }
}

fn desk(variables: &[(&str, &str)]) -> Desk {
    desk_of(&open(), variables)
}

fn desk_of(driver: &Driver, variables: &[(&str, &str)]) -> Desk {
    let mut desk = Desk::of(driver, &std::env::temp_dir(), &Job::new().script(["true"]).after_script(["true"]));
    for (name, value) in variables {
        desk.set(name, value);
    }
    desk.prepared()
}

/// Fails, and a process in the background ends the wait from inside, after it has used the container.
const RELEASES_ITSELF: &str = "(until [ -d /tmp/sagemaker-keep ]; do sleep 0.1; done; pwd >/tmp/note; : >/tmp/sagemaker-keep/release) & echo working; exit 3";

rows! {
    /// The script's exit code counts, and `after_script` runs in the same container.
    failed_container_is_kept {
        driver: open(),
        play: |world| one(world, &Job::new()
            .set("SAGEMAKER_REMOTE_DEBUG", "true")
            .set("SAGEMAKER_KEEP_ON_FAILURE", "30m")
            .script([RELEASES_ITSELF])
            .after_script(["test -s /tmp/note && echo after-the-wait"])),
        expect: |world, outcomes| {
            let job = world.emulator.as_ref().unwrap().jobs().remove(0);
            assert_eq!(job["RemoteDebugConfig"]["EnableRemoteDebug"], true);
            let name = job["TrainingJobName"].as_str().unwrap();
            let shell = format!("Shell in algo-1: aws ssm start-session --region us-east-1 --target sagemaker-training-job:{name}_algo-1\n");
            let outcome = outcomes[0].failed("script_failure", Some(3));
            outcome.shows("\nworking\n\x1b[33mwarning:\x1b[0m the script failed with exit code 3 on algo-1; the container is kept until ")
                .shows("), at 0.010 a minute, if the job's `timeout` allows it")
                .shows("To end this earlier: `touch /tmp/sagemaker-keep/release` in the container, or cancel the job")
                .shows("\nafter-the-wait\n");
            assert_eq!(outcome.count(&shell), 2, "when the container runs, and when it is kept\n{outcome}");
        },
    }
}

/// A cancel ends the wait at once, and what the script has printed is in the log before it.
#[test]
fn kept_container_is_canceled() {
    let desk = desk(&[("SAGEMAKER_KEEP_ON_FAILURE", "30m")]);
    let mut run = desk.start_run("build_script", "printf 'no end of a line'; exit 4");
    run.until("the container is kept until ");
    run.until("no end of a line");
    run.signal(Signal::TERM);
    let ended = run.end();
    ended.says("Nobody can get in: set `SAGEMAKER_REMOTE_DEBUG`").one_error();
    assert_eq!(ended.out(), "no end of a line");
    desk.close();
}

/// The instance vanishes at once during the wait: the script had failed, and does not run again.
#[test]
fn kept_container_is_interrupted() {
    let driver = opened(sagemaker_with(&["--stop-grace", "0s"], ""));
    let desk = desk_of(&driver, &[("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_KEEP_ON_FAILURE", "30m")]);
    let mut run = desk.start_run("build_script", "echo working; exit 3");
    run.until("the container is kept until ");
    desk.emulator.interrupt();
    let ended = run.end();
    ended.with_code(BUILD_FAILURE).hides("runs again").says(" exit code 3 after ");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("working\n", Some("3")), "{ended}");
    desk.close();
}

/// A script that succeeds, and `after_script`, are not waited for.
#[test]
fn other_scripts_do_not_keep_the_container() {
    let desk = desk(&[("SAGEMAKER_KEEP_ON_FAILURE", "1h")]);
    desk.run("build_script", "echo fine").passed().hides("is kept until");
    desk.run("after_script", "exit 5").with_code(BUILD_FAILURE).hides("is kept until");
    desk.close();
}

/// Every request of the driver has a line, without the place of the session and without what it carries.
#[test]
fn requests_to_aws_are_shown() {
    let mut desk = desk(&[("SAGEMAKER_DEBUG", "true")]);
    desk.set("PASSWORD", "s3cret-of-the-job");
    let ended = desk.run("build_script", "echo s3cret-of-the-job");
    ended
        .passed()
        .says("DEBUG aws::calls: SageMaker DescribeTrainingJob gitlab-231-4711-")
        .says(": 200 after ")
        .says(", request ");
    ended.says("DEBUG aws::calls: S3 PutObject ci-bucket/sagemaker-executor/sessions/gitlab-231-4711-");
    let key = desk.emulator.session_objects().remove(0);
    let token = key.split('/').find(|part| part.len() == 32).unwrap();
    ended.hides(token).hides("s3cret-of-the-job").hides("uthorization").hides("AWS4-HMAC");
    desk.close();
}

/// Of a bar one update a second stays, and its last state.
#[test]
fn progress_bars_are_thinned() {
    const BAR: &str =
        "i=0; while [ $i -lt 500 ]; do i=$((i + 1)); printf '\\r%d %%' $i; done; printf '\\nlast line\\r\\n'";
    for (rate, is_thinned) in [("1", true), ("0", false)] {
        let desk = desk(&[("SAGEMAKER_PROGRESS_RATE", rate)]);
        let ended = desk.run("build_script", BAR);
        ended.passed();
        let out = ended.out();
        assert!(out.starts_with("\r1 %") && out.ends_with("\r500 %\nlast line\r\n"), "{ended}");
        assert_eq!(out.matches('\r').count() < 501, is_thinned, "{ended}");
        desk.close();
    }
}
