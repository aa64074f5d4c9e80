//! Secrets of Secrets Manager, over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;
use executor::cloud::{CloudError, CloudErrorKind, SecretContent, SecretStore, StoredSecret};

use super::clients::Clients;

/// Code of the error for a key that the caller may not use, or that is disabled.
const KEY_FAILED: &str = "DecryptionFailure";
/// Part of the message of a refusal by the key.
const KEY_REFUSED: &str = "KMS";

#[derive(Debug)]
pub(super) struct AwsSecrets {
    clients: Arc<Clients>,
}

impl AwsSecrets {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl SecretStore for AwsSecrets {
    async fn value(&self, id: &str, version_stage: Option<&str>) -> Result<StoredSecret, CloudError> {
        let call = self.clients.call("read", format!("the secret {id}"), "secretsmanager:GetSecretValue");
        let request = self.clients.secrets().get_secret_value().secret_id(id);
        let reply = request.set_version_stage(version_stage.map(str::to_owned)).send().await;
        let reply = reply.map_err(|error| {
            let failed = call.failed(&error);
            let is_denied = failed.kind == CloudErrorKind::Denied;
            let by_key = error.code() == Some(KEY_FAILED)
                || is_denied && error.message().is_some_and(|message| message.contains(KEY_REFUSED));
            if by_key {
                return CloudError { kind: CloudErrorKind::Denied, action: "kms:Decrypt", ..failed };
            }
            failed
        })?;
        let content = match (reply.secret_string, reply.secret_binary) {
            (Some(text), _) => SecretContent::Text(text),
            (None, Some(bytes)) => SecretContent::Binary(bytes.into_inner()),
            (None, None) => return Err(call.error(CloudErrorKind::Other, "the reply holds no value")),
        };
        Ok(StoredSecret { arn: reply.arn.unwrap_or_default(), name: reply.name.unwrap_or_default(), content })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    #[tokio::test]
    async fn one_request_reads_a_value() {
        let stub = Stub::start().await;
        let secrets = AwsSecrets::new(Arc::clone(&stub.clients));
        let answer = json!({"ARN": "arn", "Name": "ci/db", "VersionId": "1", "SecretString": "text"});
        stub.push(reply(200, answer.to_string()));
        stub.push(reply(200, json!({"ARN": "arn", "Name": "ci/db", "SecretBinary": "AP8="}).to_string()));
        let stored = secrets.value("ci/db", Some("AWSPREVIOUS")).await.unwrap();
        assert_eq!((stored.name.as_str(), stored.content), ("ci/db", SecretContent::Text("text".to_owned())));
        assert_eq!(secrets.value("ci/db", None).await.unwrap().content, SecretContent::Binary(vec![0, 255]));
        let seen = stub.seen();
        let bodies: Vec<Value> = seen.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
        assert_eq!(bodies, [json!({"SecretId": "ci/db", "VersionStage": "AWSPREVIOUS"}), json!({"SecretId": "ci/db"})]);
        assert!(seen.iter().all(|seen| seen.target.as_deref() == Some("secretsmanager.GetSecretValue")));
    }

    #[tokio::test]
    async fn a_refusal_tells_whether_the_key_or_the_secret_refuses() {
        let rows = [
            (
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret.",
                CloudErrorKind::NotFound,
                "",
            ),
            ("AccessDeniedException", "Access to KMS is not allowed", CloudErrorKind::Denied, "kms:Decrypt"),
            ("DecryptionFailure", "Secrets Manager can't decrypt the value.", CloudErrorKind::Denied, "kms:Decrypt"),
            (
                "AccessDeniedException",
                "User: arn:aws:iam::1:role/x is not authorized to perform: secretsmanager:GetSecretValue on resource: ci/db because",
                CloudErrorKind::Denied,
                "secretsmanager:GetSecretValue",
            ),
            ("InvalidRequestException", "it was marked for deletion.", CloudErrorKind::Invalid, ""),
        ];
        let stub = Stub::start().await;
        let secrets = AwsSecrets::new(Arc::clone(&stub.clients));
        for (code, message, kind, action) in rows {
            stub.push(refusal(400, code, message));
            let error = secrets.value("ci/db", None).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(action.is_empty() || error.action == action, "{error}");
            assert!(error.to_string().starts_with("failed to read the secret ci/db: "), "{error}");
        }
        stub.push(reply(200, "{}"));
        assert_eq!(secrets.value("ci/db", None).await.unwrap_err().kind, CloudErrorKind::Other);
    }
}
