//! Versions and models that were listed, so that later looks find the newer ones. Pure.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::cloud::{ServingSummary, VersionSummary};

/// Notes the versions and models that were listed already. Times are those of AWS's clock.
#[derive(Debug, Default)]
pub(super) struct LateUsers {
    /// ARNs of versions that are known.
    pub(super) versions: BTreeSet<String>,
    /// The time of the newest version of the account; `None` before its versions were listed.
    pub(super) newest_version: Option<SystemTime>,
    /// Names of models that exist.
    pub(super) models: BTreeSet<String>,
    /// The time of the newest model; `None` before the models were listed.
    pub(super) newest_model: Option<SystemTime>,
}

impl LateUsers {
    /// Versions of one group.
    pub(super) fn saw_versions<'v>(&mut self, listed: impl IntoIterator<Item = &'v VersionSummary>) {
        self.versions.extend(listed.into_iter().map(|one| one.arn.clone()));
    }

    /// All versions of the account that are newer than those of the last list.
    pub(super) fn saw_account(&mut self, listed: &[VersionSummary]) {
        let newest = listed.iter().filter_map(|one| one.created).max();
        self.newest_version = newest.max(self.newest_version).or(Some(SystemTime::UNIX_EPOCH));
    }

    pub(super) fn saw_models(&mut self, listed: &[ServingSummary]) {
        self.models.extend(listed.iter().map(|one| one.name.clone()));
        let newest = listed.iter().filter_map(|one| one.created).max();
        self.newest_model = newest.max(self.newest_model).or(Some(SystemTime::UNIX_EPOCH));
    }

    /// A model that is gone may be made again.
    pub(super) fn lost_model(&mut self, name: &str) {
        self.models.remove(name);
    }
}
