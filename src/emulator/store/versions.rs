//! Versions of objects: their settings, their history, and one page of their listing. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::object::{Object, Stored};

/// The id of the version that a bucket without versions, or with suspended ones, writes.
pub(crate) const NULL_VERSION: &str = "null";

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Versioning {
    /// It never had any.
    #[default]
    Off,
    Enabled,
    Suspended,
}

/// The settings of a bucket, as its owner put them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BucketSettings {
    pub(crate) versioning: Versioning,
    /// The lifecycle configuration; nothing expires by it.
    pub(crate) lifecycle: Option<serde_json::Value>,
    /// The region that the bucket was created in; without one it is in every region.
    pub(crate) location: Option<String>,
    /// The policy as it was sent.
    pub(crate) policy: Option<String>,
    /// The default encryption; keys of S3 without one.
    pub(crate) encryption: Option<serde_json::Value>,
    /// The four switches against public access; all are on without it.
    pub(crate) public_access: Option<serde_json::Value>,
}

/// A version of an object, or a delete marker.
#[derive(Debug, Clone)]
pub(crate) struct ObjectVersion {
    /// `None` is the version `null`.
    pub(super) id: Option<String>,
    pub(crate) modified_ms: u64,
    /// `None` for a delete marker.
    pub(crate) stored: Option<Arc<Stored>>,
}

/// Versions of a key from the oldest on, without the current object.
pub(super) type History = Vec<ObjectVersion>;

impl ObjectVersion {
    pub(super) fn of(stored: Arc<Stored>) -> Self {
        Self { id: stored.object.version.clone(), modified_ms: stored.object.modified_ms, stored: Some(stored) }
    }

    /// As clients see it.
    pub(crate) fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| NULL_VERSION.to_owned())
    }
}

/// The id of an object's version, as clients see it.
pub(crate) fn version_id(object: &Object) -> &str {
    object.version.as_deref().unwrap_or(NULL_VERSION)
}

/// A version in a listing.
#[derive(Debug)]
pub(crate) struct ListedVersion {
    pub(crate) key: String,
    pub(crate) version: ObjectVersion,
    pub(crate) is_latest: bool,
}

/// Where a listing of versions begins and what it takes.
#[derive(Debug, Default)]
pub(crate) struct VersionQuery {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    /// The listing begins behind this key, or behind the version of it.
    pub(crate) key_marker: Option<String>,
    pub(crate) version_marker: Option<String>,
    pub(crate) limit: usize,
}

/// One page of a listing of versions.
#[derive(Debug, Default)]
pub(crate) struct VersionPage {
    pub(crate) versions: Vec<ListedVersion>,
    pub(crate) prefixes: Vec<String>,
    /// Key and version that the next page begins behind.
    pub(crate) next: Option<(String, Option<String>)>,
}

impl VersionPage {
    /// Keys in order, versions of a key from the newest on.
    pub(super) fn of(
        objects: &BTreeMap<String, Arc<Stored>>,
        histories: &BTreeMap<String, History>,
        query: &VersionQuery,
    ) -> Self {
        let mut page = Self::default();
        let mut last = None;
        let keys: BTreeSet<&String> = objects.keys().chain(histories.keys()).collect();
        let marker = query.key_marker.as_deref().unwrap_or_default();
        for key in keys.into_iter().filter(|key| key.starts_with(&query.prefix) && key.as_str() >= marker) {
            let rest = key.get(query.prefix.len()..).unwrap_or_default();
            let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
            if let Some((name, delimiter)) = delimiter.and_then(|one| Some((rest.split_once(one)?.0, one))) {
                let prefix = format!("{}{name}{delimiter}", query.prefix);
                if page.prefixes.last() == Some(&prefix) || marker.starts_with(&prefix) {
                    continue;
                }
                if page.versions.len() + page.prefixes.len() == query.limit {
                    page.next = last;
                    return page;
                }
                last = Some((prefix.clone(), None));
                page.prefixes.push(prefix);
                continue;
            }
            let mut versions: Vec<_> = histories.get(key).cloned().unwrap_or_default();
            versions.extend(objects.get(key).cloned().map(ObjectVersion::of));
            versions.reverse();
            let listed = versions.into_iter().enumerate();
            let mut listed: Vec<_> =
                listed.map(|(nth, version)| ListedVersion { key: key.clone(), version, is_latest: nth == 0 }).collect();
            if key == marker {
                let behind =
                    query.version_marker.as_ref().and_then(|id| listed.iter().position(|one| one.version.id() == *id));
                listed = behind.map(|at| listed.split_off(at + 1)).unwrap_or_default();
            }
            for one in listed {
                if page.versions.len() + page.prefixes.len() == query.limit {
                    page.next = last;
                    return page;
                }
                last = Some((one.key.clone(), Some(one.version.id())));
                page.versions.push(one);
            }
        }
        page
    }
}
