//! Secrets by ARN, with their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::clock;
use crate::iam::Document;
use crate::protocol::{ApiError, epoch_seconds, text};
use crate::secret_names::secret_arn;
use crate::shared::Shared;

/// The label of the version that is read by default, and of the one before it.
pub(super) const CURRENT: &str = "AWSCURRENT";
pub(super) const PREVIOUS: &str = "AWSPREVIOUS";

/// All secrets of all accounts and regions.
#[derive(Debug)]
pub(crate) struct SecretVault {
    pub(super) shared: Arc<Shared>,
    secrets: Mutex<BTreeMap<String, Secret>>,
}

/// A secret.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) kms_key: Option<String>,
    /// By id.
    pub(super) versions: BTreeMap<String, Version>,
    pub(super) created_ms: u64,
    pub(super) changed_ms: u64,
    /// The time of its deletion, once that is asked for.
    pub(super) deleted_ms: Option<u64>,
    /// As it was sent, and as it is evaluated.
    pub(super) policy: Option<(String, Arc<Document>)>,
}

/// A value, and the labels that lead to it.
#[derive(Clone)]
pub(super) struct Version {
    /// The member of a request or an answer: `SecretString`, or `SecretBinary` in base64.
    pub(super) member: &'static str,
    pub(super) value: String,
    pub(super) labels: Vec<String>,
    pub(super) created_ms: u64,
}

/// Without the value.
impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("labels", &self.labels).finish_non_exhaustive()
    }
}

impl SecretVault {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), secrets: Mutex::default() }
    }

    /// All secrets; those whose time is over are gone.
    pub(super) fn secrets(&self) -> MutexGuard<'_, BTreeMap<String, Secret>> {
        let mut secrets = self.secrets.lock();
        let now = clock::now_ms();
        secrets.retain(|arn, secret| {
            let is_kept = secret.deleted_ms.is_none_or(|at| at > now);
            if !is_kept {
                self.shared.tags.remove(arn);
            }
            is_kept
        });
        secrets
    }

    /// Reads or changes the secret of a request.
    pub(super) fn with<T>(
        &self,
        request: &Value,
        caller: &Caller,
        act: impl FnOnce(&str, &mut Secret) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let arn = secret_arn(text(request, "SecretId").unwrap_or_default(), caller);
        act(&arn, self.secrets().get_mut(&arn).ok_or_else(not_found)?)
    }

    /// As [`Self::with`], of a secret that does not wait for its deletion.
    pub(super) fn with_usable<T>(
        &self,
        request: &Value,
        caller: &Caller,
        act: impl FnOnce(&str, &mut Secret) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.with(request, caller, |arn, secret| {
            if secret.deleted_ms.is_some() {
                return Err(invalid(
                    "You can't perform this operation on the secret because it was marked for deletion.",
                ));
            }
            act(arn, secret)
        })
    }
}

impl Secret {
    /// The version with a label.
    pub(super) fn labeled(&self, label: &str) -> Option<(&String, &Version)> {
        self.versions.iter().find(|(_, version)| version.labels.iter().any(|one| one == label))
    }

    /// Gives a label to a version, and takes it from the one that has it. A version that loses `AWSCURRENT` gets `AWSPREVIOUS`.
    pub(super) fn label(&mut self, id: &str, label: &str) {
        let before = self.labeled(label).map(|(id, _)| id.clone());
        if before.as_deref() == Some(id) {
            return;
        }
        for version in self.versions.values_mut() {
            version.labels.retain(|one| one != label);
        }
        if let Some(version) = self.versions.get_mut(id) {
            version.labels.push(label.to_owned());
        }
        if let Some(before) = before.filter(|_| label == CURRENT) {
            self.label(&before, PREVIOUS);
        }
    }

    /// Adds a version with labels. The same token with the same value is the same version.
    pub(super) fn add(&mut self, id: String, version: Version, labels: &[String]) -> Result<String, ApiError> {
        match self.versions.get(&id) {
            Some(known) if known.value == version.value && known.member == version.member => return Ok(id),
            Some(_) => {
                let message = format!("You can't modify an existing version, you can only create a new version. {id}");
                return Err(ApiError::new("ResourceExistsException", message));
            }
            None => {}
        }
        self.versions.insert(id.clone(), version);
        for label in labels {
            self.label(&id, label);
        }
        self.changed_ms = clock::now_ms();
        Ok(id)
    }

    /// The labels of each version that has some.
    pub(super) fn stages(&self) -> Value {
        let labeled = self.versions.iter().filter(|(_, version)| !version.labels.is_empty());
        Value::Object(labeled.map(|(id, version)| (id.clone(), json!(version.labels))).collect())
    }
}

/// The value of a request; `None` when it has none.
pub(super) fn sent(request: &Value) -> Result<Option<Version>, ApiError> {
    let of = |member: &'static str| Some((member, text(request, member)?.to_owned()));
    let (member, value) = match (of("SecretString"), of("SecretBinary")) {
        (Some(_), Some(_)) => {
            let message = "You can't specify both a binary secret value and a string secret value in the same secret.";
            return Err(ApiError::new("InvalidParameterException", message));
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Ok(None),
    };
    Ok(Some(Version { member, value, labels: Vec::new(), created_ms: clock::now_ms() }))
}

/// Description of a secret, as `DescribeSecret` and `ListSecrets` give it.
pub(super) fn description(vault: &SecretVault, arn: &str, secret: &Secret, stages: &str) -> Value {
    let mut description = json!({
        "ARN": arn,
        "Name": secret.name,
        "CreatedDate": epoch_seconds(secret.created_ms),
        "LastChangedDate": epoch_seconds(secret.changed_ms),
        (stages): secret.stages(),
        "Tags": vault.shared.tags.with(arn, |one| crate::tags::tag_list(&one.tags)).unwrap_or_default(),
    });
    let more = [("Description", &secret.description), ("KmsKeyId", &secret.kms_key)];
    for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        description[name] = json!(value);
    }
    if let Some(at) = secret.deleted_ms {
        description["DeletedDate"] = epoch_seconds(at);
    }
    description
}

pub(super) fn not_found() -> ApiError {
    ApiError::new("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

pub(super) fn invalid(message: &str) -> ApiError {
    ApiError::new("InvalidRequestException", message)
}
