//! The actions that a request needs, with the values of their condition keys.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::identity::Identity;
use crate::caller::Caller;
use crate::clock;
use crate::iam::ConditionKeys;
use crate::protocol::text;
use crate::tags::TagMap;

/// The service that runs training jobs and endpoints.
pub(crate) const SAGEMAKER: &str = "sagemaker.amazonaws.com";

/// One action on one resource that a request needs.
#[derive(Debug, Clone)]
pub(crate) struct NeededAction {
    /// `s3:GetObject`.
    pub(crate) action: String,
    /// ARN, or `*` for actions without a resource.
    pub(crate) resource: String,
    /// Account of the resource; `None` where it is that of the caller, or does not matter.
    pub(crate) owner: Option<String>,
    /// Keys of the request; those of the caller are added when it is decided.
    pub(crate) keys: ConditionKeys,
}

impl NeededAction {
    pub(crate) fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), owner: None, keys: ConditionKeys::default() }
    }

    /// Names the account of the resource.
    pub(crate) fn owned_by(self, account: &str) -> Self {
        Self { owner: Some(account.to_owned()), ..self }
    }

    pub(crate) fn key<T: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.keys.set(name, values);
        self
    }

    /// The resource as the service's refusal shows it: S3 and STS differ from the others.
    pub(crate) fn shown_resource(&self) -> String {
        if self.action.starts_with("s3:") { format!("\"{}\"", self.resource) } else { self.resource.clone() }
    }

    /// Adds the tags of a request.
    pub(crate) fn request_tags(mut self, tags: &TagMap) -> Self {
        for (key, value) in tags {
            self.keys.set(&format!("aws:RequestTag/{key}"), [value.as_str()]);
        }
        if tags.is_empty() { self } else { self.key("aws:TagKeys", tags.keys().cloned()) }
    }

    /// Adds the tags of the resource.
    pub(crate) fn resource_tags(mut self, service: &str, tags: &TagMap) -> Self {
        for (key, value) in tags {
            self.keys.set(&format!("aws:ResourceTag/{key}"), [value.as_str()]);
            self.keys.set(&format!("{service}:ResourceTag/{key}"), [value.as_str()]);
        }
        self
    }
}

/// The keys of an action with those of its caller, the connection and the time.
pub(crate) fn with_caller(needed: &NeededAction, caller: &Caller, tags: &TagMap) -> ConditionKeys {
    let mut keys = needed.keys.clone();
    let now_ms = clock::now_ms();
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(now_ms)).to_string();
    let mut set = |name: &str, value: &str| keys.set(name, [value]);
    set("aws:CurrentTime", &time);
    set("aws:EpochTime", &(now_ms / 1000).to_string());
    // Plain HTTP on loopback stands for the TLS of the real services.
    set("aws:SecureTransport", "true");
    set("aws:SourceIp", "127.0.0.1");
    set("aws:RequestedRegion", &caller.region);
    set("aws:ResourceAccount", needed.owner.as_ref().unwrap_or(&caller.account));
    set("aws:PrincipalIsAWSService", "false");
    set("aws:ViaAWSService", "false");
    let kind = match &*caller.identity {
        Identity::Anonymous => {
            set("aws:PrincipalType", "Anonymous");
            return keys;
        }
        Identity::Administrator | Identity::User { .. } => "User",
        Identity::Session(_) => "AssumedRole",
    };
    set("aws:PrincipalType", kind);
    set("aws:PrincipalArn", &caller.identity.principal_arn(&caller.account, &caller.region));
    set("aws:PrincipalAccount", &caller.account);
    set("aws:userid", &caller.identity.user_id());
    match &*caller.identity {
        Identity::User { name, .. } => set("aws:username", name),
        Identity::Administrator => set("aws:username", "test"),
        Identity::Session(_) | Identity::Anonymous => {}
    }
    for (key, value) in tags {
        set(&format!("aws:PrincipalTag/{key}"), value);
    }
    keys
}

/// Adds what `SageMaker` tells IAM of a request that creates a training job.
pub(crate) fn training_job(mut needed: NeededAction, request: &Value) -> NeededAction {
    let resources = &request["ResourceConfig"];
    let types = ["InstancePreferences", "InstanceGroups"].into_iter().filter_map(|list| resources[list].as_array());
    let types = types.flatten().chain([resources]).filter_map(|one| text(one, "InstanceType"));
    let vpc = &request["VpcConfig"];
    for (name, values) in [
        ("sagemaker:InstanceTypes", types.collect::<Vec<_>>()),
        ("sagemaker:VpcSubnets", words(&vpc["Subnets"])),
        ("sagemaker:VpcSecurityGroupIds", words(&vpc["SecurityGroupIds"])),
        ("sagemaker:OutputKmsKey", words(&request["OutputDataConfig"]["KmsKeyId"])),
        ("sagemaker:VolumeKmsKey", words(&resources["VolumeKmsKeyId"])),
    ] {
        if !values.is_empty() {
            needed.keys.set(name, values);
        }
    }
    for (name, value) in [
        ("sagemaker:MaxRuntimeInSeconds", &request["StoppingCondition"]["MaxRuntimeInSeconds"]),
        ("sagemaker:KeepAlivePeriod", &resources["KeepAlivePeriodInSeconds"]),
        ("sagemaker:EnableRemoteDebug", &request["RemoteDebugConfig"]["EnableRemoteDebug"]),
    ] {
        if !value.is_null() {
            needed.keys.set(name, [value.to_string()]);
        }
    }
    for (name, flag) in [
        ("sagemaker:NetworkIsolation", "EnableNetworkIsolation"),
        ("sagemaker:InterContainerTrafficEncryption", "EnableInterContainerTrafficEncryption"),
    ] {
        needed.keys.set(name, [request[flag].as_bool().unwrap_or(false).to_string()]);
    }
    needed
}

/// A text, or a list of texts.
fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().chain([value]).filter_map(Value::as_str).collect()
}
