//! Exit codes of the commands that people type. `docs/EXIT-CODES.md` has the same table; a test compares the two.
//!
//! Stages get theirs from GitLab Runner, see [`super::failure::ExitCodes`].

use super::failure::Kind;

pub const DONE: u8 = 0;
pub const MISTAKE: u8 = 1;
pub const TROUBLE: u8 = 2;
/// The model's metrics are below the bar of the gate, the endpoint does not answer its samples as expected, or the image has a grave vulnerability.
pub const BELOW_BAR: u8 = 10;
/// AWS rolled a deployment back: the endpoint answers as before.
pub const ROLLED_BACK: u8 = 20;
/// The command rolled a deployment back: the endpoint answers as before.
pub const ROLLED_BACK_BY_US: u8 = 21;
/// A person has to act: no command can repair it.
pub const NEEDS_A_PERSON: u8 = 22;
/// Not allowed yet: an approval or another precondition is missing.
pub const NOT_YET: u8 = 30;
/// Throttled, no capacity, or a quota in use: the same command may succeed later.
pub const TRY_LATER: u8 = 75;
/// 128 and the number of SIGINT, as in a shell.
pub const CANCELED: u8 = 130;

/// Every exit code with its meaning. `try` also ends with the code of its command.
pub const TABLE: &[(u8, &str)] = &[
    (DONE, "The command did its work, or found it done"),
    (MISTAKE, "The job, or what was typed, asks for something impossible"),
    (TROUBLE, "AWS, GitLab, the network, the operator file, a bug; also a wrong command line"),
    (
        BELOW_BAR,
        "`gate`: a metric is below its bar, missing, doubled, or no number; `endpoint`: its answers or its health are not as they must be; `image scan`: a finding of the severity or above",
    ),
    (ROLLED_BACK, "AWS rolled a deployment back"),
    (ROLLED_BACK_BY_US, "The samples were answered wrongly, and the old configuration is in service again"),
    (NEEDS_A_PERSON, "A person has to act"),
    (NOT_YET, "Not allowed yet: an approval or another precondition is missing"),
    (TRY_LATER, "Throttled, no capacity, or a quota in use: try later"),
    (CANCELED, "SIGINT or SIGTERM ended it"),
];

/// Exit code of a failed command.
pub fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Script { code } => u8::try_from(code).unwrap_or(MISTAKE),
        Kind::User => MISTAKE,
        Kind::System => TROUBLE,
        Kind::Verdict { code } => code,
        Kind::Canceled => CANCELED,
    }
}
