//! The project's manifest: one file that says what the model is, how it is judged, and where it goes.

mod read;
mod types;

pub(crate) use read::load;
pub use types::{Approvals, Autoscaling, Endpoint, EnvironmentEntry, Manifest, Model, Tags};
