//! The workspace: the project directory on its way to the training container, and what later stages read on its way back.
//!
//! The interface says *what* moves; how (content-defined chunks in packs, and a manifest in parts, see
//! `docs/WIRE-FORMATS.md`) is private. On the way up everything travels as it is. On the way back nothing a container says is trusted: the host
//! checks all of it before it changes anything, writes through no link, and never writes into `.git`. This module
//! knows no session, no job and no AWS.
//!
//! The files beside the folders are small parts that several of them use.

mod listing;
mod manifest;
mod path;
mod receive;
mod select;
mod send;
mod store;
mod summary;
mod task;
mod tree;
mod warnings;

#[cfg(test)]
mod tests;

pub use receive::{AllSent, Bounds, Damaged, Destination, MissingPacks, TransferLimits, apply_changes, receive};
pub use send::{forget, send, send_changes};
pub use summary::Summary;
pub use task::TransferProgress;
pub use tree::{Base, Next, Snapshot, make_cache_usable, make_usable, path_of, remove_temporary};
