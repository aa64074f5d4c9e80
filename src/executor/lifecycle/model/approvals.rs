//! Approvals and rejections, as they stand in a version's metadata. Pure.
//!
//! `approval-<user id>` holds a user's approval, so that two users never write the same entry; `rejection-<round>` holds a
//! rejection. A rejection ends a round: approvals of earlier rounds count no more. Rounds need no clock that is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::metadata::{MOST, field, value, word};
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::manifest::Approvals;

/// Entry with the user who registered the version.
pub(super) const AUTHOR: &str = "registered-by";
const APPROVAL: &str = "approval-";
const REJECTION: &str = "rejection-";

/// Longest name of a user in a record.
const LONGEST_LOGIN: usize = 60;

/// How many users must approve, and which ones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ApprovalRule {
    pub(super) min: u32,
    pub(super) no_self: bool,
}

impl ApprovalRule {
    /// The stricter of the manifest and the command line.
    pub(super) fn of(manifest: &Approvals, min: Option<u32>, no_self: bool) -> Self {
        Self { min: manifest.min.max(min.unwrap_or(1)).max(1), no_self: manifest.no_self || no_self }
    }
}

/// The metadata of one version.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApprovalRecords<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> ApprovalRecords<'a> {
    /// Number of the round, from 1.
    pub(super) fn round(self) -> u32 {
        let numbers = self.0.keys().filter_map(|key| key.strip_prefix(REJECTION)?.parse::<u32>().ok());
        numbers.max().unwrap_or(0).saturating_add(1)
    }

    /// Id of the user who registered the version.
    pub(super) fn author(self) -> Option<&'a str> {
        field(self.0.get(AUTHOR)?, "id")
    }

    /// Whether the user has approved in this round.
    pub(super) fn has_approved(self, user: &str) -> bool {
        self.approvers().contains_key(user)
    }

    /// Users who approved in this round, by id, with their names.
    fn approvers(self) -> BTreeMap<&'a str, &'a str> {
        let round = self.round().to_string();
        let of_round = |(key, value): (&'a String, &'a String)| {
            let id = key.strip_prefix(APPROVAL).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()))?;
            (field(value, "round") == Some(&round)).then(|| (id, field(value, "user").unwrap_or_default()))
        };
        self.0.iter().filter_map(of_round).collect()
    }

    /// Names of the users whose approval counts.
    pub(super) fn counted(self, rule: ApprovalRule) -> BTreeSet<&'a str> {
        let excluded = self.author().filter(|_| rule.no_self);
        self.approvers().into_iter().filter(|(id, _)| Some(*id) != excluded).map(|(_, name)| name).collect()
    }

    /// Approvals that are missing.
    pub(super) fn missing(self, rule: ApprovalRule) -> u32 {
        let excluded = self.author().filter(|_| rule.no_self);
        let counted = self.approvers().keys().filter(|id| Some(**id) != excluded).count();
        rule.min.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// Whether one more entry fits.
    pub(super) fn is_full(self) -> bool {
        self.0.len() >= MOST
    }

    /// The entry of this user's approval.
    pub(super) fn approval(self, user: &JobUser, at: SystemTime, reason: Option<&str>) -> (String, String) {
        (format!("{APPROVAL}{}", user.id), record(&format!("round={} ", self.round()), user, at, reason))
    }

    /// The entry of this user's rejection, which ends the round.
    pub(super) fn rejection(self, user: &JobUser, at: SystemTime, reason: &str) -> (String, String) {
        (format!("{REJECTION}{}", self.round()), record(&format!("id={} ", user.id), user, at, Some(reason)))
    }
}

/// The reason comes last: it may hold spaces, and be cut.
fn record(begin: &str, user: &JobUser, at: SystemTime, reason: Option<&str>) -> String {
    let (login, at) = (word(&user.login, LONGEST_LOGIN), humantime::format_rfc3339_seconds(at));
    let reason = reason.map(|reason| format!(" reason={reason}")).unwrap_or_default();
    value(&format!("{begin}user={login} pipeline={} job={} at={at}{reason}", user.pipeline, user.job))
}

/// The entry of the user who registers a version.
pub(super) fn author(user: &JobUser) -> String {
    value(&format!(
        "id={} user={} pipeline={} job={}",
        user.id,
        word(&user.login, LONGEST_LOGIN),
        user.pipeline,
        user.job
    ))
}

/// What AWS shows beside the status: one line.
pub(super) fn description(verb: &str, user: &JobUser, reason: Option<&str>) -> String {
    let JobUser { id, login, project, pipeline, job } = user;
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let text = format!("{verb} by {login} (user {id}) in job {job} of pipeline {pipeline} of {project}{reason}");
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    line.chars().take(1024).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(id: &str) -> JobUser {
        let text = |text: &str| text.to_owned();
        JobUser { id: text(id), login: format!("user{id}"), project: text("g/p"), pipeline: text("7"), job: text("8") }
    }

    fn approve(metadata: &mut BTreeMap<String, String>, id: &str) {
        let (key, value) = ApprovalRecords(metadata).approval(&user(id), SystemTime::UNIX_EPOCH, Some("fine"));
        metadata.insert(key, value);
    }

    const TWO: ApprovalRule = ApprovalRule { min: 2, no_self: true };

    #[test]
    fn users_count_once_and_the_author_not_at_all() {
        let mut metadata = BTreeMap::from([(AUTHOR.to_owned(), author(&user("1")))]);
        for (id, missing) in [("1", 2), ("2", 1), ("2", 1), ("3", 0)] {
            approve(&mut metadata, id);
            assert_eq!(ApprovalRecords(&metadata).missing(TWO), missing, "{metadata:?}");
        }
        assert_eq!(ApprovalRecords(&metadata).missing(ApprovalRule { min: 3, no_self: false }), 0);
    }

    #[test]
    fn a_rejection_ends_the_round() {
        let mut metadata = BTreeMap::new();
        approve(&mut metadata, "2");
        let (key, value) = ApprovalRecords(&metadata).rejection(&user("4"), SystemTime::UNIX_EPOCH, "bad on new data");
        assert_eq!(
            (key.as_str(), value.as_str()),
            ("rejection-1", "id=4 user=user4 pipeline=7 job=8 at=1970-01-01T00:00:00Z reason=bad on new data")
        );
        metadata.insert(key, value);
        assert_eq!((ApprovalRecords(&metadata).round(), ApprovalRecords(&metadata).missing(TWO)), (2, 2));
        approve(&mut metadata, "2");
        assert_eq!(ApprovalRecords(&metadata).missing(TWO), 1);
    }

    #[test]
    fn the_stricter_rule_holds() {
        let manifest = Approvals { min: 2, no_self: false };
        assert_eq!(ApprovalRule::of(&manifest, Some(1), false), ApprovalRule { min: 2, no_self: false });
        assert_eq!(ApprovalRule::of(&manifest, Some(3), true), ApprovalRule { min: 3, no_self: true });
        assert_eq!(
            ApprovalRule::of(&Approvals { min: 0, no_self: true }, Some(0), false),
            ApprovalRule { min: 1, no_self: true }
        );
    }

    proptest! {
        /// No text that a user chooses changes what is counted.
        #[test]
        fn names_and_reasons_forge_nothing(login in any::<String>(), reason in any::<String>()) {
            let mut metadata = BTreeMap::new();
            let forger = JobUser { login, ..user("5") };
            let (key, value) = ApprovalRecords(&metadata).approval(&forger, SystemTime::UNIX_EPOCH, Some(&reason));
            prop_assert_eq!(field(&value, "round"), Some("1"));
            prop_assert!(value.chars().count() <= super::super::metadata::LONGEST);
            metadata.insert(key, value);
            prop_assert_eq!(ApprovalRecords(&metadata).missing(TWO), 1);
            metadata.insert(AUTHOR.to_owned(), super::author(&forger));
            prop_assert_eq!(ApprovalRecords(&metadata).author(), Some("5"));
            let line = description("Approved", &forger, Some(&reason));
            prop_assert!(!line.contains('\n') && line.chars().count() <= 1024);
        }
    }
}
