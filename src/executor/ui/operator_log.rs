//! The program's log for operators: one JSON line an event in a file, or one entry in systemd's journal.
//!
//! Each line opens the file, so that a rotated file is left at once; it is one write in append mode, so that lines of several processes do not
//! mix. A log that cannot be written fails no job and delays none: a line that the journal has no room for is lost.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::base::clock::Clock;
use crate::base::files;
use crate::base::plain;

/// Crates whose events are in the log; those of libraries may show requests.
const OWN: [&str; 4] = ["executor", "aws", "gitlab", "sagemaker_executor"];
/// Requests to AWS as text for stderr; the log has them as fields, under [`API`].
const TEXT_ALONE: &str = "aws::calls";
/// Target of events with the fields of one request to AWS.
pub const API: &str = "aws::api";
/// Longest value of a field, in characters.
const LONGEST: usize = 4000;
/// Socket of systemd's journal.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    File(PathBuf),
    Journal,
}

#[derive(Debug)]
struct OperatorLog {
    place: LogTarget,
    level: Level,
    clock: Arc<dyn Clock>,
    /// Fields of every line: the job and the stage.
    context: Mutex<Vec<(&'static str, Value)>>,
}

/// One log a process: events come from threads that know no job.
static LOG: OnceLock<OperatorLog> = OnceLock::new();

/// Logs from now on. The first call of a process counts.
pub fn begin(place: LogTarget, level: Level, clock: Arc<dyn Clock>) {
    let _ = LOG.set(OperatorLog { place, level, clock, context: Mutex::default() });
}

/// Gives every line from now on these fields.
pub fn set_context(fields: Vec<(&'static str, Value)>) {
    if let Some(log) = LOG.get() {
        *log.context.lock() = fields;
    }
}

/// `true` for events that the log may take, whatever its level.
pub(super) fn is_own(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let first = target.split("::").next().unwrap_or_default();
    OWN.contains(&first) && target != TEXT_ALONE
}

/// `true` for events that the log takes now.
pub(super) fn takes(metadata: &Metadata<'_>) -> bool {
    is_own(metadata) && LOG.get().is_some_and(|log| *metadata.level() <= log.level)
}

/// Writes events into the log.
#[derive(Debug)]
pub(super) struct OperatorLayer;

impl<S: Subscriber> Layer<S> for OperatorLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(log) = LOG.get() else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let line = log.line(level, event.metadata().target(), fields);
        // Nobody could be told.
        let _ = match &log.place {
            LogTarget::File(path) => append(path, &line),
            LogTarget::Journal => send(Path::new(JOURNAL), level, &line),
        };
    }
}

impl OperatorLog {
    /// The fields of one line, in their order.
    fn line(&self, level: Level, target: &str, fields: Fields) -> Vec<(String, Value)> {
        let time = humantime::format_rfc3339_millis(self.clock.now()).to_string();
        let mut line = vec![
            ("time".to_owned(), time.into()),
            ("level".to_owned(), level.as_str().to_ascii_lowercase().into()),
            ("event".to_owned(), fields.message.into()),
        ];
        line.extend(self.context.lock().iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        line.retain(|(name, _)| !fields.others.iter().any(|(other, _)| other == name));
        line.extend(fields.others);
        line.push(("module".to_owned(), target.into()));
        line
    }
}

/// The values of one event.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.push((field.name().to_owned(), value));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, shortened(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = shortened(&format!("{value:?}"));
        if field.name() == "message" { self.message = text } else { self.put(field, text.into()) }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST { text.to_owned() } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

/// One JSON object a line; characters that act on a terminal are escaped.
fn append(path: &Path, line: &[(String, Value)]) -> io::Result<()> {
    let members: Vec<_> = line.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
    let text = format!("{{{}}}", members.join(","));
    let line = format!("{}\n", plain::json(&text));
    files::open_to_append(path, 0o640)?.write_all(line.as_bytes())
}

/// One datagram in the journal's own protocol: a line a field, or its length before a value of several lines.
fn send(socket: &Path, level: Level, line: &[(String, Value)]) -> io::Result<()> {
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut entry = Vec::new();
    put(&mut entry, "SYSLOG_IDENTIFIER", "sagemaker-executor");
    put(&mut entry, "PRIORITY", priority);
    for (name, value) in line {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // `journalctl` shows a value with control characters as numbers alone.
        let text = plain::lines(&text);
        match name.as_str() {
            // The journal has its own.
            "time" | "level" => {}
            "event" => put(&mut entry, "MESSAGE", &text),
            name => put(&mut entry, &format!("SAGEMAKER_{}", name.to_ascii_uppercase()), &text),
        }
    }
    let sender = UnixDatagram::unbound()?;
    // systemd keeps the socket of a journal that has stopped: its queue fills up, and a send would wait for ever.
    sender.set_nonblocking(true)?;
    sender.send_to(&entry, socket).map(|_| ())
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::HostClock;

    fn line() -> Vec<(String, Value)> {
        let log = OperatorLog {
            place: LogTarget::Journal,
            level: Level::INFO,
            clock: Arc::new(HostClock),
            context: Mutex::new(vec![("job", 7.into()), ("stage", "prepare".into())]),
        };
        let others = vec![("stage".to_owned(), "run".into()), ("error".to_owned(), "a\nb \u{1b}[31m".into())];
        log.line(Level::INFO, "executor::x", Fields { message: "it ended".to_owned(), others })
    }

    #[test]
    fn a_line_is_one_object_with_the_fields_of_the_job() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        append(&path, &line()).unwrap();
        append(&path, &line()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}') && text.starts_with("{\"time\":\""), "{text}");
        let read: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&read["event"], &read["job"], &read["stage"]), (&"it ended".into(), &7.into(), &"run".into()));
        assert_eq!((&read["level"], &read["error"]), (&"info".into(), &"a\nb \u{1b}[31m".into()));
    }

    #[test]
    fn the_journal_gets_one_datagram_in_its_own_form() {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("socket")).unwrap();
        send(&dir.path().join("socket"), Level::WARN, &line()).unwrap();
        let mut entry = vec![0; 4096];
        let length = socket.recv(&mut entry).unwrap();
        entry.truncate(length);
        let starts = b"SYSLOG_IDENTIFIER=sagemaker-executor\nPRIORITY=4\nMESSAGE=it ended\nSAGEMAKER_JOB=7\n";
        assert!(entry.starts_with(starts), "{}", String::from_utf8_lossy(&entry));
        let text = plain::lines("a\nb \x1b[31m");
        let length = u64::try_from(text.len()).unwrap().to_le_bytes();
        let several = [b"SAGEMAKER_ERROR\n", &length[..], text.as_bytes(), b"\n"].concat();
        assert!(!text.contains('\x1b') && text.contains('\n'), "{text}");
        assert!(entry.windows(several.len()).any(|part| part == several), "{}", String::from_utf8_lossy(&entry));
    }

    /// The test ends because no call waits.
    #[test]
    fn a_journal_that_is_not_read_delays_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _unread = UnixDatagram::bind(&path).unwrap();
        let full = (0..100_000).find_map(|_| send(&path, Level::INFO, &line()).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn characters_that_act_on_a_terminal_are_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        append(&path, &[("error".to_owned(), "a\u{9b}b\u{202e}".into()), ("level".to_owned(), "info".into())]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"error\":\"a\\u009bb\\u202e\",\"level\":\"info\"}\n");
    }

    #[test]
    fn long_values_are_shortened() {
        assert_eq!(shortened(&"ä".repeat(LONGEST * 2)).chars().count(), LONGEST + 1);
        assert_eq!(shortened("short"), "short");
    }
}
