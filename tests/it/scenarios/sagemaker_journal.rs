//! The log in systemd's journal, with a journal of its own: its fields as `journalctl` reads them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use crate::conformance::skipped;
use crate::support::driver::write_program;
use crate::support::job::{Job, Variable};
use crate::support::waiting::{find_program, poll};

const JOURNALD: &str = "/lib/systemd/systemd-journald";
/// Value of a masked variable, which no journal may have.
const SECRET: &str = "hunter2-in-no-journal";
/// In a new mount namespace: directories that no other process sees, then the journal as this process.
const BEGIN: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && \
                     { [ ! -d /var/log/journal ] || mount -t tmpfs tmpfs /var/log/journal; } && exec \"$0\"";

/// A journal in a mount namespace of its own.
struct Journal {
    daemon: Child,
    /// Starts a program in that namespace: `nsenter` and its arguments.
    enter: Vec<String>,
}

impl Journal {
    /// `None`: this machine has no journal, or this user may not make the namespace.
    fn start() -> Option<Self> {
        let is_there = std::path::Path::new(JOURNALD).exists() && find_program("journalctl").is_some();
        if !is_there || !rustix::process::geteuid().is_root() {
            return None;
        }
        let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/run"]).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let daemon = Command::new("unshare")
            .args(["-m", "sh", "-c", BEGIN, JOURNALD])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enter = ["nsenter", "-m", "-t", &daemon.id().to_string()].map(str::to_owned).to_vec();
        let mut journal = Self { daemon, enter };
        // The directory is the one of the namespace once the journal has made its socket there.
        let ready = poll(Duration::from_secs(30), || {
            let socket = format!("/proc/{}/root/run/systemd/journal/io.systemd.journal", journal.daemon.id());
            assert!(journal.daemon.try_wait().unwrap().is_none(), "the journal has ended");
            std::path::Path::new(&socket).exists().then_some(())
        });
        assert!(ready.is_some(), "the journal does not start");
        Some(journal)
    }

    fn call(&self, args: &[&str]) -> std::process::Output {
        let output = Command::new(&self.enter[0]).args(&self.enter[1..]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// All entries of the program.
    fn entries(&self) -> Vec<Value> {
        self.call(&["journalctl", "--sync"]);
        let read = ["journalctl", "-t", "sagemaker-executor", "--no-pager", "--all", "-o", "json"];
        let read = self.call(&[&read[..], &["-D", "/run/log/journal"]].concat());
        let text = String::from_utf8(read.stdout).unwrap();
        assert!(!text.contains(SECRET), "a masked value is in the journal");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The stages of a job that is refused, whose error has several lines, control characters and a long value; and none of a masked variable.
#[test]
fn the_journal_has_the_fields_of_each_event() {
    let Some(journal) = Journal::start() else {
        return skipped("the log in a journal", "no systemd-journald, or this user may not make a mount namespace");
    };
    let job = Job::new().variable(Variable::new("SECRET", SECRET).masked()).script(["true"]);
    let mut desk = Desk::with(&job, &[], "[log]\nfile = \"journald\"\n");
    let wrapper = desk.root().join("in-the-namespace");
    let driver = std::mem::replace(&mut desk.program, wrapper);
    let enter = journal.enter.join(" ");
    write_program(&desk.program, &format!("#!/bin/sh\nexec {enter} '{}' \"$@\"\n", driver.display()));
    let long = "x".repeat(6000);
    desk.set("SECRET", SECRET);
    desk.set("SAGEMAKER_INSTANCE_TYPE", &format!("one\n\u{1b}[31mred\u{7}\n{long}"));
    desk.config().passed();
    desk.prepare().with_code(BUILD_FAILURE);
    let entries = journal.entries();
    let of = |stage: &str, event: &str| {
        let is_it = |entry: &&Value| entry["SAGEMAKER_STAGE"] == stage && entry["MESSAGE"] == event;
        entries.iter().find(is_it).unwrap_or_else(|| panic!("no {event} of {stage}: {entries:#?}"))
    };
    let begun = of("config", "the stage begins with the operator's file as it is now");
    assert_eq!((&begun["PRIORITY"], &begun["SAGEMAKER_JOB"]), (&"6".into(), &"4711".into()), "{begun}");
    let ended = of("prepare", "the stage has ended");
    assert_eq!((&ended["SAGEMAKER_PROJECT"], &ended["SAGEMAKER_OUTCOME"]), (&"ml/churn".into(), &"user".into()));
    assert_eq!(ended["SAGEMAKER_SESSION"].as_str(), desk.session.as_deref());
    assert!(ended["SAGEMAKER_SECONDS"].as_str().is_some_and(|text| text.parse::<f64>().is_ok()), "{ended}");
    // A value with control characters would be a list of numbers.
    let error = ended["SAGEMAKER_ERROR"].as_str().unwrap_or_else(|| panic!("{ended}"));
    assert!(error.contains("xxxx"), "{error}");
    // Control characters are written as some others, after it was shortened.
    assert!(error.chars().count() <= 4001 + 6 && !error.contains('\u{1b}'), "{error}");
    desk.cleanup().passed();
    desk.close();
}
