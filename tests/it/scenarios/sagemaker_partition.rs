//! A job in a region of another partition: no request names one of the partition `aws`.

use crate::support::driver::{Driver, sagemaker};
use crate::support::job::{Artifacts, Job};
use crate::support::partition::{assert_own_names, of_region};
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

fn in_region() -> Driver {
    let mut driver = sagemaker();
    driver.operator_config = of_region(&driver.operator_config);
    driver
}

fn job(world: &World) -> Job {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("f", "content")]);
    let script = ["test \"$(cat f)\" = content", "mkdir out && echo result > out/file"].map(str::to_owned);
    Job::new()
        .sources(&repository, "main", &sha)
        .step_of("script", script.to_vec())
        .artifacts(Artifacts::paths(["out/"]))
}

fn row(with: With) {
    let row = Scenario {
        name: "a_job_of_another_partition",
        needs: &["git", "tar"],
        settings: || Settings { kept_requests: true, ..Settings::default() },
        play: |world| vec![world.run(&job(world))],
        expect: |world, outcomes| {
            outcomes[0].succeeded();
            assert_own_names(&world.proxy.as_ref().unwrap().kept(), |_| false);
        },
    };
    play(&row, with, in_region());
}

#[test]
fn a_job_of_another_partition_double() {
    row(With::RunnerDouble);
}
