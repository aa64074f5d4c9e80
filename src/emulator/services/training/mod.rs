//! `SageMaker` training jobs: operations, the life of each job, its containers and what they write.

mod capacity;
mod channels;
mod checkpoints;
mod containers;
mod download;
mod ending;
mod file_systems;
mod final_metrics;
mod hosts;
mod job;
mod life;
mod location;
mod operations;
mod pipes;
mod platform;
mod pools;
mod results;
mod role;
mod rules;
mod shipping;
mod state;
#[cfg(test)]
mod tests;
mod warm_hosts;

pub(crate) use self::download::copy_down;
pub(crate) use self::location::S3Location;
pub(crate) use self::platform::PlatformStore;
pub(crate) use self::role::role_session;
pub(crate) use self::shipping::{LogPlace, ship};
pub(crate) use self::state::Training;
