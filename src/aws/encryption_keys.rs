//! Keys of KMS: one read call of its JSON protocol.

use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{CloudError, CloudErrorKind, EncryptionKeys, KeySight};
use serde_json::{Value, json};

use super::clients::Clients;
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

#[async_trait]
impl EncryptionKeys for AwsEncryptionKeys {
    async fn describe(&self, key: &str) -> Result<Option<KeySight>, CloudError> {
        let call = self.clients.call("look at", format!("the KMS key {key}"), "kms:DescribeKey");
        let request = SignedRequest {
            service: "kms",
            content_type: "application/x-amz-json-1.1",
            target: Some("TrentService.DescribeKey"),
            body: json!({ "KeyId": key }).to_string(),
        };
        let reply = signed::post(&self.clients, &call, &request).await?;
        let answer: Value = serde_json::from_str(&reply.body).map_err(|_| {
            call.error(CloudErrorKind::Other, format!("the reply is not one that AWS sends (HTTP {})", reply.status))
        })?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if reply.status == 200 {
            let key = &answer["KeyMetadata"];
            if !key["KeyState"].is_string() {
                return Err(call.error(CloudErrorKind::Other, "the reply is not one that AWS sends"));
            }
            let is_symmetric = key["KeySpec"] == "SYMMETRIC_DEFAULT" || key["KeySpec"].is_null();
            return Ok(Some(KeySight { arn: text(&key["Arn"]), state: text(&key["KeyState"]), is_symmetric }));
        }
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
        let seen = stub.seen();
        assert_eq!(seen[0].target.as_deref(), Some("TrentService.DescribeKey"));
        assert_eq!(seen[0].body, br#"{"KeyId":"a"}"#);
    }
}
