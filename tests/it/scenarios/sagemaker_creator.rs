//! Training jobs that the creator's role creates (`aws.creator_role_arn`).

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::driver::sagemaker_with_creator;
use crate::support::job::Job;

/// The host may create training jobs itself, and still does not.
#[test]
fn a_creator_that_cannot_be_assumed() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    let role = "arn:aws:iam::999999999999:role/creator";
    desk.edit_operator_file("[storage]", &format!("creator_role_arn = \"{role}\"\n[storage]"));
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says(&format!("failed to assume the role {role}"));
    assert_eq!((desk.emulator.requests("CreateTrainingJob"), desk.emulator.jobs().len()), (0, 0));
    desk.close();
}

/// The request is the creator's: its policy keeps to the instance types that the operator's file had when the policy was made.
#[test]
fn a_creator_that_may_not_create() {
    let mut driver = sagemaker_with_creator();
    driver.operator_config = driver.operator_config.replace("[\"*\"]", "[\"ml.m5.large\"]");
    let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.edit_operator_file("[\"ml.m5.large\"]", "[\"*\"]");
    desk.set("SAGEMAKER_INSTANCE_TYPE", "ml.m5.xlarge");
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("allow the role `aws.creator_role_arn`");
    let requests = ["AssumeRole", "CreateTrainingJob"].map(|operation| desk.emulator.requests(operation));
    assert_eq!((requests, desk.emulator.jobs().len()), ([1, 1], 0));
    desk.close();
}
