//! Words of a refusal: the value that a job asked for, the allowed values, and the rule.

use super::bounds::JobBounds;
use crate::base::failure::Failure;

/// Failure for a value that the job's rule does not allow. `key` is the rule's key in `allow`.
pub(super) fn asked(bounds: &JobBounds, variable: &str, value: &str, allowed: &str, key: &str) -> Failure {
    match &bounds.rule {
        Some(rule) => Failure::user(format!("`{variable}` asks for {value}; the rule `{rule}` allows {allowed}"))
            .hint(format!("change `{variable}`, or ask the operator to widen `allow.{key}` of the rule `{rule}`")),
        None => Failure::user(format!("`{variable}` asks for {value}; the runner allows {allowed}")).hint(format!(
            "change or remove `{variable}`, or ask the operator for one of `[[rules]]` with `allow.{key}`: the operator's file has none, \
             so jobs get the values of `[job]`"
        )),
    }
}

/// Entries of a list as a sentence shows them.
pub(super) fn listed(entries: &[String]) -> String {
    if entries.is_empty() {
        return "none".to_owned();
    }
    entries.iter().map(|entry| format!("`{entry}`")).collect::<Vec<_>>().join(", ")
}
