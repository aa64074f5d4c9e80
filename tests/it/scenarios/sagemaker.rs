//! Rows for SageMaker alone: the data that reaches the training job and the data that comes back.

use serde_json::json;

use crate::support::driver::{Driver, sagemaker};
use crate::support::emulator::quota_text;
use crate::support::job::{Artifacts, Cache, Job};
use crate::support::scenario::one;

/// Rows for one driver each, played with both runners: `name { driver: .., play: .., expect: .. }`.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident {
        driver: $driver:expr,
        $(needs: [$($need:literal),*],)?
        play: $play:expr,
        expect: $expect:expr $(,)?
    })*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                fn row() -> $crate::support::scenario::Scenario {
                    $crate::support::scenario::Scenario {
                        name: stringify!($name),
                        needs: &[$($($need),*)?],
                        settings: $crate::support::world::Settings::default,
                        play: $play,
                        expect: $expect,
                    }
                }
                #[test]
                fn real() {
                    $crate::support::scenario::play(&row(), $crate::support::scenario::With::RealRunner, $driver);
                }
                #[test]
                fn double() {
                    $crate::support::scenario::play(&row(), $crate::support::scenario::With::RunnerDouble, $driver);
                }
            }
        )*
    };
}
pub(super) use rows;

fn plain() -> Driver {
    sagemaker()
}

rows! {
    /// A signal that ends the script counts as a shell counts it.
    script_killed_by_a_signal {
        driver: plain(),
        play: |world| vec![
            world.run(&Job::new().script(["kill -KILL $$"]).after_script(["echo after-$CI_JOB_STATUS"])),
            world.run(&Job::new().script(["sh -c 'kill -SEGV $$'"])),
        ],
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(137)).shows("\nafter-failed");
            outcomes[1].failed("script_failure", Some(139));
        },
    }
    /// The wishes of a job are in `CreateTrainingJob`; nothing else of its variables is.
    job_variables_reach_sagemaker {
        driver: plain(),
        play: |world| one(world, &Job::new()
            .set("SAGEMAKER_INSTANCE_TYPE", "ml.g5.2xlarge, ml.g5.xlarge")
            .set("SAGEMAKER_VOLUME_SIZE_GB", "77")
            .set("SAGEMAKER_MAX_RUNTIME", "20m")
            .set("SAGEMAKER_ENV_EPOCHS", "12")
            .set("LEARNING_RATE", "one-quarter")
            .script(["echo epochs=$EPOCHS rate=$LEARNING_RATE"])),
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("\nepochs=12 rate=one-quarter");
            let jobs = world.emulator.as_ref().unwrap().jobs();
            let job = &jobs[0];
            let preferences = serde_json::json!([{"InstanceType": "ml.g5.2xlarge"}, {"InstanceType": "ml.g5.xlarge"}]);
            assert_eq!(job["ResourceConfig"]["InstancePreferences"], preferences);
            assert_eq!(job["ResourceConfig"]["VolumeSizeInGB"], 77);
            assert_eq!(job["StoppingCondition"]["MaxRuntimeInSeconds"], 1200);
            assert_eq!(job["Environment"]["EPOCHS"], "12");
            assert_eq!(job["AlgorithmSpecification"]["TrainingImage"], "registry.example.com/train:2.4");
            assert!(!job.to_string().contains("one-quarter"), "{job}");
        },
    }
    /// The script runs on each node, and one that fails fails the job.
    two_instances {
        driver: plain(),
        play: |world| vec![
            world.run(&Job::new().set("SAGEMAKER_INSTANCE_COUNT", "2").script(["echo on-$SM_CURRENT_HOST-$(hostname)"])),
            world.run(&Job::new().set("SAGEMAKER_INSTANCE_COUNT", "2").script(["[ $(hostname) = algo-1 ] || exit 5"])),
        ],
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("-algo-1").shows("-algo-2");
            outcomes[1].failed("script_failure", Some(5));
        },
    }
    /// The last container stage is the one whose files count.
    artifact_made_in_after_script {
        driver: plain(),
        needs: ["unzip", "tar"],
        play: |world| one(world, &Job::new().script(["echo one > a.txt"]).after_script(["echo two > b.txt", "rm a.txt"])
            .artifacts(Artifacts::paths(["*.txt"]))),
        expect: |_, outcomes| {
            let files = outcomes[0].succeeded().artifact("archive").files();
            assert_eq!(files.into_iter().collect::<Vec<_>>(), [("b.txt".to_owned(), b"two\n".to_vec())]);
        },
    }
    /// What the container deleted is deleted on the host, in the cache and in the artifact.
    deletions_arrive_on_the_host {
        driver: plain(),
        needs: ["git", "unzip", "tar"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("data/old.csv", "old"), ("data/kept.csv", "kept"), ("src/a.py", "a")]);
            one(world, &Job::new().sources(&repository, "main", &sha)
                .script(["ls data", "rm data/old.csv", "echo new > data/new.csv", "git status --short 2>/dev/null || true"])
                .cache(Cache::new("data", ["data/"]))
                .artifacts(Artifacts::paths(["data/"])))
        },
        expect: |_, outcomes| {
            let files = outcomes[0].succeeded().shows("old.csv").artifact("archive").files();
            let mut names: Vec<_> = files.into_keys().filter(|name| !name.ends_with('/')).collect();
            names.sort();
            assert_eq!(names, ["data/kept.csv", "data/new.csv"]);
        },
    }
    /// The account's quota is full for a moment: the runner's second attempt gets a training job of its own.
    prepared_at_the_second_attempt {
        driver: plain(),
        play: |world| {
            let full = json!({"operation": "CreateTrainingJob", "count": 1, "error": "ResourceLimitExceeded",
                "message": quota_text("ml.m5.large", 0)});
            world.emulator.as_ref().unwrap().set_faults(&json!({"calls": [full]}));
            one(world, &Job::new().script(["echo the-script-ran"]))
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded().called("prepare", 2).called("cleanup", 2).shows("`SAGEMAKER_INSTANCE_TYPE`");
            assert_eq!(world.emulator.as_ref().unwrap().jobs().len(), 1);
        },
    }
}
