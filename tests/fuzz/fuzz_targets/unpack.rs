//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz unpack`: see `unpacking.rs`.
#![no_main]

/// The port alone.
#[expect(dead_code, unused_imports, reason = "the port has more than this target needs")]
#[path = "../../../src/cloud"]
mod cloud {
    mod error;
    mod objects;

    pub use error::{CloudError, CloudErrorKind};
    pub use objects::{Listed, ObjectStore};
}

#[expect(dead_code, reason = "failures have more than this target needs")]
#[path = "../../../src/failure.rs"]
mod failure;

#[expect(dead_code, reason = "the workspace has more than this target needs")]
#[path = "../../../src/workspace/mod.rs"]
mod workspace;

#[path = "../choices.rs"]
mod choices;

#[path = "../unpacking.rs"]
mod unpacking;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    unpacking::unpack(data);
});
