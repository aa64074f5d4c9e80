//! Finds the rule of a job: the first one whose conditions all hold.

use super::identity::JobIdentity;
use crate::config::rules::{JobMatch, PolicyRule, glob};

/// The first rule that matches.
pub fn rule_of<'a>(job: &JobIdentity, rules: &'a [PolicyRule]) -> Option<&'a PolicyRule> {
    rules.iter().find(|rule| mismatch(job, &rule.jobs).is_none())
}

/// The first key of `match` that does not hold, with the job's own value; `None` when all hold.
pub fn mismatch(job: &JobIdentity, wanted: &JobMatch) -> Option<(&'static str, String)> {
    let groups: Vec<&str> = job.project.match_indices('/').map(|(at, _)| job.project.split_at(at).0).collect();
    let is_in_group = |pattern: &String| groups.iter().any(|group| matches_path(pattern, group));
    let holds = |patterns: &[String], test: &dyn Fn(&String) -> bool| patterns.is_empty() || patterns.iter().any(test);
    let told = |protected: Option<bool>| match protected {
        Some(true) => "protected",
        Some(false) => "not protected",
        None => "not told by this GitLab",
    };
    let checks = [
        (holds(&wanted.projects, &|pattern| matches_path(pattern, &job.project)), "projects", &job.project),
        (holds(&wanted.namespaces, &is_in_group), "namespaces", &job.project),
        (holds(&wanted.refs, &|pattern| matches(pattern, &job.git_ref)), "refs", &job.git_ref),
        (holds(&wanted.instances, &|pattern| matches_path(pattern, &job.instance)), "instances", &job.instance),
    ];
    if let Some((_, key, value)) = checks.into_iter().find(|(holds, ..)| !holds) {
        return Some((key, value.clone()));
    }
    if wanted.protected.is_some_and(|protected| protected != job.is_protected()) {
        return Some(("protected", told(job.protected).to_owned()));
    }
    let source = if job.fork { "of a fork" } else { "not of a fork" };
    wanted.fork.filter(|fork| *fork != job.fork).map(|_| ("fork", source.to_owned()))
}

/// Whether a glob stands for the whole text. `*` stops at slashes, `**` does not; an empty text matches nothing.
pub fn matches(pattern: &str, text: &str) -> bool {
    !text.is_empty() && glob(pattern, false).is_ok_and(|glob| glob.is_match(text))
}

/// Like [`matches()`] for paths of projects and for hosts, of which GitLab ignores the case.
fn matches_path(pattern: &str, text: &str) -> bool {
    !text.is_empty() && glob(pattern, true).is_ok_and(|glob| glob.is_match(text))
}
