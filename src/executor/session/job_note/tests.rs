//! Notes about jobs: results, counts, and notes that cannot be used.

use super::*;

fn id(number: u32) -> SessionId {
    SessionId::parse(&format!("gitlab-1-{number}-abcdef12")).unwrap()
}

#[test]
fn the_first_failure_is_the_result() {
    let mut note = JobNote::default();
    for (stage, failure) in [
        ("prepare", None),
        ("run build_script", Some(FailureReason::Script)),
        ("run after_script", Some(FailureReason::System)),
        (CLEANUP, None),
    ] {
        note.begin_stage(stage, 7);
        note.end_stage(failure);
    }
    assert_eq!(note.result(), ("failed", "script"));
    assert_eq!(note.failure.unwrap().stage, "run build_script");
}

fn ended(stages: &[(&str, Option<FailureReason>)]) -> (&'static str, &'static str) {
    let mut note = JobNote::default();
    for (stage, failure) in stages.iter().chain(&[(CLEANUP, None)]) {
        note.begin_stage(stage, 7);
        note.end_stage(*failure);
    }
    note.result()
}

#[test]
fn failures_that_the_runner_ignores_fail_no_job() {
    let (script, system) = (Some(FailureReason::Script), Some(FailureReason::System));
    let green = ("succeeded", "none");
    assert_eq!(ended(&[("run build_script", None), (AFTER_SCRIPT, script)]), green);
    assert_eq!(ended(&[("run build_script", None), (CLEANUP_OF_VARIABLES, system)]), green);
    assert_eq!(ended(&[("run get_sources", script), ("run get_sources", None), ("run build_script", None)]), green);
    let red = ("failed", "script");
    assert_eq!(ended(&[("run get_sources", script), ("run get_sources", script), (AFTER_SCRIPT, None)]), red);
    assert_eq!(ended(&[("run build_script", script), (AFTER_SCRIPT, None)]), red);
    assert_eq!(ended(&[(AFTER_SCRIPT, Some(FailureReason::Canceled))]), ("canceled", "canceled"));
    let mut note = JobNote { after_script_counts: true, ..JobNote::default() };
    note.begin_stage(AFTER_SCRIPT, 1);
    note.end_stage(script);
    assert_eq!(note.result(), red, "`AFTER_SCRIPT_IGNORE_ERRORS` is false");
}

#[test]
fn a_note_that_cannot_be_read_ends_with_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let notes = JobNotes::at(dir.path());
    for text in ["", r#"{"version": 99}"#] {
        notes.begin(&id(1), JobNote::default());
        fs::write(notes.file(&id(1)), text).unwrap();
        assert!(notes.touched(&id(1)).is_some_and(|at| at > 0));
        notes.conclude(&id(1), SystemTime::now());
        assert_eq!(notes.sessions().unwrap(), []);
    }
    assert_eq!(notes.touched(&id(1)), None);
    assert!(!unreadable().is_empty());
}

#[test]
fn a_killed_stage_is_a_cancel_before_the_cleanup_and_else_an_abandoned_job() {
    let mut note = JobNote::default();
    note.begin_stage("run build_script", 1);
    assert_eq!(note.result(), ("abandoned", "killed"));
    note.begin_stage(CLEANUP, 2);
    assert_eq!(note.result(), ("canceled", "canceled"));
    let mut note = JobNote::default();
    note.begin_stage("run build_script", 1);
    note.end_stage(None);
    note.begin_stage(CLEANUP, 2);
    note.end_stage(Some(FailureReason::System));
    assert_eq!(note.result(), ("succeeded", "none"), "a failed cleanup fails no job");
}

#[test]
fn a_note_lasts_until_its_job_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let notes = JobNotes::at(dir.path());
    assert!(notes.sessions().unwrap().is_empty() && notes.load(&id(1)).unwrap().is_none());
    notes.change(&id(1), |_| panic!("there is no note"));
    notes.begin(&id(1), JobNote { job_id: 1, begun: 5, ..JobNote::default() });
    notes.change(&id(1), |note| note.begin_stage("prepare", 6));
    let note = notes.load(&id(1)).unwrap().unwrap();
    assert_eq!((note.stage.as_str(), note.version, note.begun), ("prepare", VERSION, 5));
    // A process was killed between the removal of its note and the last step.
    fs::write(dir.path().join("jobs/gitlab-1-9-abcdef12.counted"), "{}").unwrap();
    notes.conclude(&id(1), UNIX_EPOCH + Duration::from_mins(1));
    notes.conclude(&id(1), UNIX_EPOCH);
    assert_eq!(fs::read_dir(dir.path().join("jobs")).unwrap().count(), 0);
}

#[test]
fn a_note_that_cannot_be_used_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let notes = JobNotes::at(dir.path());
    notes.begin(&id(1), JobNote::default());
    for text in ["", "[]", r#"{"version": 99}"#] {
        fs::write(notes.file(&id(1)), text).unwrap();
        let error = notes.load(&id(1)).unwrap_err().to_string();
        assert!(error.contains("gitlab-1-1-abcdef12.json"), "{error}");
    }
    assert_eq!(notes.sessions().unwrap(), [id(1)]);
}
