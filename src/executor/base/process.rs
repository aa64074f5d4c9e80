//! Child processes: started in a process group of their own, ended as a group, and reaped.
//!
//! A [`ProcessGroup`] ends by itself, or by TERM, a grace period and KILL, each sent to all of its processes. The
//! [`Reaper`] collects orphans where this process is PID 1 or a subreaper. The caller reads the output: while it waits
//! here, and to its end before it reports the status. This module does not decide when to stop, and never signals a
//! process outside the group.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::SignalKind;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Longest wait for a killed process. Only one that hangs in the kernel takes longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Poll interval of a group whose leader has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Pause before the reaper checks again while children have ended that their owners must take: several ends give one
/// signal.
const REAP_AGAIN: Duration = Duration::from_millis(500);

/// Shortest pause between two checks of the reaper.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// Pids of children whose owner waits for them. Locked while a child is started, and by the reaper, so that the reaper
/// cannot take a child between its start and its entry here.
static OWNED: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

/// Children that [`end_family`] sends no TERM, but KILL.
static WAITING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A child of this process that ends by itself once its own children have ended; TERM would end it before them. Dropped with the child.
#[derive(Debug)]
pub struct WaitsForItsChildren(Pid);

impl WaitsForItsChildren {
    /// `None` when the child has ended already.
    pub fn of(child: &Child) -> Option<Self> {
        let pid = Pid::from_raw(child.id()?.cast_signed())?;
        WAITING.lock().push(pid);
        Some(Self(pid))
    }
}

impl Drop for WaitsForItsChildren {
    fn drop(&mut self) {
        WAITING.lock().retain(|pid| *pid != self.0);
    }
}

/// Exit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n after signal n, as in a shell.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        let code = status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(1);
        Self { code, signal }
    }
}

/// A child process that leads its own process group.
///
/// Dropping it before its end kills the group. After its end, processes that it left behind live on.
#[derive(Debug)]
pub struct ProcessGroup {
    child: Child,
    pid: Pid,
    exit: Option<Exit>,
}

impl ProcessGroup {
    /// Starts `command` as the leader of a new process group.
    ///
    /// Errors name the program, but never its arguments and environment, which may be secret.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        command.process_group(0);
        let mut owned = OWNED.lock();
        let child = command.spawn().with_context(|| format!("failed to start `{program}`"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.with_context(|| format!("failed to find the process id of `{program}`"))?;
        owned.get_or_insert_default().insert(pid.as_raw_nonzero().get().cast_unsigned());
        Ok(Self { child, pid, exit: None })
    }

    /// The child's pid, which is the group's id too.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The output of a leader that was started with a pipe; once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the leader; other processes of the group may live on. Returns the same exit when called again.
    pub async fn wait(&mut self) -> anyhow::Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let status = self.child.wait().await.with_context(|| format!("failed to wait for process {}", self.id()))?;
        let exit = Exit::from(status);
        self.exit = Some(exit);
        self.disown();
        Ok(exit)
    }

    /// Sends TERM to the group, after `grace` KILL to the rest, and returns the leader's exit. The other processes get
    /// the whole grace too: a shell may end long before the program that saves a checkpoint. Takes at most `grace` and
    /// ten seconds, then returns an error. Keep reading the output meanwhile: a process that writes into a full pipe
    /// cannot end.
    pub async fn terminate(&mut self, grace: Duration) -> anyhow::Result<Exit> {
        self.signal(Signal::TERM);
        let deadline = tokio::time::Instant::now() + grace;
        let ended = timeout(grace, self.wait()).await;
        while ended.is_ok() && tokio::time::Instant::now() < deadline && self.is_alive() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.signal(Signal::KILL);
        match ended {
            Ok(exit) => exit,
            Err(_) => self.wait_killed().await,
        }
    }

    /// Sends KILL to the group and returns the leader's exit.
    pub async fn kill(&mut self) -> anyhow::Result<Exit> {
        self.signal(Signal::KILL);
        self.wait_killed().await
    }

    async fn wait_killed(&mut self) -> anyhow::Result<Exit> {
        let id = self.id();
        let ended = timeout(KILL_DEADLINE, self.wait()).await;
        ended.with_context(|| format!("failed to end process {id} with SIGKILL within {KILL_DEADLINE:?}"))?
    }

    /// Sends TERM to the group and does not wait.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// `true` while a process of the group runs; zombies do not count.
    fn is_alive(&self) -> bool {
        processes().any(|(_, stat)| stat.group == self.id() && !stat.is_zombie)
    }

    /// A group without processes has ended already, which is no error.
    fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::kill_process_group(self.pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(group = self.id(), %error, "failed to signal a process group");
        }
    }

    fn disown(&self) {
        if let Some(owned) = OWNED.lock().as_mut() {
            owned.remove(&self.id().cast_unsigned());
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.signal(Signal::KILL);
            // Not awaited: the runtime's orphan queue or the reaper collects it.
            self.disown();
        }
    }
}

/// Collects processes that lost their parent, so that no zombies remain. The agent starts one.
///
/// It takes only processes of foreign groups: a child started without a [`ProcessGroup`] keeps its status as long as it
/// stays in this process's own group.
#[derive(Debug)]
pub struct Reaper {
    _task: AbortOnDropHandle<()>,
}

impl Reaper {
    /// Makes this process the subreaper of its descendants and collects orphans until it is dropped.
    pub fn start() -> anyhow::Result<Self> {
        let me = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(me)).context("failed to become the reaper of orphaned processes")?;
        let mut children =
            tokio::signal::unix::signal(SignalKind::child()).context("failed to listen for ended children")?;
        let task = tokio::spawn(async move {
            // The pause bounds the cost when many orphans end; signals during it merge into one.
            while children.recv().await.is_some() {
                while !reap() {
                    tokio::time::sleep(REAP_AGAIN).await;
                }
                tokio::time::sleep(REAP_PAUSE).await;
            }
        });
        Ok(Self { _task: AbortOnDropHandle::new(task) })
    }
}

/// Collects every ended orphan; `false` when ended children remain that their owners will take.
fn reap() -> bool {
    let owned = OWNED.lock();
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let has_ended = || matches!(rustix::process::waitid(WaitId::All, peek), Ok(Some(_)));
    if !has_ended() {
        return true;
    }
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let own_group = own_group();
    for (pid, stat) in processes() {
        let is_owned = owned.as_ref().is_some_and(|owned| owned.contains(&pid.as_raw_nonzero().get().cast_unsigned()));
        if stat.is_zombie && stat.parent == me && stat.group != own_group && !is_owned {
            // An error means that another waiter was faster.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
    !has_ended()
}

/// Ends this process's descendants, and its own process group when it leads one, except itself: TERM, `grace`, KILL.
///
/// For a process whose caller is gone, so that no one else signals the group.
pub async fn end_family(grace: Duration) {
    end_all(grace, family).await;
}

/// Ends this process's descendants, those in other groups and sessions too: TERM, `grace`, KILL.
///
/// It finds what lost its parent only while a [`Reaper`] lives.
pub async fn end_descendants(grace: Duration) {
    end_all(grace, || descendants(HashSet::new(), &alive())).await;
}

async fn end_all(grace: Duration, members: impl Fn() -> Vec<Pid>) {
    signal_all(Signal::TERM, members());
    let deadline = tokio::time::Instant::now() + grace;
    while tokio::time::Instant::now() < deadline && !members().is_empty() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    signal_all(Signal::KILL, members());
}

fn signal_all(signal: Signal, members: Vec<Pid>) {
    let waiting = WAITING.lock().clone();
    for pid in members.into_iter().filter(|pid| signal == Signal::KILL || !waiting.contains(pid)) {
        if let Err(error) = rustix::process::kill_process(pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(process = pid.as_raw_nonzero().get(), %error, "failed to signal a process");
        }
    }
}

fn family() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let alive = alive();
    let mut group = HashSet::new();
    if own_group() == me {
        group.extend(alive.iter().filter(|(_, stat)| stat.group == me).map(|(pid, _)| pid.as_raw_nonzero().get()));
    }
    descendants(group, &alive)
}

fn alive() -> Vec<(Pid, Stat)> {
    processes().filter(|(_, stat)| !stat.is_zombie).collect()
}

/// These processes and the descendants of them and of this process, without this process.
fn descendants(mut members: HashSet<i32>, alive: &[(Pid, Stat)]) -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    members.insert(me);
    let mut before = 0;
    while members.len() > before {
        before = members.len();
        let children = alive.iter().filter(|(_, stat)| members.contains(&stat.parent));
        members.extend(children.map(|(pid, _)| pid.as_raw_nonzero().get()).collect::<Vec<_>>());
    }
    members.into_iter().filter(|pid| *pid != me).filter_map(Pid::from_raw).collect()
}

/// 0 when the group's leader is outside of this pid namespace, as in a container started without a group of its own;
/// the type of `getpgrp` has no such value.
fn own_group() -> i32 {
    std::fs::read("/proc/self/stat")
        .ok()
        .and_then(|text| parse_stat(&String::from_utf8_lossy(&text)))
        .map_or(0, |stat| stat.group)
}

/// Fields of `/proc/<pid>/stat` that the reaper reads.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    is_zombie: bool,
    parent: i32,
    group: i32,
}

/// The processes of this pid namespace; none where `/proc` cannot be read.
fn processes() -> impl Iterator<Item = (Pid, Stat)> {
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let text = std::fs::read(entry.path().join("stat")).ok()?;
        Some((pid, parse_stat(&String::from_utf8_lossy(&text))?))
    })
}

/// The command name may contain anything, so parsing begins after its closing parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    Some(Stat { is_zombie, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Polls until `condition` holds; fails the test after a deadline.
    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn group_is_gone(id: i32) -> bool {
        processes().all(|(_, stat)| stat.group != id || stat.is_zombie)
    }

    #[tokio::test]
    async fn exits_are_told_as_a_shell_tells_them() {
        let mut group = ProcessGroup::spawn(sh("exit 7")).unwrap();
        assert_eq!(group.wait().await.unwrap(), Exit { code: 7, signal: None });
        assert_eq!(group.wait().await.unwrap().code, 7);
        let mut group = ProcessGroup::spawn(sh("kill -9 $$")).unwrap();
        assert_eq!(group.wait().await.unwrap(), Exit { code: 137, signal: Some(9) });
    }

    #[tokio::test]
    async fn a_program_that_is_absent_is_named() {
        let error = ProcessGroup::spawn(Command::new("/absent/program")).unwrap_err();
        assert_eq!(error.to_string(), "failed to start `/absent/program`");
    }

    #[tokio::test]
    async fn term_reaches_the_whole_group() {
        let mut group = ProcessGroup::spawn(sh("sleep 600 & sleep 600")).unwrap();
        let exit = group.terminate(LONG).await.unwrap();
        assert_eq!(exit.signal, Some(15));
        until("the group ends", || group_is_gone(group.id())).await;
    }

    #[tokio::test]
    async fn a_group_that_ignores_term_is_killed_after_the_grace() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = format!("trap '' TERM; : > '{}'; sleep 600 & sleep 600", ready.display());
        let mut group = ProcessGroup::spawn(sh(&script)).unwrap();
        until("the trap is set", || ready.exists()).await;
        let exit = group.terminate(Duration::from_millis(20)).await.unwrap();
        assert_eq!(exit, Exit { code: 137, signal: Some(9) });
        until("the group ends", || group_is_gone(group.id())).await;
    }

    #[tokio::test]
    async fn the_grace_is_the_whole_groups() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, saved) = (dir.path().join("ready"), dir.path().join("saved"));
        // The child takes its time after TERM, its parent does not.
        let child = format!(
            "trap 'sleep 0.1; : > {}; exit' TERM; : > {}; while :; do sleep 0.01; done",
            saved.display(),
            ready.display()
        );
        let mut group = ProcessGroup::spawn(sh(&format!("trap 'exit 9' TERM; ({child}) & wait"))).unwrap();
        until("the trap is set", || ready.exists()).await;
        assert_eq!(group.terminate(LONG).await.unwrap().code, 9);
        assert!(saved.exists());
    }

    #[tokio::test]
    async fn a_dropped_group_is_killed() {
        let group = ProcessGroup::spawn(sh("sleep 600 & sleep 600")).unwrap();
        let id = group.id();
        drop(group);
        until("the group ends", || group_is_gone(id)).await;
    }

    /// Runs itself again as a separate process, because the reaper would take the children of other tests.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the mark of the second process")]
    async fn an_orphan_is_collected_and_owned_children_keep_their_status() {
        const MARK: &str = "SAGEMAKER_EXECUTOR_TEST_REAPER";
        if std::env::var_os(MARK).is_none() {
            let name = "base::process::tests::an_orphan_is_collected_and_owned_children_keep_their_status";
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", name]).env(MARK, "1").stdin(Stdio::null());
            let output = again.output().await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("pid");
        let _reaper = Reaper::start().unwrap();
        // The background shell outlives its parent, becomes this process's child, and ends.
        let script = format!("(sleep 0.05; exit 3) & echo $! > '{}'; exit 4", note.display());
        let mut group = ProcessGroup::spawn(sh(&script)).unwrap();
        assert_eq!(group.wait().await.unwrap().code, 4);
        let orphan: i32 = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        until("the orphan is collected", || processes().all(|(pid, _)| pid.as_raw_nonzero().get() != orphan)).await;
    }

    /// Runs itself again as a separate process, because other tests have children too.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the mark of the second process")]
    async fn a_family_ends_and_its_parent_lives() {
        const MARK: &str = "SAGEMAKER_EXECUTOR_TEST_FAMILY";
        if std::env::var_os(MARK).is_none() {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "base::process::tests::a_family_ends_and_its_parent_lives"]).env(MARK, "1");
            // It leads its group, like a driver that the runner started.
            let output = again.process_group(0).stdin(Stdio::null()).output().await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        // A grandchild, an orphan, and a process that ignores TERM.
        let lost = "(sleep 600 &)";
        let script = format!("{lost}; sh -c \"trap '' TERM; : > '{}'; sleep 600 & wait\" & wait", ready.display());
        let mut child = sh(&script).spawn().unwrap();
        until("the family is there", || ready.exists() && family().len() >= 4).await;
        end_family(Duration::from_millis(50)).await;
        child.wait().await.unwrap();
        until("the family is gone", || family().is_empty()).await;
    }

    #[test]
    fn the_own_group_may_be_outside_of_the_namespace() {
        assert_eq!(own_group(), rustix::process::getpgrp().as_raw_nonzero().get());
        assert_eq!(parse_stat("1 (agent) S 0 0 0 0 -1").map(|stat| stat.group), Some(0));
    }

    #[test]
    fn a_stat_line_is_read_behind_any_command_name() {
        let stat = parse_stat("12 (a) Z 9 9) S 7 42 42 0 -1").unwrap();
        assert_eq!(stat, Stat { is_zombie: false, parent: 7, group: 42 });
        assert_eq!(parse_stat("12 (sh) Z 1 5 5").map(|stat| stat.is_zombie), Some(true));
        assert_eq!(parse_stat("12 sh"), None);
    }
}
