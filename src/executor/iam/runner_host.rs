//! Policy of the runner host's role.

use super::account::Account;
use super::document::{PolicyDocument, PolicyStatement};
use super::{creation, data, keys, secrets};

/// Pattern of the names of our training jobs, and of their sessions' ids.
pub(super) const OURS: &str = "gitlab-*";

pub(super) fn policy(account: &Account<'_>) -> PolicyDocument {
    let ours = account.training_job(OURS);
    let mut statements = vec![
        PolicyStatement::allow(
            "TrainingJobs",
            ["sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob", "sagemaker:ListTags"],
        )
        .on(ours.clone()),
    ];
    match account.creator_role {
        Some(creator) => statements
            .push(PolicyStatement::allow("CreatorOfTrainingJobs", ["sts:AssumeRole", "sts:TagSession"]).on(creator)),
        None => statements.extend(creation::statements(account, ours, OURS)),
    }
    statements.extend([
        PolicyStatement::allow("Objects", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]).on([
            "agents/*",
            "projects/*",
            "sessions/*",
        ]
        .map(|key| account.object(key))),
        PolicyStatement::allow("KeyOfTheHosts", ["s3:GetObject", "s3:PutObject"]).on(account.object("hosts/*")),
        PolicyStatement::allow(
            "ObjectNamesAndBucketSettings",
            ["s3:ListBucket", "s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"],
        )
        .on(account.bucket()),
        // For `sweep` and warm pools; it shows names of jobs, and knows no resources.
        PolicyStatement::allow("NamesOfTrainingJobs", "sagemaker:ListTrainingJobs").on("*"),
        PolicyStatement::allow("JobLogs", ["logs:DescribeLogStreams", "logs:FilterLogEvents"]).on(account.log_group()),
    ]);
    statements.extend(data::of_the_host(account));
    statements.extend(secrets::of_the_host(account));
    statements.extend(account.storage_key.clone().map(|key| keys::for_the_hosts_objects(account, key)));
    PolicyDocument::of(statements)
}
