//! Data on stdout, lines for people on stderr, and both in one order.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use parking_lot::Mutex;

use super::captured::Captured;
use super::streams::{FULL_PIPE_PAUSE, PIECE, pipe, write_through};
use crate::base::failure::render;
use crate::base::plain;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Makes the section marker vanish from the line it stands on.
const SECTION_MARK: &str = "\r\x1b[0K";
/// How long a reader may have data in hand before it stands in the trace.
const IN_HAND: Duration = Duration::from_millis(10);
/// How many pauses a reader gets to empty one pipe before the other is written to.
const TURN_LIMIT: u32 = 200;

/// Writes to stdout and stderr. Clones share the streams.
#[derive(Clone)]
pub struct Printer {
    streams: Arc<Mutex<Streams>>,
    /// stderr is a terminal: bars, and no section marks.
    terminal: bool,
    /// stdout is a terminal.
    data_terminal: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is the state of another thing")]
struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// The reader of this stream has gone.
    out_broken: bool,
    err_broken: bool,
    /// The last data did not end its line; both streams meet in the job trace.
    mid_line: bool,
    /// Lines for people since the last data.
    lines_since_data: usize,
    sections: Sections,
    /// GitLab shows the job log, and colors as a terminal does.
    colored: bool,
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
        let printer = Self { data_terminal: io::stdout().is_terminal(), ..printer };
        printer.streams.lock().pipes = (pipe(io::stdout().as_fd()), pipe(io::stderr().as_fd()));
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
            lines_since_data: 0,
            sections: Sections::Titles,
            colored: terminal,
            bar: None,
            pipes: (None, None),
            last: Stream::Err,
        };
        Self { streams: Arc::new(Mutex::new(streams)), terminal, data_terminal: false }
    }

    /// A printer that keeps what it is given and marks sections as for GitLab, for tests.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let (out, err) = captured.streams();
        let printer = Self::new(out, err, false);
        printer.show_sections(true);
        (printer, captured)
    }

    /// Writes data as it is and flushes it. `Ok` also when the reader has gone.
    ///
    /// # Errors
    /// Errors are the system's, such as a full disk.
    pub fn write_data(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_counted(bytes, |_| {})
    }

    /// As [`Printer::write_data`]; `written` is told how many bytes are out after each piece of at most [`PIECE`] bytes.
    ///
    /// # Errors
    /// Errors are the system's, such as a full disk.
    pub fn write_counted(&self, bytes: &[u8], mut written: impl FnMut(usize)) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        let mut streams = self.streams.lock();
        streams.mid_line = *last != b'\n';
        streams.lines_since_data = 0;
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

    /// Marks sections for a job log that understands it, as GitLab's does. Without this call, and on a terminal, sections
    /// are titles alone.
    pub fn show_sections(&self, are_understood: bool) {
        self.streams.lock().sections =
            if are_understood && !self.terminal { Sections::Marked } else { Sections::Titles };
    }

    /// Colors the labels of errors and warnings from now on: the job log of GitLab shows them as a terminal does.
    pub fn show_colors(&self) {
        self.streams.lock().colored = true;
    }

    /// Begins a section of the job log that GitLab shows collapsed; `at` is when its matter began. Others get the title.
    /// `name` is of letters, digits, `_`, `.` and `-`, and used once in a job.
    pub fn begin_section(&self, name: &str, at: SystemTime, title: &str) {
        let mut streams = self.streams.lock();
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
        let mut streams = self.streams.lock();
        if streams.sections == Sections::Marked {
            streams.write_line(&format!("section_end:{}:{name}{SECTION_MARK}", epoch_seconds(at)));
        }
    }

    /// A line, or several, for people. Whatever is in it, and wherever it is from, nothing in it acts on the job log.
    pub fn line(&self, text: impl AsRef<str>) {
        self.streams.lock().write_line(&plain::lines(text.as_ref()));
    }

    /// `warning: <text>`: the work goes on.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.labeled("warning:", YELLOW, text.as_ref());
    }

    /// `error: <text>`.
    pub fn error(&self, text: impl AsRef<str>) {
        self.labeled("error:", RED, text.as_ref());
    }

    /// How something ended, with a label of its own: red for a failure.
    pub fn outcome(&self, label: &str, text: &str, is_failure: bool) {
        if is_failure {
            self.labeled(label, RED, text);
        } else {
            self.line(format!("{label} {text}"));
        }
    }

    fn labeled(&self, label: &str, color: &str, text: &str) {
        let mut streams = self.streams.lock();
        let label = if streams.colored { format!("{color}{label}{RESET}") } else { label.to_owned() };
        streams.write_line(&format!("{label} {}", plain::lines(text)));
    }

    /// An error with its causes and hints.
    pub fn failure(&self, error: &anyhow::Error) {
        let text = render(error);
        self.error(text.strip_prefix("error: ").unwrap_or(&text));
    }

    /// How many lines for people stand between the last data and what comes next.
    pub fn lines_since_data(&self) -> usize {
        self.streams.lock().lines_since_data
    }

    /// People watch a terminal, and not a job log.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Data that is printed is seen on a terminal at once.
    pub fn shows_data(&self) -> bool {
        self.data_terminal
    }

    /// Columns and lines of the terminal that shows data; `None` without one, or when it does not tell.
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| self.data_terminal)?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
    }

    /// The reader of stdout has gone; nobody will see what is printed from now on.
    pub fn is_broken(&self) -> bool {
        self.streams.lock().out_broken
    }

    /// stdout where it is a pipe: whether its reader lives is told by the system.
    pub fn output_pipe(&self) -> Option<OwnedFd> {
        self.streams.lock().pipes.0.as_ref()?.try_clone().ok()
    }

    /// The bar that steps aside for each line, or none any more.
    pub(super) fn show_bar(&self, bar: Option<ProgressBar>) {
        self.streams.lock().bar = bar;
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
        self.lines_since_data += text.lines().count();
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
        // Data that was read is not written yet; a line for people can wait for it.
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
fn epoch_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::Failure;

    #[test]
    fn data_goes_out_unchanged_and_lines_start_on_their_own_line() {
        let (printer, captured) = Printer::captured();
        printer.write_data(b"50 %\r\xff\x1b[0m").unwrap();
        printer.line("Waiting");
        printer.write_data(b"end\n").unwrap();
        assert_eq!(printer.lines_since_data(), 0);
        printer.warn("spot is off");
        printer.error("gone");
        printer.line("two\nlines");
        assert_eq!(printer.lines_since_data(), 4);
        assert_eq!(captured.data(), b"50 %\r\xff\x1b[0mend\n");
        assert_eq!(captured.text(), "\nWaiting\nwarning: spot is off\nerror: gone\ntwo\nlines\n");
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
    fn labels_are_colored_where_colors_are_shown() {
        let (printer, captured) = Printer::captured();
        printer.show_colors();
        printer.error("gone \x1b[0m");
        printer.warn("late");
        assert_eq!(captured.text(), "\x1b[31merror:\x1b[0m gone \\x1b[0m\n\x1b[33mwarning:\x1b[0m late\n");
    }

    #[test]
    fn the_other_stream_is_read_first() {
        let (reader, writer) = io::pipe().unwrap();
        let (printer, _) = Printer::captured();
        printer.streams.lock().pipes = (Some(OwnedFd::from(writer.try_clone().unwrap())), None);
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
            *self.calls.lock() += 1;
            if let Some(kind) = self.errors.pop() {
                return Err(kind.into());
            }
            let some = bytes.len().min(3);
            self.taken.lock().extend_from_slice(&bytes[..some]);
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
        assert_eq!((seen.taken.lock().len(), *seen.calls.lock()), (0, 1));
    }

    #[test]
    fn short_and_interrupted_writes_lose_nothing() {
        let (printer, seen) = stubborn(vec![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted]);
        printer.write_data(b"0123456789").unwrap();
        assert_eq!(*seen.taken.lock(), b"0123456789");
    }

    #[test]
    fn another_failure_of_stdout_is_an_error() {
        let (printer, _) = stubborn(vec![io::ErrorKind::StorageFull]);
        assert_eq!(printer.write_data(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!printer.is_broken());
    }
}
