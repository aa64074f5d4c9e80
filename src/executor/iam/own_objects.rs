//! Keeps patterns of data and models off the executor's own objects.
//!
//! A pattern such as `s3://*/**` also stands for other sessions' objects, and IAM has no way to take them out of an `Allow`. So a job
//! reaches of the executor's bucket only what is listed here: its session's own places, and data whose pattern cannot stand for an
//! object of the executor. The executor decides likewise (`config::policy`).

use super::account::Account;
use super::data;
use super::document::{PolicyStatement, Principal};
use super::own_keys::{checkpoint_keys, project_keys, session_keys};
use crate::config::iam_patterns::S3Pattern;

/// Whether a pattern of the operator's file stands for objects of the executor.
fn is_reached(account: &Account<'_>) -> bool {
    let uris = || account.wall.inputs.iter().chain(&account.wall.model_outputs);
    uris().filter_map(|uri| S3Pattern::of(uri)).any(|pattern| pattern.reaches(account.own_place()))
}

/// For the bucket's policy: unlike the roles' it can deny all other objects of one bucket.
pub(super) fn of_the_bucket(account: &Account<'_>) -> Vec<PolicyStatement> {
    if !is_reached(account) {
        return Vec::new();
    }
    let jobs = |sid, actions: &[&str], keys: Vec<String>| {
        let objects: Vec<String> = keys.iter().map(|key| format!("{}/{key}", account.bucket())).collect();
        PolicyStatement::deny(sid, actions).of(Principal::everyone()).on_all_but(objects).when(
            "ArnEquals",
            "aws:PrincipalArn",
            account.wall.roles.clone(),
        )
    };
    let own = |keys: &str| account.key_in_bucket(keys);
    let checkpoints = account.wall.has_checkpoints.then(|| own(&checkpoint_keys(account)));
    let written: Vec<String> = std::iter::once(own(&session_keys(account))).chain(checkpoints).collect();
    let read = [own("agents/*"), own(&project_keys(account))].into_iter().chain(written.clone());
    let read = read.chain(inputs_beside(account)).collect();
    let written =
        written.into_iter().chain(beside(account, &account.wall.model_outputs).map(|place| place.keys())).collect();
    vec![
        jobs("TrainingJobsReadTheirOwnObjects", &["s3:GetObject", "s3:GetObjectVersion"], read),
        jobs(
            "TrainingJobsWriteTheirOwnObjects",
            &["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"],
            written,
        ),
    ]
}

/// For the roles of training jobs.
pub(super) fn of_the_job(account: &Account<'_>) -> Option<PolicyStatement> {
    let own = |keys: &str| account.key_in_bucket(keys);
    let checkpoints = account.wall.has_checkpoints.then(|| own(&checkpoint_keys(account)));
    let prefixes = [own("agents/*"), own(&session_keys(account))].into_iter().chain(checkpoints);
    let prefixes: Vec<String> = prefixes.chain(inputs_beside(account)).collect();
    is_reached(account).then(|| {
        PolicyStatement::deny("NoNamesOfOtherSessions", ["s3:ListBucket", "s3:ListBucketVersions"])
            .on(account.bucket())
            .when("StringNotLike", "s3:prefix", prefixes)
    })
}

/// Patterns for the executor's bucket that cannot stand for an object of the executor.
fn beside<'a>(account: &Account<'a>, uris: &'a [String]) -> impl Iterator<Item = S3Pattern<'a>> {
    let own = account.own_place();
    data::patterns(uris).into_iter().filter(move |place| place.is_for_bucket(own.bucket) && !place.reaches(own))
}

/// Keys that jobs read there.
fn inputs_beside(account: &Account<'_>) -> Vec<String> {
    let places = beside(account, &account.wall.inputs);
    places.flat_map(|place| place.keys_of_input(account.own_place())).collect()
}
