//! Names, tags and the creator's session.

mod documented;
mod wishes;

use super::*;

#[test]
fn each_training_job_of_a_session_has_a_name_of_its_own() {
    let number = u64::MAX;
    let id = SessionId::parse(&format!("gitlab-{number}-{number}-abcdef12")).unwrap();
    assert_eq!(job_name(&id, 0), id.as_str());
    assert_eq!(job_name(&id, 1), id.as_str());
    assert_eq!(job_name(&id, 2), format!("{id}-2"));
    assert!(job_name(&id, 99_999).len() <= 63);
}

#[test]
fn tag_values_keep_to_the_pattern() {
    assert_eq!(tag_value("ml/chürn"), "ml/chürn");
    assert_eq!(tag_value("a<b>\n'"), "a_b___");
    assert_eq!(tag_value(&"x".repeat(300)).len(), 256);
}

/// For the bill: all of it from the payload, and the environment only on a protected ref, when no variable names another.
#[test]
fn tags_tell_whose_the_cost_is() {
    let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
    let settings =
        toml::from_str("[storage]\nbucket = \"b\"\n[job]\ntags = { team = \"ml\", \"gitlab:ref\" = \"x\" }\n").unwrap();
    let of = |protected: Option<bool>, user: u64, environments: &[&str]| {
        let variables: Vec<_> =
            environments.iter().map(|name| serde_json::json!({"key": "CI_ENVIRONMENT_NAME", "value": name})).collect();
        let job = serde_json::json!({"id": 2, "git_info": {"ref": "feature/a<b>", "protected": protected}, "variables": variables,
            "job_info": {"name": "train: [1]", "project_id": 1, "project_full_path": "ml/churn", "pipeline_id": 9, "user_id": user}});
        tags(&id, &session_keys(&id, None), &serde_json::from_value(job).unwrap(), &settings)
    };
    let whole = of(Some(true), 5, &["production/eu", "production/eu"]);
    let expected = [
        ("gitlab:environment", "production/eu"),
        ("gitlab:job-id", "2"),
        ("gitlab:job-name", "train: _1_"),
        ("gitlab:pipeline-id", "9"),
        ("gitlab:project-id", "1"),
        ("gitlab:project-path", "ml/churn"),
        ("gitlab:ref", "feature/a_b_"),
        ("gitlab:user-id", "5"),
        ("sagemaker-executor:session", id.as_str()),
        ("team", "ml"),
    ];
    assert!(whole.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{whole:?}");
    for environments in [&[][..], &[""], &["production", "staging"]] {
        let tags = of(Some(true), 0, environments);
        assert!(!tags.contains_key(tag::ENVIRONMENT) && !tags.contains_key(tag::USER), "{tags:?}");
    }
    for protected in [Some(false), None] {
        let tags = of(protected, 5, &["production"]);
        assert!(!tags.contains_key(tag::ENVIRONMENT), "anybody can write the variable: {tags:?}");
    }
}

#[test]
fn the_creators_session_has_the_sessions_name_and_the_tags_of_the_policies() {
    let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
    let keys = session_keys(&id, None);
    let made = |protected: Option<bool>, checkpoints| {
        let job = serde_json::json!({"id": 2, "job_info": {"project_id": 1}, "git_info": {"protected": protected}});
        let agent = AgentInputs { keys: &keys, files: "", scope: "1-ab", checkpoints, stage: None };
        creator("arn:aws:iam::1:role/creator", &id, &serde_json::from_value(job).unwrap(), agent)
    };
    for (protected, value) in [(Some(true), "true"), (Some(false), "false"), (None, "false")] {
        let session = made(protected, None);
        assert_eq!((session.name.as_str(), session.role_arn.as_str()), (id.as_str(), "arn:aws:iam::1:role/creator"));
        assert!(session.tags.keys().eq(["sme-project", "sme-protected", "sme-session"]), "{session:?}");
        assert!(session.tags.values().eq(["1-ab", value, id.as_str()]), "{session:?}");
    }
    assert_eq!(made(None, Some("1-cd")).tags["sme-checkpoints"], "1-cd");
}
