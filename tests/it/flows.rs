//! Whole pipelines: `.gitlab-ci.yml` as it stands, compiled, and each job run by GitLab Runner or its double, with the emulator as AWS
//! and doubles of GitLab.
//!
//! [`site::Site`] is the place, [`event::Event`] starts a [`pipeline::Pipeline`] there, [`compiled`] makes its jobs, and [`schedule`]
//! decides which is next.

mod bad_input;
mod codebuild;
mod compiled;
mod components;
mod credentials;
mod demonstrations;
mod event;
mod example;
mod examples;
mod govcloud;
mod kinds;
mod own_container;
mod pipeline;
mod production;
mod promotion;
mod retail;
mod schedule;
mod show;
mod site;
mod training;

use crate::support::waiting::{enter_gate, tell};
use crate::support::world::Runner;

/// Plays a row with GitLab Runner, or with its double when it is not on `PATH`.
fn play(test: &str, row: fn(&site::Site)) {
    play_named(test, site::NAME, row);
}

/// [`play`] with a project of models of this name.
fn play_named(test: &str, name: &str, row: fn(&site::Site)) {
    play_in(test, name, &site::USUAL, row);
}

/// [`play_named`] in an account of another partition.
fn play_in(test: &str, name: &str, account: &site::Elsewhere, row: fn(&site::Site)) {
    let runner = Runner::real().unwrap_or_else(|| {
        tell(&format!("SKIPPED: {test} with the real runner, so with its double: no gitlab-runner on PATH"));
        Runner::Double
    });
    play_with(test, runner, name, account, row);
}

fn play_with(test: &str, runner: Runner, name: &str, account: &site::Elsewhere, row: fn(&site::Site)) {
    let _place = enter_gate();
    let told = format!("{test} with {runner:?}");
    let Some(site) = site::Site::new(test, runner, name, account) else { return };
    let start = std::time::Instant::now();
    row(&site);
    eprintln!("{told} took {:.1?}", start.elapsed());
    site.remove_endpoints();
    site.world.is_left_clean();
}
