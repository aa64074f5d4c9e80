//! Session records that are lost, damaged or of another program version, and state directories that cannot be written: the
//! training job is still ended and its objects deleted, and leftovers are reported.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::driver::write_program;
use crate::support::job::{Artifacts, Job};
use crate::support::waiting::{find_program, tell};

fn job() -> Job {
    Job::new().script(["true"]).artifacts(Artifacts::paths(["model.txt"]).when("always"))
}

fn record(desk: &Desk) -> PathBuf {
    desk.root().join(format!("state/sessions/{}.json", desk.session.as_deref().unwrap()))
}

const NEWER: &str = r#"{"version": 99, "session": {"id": "other"}, "jobs": []}"#;

/// What may have happened to a record: `None` removes it.
const CONTENTS: [Option<&str>; 4] = [None, Some(""), Some(NEWER), Some("{\"version\": 1, \"ses")];

fn tamper(desk: &Desk, content: Option<&str>) {
    match content {
        Some(text) => std::fs::write(record(desk), text).unwrap(),
        None => std::fs::remove_file(record(desk)).unwrap(),
    }
}

/// A job with a living training job, and a script in the bucket whose driver was killed.
fn abandoned() -> Desk {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(Signal::KILL);
    run.end();
    assert!(!desk.emulator.session_objects().is_empty());
    desk
}

#[test]
fn cleanup_without_a_usable_record() {
    for content in CONTENTS {
        let desk = abandoned();
        tamper(&desk, content);
        let ended = desk.cleanup();
        // The orders of this job are not taken for somebody else's, so the agent is told to leave.
        ended.passed().hides("failed to order the agent to leave");
        if content.is_some() {
            ended.says("the session record").says("looking for the training job of");
        }
        assert!(desk.emulator.live_jobs().is_empty() && desk.emulator.session_objects().is_empty(), "{content:?}");
        desk.close();
    }
}

/// The second training job of the session is found by its name too.
#[test]
fn cleanup_without_a_record_finds_every_training_job() {
    let mut desk = Desk::new(&job());
    desk.set("SAGEMAKER_INSTANCE_TYPE", super::sagemaker_life::TYPES);
    desk.emulator.set_faults(&json!({"jobs": [{"instance_type": "ml.p4d.24xlarge", "trouble": "capacity"}]}));
    let desk = desk.prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(Signal::KILL);
    run.end();
    tamper(&desk, None);
    desk.cleanup().passed();
    assert_eq!((desk.emulator.jobs().len(), desk.emulator.live_jobs().len()), (2, 0));
    desk.close();
}

/// The runner keeps no `job_env` when `config` failed.
#[test]
fn cleanup_without_a_record_and_a_session_of_the_runner() {
    let mut desk = Desk::new(&job());
    desk.prepare().passed();
    let records = desk.root().join("state/sessions");
    std::fs::remove_dir_all(&records).unwrap();
    desk.cleanup().passed();
    assert!(desk.emulator.live_jobs().is_empty());
    desk.session = None;
    desk.close();
}

#[test]
fn a_sweep_with_one_bad_record_ends_the_others() {
    for content in CONTENTS {
        let mut desk = abandoned();
        tamper(&desk, content);
        desk.next_job(&job(), 4712);
        assert_eq!(desk.emulator.live_jobs().len(), 2);
        // Its stage is killed too: what has ended and waits for the next stage is live.
        let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
        run.until("reached");
        run.signal(Signal::KILL);
        run.end();
        let swept = desk.call(&["sweep", "--older-than", "0s"]);
        swept.with_code(0);
        assert_eq!(swept.stderr.matches("Ended gitlab-").count(), 2, "{swept}");
        assert!(desk.emulator.live_jobs().is_empty(), "{content:?}");
        desk.is_left_clean();
    }
}

/// What cannot be read is told, once, with what to do; the stage fails, and `cleanup` ends the rest.
#[test]
fn a_stage_with_a_bad_record() {
    for content in CONTENTS {
        let desk = Desk::new(&job()).prepared();
        tamper(&desk, content);
        let ended = desk.run("build_script", "echo never");
        ended.with_code(SYSTEM_FAILURE).one_error().hides("panicked").says("record").says("hint: ");
        assert_eq!(ended.out(), "");
        desk.close();
    }
}

/// A state directory in which nothing can be made: `{mount}` runs before `cleanup` and before `sweep`, in a mount namespace of
/// its own. Both find the record again, and end with these codes.
fn cleaned_up_on(mount: &str, codes: [i32; 2]) -> Option<()> {
    let desk = abandoned();
    let unshare = find_program("unshare")?;
    let state = desk.root().join("state");
    let backup = desk.root().join("state-as-it-was");
    let driver = desk.program.clone();
    let mut desk = desk;
    desk.program = desk.root().join("in-a-namespace");
    let script = format!(
        "#!/usr/bin/env bash\nset -e\nexport STATE='{state}' BACKUP='{backup}'\n\
         exec '{unshare}' -rm bash -c 'cp -a \"$STATE/.\" \"$BACKUP\"; {mount}; exec \"$0\" \"$@\"' '{driver}' \"$@\"\n",
        state = state.display(),
        backup = backup.display(),
        unshare = unshare.display(),
        driver = driver.display(),
    );
    std::fs::create_dir(&backup).unwrap();
    write_program(&desk.program, &script);
    let ended = desk.cleanup();
    if ended.stderr.contains("unshare:") || ended.stderr.contains("mount:") {
        desk.program = driver;
        desk.close();
        return None;
    }
    assert!(desk.emulator.live_jobs().is_empty(), "{ended}");
    assert!(desk.emulator.session_objects().is_empty(), "{ended}");
    ended.with_code(codes[0]);
    if codes[0] != 0 {
        ended.one_error().says("failed to release the job's directory");
    }
    desk.call(&["sweep", "--older-than", "0s"]).with_code(codes[1]).says("gitlab-231-4711-");
    // Outside of the namespace the files are as they were; a pass there finds nothing else to do.
    desk.program = driver;
    desk.cleanup().passed();
    std::fs::remove_dir_all(&backup).unwrap();
    desk.close();
    Some(())
}

fn on(name: &str, mount: &str, codes: [i32; 2]) {
    if cleaned_up_on(mount, codes).is_none() {
        tell(&format!("SKIPPED: {name}: no mount namespaces here"));
    }
}

#[test]
fn cleanup_on_a_full_disk() {
    on(
        "cleanup on a full disk",
        "mount -t tmpfs -o size=256k tmpfs \"$STATE\"; cp -a \"$BACKUP/sessions\" \"$STATE\"; \
         cat /dev/zero > \"$STATE/filler\" 2> /dev/null || true",
        [0, 0],
    );
}

#[test]
fn cleanup_on_a_disk_without_inodes() {
    on(
        "cleanup on a disk without inodes",
        "mount -t tmpfs -o size=4m,nr_inodes=64 tmpfs \"$STATE\"; cp -a \"$BACKUP/sessions\" \"$STATE\"; \
         i=0; while : > \"$STATE/filler-$i\"; do i=$((i + 1)); done 2> /dev/null",
        [0, 0],
    );
}

#[test]
fn cleanup_on_a_read_only_disk() {
    on(
        "cleanup on a read-only disk",
        "mount -t tmpfs tmpfs \"$STATE\"; cp -a \"$BACKUP/.\" \"$STATE\"; mount -o remount,bind,ro \"$STATE\"",
        [SYSTEM_FAILURE, 2],
    );
}

/// A program that runs the driver on a disk that stores nothing any more: each request to store a file's content gets `EIO`. `None` where
/// no process may trace another.
fn on_a_broken_disk(desk: &Desk) -> Option<PathBuf> {
    let strace = find_program("strace")?;
    let traced = Command::new(&strace).args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        return None;
    }
    let program = desk.root().join("on-a-broken-disk");
    let inject = "-e trace=fsync,fdatasync -e inject=fsync,fdatasync:error=EIO";
    let script = format!(
        "#!/usr/bin/env bash\nexec '{}' -f -qq -o /dev/null {inject} '{}' \"$@\"\n",
        strace.display(),
        desk.program.display()
    );
    write_program(&program, &script);
    Some(program)
}

/// `cleanup` ends the training job and deletes its objects all the same.
#[test]
fn cleanup_on_a_disk_that_answers_with_an_error() {
    let mut desk = abandoned();
    let Some(program) = on_a_broken_disk(&desk) else {
        tell("SKIPPED: cleanup on a disk that answers with an error: no strace here, or it may not trace");
        return desk.close();
    };
    let driver = std::mem::replace(&mut desk.program, program);
    let ended = desk.cleanup();
    assert!(desk.emulator.live_jobs().is_empty() && desk.emulator.session_objects().is_empty(), "{ended}");
    ended.passed();
    desk.program = driver;
    desk.close();
}

/// A training job whose record cannot be stored is never asked for.
#[test]
fn prepare_on_a_disk_that_answers_with_an_error() {
    let mut desk = Desk::new(&job());
    let Some(program) = on_a_broken_disk(&desk) else {
        tell("SKIPPED: prepare on a disk that answers with an error: no strace here, or it may not trace");
        return;
    };
    let driver = std::mem::replace(&mut desk.program, program);
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(SYSTEM_FAILURE).one_error().says("Input/output error").says("/state/");
    assert_eq!(desk.emulator.requests("CreateTrainingJob"), 0, "{ended}");
    desk.cleanup().passed();
    desk.program = driver;
    desk.close();
}

/// A file in place of the directory stops root as well.
#[test]
fn cleanup_with_a_file_in_place_of_the_state_directory() {
    let desk = abandoned();
    let state = desk.root().join("state");
    std::fs::rename(&state, desk.root().join("moved")).unwrap();
    std::fs::write(&state, "").unwrap();
    let ended = desk.cleanup();
    assert!(desk.emulator.live_jobs().is_empty() && desk.emulator.session_objects().is_empty(), "{ended}");
    std::fs::remove_file(&state).unwrap();
    std::fs::rename(desk.root().join("moved"), &state).unwrap();
    desk.close();
}

/// The bucket cannot be emptied: the training job is stopped all the same, the code tells of the objects, and a later pass
/// finds the session.
#[test]
fn cleanup_that_may_not_delete_objects() {
    let desk = abandoned();
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "DeleteObjects", "error": "AccessDenied", "message": "Access Denied", "status": 403}]}));
    desk.cleanup().with_code(SYSTEM_FAILURE).one_error().says("failed to delete the objects").says("`s3:DeleteObject`");
    assert!(desk.emulator.live_jobs().is_empty());
    desk.emulator.set_faults(&json!({}));
    desk.call(&["sweep"]).with_code(0).says("Ended gitlab-");
    desk.close();
}
