//! The contract of driver and agent, used by both: what they tell each other, where it lies in the bucket, and how the agent is
//! started. Pure: no I/O, no clock. [WIRE-FORMATS](../../../docs/WIRE-FORMATS.md) describes it.

pub mod agent_env;
pub mod bootstrap;
pub mod keys;
pub mod mailbox;
pub mod project;
