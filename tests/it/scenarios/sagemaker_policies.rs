//! Jobs under the policies that `policy iam` makes from the operator's file.

use crate::support::driver::sagemaker;
use crate::support::iam::{HOST_ROLE, TRAINING_ROLE};
use crate::support::job::{Artifacts, Job};

use super::sagemaker::rows;

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
