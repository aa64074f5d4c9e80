//! Exit codes of the commands that people type. `docs/EXIT-CODES.md` has the same table, and a test compares both.
//!
//! The stages that GitLab Runner calls take theirs from the runner, see [`super::failure::ExitCodes`].

use super::failure::Kind;

pub const DONE: u8 = 0;
pub const MISTAKE: u8 = 1;
pub const TROUBLE: u8 = 2;
/// 128 and the number of SIGINT, as in a shell.
pub const CANCELED: u8 = 130;

/// Every code of ours with its meaning. `try` ends with the code of its command besides.
pub const TABLE: &[(u8, &str)] = &[
    (DONE, "The command did its work"),
    (MISTAKE, "The job, or what was typed, asks for something impossible"),
    (TROUBLE, "AWS, the network, the operator file, a bug; also a wrong command line"),
    (CANCELED, "SIGINT or SIGTERM ended it"),
];

/// The code of a command that ended badly.
pub fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Script { code } => u8::try_from(code).unwrap_or(MISTAKE),
        Kind::User => MISTAKE,
        Kind::System => TROUBLE,
        Kind::Canceled => CANCELED,
    }
}
