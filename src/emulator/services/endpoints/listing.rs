//! Filters, order and pages of lists.

use serde_json::{Value, json};

use super::entries::ServingEntries;
use super::names::{ServingKind, ServingName};
use crate::caller::Caller;
use crate::paging;
use crate::protocol::{Answer, epoch_seconds, milliseconds, text};

/// A resource before the filters.
pub(super) struct ServingEntry {
    pub(super) name: String,
    pub(super) created_ms: u64,
    pub(super) modified_ms: u64,
    /// Order of creation within a millisecond.
    pub(super) number: u64,
    pub(super) summary: Value,
}

impl ServingEntry {
    /// The models or the configurations of the caller's account and region.
    pub(super) fn of_entries(
        entries: &ServingEntries,
        kind: ServingKind,
        caller: &Caller,
        [name_of, arn_of]: [&str; 2],
    ) -> Vec<Self> {
        let own = entries.0.iter().filter(|(name, _)| name.kind == kind && is_of(name, caller));
        own.map(|(name, one)| Self {
            name: name.name.clone(),
            created_ms: one.created_ms,
            modified_ms: one.created_ms,
            number: one.number,
            summary: json!({name_of: name.name, arn_of: name.arn(), "CreationTime": epoch_seconds(one.created_ms)}),
        })
        .collect()
    }
}

/// Whether a resource is of the caller's account and region.
pub(super) fn is_of(name: &ServingName, caller: &Caller) -> bool {
    name.account == caller.account && name.region == caller.region
}

/// Answers with one page of what the request asks for; the newest come first, unless it says otherwise.
pub(super) fn page(request: &Value, member: &str, mut found: Vec<ServingEntry>) -> Answer {
    let is_within = |time: u64, after: &str, before: &str| {
        milliseconds(request, after).is_none_or(|bound| time > bound)
            && milliseconds(request, before).is_none_or(|bound| time < bound)
    };
    found.retain(|one| {
        text(request, "NameContains").is_none_or(|part| one.name.contains(part))
            && text(request, "StatusEquals").is_none_or(|status| one.summary["EndpointStatus"] == status)
            && is_within(one.created_ms, "CreationTimeAfter", "CreationTimeBefore")
            && is_within(one.modified_ms, "LastModifiedTimeAfter", "LastModifiedTimeBefore")
    });
    match text(request, "SortBy") {
        Some("Name") => found.sort_by(|one, other| one.name.cmp(&other.name)),
        Some("Status") => found.sort_by_key(|one| one.summary["EndpointStatus"].to_string()),
        _ => found.sort_by_key(|one| (one.created_ms, one.number)),
    }
    if text(request, "SortOrder") != Some("Ascending") {
        found.reverse();
    }
    paging::page(request, member, "serving", found.into_iter().map(|one| one.summary).collect())
}
