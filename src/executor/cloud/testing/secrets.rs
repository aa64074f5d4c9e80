//! Fake of Secrets Manager: the current value of each secret by its name.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::faults::Fake;
use crate::cloud::{CloudError, CloudErrorKind, SecretContent, SecretStore, StoredSecret};

/// Secrets in a map.
pub type MemorySecrets = Fake<SecretsState>;

#[derive(Debug, Default)]
pub struct SecretsState {
    contents: BTreeMap<String, SecretContent>,
    /// The action of refusals.
    action: Option<&'static str>,
    /// The name in every answer.
    answered: Option<String>,
}

impl MemorySecrets {
    /// Stores a text. The ARN of the secret ends in `-AbCdEf`.
    pub fn set(&self, name: &str, text: &str) {
        self.inner().service.contents.insert(name.to_owned(), SecretContent::Text(text.to_owned()));
    }

    /// Refusals name this action from now on.
    pub fn refuse_with(&self, action: &'static str) {
        self.inner().service.action = Some(action);
    }

    /// Every answer is of this secret from now on.
    pub fn answer_with(&self, name: &str) {
        self.inner().service.answered = Some(name.to_owned());
    }
}

#[async_trait]
impl SecretStore for MemorySecrets {
    async fn value(&self, id: &str, version_stage: Option<&str>) -> Result<StoredSecret, CloudError> {
        let found = self.call("value", id, |service| {
            let name = id.rsplit_once(":secret:").map_or(id, |(_, name)| name.trim_end_matches("-AbCdEf"));
            let content =
                service.contents.get(name).filter(|_| version_stage.is_none_or(|label| label == "AWSCURRENT"));
            let content = content.cloned().ok_or_else(|| CloudError {
                kind: CloudErrorKind::NotFound,
                operation: format!("read secret {id}"),
                message: "ResourceNotFoundException".to_owned(),
                action: "secretsmanager:GetSecretValue",
            })?;
            let name = service.answered.clone().unwrap_or_else(|| name.to_owned());
            let arn = format!("arn:aws:secretsmanager:eu-west-1:000000000000:secret:{name}-AbCdEf");
            Ok(StoredSecret { arn, name, content })
        });
        let action = self.inner().service.action;
        found.await.map_err(|error: CloudError| match action {
            Some(action) if error.kind == CloudErrorKind::Denied => CloudError { action, ..error },
            _ => error,
        })
    }
}
