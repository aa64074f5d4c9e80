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

pub(crate) use self::state::Training;
