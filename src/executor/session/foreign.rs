//! Limits how much text of other writers in the container's log is printed. Pure.
//!
//! GitLab keeps 4 MiB of a trace by default, and that is for the script's output. Lines over the limit are counted, and
//! stay in CloudWatch.

use crate::base::human::human_bytes;
use crate::base::plain;

/// Limit for one container stage, in bytes.
const RUN_BYTES: u64 = 256 << 10;
/// Limit for all stages of a job, in bytes.
const JOB_BYTES: u64 = 512 << 10;
/// Longest printed line, in bytes.
const LINE_BYTES: usize = 1000;

/// Budget of printed foreign text.
#[derive(Debug)]
pub(super) struct Foreign {
    run_left: u64,
    job_printed: u64,
    left_out: (u64, u64),
}

impl Foreign {
    /// `job_printed`: bytes printed by earlier stages of the job, and by an earlier process of this stage.
    pub(super) fn new(job_printed: u64) -> Self {
        Self { run_left: RUN_BYTES, job_printed, left_out: (0, 0) }
    }

    /// Returns the line as it is to be printed, or `None` once the budget is spent.
    pub(super) fn admit(&mut self, text: &str) -> Option<String> {
        let line = plain::line(text.trim_end(), LINE_BYTES);
        // Prefix and newline included.
        let cost = line.len() as u64 + 16;
        if self.left_out.0 > 0 || cost > self.run_left || self.job_printed.saturating_add(cost) > JOB_BYTES {
            // Nothing more from here on: the reader would not notice holes between the lines.
            self.left_out = (self.left_out.0 + 1, self.left_out.1 + text.len() as u64);
            return None;
        }
        self.run_left -= cost;
        self.job_printed += cost;
        Some(line)
    }

    /// Bytes printed in the whole job, for the next stage.
    pub(super) fn job_printed(&self) -> u64 {
        self.job_printed
    }

    /// Returns a sentence about what was left out, once.
    pub(super) fn take_left_out(&mut self) -> Option<String> {
        let (lines, bytes) = std::mem::take(&mut self.left_out);
        (lines > 0).then(|| {
            self.run_left = 0;
            format!(
                "{lines} lines ({}) that others than the script wrote into the container's log are left out here; they are in \
                 CloudWatch",
                human_bytes(bytes)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut foreign = Foreign::new(0);
        assert_eq!(foreign.take_left_out(), None);
        let line = "x".repeat(100);
        let printed = (0..100_000).filter(|_| foreign.admit(&line).is_some()).count() as u64;
        assert!(printed * 116 <= RUN_BYTES && (printed + 1) * 116 > RUN_BYTES, "{printed}");
        assert_eq!(foreign.admit("short"), None, "nothing after a hole");
        let told = foreign.take_left_out().unwrap();
        assert!(told.starts_with(&format!("{} lines (", 100_001 - printed)), "{told}");
        assert_eq!(foreign.take_left_out(), None, "told once");
        assert_eq!(foreign.admit("short"), None);
        assert!(foreign.job_printed() <= RUN_BYTES);
    }

    #[test]
    fn the_stages_of_a_job_share_its_bound() {
        let mut foreign = Foreign::new(JOB_BYTES - 100);
        assert!(foreign.admit("short").is_some());
        assert_eq!(foreign.admit(&"x".repeat(100)), None);
    }

    #[test]
    fn a_long_line_is_cut_and_made_plain() {
        let line = Foreign::new(0).admit(&format!("\x1b[1m{}\r\n", "x".repeat(5000))).unwrap();
        assert!(line.starts_with("\\x1b[1mxx") && line.ends_with(" more bytes)") && line.len() < 1100, "{line}");
    }
}
