//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz operator`: see `reading.rs`.
#![no_main]

#[expect(dead_code, reason = "the other targets have the rest")]
#[path = "../choices.rs"]
mod choices;

#[expect(dead_code, reason = "the other targets have the rest")]
#[path = "../reading.rs"]
mod reading;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reading::operator(data);
});
