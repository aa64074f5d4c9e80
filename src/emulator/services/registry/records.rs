//! All records of the model registry, of every account and region.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::group::GroupRecord;
use super::package::PackageRecord;
use crate::caller::Caller;
use crate::package_names::{PackageName, RegistryName};
use crate::protocol::{ApiError, text};
use crate::shared::Shared;

/// The service, with its records in memory.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) shared: Arc<Shared>,
    records: Mutex<RegistryRecords>,
}

#[derive(Debug, Default)]
pub(super) struct RegistryRecords {
    pub(super) groups: BTreeMap<RegistryName, GroupRecord>,
    /// Packages without a group.
    pub(super) unversioned: BTreeMap<RegistryName, PackageRecord>,
    /// Requests with a client token, and the ARN that each got, by account, region, operation and token.
    tokens: BTreeMap<[String; 4], (Value, String)>,
}

impl Registry {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), records: Mutex::default() }
    }

    pub(super) fn records(&self) -> MutexGuard<'_, RegistryRecords> {
        self.records.lock()
    }
}

impl RegistryRecords {
    /// The group of a name. An ARN of another region finds none.
    pub(super) fn group(&mut self, name: &RegistryName, caller: &Caller) -> Result<&mut GroupRecord, ApiError> {
        let found = self.groups.get_mut(name).filter(|_| name.region == caller.region);
        found.ok_or_else(|| absent("ModelPackageGroup", &name.group_arn()))
    }

    /// The package of a name. An ARN of another region finds none.
    pub(super) fn package(&mut self, name: &PackageName, caller: &Caller) -> Result<&mut PackageRecord, ApiError> {
        let found = match name.version {
            Some(version) => self.groups.get_mut(&name.of).and_then(|group| group.versions.get_mut(&version)),
            None => self.unversioned.get_mut(&name.of),
        };
        found.filter(|_| name.of.region == caller.region).ok_or_else(|| absent("ModelPackage", &name.arn()))
    }

    /// Adds a new package; the group of a version exists.
    pub(super) fn insert(&mut self, package: PackageRecord) {
        let of = package.name.of.clone();
        match package.name.version {
            Some(version) => {
                if let Some(group) = self.groups.get_mut(&of) {
                    group.versions.insert(version, package);
                }
            }
            None => {
                self.unversioned.insert(of, package);
            }
        }
    }

    /// Removes a package, and the client tokens that made or changed it.
    pub(super) fn remove(&mut self, name: &PackageName) {
        match name.version {
            Some(version) => {
                if let Some(group) = self.groups.get_mut(&name.of) {
                    group.versions.remove(&version);
                }
            }
            None => {
                self.unversioned.remove(&name.of);
            }
        }
        let arn = name.arn();
        self.tokens.retain(|_, (_, of)| *of != arn);
    }

    /// The ARN that an equal request with the same client token got before. Another request with the token is a conflict.
    pub(super) fn repeated(
        &self,
        operation: &str,
        request: &Value,
        caller: &Caller,
    ) -> Result<Option<String>, ApiError> {
        let known = token(operation, request, caller).and_then(|token| self.tokens.get(&token));
        match known {
            Some((first, _)) if first != request => Err(ApiError::new(
                "ConflictException",
                "The client token was already used in a request with other parameters.",
            )),
            known => Ok(known.map(|(_, arn)| arn.clone())),
        }
    }

    /// Remembers a request by its client token.
    pub(super) fn remember(&mut self, operation: &str, request: &Value, caller: &Caller, arn: &str) {
        if let Some(token) = token(operation, request, caller) {
            self.tokens.insert(token, (request.clone(), arn.to_owned()));
        }
    }
}

fn token(operation: &str, request: &Value, caller: &Caller) -> Option<[String; 4]> {
    let token = text(request, "ClientToken")?;
    Some([&caller.account, &caller.region, operation, token].map(str::to_owned))
}

fn absent(kind: &str, arn: &str) -> ApiError {
    ApiError::validation(format!("{kind} {arn} does not exist."))
}

/// A caller as the registry stores it. Callers here are never users of a Studio domain.
pub(super) fn user_context(caller: &Caller) -> Value {
    json!({"IamIdentity": {"Arn": caller.arn(), "PrincipalId": caller.identity.user_id()}})
}
