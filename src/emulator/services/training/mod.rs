//! `SageMaker` training jobs: operations, the life of each job, its containers and what they write.

mod channels;
mod containers;
mod job;
mod life;
mod location;
mod operations;
mod platform;
mod role;
mod rules;
mod shipping;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::state::Training;
