//! The workspace: transfers the project directory to the training container, and the files that later stages read back to the host.
//!
//! The format (content-defined chunks in packs, a manifest in parts, see `docs/WIRE-FORMATS.md`) is private to this module. To the
//! container everything is sent as it is. On the way back the container is not trusted: the host checks all of it before it changes
//! anything, writes through no link, and never writes into `.git`. This module knows no sessions, jobs or AWS.
//!
//! The files beside the folders are used by several of them.

mod changed;
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

pub use receive::{
    AllSent, Bounds, Damaged, Destination, MissingPacks, MissingPart, TransferLimits, TransferPacks, apply_changes,
    apply_kept, lines_for_the_host, packs_of, receive, receive_kept,
};
pub use select::is_named;
pub use send::{changed_files, forget, send, send_changes, send_tree};
pub use summary::Summary;
pub use task::TransferProgress;
pub use tree::{
    Base, Next, Snapshot, make_cache_usable, make_usable, path_of, remove_temporary, set_variables, write_own,
};
