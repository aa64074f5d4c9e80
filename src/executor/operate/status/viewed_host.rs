//! The host whose jobs are shown, and the one job that a person means.

use std::sync::Arc;

use super::rows::{HostJobs, JobRow};
use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::cloud::Connect;
use crate::config::settings::Settings;
use crate::ui::Printer;

/// Most sessions that a hint names.
const NAMED: usize = 10;

pub(super) struct ViewedHost<'a> {
    pub(super) settings: &'a Settings,
    pub(super) connect: &'a dyn Connect,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) printer: &'a Printer,
}

impl ViewedHost<'_> {
    pub(super) fn jobs(&self) -> anyhow::Result<HostJobs> {
        HostJobs::read(self.settings, &*self.clock)
    }

    /// The one job that these words mean.
    pub(super) fn find(&self, words: &str) -> anyhow::Result<JobRow> {
        let jobs = self.jobs()?.jobs;
        let mut found: Vec<JobRow> = jobs.iter().filter(|row| row.is_exactly(words)).cloned().collect();
        if found.is_empty() {
            found = jobs.into_iter().filter(|row| row.begins_with(words)).collect();
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::user(format!("no job on this host is called `{words}`"))
                .hint("`sagemaker-executor status` lists the jobs that have not ended, with their numbers and sessions")
                .into()),
            count => {
                let names: Vec<_> = found.iter().take(NAMED).map(|row| format!("`{}`", row.session)).collect();
                let more = count.saturating_sub(NAMED);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                Err(Failure::user(format!("{count} jobs on this host are called `{words}`"))
                    .hint(format!("name one of the sessions {}{more}", names.join(", ")))
                    .into())
            }
        }
    }
}
