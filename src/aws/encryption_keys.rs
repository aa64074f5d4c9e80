//! Keys of KMS: one read call of its JSON protocol.

use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{CloudError, CloudErrorKind, EncryptionKeys, KeySight};
use serde_json::{Value, json};

use super::clients::Clients;
use super::errors::AwsCall;
use super::signed::{self, SignedRequest};

#[derive(Debug)]
pub(super) struct AwsEncryptionKeys {
    clients: Arc<Clients>,
}

impl AwsEncryptionKeys {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

impl AwsEncryptionKeys {
    /// The reply to an operation on a key; `None` for a key that is not there.
    async fn ask(&self, call: &AwsCall, target: &'static str, body: &Value) -> Result<Option<Value>, CloudError> {
        let body = body.to_string();
        let request =
            SignedRequest { service: "kms", content_type: "application/x-amz-json-1.1", target: Some(target), body };
        let reply = signed::post(&self.clients, call, &request).await?;
        let answer: Value = serde_json::from_str(&reply.body).map_err(|_| {
            call.error(CloudErrorKind::Other, format!("the reply is not one that AWS sends (HTTP {})", reply.status))
        })?;
        if reply.status == 200 {
            return Ok(Some(answer));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let code = text(&answer["__type"]);
        // With or without a namespace before it.
        let code = code.rsplit('#').next().unwrap_or_default();
        if ["NotFoundException", "InvalidArnException"].contains(&code) {
            return Ok(None);
        }
        let message = answer["message"].as_str().or(answer["Message"].as_str()).unwrap_or_default();
        Err(call.refused(Some(code), Some(reply.status), message))
    }
}

#[async_trait]
impl EncryptionKeys for AwsEncryptionKeys {
    async fn describe(&self, key: &str) -> Result<Option<KeySight>, CloudError> {
        let call = self.clients.call("look at", format!("the KMS key {key}"), "kms:DescribeKey");
        let body = json!({ "KeyId": key });
        let Some(answer) = self.ask(&call, "TrentService.DescribeKey", &body).await? else { return Ok(None) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = &answer["KeyMetadata"];
        if !key["KeyState"].is_string() {
            return Err(call.error(CloudErrorKind::Other, "the reply is not one that AWS sends"));
        }
        let is_symmetric = key["KeySpec"] == "SYMMETRIC_DEFAULT" || key["KeySpec"].is_null();
        Ok(Some(KeySight { arn: text(&key["Arn"]), state: text(&key["KeyState"]), is_symmetric }))
    }

    async fn policy(&self, key: &str) -> Result<String, CloudError> {
        let call = self.clients.call("read", format!("the policy of the KMS key {key}"), "kms:GetKeyPolicy");
        let body = json!({ "KeyId": key, "PolicyName": "default" });
        let Some(answer) = self.ask(&call, "TrentService.GetKeyPolicy", &body).await? else {
            return Err(call.error(CloudErrorKind::NotFound, "KMS has no such key in this account and region"));
        };
        let policy = answer["Policy"].as_str().map(str::to_owned);
        policy.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply is not one that AWS sends"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    #[tokio::test]
    async fn a_key_is_read_and_an_absent_one_is_none() {
        let stub = Stub::start().await;
        stub.push(reply(
            200,
            r#"{"KeyMetadata":{"Arn":"arn:aws:kms:eu-west-1:1:key/a","KeyState":"Disabled","KeySpec":"RSA_2048"}}"#,
        ));
        stub.push(reply(400, r#"{"__type":"com.amazonaws.kms#NotFoundException","message":"no"}"#));
        stub.push(reply(400, r#"{"__type":"AccessDeniedException","Message":"no"}"#));
        let keys = AwsEncryptionKeys::new(Arc::clone(&stub.clients));
        let found = keys.describe("a").await.unwrap().unwrap();
        assert_eq!((found.state.as_str(), found.is_symmetric), ("Disabled", false));
        assert_eq!(keys.describe("a").await.unwrap(), None);
        assert_eq!(keys.describe("a").await.unwrap_err().kind, CloudErrorKind::Denied);
        stub.push(reply(200, r#"{"Policy":"{}","PolicyName":"default"}"#));
        assert_eq!(keys.policy("a").await.unwrap(), "{}");
        stub.push(reply(400, r#"{"__type":"NotFoundException","message":"no"}"#));
        let error = keys.policy("a").await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::NotFound);
        assert!(error.message.contains("no such key"), "{error}");
        let seen = stub.seen();
        assert_eq!(seen[3].body, br#"{"KeyId":"a","PolicyName":"default"}"#);
        assert_eq!(seen[0].target.as_deref(), Some("TrentService.DescribeKey"));
        assert_eq!(seen[0].body, br#"{"KeyId":"a"}"#);
    }
}
