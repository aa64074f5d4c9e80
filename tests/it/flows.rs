//! Whole pipelines: `.gitlab-ci.yml` as it stands, compiled, and each job run by GitLab Runner or its double, with the emulator as AWS
//! and doubles of GitLab.
//!
//! [`site::Site`] is the place, [`event::Event`] starts a [`pipeline::Pipeline`] there, [`compiled`] makes its jobs, and [`schedule`]
//! decides which is next.

mod compiled;
mod components;
mod demonstrations;
mod event;
mod pipeline;
mod schedule;
mod show;
mod site;
mod training;

use crate::support::scenario::With;
use crate::support::waiting::{enter_gate, tell};
use crate::support::world::Runner;

/// Plays a row with one of the two runners.
fn play(test: &str, with: With, row: fn(&site::Site)) {
    let runner = match with {
        With::RunnerDouble => Runner::Double,
        With::RealRunner => {
            let Some(runner) = Runner::real() else {
                return tell(&format!("SKIPPED: {test} with the real runner: no gitlab-runner on PATH"));
            };
            runner
        }
    };
    let _place = enter_gate();
    let Some(site) = site::Site::new(test, runner) else { return };
    let start = std::time::Instant::now();
    row(&site);
    eprintln!("{test} with {with:?} took {:.1?}", start.elapsed());
    site.remove_endpoints();
    site.world.is_left_clean();
}

/// Makes a module of each row, with a test for each runner.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $row:path;)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;
                use crate::support::scenario::With;

                #[test]
                fn with_the_runner_double() {
                    crate::flows::play(stringify!($name), With::RunnerDouble, $row);
                }

                #[test]
                fn with_gitlab_runner() {
                    crate::flows::play(stringify!($name), With::RealRunner, $row);
                }
            }
        )*
    };
}
use rows;
