//! The last stage of a container is known, and so is the time that a container may take to come.

use super::*;

#[test]
fn a_spot_job_waits_for_its_container_as_long_as_it_asks_for() {
    let text = "[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws:iam::123456789012:role/x\"\nspot = true\n[limits]\nprovisioning_seconds = 600\n";
    let settings: Settings = toml::from_str(text).unwrap();
    let mut job = job(&[]);
    "img".clone_into(&mut job.image.name);
    let wait = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| (format!("CUSTOM_ENV_{name}").into(), value.into()));
        let wishes = crate::config::env::Environment::from_pairs(pairs).job_variables().unwrap();
        provisioning(policy::decide(&job, &wishes, &settings).ok().as_ref(), &settings).as_secs()
    };
    assert_eq!(wait(&[]), 3600);
    assert_eq!(wait(&[("SAGEMAKER_MAX_RUNTIME", "1h"), ("SAGEMAKER_SPOT_MAX_WAIT", "3h")]), 2 * 3600);
    assert_eq!(wait(&[("SAGEMAKER_MAX_RUNTIME", "1h"), ("SAGEMAKER_SPOT_MAX_WAIT", "1h")]), 600);
}

fn job(steps: &[&str]) -> JobContext {
    let steps: Vec<_> = steps.iter().map(|name| serde_json::json!({"name": name, "script": ["x"]})).collect();
    serde_json::from_value(serde_json::json!({"id": 1, "job_info": {"project_id": 2}, "steps": steps})).unwrap()
}

#[test]
fn the_last_container_stage_is_known() {
    let release = BuildStage::Step("release".into());
    let full = job(&["script", "release", "after_script"]);
    assert!(!is_last(&full, &BuildStage::Script, false));
    assert!(!is_last(&full, &BuildStage::Script, true));
    assert!(is_last(&full, &BuildStage::AfterScript, false));
    let plain = job(&["script", "release"]);
    assert!(!is_last(&plain, &BuildStage::Script, false));
    assert!(is_last(&plain, &BuildStage::Script, true));
    assert!(is_last(&plain, &release, false));
}
