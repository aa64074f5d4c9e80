//! One rule of `CreateTrainingJob`.

use super::request::CreateRequest;

/// A documented rule.
pub(super) struct CreateRule {
    /// Names the rule's row in the test.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test alone"))]
    pub(super) name: &'static str,
    /// The document that states it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test alone"))]
    pub(super) source: &'static str,
    /// The error's text; `{}` stands for what breaks the rule.
    pub(super) message: &'static str,
    /// The part of the request that breaks the rule, if one does.
    pub(super) breach: fn(&CreateRequest<'_>) -> Option<String>,
}

/// Longest time for which instances stay, in seconds.
pub(super) const LONGEST_KEEP: u64 = 3600;
