//! Handles a script whose driver was killed: the next stage ends it, and prints the rest of its output.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::gitlab::BuildStage;
use crate::protocol::mailbox::Order;
use crate::session::Session;
use crate::session::current_run::CurrentRun;
use crate::session::event::SessionEvent;
use crate::session::follow::Follower;
use crate::session::machine::Conclusion;
use crate::session::state::SessionState;
use crate::session::workspace_upload::WorkspaceUpload;
use crate::stages::Context;

/// `true` when another script than this one is saved as running.
pub(super) fn is_left(known: &SessionState, stage: &BuildStage, script: &Path) -> anyhow::Result<bool> {
    let Some(current) = known.run() else { return Ok(false) };
    Ok(!is_same(current, stage, &read_script(script)?))
}

/// The same script again is the same run, repeated by its caller.
pub(super) fn is_same(current: &CurrentRun, stage: &BuildStage, body: &[u8]) -> bool {
    current.stage == stage.to_string() && current.script == digest(body)
}

pub(super) fn digest(body: &[u8]) -> String {
    blake3::hash(body).to_hex().to_string()
}

pub(super) fn read_script(script: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(script).with_context(|| format!("failed to read the stage script {}", script.display()))
}

/// Ends the script that is saved as running, and prints the rest of its output. Without an agent it never began.
pub(super) async fn end(context: &Context, session: &mut Session<'_>, upload: &WorkspaceUpload) -> anyhow::Result<()> {
    let Some(left) = session.state().run().cloned() else { return Ok(()) };
    if left.code.is_none() {
        session.order(&Order::Cancel { run: left.run }).await?;
        if session.state().is_isolated() {
            // No order reaches the container.
            session.stop_job().await;
        }
        // The order may have been stored without the record being saved; the number of the cancel order shows it.
        if session.state().run().is_some_and(|run| run.ordered) {
            let stage = &left.stage;
            context.printer.warn(format!("the driver's process of `{stage}` was killed; its script is ended first"));
            session.apply(SessionEvent::RunTakenOver)?;
            if follow(context, session, upload, left.run).await? == Conclusion::NeverBegan {
                session.give_up().await?;
            }
        }
    }
    session.apply(SessionEvent::RunOver)
}

async fn follow(
    context: &Context,
    session: &mut Session<'_>,
    upload: &WorkspaceUpload,
    run: u32,
) -> anyhow::Result<Conclusion> {
    let feed = session.join_log(context.log_client())?;
    let provisioning = Duration::from_secs(context.settings.limits.provisioning_seconds);
    Follower::new(session, upload, run, feed, provisioning)?.follow(&context.cancellation).await
}
