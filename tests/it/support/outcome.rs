//! The result of a job, in the same form from both runners.

use super::gitlab::{Artifact, FinalUpdate};

/// The end of a job as GitLab sees it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) id: u64,
    pub(crate) trace: Vec<u8>,
    /// `success` or `failed`; `None` when the runner never reported it.
    pub(crate) state: Option<String>,
    pub(crate) failure_reason: Option<String>,
    /// The code of a failed script; GitLab compares it with `allow_failure:exit_codes`.
    pub(crate) exit_code: Option<i64>,
    pub(crate) artifacts: Vec<Artifact>,
    /// The driver calls in order: `config`, `prepare`, `run build_script`, `cleanup`.
    pub(crate) stages: Vec<String>,
    /// The requests that GitLab received, in order.
    pub(crate) events: Vec<String>,
    /// The runner's own log.
    pub(crate) runner_log: String,
}

impl Outcome {
    pub(crate) fn new(id: u64, trace: Vec<u8>, result: Option<FinalUpdate>) -> Self {
        let result = result.unwrap_or_default();
        Self {
            id,
            trace,
            state: Some(result.state).filter(|state| !state.is_empty()),
            failure_reason: result.failure_reason,
            exit_code: result.exit_code.filter(|code| *code != 0),
            artifacts: Vec::new(),
            stages: Vec::new(),
            events: Vec::new(),
            runner_log: String::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.trace).into_owned()
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Self {
        assert_eq!(self.state.as_deref(), Some("success"), "{self}");
        self
    }

    /// Failed for this reason; `exit_code` is what GitLab got, `None` for no code.
    #[track_caller]
    pub(crate) fn failed(&self, reason: &str, exit_code: Option<i64>) -> &Self {
        let found = (self.state.as_deref(), self.failure_reason.as_deref(), self.exit_code);
        assert_eq!(found, (Some("failed"), Some(reason), exit_code), "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "the trace lacks {text:?}\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn hides(&self, text: &str) -> &Self {
        assert!(!self.text().contains(text), "the trace has {text:?}\n{self}");
        self
    }

    /// The number of times that a text occurs in the trace.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.text().matches(text).count()
    }

    #[track_caller]
    pub(crate) fn ran(&self, stages: &[&str]) -> &Self {
        assert_eq!(self.stages, stages, "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn called(&self, stage: &str, times: usize) -> &Self {
        assert_eq!(self.stages.iter().filter(|name| *name == stage).count(), times, "calls of {stage}\n{self}");
        self
    }

    /// The files of the last artifact of a kind; panics when there is none.
    #[track_caller]
    pub(crate) fn artifact(&self, kind: &str) -> &Artifact {
        let artifact = self.artifacts.iter().rev().find(|artifact| artifact.kind == kind);
        artifact.unwrap_or_else(|| panic!("no artifact of kind {kind}\n{self}"))
    }

    /// The bytes between the first line that is `begin` and the next line that is `end`.
    #[track_caller]
    pub(crate) fn between(&self, begin: &str, end: &str) -> &[u8] {
        let (begin, end) = (format!("\n{begin}\n"), format!("\n{end}\n"));
        let find =
            |bytes: &[u8], wanted: &str| bytes.windows(wanted.len()).position(|window| window == wanted.as_bytes());
        let start = find(&self.trace, &begin).unwrap_or_else(|| panic!("no line {begin:?}\n{self}")) + begin.len();
        let rest = &self.trace[start..];
        let length = find(rest, &end).unwrap_or_else(|| panic!("no line {end:?}\n{self}"));
        &rest[..length]
    }

    /// The bytes that a stage wrote: between the runner's section markers of that name, without its headline.
    #[track_caller]
    pub(crate) fn section(&self, name: &str) -> Vec<u8> {
        let start = format!(":{name}\r\x1b[0K");
        let found = |from: usize, wanted: &[u8]| {
            let rest = &self.trace[from..];
            rest.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
        };
        let begin = found(0, start.as_bytes()).unwrap_or_else(|| panic!("no section {name}\n{self}")) + start.len();
        // The driver's own sections may be inside.
        let own_end = found(begin, start.as_bytes()).unwrap_or(self.trace.len());
        let mark = b"section_end:";
        let before = self.trace[begin..own_end].windows(mark.len()).rposition(|window| window == mark);
        let end = before.map_or(own_end, |at| begin + at);
        self.trace[begin..end].to_vec()
    }
}

/// Both ends of a long trace: enough to see why an expectation failed.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text();
        let tail =
            |text: &str, most: usize| text.chars().skip(text.chars().count().saturating_sub(most)).collect::<String>();
        writeln!(
            f,
            "job {}: state {:?}, reason {:?}, exit code {:?}",
            self.id, self.state, self.failure_reason, self.exit_code
        )?;
        writeln!(f, "stages: {:?}\nevents: {:?}", self.stages, self.events)?;
        writeln!(f, "--- trace\n{}\n--- end of trace", tail(&text, 6000))?;
        writeln!(f, "--- runner log\n{}\n--- end of runner log", tail(&self.runner_log, 3000))
    }
}
