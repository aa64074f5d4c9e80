//! Support for the scenarios: a double of GitLab, two ways to run a job, and an outcome of the same form from both.
//!
//! To read in this order:
//!
//! 1. [`job::Job`] describes a job as `.gitlab-ci.yml` would, with events while it runs ([`job::Trigger`]).
//! 2. [`world::World`] holds one double of GitLab ([`gitlab::GitLab`]), one set of directories, one
//!    [`driver::Driver`] and one [`world::Runner`]: `Real(path)` or `Double`. [`world::World::run`] runs a job.
//! 3. [`outcome::Outcome`] is the result as GitLab saw it: trace, state, exit code, failure reason, artifacts, driver stages.
//! 4. [`scenario::Scenario`] is one row of the table: a name, requirements, settings, jobs and the expectation.
//!
//! A driver under test is one value: program, arguments before the stage name, environment, operator file. The
//! placeholders `{root}`, `{builds_dir}`, `{cache_dir}`, `{home}` and `{operator_config}` in them are replaced by the
//! world's own paths. `driver::reference()` is a small bash driver that runs everything on the host.
//!
//! Nothing here uses the project's own modules, so that mistakes in them are not repeated here.
#![allow(dead_code, reason = "each scenario uses a part of it")]

pub(crate) mod account;
pub(crate) mod driver;
pub(crate) mod emulator;
pub(crate) mod gitlab;
pub(crate) mod gitlab_api;
pub(crate) mod iam;
pub(crate) mod id_tokens;
pub(crate) mod images;
pub(crate) mod job;
pub(crate) mod outcome;
pub(crate) mod pipeline;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod real_runner;
pub(crate) mod runner_double;
pub(crate) mod scenario;
pub(crate) mod serving;
pub(crate) mod shipped_roles;
pub(crate) mod snapshot;
pub(crate) mod tls;
pub(crate) mod used_statements;
pub(crate) mod waiting;
pub(crate) mod world;
