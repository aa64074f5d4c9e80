//! The result of a transfer, and its text in one line.

use std::fmt;
use std::time::Duration;

use crate::workspace::manifest::{Entry, EntryKind};

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
}

impl Summary {
    /// Counts an entry, without its content.
    pub(crate) fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::File | EntryKind::Link => self.files += 1,
            EntryKind::Deleted => self.deleted += 1,
            EntryKind::Directory | EntryKind::Special => {}
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {}", self.files, Bytes(self.bytes))?;
        if self.deleted > 0 {
            write!(f, ", {} deleted", self.deleted)?;
        }
        write!(f, " ({} transferred", Bytes(self.sent))?;
        if self.bytes > 0 {
            // In tenths of a percent.
            let ratio = u128::from(self.sent) * 1000 / u128::from(self.bytes);
            write!(f, ", {}.{} %", ratio / 10, ratio % 10)?;
        }
        write!(f, ") in {:.1} s", self.elapsed.as_secs_f64())?;
        match self.warnings.len() {
            0 => Ok(()),
            1 => write!(f, ", 1 warning"),
            more => write!(f, ", {more} warnings"),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut tenths = self.0 / 100;
        let mut unit = 0;
        while tenths >= 10_000 && unit + 1 < UNITS.len() {
            tenths /= 1000;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_one_line() {
        let summary = Summary { files: 3, bytes: 1_234_567, sent: 999, ..Summary::default() };
        insta::assert_snapshot!(summary, @"3 files, 1.2 MB (999 B transferred, 0.0 %) in 0.0 s");
    }
}
