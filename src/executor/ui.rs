//! What people and the runner see: the only writer to stdout and stderr.
//!
//! stdout is data (a script's bytes, the JSON of `config`), stderr is for people. It adds no timestamps, because the
//! runner does, never reads the environment or the clock, and never says what a variable holds. What others wrote acts on no
//! job log: every line for people goes through `plain`. A reader that has gone
//! ([`Printer::is_broken`]) is not an error: what is left to print is dropped, and the work goes on or is stopped by
//! whoever owns it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::base::failure::{Failure, render};
use crate::base::plain;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Makes the section marker vanish from the line it stands on.
const SECTION_MARK: &str = "\r\x1b[0K";
/// A pipe takes so many bytes whole or not at all (`PIPE_BUF`), so a kill cannot divide them.
pub const PIECE: usize = 4096;
/// A line about a number that grows comes at most this often, unless a terminal shows a bar.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How long one write waits for a reader of a non-blocking pipe before it counts as an error.
const FULL_PIPE_LIMIT: u32 = 60_000;
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(1);
/// How long a reader may have data in hand before it stands in the trace.
const IN_HAND: Duration = Duration::from_millis(10);
/// How many pauses a reader gets to empty one pipe before the other is written to.
const TURN_LIMIT: u32 = 200;

/// Writes to stdout and stderr. Clones share the streams.
#[derive(Clone)]
pub struct Printer {
    streams: Arc<Mutex<Streams>>,
    /// stderr is a terminal: color and bars.
    terminal: bool,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// The reader of this stream has gone.
    out_broken: bool,
    err_broken: bool,
    /// The last data did not end its line; both streams meet in the job trace.
    mid_line: bool,
    sections: Sections,
    bar: Option<ProgressBar>,
    /// stdout and stderr, where they are pipes: their reader brings both into one job trace.
    pipes: (Option<OwnedFd>, Option<OwnedFd>),
    last: Stream,
}

/// How sections begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sections {
    /// GitLab reads this, and folds what stands between two marks.
    Marked,
    /// People read this.
    Titles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Printer {
    /// The process's own streams. Data goes to stdout without a buffer between, so that what was written is known.
    pub fn standard() -> Self {
        let out: Box<dyn Write + Send> = match io::stdout().as_fd().try_clone_to_owned() {
            Ok(out) => Box::new(File::from(out)),
            Err(_) => Box::new(io::stdout()),
        };
        let printer = Self::new(out, Box::new(io::stderr()), io::stderr().is_terminal());
        printer.lock().pipes = (pipe(io::stdout().as_fd()), pipe(io::stderr().as_fd()));
        printer
    }

    /// Any two streams; `terminal` chooses color and bars (bars draw on the real stderr).
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, terminal: bool) -> Self {
        let streams = Streams {
            out,
            err,
            out_broken: false,
            err_broken: false,
            mid_line: false,
            sections: if terminal { Sections::Titles } else { Sections::Marked },
            bar: None,
            pipes: (None, None),
            last: Stream::Err,
        };
        Self { streams: Arc::new(Mutex::new(streams)), terminal }
    }

    /// A printer that keeps what it is given, for tests.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let printer =
            Self::new(Box::new(Sink(Arc::clone(&captured.out))), Box::new(Sink(Arc::clone(&captured.err))), false);
        (printer, captured)
    }

    /// Writes data as it is and flushes it. `Ok` also when the reader has gone.
    ///
    /// # Errors
    /// What the system says, a full disk for one.
    pub fn write_data(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_counted(bytes, |_| {})
    }

    /// As [`Printer::write_data`]; `written` is told how many bytes are out after each piece of at most [`PIECE`] bytes.
    ///
    /// # Errors
    /// What the system says, a full disk for one.
    pub fn write_counted(&self, bytes: &[u8], mut written: impl FnMut(usize)) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        let mut streams = self.lock();
        streams.mid_line = *last != b'\n';
        streams.with_bar_hidden(|streams| {
            streams.turn_to(Stream::Out);
            let mut count = 0;
            for piece in bytes.chunks(PIECE) {
                write_through(&mut streams.out, &mut streams.out_broken, piece)?;
                count += piece.len();
                if !streams.out_broken {
                    written(count);
                }
            }
            Ok(())
        })
    }

    /// Whether whoever reads the job log understands section markers; others get the titles alone.
    pub fn show_sections(&self, are_understood: bool) {
        self.lock().sections = if are_understood && !self.terminal { Sections::Marked } else { Sections::Titles };
    }

    /// Begins a section of the job log that GitLab shows collapsed; `at` is when its matter began. Others get the title.
    /// `name` is of letters, digits, `_`, `.` and `-`, and used once in a job.
    pub fn begin_section(&self, name: &str, at: SystemTime, title: &str) {
        let mut streams = self.lock();
        let title = plain::lines(title);
        if streams.sections == Sections::Marked {
            let start = format!("section_start:{}:{name}[collapsed=true]{SECTION_MARK}{title}", epoch_seconds(at));
            streams.write_line(&start);
        } else {
            streams.write_line(&title);
        }
    }

    /// Ends the section; GitLab shows the time between.
    pub fn end_section(&self, name: &str, at: SystemTime) {
        let mut streams = self.lock();
        if streams.sections == Sections::Marked {
            streams.write_line(&format!("section_end:{}:{name}{SECTION_MARK}", epoch_seconds(at)));
        }
    }

    /// A line, or several, for people. Whatever is in it, and wherever it is from, nothing in it acts on the job log.
    pub fn line(&self, text: impl AsRef<str>) {
        self.lock().write_line(&plain::lines(text.as_ref()));
    }

    /// `warning: <text>`: the work goes on.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.labeled("warning:", YELLOW, text.as_ref());
    }

    /// `error: <text>`.
    pub fn error(&self, text: impl AsRef<str>) {
        self.labeled("error:", RED, text.as_ref());
    }

    fn labeled(&self, label: &str, color: &str, text: &str) {
        let label = self.painted(label, color);
        self.lock().write_line(&format!("{label} {}", plain::lines(text)));
    }

    /// An error with its causes and hints.
    pub fn failure(&self, error: &anyhow::Error) {
        let text = render(error);
        self.error(text.strip_prefix("error: ").unwrap_or(&text));
    }

    /// People watch a terminal, and not a job log.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The reader of stdout has gone; nobody will see what is printed from now on.
    pub fn is_broken(&self) -> bool {
        self.lock().out_broken
    }

    /// stdout where it is a pipe: whether its reader lives is told by the system.
    pub fn output_pipe(&self) -> Option<OwnedFd> {
        self.lock().pipes.0.as_ref()?.try_clone().ok()
    }

    fn painted(&self, text: &str, color: &str) -> String {
        if self.terminal { format!("{color}{text}{RESET}") } else { text.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Streams {
    fn write_line(&mut self, text: &str) {
        // One write a line, so that lines of several processes do not mix.
        let start = if std::mem::take(&mut self.mid_line) { "\n" } else { "" };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let line = format!("{start}{text}{end}");
        // Nobody is left to be told that stderr failed.
        let _ = self.with_bar_hidden(|streams| {
            streams.turn_to(Stream::Err);
            write_through(&mut streams.err, &mut streams.err_broken, line.as_bytes())
        });
    }

    /// Lets the reader of two pipes take what stands in the other one first, so that both keep their order in the trace.
    fn turn_to(&mut self, stream: Stream) {
        if self.last == stream {
            return;
        }
        let other = match std::mem::replace(&mut self.last, stream) {
            Stream::Out => &self.pipes.0,
            Stream::Err => &self.pipes.1,
        };
        let Some(pipe) = other else { return };
        let mut pauses = 0;
        while pauses < TURN_LIMIT && rustix::io::ioctl_fionread(pipe).is_ok_and(|waiting| waiting > 0) {
            pauses += 1;
            std::thread::park_timeout(FULL_PIPE_PAUSE);
        }
        // What was read is not written yet; a line for people can wait for it.
        if stream == Stream::Err {
            std::thread::park_timeout(IN_HAND);
        }
    }

    fn with_bar_hidden<R>(&mut self, write: impl FnOnce(&mut Self) -> R) -> R {
        match self.bar.clone() {
            Some(bar) => bar.suspend(|| write(self)),
            None => write(self),
        }
    }
}

fn pipe(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    let status = rustix::fs::fstat(stream).ok()?;
    let is_pipe = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo;
    is_pipe.then(|| stream.try_clone_to_owned().ok())?
}

fn epoch_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All of `bytes` and a flush; a reader that has gone sets `broken` and is no error.
fn write_through(stream: &mut impl Write, broken: &mut bool, bytes: &[u8]) -> io::Result<()> {
    if *broken {
        return Ok(());
    }
    let result = write_all(stream, bytes).and_then(|()| retried(|| stream.flush()));
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            *broken = true;
            Ok(())
        }
        result => result,
    }
}

fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retried(|| stream.write(bytes))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Once more after an interruption, and while the pipe is full: another process may have made it non-blocking.
fn retried<R>(mut write: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let mut full = 0;
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && full < FULL_PIPE_LIMIT => {
                full += 1;
                std::thread::park_timeout(FULL_PIPE_PAUSE);
            }
            result => return result,
        }
    }
}

/// What a [`Printer::captured`] was given.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Captured {
    /// stdout so far.
    pub fn data(&self) -> Vec<u8> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// stderr so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One piece of work that people wait for. On a terminal a spinner or a bar; elsewhere a line at the start, one per
/// change (a growing number: at most one in 10 s), one at the end. A terminal shows one at a time.
#[derive(Debug)]
pub struct Progress {
    printer: Printer,
    task: String,
    total: Option<u64>,
    started: Instant,
    said: String,
    said_at: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `task` is a present participle: `Uploading the workspace`. `total` in bytes, when [`Progress::bytes`] follows.
    pub fn start(printer: &Printer, task: &str, total: Option<u64>, now: Instant) -> Self {
        let bar = printer.terminal.then(|| terminal_bar(task, total));
        let progress = Self {
            printer: printer.clone(),
            task: task.to_owned(),
            total,
            started: now,
            said: String::new(),
            said_at: now,
            bar,
        };
        match &progress.bar {
            Some(bar) => progress.printer.lock().bar = Some(bar.clone()),
            None => progress.printer.line(match total {
                Some(total) => format!("{task} ({})", human_bytes(total)),
                None => task.to_owned(),
            }),
        }
        progress
    }

    /// A bar where there is a terminal, elsewhere nothing; [`Progress::bytes_of`] moves it.
    pub fn on_terminal(printer: &Printer, task: &str, now: Instant) -> Option<Self> {
        printer.terminal.then(|| Self::start(printer, task, Some(0), now))
    }

    /// Bytes done so far, of so many as are known by now.
    pub fn bytes_of(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// The state as it is now, `Downloading`; said when it differs from the last one, and again every 10 s: GitLab
    /// Runner notices a cancel soon only while there is output. Call it on every poll: it also moves the spinner.
    pub fn state(&mut self, state: &str, now: Instant) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{state} ({})", human_duration(now.saturating_duration_since(self.started))));
            bar.tick();
        } else if self.said != state || now.saturating_duration_since(self.said_at) >= PROGRESS_INTERVAL {
            let elapsed = human_duration(now.saturating_duration_since(self.started));
            self.printer.line(format!("{}: {state} after {elapsed}", self.task));
            state.clone_into(&mut self.said);
            self.said_at = now;
        }
    }

    /// Bytes done so far.
    pub fn bytes(&mut self, done: u64, now: Instant) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        if now.saturating_duration_since(self.said_at) < PROGRESS_INTERVAL {
            return;
        }
        let text = match self.total {
            Some(total) => format!("{} of {}", human_bytes(done), human_bytes(total)),
            None => human_bytes(done),
        };
        if self.said != text {
            self.printer.line(format!("{}: {text}", self.task));
            self.said = text;
            self.said_at = now;
        }
    }

    /// The end: `done`, `canceled`.
    pub fn finish(mut self, outcome: &str, now: Instant) {
        self.clear();
        let elapsed = human_duration(now.saturating_duration_since(self.started));
        self.printer.line(format!("{}: {outcome} after {elapsed}", self.task));
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            self.printer.lock().bar = None;
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn terminal_bar(task: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
        None => "{spinner} {prefix}: {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
        .with_prefix(task.to_owned())
}

/// Sends the program's own log to stderr through `printer`. `filter` is the value of `SAGEMAKER_EXECUTOR_LOG`:
/// `debug`, or `info,executor::trace=debug`; warnings alone when it is absent or empty. The first call of a
/// process counts.
///
/// # Errors
/// A [`Failure`] with a hint when the filter cannot be understood.
pub fn init_tracing(printer: &Printer, filter: Option<&str>) -> anyhow::Result<()> {
    let filter = filter.filter(|filter| !filter.trim().is_empty()).unwrap_or("warn");
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::system("failed to read the log filter")
            .hint("set `SAGEMAKER_EXECUTOR_LOG` to `error`, `warn`, `info`, `debug` or `trace`")
            .caused_by(error)
    })?;
    let printer = printer.clone();
    // A second subscriber is refused, and the first one goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .log_internal_errors(false)
        .with_writer(move || LogWriter(printer.clone()))
        .try_init();
    Ok(())
}

/// One event a write, as a line for people.
struct LogWriter(Printer);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `512 B`, `1.5 KiB`, `16.0 MiB`: powers of 1024.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut name = "";
    for unit in UNITS {
        tenths = (tenths + 512) / 1024;
        name = unit;
        if tenths < 10 * 1024 {
            break;
        }
    }
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `45 s`, `2 min 5 s`, `3 h 20 min`: two units at most, cut down to whole ones.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(0 => "0 B")]
    #[test_case(1023 => "1023 B")]
    #[test_case(1536 => "1.5 KiB")]
    #[test_case(16 * 1024 * 1024 => "16.0 MiB")]
    #[test_case(1024 * 1024 - 1 => "1.0 MiB")]
    #[test_case(u64::MAX => "16.0 EiB")]
    fn bytes_read_well(bytes: u64) -> String {
        human_bytes(bytes)
    }

    #[test_case(0 => "0 s")]
    #[test_case(45 => "45 s")]
    #[test_case(120 => "2 min")]
    #[test_case(125 => "2 min 5 s")]
    #[test_case(3600 => "1 h")]
    #[test_case(12_000 => "3 h 20 min")]
    fn durations_read_well(seconds: u64) -> String {
        human_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn data_goes_out_unchanged_and_lines_start_on_their_own_line() {
        let (printer, captured) = Printer::captured();
        printer.write_data(b"50 %\r\xff\x1b[0m").unwrap();
        printer.line("Waiting");
        printer.write_data(b"end\n").unwrap();
        printer.warn("spot is off");
        printer.error("gone");
        assert_eq!(captured.data(), b"50 %\r\xff\x1b[0mend\n");
        assert_eq!(captured.text(), "\nWaiting\nwarning: spot is off\nerror: gone\n");
    }

    #[test]
    fn sections_are_marked_for_readers_that_know_them_and_nobody_else_makes_one() {
        let (printer, captured) = Printer::captured();
        let at = UNIX_EPOCH + Duration::from_secs(7);
        printer.begin_section("a", at, "Title \x1b[1m");
        printer.warn("section_end:9:a\r\x1b[0K");
        printer.end_section("a", at);
        printer.show_sections(false);
        printer.begin_section("b", at, "Plain");
        printer.end_section("b", at);
        assert_eq!(
            captured.text(),
            "section_start:7:a[collapsed=true]\r\x1b[0KTitle \\x1b[1m\nwarning: section-end:9:a\\x0d\\x1b[0K\n\
             section_end:7:a\r\x1b[0K\nPlain\n"
        );
    }

    #[test]
    fn the_other_stream_is_read_first() {
        let (reader, writer) = io::pipe().unwrap();
        let (printer, _) = Printer::captured();
        printer.lock().pipes = (Some(OwnedFd::from(writer.try_clone().unwrap())), None);
        printer.write_data(b"data").unwrap();
        (&writer).write_all(b"in the pipe").unwrap();
        let taken = std::thread::spawn(move || {
            let mut bytes = [0; 11];
            io::Read::read_exact(&mut &reader, &mut bytes).unwrap();
            reader
        });
        printer.line("for people");
        assert_eq!(rustix::io::ioctl_fionread(&writer).unwrap(), 0, "read before the line was written");
        drop(taken.join().unwrap());
    }

    #[test]
    fn data_goes_out_in_pieces_that_a_pipe_takes_whole() {
        let (printer, captured) = Printer::captured();
        let mut counts = Vec::new();
        printer.write_counted(&[b'x'; 2 * PIECE + 1], |count| counts.push(count)).unwrap();
        assert_eq!(counts, [PIECE, 2 * PIECE, 2 * PIECE + 1]);
        assert_eq!(captured.data().len(), 2 * PIECE + 1);
    }

    #[test]
    fn a_failure_is_printed_with_its_hints() {
        let (printer, captured) = Printer::captured();
        let failure = Failure::user("image is not allowed").hint("change `image`");
        printer.failure(&anyhow::Error::from(failure).context("failed to prepare"));
        assert_eq!(
            captured.text(),
            "error: failed to prepare\n  because: image is not allowed\n  hint: change `image`\n"
        );
    }

    /// Takes a few bytes a write and fails as told.
    struct Stubborn {
        errors: Vec<io::ErrorKind>,
        taken: Arc<Mutex<Vec<u8>>>,
        calls: Arc<Mutex<usize>>,
    }

    impl Write for Stubborn {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.calls.lock().unwrap() += 1;
            if let Some(kind) = self.errors.pop() {
                return Err(kind.into());
            }
            let some = bytes.len().min(3);
            self.taken.lock().unwrap().extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stubborn(errors: Vec<io::ErrorKind>) -> (Printer, Stubborn) {
        let stream = Stubborn { errors, taken: Arc::default(), calls: Arc::default() };
        let seen = Stubborn { errors: Vec::new(), taken: Arc::clone(&stream.taken), calls: Arc::clone(&stream.calls) };
        (Printer::new(Box::new(stream), Box::new(io::sink()), false), seen)
    }

    #[test]
    fn a_reader_that_has_gone_ends_printing_quietly() {
        let (printer, seen) = stubborn(vec![io::ErrorKind::BrokenPipe]);
        printer.write_data(b"lost").unwrap();
        assert!(printer.is_broken());
        printer.write_data(b"lost too").unwrap();
        assert_eq!((seen.taken.lock().unwrap().len(), *seen.calls.lock().unwrap()), (0, 1));
    }

    #[test]
    fn short_and_interrupted_writes_lose_nothing() {
        let (printer, seen) = stubborn(vec![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted]);
        printer.write_data(b"0123456789").unwrap();
        assert_eq!(*seen.taken.lock().unwrap(), b"0123456789");
    }

    #[test]
    fn another_failure_of_stdout_is_an_error() {
        let (printer, _) = stubborn(vec![io::ErrorKind::StorageFull]);
        assert_eq!(printer.write_data(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!printer.is_broken());
    }

    #[test]
    fn off_a_terminal_a_state_is_said_once_per_change() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::start(&printer, "Waiting for the training job", None, start);
        for (seconds, state) in [(0, "Starting"), (5, "Starting"), (95, "Pending"), (100, "Pending"), (185, "Training")]
        {
            progress.state(state, at(seconds));
        }
        progress.finish("ready", at(190));
        insta::assert_snapshot!(captured.text(), @r"
        Waiting for the training job
        Waiting for the training job: Starting after 0 s
        Waiting for the training job: Pending after 1 min 35 s
        Waiting for the training job: Training after 3 min 5 s
        Waiting for the training job: ready after 3 min 10 s
        ");
    }

    #[test]
    fn off_a_terminal_bytes_are_said_every_ten_seconds() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let mut progress = Progress::start(&printer, "Uploading the workspace", Some(64 << 20), start);
        for second in 0..=25_u64 {
            progress.bytes(second << 20, start + Duration::from_secs(second));
        }
        // Nothing moves: nothing is said.
        progress.bytes(20 << 20, start + Duration::from_mins(1));
        progress.finish("done", start + Duration::from_secs(61));
        insta::assert_snapshot!(captured.text(), @r"
        Uploading the workspace (64.0 MiB)
        Uploading the workspace: 10.0 MiB of 64.0 MiB
        Uploading the workspace: 20.0 MiB of 64.0 MiB
        Uploading the workspace: done after 1 min 1 s
        ");
    }

    #[test]
    fn a_bad_log_filter_is_an_error_with_a_hint() {
        let (printer, _) = Printer::captured();
        let error = init_tracing(&printer, Some("=,=")).unwrap_err();
        assert!(render(&error).contains("`SAGEMAKER_EXECUTOR_LOG`"), "{error}");
    }
}
