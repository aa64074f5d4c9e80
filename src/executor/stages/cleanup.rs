//! `cleanup`: stops and deletes everything of the job. Its exit code changes nothing for the runner, so it prints its
//! failures and keeps the record for a later pass.

use std::collections::BTreeSet;

use crate::config::env;
use crate::session::close::{self, Closed, Patience};
use crate::session::record::Records;
use crate::session::{self, Session, SessionId, job_limit, slots};
use crate::stages::Context;
use crate::workspace;

pub async fn run(context: Context) -> anyhow::Result<()> {
    let sessions = sessions(&context);
    remove_file_variables(&context);
    release_slots(&context, &sessions);
    if sessions.is_empty() {
        return Ok(());
    }
    let (jobs, objects) = context.session_ports().await?;
    let mut failed = None;
    for id in sessions {
        let session = Session::to_close(id.clone(), jobs.clone(), objects.clone(), context.host());
        match close::close(session, Patience::Long).await {
            Ok(Closed::Whole | Closed::Leaving) => {}
            Ok(Closed::MayAppear) => context.printer.line(format!(
                "SageMaker may still create the training job of {id}; the next job's `prepare` on this host, or `sagemaker-executor sweep`, stops it then"
            )),
            Err(error) => {
                let error = error.context(format!("failed to clean up the session {id}"));
                // The boundary prints the last one.
                if let Some(earlier) = failed.replace(error) {
                    context.printer.failure(&earlier);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes what the runner's own stage leaves on the disk after an abort or a timeout. Must precede the release of the directory,
/// which another job may then have.
fn remove_file_variables(context: &Context) {
    let state_dir = &context.settings.runner.state_dir;
    let Some(number) = context.env.get(env::SLOT).and_then(|slot| slot.parse().ok()) else { return };
    let Some(id) = context.contract.session.as_deref().and_then(SessionId::parse) else { return };
    let Ok(job) = context.job() else { return };
    if !slots::is_held(state_dir, &id, number) {
        return;
    }
    if let Err(error) = context.trees(&job).and_then(|trees| workspace::remove_temporary(&trees)) {
        context.printer.warn(format!("{error:#}; it may hold the job's file variables"));
    }
}

/// Releases the directory of a session that `prepare` never opened; that needs no AWS.
fn release_slots(context: &Context, sessions: &BTreeSet<SessionId>) {
    let state_dir = &context.settings.runner.state_dir;
    let records = Records::at(state_dir);
    for id in sessions.iter().filter(|id| matches!(records.load(id), Ok(None))) {
        job_limit::release(state_dir, id);
        if let Err(error) = slots::release(state_dir, id) {
            tracing::warn!(error = format!("{error:#}"), "failed to release the job's directory");
        }
    }
}

/// Ids of this attempt's session, with or without a record, and of earlier attempts of the same job whose cleanup
/// failed.
fn sessions(context: &Context) -> BTreeSet<SessionId> {
    let records = Records::at(&context.settings.runner.state_dir);
    let mut sessions = BTreeSet::new();
    sessions.extend(context.contract.session.as_deref().and_then(SessionId::parse));
    // Without the payload, as when the runner could not make its temporary directory, earlier attempts cannot be found.
    if let Ok(job) = context.job() {
        let key = session::job_key(&job);
        // When the runner kept no `job_env`, the payload's path gives the session's id, as in `prepare`.
        if let Ok(id) = context.session(&job) {
            sessions.extend(records.attempts(&id, &key).unwrap_or_default());
            sessions.insert(id);
        }
    }
    sessions
}
