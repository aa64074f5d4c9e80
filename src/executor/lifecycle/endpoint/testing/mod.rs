//! Sends samples to an endpoint and judges its answers: for `endpoint test`, and after a deployment.
//!
//! `sample` has the types, `forms` and `sample_files` read them, `plan` puts a test together, `load` sends it by `sending` and
//! `asynchronous`, `assertions` and `statistics` judge it, and `verdict` shows it. `unique_keys` reads JSON for samples and answers.

mod assertions;
mod asynchronous;
mod forms;
mod load;
mod plan;
mod sample;
mod sample_files;
mod sending;
mod statistics;
#[cfg(test)]
mod tests;
mod unique_keys;
mod verdict;

pub(super) use plan::{TestChanges, TestPlan};
pub(super) use verdict::TestVerdict;
