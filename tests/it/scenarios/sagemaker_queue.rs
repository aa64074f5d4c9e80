//! A job whose instance types are all in use.

use serde_json::json;

use crate::support::driver::sagemaker;
use crate::support::emulator::quota_text;
use crate::support::job::Job;
use crate::support::scenario::{Scenario, With, one, play};
use crate::support::world::Settings;

/// Others use the quota; the first script stage goes on asking.
#[test]
fn a_job_waits_for_a_quota_that_others_use() {
    let scenario = Scenario {
        name: "quota in use",
        needs: &[],
        settings: Settings::default,
        play: |world| {
            let message = quota_text("ml.m5.large", 1);
            let full = json!({"operation": "CreateTrainingJob", "count": 2, "error": "ResourceLimitExceeded", "message": message});
            world.emulator.as_ref().unwrap().set_faults(&json!({"calls": [full]}));
            one(world, &Job::new().script(["echo granted-at-last"]))
        },
        expect: |_, outcomes| {
            let outcome = outcomes[0].succeeded();
            outcome.shows("The job waits for ml.m5.large, up to 1h: ml.m5.large: ResourceLimitExceeded: The account-level service limit");
            outcome.shows("SageMaker granted ml.m5.large after ").shows("\ngranted-at-last");
        },
    };
    for with in [With::RealRunner, With::RunnerDouble] {
        play(&scenario, with, sagemaker());
    }
}
