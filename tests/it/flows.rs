//! Whole pipelines: `.gitlab-ci.yml` as it stands, compiled, and each job run by GitLab Runner or its double, with the emulator as AWS
//! and doubles of GitLab.
//!
//! [`site::Site`] is the place, [`event::Event`] starts a [`pipeline::Pipeline`] there, [`compiled`] makes its jobs, and [`schedule`]
//! decides which is next.

mod compiled;
mod components;
mod event;
mod pipeline;
mod schedule;
mod show;
mod site;
mod training;

use crate::support::waiting::{enter_gate, tell};
use crate::support::world::Runner;

/// Plays a row with the runner double, and with GitLab Runner where it is on `PATH`.
fn with_each_runner(test: &str, play: fn(&site::Site)) {
    for runner in [Some(Runner::Double), Runner::real()] {
        let Some(runner) = runner else {
            tell(&format!("SKIPPED: {test} with the real runner: no gitlab-runner on PATH"));
            continue;
        };
        let _place = enter_gate();
        let Some(site) = site::Site::new(test, runner) else { return };
        play(&site);
        site.world.is_left_clean();
    }
}
