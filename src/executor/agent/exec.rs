//! Runs one script in the container: shell, process group, output.
//!
//! stdout and stderr share one pipe, so that their order stays. The bytes go through the spool on disk, the `Masker` and the
//! `FrameEncoder` to the container's log and the copy. A slow sink slows the script only when the disk is full. Background
//! processes of the script live on; their later output is read and dropped. This module knows no orders, sends no reports, and
//! never shows a variable's value.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::foreign_output::ForeignOutput;
use super::keep::KeepOnFailure;
use super::measure::{MetricLines, Recorder};
use super::pipe::enlarge;
use super::pump::{self, CloseOnDrop, FrameSink, Pump};
use super::redraws::Redraws;
use super::shell::{DEFAULT_DIRS, Shell, choose_shell};
use super::stdio::{CapturedStdio, spawn};
use super::trace_copy::{TraceCopy, TraceOutput};
use super::volume;
use crate::base::clock::Clock;
use crate::base::metric::MetricDefinition;
use crate::base::process::{Exit, ProcessGroup};
use crate::base::seal::NodeSeal;
use crate::protocol::mailbox::ExitReport;
use crate::trace::{FrameEncoder, Masker};

/// The script to run, with its environment and masks.
#[derive(Clone)]
pub(super) struct ScriptRun {
    /// Number of the run, carried by its frames.
    pub(super) run: u32,
    /// Of its frames.
    pub(super) seal: NodeSeal,
    /// GitLab's name of the step, for messages.
    pub(super) stage: String,
    pub(super) script: PathBuf,
    /// The whole environment of the script: nothing is inherited.
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    /// Secret values: removed from the output.
    pub(super) masks: Vec<Vec<u8>>,
    /// Prefixes of tokens, such as `glpat-`: the text after a prefix is removed from the output.
    pub(super) mask_prefixes: Vec<String>,
    /// Updates of a progress bar that stay in the output in a second; 0 keeps all.
    pub(super) progress_rate: u32,
    /// Time between SIGTERM and SIGKILL when the run is canceled.
    pub(super) term_grace: Duration,
    /// Keeps the container when the script fails.
    pub(super) keep: Option<KeepOnFailure>,
    pub(super) clock: Arc<dyn Clock>,
    /// Values to read from the output, and where they go.
    pub(super) metrics: Vec<MetricDefinition>,
    pub(super) recorder: Recorder,
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

/// Runs a script to its end; its frames go to the container's log and to `copy`.
///
/// On return the copy is complete; the log has the frames or will get them. A canceled run takes at most its grace period, ten
/// seconds after SIGKILL and the last upload. Errors are system errors: a script that fails is an [`ExitReport`]. A copy that
/// could not be stored is logged and is no error, for the container's log has the same frames. A script that failed by itself
/// counts as not canceled, however the wait of its [`KeepOnFailure`] ended.
pub(super) async fn run(
    spec: &ScriptRun,
    copy: TraceCopy,
    stdio: &CapturedStdio,
    cancel: &CancellationToken,
) -> anyhow::Result<ExitReport> {
    let output = TraceOutput::new(stdio.log(), copy);
    let (report, output) = run_into(spec, output, Some(stdio.foreign()), cancel).await?;
    let copy = output.finish().await.inspect_err(|error| {
        tracing::error!(run = spec.run, error = format!("{error:#}"), "the copy of the trace is not complete");
    });
    Ok(ExitReport { copy: copy.ok(), ..report })
}

/// Runs a script to its end and sends its frames, the end frame included, to `sink`. `foreign` gives the lines of other writers.
async fn run_into<S: FrameSink + 'static>(
    spec: &ScriptRun,
    sink: S,
    foreign: Option<Arc<ForeignOutput>>,
    cancel: &CancellationToken,
) -> anyhow::Result<(ExitReport, S)> {
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let shell = choose_shell(path, &spec.script, &DEFAULT_DIRS).await;
    let shell = shell.with_context(|| format!("failed to read the script of {}", spec.stage))?;
    let spool = Arc::new(volume::spool());
    let shared = spool.clone();
    // Closes the spool, and so ends the pump, also when the script cannot be started.
    let _closing = CloseOnDrop(&shared);
    let masker = || Masker::with_prefixes(spec.masks.clone(), spec.mask_prefixes.clone());
    let metrics = MetricLines::new(&spec.metrics, spec.recorder.clone());
    let encoder = FrameEncoder::new(spec.run, spec.seal.clone());
    let pump = Pump::new(encoder, masker, Redraws::new(spec.progress_rate), spool.clone(), foreign, metrics, sink);
    let (tell_size, size) = oneshot::channel();
    let (tell_code, code) = oneshot::channel();
    let (tell_delivered, delivered) = oneshot::channel();
    // Canceled when the output cannot be delivered; ends the script.
    let broken = CancellationToken::new();
    let guard = broken.clone().drop_guard();
    spawn("output", move || {
        let outcome = pump.run(|bytes| {
            // The receiver waits only when the container is kept.
            let _ = tell_size.send(bytes);
            code.blocking_recv().ok()
        });
        let is_delivered = outcome.is_ok();
        let _ = tell_delivered.send(outcome);
        if is_delivered {
            guard.disarm();
        }
    })?;
    let began = Instant::now();
    let exit = match shell {
        Shell::Found(words) => {
            let (group, pipe) = start(spec, &words)?;
            let (exited, exit_of) = std::io::pipe().context("failed to create a pipe")?;
            spawn("script output", move || pump::drain(pipe, &exited, &spool))?;
            let exit = supervise(spec, group, cancel, &broken).await;
            drop(exit_of);
            exit.with_context(|| format!("failed to run {}", spec.stage))
        }
        Shell::Unfit { code, explanation } => {
            spool.write(explanation.as_bytes());
            spool.close();
            Ok(Exit { code, signal: None })
        }
    };
    let at = spec.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Before the container is kept, and before the output is delivered.
    let ran = u64::try_from(began.elapsed().as_millis()).ok();
    let failed = exit.as_ref().ok().map(|exit| exit.code).filter(|code| *code != 0 && !cancel.is_cancelled());
    let kept = spec.keep.as_ref().zip(failed);
    // Without a size the output cannot be delivered.
    if let Some((keep, code)) = kept
        && let Ok(bytes) = size.await
    {
        keep.keep(code, bytes, cancel).await;
    }
    if let Ok(exit) = &exit {
        // The receiver is gone when the output could not be delivered.
        let _ = tell_code.send(exit.code);
    } else {
        drop(tell_code);
    }
    let delivered = delivered.await.context("the thread that delivers it has ended").and_then(|outcome| outcome);
    let (sink, bytes, hash) = delivered.with_context(|| format!("failed to deliver the output of {}", spec.stage))?;
    let code = exit?.code;
    let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    let canceled = kept.is_none() && cancel.is_cancelled();
    Ok((ExitReport { has_model: false, code, bytes, hash, canceled, at, ran, copy: None }, sink))
}

/// Waits for the script to end; terminates it when `cancel` or `broken` is canceled.
async fn supervise(
    spec: &ScriptRun,
    mut group: ProcessGroup,
    cancel: &CancellationToken,
    broken: &CancellationToken,
) -> anyhow::Result<Exit> {
    tokio::select! {
        biased;
        exit = group.wait() => return exit,
        () = cancel.cancelled() => {}
        () = broken.cancelled() => {}
    }
    group.terminate(spec.term_grace).await
}

/// Starts the script with stdout and stderr on one pipe; returns the process group and the pipe's reading end.
fn start(spec: &ScriptRun, shell: &[PathBuf]) -> anyhow::Result<(ProcessGroup, File)> {
    let (reader, writer) = std::io::pipe().context("failed to create a pipe")?;
    enlarge(&reader);
    let (program, arguments) = shell.split_first().context("failed to name a shell")?;
    // `command` holds the writing ends; `spawn` drops it.
    let cwd = if can_enter(&spec.cwd) {
        spec.cwd.as_path()
    } else {
        tracing::warn!(
            stage = spec.stage,
            "cannot enter {}: an earlier script removed it or its permissions; the script starts in `/`",
            spec.cwd.display()
        );
        Path::new("/")
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(&spec.script)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("failed to duplicate a pipe")?)
        .stderr(writer);
    let group = ProcessGroup::spawn(command).with_context(|| format!("failed to run {}", spec.stage))?;
    Ok((group, File::from(OwnedFd::from(reader))))
}

fn can_enter(directory: &Path) -> bool {
    directory.is_dir() && rustix::fs::access(directory, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::spool::OutputSpool;
    use super::*;
    use crate::base::clock::HostClock;
    use crate::base::node::NodeId;
    use crate::base::seal::{Seal, SealKey};
    use crate::trace::{FrameDecoder, Line};

    const LONG: Duration = Duration::from_mins(1);

    /// Hands every call's lines to the test.
    struct Sink(mpsc::UnboundedSender<Vec<String>>);

    impl FrameSink for Sink {
        fn send(&mut self, lines: &[u8]) -> anyhow::Result<()> {
            let lines = std::str::from_utf8(lines)?.strip_suffix('\n').context("a line without an end")?;
            self.0.send(lines.split('\n').map(str::to_owned).collect()).context("the receiver is gone")
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
            seal: Seal::Keyed(SealKey::new([7; 32])).of_node(NodeId::LEADER),
            stage: "step_script".to_owned(),
            script: path,
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("GREETING".to_owned(), "hello".to_owned())],
            cwd: dir.path().to_owned(),
            masks: vec![b"hunter2".to_vec()],
            mask_prefixes: Vec::new(),
            progress_rate: 0,
            term_grace: LONG,
            keep: None,
            clock: Arc::new(HostClock),
            metrics: vec![MetricDefinition { name: "loss".to_owned(), regex: "loss=(\\S+)".to_owned() }],
            recorder: Recorder::default(),
        };
        Scene { spec, dir }
    }

    /// Runs to the end and returns the report with the decoded output.
    async fn run_all(spec: &ScriptRun, cancel: &CancellationToken) -> (ExitReport, String) {
        let (sink, mut lines) = sink();
        let (report, _) = run_into(spec, sink, None, cancel).await.unwrap();
        let mut decoder = FrameDecoder::new(spec.run, spec.seal.clone());
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
        assert!(report.ran.is_some());
    }

    #[tokio::test]
    async fn the_script_sees_its_directory_its_environment_alone_and_no_input() {
        let scene = scene("pwd; cat; env | grep -c -e ^GREETING= -e ^HOME= -e ^CARGO");
        let (report, text) = run_all(&scene.spec, &CancellationToken::new()).await;
        assert_eq!(text, format!("{}\n1\n", scene.dir.path().canonicalize().unwrap().display()));
        assert_eq!(report.code, 0);
    }

    #[tokio::test]
    async fn a_script_runs_although_its_directory_is_gone() {
        let mut scene = scene("pwd; cd \"$OLD\"; exit 5");
        for what in ["gone", "file"] {
            scene.spec.cwd = scene.dir.path().join(what);
            scene.spec.env.push(("OLD".to_owned(), scene.spec.cwd.display().to_string()));
            std::fs::write(scene.dir.path().join("file"), "").unwrap();
            let (report, text) = run_all(&scene.spec, &CancellationToken::new()).await;
            assert!(report.code == 5 && text.starts_with("/\n"), "{report:?} {text}");
        }
    }

    #[tokio::test]
    async fn secrets_do_not_leave_also_in_pieces() {
        let (_, text) = outcome("printf 'a hun'; sleep 0.3; printf 'ter2 b glpat-xyz hunt'").await;
        assert_eq!(text, "a [MASKED] b glpat-[MASKED] hunt");
    }

    #[tokio::test]
    async fn metrics_are_read_from_what_the_script_wrote() {
        let scene = scene("printf 'loss=0.5\\n 3%% loss=0.4 hunter2\\r'; printf loss=0.3");
        run_all(&scene.spec, &CancellationToken::new()).await;
        let measured = scene.spec.recorder.measured();
        assert_eq!((measured.metrics["loss"].last(), measured.metrics["loss"].count()), (Some(0.3), 3));
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
        let (sink, mut lines) = sink();
        let (report, _) = run_into(&scene.spec, sink, None, &CancellationToken::new()).await.unwrap();
        let mut frames = 0;
        let mut decoder = FrameDecoder::new(4, scene.spec.seal.clone());
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
        let (sink, mut lines) = sink();
        let cancel = CancellationToken::new();
        let watch = async {
            let mut decoder = FrameDecoder::new(4, scene.spec.seal.clone());
            while decoder.bytes() < 7 {
                for line in lines.recv().await.unwrap() {
                    decoder.push_message(&line);
                }
            }
            assert_eq!(decoder.take(), b"ready? ");
            std::fs::write(scene.dir.path().join("go"), "").unwrap();
        };
        let (report, ()) =
            tokio::time::timeout(LONG, async { tokio::join!(run_into(&scene.spec, sink, None, &cancel), watch) })
                .await
                .unwrap();
        assert_eq!(report.unwrap().0.bytes, 12);
    }

    #[tokio::test]
    async fn what_others_write_during_the_run_comes_beside_its_output() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let log = Arc::new(OutputSpool::new(None, 0));
        let foreign = Arc::new(ForeignOutput::new(reader, log).unwrap());
        let (stopped, stop) = std::io::pipe().unwrap();
        let others = foreign.clone();
        let thread = std::thread::spawn(move || others.forward(&stopped));
        let scene = scene("echo mine; : > here; while [ ! -e go ]; do sleep 0.01; done; echo still mine");
        let (sink, mut lines) = sink();
        let cancel = CancellationToken::new();
        let mut decoder = FrameDecoder::new(4, scene.spec.seal.clone());
        let watch = async {
            while !scene.dir.path().join("here").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            writer.write_all(b"theirs, hunt").unwrap();
            writer.write_all(b"er2\n\ttheirs").unwrap();
            let mut seen = Vec::new();
            while seen.is_empty() {
                for line in lines.recv().await.unwrap() {
                    seen.extend(decoder.push_message(&line));
                }
            }
            assert_eq!(seen, [Line::Foreign("theirs, [MASKED]".to_owned())]);
            std::fs::write(scene.dir.path().join("go"), "").unwrap();
        };
        let run = async { tokio::join!(run_into(&scene.spec, sink, Some(foreign), &cancel), watch) };
        let (report, ()) = tokio::time::timeout(LONG, run).await.unwrap();
        assert_eq!(report.unwrap().0.bytes, 16);
        let mut seen = Vec::new();
        while let Ok(lines) = lines.try_recv() {
            seen.extend(lines.iter().flat_map(|line| decoder.push_message(line)));
        }
        assert_eq!(seen, [Line::Foreign("\ttheirs".to_owned())]);
        assert_eq!(decoder.take(), b"mine\nstill mine\n");
        assert!(decoder.is_complete());
        assert_eq!(decoder.finish().unwrap().foreign_lines, 2);
        drop(stop);
        thread.join().unwrap();
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
        let (sink, lines) = sink();
        drop(lines);
        let cancel = CancellationToken::new();
        let run = run_into(&scene.spec, sink, None, &cancel);
        let error = tokio::time::timeout(LONG, run).await.unwrap().err().unwrap();
        assert_eq!(error.to_string(), "failed to deliver the output of step_script");
    }
}
