//! Patterns of the keys that a training job reaches of the executor's own objects, below the prefix of the operator's file.

use super::account::Account;
use super::session_tag;
use crate::protocol::keys::Token;

/// A scope: the project's id, and a `?` for each of the digits that only the job and the hosts know.
const DIGITS: usize = 32;

/// Keys of the sessions that a job reaches.
pub(super) fn session_keys(account: &Account<'_>) -> String {
    match account.creator_role {
        Some(_) => format!("sessions/{}/*", session_tag::variable(session_tag::SESSION)),
        // A `?` for each digit, so that the pattern matches no key of which a digit is missing.
        None => format!("sessions/*/{}/*", "?".repeat(Token::BYTES * 2)),
    }
}

/// Keys of the projects' packs that a job reads.
pub(super) fn project_keys(account: &Account<'_>) -> String {
    match account.creator_role {
        Some(_) => format!("projects/{}/*", session_tag::variable(session_tag::PROJECT)),
        None => "projects/*".to_owned(),
    }
}

/// Keys of the checkpoints that a job reaches.
pub(super) fn checkpoint_keys(account: &Account<'_>) -> String {
    match account.creator_role {
        Some(_) => format!("checkpoints/{}/*", session_tag::variable(session_tag::CHECKPOINTS)),
        None => format!("checkpoints/*-{}/*", "?".repeat(DIGITS)),
    }
}
