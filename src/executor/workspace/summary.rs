//! The result of a transfer, and its text in one line.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::human::{human_bytes, human_files};
use crate::workspace::manifest::{Entry, EntryKind, Tree};

/// The result of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files and links.
    pub files: u64,
    /// Deletions; only for results.
    pub deleted: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes sent to or received from the object store.
    pub sent: u64,
    pub elapsed: Duration,
    /// Files that were not transferred, and the reasons; safe to print, at most 101 lines.
    pub warnings: Vec<String>,
    /// Folders at the top of the project that hold some of the files.
    pub folders: BTreeSet<String>,
}

impl Summary {
    /// Counts an entry, without its content.
    pub(crate) fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::File | EntryKind::Link => {
                self.files += 1;
                if let Some(folder) = folder(entry).filter(|folder| !self.folders.contains(*folder)) {
                    self.folders.insert(folder.to_owned());
                }
            }
            EntryKind::Deleted => self.deleted += 1,
            EntryKind::Directory | EntryKind::Special => {}
        }
    }
}

impl Summary {
    /// One line for the side that sends.
    pub fn sent(&self) -> String {
        self.line("sent")
    }

    /// One line for the side that receives.
    pub fn received(&self) -> String {
        self.line("received")
    }

    /// Fewer bytes travel than the content has when the bucket holds chunks of it, and more for tiny files.
    fn line(&self, travelled: &str) -> String {
        let deleted = match self.deleted {
            0 => String::new(),
            count => format!(", {count} deleted by the script"),
        };
        let warnings = match self.warnings.len() {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            more => format!(", {more} warnings"),
        };
        format!(
            "{}{deleted} ({} {travelled}) in {:.1} s{warnings}",
            human_files(self.files, self.bytes),
            human_bytes(self.sent),
            self.elapsed.as_secs_f64()
        )
    }
}

fn folder(entry: &Entry) -> Option<&str> {
    let at = entry.path.iter().position(|byte| *byte == b'/').filter(|_| entry.tree == Tree::Project)?;
    str::from_utf8(&entry.path[..at]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_one_line() {
        let summary = Summary { files: 3, bytes: 1_234_567, sent: 999, ..Summary::default() };
        insta::assert_snapshot!(summary.sent(), @"3 files, 1.2 MiB (999 B sent) in 0.0 s");
        let summary = Summary { files: 1, bytes: 3, sent: 265, deleted: 2, ..Summary::default() };
        insta::assert_snapshot!(summary.received(), @"1 file, 3 B, 2 deleted by the script (265 B received) in 0.0 s");
    }
}
