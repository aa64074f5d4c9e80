//! The contract between driver and agent: messages, object keys, and the start of the agent. Pure: no I/O, no clock.
//! [WIRE-FORMATS](../../../docs/WIRE-FORMATS.md) describes it.

pub mod agent_env;
pub mod bootstrap;
pub mod isolation;
pub mod keys;
pub mod mailbox;
pub mod measurements;
pub mod project;
pub mod session_tag;
