//! What the fuzz targets found interesting, through the same functions, with the ordinary toolchain.

use sagemaker_executor::trace;

#[path = "../fuzz/properties.rs"]
mod properties;

fn replay(target: &str, property: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        assert!(std::panic::catch_unwind(|| property(&data)).is_ok(), "{}", path.display());
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
