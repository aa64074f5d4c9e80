//! Snapshots of texts that people read, all in `tests/it/snapshots/`.

use regex::Regex;

/// Compares `text` with the snapshot `name`. `INSTA_UPDATE=always` writes it anew.
#[track_caller]
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true },
        { insta::assert_snapshot!(name, text) }
    );
}

/// A job log without what differs between two runs: names, times, sizes, and how often the state of the training job was told.
pub(crate) fn redacted(said: &str) -> String {
    let replace =
        |text: String, pattern: &str, with: &str| Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    let text = replace(said.to_owned(), r"gitlab-\d+-\d+-[0-9a-f]{8}", "NAME");
    let text = replace(text, r"127\.0\.0\.1:\d+", "ENDPOINT");
    let text = replace(text, r"(section_(?:start|end)):\d+:", "$1:TIME:");
    let text = replace(text, r"[\d.]+ K?i?B (sent|received)", "SIZE $1");
    let text = replace(text, r"(\d+ min )?[\d.]+ s\b", "TIME");
    let text = text.replace('\r', "\\r").replace('\x1b', "\\e");
    // A state, and that the project arrived, is told when the driver happens to see it.
    replace(text, r"(?m)^(Project received by .*|(Starting|Pending|Downloading|Training)\b.*\(TIME\))\n", "")
}
