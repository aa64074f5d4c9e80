//! Output for people and the runner: the only writer to stdout and stderr.
//!
//! stdout is data (a script's bytes, the JSON of `config`), stderr is for people. It adds no timestamps, because the
//! runner does, never reads the environment or the clock, and never says what a variable holds. What others wrote acts on no
//! job log: every line for people goes through `plain`. A reader that has gone
//! ([`Printer::is_broken`]) is not an error: what is left to print is dropped, and the work goes on or is stopped by
//! whoever owns it.

mod captured;
pub mod operator_log;
mod printer;
mod program_log;
mod progress;
mod streams;

pub use captured::Captured;
pub use printer::Printer;
pub use program_log::init_tracing;
pub use progress::Progress;
pub use streams::PIECE;
