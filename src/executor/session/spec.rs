//! Builds the request for a training job from a decision, with its name and tags. Pure.

use std::collections::BTreeMap;

use crate::cloud::{Channel, CreatorSession, ObjectStore, TrainingJobSpec};
use crate::config::policy::Decision;
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::protocol::agent_env::AgentEnv;
use crate::protocol::bootstrap;
use crate::protocol::keys::{self, SessionKeys, SessionPlace};
use crate::protocol::session_tag;
use crate::session::id::SessionId;

/// Tags of every training job. Adoption and sweeps compare `SESSION`.
pub mod tag {
    pub const SESSION: &str = "sagemaker-executor:session";
    pub const KEY: &str = "sagemaker-executor:key-hash";
    pub const JOB: &str = "gitlab:job-id";
    pub const PROJECT: &str = "gitlab:project-id";
    pub const PIPELINE: &str = "gitlab:pipeline-id";
    pub const PATH: &str = "gitlab:project-path";
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

/// The session's place, the project's packs and the agent's files, for the container.
#[derive(Debug, Clone, Copy)]
pub struct AgentInputs<'a> {
    pub keys: &'a SessionKeys,
    /// Key prefix of the agent's files.
    pub files: &'a str,
    /// Scope of the project's packs.
    pub scope: &'a str,
}

/// Builds the request.
pub fn training_job(
    id: &SessionId,
    job: &JobContext,
    decision: &Decision,
    settings: &Settings,
    objects: &dyn ObjectStore,
    agent: AgentInputs<'_>,
) -> TrainingJobSpec {
    TrainingJobSpec {
        // Set when the request is sent, like the instance type.
        name: id.to_string(),
        image: decision.image.clone(),
        role_arn: decision.role_arn.clone(),
        entrypoint: vec!["/bin/sh".to_owned(), bootstrap::start_path()],
        arguments: Vec::new(),
        environment: environment(agent.keys, decision, settings),
        channels: vec![Channel {
            name: bootstrap::CHANNEL.to_owned(),
            uri: objects.uri(&keys::agent_file(agent.files, "")),
        }],
        output_uri: objects.uri(&agent.keys.output()),
        output_kms_key_id: settings.storage.kms_key_id.clone(),
        instance_type: decision.instance_types.first().cloned().unwrap_or_default(),
        instance_count: decision.instance_count,
        volume_size_gb: decision.volume_size_gb,
        volume_kms_key_id: settings.job.volume_kms_key_id.clone(),
        max_runtime: decision.max_runtime,
        network: decision.network.clone(),
        encrypt_inter_container_traffic: settings.job.encrypt_inter_container_traffic,
        tags: tags(id, agent.keys, job, settings),
        creator: settings.aws.creator_role_arn.as_deref().map(|role| creator(role, id, job, agent.scope)),
    }
}

/// The creator's session for all training jobs of `id`.
fn creator(role: &str, id: &SessionId, job: &JobContext, scope: &str) -> CreatorSession {
    let tags = [
        (session_tag::SESSION, id.to_string()),
        (session_tag::PROJECT, scope.to_owned()),
        (session_tag::PROTECTED, (job.git_info.protected == Some(true)).to_string()),
    ];
    CreatorSession {
        role_arn: role.to_owned(),
        name: id.to_string(),
        tags: tags.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// Keys of the session in the bucket; `place` as its state has it.
pub fn session_keys(id: &SessionId, place: Option<&SessionPlace>) -> SessionKeys {
    SessionKeys::of_session(id.as_str(), place)
}

fn environment(keys: &SessionKeys, decision: &Decision, settings: &Settings) -> BTreeMap<String, String> {
    let endpoint = settings.aws.container_endpoint_url.as_ref().or(settings.aws.endpoint_url.as_ref());
    let own = AgentEnv {
        root: keys.root().to_owned(),
        key_hash: keys.seal().commitment(),
        bucket: settings.storage.bucket.clone(),
        prefix: settings.storage.prefix.clone(),
        region: settings.aws.region.clone(),
        endpoint_url: endpoint.cloned(),
        kms_key_id: settings.storage.kms_key_id.clone(),
        lease_seconds: settings.limits.lease_seconds,
        rerun: decision.rerun,
    };
    let mut environment = decision.environment.clone();
    environment.extend(own.to_variables());
    environment
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
    ]);
    tags
}

/// Replaces characters outside `^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$` and cuts at 256 characters (`CreateTrainingJob`,
/// `Tags`).
fn tag_value(text: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_.:/=+-@ ".contains(c) { c } else { '_' };
    text.chars().map(allowed).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_training_job_of_a_session_has_a_name_of_its_own() {
        let number = u64::MAX;
        let id = SessionId::parse(&format!("gitlab-{number}-{number}-abcdef12")).unwrap();
        assert_eq!(job_name(&id, 0), id.as_str());
        assert_eq!(job_name(&id, 1), id.as_str());
        assert_eq!(job_name(&id, 2), format!("{id}-2"));
        assert!(job_name(&id, 99_999).len() <= 63);
    }

    #[test]
    fn tag_values_keep_to_the_pattern() {
        assert_eq!(tag_value("ml/chürn"), "ml/chürn");
        assert_eq!(tag_value("a<b>\n'"), "a_b___");
        assert_eq!(tag_value(&"x".repeat(300)).len(), 256);
    }

    #[test]
    fn the_creators_session_has_the_sessions_name_and_the_tags_of_the_policies() {
        let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
        let made = |protected: Option<bool>| {
            let job = serde_json::json!({"id": 2, "job_info": {"project_id": 1}, "git_info": {"protected": protected}});
            creator("arn:aws:iam::1:role/creator", &id, &serde_json::from_value(job).unwrap(), "1-ab")
        };
        for (protected, value) in [(Some(true), "true"), (Some(false), "false"), (None, "false")] {
            let session = made(protected);
            assert_eq!(
                (session.name.as_str(), session.role_arn.as_str()),
                (id.as_str(), "arn:aws:iam::1:role/creator")
            );
            assert!(session.tags.keys().eq(["sme-project", "sme-protected", "sme-session"]), "{session:?}");
            assert!(session.tags.values().eq(["1-ab", value, id.as_str()]), "{session:?}");
        }
    }
}
