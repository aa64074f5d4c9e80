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

#[test]
fn the_creators_session_has_the_sessions_name_and_the_tags_of_the_policies() {
    let id = SessionId::parse("gitlab-1-2-abcdef12").unwrap();
    let keys = session_keys(&id, None);
    let made = |protected: Option<bool>, checkpoints| {
        let job = serde_json::json!({"id": 2, "job_info": {"project_id": 1}, "git_info": {"protected": protected}});
        let agent = AgentInputs { keys: &keys, files: "", scope: "1-ab", checkpoints };
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
