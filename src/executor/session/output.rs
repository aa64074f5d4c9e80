//! The output of one run on all nodes: from two sources into one decoder a node, and out to the job log in order.
//!
//! What was printed is noted as it goes out, so that a process that takes over prints on without a gap and nothing twice.

use std::io;
use std::time::Duration;

use crate::base::stream::StreamName;
use crate::cloud::{CloudError, LogEvent, ObjectStore};
use crate::protocol::keys::Layout;
use crate::session::copy::CopyReader;
use crate::session::cursor::{Cursor, Position};
use crate::session::foreign::Foreign;
use crate::trace::{FrameDecoder, Interleaver, Line, TraceError};
use crate::ui::Printer;

/// How many shown events of other writers are remembered, so that none is shown twice.
const REMEMBERED: usize = 256;

/// A node's output.
struct Node {
    name: String,
    decoder: FrameDecoder,
    copy: CopyReader,
    printed: Position,
    /// Size of the whole, from the node's report; 0 while it is not known.
    expected: u64,
    /// What was told of its end.
    told: (bool, bool),
}

/// Something about the end of a node's output has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndSeen {
    pub(super) node: String,
    /// Exit code and size, from the end frame.
    pub(super) end: Option<(i32, u64)>,
    pub(super) complete: bool,
}

/// The output of one run.
pub(super) struct Output {
    nodes: Vec<Node>,
    /// Where several nodes write into one trace.
    merge: Option<Interleaver>,
    cursor: Cursor,
    beside: Vec<String>,
    foreign: Foreign,
    shown: Vec<String>,
}

impl Output {
    /// Begins, or goes on where `cursor` stands.
    pub(super) fn new(
        layout: &Layout,
        run: u32,
        names: &[String],
        cursor: Cursor,
        shown: Vec<String>,
        foreign: Foreign,
    ) -> Self {
        let node = |(index, name): (usize, &String)| {
            let printed = cursor.get(index);
            Node {
                name: name.clone(),
                decoder: FrameDecoder::resume(run, printed.offset).after_beside(u64::from(printed.beside)),
                copy: CopyReader::new(layout, name, run),
                printed,
                expected: 0,
                told: (false, false),
            }
        };
        let nodes = names.iter().enumerate().map(node).collect();
        let merge = (names.len() > 1).then(|| Interleaver::new(names));
        Self { nodes, merge, cursor, beside: Vec::new(), foreign, shown }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Something was printed by a process before this one.
    pub(super) fn is_resumed(&self) -> bool {
        self.nodes.iter().any(|node| node.printed != Position::default())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| node.decoder.is_complete())
    }

    /// Bytes of a node's output that are known to exist and are not here.
    pub(super) fn has_gap(&self, node: &str) -> bool {
        self.node(node).is_some_and(|node| {
            node.decoder.missing().is_some()
                || node.decoder.missing_beside() > 0
                || node.expected > node.decoder.bytes()
        })
    }

    /// The end of a node's output is here, and all before it.
    pub(super) fn has_all(&self, node: &str) -> bool {
        self.node(node).is_some_and(|node| node.decoder.is_complete())
    }

    pub(super) fn bytes(&self, node: &str) -> u64 {
        self.node(node).map_or(0, |node| node.decoder.bytes())
    }

    /// Ids of the events of other writers that were shown, the newest last.
    pub(super) fn shown(&self) -> &[String] {
        &self.shown
    }

    /// How much of other writers the job has printed so far, in bytes.
    pub(super) fn foreign_bytes(&self) -> u64 {
        self.foreign.job_printed()
    }

    /// What of other writers was not printed, in words; once.
    pub(super) fn take_left_out(&mut self) -> Option<String> {
        self.foreign.take_left_out()
    }

    /// Lines of other writers are here and not printed yet.
    pub(super) fn has_beside(&self) -> bool {
        !self.beside.is_empty()
    }

    /// Takes events of the log.
    pub(super) fn push_events(&mut self, events: Vec<LogEvent>) {
        for event in events {
            let Some(stream) = StreamName::parse(&event.stream) else { continue };
            let name = stream.node.to_string();
            let Some(node) = self.nodes.iter_mut().find(|other| other.name == name) else { continue };
            let mut foreign = Vec::new();
            sort(node.decoder.push_message(&event.message), &mut self.beside, Some(&mut foreign));
            if !foreign.is_empty() && !self.shown.contains(&event.id) {
                self.beside.append(&mut foreign);
                self.shown.push(event.id);
                let over = self.shown.len().saturating_sub(REMEMBERED);
                self.shown.drain(..over);
            }
        }
    }

    /// Reads a node's copy on. `true` when something came.
    pub(super) async fn read_copy(&mut self, objects: &dyn ObjectStore, node: &str) -> Result<bool, CloudError> {
        let Some(state) = self.nodes.iter_mut().find(|other| other.name == node) else { return Ok(false) };
        let (decoder, beside) = (&mut state.decoder, &mut self.beside);
        if decoder.is_complete() {
            return Ok(false);
        }
        state.copy.read_on(objects, &mut |text| sort(decoder.push_message(text), beside, None)).await
    }

    /// The agent is ahead of some node's reader.
    pub(super) fn copy_is_behind(&self) -> bool {
        self.nodes.iter().any(|node| node.copy.is_behind())
    }

    /// Goes to the first byte of a node that is missing; `batches` is their number when the copy is complete.
    pub(super) async fn seek_copy(
        &mut self,
        objects: &dyn ObjectStore,
        node: &str,
        batches: Option<u32>,
    ) -> Result<(), CloudError> {
        let Some(state) = self.nodes.iter_mut().find(|other| other.name == node) else { return Ok(()) };
        state.copy.seek(objects, state.decoder.bytes(), batches).await
    }

    /// A node has told how much output its script made.
    pub(super) fn expect(&mut self, node: &str, bytes: u64) {
        if let Some(state) = self.nodes.iter_mut().find(|other| other.name == node) {
            state.expected = bytes;
        }
    }

    /// Prints what is in order, notes it, and tells what became known of ends.
    pub(super) fn print(&mut self, printer: &Printer, now: Duration) -> io::Result<Vec<EndSeen>> {
        for index in 0..self.nodes.len() {
            self.print_node(printer, index, now)?;
            self.print_merged(printer)?;
        }
        if let Some(merge) = &mut self.merge {
            merge.tick(now);
        }
        self.print_merged(printer)?;
        self.print_beside(printer)?;
        Ok(self.nodes.iter_mut().filter_map(|node| node.end_seen(printer)).collect())
    }

    /// Prints whatever is here, with a line for each gap.
    pub(super) fn print_incomplete(&mut self, printer: &Printer, now: Duration) -> io::Result<()> {
        for index in 0..self.nodes.len() {
            loop {
                self.print_node(printer, index, now)?;
                if let Some(merge) = &mut self.merge {
                    merge.flush(index);
                }
                self.print_merged(printer)?;
                let Some(node) = self.nodes.get_mut(index) else { break };
                let lines = node.decoder.missing_beside();
                if lines > 0 {
                    printer.warn(format!("{lines} lines of other writers on {} are missing", node.name));
                }
                let Some(gap) = node.decoder.skip_missing() else { break };
                node.printed.offset = gap.end;
                printer.warn(format!(
                    "{} bytes of output of {} are missing, from byte {}",
                    gap.end - gap.start,
                    node.name,
                    gap.start
                ));
            }
            if let Some(node) = self.nodes.get(index)
                && node.expected > node.decoder.bytes()
            {
                let (at, all) = (node.decoder.bytes(), node.expected);
                printer.warn(format!(
                    "the last {} bytes of output of {} are missing, from byte {at}",
                    all - at,
                    node.name
                ));
            }
        }
        self.print_beside(printer)
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    fn print_node(&mut self, printer: &Printer, index: usize, now: Duration) -> io::Result<()> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        let bytes = node.decoder.take();
        if let Some(merge) = &mut self.merge {
            merge.push(index, &bytes, now);
            if node.decoder.is_complete() {
                merge.flush(index);
            }
            return Ok(());
        }
        let mut noted = Ok(());
        let (start, position) = (node.printed.offset, &mut node.printed);
        printer.write_counted(&bytes, |count| {
            position.offset = start + count as u64;
            if noted.is_ok() {
                noted = self.cursor.set(index, *position);
            }
        })?;
        noted
    }

    fn print_beside(&mut self, printer: &Printer) -> io::Result<()> {
        if self.beside.is_empty() {
            return Ok(());
        }
        for text in self.beside.drain(..) {
            if let Some(line) = self.foreign.admit(&text) {
                printer.line(format!("[container] {line}"));
            }
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.printed.beside = u32::try_from(node.decoder.beside()).unwrap_or(u32::MAX);
            self.cursor.set(index, node.printed)?;
        }
        Ok(())
    }

    fn print_merged(&mut self, printer: &Printer) -> io::Result<()> {
        let Some(merge) = &mut self.merge else { return Ok(()) };
        for piece in merge.take() {
            let Some(node) = self.nodes.get_mut(piece.node) else { continue };
            printer.write_data(&piece.bytes)?;
            if !printer.is_broken() {
                node.printed.offset += piece.consumed as u64;
                self.cursor.set(piece.node, node.printed)?;
            }
        }
        Ok(())
    }
}

impl Node {
    fn end_seen(&mut self, printer: &Printer) -> Option<EndSeen> {
        let end = self.decoder.end().map(|end| (end.code, end.bytes));
        let now = (end.is_some(), self.decoder.is_complete());
        if now == self.told {
            return None;
        }
        self.told = now;
        if now.1
            && let Err(error @ TraceError::Mismatch { .. }) = self.decoder.finish()
        {
            printer.warn(format!("the output of {} was damaged on its way: {error}", self.name));
        }
        Some(EndSeen { node: self.name.clone(), end, complete: now.1 })
    }
}

/// Keeps what other writers wrote. The copy holds frames alone, so what is none there is damage.
fn sort(lines: Vec<Line>, beside: &mut Vec<String>, mut foreign: Option<&mut Vec<String>>) {
    for line in lines {
        match line {
            Line::Beside(text) => beside.push(text),
            Line::Foreign(text) if !text.trim().is_empty() => {
                if let Some(foreign) = &mut foreign {
                    foreign.push(text);
                }
            }
            Line::Foreign(_) | Line::OtherRun(_) | Line::Damaged(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FrameEncoder;

    struct Desk {
        dir: tempfile::TempDir,
        printer: Printer,
        captured: crate::ui::Captured,
    }

    impl Desk {
        fn new() -> Self {
            let (printer, captured) = Printer::captured();
            Self { dir: tempfile::tempdir().unwrap(), printer, captured }
        }

        fn output(&self, names: &[&str]) -> Output {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let cursor = Cursor::open(&self.dir.path().join("cursor"), 1).unwrap();
            Output::new(&Layout::new("sessions/x"), 1, &names, cursor, Vec::new(), Foreign::new(0))
        }
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
        let desk = Desk::new();
        let mut encoder = FrameEncoder::new(1);
        let mut lines = frames(&mut encoder, &["one\n", "two\n", "three\n"]);
        let mut end = Vec::new();
        encoder.end(0, &mut end);
        lines.push(String::from_utf8(end).unwrap().trim_end().to_owned());
        let mut first = desk.output(&["algo-1"]);
        first.push_events(vec![event("a", &lines[0]), event("b", &lines[1])]);
        first.print(&desk.printer, Duration::ZERO).unwrap();
        drop(first);
        let mut second = desk.output(&["algo-1"]);
        assert!(second.is_resumed());
        second.push_events(lines.iter().enumerate().map(|(id, line)| event(&id.to_string(), line)).collect());
        let ends = second.print(&desk.printer, Duration::ZERO).unwrap();
        assert_eq!(ends, [EndSeen { node: "algo-1".into(), end: Some((0, 14)), complete: true }]);
        assert_eq!(desk.captured.data(), b"one\ntwo\nthree\n");
        assert_eq!(desk.captured.text(), "", "no damage is told");
    }

    #[test]
    fn text_of_other_writers_is_shown_once_and_marked() {
        let desk = Desk::new();
        let mut output = desk.output(&["algo-1"]);
        output.push_events(vec![event("a", "library says"), event("a", "library says"), event("b", "library says")]);
        output.print(&desk.printer, Duration::ZERO).unwrap();
        assert_eq!(desk.captured.text(), "[container] library says\n[container] library says\n");
        assert_eq!(output.shown(), ["a", "b"]);
        assert_eq!(desk.captured.data(), b"");
    }

    #[test]
    fn a_gap_is_told_in_one_line_and_the_rest_is_printed() {
        let desk = Desk::new();
        let lines = frames(&mut FrameEncoder::new(1), &["one\n", "two\n", "three\n"]);
        let mut output = desk.output(&["algo-1"]);
        output.push_events(vec![event("a", &lines[0]), event("c", &lines[2])]);
        output.print_incomplete(&desk.printer, Duration::ZERO).unwrap();
        assert_eq!(desk.captured.data(), b"one\nthree\n");
        assert_eq!(desk.captured.text(), "warning: 4 bytes of output of algo-1 are missing, from byte 4\n");
        assert_eq!(Cursor::open(&desk.dir.path().join("cursor"), 1).unwrap().get(0).offset, 14);
    }

    #[test]
    fn lines_of_several_nodes_are_labeled_and_counted_apart() {
        let desk = Desk::new();
        let mut output = desk.output(&["algo-1", "algo-2"]);
        let line = frames(&mut FrameEncoder::new(1), &["hello\nwor"]);
        output.push_events(vec![event("a", &line[0])]);
        output.print(&desk.printer, Duration::ZERO).unwrap();
        assert_eq!(desk.captured.data(), b"hello\n");
        assert_eq!(Cursor::open(&desk.dir.path().join("cursor"), 1).unwrap().get(0).offset, 6);
    }
}
