//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz unpack`: see `unpacking.rs`.
#![no_main]

#[path = "../choices.rs"]
mod choices;

#[path = "../unpacking.rs"]
mod unpacking;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    unpacking::unpack(data);
});
