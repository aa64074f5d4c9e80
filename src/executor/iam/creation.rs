//! Permissions to create training jobs, for the role that does it: the creator's, or the host's own.

use super::account::Account;
use super::document::PolicyStatement;
use super::keys;
use crate::session::spec::tag;

/// Actions on the training job itself.
pub(super) const ACTIONS: [&str; 2] = ["sagemaker:CreateTrainingJob", "sagemaker:AddTags"];

/// `jobs` is the pattern of the jobs' ARNs, `session` that of their session's id.
pub(super) fn statements(account: &Account<'_>, jobs: String, session: &str) -> Vec<PolicyStatement> {
    let request_tag = format!("aws:RequestTag/{}", tag::SESSION);
    let mut create = PolicyStatement::allow("CreateTrainingJobs", ACTIONS[0]).on(jobs.clone()).when(
        "StringLike",
        request_tag,
        session,
    );
    create =
        create.when("NumericLessThanEquals", "sagemaker:MaxRuntimeInSeconds", account.wall.max_runtime.to_string());
    let keep_alive = account.wall.max_keep_alive.to_string();
    create = create.when("NumericLessThanEqualsIfExists", "sagemaker:KeepAlivePeriod", keep_alive);
    if let Some(types) = account.wall.instance_types.clone() {
        // Without `Null`, a request that names no type passes `ForAllValues`.
        create = create.when("ForAllValues:StringLike", "sagemaker:InstanceTypes", types).when(
            "Null",
            "sagemaker:InstanceTypes",
            "false",
        );
    }
    if !account.wall.has_remote_debug {
        create = create.when("BoolIfExists", "sagemaker:EnableRemoteDebug", "false");
    }
    create = in_the_vpc(account, create);
    if account.settings.job.encrypt_inter_container_traffic {
        create = create.when("Bool", "sagemaker:InterContainerTrafficEncryption", "true");
    }
    if account.wall.is_isolated {
        create = create.when("Bool", "sagemaker:NetworkIsolation", "true");
    }
    let tags = PolicyStatement::allow("TagTrainingJobsAsTheyAreCreated", ACTIONS[1]).on(jobs).when(
        "StringEquals",
        "sagemaker:TaggingAction",
        "CreateTrainingJob",
    );
    let pass = PolicyStatement::allow("RolesOfTrainingJobs", "iam:PassRole").on(account.wall.roles.clone()).when(
        "StringEquals",
        "iam:PassedToService",
        "sagemaker.amazonaws.com",
    );
    let plans = Some(plans(account))
        .filter(|plans| !plans.is_empty())
        .map(|plans| PolicyStatement::allow("TrainingPlans", ACTIONS[0]).on(plans));
    let volumes = account.volume_key.clone().map(|key| keys::for_volumes(account, key));
    [create, tags, pass].into_iter().chain(plans).chain(volumes.into_iter().flatten()).collect()
}

/// The training plans of the account that jobs may use. SageMaker asks for the permission on the plan besides that on the job.
pub(super) fn plans(account: &Account<'_>) -> Vec<String> {
    account.wall.training_plans.iter().map(|name| account.training_plan(name)).collect()
}

/// Keeps jobs in the subnets and security groups of the operator's file; without any, out of every VPC.
fn in_the_vpc(account: &Account<'_>, mut create: PolicyStatement) -> PolicyStatement {
    let wall = account.wall;
    let lists = [("sagemaker:VpcSubnets", &wall.subnets), ("sagemaker:VpcSecurityGroupIds", &wall.security_group_ids)];
    for (key, ids) in lists {
        if ids.is_empty() {
            create = create.when("Null", key, "true");
            continue;
        }
        create = create.when("ForAllValues:StringEquals", key, ids.clone());
        if wall.is_vpc_certain {
            create = create.when("Null", key, "false");
        }
    }
    create
}
