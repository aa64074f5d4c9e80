//! Tags of SageMaker's resources, over the SDK.

use std::collections::BTreeMap;

use aws_sdk_sagemaker::types::Tag;
use executor::cloud::CloudError;

use super::clients::Clients;
use super::errors::AwsCall;

/// All tags of the resource with this ARN.
pub(super) async fn of(clients: &Clients, call: &AwsCall, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
    let mut pages = clients.sagemaker().list_tags().resource_arn(arn).into_paginator().send();
    let mut tags = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        for tag in page.tags.unwrap_or_default() {
            if let (Some(key), Some(value)) = (tag.key, tag.value) {
                tags.insert(key, value);
            }
        }
    }
    Ok(tags)
}

/// The tags of a request, which SageMaker takes only when there are some.
pub(super) fn list(tags: &BTreeMap<String, String>) -> Option<Vec<Tag>> {
    let list = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    (!tags.is_empty()).then(|| list.collect())
}
