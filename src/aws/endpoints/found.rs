//! Turns SageMaker's descriptions into the types of the port.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_sagemaker::operation::describe_endpoint::DescribeEndpointOutput;
use aws_sdk_sagemaker::operation::describe_endpoint_config::DescribeEndpointConfigOutput;
use aws_sdk_sagemaker::operation::describe_model::DescribeModelOutput;
use aws_sdk_sagemaker::primitives::DateTime;
use aws_sdk_sagemaker::types::{
    AsyncInferenceConfig, ContainerDefinition, DeployedImage, EndpointStatus, ProductionVariant,
    ProductionVariantStatus, VariantStatus,
};
use executor::base::plain;
use executor::cloud::{
    AsynchronousOutput, EndpointConfiguration, EndpointSight, EndpointState, ModelParts, ModelSource, ServedModel,
    VariantCapacity, VariantSight,
};

/// Longest reason of a failure that is kept, in bytes; SageMaker's own limit is 1,024 characters.
const LONGEST_TEXT: usize = 4096;

fn number(value: Option<i32>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

pub(super) fn model(name: &str, reply: DescribeModelOutput) -> ServedModel {
    let several = reply.containers.unwrap_or_default();
    let is_one = reply.primary_container.is_some() || several.len() == 1;
    let container = reply.primary_container.or_else(|| several.into_iter().next()).filter(|_| is_one);
    let network = reply.vpc_config;
    ServedModel {
        name: reply.model_name.unwrap_or_else(|| name.to_owned()),
        arn: reply.model_arn.unwrap_or_default(),
        source: container.as_ref().map_or(ModelSource::Other, source),
        environment: container.and_then(|one| one.environment).unwrap_or_default().into_iter().collect(),
        role: reply.execution_role_arn.unwrap_or_default(),
        subnets: network.as_ref().map(|network| network.subnets().to_vec()).unwrap_or_default(),
        security_groups: network.map(|network| network.security_group_ids().to_vec()).unwrap_or_default(),
        network_isolation: reply.enable_network_isolation.unwrap_or_default(),
        tags: BTreeMap::new(),
    }
}

/// Images and versions of all containers, those of pipelines and of many models too.
pub(super) fn parts(reply: DescribeModelOutput) -> ModelParts {
    let containers = reply.primary_container.into_iter().chain(reply.containers.unwrap_or_default());
    let mut parts = ModelParts::default();
    for container in containers {
        parts.images.extend(container.image);
        parts.packages.extend(container.model_package_name);
    }
    parts
}

/// A container of a package is described with the package's image too.
fn source(container: &ContainerDefinition) -> ModelSource {
    let is_plain = container.multi_model_config.is_none() && container.additional_model_data_sources().is_empty();
    match (container.model_package_name(), container.image()) {
        _ if !is_plain => ModelSource::Other,
        (Some(arn), _) => ModelSource::Package(arn.to_owned()),
        (None, Some(image)) => {
            ModelSource::Container { image: image.to_owned(), model_data_url: container.model_data_url.clone() }
        }
        (None, None) => ModelSource::Other,
    }
}

pub(super) fn config(name: &str, reply: DescribeEndpointConfigOutput) -> EndpointConfiguration {
    let shadows = reply.shadow_production_variants().len();
    let variants = reply.production_variants.unwrap_or_default();
    let count = variants.len() + shadows;
    let first = variants.into_iter().next().unwrap_or_else(|| ProductionVariant::builder().build());
    EndpointConfiguration {
        name: reply.endpoint_config_name.unwrap_or_else(|| name.to_owned()),
        arn: reply.endpoint_config_arn.unwrap_or_default(),
        capacity: capacity(&first),
        model: first.model_name.unwrap_or_default(),
        variant: first.variant_name.unwrap_or_default(),
        download_timeout_seconds: number(first.model_data_download_timeout_in_seconds),
        startup_timeout_seconds: number(first.container_startup_health_check_timeout_in_seconds),
        kms_key_id: reply.kms_key_id,
        asynchronous: reply.async_inference_config.and_then(asynchronous),
        variants: count,
        tags: BTreeMap::new(),
    }
}

fn capacity(variant: &ProductionVariant) -> VariantCapacity {
    match &variant.serverless_config {
        Some(serverless) => VariantCapacity::Serverless {
            memory_mb: number(serverless.memory_size_in_mb).unwrap_or_default(),
            max_concurrency: number(serverless.max_concurrency).unwrap_or_default(),
            provisioned_concurrency: number(serverless.provisioned_concurrency),
        },
        None => VariantCapacity::Instances {
            instance_type: variant.instance_type().map_or_else(String::new, |name| name.as_str().to_owned()),
            count: number(variant.initial_instance_count).unwrap_or_default(),
        },
    }
}

fn asynchronous(config: AsyncInferenceConfig) -> Option<AsynchronousOutput> {
    let output = config.output_config?;
    Some(AsynchronousOutput {
        output: output.s3_output_path.unwrap_or_default(),
        failures: output.s3_failure_path,
        max_concurrent: number(config.client_config.and_then(|client| client.max_concurrent_invocations_per_instance)),
        kms_key_id: output.kms_key_id,
    })
}

pub(super) fn endpoint(name: &str, reply: DescribeEndpointOutput) -> EndpointSight {
    let time = |time: Option<DateTime>| time.and_then(|time| SystemTime::try_from(time).ok());
    let images = images(&reply);
    let pending = reply.pending_deployment_summary;
    let (pending_config, pending_variants) =
        pending.map(|pending| (pending.endpoint_config_name, pending.production_variants)).unwrap_or_default();
    EndpointSight {
        name: reply.endpoint_name.unwrap_or_else(|| name.to_owned()),
        arn: reply.endpoint_arn.unwrap_or_default(),
        state: state(reply.endpoint_status.as_ref()),
        config: reply.endpoint_config_name.unwrap_or_default(),
        variants: reply
            .production_variants
            .unwrap_or_default()
            .into_iter()
            .map(|one| VariantSight {
                status: status(one.variant_status()),
                name: one.variant_name.unwrap_or_default(),
                current_instances: number(one.current_instance_count),
                desired_instances: number(one.desired_instance_count),
            })
            .collect(),
        pending_config,
        pending_variants: pending_variants
            .unwrap_or_default()
            .into_iter()
            .map(|one| VariantSight {
                status: status(one.variant_status()),
                name: one.variant_name.unwrap_or_default(),
                current_instances: number(one.current_instance_count),
                desired_instances: number(one.desired_instance_count),
            })
            .collect(),
        images,
        failure: reply.failure_reason.map(|reason| plain::line(&reason, LONGEST_TEXT)),
        created: time(reply.creation_time),
        modified: time(reply.last_modified_time),
    }
}

/// Images of all variants, as they were named and by digest.
fn images(reply: &DescribeEndpointOutput) -> Vec<String> {
    let pending = reply.pending_deployment_summary();
    let pending_variants =
        pending.into_iter().flat_map(|one| one.production_variants().iter().chain(one.shadow_production_variants()));
    let deployed = reply.production_variants().iter().chain(reply.shadow_production_variants());
    let deployed = deployed.flat_map(|variant| variant.deployed_images().iter());
    let all = deployed.chain(pending_variants.flat_map(|variant| variant.deployed_images().iter()));
    let named = |image: &DeployedImage| [image.specified_image.clone(), image.resolved_image.clone()];
    all.flat_map(named).flatten().collect()
}

/// The last status of a variant, with its message.
fn status(all: &[ProductionVariantStatus]) -> Option<String> {
    let last = all.iter().max_by_key(|status| status.start_time().copied())?;
    let word = last.status().map(VariantStatus::as_str).unwrap_or_default();
    let text = last.status_message().filter(|text| !text.is_empty());
    Some(plain::line(&text.map_or_else(|| word.to_owned(), |text| format!("{word}: {text}")), LONGEST_TEXT))
}

pub(super) fn state(status: Option<&EndpointStatus>) -> EndpointState {
    match status {
        Some(EndpointStatus::OutOfService) => EndpointState::OutOfService,
        Some(EndpointStatus::Creating) => EndpointState::Creating,
        Some(EndpointStatus::Updating) => EndpointState::Updating,
        Some(EndpointStatus::SystemUpdating) => EndpointState::SystemUpdating,
        Some(EndpointStatus::RollingBack) => EndpointState::RollingBack,
        Some(EndpointStatus::InService) => EndpointState::InService,
        Some(EndpointStatus::Deleting) => EndpointState::Deleting,
        Some(EndpointStatus::Failed) => EndpointState::Failed,
        Some(EndpointStatus::UpdateRollbackFailed) => EndpointState::UpdateRollbackFailed,
        _ => EndpointState::Unknown,
    }
}
