//! Approvals and rejections, as they stand in a version's metadata. Pure.
//!
//! `approval-<user>` holds a user's approval, so that two users never write the same entry; `rejection-<number>` holds a
//! rejection. A rejection ends a round: approvals of earlier rounds count no more. Rounds need no clock that is right.
//! The records decide, and not the status: a status that was written late, or by another program, is compared with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::metadata::{MOST, field, value, word};
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::manifest::Approvals;

/// Entry with the user who registered the version.
pub(super) const AUTHOR: &str = "registered-by";
const APPROVAL: &str = "approval-";
const REJECTION: &str = "rejection-";
/// Entry with the rule under which the version was registered.
pub(super) const NEEDED: &str = "approvals-needed";
/// Word of a rule's text.
const NO_SELF: &str = "no-self";
/// Most users whom a rule can ask for.
const MOST_USERS: u32 = 10;

/// Longest name of a user in a record.
const LONGEST_LOGIN: usize = 60;

/// How many users must approve, and which ones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lifecycle) struct ApprovalRule {
    pub(in crate::lifecycle) min: u32,
    pub(super) no_self: bool,
}

impl ApprovalRule {
    /// The stricter of the manifest and the command line.
    pub(in crate::lifecycle) fn of(manifest: &Approvals, min: Option<u32>, no_self: bool) -> Self {
        Self { min: manifest.min.max(min.unwrap_or(1)).max(1), no_self: manifest.no_self || no_self }
    }

    /// A rule that satisfies both.
    #[must_use]
    pub(in crate::lifecycle) fn and(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), no_self: self.no_self || other.no_self }
    }

    /// For people: `2 are`.
    pub(in crate::lifecycle) fn words(self) -> String {
        let verb = if self.min == 1 { "is" } else { "are" };
        if self.no_self {
            format!("{}, and not the one who registered it, {verb}", self.min)
        } else {
            format!("{} {verb}", self.min)
        }
    }

    /// `2 no-self`: as tags and metadata remember the rule.
    pub(in crate::lifecycle) fn text(self) -> String {
        let word = if self.no_self { format!(" {NO_SELF}") } else { String::new() };
        format!("{}{word}", self.min)
    }

    /// The rule of a text. One that cannot be read is the strictest: somebody may have changed it to ask for less.
    pub(in crate::lifecycle) fn of_text(text: &str) -> Self {
        let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
        let min = number.parse().ok().filter(|min| (1..=MOST_USERS).contains(min));
        match (min, rest) {
            (Some(min), "") => Self { min, no_self: false },
            (Some(min), NO_SELF) => Self { min, no_self: true },
            _ => Self { min: MOST_USERS, no_self: true },
        }
    }
}

impl Default for ApprovalRule {
    fn default() -> Self {
        Self { min: 1, no_self: false }
    }
}

/// The state of a version by its records, under a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lifecycle) enum Standing {
    /// The last decision is a rejection.
    Rejected,
    /// So many approvals are missing.
    Missing(u32),
    /// The rule holds.
    Approved,
}

/// The metadata of one version.
#[derive(Debug, Clone, Copy)]
pub(in crate::lifecycle) struct ApprovalRecords<'a>(pub(in crate::lifecycle) &'a BTreeMap<String, String>);

impl<'a> ApprovalRecords<'a> {
    /// The rule that holds for this version: its own from when it was registered may be stricter than the manifest's.
    pub(in crate::lifecycle) fn rule(self, rule: ApprovalRule) -> ApprovalRule {
        self.0.get(NEEDED).map_or(rule, |text| rule.and(ApprovalRule::of_text(text)))
    }

    /// The state that the records give under a rule, or under the version's own. A user who opens a version again approves it in the same change.
    pub(in crate::lifecycle) fn standing(self, rule: ApprovalRule) -> Standing {
        if self.last_rejection().is_some() && !self.has_approvals() {
            return Standing::Rejected;
        }
        match self.missing(rule) {
            0 => Standing::Approved,
            missing => Standing::Missing(missing),
        }
    }

    /// Number of the round, from 1. Rejections are counted, because a number in a name may be any.
    fn round(self) -> usize {
        self.rejections().count() + 1
    }

    fn rejections(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(REJECTION)?, value.as_str())))
    }

    /// The record of the last rejection.
    pub(super) fn last_rejection(self) -> Option<&'a str> {
        self.rejections().max_by_key(|(number, _)| number.parse::<u64>().ok()).map(|(_, record)| record)
    }

    /// Whether somebody has approved in this round.
    pub(super) fn has_approvals(self) -> bool {
        !self.approvers().is_empty()
    }

    /// Key of the user who registered the version.
    pub(super) fn author(self) -> Option<&'a str> {
        field(self.0.get(AUTHOR)?, "id")
    }

    /// Whether the user has approved in this round.
    pub(super) fn has_approved(self, user: &str) -> bool {
        self.approvers().contains_key(user)
    }

    /// Users who approved in this round, by key, with their names.
    fn approvers(self) -> BTreeMap<&'a str, &'a str> {
        let round = self.round().to_string();
        let of_round = |(key, value): (&'a String, &'a String)| {
            let user = key.strip_prefix(APPROVAL)?;
            (field(value, "round") == Some(&round)).then(|| (user, field(value, "user").unwrap_or_default()))
        };
        self.0.iter().filter_map(of_round).collect()
    }

    /// Users whose approval counts, by key. None, when an author is excluded whom nobody knows.
    fn counting(self, rule: ApprovalRule) -> BTreeMap<&'a str, &'a str> {
        let rule = self.rule(rule);
        let mut approvers = self.approvers();
        if rule.no_self {
            match self.author() {
                Some(author) => drop(approvers.remove(author)),
                None => approvers.clear(),
            }
        }
        approvers
    }

    /// Names of the users whose approval counts.
    pub(super) fn counted(self, rule: ApprovalRule) -> BTreeSet<&'a str> {
        self.counting(rule).into_values().collect()
    }

    /// Approvals that are missing.
    fn missing(self, rule: ApprovalRule) -> u32 {
        self.rule(rule).min.saturating_sub(u32::try_from(self.counting(rule).len()).unwrap_or(u32::MAX))
    }

    /// Whether the entries fit.
    pub(super) fn has_room_for(self, entries: &BTreeMap<String, String>) -> bool {
        self.0.len() + entries.keys().filter(|key| !self.0.contains_key(*key)).count() <= MOST
    }

    /// The entry of this user's approval.
    pub(super) fn approval(self, user: &JobUser, at: SystemTime, reason: Option<&str>) -> (String, String) {
        (format!("{APPROVAL}{}", user.key()), record(&format!("round={} ", self.round()), user, at, reason))
    }

    /// The entry of this user's rejection, which ends the round.
    pub(super) fn rejection(self, user: &JobUser, at: SystemTime, reason: &str) -> (String, String) {
        (self.free_rejection(), record(&format!("id={} ", user.key()), user, at, Some(reason)))
    }

    /// Entries by which a user opens a rejected version again, with an approval. A rejection without a record, which was made
    /// outside of this program, gets one first, so that approvals from before it count no more.
    pub(super) fn reopening(self, user: &JobUser, at: SystemTime, reason: Option<&str>) -> BTreeMap<String, String> {
        if !self.has_approvals() {
            return BTreeMap::from([self.approval(user, at, reason)]);
        }
        let outside = (self.free_rejection(), record(&format!("outside=true id={} ", user.key()), user, at, None));
        let mut entries = self.0.clone();
        entries.extend([outside.clone()]);
        BTreeMap::from([outside, ApprovalRecords(&entries).approval(user, at, reason)])
    }

    fn free_rejection(self) -> String {
        let mut names = (1_u64..).map(|number| format!("{REJECTION}{number}"));
        names.find(|name| !self.0.contains_key(name)).unwrap_or_default()
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
        user.key(),
        word(&user.login, LONGEST_LOGIN),
        user.pipeline,
        user.job
    ))
}

/// The text that AWS shows beside the status: one line.
pub(super) fn description(verb: &str, user: &JobUser, reason: Option<&str>) -> String {
    let JobUser { id, login, project, pipeline, job, .. } = user;
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let text = format!("{verb} by {login} (user {id}) in job {job} of pipeline {pipeline} of {project}{reason}");
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    line.chars().take(1024).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    fn user(id: &str) -> JobUser {
        let text = |text: &str| text.to_owned();
        JobUser {
            id: text(id),
            issuer: text("1234abcd"),
            login: format!("user{id}"),
            project: text("g/p"),
            pipeline: text("7"),
            job: text("8"),
        }
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
    fn users_of_two_servers_are_two() {
        let mut metadata = BTreeMap::new();
        approve(&mut metadata, "2");
        let other = JobUser { issuer: "0".to_owned(), ..user("2") };
        metadata.extend([ApprovalRecords(&metadata).approval(&other, SystemTime::UNIX_EPOCH, None)]);
        assert_eq!(ApprovalRecords(&metadata).standing(ApprovalRule { no_self: false, ..TWO }), Standing::Approved);
        metadata.insert(AUTHOR.to_owned(), author(&other));
        assert_eq!(ApprovalRecords(&metadata).standing(TWO), Standing::Missing(1));
    }

    #[test]
    fn an_author_whom_nobody_knows_cannot_be_excluded() {
        let mut metadata = BTreeMap::new();
        approve(&mut metadata, "2");
        approve(&mut metadata, "3");
        assert_eq!(ApprovalRecords(&metadata).standing(TWO), Standing::Missing(2));
    }

    #[test_case(&["rejection-4294967295"], "rejection-1"; "the largest number")]
    #[test_case(&["rejection-99999999999999999999999"], "rejection-1"; "a larger number")]
    #[test_case(&["rejection-1", "rejection-2", "rejection-x"], "rejection-3"; "no number")]
    fn every_rejection_ends_a_round(entries: &[&str], next: &str) {
        let mut metadata = entries.iter().map(|entry| ((*entry).to_owned(), String::new())).collect::<BTreeMap<_, _>>();
        assert_eq!(ApprovalRecords(&metadata).standing(TWO), Standing::Rejected);
        approve(&mut metadata, "2");
        let (key, value) = ApprovalRecords(&metadata).rejection(&user("4"), SystemTime::UNIX_EPOCH, "no");
        assert_eq!(key, next);
        metadata.insert(key, value);
        assert_eq!(ApprovalRecords(&metadata).standing(TWO), Standing::Rejected, "{metadata:?}");
    }

    #[test]
    fn opening_again_ends_the_round_that_nobody_ended() {
        let mut metadata = BTreeMap::from([(AUTHOR.to_owned(), author(&user("1")))]);
        approve(&mut metadata, "2");
        metadata.extend(ApprovalRecords(&metadata).reopening(&user("3"), SystemTime::UNIX_EPOCH, None));
        assert_eq!(ApprovalRecords(&metadata).counted(TWO), BTreeSet::from(["user3"]));
        assert!(metadata["rejection-1"].starts_with("outside=true id=3@1234abcd user=user3 "), "{metadata:?}");
        let (key, value) = ApprovalRecords(&metadata).rejection(&user("4"), SystemTime::UNIX_EPOCH, "no");
        metadata.insert(key, value);
        metadata.extend(ApprovalRecords(&metadata).reopening(&user("3"), SystemTime::UNIX_EPOCH, None));
        assert_eq!(ApprovalRecords(&metadata).round(), 3);
    }

    #[test]
    fn an_entry_that_is_there_needs_no_room() {
        let mut metadata: BTreeMap<_, _> = (1..MOST).map(|at| (format!("x{at}"), String::new())).collect();
        approve(&mut metadata, "2");
        let entry =
            |id: &str| BTreeMap::from([ApprovalRecords(&metadata).approval(&user(id), SystemTime::UNIX_EPOCH, None)]);
        assert!(ApprovalRecords(&metadata).has_room_for(&entry("2")));
        assert!(!ApprovalRecords(&metadata).has_room_for(&entry("3")));
    }

    #[test]
    fn a_rejection_ends_the_round() {
        let mut metadata = BTreeMap::from([(AUTHOR.to_owned(), author(&user("1")))]);
        approve(&mut metadata, "2");
        let (key, value) = ApprovalRecords(&metadata).rejection(&user("4"), SystemTime::UNIX_EPOCH, "bad on new data");
        assert_eq!(
            (key.as_str(), value.as_str()),
            ("rejection-1", "id=4@1234abcd user=user4 pipeline=7 job=8 at=1970-01-01T00:00:00Z reason=bad on new data")
        );
        metadata.insert(key, value);
        assert_eq!((ApprovalRecords(&metadata).round(), ApprovalRecords(&metadata).missing(TWO)), (2, 2));
        approve(&mut metadata, "2");
        assert_eq!(ApprovalRecords(&metadata).missing(TWO), 1);
    }

    #[test]
    fn the_rule_of_the_registration_is_never_loosened() {
        let mut metadata = BTreeMap::from([(AUTHOR.to_owned(), author(&user("1")))]);
        metadata.insert(NEEDED.to_owned(), TWO.text());
        approve(&mut metadata, "1");
        approve(&mut metadata, "2");
        let lax = ApprovalRule { min: 1, no_self: false };
        assert_eq!(ApprovalRecords(&metadata).rule(lax), TWO);
        assert_eq!(ApprovalRecords(&metadata).standing(lax), Standing::Missing(1));
        approve(&mut metadata, "3");
        assert_eq!(ApprovalRecords(&metadata).standing(lax), Standing::Approved);
        assert_eq!(ApprovalRecords(&metadata).standing(ApprovalRule { min: 3, ..lax }), Standing::Missing(1));
    }

    #[test_case("1" => (1, false))]
    #[test_case("2 no-self" => (2, true))]
    #[test_case("0" => (10, true); "no user")]
    #[test_case("11" => (10, true); "too many")]
    #[test_case("1 no_self" => (10, true); "another word")]
    #[test_case("" => (10, true); "nothing")]
    fn a_rule_that_cannot_be_read_is_the_strictest(text: &str) -> (u32, bool) {
        let rule = ApprovalRule::of_text(text);
        assert_eq!(ApprovalRule::of_text(&rule.text()), rule);
        (rule.min, rule.no_self)
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
            prop_assert_eq!(ApprovalRecords(&metadata).missing(ApprovalRule { no_self: false, ..TWO }), 1);
            metadata.insert(AUTHOR.to_owned(), super::author(&forger));
            prop_assert_eq!(ApprovalRecords(&metadata).author(), Some("5@1234abcd"));
            let line = description("Approved", &forger, Some(&reason));
            prop_assert!(!line.contains('\n') && line.chars().count() <= 1024);
        }
    }
}
