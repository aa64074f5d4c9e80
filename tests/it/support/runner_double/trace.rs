//! The runner double's trace: masking, the size limit, replacement of invalid UTF-8, and sending.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use super::super::gitlab::{JobStatus, Shared};
use super::scope::Scope;

const DEFAULT_LIMIT: usize = 4 * 1024 * 1024;
/// A line longer than this is passed on in pieces.
const LONGEST_LINE: usize = 8 * 1024;
pub(super) const RESET: &str = "\x1b[0;m";
pub(super) const CLEAR: &str = "\x1b[0K";
const TOKEN_PREFIXES: [&str; 8] = ["glpat-", "gloas-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glagent-"];
const URL_PARAMETERS: [&str; 6] =
    ["private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token"];

/// The scopes that a cancel and an abort currently end.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) cancel: Option<Scope>,
    pub(super) abort: Option<Scope>,
}

pub(super) struct Trace {
    shared: Arc<Shared>,
    id: u64,
    limit: usize,
    written: Mutex<Written>,
    phrases: Vec<String>,
    prefixes: Vec<String>,
    begun: Mutex<Vec<String>>,
    pub(super) targets: Mutex<Targets>,
}

#[derive(Default)]
struct Written {
    bytes: usize,
    full: bool,
}

impl Trace {
    pub(super) fn new(shared: Arc<Shared>, id: u64, limit_kib: u64, masked: Vec<String>, prefixes: &[String]) -> Self {
        let mut phrases = masked;
        phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.len()));
        let mut all: Vec<String> = TOKEN_PREFIXES.map(str::to_owned).to_vec();
        all.extend(prefixes.iter().filter(|prefix| !TOKEN_PREFIXES.contains(&prefix.as_str())).cloned());
        let limit = match usize::try_from(limit_kib).expect("the limit is small") {
            0 => DEFAULT_LIMIT,
            kib => kib * 1024,
        };
        Self {
            shared,
            id,
            limit,
            written: Mutex::default(),
            phrases,
            prefixes: all,
            begun: Mutex::default(),
            targets: Mutex::default(),
        }
    }

    /// A line of the runner's own: cleared line, color, text, reset.
    pub(super) fn say(&self, color: &str, text: &str) {
        self.write(&self.mask(format!("{CLEAR}{color}{text}{RESET}\n").as_bytes()));
    }

    /// Runs something between the markers of a section, below its headline.
    pub(super) fn section<T>(&self, name: &str, headline: &str, run: impl FnOnce() -> T) -> T {
        self.begun.lock().expect("no holder panics").push(name.to_owned());
        self.write(format!("section_start:{}:{name}\r{CLEAR}", seconds()).as_bytes());
        self.say("", &format!("\x1b[36;1m{headline}{RESET}"));
        if name == "step_script" {
            self.say("\x1b[0;33m", "WARNING: the stage 'build_script' is called 'step_script' in the trace");
        }
        let result = run();
        self.write(format!("section_end:{}:{name}\r{CLEAR}", seconds()).as_bytes());
        result
    }

    /// Whether the section of a stage was begun.
    pub(super) fn contains_section(&self, name: &str) -> bool {
        let begun = self.begun.lock().expect("no holder panics");
        begun.iter().any(|section| section == name)
    }

    /// Appends bytes as they are, up to the limit; then says so once and drops the rest.
    pub(super) fn write(&self, bytes: &[u8]) {
        let text = replace_invalid(bytes);
        let mut written = self.written.lock().expect("no writer panics");
        if written.full || text.is_empty() {
            return;
        }
        let mut end = text.len();
        let mut piece = String::new();
        if written.bytes + text.len() >= self.limit {
            end = text.floor_char_boundary(self.limit - written.bytes);
            written.full = true;
        }
        piece.push_str(&text[..end]);
        if written.full {
            let _ = write!(
                piece,
                "\n\x1b[33;1mJob's log exceeded limit of {} bytes.\n\
                 Job execution will continue but no more output will be collected.{RESET}\n",
                self.limit
            );
        }
        let reply = self.shared.append_trace(self.id, written.bytes, piece.as_bytes());
        written.bytes += piece.len();
        drop(written);
        if let Some((_, status)) = reply {
            self.obey(status);
        }
    }

    /// Ends the scopes that GitLab wants to be ended; a cancel or abort acts once.
    pub(super) fn obey(&self, status: JobStatus) {
        let mut targets = self.targets.lock().expect("no holder panics");
        let target = match status {
            JobStatus::Running => None,
            JobStatus::Canceling => targets.cancel.take(),
            JobStatus::Canceled => {
                targets.cancel = None;
                targets.abort.take()
            }
        };
        if let Some(scope) = target {
            scope.cancel();
        }
    }

    /// Checks whether GitLab wants the job to end.
    pub(super) fn touch(&self) {
        if let Some(status) = self.shared.status(self.id) {
            self.obey(status);
        }
    }

    fn mask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut result = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(phrase) = self.phrases.iter().find(|phrase| rest.starts_with(phrase.as_bytes())) {
                result.extend_from_slice(b"[MASKED]");
                at += phrase.len();
            } else if let Some(kept) = self
                .prefixes
                .iter()
                .map(String::len)
                .zip(&self.prefixes)
                .find_map(|(length, prefix)| rest.starts_with(prefix.as_bytes()).then_some(length))
            {
                let secret = rest[kept..].iter().take_while(|byte| is_token_byte(**byte)).count();
                result.extend_from_slice(&rest[..kept]);
                result.extend_from_slice(if secret > 0 { b"[MASKED]" } else { b"" });
                at += kept + secret;
            } else if let Some(kept) = url_parameter(rest) {
                let secret = rest[kept..].iter().take_while(|byte| !b"& \t\r\n#\"'".contains(byte)).count();
                result.extend_from_slice(&rest[..kept]);
                result.extend_from_slice(b"[MASKED]");
                at += kept + secret;
            } else {
                result.push(rest[0]);
                at += 1;
            }
        }
        result
    }
}

/// Seconds since 1970, for section markers.
fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is set").as_secs()
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte)
}

/// The length of `?name=` or `&name=` at the start, for a parameter whose value is secret.
fn url_parameter(text: &[u8]) -> Option<usize> {
    let (b'?' | b'&') = text.first()? else { return None };
    URL_PARAMETERS.iter().find_map(|name| {
        let candidate = text.get(1..=name.len())?;
        let equals = text.get(name.len() + 1) == Some(&b'=');
        (equals && candidate.eq_ignore_ascii_case(name.as_bytes())).then_some(name.len() + 2)
    })
}

/// Each byte of invalid UTF-8 becomes U+FFFD, as GitLab's trace shows it.
fn replace_invalid(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push('\u{fffd}');
                bytes = &rest[1..];
            }
        }
    }
}

/// One pipe of one stage: holds back an incomplete line, so that a secret in two writes is masked.
pub(super) struct Stream {
    trace: Arc<Trace>,
    pending: Vec<u8>,
}

impl Stream {
    pub(super) fn new(trace: &Arc<Trace>) -> Self {
        Self { trace: Arc::clone(trace), pending: Vec::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let complete = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let longest = self.trace.phrases.first().map_or(0, String::len);
        let end = if self.pending.len() - complete > LONGEST_LINE + longest {
            utf8_boundary(&self.pending, self.pending.len() - longest)
        } else {
            complete
        };
        if end > 0 {
            let rest = self.pending.split_off(end);
            self.trace.write(&self.trace.mask(&self.pending));
            self.pending = rest;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.trace.write(&self.trace.mask(&self.pending));
    }
}

/// The start of the character at `at`, at most three bytes before it.
fn utf8_boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|at| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(at)
}
