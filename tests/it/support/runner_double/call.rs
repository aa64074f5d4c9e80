//! One call of the driver: own process group, two pipes, and the steps SIGTERM, grace, SIGKILL, giving up.

use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::scope::Scope;
use super::trace::Trace;
use crate::support::account::Account;
use crate::support::waiting::pause;

const POLL_INTERVAL: Duration = Duration::from_millis(5);
const BUILD_FAILURE: i32 = 1;
const SYSTEM_FAILURE: i32 = 2;

/// The failure of a call, a stage or the job.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// The job's own failure, or one with a known reason.
    Build { reason: &'static str, code: i64, text: String },
    /// Everything else.
    System { text: String },
}

/// A driver call, ready to start.
pub(super) struct Call<'a> {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) folder: PathBuf,
    pub(super) code_file: PathBuf,
    pub(super) scope: Scope,
    pub(super) account: Account,
    pub(super) graceful: Duration,
    pub(super) force: Duration,
    /// Time limit of a call; the scenario fails after it.
    pub(super) deadline: Duration,
    /// Polled while waiting, so that a cancel is seen without output.
    pub(super) trace: &'a Trace,
}

/// The receiver of the bytes of one pipe.
pub(super) type Sink = Box<dyn FnMut(&[u8]) + Send>;

impl Call<'_> {
    /// Runs until both pipes are closed and the process is gone, or the last step has passed.
    pub(super) fn run(self, stdout: Sink, stderr: Sink) -> Result<(), Failed> {
        let mut command = Command::new(&self.program);
        self.account.become_of(&mut command);
        let mut child = command
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| Failed::System { text: format!("failed to start command: {error}") })?;
        let (closed, pipes) = mpsc::channel();
        drain(child.stdout.take().expect("standard output is piped"), stdout, closed.clone());
        drain(child.stderr.take().expect("standard error is piped"), stderr, closed);
        let group = Pid::from_child(&child);
        let mut waiting = Waiting { child: &mut child, open: 2, pipes, status: None };

        let started = Instant::now();
        while !waiting.over() {
            self.trace.touch();
            if started.elapsed() > self.deadline {
                let _ = kill_process_group(group, Signal::KILL);
                panic!("the driver call {:?} did not end within {:?}", self.args, self.deadline);
            }
            if self.scope.ended().is_some() {
                // The group may be gone already; then the pipes decide.
                let _ = kill_process_group(group, Signal::TERM);
                if !waiting.within(self.graceful) {
                    let _ = kill_process_group(group, Signal::KILL);
                    if !waiting.within(self.force) {
                        return Err(Failed::System { text: "failed to kill process".to_owned() });
                    }
                }
                break;
            }
            pause(POLL_INTERVAL);
        }
        let status = waiting.status.expect("it is over");
        self.judge(status)
    }

    /// The table of exit codes.
    fn judge(&self, status: ExitStatus) -> Result<(), Failed> {
        match status.code() {
            Some(0) => Ok(()),
            Some(BUILD_FAILURE) => Err(self.build_failure()),
            Some(SYSTEM_FAILURE) => Err(Failed::System { text: "exit status 2".to_owned() }),
            Some(code) => Err(Failed::System {
                text: format!(
                    "unknown Custom executor executable exit code {code}; executable execution terminated with: exit status {code}"
                ),
            }),
            None => Err(Failed::System {
                text: format!(
                    "unknown Custom executor executable exit code -1; executable execution terminated with: signal {:?}",
                    status.signal()
                ),
            }),
        }
    }

    fn build_failure(&self) -> Failed {
        let build = |code: i64| Failed::Build { reason: "script_failure", code, text: format!("exit status {code}") };
        let Ok(content) = std::fs::read(&self.code_file) else { return build(1) };
        let content = String::from_utf8_lossy(&content).into_owned();
        let line = content.lines().next().unwrap_or_default();
        match line.parse() {
            Ok(code) => build(code),
            Err(_) => Failed::System {
                text: "unknown Custom executor executable exit code 2; executable execution terminated with: exit status 1".to_owned(),
            },
        }
    }
}

/// A started call.
struct Waiting<'a> {
    child: &'a mut Child,
    open: usize,
    pipes: mpsc::Receiver<()>,
    status: Option<ExitStatus>,
}

impl Waiting<'_> {
    fn over(&mut self) -> bool {
        self.open -= self.pipes.try_iter().count();
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child is ours");
        }
        self.open == 0 && self.status.is_some()
    }

    fn within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.over() {
            if Instant::now() >= deadline {
                return false;
            }
            pause(POLL_INTERVAL);
        }
        true
    }
}

/// Reads a pipe to its end in its own thread. The thread ends with the pipe; an abandoned call leaves it behind.
fn drain(mut pipe: impl Read + Send + 'static, mut sink: Sink, closed: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        // Less than the runner takes at once: this build masks more slowly.
        let mut buffer = vec![0; 4 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            sink(buffer.get(..length).unwrap_or_default());
        }
        drop(sink);
        let _ = closed.send(());
    });
}
