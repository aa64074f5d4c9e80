//! Builds the request for a training job from a decision, with its name and tags. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::cloud::{Channel, ChannelMode, ChannelSource, CreatorSession, ObjectStore, TrainingJobSpec};
use crate::config::policy::Decision;
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::protocol::agent_env::AgentEnv;
use crate::protocol::bootstrap;
use crate::protocol::isolation;
use crate::protocol::keys::{self, SessionKeys, SessionPlace};
use crate::protocol::session_tag;
use crate::session::id::SessionId;

/// Types of an `InstancePreferences` list; a single one is no choice.
const PREFERENCES: RangeInclusive<usize> = 2..=5;

/// Tags of every training job. Adoption and sweeps compare `SESSION`.
pub mod tag {
    pub const SESSION: &str = "sagemaker-executor:session";
    pub const KEY: &str = "sagemaker-executor:key-hash";
    pub const JOB: &str = "gitlab:job-id";
    pub const PROJECT: &str = "gitlab:project-id";
    pub const PIPELINE: &str = "gitlab:pipeline-id";
    pub const PATH: &str = "gitlab:project-path";
    pub const JOB_NAME: &str = "gitlab:job-name";
    pub const USER: &str = "gitlab:user-id";
    pub const REF: &str = "gitlab:ref";
    pub const ENVIRONMENT: &str = "gitlab:environment";
}

/// Name of one of the session's training jobs, numbered from 1: the first has the session's own name. A name stays
/// taken after its job has ended, so each further job needs another one. At most 63 characters: 57 of the session and
/// five digits.
pub fn job_name(id: &SessionId, number: u32) -> String {
    match number {
        0 | 1 => id.to_string(),
        number => format!("{id}-{number}"),
    }
}

/// The session whose training job has this name; the reverse of [`job_name`].
pub fn session_of_job(name: &str) -> Option<SessionId> {
    SessionId::parse(name).or_else(|| {
        let (session, number) = name.rsplit_once('-')?;
        let id = SessionId::parse(session)?;
        let number = number.parse().ok()?;
        (number > 1 && job_name(&id, number) == name).then_some(id)
    })
}

/// The session's place, the project's packs and the agent's files, for the container.
#[derive(Debug, Clone, Copy)]
pub struct AgentInputs<'a> {
    pub keys: &'a SessionKeys,
    /// Key prefix of the agent's files.
    pub files: &'a str,
    /// Scope of the project's packs.
    pub scope: &'a str,
    /// Scope of the job's checkpoints, when it keeps some.
    pub checkpoints: Option<&'a str>,
    /// `None`: the container has a network.
    pub stage: Option<&'a StageChannels>,
}

/// URIs of the lists of the channels by which a stage without network gets its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageChannels {
    pub stage: String,
    /// Of the objects that the container of the stage before has written.
    pub earlier: Option<String>,
}

/// Lease in seconds, longer than any training job: no driver can renew that of a container without network.
const NO_LEASE: u64 = 40 * 24 * 3600;

/// Builds the request.
pub fn training_job(
    id: &SessionId,
    job: &JobContext,
    decision: &Decision,
    settings: &Settings,
    objects: &dyn ObjectStore,
    agent: AgentInputs<'_>,
) -> TrainingJobSpec {
    let output = decision.data.model_output.as_ref();
    TrainingJobSpec {
        // Set when the request is sent, like the instance type.
        name: id.to_string(),
        image: decision.image.clone(),
        role_arn: decision.role_arn.clone(),
        entrypoint: vec!["/bin/sh".to_owned(), bootstrap::start_path()],
        arguments: Vec::new(),
        environment: environment(agent, decision, settings),
        channels: channels(decision, agent.stage, objects.uri(&keys::agent_file(agent.files, ""))),
        metrics: decision.metrics.clone(),
        output_uri: output.map_or_else(|| objects.uri(&agent.keys.output()), |output| output.folder.clone()),
        compress_output: output.is_some_and(|output| output.is_archive),
        output_kms_key_id: settings.storage.kms_key_id.clone(),
        instance_type: decision.instance_types.first().cloned().unwrap_or_default(),
        preferred_types: preferred_types(decision),
        instance_count: decision.instance_count,
        instance_groups: decision.instance_groups.clone(),
        volume_size_gb: decision.volume_size_gb,
        volume_kms_key_id: settings.job.volume_kms_key_id.clone(),
        max_runtime: decision.max_runtime,
        max_pending: decision.capacity.max_pending,
        spot_max_wait: decision.capacity.spot_max_wait,
        checkpoints_uri: checkpoints_uri(job, decision, agent, objects),
        retries: decision.capacity.retries,
        keep_alive: decision.capacity.keep_alive,
        training_plan_arn: decision.capacity.training_plan.clone(),
        vpc_registry: settings.vpc_registry(),
        network: decision.network.clone(),
        encrypt_inter_container_traffic: settings.job.encrypt_inter_container_traffic,
        remote_debug: decision.debug.remote,
        is_isolated: agent.stage.is_some(),
        tags: tags(id, agent.keys, job, settings),
        creator: settings.aws.creator_role_arn.as_deref().map(|role| creator(role, id, job, agent)),
    }
}

/// The types of which SageMaker selects one. It takes no list beside spot instances, and a training plan has one type; that a job with a list
/// gets the instances of a warm pool is not documented.
fn preferred_types(decision: &Decision) -> Vec<String> {
    let (types, capacity) = (&decision.instance_types, &decision.capacity);
    let is_plain = decision.instance_groups.is_empty()
        && capacity.spot_max_wait.is_none()
        && capacity.training_plan.is_none()
        && capacity.keep_alive == 0;
    if is_plain && PREFERENCES.contains(&types.len()) { types.clone() } else { Vec::new() }
}

/// The agent's channel, those of the stage and those of the job.
fn channels(decision: &Decision, stage: Option<&StageChannels>, agent: String) -> Vec<Channel> {
    let channel =
        |name: &str, source| Channel { name: name.to_owned(), source, mode: ChannelMode::File, content_type: None };
    let agent = channel(bootstrap::CHANNEL, ChannelSource::S3 { uri: agent, is_sharded: false });
    let listed = |name, uri: &String| channel(name, ChannelSource::Listed { uri: uri.clone() });
    let own = stage.map(|stage| listed(isolation::STAGE_CHANNEL, &stage.stage));
    let earlier = stage.and_then(|stage| stage.earlier.as_ref()).map(|uri| listed(isolation::EARLIER_CHANNEL, uri));
    std::iter::once(agent)
        .chain(own)
        .chain(earlier)
        .chain(decision.data.inputs.iter().map(|input| input.channel.clone()))
        .collect()
}

fn checkpoints_uri(
    job: &JobContext,
    decision: &Decision,
    agent: AgentInputs<'_>,
    objects: &dyn ObjectStore,
) -> Option<String> {
    let git_ref = decision.data.checkpoints_ref.as_ref()?;
    Some(objects.uri(&keys::checkpoints(agent.checkpoints?, git_ref, &job.job_info.name)))
}

/// The creator's session for all training jobs of `id`.
fn creator(role: &str, id: &SessionId, job: &JobContext, agent: AgentInputs<'_>) -> CreatorSession {
    let tags = [
        (session_tag::SESSION, id.to_string()),
        (session_tag::PROJECT, agent.scope.to_owned()),
        (session_tag::PROTECTED, (job.git_info.protected == Some(true)).to_string()),
    ];
    let checkpoints = agent.checkpoints.map(|scope| (session_tag::CHECKPOINTS, scope.to_owned()));
    CreatorSession {
        role_arn: role.to_owned(),
        name: id.to_string(),
        tags: tags.into_iter().chain(checkpoints).map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Keys of the session in the bucket; `place` as its state has it.
pub fn session_keys(id: &SessionId, place: Option<&SessionPlace>) -> SessionKeys {
    SessionKeys::of_session(id.as_str(), place)
}

fn environment(agent: AgentInputs<'_>, decision: &Decision, settings: &Settings) -> BTreeMap<String, String> {
    let (keys, isolated) = (agent.keys, agent.stage.is_some());
    let endpoint = settings.aws.container_endpoint_url.as_ref().or(settings.aws.endpoint_url.as_ref());
    let own = AgentEnv {
        root: keys.root().to_owned(),
        key_hash: keys.seal().commitment(),
        bucket: settings.storage.bucket.clone(),
        prefix: settings.storage.prefix.clone(),
        region: settings.aws.region.clone(),
        endpoint_url: endpoint.cloned(),
        use_fips: endpoint.is_none() && settings.aws.use_fips_endpoint,
        use_dual_stack: endpoint.is_none() && settings.aws.use_dualstack_endpoint,
        kms_key_id: settings.storage.kms_key_id.clone(),
        lease_seconds: if isolated { NO_LEASE } else { settings.limits.lease_seconds },
        rerun: decision.capacity.rerun,
        instance_stays: decision.capacity.keep_alive > 0,
        checkpoints: decision.data.checkpoints_ref.is_some(),
        isolated,
    };
    let mut environment = decision.environment.clone();
    environment.extend(decision.data.inputs.iter().map(|input| channel_variable(&input.channel)));
    environment.extend(own.to_variables());
    environment
}

/// The variable by which scripts find a channel, as in SageMaker's own images.
fn channel_variable(channel: &Channel) -> (String, String) {
    let dir = bootstrap::data_dir().join(&channel.name);
    (format!("SM_CHANNEL_{}", channel.name.to_ascii_uppercase()), dir.display().to_string())
}

fn tags(id: &SessionId, keys: &SessionKeys, job: &JobContext, settings: &Settings) -> BTreeMap<String, String> {
    let mut tags = settings.job.tags.clone();
    tags.extend(keys.seal().commitment().map(|hash| (tag::KEY.to_owned(), hash)));
    tags.extend([
        (tag::SESSION.to_owned(), id.to_string()),
        (tag::JOB.to_owned(), job.id.to_string()),
        (tag::PROJECT.to_owned(), job.job_info.project_id.to_string()),
        (tag::PIPELINE.to_owned(), job.job_info.pipeline_id.to_string()),
        (tag::PATH.to_owned(), tag_value(&job.job_info.project_full_path)),
        (tag::REF.to_owned(), tag_value(&job.git_info.git_ref)),
        (tag::JOB_NAME.to_owned(), tag_value(&job.job_info.name)),
    ]);
    let user = (job.job_info.user_id > 0).then(|| job.job_info.user_id.to_string());
    tags.extend(user.map(|user| (tag::USER.to_owned(), user)));
    tags.extend(deployment(job).map(|name| (tag::ENVIRONMENT.to_owned(), tag_value(name))));
    tags
}

/// The job's `environment:`. GitLab's own entry of the variable cannot be told from that of a job's author. So it counts only on a protected
/// ref, where those who may change the job may deploy too, and only if all entries agree.
fn deployment(job: &JobContext) -> Option<&str> {
    if job.git_info.protected != Some(true) {
        return None;
    }
    let mut names = job.variables.iter().filter(|variable| variable.key == "CI_ENVIRONMENT_NAME" && !variable.masked);
    let name = names.next().map(|variable| variable.value.as_str()).filter(|name| !name.is_empty())?;
    names.all(|other| other.value == name).then_some(name)
}

/// Replaces characters outside `^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$` and cuts at 256 characters (`CreateTrainingJob`,
/// `Tags`).
fn tag_value(text: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_.:/=+-@ ".contains(c) { c } else { '_' };
    text.chars().map(allowed).take(256).collect()
}

#[cfg(test)]
mod tests;
