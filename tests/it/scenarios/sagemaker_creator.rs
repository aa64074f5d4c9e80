//! Training jobs that the creator's role creates (`aws.creator_role_arn`).

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
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

/// The request is the creator's: without an account's policies the emulator lets a role do what a training job may, and the host all.
#[test]
fn a_creator_that_may_not_create() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.edit_operator_file("[storage]", "creator_role_arn = \"arn:aws:iam::000000000000:role/creator\"\n[storage]");
    desk.config().passed();
    desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("allow the role `aws.creator_role_arn`");
    let requests = ["AssumeRole", "CreateTrainingJob"].map(|operation| desk.emulator.requests(operation));
    assert_eq!((requests, desk.emulator.jobs().len()), ([1, 1], 0));
    desk.close();
}
