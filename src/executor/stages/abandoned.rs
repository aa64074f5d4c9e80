//! A script whose driver was killed: the stage that comes next ends it, and prints its output to its end.

use std::path::Path;

use anyhow::Context as _;

use crate::gitlab::BuildStage;
use crate::protocol::mailbox::Order;
use crate::session::Session;
use crate::session::follow::Follower;
use crate::session::machine::Conclusion;
use crate::session::record::{CurrentRun, SessionRecord};
use crate::session::supply::Supply;
use crate::stages::Context;
use crate::stages::run::log_client;

/// A script was begun, or about to, and nobody has seen its end.
pub(super) fn is_running(record: &SessionRecord) -> bool {
    record.current.as_ref().is_some_and(|current| current.code.is_none())
}

/// A script other than this one is still noted as running.
pub(super) fn is_left(record: &SessionRecord, stage: &BuildStage, script: &Path) -> anyhow::Result<bool> {
    let Some(current) = &record.current else { return Ok(false) };
    Ok(!is_same(current, stage, &read_script(script)?))
}

/// The same script again is the same run, begun anew by its caller.
pub(super) fn is_same(current: &CurrentRun, stage: &BuildStage, body: &[u8]) -> bool {
    current.stage == stage.to_string() && current.script == digest(body)
}

pub(super) fn digest(body: &[u8]) -> String {
    blake3::hash(body).to_hex().to_string()
}

pub(super) fn read_script(script: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(script).with_context(|| format!("failed to read the stage script {}", script.display()))
}

/// Ends the script that is noted as running, and prints its rest. One whose agent never came up never began.
pub(super) async fn end(context: &Context, session: &mut Session<'_>, supply: &Supply) -> anyhow::Result<()> {
    let Some(mut left) = session.record.current.clone() else { return Ok(()) };
    if left.code.is_none() {
        let orders = session.record.orders;
        session.order(&Order::Cancel { run: left.run }).await?;
        // The order to run it may have been stored, and the kill have come before that was noted: then it had this number.
        if left.ordered || session.record.orders > orders + 1 {
            let stage = &left.stage;
            context.printer.warn(format!("the driver's process of `{stage}` was killed; its script is ended first"));
            session.record.rewind(&left.reports);
            left.ordered = true;
            session.record.current = Some(left.clone());
            session.save()?;
            if follow(context, session, supply, &left).await? == Conclusion::NeverBegan {
                session.give_up().await?;
            }
        }
    }
    session.record.current = None;
    session.save()
}

async fn follow(
    context: &Context,
    session: &mut Session<'_>,
    supply: &Supply,
    left: &CurrentRun,
) -> anyhow::Result<Conclusion> {
    let feed = session.join_log(log_client(context))?;
    let follower = Follower::new(session, supply, left.run, feed)?;
    follower.already_canceled().follow(&context.cancellation).await
}
