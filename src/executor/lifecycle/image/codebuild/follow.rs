//! Follows a build to its end: its phases and its log become lines of the job's output.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::cloud::{BuildPhase, BuildSight, BuildState, CloudError, ImageBuilds};
use crate::ui::Printer;

/// Pause between two looks. AWS allows ten calls of `BatchGetBuilds` a second for the whole account.
const PAUSE: Duration = Duration::from_secs(2);
/// Looks in a row that may fail for a reason that passes.
const MOST_FAILED: u32 = 30;
/// Empty pages after the end of a build before its log counts as whole, and the longest wait for it.
const QUIET: u32 = 2;
const LONGEST_TAIL: Duration = Duration::from_secs(20);

/// The end of the watch.
#[derive(Debug)]
pub(super) enum WatchEnd {
    /// The build has ended.
    Ended(BuildSight),
    /// A signal asked this process to end.
    Canceled,
    /// The build runs longer than its limits.
    Overdue,
}

/// Looks at a build until it has ended, but not after `limit`.
///
/// # Errors
/// AWS does not answer, or knows no build of this id.
pub(super) async fn follow(
    builds: &dyn ImageBuilds,
    id: &str,
    printer: &Printer,
    cancellation: &Cancellation,
    limit: Duration,
) -> anyhow::Result<WatchEnd> {
    let until = Instant::now() + limit;
    let mut watch = BuildWatch { builds, printer, told: 0, running: None, token: None, has_log: false };
    let mut failed = 0;
    loop {
        match watch.look(id).await {
            Ok(sight) if sight.state != BuildState::Running => {
                watch.tail(&sight).await?;
                return Ok(WatchEnd::Ended(sight));
            }
            Ok(_) => failed = 0,
            Err(error) if CloudError::may_pass(&error) && failed < MOST_FAILED => failed += 1,
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = cancellation.token().cancelled() => return Ok(WatchEnd::Canceled),
            () = tokio::time::sleep(PAUSE) => {}
        }
        if Instant::now() >= until {
            return Ok(WatchEnd::Overdue);
        }
    }
}

/// A reason in one line: of a command of several lines the first one, and how it ended.
pub(super) fn shown_reason(reason: &str) -> String {
    let lines = reason.trim();
    let Some((first, _)) = lines.split_once('\n') else { return plain::line(lines, 500) };
    let end = lines.rfind(". Reason: ").and_then(|at| lines.get(at + 2..)).unwrap_or_default();
    format!("{} ... {}", plain::line(first, 300), plain::line(end, 300)).trim_end().to_owned()
}

struct BuildWatch<'a> {
    builds: &'a dyn ImageBuilds,
    printer: &'a Printer,
    /// Phases whose end was told, and the one whose begin was.
    told: usize,
    running: Option<String>,
    /// Position in the log.
    token: Option<String>,
    has_log: bool,
}

impl BuildWatch<'_> {
    async fn look(&mut self, id: &str) -> anyhow::Result<BuildSight> {
        let sight = self.builds.sight(id).await?;
        let sight = sight.ok_or_else(|| anyhow::anyhow!("AWS knows no build {}", plain::line(id, 200)))?;
        self.lines(&sight).await?;
        self.phases(&sight.phases);
        Ok(sight)
    }

    /// Tells the log's new lines, and gives back their number.
    async fn lines(&mut self, sight: &BuildSight) -> Result<usize, CloudError> {
        let Some(place) = &sight.log else { return Ok(0) };
        let mut number = 0;
        loop {
            let page = self.builds.log(place, self.token.as_deref()).await?;
            number += page.messages.len();
            for message in &page.messages {
                self.printer.line(plain::lines(message.trim_end_matches(['\n', '\r'])));
            }
            self.has_log |= page.token.is_some();
            if page.token.is_none() || page.token == self.token {
                return Ok(number);
            }
            self.token = page.token;
        }
    }

    fn phases(&mut self, phases: &[BuildPhase]) {
        for phase in phases.iter().skip(self.told) {
            let name = plain::line(&phase.name, 60);
            let Some(has_succeeded) = phase.has_succeeded else {
                if self.running.as_deref() != Some(&name) && name != "COMPLETED" {
                    self.printer.line(format!("Phase {name}"));
                    self.running = Some(name);
                }
                return;
            };
            self.told += 1;
            let seconds = phase.seconds.map_or(String::new(), |seconds| format!(" in {seconds} s"));
            let word = if has_succeeded { "done" } else { "failed" };
            let reasons: Vec<_> = phase.reasons.iter().map(|reason| shown_reason(reason)).collect();
            let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
            self.printer.line(format!("Phase {name} {word}{seconds}{reasons}"));
        }
    }

    /// Reads the rest of the log, which AWS shows later than the build's end.
    async fn tail(&mut self, sight: &BuildSight) -> Result<(), CloudError> {
        let until = Instant::now() + LONGEST_TAIL;
        let mut quiet = 0;
        // A build that ended before its commands has no log.
        let most = if self.has_log || sight.phases.iter().any(|phase| phase.name == "INSTALL") { QUIET } else { 0 };
        while quiet < most && Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
            quiet = if self.lines(sight).await? == 0 { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_with_its_end() {
        assert_eq!(shown_reason("CODE: exit status 7\n"), "CODE: exit status 7");
        let long = "CODE: Error while executing command: set -- a\nb\nc. Reason: exit status 7";
        assert_eq!(shown_reason(long), "CODE: Error while executing command: set -- a ... Reason: exit status 7");
    }
}
