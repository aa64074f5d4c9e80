//! Two runner processes of this host with one token. A runner process gives each of its jobs a number of its own, so two jobs
//! at once with the same token and number belong to two processes.

use crate::base::failure::{Failure, render};
use crate::config::env::Environment;
use crate::session::Session;
use crate::session::left_over::BACKLOG;
use crate::session::record::SessionRecord;

/// The runner's short token and its number for the job; `None` when it told neither.
pub(super) fn runner_slot(env: &Environment) -> Option<String> {
    let [token, number] = ["CI_RUNNER_SHORT_TOKEN", "CI_CONCURRENT_ID"].map(|name| env.job_variable(name));
    Some(format!("{} {}", token?, number?))
}

/// Warns when another live session of this host has the same runner slot. The directories of both are apart all the same.
pub(super) fn warn(session: &Session<'_>) {
    let Some(slot) = session.state().runner_slot() else { return };
    let records = &session.records;
    let mut others = records.sessions().unwrap_or_default();
    others.retain(|id| *id != session.id);
    if others.len() > BACKLOG {
        // Each record would be read, for a warning that a later job gives too.
        return;
    }
    let others = others.into_iter();
    let same = |record: &SessionRecord| record.runner_slot.as_deref() == Some(slot);
    let mut twins = others.filter(|id| records.load(id).is_ok_and(|record| record.is_some_and(|record| same(&record))));
    // A stage of a live job holds its session.
    if let Some(twin) = twins.find(|id| matches!(records.claim(id), Ok(None))) {
        let failure = Failure::system(format!(
            "two GitLab Runner processes use one token on this host: {twin} runs in another process, so `concurrent` counts for each alone"
        ))
        .hint("give each `[[runners]]` in `config.toml` a `token` of its own, or stop the other process");
        let text = render(&failure.into());
        session.printer.warn(text.strip_prefix("error: ").unwrap_or(&text));
    }
}
