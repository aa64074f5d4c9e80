//! SageMaker training jobs over the SDK. Names, tags and policy are decided by the caller.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_sagemaker::config::Builder;
use aws_sdk_sagemaker::operation::describe_training_job::DescribeTrainingJobOutput;
use aws_sdk_sagemaker::primitives::DateTime;
use aws_sdk_sagemaker::types::{
    AlgorithmSpecification, CheckpointConfig, InstanceGroup, InstancePreference, MetricDefinition,
    OutputCompressionType, OutputDataConfig, RemoteDebugConfig, ResourceConfig, RetryStrategy, SessionChainingConfig,
    SortBy, SortOrder, StoppingCondition, Tag, TrainingImageConfig, TrainingInputMode, TrainingInstanceType,
    TrainingJobStatus, TrainingRepositoryAccessMode, TrainingRepositoryAuthConfig, VpcConfig, WarmPoolResourceStatus,
    WarmPoolStatus,
};

use super::clients::Clients;
use super::creator;
use super::errors::{AwsCall, is_of_clock};
use super::tags;
use backon::{ConstantBuilder, Retryable as _};
use executor::base::plain;
use executor::cloud::{
    CHECKPOINTS_DIR, CloudError, CloudErrorKind, JobStatus, RunningJob, RunningJobs, SecondaryStatus, TrainingJob,
    TrainingJobSpec, TrainingJobs, Transition, VpcRegistry,
};

/// Page size of `ListTrainingJobs`; the service's maximum.
const LIST_PAGE: i32 = 100;
/// Between two pages: the account has two requests a second, and others need some.
const LIST_PAUSE: Duration = Duration::from_secs(1);
/// Before a page that was throttled is asked for again, after the SDK's own retries: for two minutes in all.
const THROTTLED_PAUSE: Duration = Duration::from_secs(10);
const THROTTLED_TIMES: usize = 12;
/// Most pages of a list: it takes two minutes then.
const MOST_PAGES: usize = 100;
/// In bytes; SageMaker's own limit is 1,024 characters.
const LONGEST_TEXT: usize = 4096;

#[derive(Debug)]
pub(super) struct AwsJobs {
    clients: Arc<Clients>,
}

impl AwsJobs {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl TrainingJobs for AwsJobs {
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        match self.create_once(spec).await {
            Err(error) if is_of_clock(&error) => self.create_once(spec).await,
            created => created,
        }
    }

    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        self.describe_with(name, Builder::new()).await
    }

    async fn describe_once(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        let once = || self.describe_with(name, Builder::new().retry_config(RetryConfig::disabled()));
        match once().await {
            Err(error) if is_of_clock(&error) => once().await,
            described => described,
        }
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let call = self.clients.call("list the tags of", arn, "sagemaker:ListTags");
        tags::of(&self.clients, &call, arn).await
    }

    async fn stop(&self, name: &str) -> Result<(), CloudError> {
        let call = self.clients.call("stop", job(name), "sagemaker:StopTrainingJob");
        match self.clients.sagemaker().stop_training_job().training_job_name(name).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = call.failed(&error);
                let ended = error.kind == CloudErrorKind::Invalid && error.message.contains("is in status");
                if ended { Ok(()) } else { none_if_absent::<()>(error).map(|_| ()) }
            }
        }
    }

    async fn warm_pools(&self, name_contains: &str) -> Result<Vec<String>, CloudError> {
        let operation = format!("warm pools of training jobs named *{name_contains}*");
        let call = self.clients.call("list", operation, "sagemaker:ListTrainingJobs");
        let request = self.clients.sagemaker().list_training_jobs();
        let request = request.warm_pool_status_equals(WarmPoolResourceStatus::Available).max_results(LIST_PAGE);
        let newest = request.sort_by(SortBy::CreationTime).sort_order(SortOrder::Descending);
        let page = newest.name_contains(name_contains).send().await.map_err(|error| call.failed(&error))?;
        let summaries = page.training_job_summaries.unwrap_or_default().into_iter();
        Ok(summaries.filter_map(|summary| summary.training_job_name).collect())
    }

    async fn running(&self, name_contains: &str, created: Range<SystemTime>) -> Result<RunningJobs, CloudError> {
        self.list_running(name_contains, created, LIST_PAUSE, THROTTLED_PAUSE).await
    }
}

impl AwsJobs {
    /// One request: the caller tries again by itself.
    async fn create_once(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        let mut changes = Builder::new().retry_config(RetryConfig::disabled());
        if let Some(session) = &spec.creator {
            changes = changes.credentials_provider(creator::credentials(&self.clients, session).await?);
        }
        let call = self.clients.call("create", job(&spec.name), "sagemaker:CreateTrainingJob");
        let retries = optional(&call, "the number of retries", Some(spec.retries.into()))?;
        let output = OutputDataConfig::builder()
            .s3_output_path(&spec.output_uri)
            .set_kms_key_id(spec.output_kms_key_id.clone())
            // Single files: an archive would cost billed time to pack and the host's time to unpack.
            .compression_type(if spec.compress_output {
                OutputCompressionType::Gzip
            } else {
                OutputCompressionType::None
            })
            .build();
        let reply = self
            .clients
            .sagemaker()
            .create_training_job()
            .training_job_name(&spec.name)
            .role_arn(&spec.role_arn)
            .algorithm_specification(algorithm(spec))
            .set_input_data_config(unless_empty(spec.channels.iter().map(channels::channel).collect()))
            .output_data_config(output)
            .resource_config(resources(spec, &call)?)
            .stopping_condition(stopping(spec, &call)?)
            .set_enable_managed_spot_training(spec.spot_max_wait.map(|_| true))
            .set_checkpoint_config(spec.checkpoints_uri.as_deref().map(checkpoints))
            .set_retry_strategy(retries.map(|times| RetryStrategy::builder().maximum_retry_attempts(times).build()))
            .set_environment((!spec.environment.is_empty()).then(|| spec.environment.clone().into_iter().collect()))
            .set_vpc_config(spec.network.as_ref().map(|network| {
                VpcConfig::builder()
                    .set_subnets(Some(network.subnets.clone()))
                    .set_security_group_ids(Some(network.security_group_ids.clone()))
                    .build()
            }))
            .enable_inter_container_traffic_encryption(spec.encrypt_inter_container_traffic)
            .set_remote_debug_config(
                spec.remote_debug.then(|| RemoteDebugConfig::builder().enable_remote_debug(true).build()),
            )
            .set_enable_network_isolation(spec.is_isolated.then_some(true))
            .set_tags(unless_empty(
                spec.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect(),
            ))
            .set_session_chaining_config(spec.creator.as_ref().map(|_| chained()))
            .customize()
            .config_override(changes)
            .send()
            .await
            .map_err(|error| call.refused_request(&error))?;
        reply.training_job_arn.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply holds no ARN"))
    }

    /// Waits for `pause` between two pages, and for `throttled` before it asks again for one that was throttled.
    async fn list_running(
        &self,
        name_contains: &str,
        created: Range<SystemTime>,
        pause: Duration,
        throttled: Duration,
    ) -> Result<RunningJobs, CloudError> {
        let operation = format!("training jobs in progress named *{name_contains}*");
        let call = self.clients.call("list", operation, "sagemaker:ListTrainingJobs");
        let mut found = RunningJobs::default();
        let again = ConstantBuilder::new().with_delay(throttled).with_max_times(THROTTLED_TIMES);
        let mut token = None;
        for page in 0..MOST_PAGES {
            if page > 0 {
                tokio::time::sleep(pause).await;
            }
            let request = self.clients.sagemaker().list_training_jobs().name_contains(name_contains);
            let request = request.status_equals(TrainingJobStatus::InProgress).max_results(LIST_PAGE);
            let request = request.creation_time_after(created.start.into()).creation_time_before(created.end.into());
            let newest = request.sort_by(SortBy::CreationTime).sort_order(SortOrder::Descending).set_next_token(token);
            // Sweeps of several hosts share the account's rate.
            let ask = || async { newest.clone().send().await.map_err(|error| call.failed(&error)) };
            let is_throttled = |error: &CloudError| error.kind == CloudErrorKind::Throttled;
            let reply = ask.retry(again).when(is_throttled).await?;
            for summary in reply.training_job_summaries.unwrap_or_default() {
                let created = summary.creation_time.and_then(|time| SystemTime::try_from(time).ok());
                if let (Some(name), Some(created)) = (summary.training_job_name, created) {
                    found.jobs.push(RunningJob { name, created });
                }
            }
            token = reply.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
        Ok(RunningJobs { is_cut: true, ..found })
    }

    async fn describe_with(&self, name: &str, changes: Builder) -> Result<Option<TrainingJob>, CloudError> {
        let call = self.clients.call("describe", job(name), "sagemaker:DescribeTrainingJob");
        let request = self.clients.sagemaker().describe_training_job().training_job_name(name);
        match request.customize().config_override(changes).send().await {
            Ok(reply) => Ok(Some(training_job(name, reply))),
            Err(error) => none_if_absent(call.failed(&error)),
        }
    }
}

fn job(name: &str) -> String {
    format!("training job {name}")
}

fn none_if_absent<T>(error: CloudError) -> Result<Option<T>, CloudError> {
    if error.kind == CloudErrorKind::NotFound { Ok(None) } else { Err(error) }
}

/// SageMaker refuses empty lists where it takes absent ones.
fn unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// A number of the request, as AWS takes it.
fn number(call: &AwsCall, field: &str, value: u64) -> Result<i32, CloudError> {
    i32::try_from(value)
        .map_err(|_| call.error(CloudErrorKind::Invalid, format!("{field} {value} is larger than AWS takes")))
}

/// A number that is left out when it is 0.
fn optional(call: &AwsCall, field: &str, value: Option<u64>) -> Result<Option<i32>, CloudError> {
    value.filter(|value| *value > 0).map(|value| number(call, field, value)).transpose()
}

/// The instances of the training job.
fn resources(spec: &TrainingJobSpec, call: &AwsCall) -> Result<ResourceConfig, CloudError> {
    let preferred = unless_empty(spec.preferred_types.iter().map(|name| preference(name)).collect());
    let count = |count: u32| number(call, "the instance count", count.into());
    let groups = spec.instance_groups.iter().map(|one| Ok(group(one, count(one.count)?)));
    let groups = unless_empty(groups.collect::<Result<Vec<_>, CloudError>>()?);
    let is_plain = preferred.is_none() && groups.is_none();
    Ok(ResourceConfig::builder()
        .set_instance_type(is_plain.then(|| TrainingInstanceType::from(spec.instance_type.as_str())))
        .set_instance_preferences(preferred)
        .set_instance_count(if groups.is_none() { Some(count(spec.instance_count)?) } else { None })
        .set_instance_groups(groups)
        .volume_size_in_gb(number(call, "the volume size", spec.volume_size_gb.into())?)
        .set_volume_kms_key_id(spec.volume_kms_key_id.clone())
        .set_keep_alive_period_in_seconds(optional(call, "the keep-alive in seconds", Some(spec.keep_alive))?)
        .set_training_plan_arn(spec.training_plan_arn.clone())
        .build())
}

fn stopping(spec: &TrainingJobSpec, call: &AwsCall) -> Result<StoppingCondition, CloudError> {
    Ok(StoppingCondition::builder()
        .max_runtime_in_seconds(number(call, "the run time in seconds", spec.max_runtime)?)
        .set_max_wait_time_in_seconds(optional(call, "the wait in seconds", spec.spot_max_wait)?)
        .set_max_pending_time_in_seconds(optional(call, "the wait for instances in seconds", spec.max_pending)?)
        .build())
}

fn algorithm(spec: &TrainingJobSpec) -> AlgorithmSpecification {
    AlgorithmSpecification::builder()
        .training_image(&spec.image)
        .training_input_mode(TrainingInputMode::File)
        .set_training_image_config(spec.vpc_registry.as_ref().map(image_config))
        .set_container_entrypoint(unless_empty(spec.entrypoint.clone()))
        .set_container_arguments(unless_empty(spec.arguments.clone()))
        .set_metric_definitions(unless_empty(
            spec.metrics
                .iter()
                .map(|metric| MetricDefinition::builder().name(&metric.name).regex(&metric.regex).build())
                .collect(),
        ))
        .build()
}

fn preference(name: &str) -> InstancePreference {
    InstancePreference::builder().instance_type(TrainingInstanceType::from(name)).build()
}

fn group(group: &executor::cloud::InstanceGroup, count: i32) -> InstanceGroup {
    let instance_type = TrainingInstanceType::from(group.instance_type.as_str());
    InstanceGroup::builder().instance_group_name(&group.name).instance_type(instance_type).instance_count(count).build()
}

/// The session of the job's role gets the tags of the session that creates the job.
fn chained() -> SessionChainingConfig {
    SessionChainingConfig::builder().enable_session_tag_chaining(true).build()
}

/// The registry of the image, in the VPC.
fn image_config(registry: &VpcRegistry) -> TrainingImageConfig {
    let credentials = registry
        .credentials_lambda_arn
        .as_ref()
        .map(|arn| TrainingRepositoryAuthConfig::builder().training_repository_credentials_provider_arn(arn).build());
    TrainingImageConfig::builder()
        .training_repository_access_mode(TrainingRepositoryAccessMode::Vpc)
        .set_training_repository_auth_config(credentials)
        .build()
}

fn checkpoints(uri: &str) -> CheckpointConfig {
    CheckpointConfig::builder().s3_uri(uri).local_path(CHECKPOINTS_DIR).build()
}

fn training_job(name: &str, reply: DescribeTrainingJobOutput) -> TrainingJob {
    // The container may have written part of it; it is printed, and searched for words.
    let text = |text: &str| plain::line(text, LONGEST_TEXT);
    let time = |time: Option<&DateTime>| time.and_then(|time| SystemTime::try_from(*time).ok());
    let mut transitions: Vec<Transition> = reply
        .secondary_status_transitions()
        .iter()
        .map(|transition| Transition {
            status: secondary(transition.status()),
            started: time(transition.start_time()),
            message: transition.status_message().map(text),
        })
        .collect();
    transitions.sort_by_key(|transition| transition.started);
    let seconds = |seconds: Option<i32>| seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let pool_seconds = reply.warm_pool_status().and_then(WarmPoolStatus::resource_retained_billable_time_in_seconds);
    TrainingJob {
        pool: pool::properties(&reply),
        pool_seconds: seconds(pool_seconds),
        pool_taken_by: reply.warm_pool_status().and_then(|pool| pool.reused_by_job()).map(text),
        message: transitions.last().and_then(|transition| transition.message.clone()),
        secondary: secondary(reply.secondary_status()),
        status: job_status(reply.training_job_status()),
        created: time(reply.creation_time()),
        input_uris: channels::uris(reply.input_data_config()),
        instances: pool::instances(&reply),
        is_spot: reply.enable_managed_spot_training().unwrap_or_default(),
        training_started: time(reply.training_start_time()),
        training_seconds: seconds(reply.training_time_in_seconds()),
        billable_seconds: seconds(reply.billable_time_in_seconds()),
        name: reply.training_job_name.unwrap_or_else(|| name.to_owned()),
        arn: reply.training_job_arn.unwrap_or_default(),
        failure_reason: reply.failure_reason.as_deref().map(text),
        transitions,
    }
}

fn secondary(status: Option<&aws_sdk_sagemaker::types::SecondaryStatus>) -> SecondaryStatus {
    SecondaryStatus::from(plain::line(status.map_or("", |status| status.as_str()), LONGEST_TEXT).as_str())
}

fn job_status(status: Option<&TrainingJobStatus>) -> JobStatus {
    match status.map(TrainingJobStatus::as_str) {
        Some("InProgress") => JobStatus::InProgress,
        Some("Completed") => JobStatus::Completed,
        Some("Failed") => JobStatus::Failed,
        Some("Stopping") => JobStatus::Stopping,
        Some("Stopped") => JobStatus::Stopped,
        Some("Deleting") => JobStatus::Deleting,
        Some(_) | None => JobStatus::Unknown,
    }
}

mod channels;
mod ended;
mod pool;
#[cfg(test)]
mod tests;
