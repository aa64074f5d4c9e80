//! `cleanup`: whatever the job left is gone afterwards. Its exit code changes nothing for the runner, so it says what
//! failed and keeps the record for a later pass.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::cloud;
use crate::session::record::Records;
use crate::session::{self, Session, SessionId, close};
use crate::stages::Context;

pub async fn run(context: Context) -> anyhow::Result<()> {
    let records = Records::open(&context.settings.runner.state_dir)?;
    let sessions = sessions(&context, &records);
    if sessions.is_empty() {
        return Ok(());
    }
    let cloud = cloud::aws::connect(&context.settings.access()).await?;
    let mut failed = None;
    for id in sessions {
        let Some(session) = Session::attach(id.clone(), cloud.clone(), &context.settings, &context.printer)? else {
            continue;
        };
        if let Err(error) = close::close(session).await.with_context(|| format!("failed to clean up the session {id}"))
        {
            tracing::warn!(session = %id, error = %crate::failure::render(&error), "cleanup failed");
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// This attempt's session, and what an earlier attempt of the same job left because its own cleanup failed.
fn sessions(context: &Context, records: &Records) -> BTreeSet<SessionId> {
    let mut sessions = BTreeSet::new();
    // Without the payload, as when the runner could not make its temporary folder, there is no earlier attempt to find.
    let job = context.job().ok();
    if let Some(job) = &job {
        let key = session::job_key(job);
        let same_job = |id: &SessionId| records.load(id).ok().flatten().is_some_and(|record| record.job_key == key);
        sessions.extend(records.sessions().unwrap_or_default().into_iter().filter(same_job));
    }
    // A session without a record was never begun by `prepare`.
    let named = context.contract.session.as_deref().and_then(SessionId::parse);
    sessions.extend(named.filter(|id| records.load(id).ok().flatten().is_some()));
    sessions
}
