//! Tags of the creator role's session, as policies name them.

pub(super) use crate::protocol::session_tag::{ALL, CHECKPOINTS, PROJECT, PROTECTED, SESSION};

/// The tag's value, in a policy of a principal that has it.
pub(super) fn variable(tag: &str) -> String {
    format!("${{aws:PrincipalTag/{tag}}}")
}
