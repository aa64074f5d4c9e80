//! Tests of the decoder against damage, losses and the log service's changes; a simple model computes the expected result.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::base::node::NodeId;
use crate::base::seal::{Seal, SealKey};
use crate::config::env::short_or_long;
use crate::trace::frame::FrameEncoder;

fn node_seal() -> NodeSeal {
    Seal::Keyed(SealKey::new([7; 32])).of_node(NodeId::LEADER)
}

fn sum(run: u32, number: u64, kind: u8, payload: &[u8]) -> String {
    FrameSeal::new(run, node_seal()).tag(number, kind, payload)
}

fn lines(out: Vec<u8>) -> Vec<String> {
    String::from_utf8(out).unwrap().split_terminator('\n').map(str::to_owned).collect()
}

fn frames(run: u32, pieces: &[Vec<u8>], code: i32) -> Vec<String> {
    let mut encoder = FrameEncoder::new(run, node_seal());
    let mut out = Vec::new();
    for piece in pieces {
        encoder.encode(piece, &mut out);
    }
    encoder.end(code, &mut out);
    lines(out)
}

/// Changes a container's lines as the log service does: control characters become `#ooo`, lines are cut at
/// 16,384 bytes, and lines that are blank or begin with white space are joined to the message before.
fn mangle(lines: &[String]) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for line in lines {
        let mut rest = line.as_str();
        while rest.len() > 16_384 {
            let cut = rest.floor_char_boundary(16_384);
            messages.push(rest[..cut].to_owned());
            rest = &rest[cut..];
        }
        let mut text = String::new();
        for character in rest.chars() {
            match u32::from(character) {
                code @ (0..0x20 | 0x7f) => write!(text, "#{code:03o}").unwrap(),
                _ => text.push(character),
            }
        }
        match messages.last_mut() {
            Some(last) if text.is_empty() || text.starts_with(char::is_whitespace) => {
                last.push('\n');
                last.push_str(&text);
            }
            _ => messages.push(text),
        }
    }
    messages
}

#[test]
fn foreign_text_other_runs_and_damage_are_told_apart() {
    let other = frames(2, &[b"x".to_vec()], 0);
    let mine = frames(1, &[b"hello\n".to_vec()], 5);
    let damaged = mine[0].replace("hello", "hullo");
    let message = format!("12:30:59 starting\n{}\n{damaged}\n{}\n  indented\n\n{}", other[0], mine[0], mine[1]);
    let mut decoder = FrameDecoder::new(1, node_seal());
    assert_eq!(
        decoder.push_message(&message),
        [
            Line::Unframed("12:30:59 starting".to_owned()),
            Line::OtherRun(other[0].clone()),
            Line::Damaged(damaged.clone()),
            Line::Unframed("  indented".to_owned()),
            Line::Unframed(String::new()),
        ]
    );
    assert_eq!(decoder.take(), b"hello\n");
    assert!(decoder.take().is_empty());
    assert_eq!(decoder.finish().unwrap().code, 5);
}

#[test]
fn frames_of_another_session_node_or_run_are_never_output() {
    let frames_of = |key, node, run| {
        let mut out = Vec::new();
        let mut encoder = FrameEncoder::new(run, Seal::Keyed(SealKey::new([key; 32])).of_node(node));
        encoder.encode(b"forged\n", &mut out);
        encoder.encode_foreign(b"forged", &mut out);
        encoder.end(0, &mut out);
        lines(out)
    };
    let mut decoder = FrameDecoder::new(1, node_seal());
    for (key, node, run) in [(8, NodeId::LEADER, 1), (7, NodeId::at(1), 1), (8, NodeId::LEADER, 2)] {
        for line in frames_of(key, node, run) {
            assert_eq!(decoder.push_message(&line), [Line::Damaged(line.clone())]);
        }
    }
    for line in frames_of(7, NodeId::LEADER, 2) {
        // Run, place and kind are below the tag.
        assert_eq!(decoder.push_message(&line), [Line::OtherRun(line.clone())]);
        let moved = line.replacen("2:", "1:", 1);
        assert_eq!(decoder.push_message(&moved), [Line::Damaged(moved.clone())]);
    }
    assert_eq!((decoder.take(), decoder.end()), (Vec::new(), None));
}

#[test]
fn a_session_without_a_key_has_the_frames_of_the_version_that_began_it() {
    let without = || Seal::Absent.of_node(NodeId::LEADER);
    let mut out = Vec::new();
    let mut encoder = FrameEncoder::new(2, without());
    encoder.encode(b"Found 2 GPUs\n", &mut out);
    encoder.end(0, &mut out);
    let lines = lines(out);
    assert_eq!(lines[0], r"2:0:57bb1e81|Found 2 GPUs\n");
    let mut decoder = FrameDecoder::new(2, without());
    assert!(lines.iter().all(|line| decoder.push_message(line).is_empty()));
    assert_eq!(decoder.take(), b"Found 2 GPUs\n");
    decoder.finish().unwrap();
    let mut keyed = FrameDecoder::new(2, node_seal());
    assert_eq!(keyed.push_message(&lines[0]), [Line::Damaged(lines[0].clone())]);
}

#[test]
fn a_gap_is_named_until_it_is_filled() {
    let lines = frames(1, &[b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()], 0);
    let mut decoder = FrameDecoder::new(1, node_seal());
    assert_eq!(decoder.missing(), None);
    assert_eq!(decoder.finish(), Err(TraceError::NoEnd { run: 1 }));
    decoder.push_message(&lines[3]);
    assert_eq!(decoder.missing(), Some(0..6));
    decoder.push_message(&lines[2]);
    assert_eq!(decoder.missing(), Some(0..4));
    decoder.push_message(&lines[0]);
    assert_eq!(decoder.take(), b"aa");
    assert_eq!(decoder.missing(), Some(2..4));
    assert!(!decoder.is_complete());
    assert_eq!(decoder.finish(), Err(TraceError::Incomplete { run: 1, missing: 2..4 }));
    decoder.push_message(&lines[1]);
    assert_eq!(decoder.take(), b"bbcc");
    assert_eq!(decoder.missing(), None);
    assert!(decoder.is_complete());
}

#[test]
fn a_gap_that_is_given_up_is_not_called_complete_output() {
    let lines = frames(1, &[b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()], 0);
    let mut decoder = FrameDecoder::new(1, node_seal());
    for line in [&lines[0], &lines[2], &lines[3]] {
        decoder.push_message(line);
    }
    assert_eq!(decoder.skip_missing(), Some(2..4));
    assert_eq!(decoder.skip_missing(), None);
    assert_eq!(decoder.take(), b"aacc");
    assert!(decoder.is_complete());
    assert!(matches!(decoder.finish(), Err(TraceError::Mismatch { .. })));
}

#[test]
fn output_that_does_not_fit_the_hash_is_an_error() {
    let mut decoder = FrameDecoder::new(1, node_seal());
    decoder.push_message(&frames(1, &[b"forged".to_vec()], 0)[0]);
    decoder.push_message(&frames(1, &[b"honest".to_vec()], 0)[1]);
    assert!(decoder.is_complete());
    assert!(matches!(decoder.finish(), Err(TraceError::Mismatch { bytes: 6, .. })));
}

#[test]
fn frames_beyond_the_end_or_the_number_range_are_damage() {
    let mut decoder = FrameDecoder::new(1, node_seal());
    let long = frames(1, &[b"longer".to_vec()], 0);
    decoder.push_message(&frames(1, &[b"short".to_vec()], 0)[1]);
    assert_eq!(decoder.push_message(&long[0]), [Line::Damaged(long[0].clone())]);
    let sum = sum(1, u64::MAX, frame::DATA, b"x");
    let line = format!("1:{}:{sum}|x", u64::MAX);
    assert_eq!(decoder.push_message(&line), [Line::Damaged(line.clone())]);
}

#[test]
fn memory_out_of_order_is_bounded_and_refilled() {
    let pieces: Vec<Vec<u8>> = (0..50u8).map(|number| vec![number; 1000]).collect();
    let lines = frames(1, &pieces, 0);
    let mut decoder = FrameDecoder::with_limit(1, node_seal(), 10_000);
    for line in lines.iter().skip(1).rev() {
        decoder.push_message(line);
        assert!(decoder.waiting_cost <= 10_000);
    }
    assert!(decoder.refused() > 0);
    for line in &lines {
        decoder.push_message(line);
    }
    assert_eq!(decoder.take(), pieces.concat());
    assert_eq!(decoder.waiting_cost, 0);
    decoder.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(short_or_long(32, 256)))]

    #[test]
    fn any_order_duplicates_and_losses_give_the_same_bytes(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40),
        first in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        order in any::<u64>(),
        code in any::<i32>(),
    ) {
        let lines = frames(9, &pieces, code);
        let mut decoder = FrameDecoder::new(9, node_seal());
        let mut taken = Vec::new();
        // The first source: any lines, any order, with losses and duplicates.
        for index in first {
            prop_assert!(decoder.push_message(index.get::<String>(&lines)).is_empty());
            taken.extend(decoder.take());
        }
        // The second source has all of them, rotated.
        let shift = usize::try_from(order % lines.len() as u64).unwrap();
        for line in lines.iter().cycle().skip(shift).take(lines.len()) {
            prop_assert!(decoder.push_message(line).is_empty());
            taken.extend(decoder.take());
        }
        prop_assert_eq!(&taken, &pieces.concat());
        prop_assert!(decoder.is_complete());
        prop_assert_eq!(decoder.finish().unwrap().code, code);
    }

    #[test]
    fn the_log_service_leaves_frames_intact(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        size in 0_usize..40_000,
        noise in "[ \t]{0,3}[a-z\r]{0,9}",
    ) {
        let mut pieces = pieces;
        pieces.push(b" \t\n".iter().copied().cycle().take(size).collect());
        let mut container = Vec::new();
        for line in frames(1, &pieces, 0) {
            container.push(line);
            container.push(noise.clone());
        }
        let mut decoder = FrameDecoder::new(1, node_seal());
        for message in mangle(&container) {
            decoder.push_message(&message);
        }
        prop_assert_eq!(decoder.take(), pieces.concat());
        prop_assert!(decoder.finish().is_ok());
    }

    #[test]
    fn no_message_makes_it_panic(text in ".*", run in any::<u32>(), offset in any::<u64>()) {
        let mut decoder = FrameDecoder::new(run, node_seal());
        decoder.push_message(&text);
        decoder.push_message(&format!("{run}:{offset}:{text}"));
        decoder.push_message(&format!("{run}:{offset}:00000000|{text}"));
        let sum = sum(run, offset, frame::DATA, text.as_bytes());
        decoder.push_message(&format!("{run}:{offset}:{sum}|{text}"));
        decoder.push_message(&format!("{run}:{offset}:{sum}!{text}"));
        decoder.take();
        let _ = decoder.finish();
    }
}

/// The lines as the log service delivers them: mangled, and each lost, repeated, damaged or moved.
#[derive(Debug, Clone)]
struct Weather {
    /// For each line: 0 lost, 1 damaged, 2 twice, else once.
    fate: Vec<u8>,
    order: Vec<u32>,
}

fn weather() -> impl Strategy<Value = Weather> {
    (prop::collection::vec(0_u8..12, 1..60), prop::collection::vec(any::<u32>(), 1..60))
        .prop_map(|(fate, order)| Weather { fate, order })
}

impl Weather {
    fn is_through(&self, index: usize) -> bool {
        self.fate[index % self.fate.len()] > 1
    }

    fn deliver(&self, lines: &[String]) -> Vec<String> {
        let mut delivered = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let key = self.order[index % self.order.len()]
                .wrapping_mul(2_654_435_761)
                .rotate_left(u32::try_from(index % 32).unwrap());
            match self.fate[index % self.fate.len()] {
                0 => {}
                1 => {
                    let mut damaged = line.clone().into_bytes();
                    let at = key as usize % damaged.len();
                    damaged[at] = if damaged[at] == b'#' { b'.' } else { b'#' };
                    delivered.push((key, String::from_utf8_lossy(&damaged).into_owned()));
                }
                2 => delivered.extend([(key, line.clone()), (key.rotate_left(16), line.clone())]),
                _ => delivered.push((key, line.clone())),
            }
        }
        delivered.sort();
        mangle(&delivered.into_iter().map(|(_, line)| line).collect::<Vec<_>>())
    }
}

/// Output of all kinds: any bytes, text, long lines, no newline at the end.
fn output() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..300),
        4 => "[ \ta-z#\\\\\r\n\u{e9}\u{2028}]{0,80}".prop_map(String::into_bytes),
        1 => (any::<u8>(), 10_000_usize..30_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::vec(piece, 0..30)
}

proptest! {
    // Each case has much output.
    #![proptest_config(ProptestConfig::with_cases(short_or_long(12, 48)))]

    /// The result is the output, or exactly the gaps that no source could fill; each foreign line once.
    #[test]
    fn two_poor_sources_give_the_output_or_its_true_gaps(
        pieces in output(),
        others in prop::collection::vec("[ a-z\t]{0,20}", 0..8),
        log in weather(),
        copy in weather(),
    ) {
        let mut encoder = FrameEncoder::new(3, node_seal());
        let mut out = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            encoder.encode(piece, &mut out);
            if let Some(text) = others.get(index) {
                encoder.encode_foreign(text.as_bytes(), &mut out);
            }
        }
        let others = &others[..others.len().min(pieces.len())];
        encoder.end(7, &mut out);
        let whole = pieces.concat();
        let lines = lines(out);

        // The model: the bytes and lines that arrived at all.
        let mut known = vec![false; whole.len()];
        let mut others_known = Vec::new();
        let mut end_known = false;
        for (index, line) in lines.iter().enumerate() {
            if !log.is_through(index) && !copy.is_through(index) {
                continue;
            }
            let parts = parse(line).unwrap();
            match parts.kind {
                frame::DATA => {
                    let from = usize::try_from(parts.number).unwrap();
                    known[from..from + parts.payload(&FrameSeal::new(3, node_seal())).unwrap().len()].fill(true);
                }
                frame::FOREIGN => others_known.push(others[usize::try_from(parts.number).unwrap()].clone()),
                _ => end_known = true,
            }
        }

        let mut decoder = FrameDecoder::new(3, node_seal());
        let mut seen = Vec::new();
        let (from_log, from_copy) = (log.deliver(&lines), copy.deliver(&lines));
        let mut sources = [from_log.iter(), from_copy.iter()];
        let mut output = Vec::new();
        while sources.iter().any(|source| source.len() > 0) {
            for source in &mut sources {
                for message in source.take(3) {
                    seen.extend(decoder.push_message(message));
                }
                output.extend(decoder.take());
            }
        }
        let mut shown: Vec<String> = seen.into_iter().filter_map(|line| match line {
            Line::Foreign(text) => Some(text),
            _ => None,
        }).collect();
        shown.sort();
        others_known.sort();
        prop_assert_eq!(shown, others_known);

        let mut gaps = Vec::new();
        while let Some(gap) = decoder.skip_missing() {
            gaps.push(usize::try_from(gap.start).unwrap()..usize::try_from(gap.end).unwrap());
            output.extend(decoder.take());
        }
        let until = if end_known { whole.len() } else { usize::try_from(decoder.bytes()).unwrap() };
        prop_assert!(known[until..].iter().all(|known| !known), "a piece that came was not handed out");
        let expected: Vec<u8> = (0..until).filter(|at| known[*at]).map(|at| whole[at]).collect();
        prop_assert!(output == expected);
        for gap in &gaps {
            prop_assert!(!gap.is_empty() && known[gap.clone()].iter().all(|known| !known), "{:?}", gap);
        }
        prop_assert_eq!(gaps.iter().map(ExactSizeIterator::len).sum::<usize>(), until - expected.len());
        prop_assert_eq!(decoder.is_complete(), end_known);
        prop_assert_eq!(decoder.finish().is_ok(), end_known && gaps.is_empty());
    }

    #[test]
    fn a_reader_that_begins_in_the_middle_gets_the_rest(
        pieces in output(),
        cut in any::<prop::sample::Index>(),
        shift in any::<prop::sample::Index>(),
    ) {
        let whole = pieces.concat();
        let from = cut.index(whole.len() + 1);
        let lines = frames(3, &pieces, 0);
        let mut decoder = FrameDecoder::resume(3, node_seal(), from as u64);
        for line in lines.iter().cycle().skip(shift.index(lines.len())).take(lines.len()) {
            prop_assert!(decoder.push_message(line).is_empty());
        }
        prop_assert!(decoder.take() == whole[from..]);
        prop_assert!(decoder.is_complete() && decoder.missing().is_none());
        prop_assert_eq!(decoder.finish().unwrap().bytes, whole.len() as u64);
    }
}

#[test]
fn a_run_without_output_is_complete_with_its_end() {
    let mut decoder = FrameDecoder::new(1, node_seal());
    assert!(!decoder.is_complete());
    decoder.push_message(&frames(1, &[], 3)[0]);
    assert!(decoder.is_complete());
    assert_eq!(decoder.finish().unwrap().code, 3);
}

#[test]
fn lines_of_others_come_once_and_are_waited_for() {
    let mut encoder = FrameEncoder::new(1, node_seal());
    let mut out = Vec::new();
    for text in [b"one".as_slice(), b"two\xff", b"three"] {
        encoder.encode_foreign(text, &mut out);
    }
    encoder.end(0, &mut out);
    let lines = lines(out);
    let mut decoder = FrameDecoder::new(1, node_seal());
    assert_eq!(decoder.push_message(&lines[2]), [Line::Foreign("three".to_owned())]);
    assert_eq!(decoder.push_message(&lines[2]), []);
    assert_eq!(decoder.missing_foreign_lines(), 2);
    assert_eq!(decoder.push_message(&lines[0]), [Line::Foreign("one".to_owned())]);
    assert_eq!(decoder.push_message(&lines[3]), []);
    assert!(!decoder.is_complete(), "a line is missing");
    assert_eq!((decoder.missing(), decoder.missing_foreign_lines(), decoder.foreign_lines()), (None, 1, 1));
    let mut given_up = FrameDecoder::resume(1, node_seal(), 0).after_foreign_lines(1);
    given_up.push_message(&lines[3]);
    assert_eq!((given_up.missing_foreign_lines(), given_up.skip_missing()), (2, None));
    assert!(given_up.is_complete());
    assert_eq!(decoder.push_message(&lines[1]), [Line::Foreign("two\u{fffd}".to_owned())]);
    assert!(decoder.is_complete());
    let beyond = format!("1:3:{}>x", sum(1, 3, frame::FOREIGN, b"x"));
    assert_eq!(decoder.push_message(&beyond), [Line::Damaged(beyond.clone())]);
}

#[test]
fn numbers_of_lines_out_of_order_are_bounded() {
    let mut decoder = FrameDecoder::new(1, node_seal());
    for number in 1..=MAX_NUMBERS as u64 + 5 {
        decoder.push_message(&format!("1:{number}:{}>", sum(1, number, frame::FOREIGN, b"")));
    }
    assert_eq!((decoder.known_foreign.len(), decoder.refused()), (MAX_NUMBERS, 5));
}

#[test]
fn the_place_of_a_frame_is_read_from_its_line() {
    let lines = frames(7, &[b"abc".to_vec(), b"d".to_vec()], 0);
    let starts: Vec<_> = lines.iter().map(|line| frame_start(line)).collect();
    assert_eq!(starts, [Some((7, 0)), Some((7, 3)), Some((7, 4))]);
    assert_eq!(frame_start("7:0:00000000>foreign_lines"), None);
    assert_eq!(frame_start("foreign"), None);
}

#[test]
fn a_report_in_the_log_is_read_whatever_run_is_followed() {
    let body = "tag\n{\"version\":2,\"text\":\"é\u{7f} \"}".as_bytes();
    let line = String::from_utf8(frame::report_frame(node_seal(), 7, body).unwrap()).unwrap();
    let line = line.strip_suffix('\n').unwrap();
    let mut decoder = FrameDecoder::new(3, node_seal());
    assert_eq!(mangle(&[line.to_owned()]), [line], "the log changes nothing of it");
    assert_eq!(decoder.push_message(line), [Line::Report(7, body.to_vec())]);
    for forged in [line.replacen("0:7", "0:8", 1), line.replacen("0:7", "3:7", 1), line.replace("version", "vorsion")] {
        assert_eq!(decoder.push_message(&forged), [Line::Damaged(forged.clone())]);
    }
    assert_eq!((frame_start(line), decoder.bytes()), (None, 0));
    assert_eq!(frame::report_frame(node_seal(), 1, &[b'x'; frame::MAX_LINE]), None);
}
