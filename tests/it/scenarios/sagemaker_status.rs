//! `status` beside a job that runs; the operator's file as each stage reads it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::job::{Job, Variable};

const SECRET: &str = "hunter2-in-no-table";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file where the directory should be hides all records: neither `sweep` nor `config check` takes it for an empty directory.
#[test]
fn a_state_directory_that_is_a_file_is_told() {
    let desk = Desk::new(&Job::new().script(["true"]));
    let state = desk.root().join("state");
    std::fs::write(&state, "").unwrap();
    desk.call(&["sweep"]).with_code(2).says("state is no directory").says("`runner.state_dir`");
    let words = "which `runner.state_dir` names or lies in, is no directory";
    desk.call(&["config", "check"]).passed().says(words);
    desk.call(&["status"]).with_code(2).says("`runner.state_dir`");
    std::fs::remove_file(&state).unwrap();
    desk.call(&["config", "check"]).passed().hides("directory");
    desk.close();
}

#[test]
fn a_job_is_shown_while_it_runs_and_not_any_more_when_it_is_over() {
    let job = Job::new().named("train it").variable(Variable::new("SECRET", SECRET).masked()).script(["true"]);
    let desk = Desk::new(&job);
    let before = desk.call(&["status"]);
    assert_eq!((before.passed().out().as_str(), before.stderr.as_str()), ("No job runs on this host\n", ""));
    let desk = desk.prepared();
    let session = desk.session.clone().unwrap();
    let run = {
        let mut run = desk.start_run("build_script", &format!("printf 'one\\ntwo {SECRET}\\nreached\\n'; sleep 3600"));
        run.until("reached");
        run
    };
    let shown = json(&desk.call(&["status", "--json"]).passed().out());
    let row = &shown["jobs"][0];
    assert_eq!(
        (&row["job"], &row["project"], &row["session"]),
        (&4711.into(), &"ml/churn".into(), &session.as_str().into())
    );
    assert_eq!((&row["stage"], &row["phase"]), (&"run build_script".into(), &"script: step_script".into()), "{shown}");
    assert_eq!((&row["instances"], &row["lease"]["is_over"]), (&"ml.m5.large".into(), &false.into()), "{shown}");
    assert!(row["elapsed_seconds"].is_u64() && row["cost"].as_f64().is_some_and(|cost| cost < 1.0), "{shown}");
    assert_eq!(shown["unreadable"], Value::Array(Vec::new()));
    let table = desk.call(&["status"]).passed().out();
    assert!(table.trim_start().starts_with("JOB") && table.lines().nth(1).unwrap().contains("4711"), "{table}");
    let last: Vec<_> = session.rsplit('-').collect();
    for words in [session.as_str(), "4711", "47", session.trim_end_matches(last[0])] {
        let one = desk.call(&["status", words, "--lines", "2"]).passed().out();
        assert!(one.contains("\ntwo [MASKED]\nreached\n") && !one.contains("\none\n"), "{words}: {one}");
        assert!(one.contains("Job           4711 train it\n") && !one.contains(SECRET), "{one}");
    }
    desk.call(&["status", "9"]).with_code(1).says("no job on this host is called `9`");
    // A record that cannot be read is named, and hides nothing else.
    std::fs::write(desk.root().join("state/jobs/gitlab-1-2-abcdef12.json"), "{").unwrap();
    let shown = json(&desk.call(&["status", "--json"]).passed().out());
    assert_eq!(shown["jobs"].as_array().unwrap().len(), 1);
    assert!(shown["unreadable"][0].as_str().unwrap().contains("gitlab-1-2-abcdef12.json"), "{shown}");
    std::fs::remove_file(desk.root().join("state/jobs/gitlab-1-2-abcdef12.json")).unwrap();
    run.signal(rustix::process::Signal::TERM);
    run.end();
    desk.cleanup().passed();
    assert_eq!(desk.call(&["status"]).passed().out(), "No job runs on this host\n");
    desk.close();
}

#[test]
fn another_user_is_told_whom_to_be() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut desk = Desk::new(&Job::new().script(["true"])).prepared();
    let ordinary = desk.root().join("as-another-user");
    let script =
        format!("#!/bin/sh\nexec setpriv --reuid=65534 --clear-groups -- '{}' \"$@\"\n", desk.program.display());
    crate::support::driver::write_program(&ordinary, &script);
    std::fs::set_permissions(desk.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let driver = std::mem::replace(&mut desk.program, ordinary);
    let refused = desk.call(&["status"]);
    refused.with_code(2).one_error().says("failed to read the jobs of this host").says("sudo -u gitlab-runner");
    desk.program = driver;
    desk.close();
}

/// Each stage reads the file anew.
#[test]
fn a_change_between_two_stages_takes_effect_or_ends_the_stage() {
    let log = "[log]\nfile = \"{root}/executor.log\"\n";
    let desk = Desk::with(&Job::new().script(["true"]), &[], log).prepared();
    let text = || std::fs::read_to_string(desk.root().join("executor.log")).unwrap();
    let before = text();
    desk.edit_operator_file("executor.log", "other.log");
    desk.run("get_sources", "true").passed();
    assert_eq!(text(), before);
    let other = std::fs::read_to_string(desk.root().join("other.log")).unwrap();
    assert!(other.contains("the stage begins with the operator's file as it is now"), "{other}");
    desk.edit_operator_file("cancel_grace_seconds = 2", "cancel_grace_seconds = 2000");
    desk.run("build_script", "true")
        .with_code(SYSTEM_FAILURE)
        .one_error()
        .says("`limits.cancel_grace_seconds` is 2000");
    let checked = desk.call(&["config", "check"]);
    checked.with_code(2).says(".toml:").says("`limits.cancel_grace_seconds` is 2000").says("one mistake");
    desk.edit_operator_file("cancel_grace_seconds = 2000", "cancel_grace_seconds = 2");
    desk.call(&["config", "check"]).passed().says("is usable");
    desk.run("build_script", "echo works").passed();
    desk.close();
}
