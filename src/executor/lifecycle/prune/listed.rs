//! Versions and models that were listed, so that later looks find the newer ones. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::cloud::{ServingSummary, VersionSummary};

/// Notes the versions and models that were listed already.
#[derive(Debug, Default)]
pub(super) struct LateUsers {
    /// The highest number of each group.
    pub(super) versions: BTreeMap<String, u32>,
    /// Names of models that exist.
    pub(super) models: BTreeSet<String>,
    /// The time of the newest model, by AWS's clock; `None` before the models were listed.
    pub(super) newest_model: Option<SystemTime>,
}

impl LateUsers {
    pub(super) fn saw_versions(&mut self, group: &str, listed: &[VersionSummary]) {
        let highest = listed.iter().map(|version| version.number).max().unwrap_or_default();
        let seen = self.versions.entry(group.to_owned()).or_default();
        *seen = highest.max(*seen);
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
