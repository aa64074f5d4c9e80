//! Training jobs that fail: the kind of the failure, and its text in the trace.

use serde_json::json;

use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::container::{dash_root, root_of, with_libraries};
use crate::support::job::{Job, Variable};
use crate::support::scenario::{one, scenarios};
use crate::support::waiting::tell;

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"])
}

/// Cause and hint are told once; the stages that follow are short.
#[test]
fn a_failure_reason_has_a_class_and_a_hint() {
    for (reason, code, hint) in [
        (
            "AlgorithmError: CannotStartContainerError. Please make sure the container can be run",
            BUILD_FAILURE,
            "`image:`",
        ),
        (
            "ClientError: Please use an instance type with more memory, or reduce the size",
            BUILD_FAILURE,
            "`SAGEMAKER_INSTANCE_TYPE`",
        ),
        (
            "ClientError: SageMaker was unable to assume the role 'arn:aws:iam::0:role/x'",
            SYSTEM_FAILURE,
            "`sts:AssumeRole`",
        ),
        ("NewError: \u{1b}[2K\rsection_start:1:x\r\u{1b}[0K", SYSTEM_FAILURE, "NewError: \\x1b[2K; section-start:1:x"),
    ] {
        let desk = Desk::new(&job());
        desk.emulator.set_faults(&json!({"jobs": [{"trouble": {"fail": {"reason": reason}}}]}));
        let desk = desk.prepared();
        let ended = desk.run("build_script", "echo never");
        ended.with_code(code).one_error().says(hint);
        assert!(!ended.stderr.contains("\u{1b}[2K"), "{ended}");
        let cause = &reason[..8];
        let after = desk.run("after_script", "echo never");
        after.passed().hides("error: ").hides(cause).says("`after_script` is skipped").says("see the error above");
        assert_eq!(after.out(), "");
        desk.run("upload_artifacts_on_failure", "true").passed();
        desk.close();
    }
}

/// A user who can neither run the agent nor write the failure file: the cause comes from the log alone.
#[test]
fn an_image_that_cannot_run_the_agent() {
    let Some(root) = dash_root() else { return };
    if !rustix::process::geteuid().is_root() {
        tell("SKIPPED: an image with a user: not root");
        return;
    }
    let image = "registry.example.com/train:2.4";
    let (root, user) = (format!("{image}={}", root.path().display()), format!("{image}=1000"));
    let desk = Desk::with(&job(), &["--image", &root, "--image-user", &user, "--log-delay", "1s"], "").prepared();
    let ended = desk.run("build_script", "echo never");
    ended.with_code(BUILD_FAILURE).one_error().says("exit code: 126").says("`image:`");
    ended.says("[container] failed to start the agent: ");
    desk.close();
}

/// bash alone, as in an image that was stripped down: nothing of the executor can start.
#[test]
fn an_image_without_a_shell() {
    let Some(files) = with_libraries(&["/bin/bash"]) else { return };
    let files: Vec<_> = files.iter().map(|file| (file.as_str(), file.trim_start_matches('/'))).collect();
    let Some(root) = root_of(&files) else { return };
    let image = format!("registry.example.com/train:2.4={}", root.path().display());
    let desk = Desk::with(&job(), &["--image", &image, "--log-delay", "1s"], "").prepared();
    let ended = desk.run("build_script", "echo never");
    ended.with_code(BUILD_FAILURE).one_error().says("`image:`").says("`/bin/sh`");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("", None), "{ended}");
    desk.close();
}

/// What was written stays, and the code is that of a shell.
#[test]
fn a_killed_container_is_the_scripts_failure() {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("build_script", "echo before; sleep 3600");
    run.until("before\n");
    desk.emulator.strike("kill");
    let ended = run.end();
    ended.with_code(BUILD_FAILURE).one_error();
    ended.says("killed with SIGKILL (137), most often out of memory").says("`SAGEMAKER_INSTANCE_TYPE`");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("before\n", Some("137")));
    ended.hides("again:");
    desk.run("after_script", "echo never").passed().hides("error: ").hides("SIGKILL").says("`after_script` is skipped");
    desk.close();
}

/// Other writers' lines stand between the output and the error: its last lines are repeated, masked and without what folds or colors the log.
#[test]
fn the_last_lines_of_a_killed_script_stay_in_sight() {
    let job = job().variable(Variable::new("PASSWORD", "hunter22-and-more").masked());
    let desk = Desk::new(&job).prepared();
    let script = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo \"epoch $i\"; done
        printf '\\033[32mgreen\\033[0m %s\\n' hunter22-and-more
        printf 'section_start:1:mine\\r\\033[0Kfolded\\n10 %%\\r99 %%\\n'
        i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo \"other $i\"; done > /proc/1/fd/1; kill -9 $$";
    let ended = desk.run("build_script", script);
    desk.run("after_script", "true").passed();
    ended.with_code(BUILD_FAILURE).one_error().says("[container] other 40\n").hides("hunter22");
    let (before, tail) = ended.stderr.split_once("  the last lines of the output, again:\n").expect("they are shown");
    assert!(before.contains("killed with SIGKILL (137)"), "{ended}");
    let tail: Vec<_> = tail.lines().map(str::trim).collect();
    assert!(tail.contains(&"epoch 30") && tail.contains(&"green [MASKED]") && tail.contains(&"99 %"), "{tail:?}");
    assert!(!tail.iter().any(|line| line.contains('\u{1b}') || line.contains("section_start")), "{tail:?}");
    assert_eq!(tail.len(), 20, "{ended}");
    desk.close();
}

/// 30 MB of somebody else's do not cost the script its last lines; what was left out is told once.
#[test]
fn a_flood_of_others_is_bounded() {
    let desk = Desk::new(&job()).prepared();
    let script = "echo first; yes 'not the script, and section_start:1:x' | head -c 30000000 > /proc/1/fd/1; echo last";
    let ended = desk.run("build_script", script);
    ended.passed().says("are left out here").says("[container] not the script, and section-start:1:x\n");
    assert_eq!(ended.out(), "first\nlast\n");
    assert_eq!(ended.stderr.matches("are left out here; they are in CloudWatch").count(), 1);
    assert!(ended.stderr.len() < 300 << 10, "{}", ended.stderr.len());
    desk.close();
}

scenarios! {
    /// The number alone explains little.
    killed_for_memory {
        play: |world| one(world, &Job::new().script(["bash -c 'kill -9 $$'"])),
        expect: |world, outcomes| {
            outcomes[0].failed("script_failure", Some(137));
            if world.emulator.is_some() {
                outcomes[0].shows("error:\u{1b}[0m the script, or a program in it, was killed with SIGKILL (137), most often out of memory");
                outcomes[0].shows("`SAGEMAKER_INSTANCE_TYPE`");
                assert_eq!(outcomes[0].count("SIGKILL"), 1, "{}", outcomes[0]);
            }
        },
    }
}
