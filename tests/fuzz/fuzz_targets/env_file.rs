//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz env_file`: see `env_file.rs` of the properties.
#![no_main]

#[path = "../env_file.rs"]
mod env_file;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    env_file::env_file(data);
});
