//! Runs the functions of the fuzz targets on their corpus, with the stable toolchain.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../fuzz/properties.rs"]
mod properties;

#[path = "../fuzz/choices.rs"]
mod choices;

#[path = "../fuzz/env_file.rs"]
mod env_file;

#[path = "../fuzz/unpacking.rs"]
mod unpacking;

#[path = "../fuzz/reading.rs"]
mod reading;

fn replay(target: &str, property: impl Fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| property(&data))).is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 10, "{count} inputs");
}

#[test]
fn the_decoders_corpus_is_replayed() {
    replay("decode", properties::decode);
}

#[test]
fn the_maskers_corpus_is_replayed() {
    replay("mask", properties::mask);
}

/// bash reads the lines as the property says, and fails at none.
#[test]
fn the_corpus_of_env_files_is_replayed() {
    const READ: &str = "while read -r line; do export \"$line\" || exit 9; done < \"$0\"; exit 0";
    replay("env_file", |data| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), env_file::env_file(data)).unwrap();
        let mut bash = std::process::Command::new("bash");
        let output = bash.args(["--norc", "-c", READ]).arg(file.path()).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.lines().all(|line| line.contains("null byte")), "{output:?}");
    });
}

#[test]
fn the_corpus_of_selections_is_replayed() {
    let taken = std::cell::Cell::new(0);
    replay("selection", |data| taken.set(taken.get() + usize::from(unpacking::selection(data))));
    assert!(taken.get() > 10, "{} inputs were taken", taken.get());
}

/// Replays a corpus of texts; at least this many of them are ones that can be read.
fn replay_texts(target: &str, least: usize, property: fn(&[u8]) -> bool) {
    let taken = std::cell::Cell::new(0);
    replay(target, |data| taken.set(taken.get() + usize::from(property(data))));
    assert!(taken.get() >= least, "{} inputs were taken", taken.get());
}

#[test]
fn the_corpora_of_texts_are_replayed() {
    replay_texts("payload", 5, reading::payload);
    replay_texts("operator", 5, reading::operator);
    replay_texts("variables", 5, reading::variables);
    replay_texts("messages", 10, reading::messages);
    replay_texts("record", 5, reading::record);
}

#[test]
fn the_unpackers_corpus_is_replayed() {
    let taken = std::cell::Cell::new(0);
    replay("unpack", |data| taken.set(taken.get() + usize::from(unpacking::unpack(data))));
    // It gets as far as it can.
    assert!(taken.get() > 20, "{} inputs were taken", taken.get());
}
