//! Reads the instances of a job, and the properties by which SageMaker matches jobs and warm pools.

use aws_sdk_sagemaker::operation::describe_training_job::DescribeTrainingJobOutput;
use aws_sdk_sagemaker::types::{ResourceConfig, TrainingInstanceType};
use executor::cloud::PoolProperties;

pub(super) fn properties(reply: &DescribeTrainingJobOutput) -> PoolProperties {
    let resources = reply.resource_config();
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    let vpc = reply.vpc_config();
    PoolProperties {
        role_arn: reply.role_arn().unwrap_or_default().to_owned(),
        instance_type: resources
            .and_then(|resources| resources.selected_instance_type().or(resources.instance_type()))
            .map(|instance_type| instance_type.as_str().to_owned())
            .unwrap_or_default(),
        instance_count: number(resources.and_then(ResourceConfig::instance_count)),
        volume_size_gb: number(resources.and_then(ResourceConfig::volume_size_in_gb)),
        volume_kms_key_id: resources.and_then(|resources| resources.volume_kms_key_id()).map(str::to_owned),
        subnets: vpc.map(|vpc| sorted(vpc.subnets())).unwrap_or_default(),
        security_group_ids: vpc.map(|vpc| sorted(vpc.security_group_ids())).unwrap_or_default(),
        encrypts_traffic: reply.enable_inter_container_traffic_encryption().unwrap_or_default(),
        is_isolated: reply.enable_network_isolation().unwrap_or_default(),
        has_checkpoints: reply.checkpoint_config().is_some(),
    }
}

/// Types and numbers of the instances.
pub(super) fn instances(reply: &DescribeTrainingJobOutput) -> Vec<(String, u32)> {
    let Some(resources) = reply.resource_config() else { return Vec::new() };
    let one = |(name, count): (Option<&TrainingInstanceType>, Option<i32>)| {
        Some((name?.as_str().to_owned(), u32::try_from(count?).ok()?))
    };
    let groups = resources.instance_groups().iter().map(|group| (group.instance_type(), group.instance_count()));
    let all = (
        resources.selected_instance_type().or(resources.instance_type()),
        resources.selected_instance_count().or(resources.instance_count()),
    );
    groups.chain([all]).filter_map(one).collect()
}
