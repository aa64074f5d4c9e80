//! SageMaker's model registry over the SDK.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_sagemaker::operation::describe_model_package::DescribeModelPackageOutput;
use aws_sdk_sagemaker::primitives::DateTime;
use aws_sdk_sagemaker::types::{
    AdditionalInferenceSpecificationDefinition, InferenceSpecification, MetadataProperties, MetricsSource,
    ModelApprovalStatus, ModelMetrics, ModelPackageContainerDefinition, ModelPackageSortBy, ModelPackageStatus,
    ModelPackageStatusDetails, ModelPackageSummary, ModelPackageType, ModelQuality, ProductionVariantInstanceType,
    SortOrder, Tag,
};
use executor::cloud::{
    Approval, CloudError, CloudErrorKind, GroupSpec, ModelRegistry, ModelVersion, ModelVersionPage, RegistrationState,
    StoredMetrics, VersionChange, VersionSpec, VersionSummary,
};

use super::clients::Clients;
use super::errors::AwsCall;

/// Most versions that AWS lists in one page.
const PAGE: i32 = 100;

#[derive(Debug)]
pub(super) struct AwsRegistry {
    clients: Arc<Clients>,
}

impl AwsRegistry {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    fn group_call(&self, verb: &str, group: &str, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("model package group {group}"), action)
    }
}

#[async_trait]
impl ModelRegistry for AwsRegistry {
    async fn group(&self, name: &str) -> Result<Option<String>, CloudError> {
        let call = self.group_call("look at", name, "sagemaker:DescribeModelPackageGroup");
        let reply = self.clients.sagemaker().describe_model_package_group().model_package_group_name(name).send().await;
        match reply {
            Ok(reply) => Ok(reply.model_package_group_arn),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn create_group(&self, group: &GroupSpec) -> Result<String, CloudError> {
        let call = self.group_call("create", &group.name, "sagemaker:CreateModelPackageGroup");
        let tags = group.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags: Vec<_> = tags.collect();
        let reply = self
            .clients
            .sagemaker()
            .create_model_package_group()
            .model_package_group_name(&group.name)
            .set_model_package_group_description(group.description.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        Ok(reply.model_package_group_arn.unwrap_or_default())
    }

    async fn versions(
        &self,
        group: &str,
        approval: Option<Approval>,
        page: Option<String>,
    ) -> Result<ModelVersionPage, CloudError> {
        let call = self.group_call("list the versions of", group, "sagemaker:ListModelPackages");
        let reply = self
            .clients
            .sagemaker()
            .list_model_packages()
            .model_package_group_name(group)
            .set_model_approval_status(approval.map(|approval| ModelApprovalStatus::from(approval.name())))
            .sort_by(ModelPackageSortBy::CreationTime)
            .sort_order(SortOrder::Descending)
            .max_results(PAGE)
            .set_next_token(page)
            .send()
            .await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return unless_absent(call.failed(&error)).map(|()| ModelVersionPage::default()),
        };
        let versions = reply.model_package_summary_list.unwrap_or_default();
        Ok(ModelVersionPage { versions: versions.into_iter().filter_map(summary).collect(), next: reply.next_token })
    }

    async fn all_versions(&self, after: Option<SystemTime>) -> Result<Vec<VersionSummary>, CloudError> {
        let call = self.clients.call("list", "the versions of all groups".to_owned(), "sagemaker:ListModelPackages");
        let request = self.clients.sagemaker().list_model_packages().model_package_type(ModelPackageType::Both);
        let request = request.sort_by(ModelPackageSortBy::CreationTime).sort_order(SortOrder::Descending);
        let request = request.max_results(PAGE).set_creation_time_after(after.map(DateTime::from));
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            found.extend(page.model_package_summary_list.unwrap_or_default().into_iter().filter_map(summary));
        }
        Ok(found)
    }

    async fn version(&self, arn: &str) -> Result<Option<ModelVersion>, CloudError> {
        let call = self.clients.call("look at", format!("model package {arn}"), "sagemaker:DescribeModelPackage");
        match self.clients.sagemaker().describe_model_package().model_package_name(arn).send().await {
            Ok(reply) => Ok(Some(version(arn, reply))),
            Err(error) => unless_absent(call.failed(&error)).map(|()| None),
        }
    }

    async fn create_version(&self, spec: &VersionSpec) -> Result<String, CloudError> {
        let call = self.group_call("create a version in", &spec.group, "sagemaker:CreateModelPackage");
        let origin = MetadataProperties::builder()
            .set_commit_id(spec.commit.clone())
            .set_repository(spec.repository.clone())
            .set_generated_by(spec.generated_by.clone())
            .set_project_id(spec.project.clone())
            .build();
        let reply = self
            .clients
            .sagemaker()
            .create_model_package()
            .model_package_group_name(&spec.group)
            .client_token(&spec.client_token)
            .model_package_description(&spec.description)
            .inference_specification(inference(spec))
            .set_model_metrics(spec.metrics.as_ref().map(metrics))
            .model_approval_status(ModelApprovalStatus::PendingManualApproval)
            .metadata_properties(origin)
            .set_customer_metadata_properties(map(&spec.metadata))
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        reply.model_package_arn.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply names no model package"))
    }

    async fn delete_version(&self, arn: &str) -> Result<(), CloudError> {
        let call = self.clients.call("delete", format!("model package {arn}"), "sagemaker:DeleteModelPackage");
        let request = self.clients.sagemaker().delete_model_package().model_package_name(arn);
        let reply = request.customize().config_override(self.clients.deletion()).send().await;
        reply.map(|_| ()).or_else(|error| unless_absent(call.failed(&error)))
    }

    async fn update_version(&self, arn: &str, change: &VersionChange) -> Result<(), CloudError> {
        let call = self.clients.call("update", format!("model package {arn}"), "sagemaker:UpdateModelPackage");
        let reply = self
            .clients
            .sagemaker()
            .update_model_package()
            .model_package_arn(arn)
            .set_model_approval_status(change.approval.map(|approval| ModelApprovalStatus::from(approval.name())))
            .set_approval_description(change.approval_description.clone())
            .set_customer_metadata_properties(map(&change.metadata))
            .send()
            .await;
        reply.map(|_| ()).map_err(|error| call.failed(&error))
    }
}

/// `Ok` when the registry says that the thing does not exist. It has no code for it, and its words differ.
fn unless_absent(error: CloudError) -> Result<(), CloudError> {
    let says = |words| error.message.to_lowercase().contains(words);
    let is_absent = error.kind == CloudErrorKind::NotFound
        || (error.kind == CloudErrorKind::Invalid && (says("does not exist") || says("not found")));
    if is_absent { Ok(()) } else { Err(error) }
}

fn map(pairs: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.clone().into_iter().collect())
}

fn list(texts: &[String]) -> Option<Vec<String>> {
    (!texts.is_empty()).then(|| texts.to_vec())
}

fn inference(spec: &VersionSpec) -> InferenceSpecification {
    let container = ModelPackageContainerDefinition::builder()
        .image(&spec.image)
        .set_image_digest(spec.image.split_once('@').map(|(_, digest)| digest.to_owned()))
        .model_data_url(&spec.model_data_url)
        .set_environment(map(&spec.environment));
    let types = spec.instance_types.iter().map(|name| ProductionVariantInstanceType::from(name.as_str()));
    let types: Vec<_> = types.collect();
    InferenceSpecification::builder()
        .containers(container.build())
        .set_supported_content_types(list(&spec.content_types))
        .set_supported_response_mime_types(list(&spec.response_types))
        .set_supported_realtime_inference_instance_types((!types.is_empty()).then_some(types))
        .build()
}

fn metrics(file: &StoredMetrics) -> ModelMetrics {
    let source = MetricsSource::builder()
        .content_type(&file.content_type)
        .set_content_digest(file.digest.clone())
        .s3_uri(&file.uri)
        .build();
    ModelMetrics::builder().model_quality(ModelQuality::builder().statistics(source).build()).build()
}

fn state(status: Option<&ModelPackageStatus>, details: Option<&ModelPackageStatusDetails>) -> RegistrationState {
    match status {
        Some(ModelPackageStatus::Completed) => RegistrationState::Completed,
        Some(ModelPackageStatus::Failed) => RegistrationState::Failed(reasons(details)),
        Some(ModelPackageStatus::Deleting) => RegistrationState::Deleting,
        _ => RegistrationState::UnderWay,
    }
}

/// AWS's reasons, in one line.
fn reasons(details: Option<&ModelPackageStatusDetails>) -> String {
    let items = details.map(|details| [details.validation_statuses(), details.image_scan_statuses()].concat());
    let reasons = items.unwrap_or_default().into_iter().filter_map(|item| {
        let reason = item.failure_reason.filter(|reason| !reason.is_empty())?;
        Some(item.name.map_or_else(|| reason.clone(), |name| format!("{name}: {reason}")))
    });
    reasons.collect::<Vec<_>>().join("; ")
}

fn approval(status: Option<&ModelApprovalStatus>) -> Approval {
    match status {
        Some(ModelApprovalStatus::Approved) => Approval::Approved,
        Some(ModelApprovalStatus::Rejected) => Approval::Rejected,
        _ => Approval::Pending,
    }
}

/// The number at the end of a version's ARN.
fn number(version: Option<i32>) -> u32 {
    version.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

fn summary(found: ModelPackageSummary) -> Option<VersionSummary> {
    Some(VersionSummary {
        state: state(found.model_package_status.as_ref(), None),
        approval: approval(found.model_approval_status.as_ref()),
        number: number(found.model_package_version),
        description: found.model_package_description.unwrap_or_default(),
        created: found.creation_time.and_then(|at| SystemTime::try_from(at).ok()),
        arn: found.model_package_arn?,
    })
}

fn version(arn: &str, reply: DescribeModelPackageOutput) -> ModelVersion {
    let state = state(reply.model_package_status.as_ref(), reply.model_package_status_details.as_ref());
    let images = images(&reply);
    let containers = reply.inference_specification.and_then(|specification| specification.containers);
    let container = containers.and_then(|containers| containers.into_iter().next());
    let container = container.unwrap_or_else(|| ModelPackageContainerDefinition::builder().build());
    let statistics = reply.model_metrics.and_then(|metrics| metrics.model_quality).and_then(|model| model.statistics);
    ModelVersion {
        arn: reply.model_package_arn.unwrap_or_else(|| arn.to_owned()),
        group: reply.model_package_group_name.unwrap_or_default(),
        number: number(reply.model_package_version),
        description: reply.model_package_description.unwrap_or_default(),
        state,
        approval: approval(reply.model_approval_status.as_ref()),
        approval_description: reply.approval_description.unwrap_or_default(),
        created: reply.creation_time.and_then(|at| SystemTime::try_from(at).ok()),
        image: container.image.unwrap_or_default(),
        image_digest: container.image_digest,
        images,
        model_data_url: container.model_data_url.unwrap_or_default(),
        environment: container.environment.unwrap_or_default().into_iter().collect(),
        metrics: statistics.and_then(|source| {
            let digest = source.content_digest;
            Some(StoredMetrics { uri: source.s3_uri?, content_type: source.content_type.unwrap_or_default(), digest })
        }),
        metadata: reply.customer_metadata_properties.unwrap_or_default().into_iter().collect(),
    }
}

/// Images of all containers, by name and by digest.
fn images(reply: &DescribeModelPackageOutput) -> Vec<String> {
    let of_serving = reply.inference_specification().map(InferenceSpecification::containers).unwrap_or_default();
    let additional = reply.additional_inference_specifications();
    let additional = additional.iter().flat_map(AdditionalInferenceSpecificationDefinition::containers);
    let names = |container: &ModelPackageContainerDefinition| {
        [container.image().map(str::to_owned), container.image_digest().map(str::to_owned)]
    };
    of_serving.iter().chain(additional).flat_map(names).flatten().collect()
}

#[cfg(test)]
mod tests;
