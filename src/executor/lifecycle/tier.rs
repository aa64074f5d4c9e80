//! The tier of an environment, and whether it takes approved versions alone. Pure.

use super::manifest::EnvironmentTier;

/// Words in names of environments, by tier, in the order in which GitLab looks for them.
const WORDS: [(EnvironmentTier, &[&str]); 4] = [
    (EnvironmentTier::Development, &["dev", "review", "trunk"]),
    (EnvironmentTier::Testing, &["test", "tst", "int", "accept", "acpt", "qa", "qc", "control", "quality"]),
    (EnvironmentTier::Staging, &["stg", "stag", "model", "modl", "pre", "demo", "non"]),
    (EnvironmentTier::Production, &["prod", "prd", "live"]),
];
/// The value of `CI_ENVIRONMENT_TIER` that the manifest cannot lower.
const PRODUCTION: &str = "production";

/// The tier that GitLab gives an environment with this name.
fn of_name(name: &str) -> EnvironmentTier {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    WORDS.iter().find(|(_, words)| has(words)).map_or(EnvironmentTier::Other, |(tier, _)| *tier)
}

/// Whether an environment takes approved versions alone. `of_job` is the job's `CI_ENVIRONMENT_TIER`.
pub(super) fn needs_approval(tier: Option<EnvironmentTier>, name: &str, of_job: Option<&str>) -> bool {
    let tier = tier.unwrap_or_else(|| of_name(name));
    matches!(tier, EnvironmentTier::Production | EnvironmentTier::Other) || of_job == Some(PRODUCTION)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("prod" => EnvironmentTier::Production)]
    #[test_case("production/eu" => EnvironmentTier::Production)]
    #[test_case("Live" => EnvironmentTier::Production)]
    #[test_case("preprod" => EnvironmentTier::Staging)]
    #[test_case("staging" => EnvironmentTier::Staging)]
    #[test_case("review/topic" => EnvironmentTier::Development)]
    #[test_case("qa-1" => EnvironmentTier::Testing)]
    #[test_case("customer" => EnvironmentTier::Other)]
    fn a_name_has_the_tier(name: &str) -> EnvironmentTier {
        of_name(name)
    }

    #[test]
    fn no_job_lowers_the_tier() {
        assert!(needs_approval(None, "prod", Some("development")));
        assert!(needs_approval(Some(EnvironmentTier::Testing), "qa", Some("production")));
        assert!(!needs_approval(Some(EnvironmentTier::Testing), "prod", None));
        assert!(needs_approval(None, "customer", None) && !needs_approval(None, "dev", None));
    }
}
