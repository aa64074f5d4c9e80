//! Interleaves the output of several nodes in one trace by whole lines. Lines of the first node are unchanged, so that patterns over
//! the trace match them; lines of other nodes get a label with the node's name. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::node::{NodeId, Nodes};

/// A line without an end (a prompt, a progress bar) is held for this long.
pub const HOLD_LIMIT: Duration = Duration::from_secs(1);
/// Longer lines are written in parts, with the label before the first.
const LONGEST: usize = 3072;
/// Largest piece: a pipe write of this size is atomic.
const PIECE: usize = 4096;

/// Bytes to write at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As given to [`Interleaver::push`].
    pub node: NodeId,
    /// With the label, and with a newline that ends another node's open line. At most 4,096 bytes.
    pub bytes: Vec<u8>,
    /// Number of bytes of the node's own output in this piece.
    pub consumed: usize,
}

/// Merges the output of several nodes. A line ends with `\n`, or with a `\r` that is not before a `\n`: the next output of a progress
/// bar then overwrites the label too.
#[derive(Debug)]
pub struct Interleaver {
    nodes: Nodes<Pending>,
    /// The node whose unfinished line is at the end of the trace.
    open: Option<NodeId>,
    pieces: VecDeque<Piece>,
}

/// Output of a node that was not written yet.
#[derive(Debug)]
struct Pending {
    /// Empty for the first node.
    label: Vec<u8>,
    held: Vec<u8>,
    /// Arrival of the first held byte.
    since: Duration,
    /// The last written part did not end its line.
    mid_line: bool,
}

impl Interleaver {
    pub fn new(count: usize) -> Self {
        let node = |id: NodeId| Pending {
            label: if id == NodeId::LEADER { Vec::new() } else { format!("[{id}] ").into_bytes() },
            held: Vec::new(),
            since: Duration::ZERO,
            mid_line: false,
        };
        Self { nodes: Nodes::new(count, node), open: None, pieces: VecDeque::new() }
    }

    /// Takes a node's next bytes.
    pub fn push(&mut self, node: NodeId, bytes: &[u8], now: Duration) {
        let Some(state) = self.nodes.get_mut(node) else { return };
        if bytes.is_empty() {
            return;
        }
        if state.held.is_empty() {
            state.since = now;
        }
        state.held.extend_from_slice(bytes);
        let whole = whole_lines(&state.held);
        if whole > 0 {
            let rest = state.held.split_off(whole);
            let lines = std::mem::replace(&mut state.held, rest);
            state.since = now;
            self.write(node, &lines);
        }
    }

    /// Writes bytes that were held for [`HOLD_LIMIT`].
    pub fn tick(&mut self, now: Duration) {
        for node in self.nodes.ids() {
            if self.nodes.get(node).is_some_and(|state| !state.held.is_empty() && now >= state.since + HOLD_LIMIT) {
                self.flush(node);
            }
        }
    }

    /// Writes all held bytes of a node: it has ended.
    pub fn flush(&mut self, node: NodeId) {
        let Some(state) = self.nodes.get_mut(node) else { return };
        let held = std::mem::take(&mut state.held);
        self.write(node, &held);
    }

    /// Closes the open line before other text is written; returns false when there is none.
    pub fn end_line(&mut self) -> bool {
        if let Some(node) = self.open.take().and_then(|node| self.nodes.get_mut(node)) {
            node.mid_line = false;
            return true;
        }
        false
    }

    /// Takes the pieces to write, in order.
    pub fn take(&mut self) -> Vec<Piece> {
        self.pieces.drain(..).collect()
    }

    fn write(&mut self, node: NodeId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // One byte more: a `\n` after a `\r` at the end of the part belongs to it.
            let ahead = rest.get(..=LONGEST).unwrap_or(rest);
            let end = line_end(ahead).unwrap_or(rest.len()).min(LONGEST);
            let (part, after) = rest.split_at(end);
            rest = after;
            self.write_part(node, part);
        }
    }

    /// Writes a part of one line.
    fn write_part(&mut self, node: NodeId, part: &[u8]) {
        let mut bytes = Vec::new();
        if self.open.is_some_and(|open| open != node) {
            bytes.push(b'\n');
            self.end_line();
        }
        let Some(state) = self.nodes.get_mut(node) else { return };
        if !state.mid_line {
            bytes.extend_from_slice(&state.label);
        }
        bytes.extend_from_slice(part);
        let ended = part.ends_with(b"\n");
        // After `\r` the line stays open in the trace, but the next output needs a label.
        state.mid_line = !ended && !part.ends_with(b"\r");
        self.open = (!ended).then_some(node);
        match self.pieces.back_mut() {
            Some(last) if last.node == node && last.bytes.len() + bytes.len() <= PIECE => {
                last.bytes.append(&mut bytes);
                last.consumed += part.len();
            }
            _ => self.pieces.push_back(Piece { node, bytes, consumed: part.len() }),
        }
    }
}

/// Length of the whole lines at the beginning. A `\r` at the very end does not count: a `\n` may follow.
fn whole_lines(bytes: &[u8]) -> usize {
    let newline = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let tail = bytes.get(newline..).unwrap_or_default();
    let before_last = tail.len().saturating_sub(1);
    let bar = tail.get(..before_last).unwrap_or_default().iter().rposition(|byte| *byte == b'\r');
    newline + bar.map_or(0, |at| at + 1)
}

/// Length of the first line, including its end.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
    let end = at + 1;
    Some(if bytes.get(at) == Some(&b'\r') && bytes.get(end) == Some(&b'\n') { end + 1 } else { end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Duration = Duration::ZERO;

    fn node(index: usize) -> NodeId {
        NodeId::at(index)
    }

    fn two() -> Interleaver {
        Interleaver::new(2)
    }

    fn text(interleaver: &mut Interleaver) -> String {
        let pieces: Vec<u8> = interleaver.take().into_iter().flat_map(|piece| piece.bytes).collect();
        String::from_utf8(pieces).unwrap()
    }

    #[test]
    fn each_line_names_its_node_whatever_the_pieces() {
        let mut nodes = two();
        for piece in ["a", "b\nc", "\n\n", "end"] {
            nodes.push(node(1), piece.as_bytes(), T0);
        }
        assert_eq!(text(&mut nodes), "[algo-2] ab\n[algo-2] c\n[algo-2] \n");
        nodes.flush(node(1));
        assert_eq!(text(&mut nodes), "[algo-2] end");
    }

    #[test]
    fn the_first_nodes_output_is_as_its_script_wrote_it() {
        let mut nodes = two();
        let output = "section_start:1:x\r\x1b[0Kx\nTOTAL 100 20 80%\n 10%\r 20%\r\nend";
        nodes.push(node(0), output.as_bytes(), T0);
        nodes.flush(node(0));
        assert_eq!(text(&mut nodes), output);
    }

    #[test]
    fn a_prompt_is_shown_in_time_and_goes_on_unless_another_node_spoke() {
        let mut nodes = two();
        nodes.push(node(0), b"name: ", T0);
        nodes.tick(HOLD_LIMIT / 2);
        assert_eq!(text(&mut nodes), "");
        nodes.tick(HOLD_LIMIT);
        assert_eq!(text(&mut nodes), "name: ");
        nodes.push(node(0), b"x\n", HOLD_LIMIT);
        assert_eq!(text(&mut nodes), "x\n");
        nodes.push(node(0), b"again: ", HOLD_LIMIT);
        nodes.tick(HOLD_LIMIT * 2);
        nodes.push(node(1), b"hello\n", HOLD_LIMIT * 2);
        nodes.push(node(0), b"y\n", HOLD_LIMIT * 2);
        assert_eq!(text(&mut nodes), "again: \n[algo-2] hello\ny\n");
    }

    #[test]
    fn a_progress_bar_keeps_its_label() {
        let mut nodes = two();
        nodes.push(node(1), b" 10%\r 20%\r 30%", T0);
        assert_eq!(text(&mut nodes), "[algo-2]  10%\r[algo-2]  20%\r");
        nodes.push(node(1), b"\r", T0);
        nodes.push(node(1), b"\nnext\r\n", T0);
        assert_eq!(text(&mut nodes), "[algo-2]  30%\r\n[algo-2] next\r\n");
    }

    #[test]
    fn a_long_line_comes_in_parts_with_one_label() {
        let mut nodes = two();
        let line = format!("{}\n", "x".repeat(3 * LONGEST));
        nodes.push(node(1), line.as_bytes(), T0);
        let pieces = nodes.take();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.bytes.len() <= 4096));
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
        assert_eq!(bytes, format!("[algo-2] {line}").as_bytes());
    }

    proptest! {
        /// Without labels and breaks, every node's bytes are complete and in order, and all are counted.
        #[test]
        fn nothing_is_lost_and_order_is_kept(
            steps in prop::collection::vec((0..2_usize, "[a-c\r\n]{0,6}", any::<bool>()), 0..60)
        ) {
            let mut nodes = two();
            let mut written = [String::new(), String::new()];
            let mut shown = [String::new(), String::new()];
            let mut consumed = [0, 0];
            let mut now = T0;
            let mut pieces = Vec::new();
            for (node, bytes, wait) in steps {
                written[node].push_str(&bytes);
                nodes.push(NodeId::at(node), bytes.as_bytes(), now);
                if wait {
                    now += HOLD_LIMIT;
                    nodes.tick(now);
                }
                pieces.extend(nodes.take());
            }
            nodes.flush(node(0));
            nodes.flush(node(1));
            pieces.extend(nodes.take());
            let mut open = None;
            for piece in pieces {
                consumed[piece.node.index()] += piece.consumed;
                let label = if piece.node == NodeId::LEADER { "\0" } else { "[algo-2] " };
                let text = String::from_utf8(piece.bytes).unwrap();
                // An open line of another node is ended first.
                let broken = open.is_some_and(|open| open != piece.node);
                let own = if broken { text.strip_prefix('\n').unwrap() } else { &text };
                shown[piece.node.index()].push_str(&own.replace(label, ""));
                open = (!text.ends_with('\n')).then_some(piece.node);
            }
            prop_assert_eq!(&shown, &written);
            prop_assert_eq!(consumed, [written[0].len(), written[1].len()]);
        }
    }
}
