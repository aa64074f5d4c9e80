//! The reports about orders that the agent could not carry out. Pure.

use crate::base::failure;
use crate::protocol::mailbox::Report;
use crate::workspace::{Damaged, MissingPacks};

/// The report about a project that could not be received.
pub(super) fn receive_failure(error: &anyhow::Error, attempt: u32) -> Report {
    if error.chain().find_map(|cause| cause.downcast_ref::<MissingPacks>()).is_some() {
        tracing::warn!(error = format!("{error:#}"), "waiting for another attempt");
        return Report::Missing { attempt };
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<Damaged>()) {
        Some(Damaged { pack, chunk }) => Report::Damaged { pack: pack.clone(), chunk: chunk.clone() },
        None => failed("fetch the project", error),
    }
}

/// The report about an order that could not be carried out.
pub(super) fn failed(order: &str, error: &anyhow::Error) -> Report {
    let text = failure::render(error);
    let reason = text.strip_prefix("error: ").unwrap_or(&text).replace("\n  ", "; ");
    let by_job = failure::kind_of(error) == failure::Kind::User;
    Report::Failed { order: order.to_owned(), reason, by_job }
}
