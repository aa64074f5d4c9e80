//! Bounds of all rules of the operator's file together, as far as conditions of IAM can express them.
//!
//! The executor decides by rule; IAM sees only the request. So the conditions are the union: a request that no rule
//! allows may pass them, one that some rule allows always does.

use std::collections::BTreeSet;

use crate::cloud::Network;
use crate::config::iam_patterns::{as_patterns, name_of_plans};
use crate::config::policy::{self, JobBounds};
use crate::config::rules::Choice;
use crate::config::settings::Settings;

/// Everything that some job may have.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of its own")]
pub(super) struct Wall {
    /// Patterns; `None` when some rule allows all types.
    pub instance_types: Option<Vec<String>>,
    /// Seconds.
    pub max_runtime: u64,
    pub roles: Vec<String>,
    /// Globs; `None` when some rule allows all images.
    pub images: Option<Vec<String>>,
    pub subnets: Vec<String>,
    pub security_group_ids: Vec<String>,
    /// Whether each job is in a VPC.
    pub is_vpc_certain: bool,
    /// The roles that only jobs in a VPC have.
    pub roles_in_vpc: Vec<String>,
    /// The roles that some jobs in a VPC have, and some outside.
    pub roles_in_and_outside: Vec<String>,
    /// Some jobs keep checkpoints.
    pub has_checkpoints: bool,
    /// Some jobs let people into their container.
    pub has_remote_debug: bool,
    /// No job has a network.
    pub is_isolated: bool,
    /// Seconds.
    pub max_keep_alive: u64,
    /// Patterns of names.
    pub training_plans: Vec<String>,
    /// Patterns of URIs.
    pub inputs: Vec<String>,
    /// Patterns of URIs.
    pub model_outputs: Vec<String>,
}

impl Wall {
    pub(super) fn of(settings: &Settings) -> Self {
        let mut all: Vec<JobBounds> = settings.rules.iter().map(|rule| policy::of_rule(rule, settings)).collect();
        if all.is_empty() {
            all.push(policy::of_default(settings));
        }
        let outside = union(all.iter().filter(|one| one.network.is_none()).map(|one| &one.roles));
        let inside = union(all.iter().filter(|one| one.network.is_some()).map(|one| &one.roles));
        let passed = union(all.iter().map(|one| &one.roles));
        let types = union(all.iter().map(|one| &one.instance_types));
        let types: Vec<String> = types.iter().flat_map(|glob| as_patterns(glob)).collect();
        let images: Option<Vec<_>> = all.iter().map(|one| one.images.as_ref()).collect();
        let default_image: Vec<String> = settings.job.image.iter().cloned().collect();
        let networks: Vec<&Network> = all.iter().filter_map(|one| one.network.as_ref()).collect();
        let patterns = |globs: Vec<String>| globs.iter().flat_map(|glob| as_patterns(glob)).collect();
        let plans = union(all.iter().map(|one| &one.training_plans));
        let (inputs, outputs): (Vec<String>, Vec<String>) = (
            settings.job.inputs.values().map(|uri| folder(uri)).collect(),
            settings.job.model_output.iter().map(|uri| folder(uri)).collect(),
        );
        Self {
            is_isolated: all.iter().all(|one| one.network_isolation.choice == Choice::Only),
            has_checkpoints: all.iter().any(|one| one.checkpoints.choice != Choice::Refuse),
            has_remote_debug: all.iter().any(|one| one.remote_debug.choice != Choice::Refuse),
            max_keep_alive: all.iter().map(|one| one.keep_alive.most).max().unwrap_or_default(),
            training_plans: plans.iter().filter_map(|plan| name_of_plans(plan)).flat_map(as_patterns).collect(),
            inputs: patterns(union(all.iter().map(|one| &one.inputs).chain([&inputs]))),
            model_outputs: patterns(union(all.iter().map(|one| &one.model_outputs).chain([&outputs]))),
            instance_types: (!types.iter().any(|pattern| pattern == "*")).then_some(types),
            max_runtime: all.iter().map(|one| one.max_runtime).max().unwrap_or_default(),
            images: images.map(|globs| union(globs.into_iter().chain([&default_image]))),
            subnets: union(networks.iter().map(|one| &one.subnets)),
            security_group_ids: union(networks.iter().map(|one| &one.security_group_ids)),
            is_vpc_certain: networks.len() == all.len(),
            roles_in_and_outside: inside.into_iter().filter(|role| outside.contains(role)).collect(),
            roles_in_vpc: passed.iter().filter(|role| !outside.contains(role)).cloned().collect(),
            roles: passed,
        }
    }
}

/// The folder of a URI, without its query.
fn folder(uri: &str) -> String {
    uri.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned()
}

/// Without duplicates, in the order of the file.
fn union<'a>(lists: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    lists.flatten().filter(|value| seen.insert(*value)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_together_allow_what_one_of_them_allows() {
        let wall_of = |rules: &str| {
            let file = "[storage]\nbucket = 'b'\n[job]\nrole_arn = 'r'\nsubnets = ['subnet-1']\nsecurity_group_ids = ['sg-1']\n";
            Wall::of(&toml::from_str(&format!("{file}{rules}")).unwrap())
        };
        let wall = wall_of("");
        assert_eq!(wall.instance_types.unwrap(), ["ml.m5.large"]);
        assert!(wall.images.is_none() && wall.is_vpc_certain && wall.roles_in_vpc == ["r"]);
        let wall = wall_of(
            "[[rules]]\nname = 'a'\n[rules.allow]\ninstance_types = ['ml.g5.*']\nmax_runtime_seconds = 90000\nroles = ['s']\n\
             [[rules]]\nname = 'b'\n[rules.allow]\nimages = ['x']\n",
        );
        assert_eq!(wall.instance_types.unwrap(), ["ml.g5.*", "ml.m5.large"]);
        assert_eq!((wall.max_runtime, wall.images), (90_000, None));
        assert_eq!(
            (wall.roles, wall.roles_in_vpc),
            (vec!["s".to_owned(), "r".to_owned()], vec!["s".to_owned(), "r".to_owned()])
        );
        assert!(wall.is_vpc_certain && wall.subnets == ["subnet-1"]);
        assert_eq!(wall_of("[[rules]]\nname = 'c'\nallow = { instance_types = ['*'] }\n").instance_types, None);
    }
    #[test]
    fn a_role_of_jobs_in_a_vpc_and_outside_is_told() {
        let file = "[storage]\nbucket = 'b'\n[job]\nrole_arn = 'r'\n[[rules]]\nname = 'a'\n[rules.allow]\nsubnets = ['subnet-1']\n\
                    security_group_ids = ['sg-1']\n[[rules]]\nname = 'b'\n";
        let wall = |more: &str| Wall::of(&toml::from_str(&format!("{file}{more}")).unwrap());
        assert_eq!(wall("").roles_in_and_outside, ["r"]);
        let apart = wall("allow = { roles = ['s'] }\n");
        assert!(apart.roles_in_and_outside.is_empty() && apart.roles_in_vpc == ["r"]);
    }
}
