//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz decode`: see `properties.rs`.
#![no_main]

#[path = "../choices.rs"]
mod choices;

#[expect(dead_code, reason = "the other target has the rest")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::decode(data));
