//! Selects the paths that later host stages read, as GitLab Runner's helper would find them. No I/O.

mod expansion;
mod glob;
mod link;
mod named;
mod pattern;
mod selection;
mod tree_view;

#[cfg(test)]
pub(super) use link::stray_link;
pub use named::is_named;
pub(super) use selection::{Effort, Wanted};
pub(super) use tree_view::{Node, TreeView};
