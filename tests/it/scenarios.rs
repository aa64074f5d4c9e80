//! The table of scenarios: jobs run by GitLab Runner and by the runner double, each with a driver.
//!
//! Each row is a test of its own for each driver and each runner: `scenarios::basic::exit_code::reference_real`.
//! There is one file of rows per theme.
//!
//! They replay the integration tests that GitLab Runner has for its custom executor, as far as those apply to bash.
//! Two have no row: catching exceptions in PowerShell (a training image has a POSIX shell), and a private certificate
//! authority for git (the double of GitLab speaks plain HTTP). The other rows are cases that those tests leave out.
//!
//! Scenarios mostly wait, so more threads than processors help: `cargo test --test it -- scenarios
//! --test-threads=8`. The number of scenarios at once is limited.

/// The tests of one row; a further driver is two more tests here.
macro_rules! for_each_driver {
    ($row:ident) => {
        #[test]
        fn reference_real() {
            let driver = $crate::support::driver::reference();
            $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RealRunner, driver);
        }
        #[test]
        fn reference_double() {
            let driver = $crate::support::driver::reference();
            $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RunnerDouble, driver);
        }
        #[test]
        fn sagemaker_real() {
            let driver = $crate::support::driver::sagemaker();
            $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RealRunner, driver);
        }
        #[test]
        fn sagemaker_double() {
            let driver = $crate::support::driver::sagemaker();
            $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RunnerDouble, driver);
        }
        #[test]
        fn isolated_double() {
            $crate::support::scenario::play_isolated(&$row());
        }
        #[test]
        fn sandboxed_real() {
            let driver = $crate::support::driver::sandboxed();
            $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RealRunner, driver);
        }
        /// Another user's sandbox is that of `sandboxed_real`.
        #[test]
        fn sandboxed_root_real() {
            if rustix::process::geteuid().is_root() {
                let driver = $crate::support::driver::sandboxed_as_root();
                $crate::support::scenario::play(&$row(), $crate::support::scenario::With::RealRunner, driver);
            }
        }
    };
}
pub(crate) use for_each_driver;

mod artifacts;
mod basic;
mod cancel;
mod compare;
mod faults;
mod reliability;
mod sagemaker;
mod sagemaker_attacks;
mod sagemaker_bill;
mod sagemaker_bombs;
mod sagemaker_cancel;
mod sagemaker_creator;
mod sagemaker_debug;
mod sagemaker_desk;
mod sagemaker_host;
mod sagemaker_host_variables;
mod sagemaker_image;
mod sagemaker_input;
mod sagemaker_isolated;
mod sagemaker_journal;
mod sagemaker_kept;
mod sagemaker_kills;
mod sagemaker_landing_zone;
mod sagemaker_life;
mod sagemaker_links;
mod sagemaker_loss;
mod sagemaker_lost;
mod sagemaker_measured;
mod sagemaker_metrics;
mod sagemaker_mistakes;
mod sagemaker_model;
mod sagemaker_nodes;
mod sagemaker_one_path;
mod sagemaker_orphans;
mod sagemaker_partition;
mod sagemaker_phases;
mod sagemaker_policies;
mod sagemaker_pool;
mod sagemaker_power;
mod sagemaker_queue;
mod sagemaker_records;
pub(crate) mod sagemaker_registered;
mod sagemaker_results;
mod sagemaker_resume;
mod sagemaker_rules;
mod sagemaker_sandbox;
mod sagemaker_sandbox_network;
mod sagemaker_secret_values;
mod sagemaker_secrets;
mod sagemaker_several;
mod sagemaker_spot;
mod sagemaker_status;
mod sagemaker_trace;
mod sagemaker_trouble;
mod sagemaker_try;
mod sagemaker_upgrade;
mod sagemaker_words;
mod sagemaker_workspace;
mod sources;
mod tls;
mod variables;

use crate::support::real_runner;
use crate::support::waiting::tell;
use crate::support::world::Runner;

/// Says once, in the suite's output, which runners play the table.
#[test]
fn runners_in_use() {
    match Runner::real() {
        Some(Runner::Real(program)) => {
            tell(&format!(
                "scenarios run with: gitlab-runner {} (real), runner double",
                real_runner::version(&program)
            ));
        }
        _ => tell("scenarios run with: runner double (no gitlab-runner on PATH)"),
    }
}
