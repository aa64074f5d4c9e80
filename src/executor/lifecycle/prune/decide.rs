//! Decides about each thing by what the lists show and what refers to it. Pure.
//!
//! A verdict that a thing goes holds until its owner was looked at, which costs a call: that comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::file_names::{is_candidate, is_hex};
use super::references::References;
use super::things::{PruneSource, ThingReason, ThingUser, ThingVerdict, stem_of_config, stem_of_model};
use crate::cloud::{
    AlarmSight, Approval, EndedJob, EndpointState, Listed, ModelVersion, RegistrationState, RepositoryImage,
    ServingSummary, VersionSummary,
};
use crate::gitlab::api::GenericPackage;
use crate::lifecycle::endpoint::{ENDPOINT, ENVIRONMENT, PROJECT, RECORDS, own_alarms, stem};

/// Begin of the tag by which `image build` names a context, and the digits of the hash after it.
const CONTEXT_TAG: &str = "context-";
const CONTEXT_DIGITS: usize = 40;
/// Begin of tags that name a build, and digits of a commit in tags.
const BUILD_TAG: &str = "build-";
const COMMIT_DIGITS: [usize; 2] = [8, 40];
/// Folders of an environment in its bucket.
const FOLDERS: [&str; 5] = ["models", "deployments", "packages", "metrics", "candidate"];
/// The folder of the bucket for what expires.
pub(super) const CANDIDATES: &str = "candidate/";
/// The folder of the bucket with packages, by their SHA-256.
pub(super) const PACKAGES: &str = "packages/";
/// Tags of the training jobs of the executor.
const JOB_PROJECT: &str = "gitlab:project-id";
const JOB_PATH: &str = "gitlab:project-path";
const JOB_SESSION: &str = "sagemaker-executor:session";
/// Begin of the mark in the description of a version that this program made.
const CONTENT_MARK: &str = "[content ";

/// The limits, and whose things are meant.
#[derive(Debug, Clone)]
pub(super) struct PruneRules {
    pub(super) now: SystemTime,
    pub(super) retention: Duration,
    /// Deployments of each endpoint, versions and images that stay.
    pub(super) keep: usize,
    /// Project and environment, as tags have them.
    pub(super) project: String,
    pub(super) environment: String,
    /// The place of the records of this environment's deployments, as tags have it.
    pub(super) records: Option<String>,
    /// `CI_PROJECT_ID`.
    pub(super) project_number: Option<String>,
    /// Endpoints of the environment are deleted with a confirmation alone.
    pub(super) is_protected: bool,
    /// The folder of the environment in the bucket is the project's own.
    pub(super) has_prefix: bool,
}

impl PruneRules {
    /// Why something with this last use is too young; `None` when it is old enough.
    fn too_young(&self, used: Option<SystemTime>) -> Option<ThingReason> {
        let Some(used) = used else { return Some(ThingReason::AgeUnknown) };
        let age = self.now.duration_since(used).unwrap_or_default();
        (age < self.retention || used > self.now).then_some(ThingReason::Young)
    }

    /// Tells whether tags name the project and the environment; those of things that nobody tagged do not.
    fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        let has = |tag: &str, value: &String| tags.get(tag) == Some(value);
        has(PROJECT, &self.project) && has(ENVIRONMENT, &self.environment)
    }

    /// The endpoint with these tags is the project's own.
    pub(super) fn owns_endpoint(&self, name: &str, tags: &BTreeMap<String, String>) -> bool {
        self.owns(tags) && tags.get(ENDPOINT).is_some_and(|endpoint| endpoint == name)
    }

    /// The model or configuration with these tags is the project's own, and its name is that of its endpoint.
    pub(super) fn owns_named(&self, name: &str, tags: &BTreeMap<String, String>) -> bool {
        let stems = [stem_of_config(name), stem_of_model(name)];
        self.owns(tags) && tags.get(ENDPOINT).is_some_and(|endpoint| stems.contains(&Some(stem(endpoint))))
    }

    /// The deployments of something with these tags are recorded at another place than that which is read.
    pub(super) fn is_recorded_elsewhere(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(RECORDS).is_some_and(|records| Some(records) != self.records.as_ref())
    }

    /// The training job with these tags is one of the project's.
    pub(super) fn owns_job(&self, name: &str, tags: &BTreeMap<String, String>) -> bool {
        let has = |tag: &str, value: Option<&str>| value.is_some() && tags.get(tag).map(String::as_str) == value;
        let session = tags.get(JOB_SESSION).is_some_and(|session| name.starts_with(session.as_str()));
        session && has(JOB_PROJECT, self.project_number.as_deref()) && has(JOB_PATH, Some(&self.project))
    }
}

pub(super) fn endpoint(rules: &PruneRules, summary: &ServingSummary) -> ThingVerdict {
    let state = summary.state.unwrap_or(EndpointState::Unknown);
    if !matches!(state, EndpointState::Failed | EndpointState::OutOfService) {
        return ThingVerdict::Stays(ThingReason::InService(state.name()));
    }
    if rules.is_protected {
        return ThingVerdict::Stays(ThingReason::ProtectedEnvironment);
    }
    match rules.too_young(summary.modified.max(summary.created)) {
        Some(reason) => ThingVerdict::Stays(reason),
        None => ThingVerdict::Goes(ThingReason::OutOfService(state.name())),
    }
}

/// An alarm, when the endpoints that exist are these.
pub(super) fn alarm(
    rules: &PruneRules,
    references: &References,
    endpoints: &BTreeSet<String>,
    alarm: &AlarmSight,
) -> ThingVerdict {
    let endpoint = alarm.definition.as_ref().map(|definition| definition.endpoint.clone()).unwrap_or_default();
    if endpoint.is_empty() || !own_alarms(&endpoint).contains(&alarm.name) {
        return ThingVerdict::Foreign;
    }
    if endpoints.contains(&endpoint) {
        return ThingVerdict::Stays(ThingReason::Used(ThingUser::Endpoint(endpoint)));
    }
    let blind = references.blind(&[PruneSource::Endpoints]);
    judged(rules, None, blind, alarm.changed, ThingReason::EndpointGone(endpoint))
}

pub(super) fn configuration(rules: &PruneRules, references: &References, summary: &ServingSummary) -> ThingVerdict {
    if stem_of_config(&summary.name).is_none() {
        return ThingVerdict::Foreign;
    }
    let blind = references.blind(&[PruneSource::Endpoints, PruneSource::Ledger]);
    judged(rules, references.configs.get(&summary.name), blind, summary.created, ThingReason::Unused)
}

pub(super) fn model(rules: &PruneRules, references: &References, summary: &ServingSummary) -> ThingVerdict {
    if stem_of_model(&summary.name).is_none() {
        return ThingVerdict::Foreign;
    }
    // A configuration that stays, because it could not be deleted, needs its model.
    let blind = references.blind(&[
        PruneSource::Endpoints,
        PruneSource::EndpointModels,
        PruneSource::Ledger,
        PruneSource::Configurations,
    ]);
    let user = references.models.get(&summary.name);
    let user = user.or_else(|| references.stems.get(stem_of_model(&summary.name)?));
    judged(rules, user, blind, summary.created, ThingReason::Unused)
}

/// Tells whether this program made the version, for any project.
pub(super) fn has_mark(version: &VersionSummary) -> bool {
    version.description.contains(CONTENT_MARK)
}

/// A version of the list. `newest` are the numbers of the newest ones.
pub(super) fn listed_version(
    rules: &PruneRules,
    references: &References,
    newest: &BTreeSet<u32>,
    version: &VersionSummary,
) -> ThingVerdict {
    if !has_mark(version) {
        return ThingVerdict::Foreign;
    }
    if newest.contains(&version.number) {
        return ThingVerdict::Stays(ThingReason::Newest(rules.keep));
    }
    match (&version.state, version.approval) {
        (_, Approval::Approved) => return ThingVerdict::Stays(ThingReason::Approved),
        (RegistrationState::UnderWay, _) => return ThingVerdict::Stays(ThingReason::NotReady("under way")),
        (RegistrationState::Deleting, _) => return ThingVerdict::Stays(ThingReason::NotReady("being deleted")),
        (RegistrationState::Completed | RegistrationState::Failed(_), Approval::Pending | Approval::Rejected) => {}
    }
    let blind = references.blind(&[
        PruneSource::Endpoints,
        PruneSource::EndpointModels,
        PruneSource::Ledger,
        PruneSource::Models,
        PruneSource::Releases,
    ]);
    judged(rules, references.versions.get(&version.arn), blind, version.created, ThingReason::Unused)
}

/// As [`listed_version`], of the version as it is right before its deletion. `project` is that of the version's metadata.
pub(super) fn version(
    rules: &PruneRules,
    references: &References,
    newest: &BTreeSet<u32>,
    version: &ModelVersion,
) -> ThingVerdict {
    if version.metadata.get("project") != Some(&rules.project) {
        return ThingVerdict::Foreign;
    }
    let summary = VersionSummary {
        arn: version.arn.clone(),
        number: version.number,
        description: version.description.clone(),
        state: version.state.clone(),
        approval: version.approval,
        created: version.created,
    };
    listed_version(rules, references, newest, &summary)
}

/// The number of a version of the project itself that may be used.
pub(super) fn own_number(rules: &PruneRules, version: &ModelVersion) -> Option<u32> {
    let is_own = version.metadata.get("project") == Some(&rules.project);
    (is_own && !matches!(version.state, RegistrationState::Failed(_))).then_some(version.number)
}

/// Numbers of the newest versions, without those that SageMaker failed.
pub(super) fn newest_versions(rules: &PruneRules, versions: &[VersionSummary]) -> BTreeSet<u32> {
    let usable = versions.iter().filter(|version| !matches!(version.state, RegistrationState::Failed(_)));
    let mut numbers: Vec<_> = usable.map(|version| version.number).collect();
    numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
    numbers.into_iter().take(rules.keep).collect()
}

/// Tells whether `image build` made the image. It makes no index.
pub(super) fn is_built(image: &RepositoryImage) -> bool {
    !image.is_index && image.tags.iter().any(|tag| is_context(tag))
}

fn is_context(tag: &str) -> bool {
    tag.strip_prefix(CONTEXT_TAG).is_some_and(|hash| hash.len() == CONTEXT_DIGITS && is_hex(hash))
}

/// Tells whether a tag only says which build or commit made the image: `SHA`, `build-SHA` or `build-NUMBER-SHA`. Digits alone may be a date.
fn is_of_build(tag: &str) -> bool {
    let is_commit = |text: &str| {
        COMMIT_DIGITS.contains(&text.len()) && is_hex(text) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = tag.strip_prefix(BUILD_TAG) else { return is_commit(tag) };
    is_commit(rest) || rest.split_once('-').is_some_and(|(number, commit)| is_number(number) && is_commit(commit))
}

/// Digests of the newest images that `image build` made.
pub(super) fn newest_images(rules: &PruneRules, images: &[RepositoryImage]) -> BTreeSet<String> {
    let mut built: Vec<_> = images.iter().filter(|image| is_built(image)).collect();
    built.sort_by_key(|image| std::cmp::Reverse(image.used));
    built.into_iter().take(rules.keep).map(|image| image.digest.clone()).collect()
}

pub(super) fn image(
    rules: &PruneRules,
    references: &References,
    newest: &BTreeSet<String>,
    image: &RepositoryImage,
) -> ThingVerdict {
    if !is_built(image) {
        return ThingVerdict::Foreign;
    }
    if newest.contains(&image.digest) {
        return ThingVerdict::Stays(ThingReason::Newest(rules.keep));
    }
    if let Some(tag) = image.tags.iter().find(|tag| !is_context(tag) && !is_of_build(tag)) {
        return ThingVerdict::Stays(ThingReason::Tagged(tag.clone()));
    }
    let sources = [
        PruneSource::Endpoints,
        PruneSource::EndpointModels,
        PruneSource::Ledger,
        PruneSource::Models,
        PruneSource::Configurations,
        PruneSource::Versions,
        PruneSource::Releases,
        PruneSource::Images,
        PruneSource::Jobs,
        PruneSource::Manifest,
    ];
    let user = references.images.get(&image.digest);
    let user = user.or_else(|| image.tags.iter().find_map(|tag| references.tags.get(tag)));
    judged(rules, user, references.blind(&sources), image.used, ThingReason::Unused)
}

pub(super) fn generic_package(rules: &PruneRules, references: &References, package: &GenericPackage) -> ThingVerdict {
    if !is_candidate(&package.version) {
        return ThingVerdict::Foreign;
    }
    let user = references.released(&package.version).or_else(|| references.numbered(package.id));
    let blind = references.blind(&[PruneSource::Releases]);
    match judged(rules, user.as_ref(), blind, package.created, ThingReason::Candidate) {
        ThingVerdict::Goes(_) if references.has_numbered_links => ThingVerdict::Stays(ThingReason::UnnamedLink),
        verdict => verdict,
    }
}

/// An object below [`CANDIDATES`] or [`PACKAGES`].
pub(super) fn object(rules: &PruneRules, references: &References, object: &Listed) -> ThingVerdict {
    let place = object.key.strip_prefix(PACKAGES).and_then(|rest| rest.split_once('/'));
    let package = place.filter(|(_, name)| name.strip_suffix(".zip").is_some_and(is_candidate));
    let expiring = object.key.strip_prefix(CANDIDATES);
    if package.is_none() && expiring.is_none() {
        return ThingVerdict::Foreign;
    }
    // Another environment's prefix may be a folder below.
    let is_nested = expiring.is_some_and(|key| key.split('/').any(|part| FOLDERS.contains(&part)));
    if !rules.has_prefix || is_nested {
        return ThingVerdict::Stays(ThingReason::SharedBucket);
    }
    let Some((sha256, name)) = package else {
        return judged(rules, None, None, object.modified, ThingReason::Candidate);
    };
    let blind = references.blind(&[
        PruneSource::Endpoints,
        PruneSource::EndpointModels,
        PruneSource::Ledger,
        PruneSource::Models,
        PruneSource::Versions,
        PruneSource::Releases,
    ]);
    let released = references.released(name.trim_end_matches(".zip"));
    let user = references.packages.get(sha256).or(released.as_ref());
    judged(rules, user, blind, object.modified, ThingReason::Candidate)
}

pub(super) fn job(rules: &PruneRules, references: &References, job: &EndedJob) -> ThingVerdict {
    if job.has_pool {
        return ThingVerdict::Stays(ThingReason::WarmPool);
    }
    let blind = references.blind(&[PruneSource::Versions]);
    judged(rules, references.trained(&job.name).as_ref(), blind, job.ended, ThingReason::Ended)
}

/// The rules that all have in common: a user, what could not be read, and the age.
fn judged(
    rules: &PruneRules,
    user: Option<&ThingUser>,
    blind: Option<PruneSource>,
    touched: Option<SystemTime>,
    reason: ThingReason,
) -> ThingVerdict {
    if let Some(user) = user {
        return ThingVerdict::Stays(ThingReason::Used(user.clone()));
    }
    match (rules.too_young(touched), blind) {
        (Some(young), _) => ThingVerdict::Stays(young),
        (None, Some(source)) => ThingVerdict::Stays(ThingReason::ReferencesUnknown(source)),
        (None, None) => ThingVerdict::Goes(reason),
    }
}
