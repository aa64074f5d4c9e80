//! Parts of requests in the types of the SDK.

use aws_sdk_sagemaker::types::{
    Alarm, AsyncInferenceClientConfig, AsyncInferenceConfig, AsyncInferenceOutputConfig, AutoRollbackConfig,
    BlueGreenUpdatePolicy, CapacitySize, CapacitySizeType, ContainerDefinition, DeploymentConfig, ProductionVariant,
    ProductionVariantInstanceType, ProductionVariantServerlessConfig, RollingUpdatePolicy, TrafficRoutingConfig,
    TrafficRoutingConfigType,
};
use executor::cloud::{
    AsynchronousOutput, EndpointConfiguration, ModelSource, RolloutSpec, ServedModel, TrafficShift, VariantCapacity,
};

/// `None` for a source that this program does not make.
pub(super) fn container(model: &ServedModel) -> Option<ContainerDefinition> {
    let container = ContainerDefinition::builder();
    let container = match &model.source {
        ModelSource::Package(arn) => container.model_package_name(arn),
        ModelSource::Container { image, model_data_url } => {
            container.image(image).set_model_data_url(model_data_url.clone())
        }
        ModelSource::Other => return None,
    };
    let variables = (!model.environment.is_empty()).then(|| model.environment.clone().into_iter().collect());
    Some(container.set_environment(variables).build())
}

pub(super) fn variant(config: &EndpointConfiguration) -> ProductionVariant {
    let variant = ProductionVariant::builder().variant_name(&config.variant).model_name(&config.model);
    let variant = match &config.capacity {
        VariantCapacity::Instances { instance_type, count } => variant
            .instance_type(ProductionVariantInstanceType::from(instance_type.as_str()))
            .initial_instance_count(count.cast_signed())
            .initial_variant_weight(1.0),
        VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => variant
            .serverless_config(
                ProductionVariantServerlessConfig::builder()
                    .memory_size_in_mb(memory_mb.cast_signed())
                    .max_concurrency(max_concurrency.cast_signed())
                    .set_provisioned_concurrency(provisioned_concurrency.map(u32::cast_signed))
                    .build(),
            )
            .initial_variant_weight(1.0),
    };
    variant
        .set_model_data_download_timeout_in_seconds(config.download_timeout_seconds.map(u32::cast_signed))
        .set_container_startup_health_check_timeout_in_seconds(config.startup_timeout_seconds.map(u32::cast_signed))
        .build()
}

pub(super) fn asynchronous(places: &AsynchronousOutput) -> AsyncInferenceConfig {
    let output = AsyncInferenceOutputConfig::builder()
        .s3_output_path(&places.output)
        .set_s3_failure_path(places.failures.clone())
        .set_kms_key_id(places.kms_key_id.clone());
    let client = places.max_concurrent.map(|most| {
        AsyncInferenceClientConfig::builder().max_concurrent_invocations_per_instance(most.cast_signed()).build()
    });
    AsyncInferenceConfig::builder().output_config(output.build()).set_client_config(client).build()
}

fn percent(size: u32) -> CapacitySize {
    CapacitySize::builder().r#type(CapacitySizeType::CapacityPercent).value(size.cast_signed()).build()
}

/// The policy of a rollout, with its alarms.
pub(super) fn deployment(rollout: &RolloutSpec) -> DeploymentConfig {
    let alarms = rollout.alarms.iter().map(|name| Alarm::builder().alarm_name(name).build());
    let alarms = AutoRollbackConfig::builder().set_alarms(Some(alarms.collect())).build();
    let config =
        DeploymentConfig::builder().set_auto_rollback_configuration((!rollout.alarms.is_empty()).then_some(alarms));
    let limit = rollout.limit_seconds.cast_signed();
    let routing = TrafficRoutingConfig::builder();
    let (routing, wait, termination) = match rollout.traffic {
        TrafficShift::AllAtOnce { wait, termination_wait } => {
            (routing.r#type(TrafficRoutingConfigType::AllAtOnce), wait, termination_wait)
        }
        TrafficShift::Canary { percent: size, wait, termination_wait } => {
            let routing = routing.r#type(TrafficRoutingConfigType::Canary).canary_size(percent(size));
            (routing, wait, termination_wait)
        }
        TrafficShift::Linear { percent: size, wait, termination_wait } => {
            let routing = routing.r#type(TrafficRoutingConfigType::Linear).linear_step_size(percent(size));
            (routing, wait, termination_wait)
        }
        TrafficShift::Rolling { percent: size, wait } => {
            let policy = RollingUpdatePolicy::builder()
                .maximum_batch_size(percent(size))
                .wait_interval_in_seconds(wait.cast_signed())
                .maximum_execution_timeout_in_seconds(limit);
            return config.rolling_update_policy(policy.build()).build();
        }
    };
    let policy = BlueGreenUpdatePolicy::builder()
        .traffic_routing_configuration(routing.wait_interval_in_seconds(wait.cast_signed()).build())
        .termination_wait_in_seconds(termination.cast_signed())
        .maximum_execution_timeout_in_seconds(limit);
    config.blue_green_update_policy(policy.build()).build()
}
