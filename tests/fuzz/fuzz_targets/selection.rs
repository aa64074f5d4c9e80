//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz selection`: see `unpacking.rs`.
#![no_main]

#[path = "../choices.rs"]
mod choices;

#[expect(dead_code, reason = "the other target has the rest")]
#[path = "../unpacking.rs"]
mod unpacking;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    unpacking::selection(data);
});
