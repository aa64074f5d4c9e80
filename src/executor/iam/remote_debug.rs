//! Permissions to look into running containers by AWS Systems Manager.

use super::document::{PolicyDocument, PolicyStatement};
use super::runner_host::OURS;

/// Of the training job's role: the agent of Systems Manager runs in the container, and its actions know no resources.
pub(super) fn of_the_container() -> PolicyStatement {
    PolicyStatement::allow(
        "RemoteDebug",
        [
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
        ],
    )
    .on("*")
}

/// Of the people who may open a shell in the containers of this program's training jobs.
pub(super) fn of_people() -> PolicyDocument {
    PolicyDocument::of([PolicyStatement::allow("ShellsInTrainingJobs", ["ssm:StartSession", "ssm:TerminateSession"])
        .on("*")
        .when("StringLike", "ssm:resourceTag/aws:ssmmessages:target-id", format!("sagemaker-training-job:{OURS}"))])
}
