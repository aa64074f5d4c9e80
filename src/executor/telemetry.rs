//! Starts the log and the metrics that the operator's file asks for, in each process that serves jobs.

use std::path::Path;
use std::sync::Arc;

use tracing::Level;

use crate::base::clock::Clock;
use crate::config::settings::{JOURNALD, LogLevel, Settings};
use crate::metrics::{self, CountsPlace};
use crate::session::job_note::JobNotes;
use crate::ui::operator_log::{self, LogTarget};

/// Logs and counts from now on, as far as the settings ask for it. The first call of a process counts.
pub fn begin(settings: &Settings, clock: &Arc<dyn Clock>) {
    if let Some(file) = &settings.log.file {
        let place = if file == JOURNALD { LogTarget::Journal } else { LogTarget::File(file.into()) };
        operator_log::begin(place, level(settings.log.level), Arc::clone(clock));
    }
    if let Some(file) = &settings.metrics.file {
        let state_dir: &Path = &settings.runner.state_dir;
        metrics::begin(CountsPlace {
            folder: state_dir.join("metrics"),
            file: file.clone(),
            jobs: JobNotes::folder(state_dir),
            by_project: settings.metrics.by_project,
        });
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    }
}
