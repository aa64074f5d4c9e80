//! KMS: the keys of `--kms-key`, which nothing encrypts with, each with the policy that KMS gives a new key.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::authorization::NeededAction;
use crate::caller::{Signing, WireProtocol};
use crate::protocol::{Answer, ApiError, Reply, json_reply, text};
use crate::service::{ApiCall, Service, read};
use crate::shared::Shared;

pub(crate) const OPERATIONS: &[&str] = &["DescribeKey", "GetKeyPolicy"];

pub(crate) struct Kms(pub(crate) Arc<Shared>);

#[async_trait::async_trait]
impl Service for Kms {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: Some("kms") }
    }

    fn serves(&self, target: &str, operation: &str) -> bool {
        target == "TrentService" && OPERATIONS.contains(&operation)
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        let request =
            serde_json::from_slice::<Value>(&body).map_err(|_| ApiError::serialization("the body is not JSON"));
        Ok(json_reply(request.and_then(|request| self.answer(&request, &call))))
    }
}

impl Kms {
    fn answer(&self, request: &Value, call: &ApiCall) -> Answer {
        let id = text(request, "KeyId").unwrap_or_default();
        let is_named = |arn: &str| arn == id || arn.rsplit_once(":key/").is_some_and(|(_, key)| key == id);
        let found = self.0.config.kms_keys.iter().find(|(arn, _)| is_named(arn));
        let resource = found.map_or("*", |(arn, _)| arn.as_str());
        let action = format!("kms:{}", call.operation);
        let allowed = self.0.authority.allows(&call.caller, &NeededAction::new(&action, resource), None);
        allowed.map_err(|message| ApiError::new("AccessDeniedException", message))?;
        let (arn, state) =
            found.ok_or_else(|| ApiError::new("NotFoundException", format!("Key '{id}' does not exist")))?;
        if call.operation == "GetKeyPolicy" {
            return Ok(Some(json!({"Policy": policy(arn).to_string(), "PolicyName": "default"})));
        }
        Ok(Some(json!({"KeyMetadata": {
            "KeyId": arn.rsplit('/').next(),
            "Arn": arn,
            "KeyState": state,
            "Enabled": state == "Enabled",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "KeyUsage": "ENCRYPT_DECRYPT",
        }})))
    }
}

/// The policy of a new key: the policies of IAM decide.
fn policy(arn: &str) -> Value {
    let mut parts = arn.split(':');
    let (partition, account) = (parts.nth(1).unwrap_or_default(), parts.nth(2).unwrap_or_default());
    json!({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [{
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": format!("arn:{partition}:iam::{account}:root")},
        "Action": "kms:*",
        "Resource": "*",
    }]})
}
