//! What the scenarios stand on: a double of GitLab, two ways to run a job, and the outcome that both deliver.
//!
//! The way through it:
//!
//! 1. [`job::Job`] describes a job as `.gitlab-ci.yml` would, with what shall happen while it runs ([`job::Trigger`]).
//! 2. [`world::World`] holds one double of GitLab ([`gitlab::GitLab`]), one set of directories, one
//!    [`driver::Driver`] and one [`world::Runner`]: `Real(path)` or `Double`. [`world::World::run`] sends a job through.
//! 3. [`outcome::Outcome`] tells what GitLab saw: trace, state, exit code, failure reason, artifacts, driver stages.
//! 4. [`scenario::Scenario`] is one row of the table: a name, what it needs, settings, jobs and the expectation.
//!
//! A driver under test is one value: program, arguments before the stage name, environment, operator file. The
//! placeholders `{root}`, `{builds_dir}`, `{cache_dir}`, `{home}` and `{operator_config}` in them are replaced by the
//! world's own paths. `driver::reference()` is a small bash driver that runs everything on the host.
//!
//! Nothing here reads the project's own modules: the judge shares no code with the judged.
#![allow(dead_code, reason = "each scenario uses a part of it")]

pub(crate) mod account;
pub(crate) mod driver;
pub(crate) mod emulator;
pub(crate) mod gitlab;
pub(crate) mod job;
pub(crate) mod outcome;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod real_runner;
pub(crate) mod runner_double;
pub(crate) mod scenario;
pub(crate) mod tls;
pub(crate) mod waiting;
pub(crate) mod world;
