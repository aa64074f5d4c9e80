//! Work that people wait for: a bar on a terminal, a few lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printer::Printer;
use crate::base::human::{human_bytes, human_duration};

/// A line about a number that grows comes at most this often, unless a terminal shows a bar.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// One piece of work that people wait for. On a terminal a spinner or a bar; elsewhere a line at the start, one per
/// change (a growing number: at most one in 10 s), one at the end. A terminal shows one at a time.
#[derive(Debug)]
pub struct Progress {
    printer: Printer,
    task: String,
    total: Option<u64>,
    started: Instant,
    said: String,
    said_at: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `task` is a present participle: `Uploading the workspace`. `total` in bytes, when [`Progress::bytes`] follows.
    pub fn start(printer: &Printer, task: &str, total: Option<u64>, now: Instant) -> Self {
        let bar = printer.is_terminal().then(|| terminal_bar(task, total));
        let progress = Self {
            printer: printer.clone(),
            task: task.to_owned(),
            total,
            started: now,
            said: String::new(),
            said_at: now,
            bar,
        };
        match &progress.bar {
            Some(bar) => progress.printer.show_bar(Some(bar.clone())),
            None => progress.printer.line(match total {
                Some(total) => format!("{task} ({})", human_bytes(total)),
                None => task.to_owned(),
            }),
        }
        progress
    }

    /// A bar where there is a terminal, elsewhere nothing; [`Progress::bytes_of`] moves it.
    pub fn on_terminal(printer: &Printer, task: &str, now: Instant) -> Option<Self> {
        printer.is_terminal().then(|| Self::start(printer, task, Some(0), now))
    }

    /// Bytes done so far, of so many as are known by now.
    pub fn bytes_of(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// The state as it is now, `Downloading`; said when it differs from the last one, and again every 10 s: GitLab
    /// Runner notices a cancel soon only while there is output. Call it on every poll: it also moves the spinner.
    pub fn state(&mut self, state: &str, now: Instant) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{state} ({})", human_duration(now.saturating_duration_since(self.started))));
            bar.tick();
        } else if self.said != state || now.saturating_duration_since(self.said_at) >= PROGRESS_INTERVAL {
            let elapsed = human_duration(now.saturating_duration_since(self.started));
            self.printer.line(format!("{}: {state} after {elapsed}", self.task));
            state.clone_into(&mut self.said);
            self.said_at = now;
        }
    }

    /// Bytes done so far.
    pub fn bytes(&mut self, done: u64, now: Instant) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        if now.saturating_duration_since(self.said_at) < PROGRESS_INTERVAL {
            return;
        }
        let text = match self.total {
            Some(total) => format!("{} of {}", human_bytes(done), human_bytes(total)),
            None => human_bytes(done),
        };
        if self.said != text {
            self.printer.line(format!("{}: {text}", self.task));
            self.said = text;
            self.said_at = now;
        }
    }

    /// The end: `done`, `canceled`.
    pub fn finish(mut self, outcome: &str, now: Instant) {
        self.clear();
        let elapsed = human_duration(now.saturating_duration_since(self.started));
        self.printer.line(format!("{}: {outcome} after {elapsed}", self.task));
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            self.printer.show_bar(None);
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn terminal_bar(task: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
        None => "{spinner} {prefix}: {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
        .with_prefix(task.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_a_terminal_a_state_is_said_once_per_change() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::start(&printer, "Waiting for the training job", None, start);
        for (seconds, state) in [(0, "Starting"), (5, "Starting"), (95, "Pending"), (100, "Pending"), (185, "Training")]
        {
            progress.state(state, at(seconds));
        }
        progress.finish("ready", at(190));
        insta::assert_snapshot!(captured.text(), @r"
        Waiting for the training job
        Waiting for the training job: Starting after 0 s
        Waiting for the training job: Pending after 1 min 35 s
        Waiting for the training job: Training after 3 min 5 s
        Waiting for the training job: ready after 3 min 10 s
        ");
    }

    #[test]
    fn off_a_terminal_bytes_are_said_every_ten_seconds() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let mut progress = Progress::start(&printer, "Uploading the workspace", Some(64 << 20), start);
        for second in 0..=25_u64 {
            progress.bytes(second << 20, start + Duration::from_secs(second));
        }
        // Nothing moves: nothing is said.
        progress.bytes(20 << 20, start + Duration::from_mins(1));
        progress.finish("done", start + Duration::from_secs(61));
        insta::assert_snapshot!(captured.text(), @r"
        Uploading the workspace (64.0 MiB)
        Uploading the workspace: 10.0 MiB of 64.0 MiB
        Uploading the workspace: 20.0 MiB of 64.0 MiB
        Uploading the workspace: done after 1 min 1 s
        ");
    }
}
