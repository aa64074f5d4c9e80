//! Properties that hold for any bytes: the bodies of the fuzz targets, which an ordinary test also runs on the corpus.
//!
//! They take the module under test from `executor::trace`. Each takes its choices from the bytes themselves, so every input
//! means the same for ever.

use super::choices::Choices;
use executor::base::node::NodeId;
use executor::base::seal::{NodeSeal, Seal, SealKey};
use executor::trace::{FrameDecoder, FrameEncoder, Line, Masker, frame_start};

/// Limit of the bytes out of order in these runs.
const LIMIT: usize = 64 << 10;

fn node_seal() -> NodeSeal {
    Seal::Keyed(SealKey::new([7; 32])).of_node(NodeId::LEADER)
}

/// The decoder takes any text without a panic and within its bounds; and what it puts together of true frames, in any order,
/// doubled, damaged and glued, is the beginning of the output, and the whole once every frame has come.
pub(super) fn decode(data: &[u8]) {
    any_text(data);
    true_frames(data);
}

fn any_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut decoder = FrameDecoder::with_limit(1, node_seal(), LIMIT);
    let lines = decoder.push_message(&text);
    let told: usize = lines.iter().map(length).sum();
    assert!(told <= text.len() * 3, "more text came out than went in");
    for line in text.lines() {
        let _ = frame_start(line);
    }
    let ready = decoder.take();
    assert!(ready.len() <= text.len());
    // A second time brings nothing new.
    decoder.push_message(&text);
    let _ = (decoder.is_complete(), decoder.missing(), decoder.missing_foreign_lines(), decoder.finish());
    while decoder.skip_missing().is_some() {}
    assert!(ready.len() + decoder.take().len() <= text.len() * 2);
}

fn length(line: &Line) -> usize {
    match line {
        Line::Unframed(text) | Line::Foreign(text) | Line::OtherRun(text) | Line::Damaged(text) => text.len(),
        Line::Report(_, report) => report.len(),
    }
}

fn true_frames(data: &[u8]) {
    let mut choices = Choices(data);
    let mut encoder = FrameEncoder::new(1, node_seal());
    let mut frames = Vec::new();
    let mut output = Vec::new();
    let mut others = 0;
    for _ in 0..choices.byte() % 8 {
        let kind = choices.byte();
        let piece = choices.bytes(200);
        match kind % 8 {
            0 => {
                encoder.encode_foreign(piece, &mut frames);
                others += 1;
            }
            // A frame is full after some kilobytes.
            1 => {
                let long: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * 100).collect();
                encoder.encode(&long, &mut frames);
                output.extend_from_slice(&long);
            }
            _ => {
                encoder.encode(piece, &mut frames);
                output.extend_from_slice(piece);
            }
        }
    }
    encoder.end(i32::from(choices.byte()), &mut frames);
    let frames = String::from_utf8(frames).expect("frames are text");
    let lines: Vec<&str> = frames.lines().collect();

    let mut decoder = FrameDecoder::with_limit(1, node_seal(), LIMIT);
    let mut got = Vec::new();
    let mut got_others = 0;
    while !choices.0.is_empty() {
        let line = lines.get(usize::from(choices.byte()) % lines.len()).copied().unwrap_or_default();
        let message = match choices.byte() % 6 {
            0 => {
                let mut damaged = line.as_bytes().to_vec();
                let at = usize::from(choices.byte()) * damaged.len() / 256;
                if let Some(byte) = damaged.get_mut(at) {
                    *byte ^= choices.byte() & 0x7f;
                }
                String::from_utf8_lossy(&damaged).into_owned()
            }
            1 => format!("{line}\n{}", String::from_utf8_lossy(choices.bytes(40))),
            2 => format!("{}{line}", String::from_utf8_lossy(choices.bytes(40))),
            3 => line.get(..line.len() / 2).unwrap_or_default().to_owned(),
            _ => line.to_owned(),
        };
        got_others += foreign_lines(decoder.push_message(&message));
        got.extend(decoder.take());
        assert!(output.starts_with(&got), "what came out is not the beginning of the output");
    }
    for line in &lines {
        got_others += foreign_lines(decoder.push_message(line));
    }
    // What the limit refused is asked for again.
    for line in &lines {
        got_others += foreign_lines(decoder.push_message(line));
    }
    got.extend(decoder.take());
    assert_eq!(got, output);
    assert_eq!(got_others, others);
    assert!(decoder.is_complete());
    decoder.finish().expect("the output is whole");
}

fn foreign_lines(lines: Vec<Line>) -> usize {
    lines.into_iter().filter(|line| matches!(line, Line::Foreign(_))).count()
}

/// The result does not depend on how the input is divided, shows no value, and grows no more than masks do.
pub(super) fn mask(data: &[u8]) {
    let mut choices = Choices(data);
    let values: Vec<Vec<u8>> = (0..choices.byte() % 5).map(|_| choices.bytes(12).to_vec()).collect();
    let prefixes: Vec<String> =
        (0..choices.byte() % 3).map(|_| String::from_utf8_lossy(choices.bytes(6)).into_owned()).collect();
    let step = usize::from(choices.byte()).max(1);
    let input = choices.0;

    let masker = || Masker::with_prefixes(values.clone(), prefixes.clone());
    let at_once = masked(masker(), [input]);
    assert_eq!(at_once, masked(masker(), input.chunks(step)), "divided every {step} bytes");
    assert_eq!(at_once, masked(masker(), input.chunks(1)), "divided into bytes");
    assert!(at_once.len() <= input.len() * 9 + 8);

    // A value that no mask and no other value can make up anew is gone.
    let masker = Masker::new(values.clone());
    let out = masked(masker, [input]);
    for value in &values {
        let value = value.trim_ascii();
        let is_text = std::str::from_utf8(value).is_ok_and(|text| text.trim().len() == value.len());
        let is_alone = !value.iter().any(|byte| b"[MASKED]".contains(byte));
        if is_text && !value.is_empty() && is_alone {
            assert!(!out.windows(value.len()).any(|part| part == value), "a value is shown");
        }
    }
}

fn masked<'w>(mut masker: Masker, writes: impl IntoIterator<Item = &'w [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for write in writes {
        masker.push(write, &mut out);
    }
    masker.flush(&mut out);
    out
}
