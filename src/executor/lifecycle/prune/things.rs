//! The things that `prune` judges: their kinds, and why each goes or stays. Pure.

use std::fmt;

use serde::Serialize;

use crate::base::plain;

/// Longest name that is shown, in bytes: that of an object.
const LONGEST: usize = 1100;
/// Digits of the hash in names of models and configurations.
const DIGITS: usize = 12;

/// Kinds, in the order of their deletion: what refers to another thing goes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ThingKind {
    Endpoint,
    Alarm,
    Configuration,
    Model,
    Version,
    Image,
    GenericPackage,
    Object,
    TrainingJob,
}

impl ThingKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Alarm => "alarm",
            Self::Configuration => "configuration",
            Self::Model => "model",
            Self::Version => "version",
            Self::Image => "image",
            Self::GenericPackage => "generic package",
            Self::Object => "object",
            Self::TrainingJob => "training job",
        }
    }
}

/// A list or a record that was to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PruneSource {
    Endpoints,
    Ledger,
    Alarms,
    Configurations,
    Models,
    Versions,
    Releases,
    Images,
    Packages,
    Objects,
    Jobs,
    /// Entries of other environments.
    Manifest,
    /// Models, or images, of endpoints whose configuration or model was deleted.
    EndpointModels,
}

impl PruneSource {
    /// As the object of a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "the endpoints of the account",
            Self::Ledger => "the records of deployments",
            Self::Alarms => "the alarms",
            Self::Configurations => "the endpoint configurations",
            Self::Models => "the models",
            Self::Versions => "the versions of the group",
            Self::Releases => "the releases of the project",
            Self::Images => "the images of the repository",
            Self::Packages => "the generic packages of the project",
            Self::Objects => "the objects of the bucket",
            Self::Jobs => "the training jobs",
            Self::Manifest => "the model's image or group in an entry of the manifest",
            Self::EndpointModels => "what an endpoint serves whose configuration or model was deleted",
        }
    }
}

/// The user of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ThingUser {
    Endpoint(String),
    /// One that is kept, by its number in the endpoint's ledger.
    Deployment {
        endpoint: String,
        number: u64,
    },
    /// A rollback of this endpoint would bring it back.
    Rollback(String),
    /// One that stays.
    Configuration(String),
    Model(String),
    Version(String),
    Release(String),
    Manifest,
    /// A training job that runs uses the image.
    RunningJob,
    /// Of images.
    Index,
}

/// A sentence without its object: `the endpoint wine uses`.
impl fmt::Display for ThingUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "the endpoint {} uses it", shown(name)),
            Self::Deployment { endpoint, number } => {
                write!(f, "deployment {number} of {}, which is kept, names it", shown(endpoint))
            }
            Self::Rollback(endpoint) => write!(f, "a rollback of {} would bring it back", shown(endpoint)),
            Self::Configuration(name) => write!(f, "the configuration {} has it", shown(name)),
            Self::Model(name) => write!(f, "the model {} is made of it", shown(name)),
            Self::Version(arn) => write!(f, "the version {} has it", shown(arn)),
            Self::Release(tag) => write!(f, "the release {} names it", shown(tag)),
            Self::Manifest => f.write_str("the manifest names it"),
            Self::RunningJob => f.write_str("a training job uses it now"),
            Self::Index => f.write_str("an index of the repository has it"),
        }
    }
}

/// Why a thing goes or stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ThingReason {
    /// Of an endpoint that does not serve, with AWS's word for its state.
    OutOfService(&'static str),
    EndpointGone(String),
    Unused,
    Candidate,
    Ended,
    InService(&'static str),
    /// Younger than the retention, or touched since.
    Young,
    /// Nobody tells its age.
    AgeUnknown,
    Used(ThingUser),
    /// Among the newest, of which so many stay.
    Newest(usize),
    Approved,
    /// With SageMaker's state.
    NotReady(&'static str),
    /// The environment's tier has its endpoints deleted by hand alone.
    ProtectedEnvironment,
    WarmPool,
    /// An image with a tag that somebody may use.
    Tagged(String),
    /// The folder is not the project's own: the environment has no prefix.
    SharedBucket,
    /// The policy of its repository lets other accounts in.
    SharedRepository,
    /// A release links to a file of some package by its number.
    UnnamedLink,
    /// The endpoint exists, and its record is not in this environment's folder of the bucket.
    NoRecord(String),
    /// A source that may refer to it could not be read.
    ReferencesUnknown(PruneSource),
}

impl ThingReason {
    /// A word for programs.
    pub(super) fn rule(&self) -> &'static str {
        match self {
            Self::OutOfService(_) => "out_of_service",
            Self::EndpointGone(_) => "endpoint_gone",
            Self::Unused => "unused",
            Self::Candidate => "candidate",
            Self::Ended => "ended",
            Self::InService(_) => "in_service",
            Self::Young => "young",
            Self::AgeUnknown => "age_unknown",
            Self::Used(ThingUser::Endpoint(_)) => "used_by_endpoint",
            Self::Used(ThingUser::Deployment { .. } | ThingUser::Rollback(_)) => "kept_deployment",
            Self::Used(ThingUser::Release(_)) => "released",
            Self::Used(
                ThingUser::Configuration(_)
                | ThingUser::Model(_)
                | ThingUser::Version(_)
                | ThingUser::Manifest
                | ThingUser::RunningJob
                | ThingUser::Index,
            ) => "referred_to",
            Self::Newest(_) => "newest",
            Self::Approved => "approved",
            Self::NotReady(_) => "not_ready",
            Self::ProtectedEnvironment => "protected_environment",
            Self::WarmPool => "warm_pool",
            Self::Tagged(_) => "tagged",
            Self::SharedBucket => "shared_bucket",
            Self::SharedRepository => "shared_repository",
            Self::UnnamedLink | Self::NoRecord(_) | Self::ReferencesUnknown(_) => "references_unknown",
        }
    }

    /// A sentence for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::OutOfService(state) => format!("it is {state}, and nobody touched it for the retention"),
            Self::EndpointGone(endpoint) => format!("the endpoint {} does not exist", shown(endpoint)),
            Self::Unused => "nothing refers to it".to_owned(),
            Self::Candidate => "a candidate, to which nothing refers".to_owned(),
            Self::Ended => "it ended before the retention".to_owned(),
            Self::InService(state) => format!("it is {state}; `endpoint delete` ends an endpoint"),
            Self::Young => "younger than the retention".to_owned(),
            Self::AgeUnknown => "its age is not known".to_owned(),
            Self::Used(user) => user.to_string(),
            Self::Newest(keep) => format!("among the newest {keep}"),
            Self::Approved => "it is approved".to_owned(),
            Self::NotReady(state) => format!("its registration is {state}"),
            Self::ProtectedEnvironment => {
                "the environment takes approved versions alone: `endpoint delete --confirm NAME` ends its endpoints"
                    .to_owned()
            }
            Self::WarmPool => "its instances wait for another job".to_owned(),
            Self::Tagged(tag) => format!("it has the tag {}, which somebody may use", shown(tag)),
            Self::SharedBucket => {
                "it may be of another project: set `environments.<name>.prefix`, a folder of the project's own"
                    .to_owned()
            }
            Self::SharedRepository => {
                "the policy of the repository lets other accounts in, and nobody here sees what they use".to_owned()
            }
            Self::UnnamedLink => {
                "a release links to a file by its number (`/package_files/`), which may be in this package".to_owned()
            }
            Self::NoRecord(endpoint) => format!(
                "the record of the deployments of {} is not below this environment's `prefix`: a rollback may need it",
                shown(endpoint)
            ),
            Self::ReferencesUnknown(source) => format!("{} could not be read", source.name()),
        }
    }
}

/// The fate of a thing of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ThingVerdict {
    Goes(ThingReason),
    Stays(ThingReason),
    /// It is another's, or nobody's that this program knows: it is not told.
    Foreign,
}

/// The end of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ThingFate {
    Deleted,
    WouldBeDeleted,
    Stays,
    /// It was to be deleted, and is not.
    Failed,
}

/// A thing with its end, as the command tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct JudgedThing {
    pub(super) kind: ThingKind,
    pub(super) name: String,
    pub(super) fate: ThingFate,
    pub(super) rule: &'static str,
    pub(super) reason: String,
    /// Why it could not be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl JudgedThing {
    pub(super) fn new(kind: ThingKind, name: &str, fate: ThingFate, reason: &ThingReason) -> Self {
        Self { kind, name: shown(name), fate, rule: reason.rule(), reason: reason.text(), error: None }
    }
}

fn shown(name: &str) -> String {
    plain::line(name, LONGEST)
}

/// The part of a configuration's name before its hash; `None` for a name that this program does not make.
pub(super) fn stem_of_config(name: &str) -> Option<&str> {
    let (stem, digits) = name.rsplit_once('-')?;
    let is_hash = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && !stem.is_empty()).then_some(stem)
}

/// As [`stem_of_config`], of a model.
pub(super) fn stem_of_model(name: &str) -> Option<&str> {
    stem_of_config(name)?.strip_suffix("-m").filter(|stem| !stem.is_empty())
}

/// The model's name that belongs to a configuration's.
pub(super) fn model_of_config(name: &str) -> Option<String> {
    let stem = stem_of_config(name)?;
    Some(format!("{stem}-m{}", name.strip_prefix(stem)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_program_are_known() {
        assert_eq!(stem_of_config("wine-0123456789ab"), Some("wine"));
        assert_eq!(stem_of_model("wine-m-0123456789ab"), Some("wine"));
        assert_eq!(model_of_config("wine-0123456789ab").as_deref(), Some("wine-m-0123456789ab"));
        for other in ["wine-0123456789a", "wine-0123456789zz", "-0123456789ab", "0123456789ab", "wine-5xx"] {
            assert_eq!(stem_of_config(other), None, "{other}");
        }
        for other in ["wine-0123456789ab", "-m-0123456789ab", "m-0123456789ab"] {
            assert_eq!(stem_of_model(other), None, "{other}");
        }
    }

    #[test]
    fn a_hostile_name_is_one_plain_line() {
        let thing =
            JudgedThing::new(ThingKind::Object, "candidate/a\n\u{1b}[31m", ThingFate::Stays, &ThingReason::Young);
        assert!(!thing.name.contains(['\n', '\u{1b}']), "{}", thing.name);
        let reason = ThingReason::Used(ThingUser::Release("v1\nsection_start:1:x".to_owned())).text();
        assert!(!reason.contains('\n') && !reason.contains("section_start:"), "{reason}");
    }
}
