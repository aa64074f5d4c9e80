//! KMS: the keys of `--kms-key`, which nothing encrypts with.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::authorization::NeededAction;
use crate::caller::{Signing, WireProtocol};
use crate::protocol::{Answer, ApiError, Reply, json_reply, text};
use crate::service::{ApiCall, Service, read};
use crate::shared::Shared;

pub(crate) const OPERATIONS: &[&str] = &["DescribeKey"];

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
        Ok(json_reply(request.and_then(|request| self.describe(&request, &call))))
    }
}

impl Kms {
    fn describe(&self, request: &Value, call: &ApiCall) -> Answer {
        let id = text(request, "KeyId").unwrap_or_default();
        let is_named = |arn: &str| arn == id || arn.rsplit_once(":key/").is_some_and(|(_, key)| key == id);
        let found = self.0.config.kms_keys.iter().find(|(arn, _)| is_named(arn));
        let resource = found.map_or("*", |(arn, _)| arn.as_str());
        let allowed = self.0.authority.allows(&call.caller, &NeededAction::new("kms:DescribeKey", resource), None);
        allowed.map_err(|message| ApiError::new("AccessDeniedException", message))?;
        let (arn, state) =
            found.ok_or_else(|| ApiError::new("NotFoundException", format!("Key '{id}' does not exist")))?;
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
