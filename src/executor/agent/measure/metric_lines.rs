//! Finds the values of metrics in the output of a script, line by line, as the script wrote it.

use regex::bytes::Regex;

use super::recorder::Recorder;
use crate::base::metric::MetricDefinition;

/// Only the beginning of a longer line is searched.
const LINE_BYTES: usize = 16 << 10;

/// How the runner's script begins the text that tells a command before it runs: of several lines with `FF_SCRIPT_SECTIONS`.
const COMMAND: &[u8] = b"\x1b[32;1m$ ";
/// The sequence that the runner writes before that, to clear the line.
const CLEAR: &[u8] = b"\x1b[0K";
/// How that text ends.
const RESET: &[u8] = b"\x1b[0;m";

/// Searches each line but those of the text that tells a command, also one that a carriage return ends, as those of progress bars.
pub(crate) struct MetricLines {
    metrics: Vec<(String, Regex)>,
    recorder: Recorder,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The text that tells a command has begun and not ended.
    in_command: bool,
}

impl MetricLines {
    pub(crate) fn new(definitions: &[MetricDefinition], recorder: Recorder) -> Self {
        let compile = |definition: &MetricDefinition| {
            let regex = definition.compile();
            if regex.is_none() {
                tracing::warn!(metric = definition.name, "the regular expression of a metric cannot be used");
            }
            Some((definition.name.clone(), regex?))
        };
        Self {
            metrics: definitions.iter().filter_map(compile).collect(),
            recorder,
            line: Vec::new(),
            in_command: false,
        }
    }

    /// Takes the next bytes of the output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.metrics.is_empty() {
            return;
        }
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, is_whole) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            if is_whole && self.line.is_empty() {
                self.search(text.get(..LINE_BYTES).unwrap_or(text));
                continue;
            }
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if is_whole {
                self.end();
            }
        }
    }

    /// Takes what came last for a whole line.
    pub(crate) fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.search(&line);
    }

    fn search(&mut self, mut line: &[u8]) {
        let is_whole = line.len() < LINE_BYTES;
        while let Some(rest) = line.strip_prefix(CLEAR) {
            line = rest;
        }
        if self.in_command || line.starts_with(COMMAND) {
            let end = line.windows(RESET.len()).position(|window| window == RESET);
            // The end of the text may be in what was cut off.
            self.in_command = end.is_none() && is_whole;
            line = end.and_then(|end| line.get(end + RESET.len()..)).unwrap_or_default();
        }
        if line.is_empty() {
            return;
        }
        for (name, regex) in &self.metrics {
            for found in regex.captures_iter(line) {
                let text = found.get(1).and_then(|group| std::str::from_utf8(group.as_bytes()).ok());
                if let Some(value) = text.and_then(|text| text.trim().parse().ok()) {
                    self.recorder.metric(name, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, recorder: &Recorder) -> MetricLines {
        MetricLines::new(&MetricDefinition::parse_all(text).unwrap(), recorder.clone())
    }

    /// First, last and number of the values of `loss`.
    fn found(chunks: &[&[u8]]) -> (Option<f64>, Option<f64>, u64) {
        let recorder = Recorder::default();
        let mut lines = lines("loss=loss[=:] ?(\\S+)\nend=^done ([0-9]+)$", &recorder);
        for chunk in chunks {
            lines.push(chunk);
        }
        lines.end();
        let measured = recorder.measured();
        measured.metrics.get("loss").map_or((None, None, 0), |loss| (loss.first(), loss.last(), loss.count()))
    }

    #[test]
    fn values_are_found_in_lines_and_bars_wherever_the_chunks_end() {
        let text = b"epoch 1 loss=0.5\n 10%|#   | loss: 4e-1\r 20%|##  | loss: 0.3\r\nloss=x\nloss=-.25";
        assert_eq!(found(&[text]), (Some(0.5), Some(-0.25), 4));
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(found(&[head, tail]), (Some(0.5), Some(-0.25), 4), "{at}");
        }
    }

    #[test]
    fn a_line_may_hold_several_values_and_need_not_be_text() {
        assert_eq!(found(&[b"\xff\x00 loss=1 loss=2 \xfe\n"]), (Some(1.0), Some(2.0), 2));
        let (first, last, count) = found(&[b"loss=0.1\nloss=nan\n"]);
        assert!(last.unwrap().is_nan());
        assert_eq!((first, count), (Some(0.1), 1));
    }

    #[test]
    fn the_runners_line_with_a_command_is_not_searched() {
        assert_eq!(found(&[b"\x1b[32;1m$ echo loss=9\x1b[0;m\nloss=1\n"]), (Some(1.0), Some(1.0), 1));
        let section = b"\x1b[0Ksection_start:1:script_step_1[collapsed=true]\r\x1b[0K\x1b[32;1m$ for n in 1; do\n  echo loss=8\necho loss=9\x1b[0;m\nloss=1\n\x1b[0Ksection_end:1:script_step_1\r\x1b[0Kloss=2\n";
        assert_eq!(found(&[section]), (Some(1.0), Some(2.0), 2));
        let long = [COMMAND, &[b'x'; LINE_BYTES], RESET, b"\nloss=1\n"].concat();
        assert_eq!(found(&[&long]), (Some(1.0), Some(1.0), 1));
    }

    #[test]
    fn the_end_of_a_long_line_is_not_searched_and_not_kept() {
        let long = vec![b'x'; LINE_BYTES];
        assert_eq!(found(&[&long, b" loss=1\nloss=2\n"]), (Some(2.0), Some(2.0), 1));
        assert_eq!(found(&[&long[1..], b" loss=1\n"]), (None, None, 0));
        let recorder = Recorder::default();
        let mut lines = lines("a=(x)", &recorder);
        for _ in 0..100 {
            lines.push(&long);
        }
        assert!(lines.line.len() <= LINE_BYTES);
    }

    #[test]
    fn both_borders_of_a_line_are_known() {
        let recorder = Recorder::default();
        let mut lines = lines("end=^done ([0-9]+)$", &recorder);
        lines.push(b"not done 1\ndone 2 of 3\ndone 4\r\n");
        assert_eq!(recorder.measured().metrics["end"].last(), Some(4.0));
        assert_eq!(recorder.measured().metrics["end"].count(), 1);
    }
}
