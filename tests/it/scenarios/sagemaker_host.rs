//! What a job's variables, files and flags do to the stages on the runner's host.

use crate::support::account::ORDINARY;
use crate::support::driver;
use crate::support::job::{Artifacts, Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

/// A row and its tests with the driver under test; the reference driver has no host of its own.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident($row:expr);)*) => {
        $($(#[$doc])* mod $name {
            use super::*;
            #[test]
            fn real() {
                play(&$row, With::RealRunner, driver::sagemaker());
            }
            #[test]
            fn double() {
                play(&$row, With::RunnerDouble, driver::sagemaker());
            }
        })*
    };
}

fn row(name: &'static str, play: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) -> Scenario {
    Scenario { name, needs: &["git", "unzip", "tar"], settings: Settings::default, play, expect }
}

fn ordinary(scenario: Scenario) -> Scenario {
    Scenario { settings: || Settings { ordinary_user: true, ..Settings::default() }, ..scenario }
}

rows! {
    /// Clone, cache, artifacts and cleanup, with a runner that is not root.
    ordinary_user(ordinary(row(
        "ordinary_user",
        |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("train.py", "print(1)\n")]);
            let job = Job::new()
                .sources(&repository, "main", &sha)
                .hook("pre_get_sources_script", ["echo host user $(id -u)"])
                .script(["cat train.py", "mkdir -p out kept", "echo model > out/model", "echo x >> kept/x"])
                .after_script(["cat kept/x"])
                .cache(Cache::new("k", ["kept"]))
                .artifacts(Artifacts::paths(["out"]));
            vec![world.run(&job), world.run(&job)]
        },
        |_, outcomes| {
            let user = rustix::process::geteuid();
            let user = if user.is_root() { ORDINARY } else { user.as_raw() };
            for outcome in outcomes {
                outcome.succeeded().shows(&format!("host user {user}\n"));
                assert_eq!(outcome.artifact("archive").files()["out/model"], b"model\n");
            }
            outcomes[1].shows("\nx\nx\n");
        },
    )));
}
