//! `try`, as typed by hand in a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::emulator::{command, processes};
use crate::support::program;
use crate::support::snapshot::{assert_snapshot, redacted};
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
        let mut command = Command::new(program::executor());
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
    for words in ["SageMaker training job: ", "The job succeeded: exit code 0 after "] {
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
    assert!(text(&output.stderr).contains("The job failed: exit code 42 after "));
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

/// A try that runs, with its output in a file.
struct Running {
    child: std::process::Child,
    log: tempfile::NamedTempFile,
}

fn append(log: &tempfile::NamedTempFile) -> std::fs::File {
    std::fs::File::options().append(true).open(log.path()).unwrap()
}

impl Running {
    fn new(desktop: &Desktop, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = desktop.command(args);
        command.stdout(append(&log)).stderr(append(&log));
        Self { child: command.spawn().unwrap(), log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn until(&self, words: &str) {
        let reached = poll(Duration::from_mins(1), || self.said().contains(words).then_some(()));
        assert!(reached.is_some(), "{}", self.said());
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = poll(Duration::from_secs(90), || self.child.try_wait().unwrap());
        if status.is_none() {
            self.child.kill().unwrap();
        }
        (status.and_then(|status| status.code()), self.said())
    }
}

/// Ctrl-C ends the training job, the emulator and itself, and keeps the files that the job made.
#[test]
fn interrupted() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let running = Running::new(&desktop, &["--", "sh", "-c", "echo half > model.txt; echo reached; sleep 3600"]);
    running.until("reached");
    running.interrupt();
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("\nInterrupted: "), "{said}");
    assert!(said.contains("\nNew or changed here: model.txt\n"), "{said}");
    assert_eq!(desktop.file("model.txt"), "half\n");
    desktop.is_left_clean();
}

/// Before the container is there, nothing is fetched.
#[test]
fn interrupted_while_it_waits() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let running = Running::new(&desktop, &["--", "true"]);
    running.until("Provisioning");
    running.interrupt();
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("The job"), "{said}");
    desktop.is_left_clean();
}

/// A command that ignores SIGTERM has 30 s; a second Ctrl-C does not wait for it.
#[test]
fn interrupted_twice() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let running = Running::new(&desktop, &["--", "sh", "-c", "trap '' TERM; echo reached; while :; do sleep 1; done"]);
    running.until("reached");
    running.interrupt();
    running.until("Interrupted: ");
    running.interrupt();
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("Results: "), "{said}");
    desktop.is_left_clean();
}

#[test]
fn the_working_folder_is_no_secret_and_what_is_deleted_stays() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    for name in ["kept", "gone"] {
        std::fs::write(desktop.project.path().join(name), name).unwrap();
    }
    let output = desktop.run(&["--", "sh", "-c", "pwd; rm gone; touch -d 2001-01-01 old; echo $HOME"]);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    let temp = desktop.temp.path().display();
    assert!(out.starts_with(&format!("{temp}/sagemaker-executor-try-")), "{out}");
    assert!(out.ends_with(&format!("/project\n{temp}\n")), "{out}");
    assert!(said.contains("\nDeleted by the command in the job alone, and still here: gone\n"), "{said}");
    assert!(said.contains("\nNew or changed here: old\n"), "{said}");
    assert_eq!((desktop.file("gone"), desktop.file("old")), ("gone".into(), String::new()));
    desktop.is_left_clean();
}

/// What cannot work is told before anything runs.
#[test]
fn refused_before_the_job() {
    let desktop = Desktop::new();
    let refused = |command: &mut Command, code: i32| {
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.starts_with("error: ") && !said.contains("training job:"), "{said}");
        said.replace(&desktop.temp.path().display().to_string(), "TEMP")
    };
    let named = |name: &str, said: &str| assert_snapshot(&format!("try_refused_{name}"), said);
    named("image", &refused(&mut desktop.command(&["--image", "python:3.11", "--", "true"]), 1));
    named("root", &refused(desktop.command(&["--", "true"]).current_dir("/"), 1));
    named("home", &refused(desktop.command(&["--", "true"]).current_dir(desktop.temp.path()), 1));
    let said = refused(desktop.command(&["--", "true"]).env("TMPDIR", desktop.temp.path().join("none")), 2);
    named("temporary_folder", &regex::Regex::new("try-[A-Za-z0-9]{6}").unwrap().replace(&said, "try-RANDOM"));
    // Neither podman nor docker, nor bubblewrap nor unshare.
    let tools = tempfile::tempdir().unwrap();
    let no_tools = |args: &[&str]| refused(desktop.command(args).env("PATH", tools.path()), 2);
    named("engine", &no_tools(&["--image", "engine:python:3.11", "--", "true"]));
    named("containers", &no_tools(&["--", "true"]));
    named("command_line", &text(&desktop.run(&["--imag", "x", "--", "true"]).stderr));
    named("nothing", &text(&desktop.run(&[]).stderr));
    desktop.is_left_clean();
}

/// A directory that root itself cannot write is one on a read-only file system.
#[test]
fn a_read_only_directory_is_refused_before_the_job() {
    let desktop = Desktop::new();
    let script = format!(
        "mount -t tmpfs -o ro none '{project}' && cd '{project}' && exec '{binary}' try -- true",
        project = desktop.project.path().display(),
        binary = env!("CARGO_BIN_EXE_sagemaker-executor"),
    );
    let root = if rustix::process::geteuid().is_root() { "--mount" } else { "--map-root-user" };
    let output = Command::new("unshare").args([root, "--mount", "sh", "-c", &script]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be read and written") && !said.contains("training job:"), "{said}");
}

/// An engine that runs any image on this machine's root, by bubblewrap.
const ENGINE: &str = r#"#!/bin/sh
[ "$1" = run ] || exit 0
shift
set -- "$@"
while :; do
    case $1 in
        --volume) volume=${2%%:*} ;;
        --entrypoint) program=$2 ;;
        --env) export "$2" ;;
        --name | --network | --hostname | --add-host) ;;
        *) break ;;
    esac
    shift 2
done
echo "$1" >"${0%/*}/ran"
shift
exec bwrap --bind / / --dev /dev --proc /proc --tmpfs /opt --bind "$volume" /opt/ml --unshare-pid --die-with-parent "$program" "$@"
"#;

#[test]
fn an_image_runs_with_an_engine() {
    let _place = enter_gate();
    let desktop = Desktop::new();
    let tools = tempfile::tempdir().unwrap();
    let podman = tools.path().join("podman");
    std::fs::write(&podman, ENGINE).unwrap();
    std::fs::set_permissions(&podman, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = desktop
        .command(&["--image", "engine:python:3.11", "--", "sh", "-c", "echo from the engine; echo x > made"])
        .env("PATH", format!("{}:{}", tools.path().display(), search_path()))
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text(&output.stdout).ends_with("from the engine\n"), "{}\n{said}", text(&output.stdout));
    assert!(said.contains("image: python:3.11,"), "{said}");
    assert_eq!(std::fs::read_to_string(tools.path().join("ran")).unwrap(), "python:3.11\n");
    assert_eq!(desktop.file("made"), "x\n");
    desktop.is_left_clean();
}

const TRAINING: &str = "cat data.csv; echo trained; echo weights > model.txt; rm old.txt";

fn with_data() -> Desktop {
    let desktop = Desktop::new();
    for name in ["data.csv", "old.txt"] {
        std::fs::write(desktop.project.path().join(name), "rows\n").unwrap();
    }
    desktop
}

#[test]
fn all_that_is_said_in_a_pipe() {
    let _place = enter_gate();
    let desktop = with_data();
    let output = desktop.run(&["--", "sh", "-c", TRAINING]);
    assert_eq!(text(&output.stdout), "rows\ntrained\n");
    assert_snapshot("try_said_in_a_pipe", &redacted(&text(&output.stderr)));
    let output = desktop.run(&["--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert_snapshot("try_said_of_a_program_that_is_missing", &redacted(&text(&output.stderr)));
}

/// The lines that stay on a terminal: what a bar drew was erased.
fn lines_that_stay(screen: &str) -> String {
    let control = regex::Regex::new(r"\x1b\[[0-9;]*[A-JL-Za-z]").unwrap();
    let kept = screen.split_inclusive('\n').map(|line| {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = line.rsplit("\x1b[2K").next().unwrap_or_default();
        format!("{}\n", control.replace_all(line, ""))
    });
    kept.collect()
}

#[test]
fn all_that_is_said_on_a_terminal() {
    let _place = enter_gate();
    let desktop = with_data();
    let binary = env!("CARGO_BIN_EXE_sagemaker-executor");
    let command = desktop.command(&["unused"]);
    let mut script = Command::new("script");
    script
        .args(["-qec", &format!("'{binary}' try -- sh -c '{TRAINING}'"), "/dev/null"])
        .current_dir(desktop.project.path());
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let output = script.stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_snapshot("try_said_on_a_terminal", &redacted(&lines_that_stay(&said)));
    desktop.is_left_clean();
}
