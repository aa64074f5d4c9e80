//! The tier of an environment, and whether it takes approved versions alone. Pure.

use super::manifest::EnvironmentTier;

/// Words in names of environments, by tier, in the order in which GitLab looks for them.
const WORDS: [(EnvironmentTier, &[&str]); 4] = [
    (EnvironmentTier::Development, &["dev", "review", "trunk"]),
    (EnvironmentTier::Testing, &["test", "tst", "int", "accept", "acpt", "qa", "qc", "control", "quality"]),
    (EnvironmentTier::Staging, &["stg", "stag", "model", "modl", "pre", "demo", "non"]),
    (EnvironmentTier::Production, &["prod", "prd", "live"]),
];
/// Words that make these names no ones of production: `preprod`, `non-production`.
const BEFORE: [&str; 2] = ["pre", "non"];
/// The value of `CI_ENVIRONMENT_TIER` that the manifest cannot lower.
const PRODUCTION: &str = "production";

/// The tier that GitLab gives an environment with this name.
fn of_name(name: &str) -> EnvironmentTier {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    WORDS.iter().find(|(_, words)| has(words)).map_or(EnvironmentTier::Other, |(tier, _)| *tier)
}

/// Whether a name has a word of production, also beside words for which GitLab gives it another tier: `model-production`.
fn names_production(name: &str) -> bool {
    let name = name.to_lowercase();
    let mut before = "";
    let mut words = name.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty());
    let is_production = |word: &str| ["prod", "prd", "production", "live"].contains(&word);
    words.any(|word| {
        let is_it = (is_production(word) && !BEFORE.contains(&before))
            || word.split_once("production").is_some_and(|(begin, _)| !begin.is_empty() && !BEFORE.contains(&begin));
        before = word;
        is_it
    })
}

/// Whether an environment takes approved versions alone. `of_job` is the job's `CI_ENVIRONMENT_TIER`.
pub(super) fn needs_approval(tier: Option<EnvironmentTier>, name: &str, of_job: Option<&str>) -> bool {
    let takes_approved = |tier| matches!(tier, EnvironmentTier::Production | EnvironmentTier::Other);
    let by_name = || takes_approved(of_name(name)) || names_production(name);
    tier.map_or_else(by_name, takes_approved) || of_job == Some(PRODUCTION)
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

    #[test_case("model-production" => true)]
    #[test_case("demo/Live" => true)]
    #[test_case("internal-prod-2" => true)]
    #[test_case("modelproduction" => true)]
    #[test_case("preprod" => false)]
    #[test_case("non-production" => false)]
    #[test_case("pre_prod/eu" => false)]
    #[test_case("review/product-page" => false)]
    #[test_case("dev-delivery" => false)]
    fn a_name_with_a_word_of_production_takes_approved_versions(name: &str) -> bool {
        needs_approval(None, name, None)
    }
}
