//! Exit codes of the commands that people type. `docs/EXIT-CODES.md` has the same table; a test compares the two.
//!
//! Stages get theirs from GitLab Runner, see [`super::failure::ExitCodes`].

use super::failure::Kind;

pub const DONE: u8 = 0;
pub const MISTAKE: u8 = 1;
pub const TROUBLE: u8 = 2;
/// 128 and the number of SIGINT, as in a shell.
pub const CANCELED: u8 = 130;

/// Every exit code with its meaning. `try` also ends with the code of its command.
pub const TABLE: &[(u8, &str)] = &[
    (DONE, "The command did its work"),
    (MISTAKE, "The job, or what was typed, asks for something impossible"),
    (TROUBLE, "AWS, the network, the operator file, a bug; also a wrong command line"),
    (CANCELED, "SIGINT or SIGTERM ended it"),
];

/// Exit code of a failed command.
pub fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Script { code } => u8::try_from(code).unwrap_or(MISTAKE),
        Kind::User => MISTAKE,
        Kind::System => TROUBLE,
        Kind::Canceled => CANCELED,
    }
}
