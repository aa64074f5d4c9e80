//! Permissions on the data of training jobs: checkpoints, input channels, and places of models.

use std::collections::{BTreeMap, BTreeSet};

use super::account::Account;
use super::document::PolicyStatement;
use super::own_keys::checkpoint_keys;
use crate::config::iam_patterns::S3Pattern;

/// Statements for the role of the training jobs.
pub(super) fn of_the_job(account: &Account<'_>) -> Vec<PolicyStatement> {
    let wall = account.wall;
    let mut statements = Vec::new();
    if wall.has_checkpoints {
        statements.extend(checkpoints(account));
    }
    let inputs = patterns(&wall.inputs);
    if !inputs.is_empty() {
        let keys = inputs.iter().flat_map(|place| {
            place.keys_of_input(account.own_place()).into_iter().map(|keys| object(account, place, &keys))
        });
        statements.push(PolicyStatement::allow("InputData", "s3:GetObject").on(keys.collect::<Vec<_>>()));
        statements.extend(names(account, &inputs));
    }
    let outputs = patterns(&wall.model_outputs);
    if !outputs.is_empty() {
        let objects: Vec<_> = outputs.iter().map(|place| object(account, place, &place.keys())).collect();
        statements.push(PolicyStatement::allow("Models", ["s3:PutObject", "s3:AbortMultipartUpload"]).on(objects));
    }
    if wall.inputs.iter().any(|uri| !uri.starts_with("s3://")) {
        statements.push(
            PolicyStatement::allow(
                "FileSystems",
                ["elasticfilesystem:DescribeMountTargets", "fsx:DescribeFileSystems"],
            )
            .on("*"),
        );
    }
    let lambda = account.settings.job.image_credentials_lambda_arn.clone();
    statements.extend(
        lambda.map(|lambda| PolicyStatement::allow("CredentialsOfTheRegistry", "lambda:InvokeFunction").on(lambda)),
    );
    statements
}

/// Statements for the runner host, which looks for the data before the training job is created.
pub(super) fn of_the_host(account: &Account<'_>) -> Vec<PolicyStatement> {
    names(account, &patterns(&account.wall.inputs))
}

fn checkpoints(account: &Account<'_>) -> [PolicyStatement; 2] {
    let keys = checkpoint_keys(account);
    let prefix = account.key_in_bucket(&keys);
    // A linter misreads a variable in the only resource of an `Allow`. Nothing is stored below the second one.
    let more = account.creator_role.map(|_| "checkpoints/none/*".to_owned());
    let folders: Vec<String> = std::iter::once(keys).chain(more).map(|keys| account.object(&keys)).collect();
    [
        PolicyStatement::allow(
            "Checkpoints",
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
        )
        .on(folders),
        PolicyStatement::allow("NamesOfCheckpoints", "s3:ListBucket").on(account.bucket()).when(
            "StringLike",
            "s3:prefix",
            prefix,
        ),
    ]
}

/// Patterns of places in S3; those of file systems are left out.
pub(super) fn patterns(uris: &[String]) -> Vec<S3Pattern<'_>> {
    uris.iter().filter_map(|uri| S3Pattern::of(uri)).collect()
}

fn object(account: &Account<'_>, place: &S3Pattern<'_>, keys: &str) -> String {
    format!("arn:{}:s3:::{}/{keys}", account.partition, place.bucket)
}

/// Names in each bucket, below its own prefixes alone.
fn names(account: &Account<'_>, places: &[S3Pattern<'_>]) -> Vec<PolicyStatement> {
    let mut prefixes = BTreeMap::<&str, BTreeSet<String>>::new();
    for place in places {
        prefixes.entry(place.bucket).or_default().extend(place.keys_of_input(account.own_place()));
    }
    let numbered = |at: usize| if at == 0 { String::new() } else { (at + 1).to_string() };
    let of_bucket = |(at, (bucket, prefixes)): (usize, (&str, BTreeSet<String>))| {
        PolicyStatement::allow(format!("NamesOfInputData{}", numbered(at)), "s3:ListBucket")
            .on(format!("arn:{}:s3:::{bucket}", account.partition))
            .when("StringLike", "s3:prefix", prefixes.into_iter().collect::<Vec<_>>())
    };
    prefixes.into_iter().enumerate().map(of_bucket).collect()
}
