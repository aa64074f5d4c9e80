//! `try`, as typed by hand in a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::emulator::{command, processes};
use crate::support::waiting::{enter_gate, poll, search_path};

/// A directory to stand in, and one for temporary files that must be empty afterwards.
struct Desktop {
    project: tempfile::TempDir,
    temp: tempfile::TempDir,
}

impl Desktop {
    fn new() -> Self {
        Self { project: tempfile::tempdir().unwrap(), temp: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
        command
            .arg("try")
            .args(args)
            .current_dir(self.project.path())
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.temp.path())
            .env("TMPDIR", self.temp.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.project.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// No folder and no process is left.
    fn is_left_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.temp.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let temp = self.temp.path().to_string_lossy().into_owned();
        let ours = |pid: &u32| {
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            String::from_utf8_lossy(&[read("environ"), read("cmdline")].concat()).contains(&temp)
        };
        let mut last = Vec::new();
        poll(Duration::from_secs(20), || {
            last = processes().filter(ours).map(command).collect();
            last.is_empty().then_some(())
        });
        assert!(last.is_empty(), "processes are left: {last:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_runs_and_its_files_come_back() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    std::fs::write(desktop.project.path().join("data.csv"), "rows\n").unwrap();
    let output = desktop.run(&[
        "--",
        "sh",
        "-c",
        "cat data.csv; echo \"it's $0\"; echo made > model.txt; mkdir out; echo o > out/o",
        "a b",
    ]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text(&output.stdout).contains("rows\nit's a b\n"), "{}\n{said}", text(&output.stdout));
    assert_eq!(
        (desktop.file("model.txt"), desktop.file("out/o"), desktop.file("data.csv")),
        ("made\n".into(), "o\n".into(), "rows\n".into())
    );
    for words in ["SageMaker training job: ", "The job succeeded", "Exit code 0, "] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert!(said.contains("\nProvisioning ml.m5.large\n") && !said.contains("section_"), "{said}");
    desktop.is_left_clean();
}

#[test]
fn the_exit_code_is_passed_on() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let output = desktop.run(&["--", "sh", "-c", "echo half > model.txt; exit 42"]);
    assert_eq!(output.status.code(), Some(42), "{}", text(&output.stderr));
    assert_eq!(desktop.file("model.txt"), "half\n");
    assert!(text(&output.stderr).contains("The job failed"));
    desktop.is_left_clean();
}

#[test]
fn file_names_of_every_kind() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let names: [&[u8]; 8] = [
        b"a b",
        b"-rf",
        b"--checkpoint-action=exec=touch pwned",
        b"new\nline",
        b"$(touch pwned)",
        b"it's `x`\"",
        b"*",
        b"\xff\xfe",
    ];
    for name in names {
        std::fs::write(desktop.project.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    std::fs::create_dir(desktop.project.path().join("empty dir")).unwrap();
    let output = desktop.run(&[
        "--",
        "sh",
        "-c",
        "ls -A | wc -l; for f in ./*; do [ -f \"$f\" ] && cp -- \"$f\" \"$f.copy\"; done; true",
    ]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for name in names {
        let copy = [name, b".copy"].concat();
        let path = desktop.project.path().join(OsStr::from_bytes(&copy));
        assert_eq!(std::fs::read(&path).ok().as_deref(), Some(name), "{}\n{said}", path.display());
    }
    assert!(!Path::new(&desktop.project.path().join("pwned")).exists());
    desktop.is_left_clean();
}

/// Ctrl-C ends the training job, the emulator and itself.
#[test]
fn interrupted() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let log = desktop.project.path().join("log");
    let mut child = desktop
        .command(&["--", "sh", "-c", "echo reached; sleep 3600"])
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reached =
        poll(Duration::from_mins(1), || std::fs::read_to_string(&log).unwrap().contains("reached").then_some(()));
    assert!(reached.is_some());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = poll(Duration::from_secs(90), || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(status.and_then(|status| status.code()), Some(130));
    desktop.is_left_clean();
}
