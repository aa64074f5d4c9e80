//! Jobs under the policies that `policy iam` makes from the operator's file.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::driver::{Driver, sagemaker, sagemaker_with_creator};
use crate::support::iam::{CREATOR_ROLE, HOST_ROLE, TRAINING_ROLE, granted};
use crate::support::job::{Artifacts, Job};

use super::sagemaker::rows;
use super::sagemaker_desk::Desk;

rows! {
    /// Host and training job need nothing that their policies do not grant.
    policies_grant_what_a_job_needs {
        driver: sagemaker(),
        play: |world| vec![
            world.run(&Job::new().script(["echo made > made"]).artifacts(Artifacts::paths(["made"]))),
            world.run(&Job::new().script(["exit 3"])),
        ],
        expect: |world, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].failed("script_failure", Some(3));
            let emulator = world.emulator.as_ref().unwrap();
            for role in [HOST_ROLE, TRAINING_ROLE] {
                let decided = emulator.decided(role);
                println!("{role}: {decided}");
                assert!(decided["allowed"].as_object().is_some_and(|allowed| !allowed.is_empty()), "{role}: {decided}");
                assert!(decided["denied"].as_object().is_some_and(serde_json::Map::is_empty), "{role}: {decided}");
            }
        },
    }
}

/// Granted actions that the emulator's SageMaker never asks for, each with its use at AWS.
const USED_AT_AWS_ALONE: [(&str, &str); 1] =
    [("s3:AbortMultipartUpload", "SageMaker uploads the output in parts, and gives up a part upload that failed")];

/// Plays jobs that together use all that the policies of the driver's operator's file grant, and compares.
fn uses_all_that_is_granted(mut driver: Driver) {
    let network = "[job]\nsubnets = [\"subnet-1\"]\nsecurity_group_ids = [\"sg-1\"]\n";
    driver.operator_config = driver.operator_config.replace("[job]\n", network) + "[trace]\nlive_copy = false\n";
    let log_delay = ["--log-delay", "500ms"].map(str::to_owned);
    let job = Job::new().script(["true"]).image("000000000000.dkr.ecr.us-east-1.amazonaws.com/train:1");
    let mut used: [BTreeSet<String>; 3] = Default::default();
    let mut of_roles = Value::Null;
    for starting_delay in ["0s", "60s"] {
        let delay = ["--starting-delay", starting_delay].map(str::to_owned);
        driver.emulator = Some([&log_delay[..], &delay].concat());
        let desk = Desk::of(&driver, &std::env::temp_dir(), &job);
        // Old versions have the host look at the lifecycle rules; a lost reply, at the tags of the job that is there.
        desk.emulator.keep_versions();
        desk.emulator.set_faults(&json!({"calls": [{"operation": "CreateTrainingJob", "count": 1, "drop": "after"}]}));
        let desk = desk.prepared();
        if starting_delay == "0s" {
            // Only CloudWatch can have brought a line of a script that still runs.
            let mut run = desk.start_run("build_script", "echo made > made; echo first; sleep 3600");
            run.until("first");
            run.signal(Signal::TERM);
            assert_eq!(run.end().out(), "first\n");
        }
        // A job that has not started is stopped.
        desk.cleanup().passed();
        desk.call(&["sweep"]).passed();
        of_roles = granted(desk.root());
        for (used, role) in used.iter_mut().zip([HOST_ROLE, TRAINING_ROLE, CREATOR_ROLE]) {
            let decided = desk.emulator.decided(role);
            assert!(decided["denied"].as_object().is_none_or(serde_json::Map::is_empty), "{role}: {decided}");
            used.extend(decided["allowed"].as_object().into_iter().flat_map(|allowed| allowed.keys().cloned()));
        }
        desk.is_left_clean();
    }
    for (used, role) in used.iter().zip([HOST_ROLE, TRAINING_ROLE, CREATOR_ROLE]) {
        let granted = of_roles[role].as_array().into_iter().flatten().filter_map(Value::as_str);
        let unused: Vec<_> = granted
            .filter(|action| !used.contains(*action) && USED_AT_AWS_ALONE.iter().all(|(name, _)| name != action))
            .collect();
        assert!(
            unused.is_empty(),
            "the policy of the role {role} grants what nothing uses: {unused:?}\nused: {used:?}"
        );
    }
}

#[test]
fn policies_grant_nothing_that_nothing_uses() {
    uses_all_that_is_granted(sagemaker());
}

#[test]
fn policies_with_a_creator_grant_nothing_that_nothing_uses() {
    uses_all_that_is_granted(sagemaker_with_creator());
}
