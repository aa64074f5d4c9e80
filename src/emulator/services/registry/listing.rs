//! Filters, order and pages of a list, which groups and packages have in common.

use serde_json::Value;

use crate::paging;
use crate::protocol::{Answer, milliseconds, text};

/// An entry before the filters.
pub(super) struct RegistryEntry<'a> {
    pub(super) name: &'a str,
    pub(super) created_ms: u64,
    /// Order of creation within a millisecond.
    pub(super) number: u64,
    pub(super) summary: Value,
}

/// Answers with one page of the entries that the request asks for.
pub(super) fn page(request: &Value, member: &str, mut found: Vec<RegistryEntry>) -> Answer {
    let bound = |name: &str| milliseconds(request, name);
    found.retain(|one| {
        text(request, "NameContains").is_none_or(|part| one.name.contains(part))
            && bound("CreationTimeAfter").is_none_or(|bound| one.created_ms > bound)
            && bound("CreationTimeBefore").is_none_or(|bound| one.created_ms < bound)
    });
    match text(request, "SortBy") {
        Some("Name") => found.sort_by(|one, other| (one.name, one.number).cmp(&(other.name, other.number))),
        _ => found.sort_by_key(|one| (one.created_ms, one.number)),
    }
    if text(request, "SortOrder") == Some("Descending") {
        found.reverse();
    }
    paging::page(request, member, "packages", found.into_iter().map(|one| one.summary).collect())
}
