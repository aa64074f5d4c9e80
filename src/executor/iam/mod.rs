//! IAM policies for the operator's account, made from the operator's file: the second wall behind the executor's own rules.
//! Pure.

mod account;
mod bucket;
mod creation;
mod creator;
mod data;
mod document;
mod images;
mod keys;
mod own_keys;
mod own_objects;
mod remote_debug;
mod runner_host;
mod secrets;
mod session_tag;
mod training_job;
mod wall;

use std::collections::BTreeMap;

pub use document::{PolicyDocument, PolicyStatement};

use crate::base::failure::Failure;
use crate::config::settings::Settings;
use account::Account;
use wall::Wall;

/// Each document by the name of its file.
///
/// # Errors
/// A failure that names the key of the operator's file which the policies need.
pub fn policies(settings: &Settings) -> Result<BTreeMap<&'static str, PolicyDocument>, Failure> {
    let wall = Wall::of(settings);
    let account = &Account::of(settings, &wall)?;
    let mut documents = BTreeMap::from([
        ("runner-host.json", runner_host::policy(account)),
        ("training-job.json", training_job::policy(account)),
        ("training-job-trust.json", training_job::trust(account)),
        ("bucket-policy.json", bucket::policy(account)),
    ]);
    if account.creator_role.is_some() {
        documents.insert("creator.json", creator::policy(account));
        documents.insert("creator-trust.json", creator::trust(account));
    }
    if wall.has_remote_debug {
        documents.insert("remote-debug.json", remote_debug::of_people());
    }
    documents.extend(keys::policies(account));
    Ok(documents)
}

/// Roles that the bucket's policy cannot keep to `iam.vpc_endpoint_ids`, because some of their jobs are outside a VPC.
pub fn roles_beside_the_endpoints(settings: &Settings) -> Vec<String> {
    if settings.iam.vpc_endpoint_ids.is_empty() { Vec::new() } else { Wall::of(settings).roles_in_and_outside }
}

/// A document as the text of its file.
///
/// # Errors
/// None that could happen: a document holds texts alone.
pub fn file_text(policy: &PolicyDocument) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(policy)? + "\n")
}

#[cfg(test)]
mod tests;
