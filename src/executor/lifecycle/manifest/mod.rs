//! The project's manifest: one file that says what the model is, how it is judged, and where it goes.
//!
//! `file` reads it, `places` parses it, `patch` applies the changes of an environment, `variables` puts variables in, `shape`
//! compares it with the `schema` of its `types`, `rules` checks what no schema says, and `shared` compares
//! the environments.

mod code_build;
mod file;
mod finding;
mod image_entry;
mod patch;
mod places;
mod read;
mod rules;
mod schema;
mod shape;
mod shared;
mod types;
mod variables;

pub use code_build::CodeBuildEntry;
pub(crate) use finding::ManifestFinding;
pub use image_entry::{ImageBuilder, ImageEntry};
pub(crate) use places::join as key_below;
pub(crate) use read::{ManifestReading, ManifestText, mistakes};
#[cfg(test)]
pub(in crate::lifecycle) use rules::MOST_TAGS;
pub(crate) use types::is_name;
pub use types::{
    Approvals, Asynchronous, Autoscaling, Endpoint, EndpointTest, EnvironmentEntry, EnvironmentTier, Manifest,
    ModelEntry, Package, Strategy, TagEntries,
};
pub(crate) use variables::{holds_secret, is_secret_name};

#[cfg(test)]
mod tests;
