//! One row of the scenario table, and the code that runs it.

use super::driver::{Driver, sagemaker_isolated};
use super::gitlab::git_available;
use super::job::Job;
use super::outcome::Outcome;
use super::real_runner;
use super::waiting::{enter_gate, find_program, tell};
use super::world::{Runner, Settings, World};

/// A scenario: jobs that run one after the other in one world, and what must come of them.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Programs without which it is skipped loudly, beside bash.
    pub(crate) needs: &'static [&'static str],
    pub(crate) settings: fn() -> Settings,
    /// Sends its jobs through [`World::run`]; a later job may use the outcome of an earlier one.
    pub(crate) play: fn(&World) -> Vec<Outcome>,
    pub(crate) expect: fn(&World, &[Outcome]),
}

/// Which of the two runners a test plays a scenario with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    RealRunner,
    RunnerDouble,
}

/// A play of exactly one job.
pub(crate) fn one(world: &World, job: &Job) -> Vec<Outcome> {
    vec![world.run(job)]
}

/// Plays one job, and hits its training job as [`Emulator::strike`](super::emulator::Emulator::strike) does when its output has the text.
pub(crate) fn struck(world: &World, text: &str, fault: &str, job: &Job) -> Outcome {
    let emulator = world.emulator.as_ref().expect("only an emulator's jobs can be hit");
    std::thread::scope(|scope| {
        scope.spawn(|| emulator.strike_after(text, fault));
        world.run(job)
    })
}

/// Plays a scenario, or says on standard error why not.
pub(crate) fn play(scenario: &Scenario, with: With, driver: Driver) {
    let runner = match with {
        With::RunnerDouble => Runner::Double,
        With::RealRunner => {
            let Some(runner) = Runner::real() else {
                tell(&format!("SKIPPED: {} with the real runner: no gitlab-runner on PATH", scenario.name));
                return;
            };
            runner
        }
    };
    for program in scenario.needs {
        if find_program(program).is_none() || (*program == "git" && !git_available()) {
            tell(&format!("SKIPPED: {}: no {program} on PATH", scenario.name));
            return;
        }
    }
    let _place = enter_gate();
    let told = match &runner {
        Runner::Real(program) => format!("gitlab-runner {} (real)", real_runner::version(program)),
        Runner::Double => "runner double".to_owned(),
    };
    eprintln!("scenario {} with {told}, {}", scenario.name, driver.name);
    let world = World::new(runner, driver, (scenario.settings)());
    let start = std::time::Instant::now();
    let outcomes = (scenario.play)(&world);
    eprintln!("scenario {} took {:.1?}", scenario.name, start.elapsed());
    (scenario.expect)(&world, &outcomes);
    world.is_left_clean();
}

/// Rows that do not hold without network, each with the reason, as in `docs/SEMANTICS.md`.
const NEED_NETWORK: [(&str, &str); 1] = [(
    "script_timeout",
    "a stop in the moment in which the container starts is lost, and SageMaker ends the container after its 120 s",
)];
/// One of so many rows is played in the short form of the suite; the code is the same for all, and each takes twice the time of others.
const ISOLATED_SHARE: usize = 3;

/// Plays a scenario with the runner double and containers without network. `ALL_ISOLATED=1`: every row.
#[expect(clippy::disallowed_methods, reason = "the size of the suite, which the project's own modules know nothing of")]
pub(crate) fn play_isolated(scenario: &Scenario) {
    if let Some((_, why)) = NEED_NETWORK.iter().find(|(name, _)| *name == scenario.name) {
        tell(&format!("SKIPPED: {} without network: {why}", scenario.name));
        return;
    }
    let number = scenario.name.bytes().map(usize::from).sum::<usize>();
    if number.is_multiple_of(ISOLATED_SHARE) || std::env::var_os("ALL_ISOLATED").is_some() {
        play(scenario, With::RunnerDouble, sagemaker_isolated());
    } else {
        tell(&format!("SKIPPED: {} without network, which `ALL_ISOLATED=1` plays", scenario.name));
    }
}

/// Defines the rows of one theme and a test for each row and each runner.
///
/// `scenarios! { name { needs: ["git"], settings: || .., play: |world| .., expect: |world, outcomes| .. } }`
macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident {
        $(needs: [$($need:literal),*],)?
        $(settings: $settings:expr,)?
        play: $play:expr,
        expect: $expect:expr $(,)?
    })*) => {
        /// The rows of this theme, for use with other drivers.
        #[allow(dead_code, reason = "a driver under development may play the whole table at once")]
        pub(crate) fn table() -> Vec<$crate::support::scenario::Scenario> {
            vec![$($name::row()),*]
        }
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                #[allow(unused_mut, unused_assignments, reason = "not every row has settings")]
                pub(crate) fn row() -> $crate::support::scenario::Scenario {
                    let mut settings: fn() -> $crate::support::world::Settings = Default::default;
                    $(settings = $settings;)?
                    $crate::support::scenario::Scenario {
                        name: stringify!($name),
                        needs: &[$($($need),*)?],
                        settings,
                        play: $play,
                        expect: $expect,
                    }
                }

                $crate::scenarios::for_each_driver!(row);
            }
        )*
    };
}
pub(crate) use scenarios;
