//! One script in the container: its shell, its process group, and its output on the way to the trace.
//!
//! Bytes go from one pipe (stdout and stderr, so that their order stays) through the `Masker` and the `FrameEncoder` to the
//! container's log and the copy. A slow sink slows the script, so memory is bounded. What a script leaves in the
//! background lives on and its later output is read and dropped. This module knows no orders and reports nothing
//! itself, and it never shows a variable's value.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::copy::{FrameSink, TraceCopy, TraceOutput};
use crate::mailbox::ExitReport;
use crate::process::{Exit, ProcessGroup};
use crate::trace::frame::complete_len;
use crate::trace::{FrameEncoder, Masker};

/// The code of a script that the image has no shell for, as a shell says it of a command it cannot find.
const NO_SHELL: i32 = 127;
/// The code of a script that its shell cannot parse.
const NOT_PARSED: i32 = 2;
/// Where shells are when `PATH` does not name them.
const USUAL_PLACES: [&str; 3] = ["/bin", "/usr/bin", "/usr/local/bin"];
/// How long a shell may take to tell what it can parse.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// One read from the pipe; a pipe holds as much.
const READ_BYTES: usize = 64 << 10;
/// Output is framed at once when so much is there: about one full frame of ordinary text.
const FLUSH_BYTES: usize = 10 << 10;
/// The longest that output waits for more.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// How long output waits that ends with a whole line.
const FLUSH_LINE_AFTER: Duration = Duration::from_millis(10);
/// After the script's end its background processes may keep the pipe: silence of this length ends the output ...
const LEFTOVER_IDLE: Duration = Duration::from_millis(500);
/// ... and so does this much time.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(2);

/// What is to be run.
#[derive(Clone)]
pub struct ScriptRun {
    /// Number of the run, carried by its frames.
    pub run: u32,
    /// GitLab's name of the step, for messages.
    pub stage: String,
    pub script: PathBuf,
    /// The whole environment of the script: nothing is inherited.
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// Values that must not leave the container.
    pub masks: Vec<Vec<u8>>,
    /// Prefixes of tokens, such as `glpat-`, whose rest must not leave the container.
    pub mask_prefixes: Vec<String>,
    /// Time between TERM and KILL when the run is canceled.
    pub term_grace: Duration,
}

impl std::fmt::Debug for ScriptRun {
    /// Without environment and masks: they hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { run, stage, script, cwd, .. } = self;
        f.debug_struct("ScriptRun")
            .field("run", run)
            .field("stage", stage)
            .field("script", script)
            .field("cwd", cwd)
            .finish_non_exhaustive()
    }
}

/// Runs a script to its end, with its frames in this process's stdout and in `copy`.
///
/// When it returns, the last frame is stored. A canceled run ends within its grace, ten seconds for KILL and the time of the
/// last upload. Errors are those of the system: a script that fails is an [`ExitReport`]. A copy that
/// could not be stored is logged and no error: the container's log has the same frames.
pub async fn run(spec: ScriptRun, copy: TraceCopy, cancel: CancellationToken) -> anyhow::Result<ExitReport> {
    let log = std::io::stdout().as_fd().try_clone_to_owned().context("failed to duplicate stdout")?;
    let mut output = TraceOutput::new(tokio::fs::File::from_std(std::fs::File::from(log)), Some(copy));
    let report = run_into(&spec, &mut output, &cancel).await?;
    if let Err(error) = output.finish().await {
        tracing::error!(run = spec.run, error = format!("{error:#}"), "the copy of the trace is not complete");
    }
    Ok(report)
}

/// Runs a script to its end and sends its frames, the end frame included, to `sink`.
pub async fn run_into(
    spec: &ScriptRun,
    sink: &mut dyn FrameSink,
    cancel: &CancellationToken,
) -> anyhow::Result<ExitReport> {
    let mut pump = Pump::new(spec, sink);
    let exit = match choose_shell(spec, &USUAL_PLACES).await? {
        Shell::Found(words) => supervise(spec, &words, &mut pump, cancel).await?,
        Shell::Unfit { code, explanation } => {
            pump.take(explanation.as_bytes());
            Exit { code, signal: None }
        }
    };
    pump.end(exit.code).await?;
    let (bytes, hash) = (pump.encoder.bytes(), pump.encoder.hash());
    Ok(ExitReport { code: exit.code, bytes, hash, canceled: cancel.is_cancelled() })
}

async fn supervise(
    spec: &ScriptRun,
    shell: &[PathBuf],
    pump: &mut Pump<'_>,
    cancel: &CancellationToken,
) -> anyhow::Result<Exit> {
    let (mut group, mut pipe) = start(spec, shell)?;
    let exited = CancellationToken::new();
    // Ends the script when its output cannot be delivered.
    let broken = CancellationToken::new();
    let wait = async {
        let ended = tokio::select! {
            biased;
            exit = group.wait() => Some(exit),
            () = cancel.cancelled() => None,
            () = broken.cancelled() => None,
        };
        let exit = match ended {
            Some(exit) => exit,
            None => group.terminate(spec.term_grace).await,
        };
        exited.cancel();
        exit
    };
    let deliver = async {
        let result = pump.run(&mut pipe, &exited).await;
        if result.is_err() {
            broken.cancel();
            // Read on, so that the script can end.
            let mut sunk = vec![0; READ_BYTES];
            tokio::select! {
                () = exited.cancelled() => {}
                () = async { while matches!(pipe.read(&mut sunk).await, Ok(1..)) {} } => {}
            }
        }
        result
    };
    let (exit, delivered) = tokio::join!(wait, deliver);
    delivered.with_context(|| format!("failed to deliver the output of {}", spec.stage))?;
    let exit = exit.with_context(|| format!("failed to run {}", spec.stage))?;
    leave(pipe)?;
    Ok(exit)
}

/// Starts the script; both of its outputs write to the pipe.
fn start(spec: &ScriptRun, shell: &[PathBuf]) -> anyhow::Result<(ProcessGroup, pipe::Receiver)> {
    let (reader, writer) = std::io::pipe().context("failed to create a pipe")?;
    let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).context("failed to read from a pipe")?;
    let (program, arguments) = shell.split_first().context("failed to name a shell")?;
    // The command holds the writing ends until it is dropped with the end of `spawn`.
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(&spec.script)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.cwd)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("failed to duplicate a pipe")?)
        .stderr(writer);
    let group = ProcessGroup::spawn(command).with_context(|| format!("failed to run {}", spec.stage))?;
    Ok((group, receiver))
}

/// Keeps the pipe of background processes open and empty for the rest of the agent's life, so that they neither block nor
/// die when they write. A thread owns it: it ends with the last writer or with the process.
fn leave(pipe: pipe::Receiver) -> anyhow::Result<()> {
    let mut pipe = std::fs::File::from(pipe.into_blocking_fd().context("failed to hand over a pipe")?);
    std::thread::Builder::new()
        .name("leftover output".to_owned())
        .spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()))
        .context("failed to start a thread")?;
    Ok(())
}

/// Output on its way from the pipe to the sink.
struct Pump<'s> {
    sink: &'s mut dyn FrameSink,
    masker: Masker,
    encoder: FrameEncoder,
    /// Masked and not framed yet.
    pending: Vec<u8>,
    /// When the first of the pending bytes came.
    since: Option<Instant>,
}

impl<'s> Pump<'s> {
    fn new(spec: &ScriptRun, sink: &'s mut dyn FrameSink) -> Self {
        let masker = Masker::with_prefixes(spec.masks.clone(), spec.mask_prefixes.clone());
        Self { sink, masker, encoder: FrameEncoder::new(spec.run), pending: Vec::new(), since: None }
    }

    /// Reads until the pipe ends, or until the script has ended and what it left behind is silent.
    async fn run(&mut self, pipe: &mut pipe::Receiver, exited: &CancellationToken) -> anyhow::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut leftover: Option<Leftover> = None;
        loop {
            let flush_at = self.flush_at();
            let idle = leftover.as_ref().map(|leftover| leftover.idle);
            tokio::select! {
                biased;
                count = pipe.read(&mut buffer) => {
                    let count = count.context("failed to read the script's output")?;
                    if count == 0 {
                        return Ok(());
                    }
                    self.take(buffer.get(..count).unwrap_or_default());
                    let is_due = flush_at.is_some_and(|at| at <= Instant::now());
                    if is_due || self.encoder.bytes() == 0 || self.pending.len() >= FLUSH_BYTES {
                        self.flush().await?;
                    }
                    if leftover.as_mut().is_some_and(|leftover| leftover.is_over_after(count)) {
                        return Ok(());
                    }
                }
                () = exited.cancelled(), if leftover.is_none() => {}
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => self.flush().await?,
                () = sleep_until(idle.unwrap_or_else(Instant::now)), if idle.is_some() => return Ok(()),
            }
            // Not in the arm: a pipe that is never empty would keep it from its turn.
            if leftover.is_none() && exited.is_cancelled() {
                let owed = rustix::io::ioctl_fionread(&*pipe).context("failed to measure the script's output")?;
                leftover = Some(Leftover::new(owed));
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.masker.push(bytes, &mut self.pending);
        if !self.pending.is_empty() && self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn flush_at(&self) -> Option<Instant> {
        let since = self.since?;
        Some(since + if self.pending.ends_with(b"\n") { FLUSH_LINE_AFTER } else { FLUSH_AFTER })
    }

    /// Sends what is pending. A character whose last bytes are still to come waits once.
    async fn flush(&mut self) -> anyhow::Result<()> {
        let whole = match complete_len(&self.pending) {
            0 => self.pending.len(),
            whole => whole,
        };
        let rest = self.pending.split_off(whole);
        let lines = self.encoder.encode(&self.pending);
        self.since = (!rest.is_empty()).then(Instant::now);
        self.pending = rest;
        if lines.is_empty() { Ok(()) } else { self.sink.send(&lines).await }
    }

    /// Sends everything that is left and the end frame.
    async fn end(&mut self, code: i32) -> anyhow::Result<()> {
        self.masker.flush(&mut self.pending);
        let mut lines = self.encoder.encode(&self.pending);
        self.pending.clear();
        lines.push(self.encoder.end(code));
        self.sink.send(&lines).await.context("failed to deliver the end of the output")
    }
}

/// The end of a pipe that processes in the background may still hold.
struct Leftover {
    /// Bytes that were in the pipe at the script's end: all of them belong to its output.
    owed: u64,
    /// When to stop unless more comes.
    idle: Instant,
    /// When to stop whatever comes, but not before what is owed was read.
    limit: Instant,
}

impl Leftover {
    fn new(owed: u64) -> Self {
        let now = Instant::now();
        Self { owed, idle: now + LEFTOVER_IDLE, limit: now + LEFTOVER_LIMIT }
    }

    /// Counts a read; true when it was the last one.
    fn is_over_after(&mut self, count: usize) -> bool {
        self.owed = self.owed.saturating_sub(count as u64);
        let now = Instant::now();
        self.idle = now + LEFTOVER_IDLE;
        self.owed == 0 && now >= self.limit
    }
}

enum Shell {
    /// Program and first arguments; the script's path follows.
    Found(Vec<PathBuf>),
    /// Nothing in the image can run the script.
    Unfit { code: i32, explanation: String },
}

/// bash if the image has it; else the first of busybox, ash and sh that can parse the script.
async fn choose_shell(spec: &ScriptRun, usual: &[&str]) -> anyhow::Result<Shell> {
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let find = |name: &str| find_program(path.as_ref(), usual, name);
    if let Some(bash) = find("bash") {
        return Ok(Shell::Found(vec![bash]));
    }
    let busybox = find("busybox").map(|busybox| vec![busybox, PathBuf::from("sh")]);
    let plain = ["ash", "sh"].into_iter().filter_map(|name| find(name).map(|shell| vec![shell]));
    let shells: Vec<Vec<PathBuf>> = busybox.into_iter().chain(plain).collect();
    let Some(last) = shells.last() else {
        let explanation = "The image has no shell that could run the script: install bash in it, or busybox.\n";
        return Ok(Shell::Unfit { code: NO_SHELL, explanation: explanation.to_owned() });
    };
    let script = tokio::fs::read(&spec.script).await;
    let script = script.with_context(|| format!("failed to read the script of {}", spec.stage))?;
    if !script.windows(2).any(|pair| pair == b"$'") {
        return Ok(Shell::Found(last.clone()));
    }
    for shell in &shells {
        if parses_dollar_quotes(shell).await {
            return Ok(Shell::Found(shell.clone()));
        }
    }
    let shell = last.first().map_or_else(String::new, |shell| shell.display().to_string());
    Ok(Shell::Unfit {
        code: NOT_PARSED,
        explanation: format!(
            "The script needs bash, and the only shell of the image, `{shell}`, cannot parse it.\n\
             Install bash in the image, or set `FF_POSIXLY_CORRECT_ESCAPES = true` in `[runners.feature_flags]` of the \
             runner's `config.toml`.\n"
        ),
    })
}

fn find_program(path: &OsStr, usual: &[&str], name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let directories =
        std::env::split_paths(path).filter(|directory| directory.is_absolute()).chain(usual.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|file| std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Whether the shell knows `$'...'`, which GitLab's scripts use. dash does not.
async fn parses_dollar_quotes(shell: &[PathBuf]) -> bool {
    let Some((program, arguments)) = shell.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).arg("-c").arg("[ $'a' = a ]").env_clear().current_dir(Path::new("/"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut group) = ProcessGroup::spawn(command) else { return false };
    matches!(timeout_at(Instant::now() + PROBE_DEADLINE, group.wait()).await, Ok(Ok(Exit { code: 0, .. })))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::trace::FrameDecoder;

    const LONG: Duration = Duration::from_secs(20);

    /// Hands every call's lines to the test.
    struct Sink(mpsc::UnboundedSender<Vec<String>>);

    #[async_trait]
    impl FrameSink for Sink {
        async fn send(&mut self, lines: &[String]) -> anyhow::Result<()> {
            self.0.send(lines.to_vec()).context("nobody listens")
        }
    }

    fn sink() -> (Sink, mpsc::UnboundedReceiver<Vec<String>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Sink(sender), receiver)
    }

    struct Scene {
        spec: ScriptRun,
        dir: tempfile::TempDir,
    }

    fn scene(script: &str) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        std::fs::write(&path, script).unwrap();
        let spec = ScriptRun {
            run: 4,
            stage: "step_script".to_owned(),
            script: path,
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("GREETING".to_owned(), "hello".to_owned())],
            cwd: dir.path().to_owned(),
            masks: vec![b"hunter2".to_vec()],
            mask_prefixes: Vec::new(),
            term_grace: LONG,
        };
        Scene { spec, dir }
    }

    /// Runs to the end and returns the report with the decoded output.
    async fn run_all(spec: &ScriptRun, cancel: &CancellationToken) -> (ExitReport, String) {
        let (mut sink, mut lines) = sink();
        let report = run_into(spec, &mut sink, cancel).await.unwrap();
        let mut decoder = FrameDecoder::new(spec.run);
        while let Ok(lines) = lines.try_recv() {
            for line in lines {
                assert_eq!(decoder.push_message(&line), []);
            }
        }
        let end = decoder.finish().unwrap();
        assert_eq!((end.code, end.bytes, &end.hash), (report.code, report.bytes, &report.hash));
        (report, String::from_utf8_lossy(&decoder.take()).into_owned())
    }

    async fn outcome(script: &str) -> (ExitReport, String) {
        run_all(&scene(script).spec, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn both_outputs_keep_their_order_and_the_code_is_the_scripts() {
        let (report, text) =
            outcome("echo one; echo two >&2; printf '\\tthree\\r\\n\\n'; echo $GREETING; exit 7").await;
        assert_eq!(text, "one\ntwo\n\tthree\r\n\nhello\n");
        assert_eq!((report.code, report.canceled), (7, false));
    }

    #[tokio::test]
    async fn the_script_sees_its_directory_its_environment_alone_and_no_input() {
        let scene = scene("pwd; cat; env | grep -c -e ^GREETING= -e ^HOME= -e ^CARGO");
        let (report, text) = run_all(&scene.spec, &CancellationToken::new()).await;
        assert_eq!(text, format!("{}\n1\n", scene.dir.path().canonicalize().unwrap().display()));
        assert_eq!(report.code, 0);
    }

    #[tokio::test]
    async fn secrets_do_not_leave_also_in_pieces() {
        let (_, text) = outcome("printf 'a hun'; sleep 0.3; printf 'ter2 b glpat-xyz hunt'").await;
        assert_eq!(text, "a [MASKED] b glpat-[MASKED] hunt");
    }

    #[tokio::test]
    async fn a_script_without_output_has_an_end() {
        let (report, text) = outcome("exit 0").await;
        assert_eq!((report.code, report.bytes, text.as_str()), (0, 0, ""));
    }

    #[tokio::test]
    async fn a_signal_is_told_as_a_shell_tells_it() {
        assert_eq!(outcome("kill -9 $$").await.0.code, 137);
    }

    #[tokio::test]
    async fn much_output_makes_full_frames() {
        let scene = scene("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
        let (mut sink, mut lines) = sink();
        let report = run_into(&scene.spec, &mut sink, &CancellationToken::new()).await.unwrap();
        let mut frames = 0;
        let mut decoder = FrameDecoder::new(4);
        while let Ok(lines) = lines.try_recv() {
            frames += lines.len();
            for line in lines {
                assert_eq!(decoder.push_message(&line), []);
            }
        }
        let expected = (0..20_000).fold(String::new(), |text, number| text + "line " + &number.to_string() + "\n");
        assert_eq!(decoder.take(), expected.as_bytes());
        assert_eq!(report.bytes, expected.len() as u64);
        assert!(frames < 4000, "{frames} frames for 20000 lines");
    }

    #[tokio::test]
    async fn a_prompt_and_a_line_come_while_the_script_runs() {
        let scene = scene("printf 'ready? '; while [ ! -e go ]; do sleep 0.01; done; echo gone");
        let (mut sink, mut lines) = sink();
        let cancel = CancellationToken::new();
        let watch = async {
            let mut decoder = FrameDecoder::new(4);
            while decoder.bytes() < 7 {
                for line in lines.recv().await.unwrap() {
                    decoder.push_message(&line);
                }
            }
            assert_eq!(decoder.take(), b"ready? ");
            std::fs::write(scene.dir.path().join("go"), "").unwrap();
        };
        let (report, ()) =
            tokio::time::timeout(LONG, async { tokio::join!(run_into(&scene.spec, &mut sink, &cancel), watch) })
                .await
                .unwrap();
        assert_eq!(report.unwrap().bytes, 12);
    }

    #[tokio::test]
    async fn cancel_ends_the_group_and_keeps_its_last_words() {
        let scene = scene("trap 'echo bye; exit 1' TERM; echo here; : > ready; while :; do sleep 0.01; done");
        let cancel = CancellationToken::new();
        let watch = async {
            while !scene.dir.path().join("ready").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        let run = async { tokio::join!(run_all(&scene.spec, &cancel), watch) };
        let ((report, text), ()) = tokio::time::timeout(LONG, run).await.unwrap();
        // The shell may tell in between that its foreground command was terminated.
        assert!(text.starts_with("here\n") && text.ends_with("bye\n"), "{text}");
        assert_eq!((report.code, report.canceled), (1, true));
    }

    #[tokio::test]
    async fn a_background_process_neither_holds_the_run_nor_dies_of_its_output() {
        let script = "(while [ ! -e go ]; do echo noise || exit; done; : > alive) & echo started; exit 3";
        let scene = scene(script);
        let cancel = CancellationToken::new();
        let run = run_all(&scene.spec, &cancel);
        let (report, text) = tokio::time::timeout(LONG, run).await.unwrap();
        assert_eq!(report.code, 3);
        assert!(text.contains("started\n"));
        // It can still write more than a pipe holds.
        std::fs::write(scene.dir.path().join("go"), "").unwrap();
        let deadline = Instant::now() + LONG;
        while !scene.dir.path().join("alive").exists() {
            assert!(Instant::now() < deadline, "the background process is gone");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_broken_sink_ends_the_script() {
        let scene = scene("while :; do echo noise; done");
        let (mut sink, lines) = sink();
        drop(lines);
        let cancel = CancellationToken::new();
        let error = tokio::time::timeout(LONG, run_into(&scene.spec, &mut sink, &cancel)).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "failed to deliver the output of step_script");
    }

    fn program(directory: &Path, name: &str, text: &str) {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn a_shell_is_asked_before_it_is_given_dollar_quotes() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "knows", "#!/bin/sh\nexit 0\n");
        program(dir.path(), "knows-not", "#!/bin/sh\nexit 2\n");
        assert!(parses_dollar_quotes(&[dir.path().join("knows")]).await);
        assert!(!parses_dollar_quotes(&[dir.path().join("knows-not")]).await);
        assert!(!parses_dollar_quotes(&[dir.path().join("absent")]).await);
    }

    /// An image that has `program` alone, as `name`.
    async fn shell_of(program: &str, name: &str, script: &str) -> Option<Shell> {
        let Some(file) = find_program(OsStr::new(""), &USUAL_PLACES, program) else {
            eprintln!("SKIPPED: {program} is not on this machine");
            return None;
        };
        let mut scene = scene(script);
        std::os::unix::fs::symlink(file, scene.dir.path().join(name)).unwrap();
        scene.spec.env = vec![("PATH".to_owned(), scene.dir.path().display().to_string())];
        Some(choose_shell(&scene.spec, &[]).await.unwrap())
    }

    #[tokio::test]
    async fn dash_gets_plain_scripts_and_a_person_learns_why_it_gets_no_others() {
        if let Some(shell) = shell_of("dash", "sh", "eval $'echo'").await {
            let Shell::Unfit { code, explanation } = shell else { panic!("dash was chosen") };
            assert_eq!(code, NOT_PARSED);
            assert!(explanation.contains("`FF_POSIXLY_CORRECT_ESCAPES = true`"), "{explanation}");
        }
        if let Some(shell) = shell_of("dash", "sh", "eval \"echo\"").await {
            assert!(matches!(shell, Shell::Found(words) if words[0].ends_with("sh")));
        }
        if let Some(shell) = shell_of("busybox", "busybox", "eval $'echo'").await {
            assert!(matches!(shell, Shell::Found(words) if words[1] == Path::new("sh")));
        }
        if let Some(shell) = shell_of("bash", "bash", "eval $'echo'").await {
            assert!(matches!(shell, Shell::Found(words) if words.len() == 1));
        }
        if let Some(shell) = shell_of("dash", "other", "true").await {
            assert!(matches!(shell, Shell::Unfit { code: NO_SHELL, .. }));
        }
    }

    #[test]
    fn a_program_is_an_executable_file_of_the_path_or_of_a_usual_place() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "tool-of-the-image", "");
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let path = dir.path().as_os_str();
        assert_eq!(find_program(path, &[], "tool-of-the-image"), Some(dir.path().join("tool-of-the-image")));
        assert_eq!(find_program(path, &[], "plain"), None);
        assert!(find_program(OsStr::new(""), &USUAL_PLACES, "sh").is_some());
        assert_eq!(find_program(OsStr::new("."), &[], "sh"), None);
    }
}
