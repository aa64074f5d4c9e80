//! The name of a package: its kind, its merge request and its time. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::env::Environment;

/// Digits of a commit in a name, as in `CI_COMMIT_SHORT_SHA`.
const SHORT_COMMIT: usize = 8;
/// The last second that a date of four digits can name: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The purpose of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PackageKind {
    /// Of a commit that is reviewed
    Candidate,
    /// Of a commit on the default branch
    Stable,
}

impl PackageKind {
    /// `stable` on the default branch, else `candidate`: also for tags, and outside of GitLab.
    pub(super) fn of(env: &Environment) -> Self {
        let branch = env.get("CI_COMMIT_BRANCH").filter(|branch| !branch.is_empty());
        let is_merge_request = env.get("CI_PIPELINE_SOURCE") == Some("merge_request_event");
        let is_default = branch.is_some() && branch == env.get("CI_DEFAULT_BRANCH");
        if is_default && !is_merge_request { Self::Stable } else { Self::Candidate }
    }
}

/// The number of the pipeline's merge request, else that of the branch's open one.
///
/// GitLab lists the open ones anew for each job, the newest first and at most four. So the lowest number of the project is taken: one
/// that is opened later changes nothing, unless it is the first.
pub(super) fn merge_request(env: &Environment) -> Option<String> {
    let digits = |text: &str| is_number(text).then(|| text.to_owned());
    if let Some(number) = env.get("CI_MERGE_REQUEST_IID").and_then(digits) {
        return Some(number);
    }
    // `group/project!1,group/fork!2`
    let open = env.get("CI_OPEN_MERGE_REQUESTS")?.split(',').filter_map(|one| one.trim().rsplit_once('!'));
    let own = env.get("CI_PROJECT_PATH");
    let numbers = open.filter_map(|(project, number)| {
        Some((Some(project) != own, project, number.parse::<u64>().ok()?, digits(number)?))
    });
    numbers.min().map(|(.., number)| number)
}

/// Whether a text is the number of a merge request.
pub(super) fn is_number(text: &str) -> bool {
    (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The commit before those that the pipeline brings: where the merge request begins, else the branch's last one. A retry has the same.
pub(super) fn base_commit(env: &Environment) -> Option<String> {
    let is_commit = |text: &&str| is_commit(text) && text.bytes().any(|byte| byte != b'0');
    let variables = ["CI_MERGE_REQUEST_DIFF_BASE_SHA", "CI_COMMIT_BEFORE_SHA"];
    variables.into_iter().filter_map(|name| env.get(name)).find(is_commit).map(str::to_owned)
}

/// Whether a text is the whole name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The time of the pipeline. `None` outside of one, and when it is no time from 1970 to 9999.
pub(super) fn pipeline_time(env: &Environment) -> Option<SystemTime> {
    let time = instant(env.get("CI_PIPELINE_CREATED_AT")?)?;
    time_of(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).map(|_| time)
}

/// `2026-11-29T04:52:33Z`, also with a fraction or an offset.
fn instant(text: &str) -> Option<SystemTime> {
    let Some(at) = text.len().checked_sub(6).filter(|at| text.get(*at..).is_some_and(|end| !end.ends_with('Z'))) else {
        return humantime::parse_rfc3339(text).ok();
    };
    let (time, offset) = text.split_at_checked(at)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_seconds = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    let time = humantime::parse_rfc3339(&format!("{time}Z")).ok()?;
    match offset.as_bytes().first()? {
        b'+' => time.checked_sub(Duration::from_secs(offset_seconds)),
        b'-' => time.checked_add(Duration::from_secs(offset_seconds)),
        _ => None,
    }
}

/// Time of a commit. `None` from the year 10000 on: no name has its form.
pub(super) fn time_of(seconds: u64) -> Option<SystemTime> {
    (seconds <= LAST_SECOND).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `2026-11-29T04:52:33Z`
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// `candidate-PR-12-0123abcd-20261129T045233Z.zip`, `stable-20261129T045233Z.zip`
pub(super) fn name(kind: PackageKind, merge_request: Option<&str>, commit: &str, time: SystemTime) -> String {
    let stamp = rfc3339(time).replace(['-', ':'], "");
    let commit = commit.get(..SHORT_COMMIT).unwrap_or(commit);
    match kind {
        PackageKind::Candidate => format!("candidate-PR-{}-{commit}-{stamp}.zip", merge_request.unwrap_or("none")),
        PackageKind::Stable => format!("stable-{stamp}.zip"),
    }
}

/// Whether a text is a SHA-256 as this program writes it.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef01234567";
    const B: &str = "76543210fedcba9876543210fedcba9876543210";

    fn env(variables: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test_case(&[] => PackageKind::Candidate; "outside of GitLab")]
    #[test_case(&[("CI_COMMIT_BRANCH", "main"), ("CI_DEFAULT_BRANCH", "main")] => PackageKind::Stable; "the default branch")]
    #[test_case(&[("CI_COMMIT_BRANCH", "x"), ("CI_DEFAULT_BRANCH", "main")] => PackageKind::Candidate; "a branch")]
    #[test_case(&[("CI_COMMIT_TAG", "main"), ("CI_DEFAULT_BRANCH", "main")] => PackageKind::Candidate; "a tag")]
    #[test_case(&[("CI_COMMIT_BRANCH", "main"), ("CI_DEFAULT_BRANCH", "main"), ("CI_PIPELINE_SOURCE", "merge_request_event")]
        => PackageKind::Candidate; "a merge request")]
    fn the_kind_is(variables: &[(&str, &str)]) -> PackageKind {
        PackageKind::of(&env(variables))
    }

    #[test_case(&[] => None; "none")]
    #[test_case(&[("CI_MERGE_REQUEST_IID", "7"), ("CI_OPEN_MERGE_REQUESTS", "g/p!8")] => Some("7".to_owned()); "of the pipeline")]
    #[test_case(&[("CI_PROJECT_PATH", "g/p"), ("CI_OPEN_MERGE_REQUESTS", "g/fork!8,g/p!9")] => Some("9".to_owned()); "of the project")]
    #[test_case(&[("CI_OPEN_MERGE_REQUESTS", "g/q!8,g/p!9")] => Some("9".to_owned()); "of the first project by name")]
    #[test_case(&[("CI_PROJECT_PATH", "g/p"), ("CI_OPEN_MERGE_REQUESTS", "g/p!12,g/p!9")] => Some("9".to_owned()); "the oldest")]
    #[test_case(&[("CI_MERGE_REQUEST_IID", "../x"), ("CI_OPEN_MERGE_REQUESTS", "g!x,")] => None; "no number")]
    fn the_merge_request_is(variables: &[(&str, &str)]) -> Option<String> {
        merge_request(&env(variables))
    }

    #[test_case(&[] => None; "none")]
    #[test_case(&[("CI_COMMIT_BEFORE_SHA", A)] => Some(A.to_owned()); "of a push")]
    #[test_case(&[("CI_COMMIT_BEFORE_SHA", A), ("CI_MERGE_REQUEST_DIFF_BASE_SHA", B)] => Some(B.to_owned()); "of a merge request")]
    #[test_case(&[("CI_COMMIT_BEFORE_SHA", "0000000000000000000000000000000000000000")] => None; "of a new branch")]
    #[test_case(&[("CI_COMMIT_BEFORE_SHA", "--output=x")] => None; "no commit")]
    fn the_commit_before_is(variables: &[(&str, &str)]) -> Option<String> {
        base_commit(&env(variables))
    }

    #[test_case("2026-11-29T04:52:33Z" => Some("2026-11-29T04:52:33Z".to_owned()); "utc")]
    #[test_case("2026-11-29T04:52:33.123Z" => Some("2026-11-29T04:52:33Z".to_owned()); "with a fraction")]
    #[test_case("2026-11-29T01:22:33+02:30" => Some("2026-11-28T22:52:33Z".to_owned()); "east")]
    #[test_case("2026-11-29T23:52:33-05:00" => Some("2026-11-30T04:52:33Z".to_owned()); "west")]
    #[test_case("9999-12-31T23:59:59Z" => Some("9999-12-31T23:59:59Z".to_owned()); "the last one")]
    #[test_case("9999-12-31T23:59:59-00:01" => None; "after the last one")]
    #[test_case("9999-12-31T23:59:59-99:99" => None; "far after the last one")]
    #[test_case("1970-01-01T00:00:00+99:00" => None; "before 1970")]
    #[test_case("yesterday" => None; "no time")]
    #[test_case("" => None; "empty")]
    #[test_case("é2026-11-29T23:5é" => None; "no characters at the bounds")]
    fn the_time_of_the_pipeline_is(text: &str) -> Option<String> {
        pipeline_time(&env(&[("CI_PIPELINE_CREATED_AT", text)])).map(rfc3339)
    }

    #[test]
    fn a_commit_of_the_year_10000_has_no_time() {
        assert_eq!(rfc3339(time_of(LAST_SECOND).unwrap()), "9999-12-31T23:59:59Z");
        assert_eq!([time_of(LAST_SECOND + 1), time_of(u64::MAX)], [None; 2]);
    }

    #[test]
    fn names_have_their_form() {
        let time = time_of(1_795_927_953).unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            name(PackageKind::Candidate, Some("12"), commit, time),
            "candidate-PR-12-01234567-20261129T045233Z.zip"
        );
        assert!(name(PackageKind::Candidate, None, commit, time).starts_with("candidate-PR-none-"));
        assert_eq!(name(PackageKind::Stable, Some("12"), commit, time), "stable-20261129T045233Z.zip");
    }
}
