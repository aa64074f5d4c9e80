//! A job under the operator's file and the policies that the module `runner` makes: the driver reads that file, and the emulator decides by
//! those policies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::conformance::{can_run_containers, skipped};
use crate::support::driver::{Driver, sandboxed_as_root};
use crate::support::emulator::BUCKET;
use crate::support::iam::{CREATOR_ROLE, HOST_ROLE, TRAINING_ROLE};
use crate::support::job::{Artifacts, Job};
use crate::support::partition::REGION;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

/// The statement of the bucket's policy that the emulator cannot decide: its requests come from no VPC endpoint.
const BY_ENDPOINT: &str = "TrainingJobsOnlyFromTheVpc";

/// A text with the names of the test's account, bucket, roles and region in the place of those of `complete/tests`.
pub(super) fn of_emulator(text: &str) -> String {
    let names = [
        ("111122223333", "000000000000"),
        ("ci-exchange-7", BUCKET),
        ("role/ml-runner-host", "role/host"),
        ("role/ml-runner-creator", "role/creator"),
        ("role/ml-runner-training", "role/train"),
        ("eu-west-1", "us-east-1"),
    ];
    names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The module's file, with the address of the emulator and folders of the test.
fn operator_file(made: &str) -> String {
    let places = [
        ("# endpoint_url = \"http://127.0.0.1:4566\"", "endpoint_url = \"{emulator}\""),
        ("\"/var/lib/sagemaker-executor/builds\"", "\"{builds_dir}\""),
        ("\"/var/lib/sagemaker-executor/cache\"", "\"{cache_dir}\""),
        ("\"/var/lib/sagemaker-executor/state\"", "\"{root}/state\""),
    ];
    places.iter().fold(of_emulator(made), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

/// The module's policies by file name, without [`BY_ENDPOINT`].
fn policies(made: &Value) -> Value {
    let files = made.as_object().expect("the policies have names").iter();
    let read = |text: &Value| -> Value { serde_json::from_str(&of_emulator(text.as_str().unwrap())).unwrap() };
    let mut all: serde_json::Map<_, _> = files.map(|(file, text)| (file.clone(), read(text))).collect();
    let statements = all["bucket-policy.json"]["Statement"].as_array_mut().unwrap();
    let before = statements.len();
    statements.retain(|statement| statement["Sid"] != BY_ENDPOINT);
    assert_eq!(statements.len() + 1, before, "{BY_ENDPOINT}");
    all.into()
}

/// The image of the job, in the only repository that the module's file allows.
fn job(world: &World) -> Job {
    let region = if world.driver.operator_config.contains(REGION) { REGION } else { "us-east-1" };
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("f", "content")]);
    Job::new()
        .sources(&repository, "main", &sha)
        .image(&format!("000000000000.dkr.ecr.{region}.amazonaws.com/train:1"))
        .script(["test \"$(cat f)\" = content", "echo result > made"])
        .artifacts(Artifacts::paths(["made"]))
}

/// Runs a job, and one in an image that the file does not allow.
#[track_caller]
pub(super) fn assert_runs_a_job(outputs: &BTreeMap<String, Value>) {
    if !can_run_containers() {
        return skipped("a job under the module's operator file", "bubblewrap creates no container");
    }
    let driver = Driver {
        operator_config: operator_file(outputs["operator_file"].as_str().unwrap()),
        policies: Some(policies(&outputs["policies"])),
        ..sandboxed_as_root()
    };
    let row = Scenario {
        name: "a_job_under_the_operator_file_of_the_module",
        needs: &["git", "tar"],
        settings: Settings::default,
        play: |world| {
            let job = job(world);
            vec![world.run(&job), world.run(&job.image("000000000000.dkr.ecr.us-east-2.amazonaws.com/other:1"))]
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].failed("script_failure", Some(1)).shows("`allow.images`");
            let emulator = world.emulator.as_ref().unwrap();
            let partition = if world.driver.operator_config.contains(REGION) { "aws-us-gov" } else { "aws" };
            for role in [HOST_ROLE, CREATOR_ROLE, TRAINING_ROLE] {
                let decided = emulator.decided_of(&format!("arn:{partition}:iam::000000000000:role/{role}"));
                assert!(decided["allowed"].as_object().is_some_and(|allowed| !allowed.is_empty()), "{role}: {decided}");
                assert_eq!(decided["denied"], json!({}), "{role}: {decided}");
            }
        },
    };
    play(&row, With::RunnerDouble, driver);
}
