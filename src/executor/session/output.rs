//! Merges one run's output of all nodes: decodes it from two sources, and prints it in order to the job log.
//!
//! The print position is saved with each write, so that a process that takes over prints on without a gap and nothing
//! twice.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::base::node::{NodeId, Nodes};
use crate::base::seal::Seal;
use crate::base::stream::StreamName;
use crate::cloud::{CloudError, LogEvent};
use crate::metrics;
use crate::protocol::mailbox::ExitReport;
use crate::session::Session;
use crate::session::cursor::{Cursor, Position};
use crate::session::exchange::Exchange;
use crate::session::foreign::Foreign;
use crate::session::output_tail::OutputTail;
use crate::session::trace_copy_reader::TraceCopyReader;
use crate::trace::{FrameDecoder, Interleaver, Line, TraceError};
use crate::ui::Printer;

/// Number of printed events of other writers that are remembered, so that none is printed twice.
const REMEMBERED: usize = 256;

/// Most reads of the copy in a row, of some batches each, that bring nothing new. The log may have brought it before.
const MOST_READS: u32 = 64;

/// Output of one node, its sources, and the node's reports about its script.
pub(super) struct NodeOutput {
    decoder: FrameDecoder,
    copy: TraceCopyReader,
    printed: Position,
    /// Size of the whole output, from the node's report; 0 while unknown.
    expected: u64,
    /// The parts of the end that were returned as [`EndSeen`] already: exit code, completeness.
    told: (bool, bool),
    /// Number of batches of the copy, once it is complete.
    batches: Option<u32>,
    /// The copy is read although it is not live.
    pub(super) sought: bool,
    /// When bytes that must exist were first found missing.
    pub(super) gap_since: Option<Instant>,
    /// Number of bytes in order at the last poll.
    pub(super) followed: u64,
    pub(super) started: Option<SystemTime>,
    pub(super) exited: Option<SystemTime>,
    /// How long the script ran, by the node's report.
    pub(super) ran: Option<Duration>,
    pub(super) code: Option<i32>,
    /// Number of the report in which the agent said that it is ready.
    pub(super) ready_report: u32,
}

/// News about the end of a node's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndSeen {
    pub(super) node: NodeId,
    /// Exit code and size, from the end frame.
    pub(super) end: Option<(i32, u64)>,
    pub(super) complete: bool,
}

/// When to stop reading a node's copy: another writer may add batches without end, but none that brings output.
#[derive(Debug, Default)]
pub(super) struct CopyEnd {
    position: (u64, u64),
    reads: u32,
}

impl CopyEnd {
    /// Called before each read.
    pub(super) fn is_reached(&mut self, output: &Output, node: NodeId) -> bool {
        let position = output.nodes.get(node).map(|node| (node.decoder.bytes(), node.decoder.foreign_lines()));
        let position = position.unwrap_or_default();
        self.reads = if position == self.position { self.reads + 1 } else { 0 };
        self.position = position;
        self.reads > MOST_READS
    }
}

/// The output of one run.
pub(super) struct Output {
    pub(super) nodes: Nodes<NodeOutput>,
    /// Interleaves the lines when several nodes write into one trace.
    merge: Option<Interleaver>,
    cursor: Cursor,
    foreign_lines: Vec<String>,
    foreign: Foreign,
    shown: Vec<String>,
    tail: OutputTail,
    /// Reports that came by the log; those that were passed on are empty.
    reports: BTreeMap<(NodeId, u32), Vec<u8>>,
}

impl Output {
    /// Opens the output of a run, at the position up to which it was printed.
    pub(super) fn of(session: &Session<'_>, run: u32) -> anyhow::Result<Self> {
        let state = session.state();
        let cursor = session.records.cursor(&session.id, run, state.nodes().len())?;
        let foreign = Foreign::new(state.foreign_bytes());
        let seal = session.keys().seal().clone();
        Ok(Self::new(run, &seal, state.nodes().len(), cursor, state.shown_events().to_vec(), foreign))
    }

    /// Begins, or continues at the position of `cursor`.
    fn new(run: u32, seal: &Seal, count: usize, cursor: Cursor, shown: Vec<String>, foreign: Foreign) -> Self {
        let nodes = Nodes::new(count, |id| {
            let printed = cursor.get(id);
            NodeOutput {
                decoder: FrameDecoder::resume(run, seal.of_node(id), printed.offset)
                    .after_foreign_lines(u64::from(printed.foreign_lines)),
                copy: TraceCopyReader::new(id, run),
                printed,
                expected: 0,
                told: (false, false),
                batches: None,
                sought: false,
                gap_since: None,
                followed: 0,
                started: None,
                exited: None,
                ran: None,
                code: None,
                ready_report: 1,
            }
        });
        let merge = (count > 1).then(|| Interleaver::new(count));
        let (foreign_lines, tail, reports) = Default::default();
        Self { nodes, merge, cursor, foreign_lines, foreign, shown, tail, reports }
    }

    /// An earlier process printed some of this output.
    pub(super) fn is_resumed(&self) -> bool {
        self.nodes.rows().any(|node| node.printed != Position::default())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.nodes.rows().all(|node| node.decoder.is_complete())
    }

    /// Ids of the printed events of other writers, the newest last.
    pub(super) fn shown(&self) -> &[String] {
        &self.shown
    }

    /// The end of the output that this process printed.
    pub(super) fn take_tail(&mut self) -> OutputTail {
        std::mem::take(&mut self.tail)
    }

    /// Bytes of other writers printed in the job so far.
    pub(super) fn foreign_bytes(&self) -> u64 {
        self.foreign.job_printed()
    }

    /// Returns a sentence about the text of other writers that was left out, once.
    pub(super) fn take_left_out(&mut self) -> Option<String> {
        self.foreign.take_left_out()
    }

    /// Lines of other writers have arrived and are not printed yet.
    pub(super) fn has_foreign_lines(&self) -> bool {
        !self.foreign_lines.is_empty()
    }

    /// Takes events of the log.
    pub(super) fn push_events(&mut self, events: Vec<LogEvent>) {
        for event in events {
            let Some(stream) = StreamName::parse(&event.stream) else { continue };
            let Some(node) = self.nodes.get_mut(stream.node) else { continue };
            let mut foreign = Vec::new();
            let lines = node.decoder.push_message(&event.message);
            for line in &lines {
                if let Line::Report(number, report) = line {
                    self.reports.entry((stream.node, *number)).or_insert_with(|| report.clone());
                }
            }
            sort(lines, &mut self.foreign_lines, Some(&mut foreign));
            if !foreign.is_empty() && !self.shown.contains(&event.id) {
                self.foreign_lines.append(&mut foreign);
                self.shown.push(event.id);
                let over = self.shown.len().saturating_sub(REMEMBERED);
                self.shown.drain(..over);
            }
        }
    }

    /// Stores the reports that came by the log where all readers look for them; `true` when there were some.
    pub(super) async fn pass_on_reports(&mut self, exchange: &dyn Exchange) -> bool {
        let mut came = false;
        for ((node, number), report) in self.reports.iter_mut().filter(|(_, report)| !report.is_empty()) {
            came = true;
            match exchange.pass_on(*node, *number, report).await {
                Ok(()) => report.clear(),
                Err(error) => tracing::warn!(%error, "failed to store a report that came by the log"),
            }
        }
        came
    }

    /// Reads the next batches of a node's copy. Returns `true` when something came.
    pub(super) async fn read_copy(&mut self, exchange: &dyn Exchange, node: NodeId) -> Result<bool, CloudError> {
        let Some(state) = self.nodes.get_mut(node) else { return Ok(false) };
        let (decoder, lines) = (&mut state.decoder, &mut self.foreign_lines);
        if decoder.is_complete() {
            return Ok(false);
        }
        state.copy.read_on(exchange, &mut |text| sort(decoder.push_message(text), lines, None)).await
    }

    /// Some node's copy has more batches than were read.
    pub(super) fn copy_is_behind(&self) -> bool {
        self.nodes.rows().any(|node| node.copy.is_behind())
    }

    /// Positions the copy's reader at the first missing byte of a node.
    pub(super) async fn seek_copy(&mut self, exchange: &dyn Exchange, node: NodeId) -> Result<(), CloudError> {
        let Some(state) = self.nodes.get_mut(node) else { return Ok(()) };
        state.copy.seek(exchange, state.decoder.bytes(), state.batches).await?;
        state.sought = true;
        Ok(())
    }

    /// Prints the output that is in order, saves the position, and returns news about its ends.
    pub(super) fn print(&mut self, printer: &Printer, now: Duration) -> io::Result<Vec<EndSeen>> {
        for id in self.nodes.ids() {
            self.print_node(printer, id, now)?;
            self.print_merged(printer)?;
        }
        if let Some(merge) = &mut self.merge {
            merge.tick(now);
        }
        self.print_merged(printer)?;
        self.print_foreign_lines(printer)?;
        Ok(self.nodes.iter_mut().filter_map(|(id, node)| node.end_seen(id, printer)).collect())
    }

    /// Prints all output that has arrived, with a line for each gap.
    pub(super) fn print_incomplete(&mut self, printer: &Printer, now: Duration) -> io::Result<()> {
        for id in self.nodes.ids() {
            loop {
                self.print_node(printer, id, now)?;
                if let Some(merge) = &mut self.merge {
                    merge.flush(id);
                }
                self.print_merged(printer)?;
                let Some(node) = self.nodes.get_mut(id) else { break };
                let lines = node.decoder.missing_foreign_lines();
                if lines > 0 {
                    printer.warn(format!("{lines} lines of other writers on {id} are missing"));
                }
                let Some(gap) = node.decoder.skip_missing() else { break };
                node.printed.offset = gap.end;
                printer.warn(format!(
                    "{} bytes of output of {id} are missing, from byte {}",
                    gap.end - gap.start,
                    gap.start
                ));
            }
            if let Some(node) = self.nodes.get(id)
                && node.expected > node.decoder.bytes()
            {
                let (at, all) = (node.decoder.bytes(), node.expected);
                printer.warn(format!("the last {} bytes of output of {id} are missing, from byte {at}", all - at));
            }
        }
        self.print_foreign_lines(printer)
    }

    fn print_node(&mut self, printer: &Printer, id: NodeId, now: Duration) -> io::Result<()> {
        let Some(node) = self.nodes.get_mut(id) else { return Ok(()) };
        let bytes = node.decoder.take();
        if !bytes.is_empty() {
            metrics::add(&metrics::OUTPUT_BYTES, &[], crate::session::as_value(bytes.len() as u64));
        }
        if let Some(merge) = &mut self.merge {
            merge.push(id, &bytes, now);
            if node.decoder.is_complete() {
                merge.flush(id);
            }
            return Ok(());
        }
        self.tail.push(&bytes);
        let mut noted = Ok(());
        let (start, position) = (node.printed.offset, &mut node.printed);
        printer.write_counted(&bytes, |count| {
            position.offset = start + count as u64;
            if noted.is_ok() {
                noted = self.cursor.set(id, *position);
            }
        })?;
        noted
    }

    fn print_foreign_lines(&mut self, printer: &Printer) -> io::Result<()> {
        if self.foreign_lines.is_empty() {
            return Ok(());
        }
        for text in self.foreign_lines.drain(..) {
            if let Some(line) = self.foreign.admit(&text) {
                printer.line(format!("[container] {line}"));
            }
        }
        for (id, node) in self.nodes.iter_mut() {
            node.printed.foreign_lines = u32::try_from(node.decoder.foreign_lines()).unwrap_or(u32::MAX);
            self.cursor.set(id, node.printed)?;
        }
        Ok(())
    }

    fn print_merged(&mut self, printer: &Printer) -> io::Result<()> {
        let Some(merge) = &mut self.merge else { return Ok(()) };
        for piece in merge.take() {
            let Some(node) = self.nodes.get_mut(piece.node) else { continue };
            printer.write_data(&piece.bytes)?;
            self.tail.push(&piece.bytes);
            if !printer.is_broken() {
                node.printed.offset += piece.consumed as u64;
                self.cursor.set(piece.node, node.printed)?;
            }
        }
        Ok(())
    }
}

impl NodeOutput {
    /// Bytes that are known to exist are missing.
    pub(super) fn has_gap(&self) -> bool {
        self.decoder.missing().is_some()
            || self.decoder.missing_foreign_lines() > 0
            || self.expected > self.decoder.bytes()
    }

    /// The end frame has arrived, and all output before it.
    pub(super) fn has_all(&self) -> bool {
        self.decoder.is_complete()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.decoder.bytes()
    }

    /// Takes the node's exit report.
    pub(super) fn exited(&mut self, exit: &ExitReport, now: SystemTime) {
        (self.exited, self.code) = (self.exited.or(Some(now)), Some(exit.code));
        self.ran = exit.ran.map(Duration::from_millis);
        (self.expected, self.batches) = (exit.bytes, exit.copy);
    }

    /// The script has failed, and its container is kept: the exit report comes later.
    pub(super) fn failed(&mut self, code: i32, bytes: u64, now: SystemTime) {
        (self.exited, self.code, self.expected) = (Some(now), Some(code), bytes);
    }

    fn end_seen(&mut self, id: NodeId, printer: &Printer) -> Option<EndSeen> {
        let end = self.decoder.end().map(|end| (end.code, end.bytes));
        let now = (end.is_some(), self.decoder.is_complete());
        if now == self.told {
            return None;
        }
        self.told = now;
        self.code = self.code.or(end.map(|(code, _)| code));
        if now.1
            && let Err(error @ TraceError::Mismatch { .. }) = self.decoder.finish()
        {
            printer.warn(format!("the output of {id} was damaged on its way: {error}"));
        }
        Some(EndSeen { node: id, end, complete: now.1 })
    }
}

/// Sorts lines by writer: a frame with a wrong tag is another writer's. The copy holds only frames, so any other line in it is damage.
fn sort(lines: Vec<Line>, beside: &mut Vec<String>, mut foreign: Option<&mut Vec<String>>) {
    for line in lines {
        match line {
            Line::Foreign(text) => beside.push(text),
            Line::Unframed(text) | Line::Damaged(text) if !text.trim().is_empty() => {
                if let Some(foreign) = &mut foreign {
                    foreign.push(text);
                }
            }
            Line::Unframed(_) | Line::OtherRun(_) | Line::Damaged(_) | Line::Report(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::SealKey;
    use crate::trace::FrameEncoder;

    struct Harness {
        dir: tempfile::TempDir,
        printer: Printer,
        captured: crate::ui::Captured,
    }

    impl Harness {
        fn new() -> Self {
            let (printer, captured) = Printer::captured();
            Self { dir: tempfile::tempdir().unwrap(), printer, captured }
        }

        fn output(&self, nodes: usize) -> Output {
            let cursor = Cursor::open(&self.dir.path().join("cursor"), 1).unwrap();
            Output::new(1, &seal(), nodes, cursor, Vec::new(), Foreign::new(0))
        }
    }

    fn seal() -> Seal {
        Seal::Keyed(SealKey::new([7; 32]))
    }

    fn frames(encoder: &mut FrameEncoder, texts: &[&str]) -> Vec<String> {
        let frame = |text: &&str| {
            let mut line = Vec::new();
            encoder.encode(text.as_bytes(), &mut line);
            String::from_utf8(line).unwrap().trim_end().to_owned()
        };
        texts.iter().map(frame).collect()
    }

    fn event(id: &str, message: &str) -> LogEvent {
        LogEvent { stream: "x/algo-1-17".into(), timestamp: 1, id: id.into(), message: message.into() }
    }

    #[test]
    fn a_process_that_takes_over_prints_on() {
        let harness = Harness::new();
        let mut encoder = FrameEncoder::new(1, seal().of_node(NodeId::LEADER));
        let mut lines = frames(&mut encoder, &["one\n", "two\n", "three\n"]);
        let mut end = Vec::new();
        encoder.end(0, &mut end);
        lines.push(String::from_utf8(end).unwrap().trim_end().to_owned());
        let mut first = harness.output(1);
        first.push_events(vec![event("a", &lines[0]), event("b", &lines[1])]);
        first.print(&harness.printer, Duration::ZERO).unwrap();
        drop(first);
        let mut second = harness.output(1);
        assert!(second.is_resumed());
        second.push_events(lines.iter().enumerate().map(|(id, line)| event(&id.to_string(), line)).collect());
        let ends = second.print(&harness.printer, Duration::ZERO).unwrap();
        assert_eq!(ends, [EndSeen { node: NodeId::LEADER, end: Some((0, 14)), complete: true }]);
        assert_eq!(harness.captured.data(), b"one\ntwo\nthree\n");
        assert_eq!(harness.captured.text(), "", "no damage is told");
    }

    #[test]
    fn text_of_other_writers_is_shown_once_and_marked() {
        let harness = Harness::new();
        let mut output = harness.output(1);
        output.push_events(vec![event("a", "library says"), event("a", "library says"), event("b", "library says")]);
        output.print(&harness.printer, Duration::ZERO).unwrap();
        assert_eq!(harness.captured.text(), "[container] library says\n[container] library says\n");
        assert_eq!(output.shown(), ["a", "b"]);
        assert_eq!(harness.captured.data(), b"");
    }

    #[test]
    fn frames_that_are_not_of_this_session_are_text_of_other_writers() {
        let harness = Harness::new();
        let other = Seal::Keyed(SealKey::new([8; 32])).of_node(NodeId::LEADER);
        let lines = frames(&mut FrameEncoder::new(1, other), &["forged"]);
        let mut output = harness.output(1);
        output.push_events(vec![event("a", &lines[0])]);
        output.print(&harness.printer, Duration::ZERO).unwrap();
        assert_eq!(harness.captured.text(), format!("[container] {}\n", lines[0]));
        assert_eq!(harness.captured.data(), b"");
    }

    #[test]
    fn a_gap_is_told_in_one_line_and_the_rest_is_printed() {
        let harness = Harness::new();
        let lines = frames(&mut FrameEncoder::new(1, seal().of_node(NodeId::LEADER)), &["one\n", "two\n", "three\n"]);
        let mut output = harness.output(1);
        output.push_events(vec![event("a", &lines[0]), event("c", &lines[2])]);
        output.print_incomplete(&harness.printer, Duration::ZERO).unwrap();
        assert_eq!(harness.captured.data(), b"one\nthree\n");
        assert_eq!(harness.captured.text(), "warning: 4 bytes of output of algo-1 are missing, from byte 4\n");
        assert_eq!(Cursor::open(&harness.dir.path().join("cursor"), 1).unwrap().get(NodeId::LEADER).offset, 14);
    }

    #[test]
    fn lines_of_several_nodes_are_labeled_and_counted_apart() {
        let harness = Harness::new();
        let mut output = harness.output(2);
        let line = frames(&mut FrameEncoder::new(1, seal().of_node(NodeId::LEADER)), &["hello\nwor"]);
        output.push_events(vec![event("a", &line[0])]);
        output.print(&harness.printer, Duration::ZERO).unwrap();
        assert_eq!(harness.captured.data(), b"hello\n");
        assert_eq!(Cursor::open(&harness.dir.path().join("cursor"), 1).unwrap().get(NodeId::LEADER).offset, 6);
    }
}
