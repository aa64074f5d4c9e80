//! Secrets Manager: secrets with versions and their staging labels, deletion after a time, tags and policies. Nothing is on the disk.

mod batch;
mod inventory;
mod policies;
mod records;
mod tagging;
mod values;

use std::sync::Arc;

pub(crate) use self::records::SecretVault;
use crate::iam::Document;
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for SecretVault {
    const SIGNING_NAME: &'static str = "secretsmanager";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("BatchGetSecretValue", batch::get),
        ("CreateSecret", inventory::create),
        ("DeleteResourcePolicy", policies::delete),
        ("DeleteSecret", inventory::delete),
        ("DescribeSecret", inventory::describe),
        ("GetResourcePolicy", policies::get),
        ("GetSecretValue", values::get),
        ("ListSecretVersionIds", values::list_versions),
        ("ListSecrets", inventory::list),
        ("PutResourcePolicy", policies::put),
        ("PutSecretValue", values::put),
        ("RestoreSecret", inventory::restore),
        ("TagResource", tagging::tag),
        ("UntagResource", tagging::untag),
        ("UpdateSecret", inventory::update),
        ("UpdateSecretVersionStage", values::move_label),
    ];

    fn model() -> &'static Model {
        Model::secrets()
    }

    fn resource_policy(&self, resource: &str) -> Option<Arc<Document>> {
        self.secrets().get(resource)?.policy.as_ref().map(|(_, document)| Arc::clone(document))
    }
}

#[cfg(test)]
mod tests;
