//! Directory trees on disk: opens, walks and writes them without following links. Does not decide what may be written.

mod append;
mod base;
mod env_file;
mod fs;
mod links;
mod own_file;
mod stat;
mod trees;
mod upkeep;
mod walker;
pub(super) mod write;

pub use append::set_variables;
pub use base::Base;
pub(super) use env_file::{ENV_FILE, ENV_FILE_MAX, UNREADABLE_ENV, assigned, env_file_refused};
pub(super) use fs::is_absent;
pub use fs::path_of;
pub use own_file::write_own;
pub use stat::Snapshot;
pub(super) use stat::{FileStat, StateId, TICK};
pub(super) use trees::Roots;
pub use upkeep::{Next, make_cache_usable, make_usable, remove_temporary};
pub(super) use walker::{Root, Scope, Walker};
pub(super) use write::FileEnd;
