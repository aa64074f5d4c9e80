//! Secrets of a job, between `prepare` and its script.

use super::StageHarness;
use crate::base::failure::{Kind, kind_of, render};
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fault, When};
use crate::config::settings::SecretsSettings;
use crate::stages::{Context, prepare, run};

const VALUE: &str = "first-value-0123456789";

/// A job of `ml/churn` that asks for a field of a secret.
fn harness() -> StageHarness {
    let mut harness = StageHarness::configured();
    let file = harness.dir.path().join("response.json");
    let mut payload: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    payload["job_info"]["project_full_path"] = "ml/churn".into();
    std::fs::write(&file, payload.to_string()).unwrap();
    harness.variables.insert("SAGEMAKER_SECRET_DB", "ci/db#password".to_owned());
    harness.memory.secrets.set("ci/db", &serde_json::json!({"password": VALUE}).to_string());
    harness
}

/// The context of a stage, with a grant for the project.
fn granted(harness: &StageHarness) -> Context {
    let mut context = harness.context();
    let text = "allow = [{ match = { projects = [\"ml/churn\"] }, ids = [\"ci/*\"] }]";
    context.settings.secrets = toml::from_str::<SecretsSettings>(text).unwrap();
    context
}

fn holds(dir: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            holds(&path, text)
        } else {
            String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(text)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn prepare_reads_a_secret_and_keeps_no_value() {
    let harness = harness();
    prepare::run(granted(&harness)).await.unwrap();
    assert_eq!(harness.memory.secrets.calls(), ["value ci/db"]);
    assert_eq!(harness.memory.jobs.names().len(), 1);
    assert!(!holds(harness.dir.path(), VALUE) && holds(harness.dir.path(), "ci/db"));
    let spec = format!("{:?}", harness.memory.jobs.spec(&harness.id().to_string()).unwrap());
    assert!(!spec.contains(VALUE) && !harness.captured.text().contains(VALUE), "{spec}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_costs_no_instance() {
    for (kind, expected, told) in [
        (CloudErrorKind::NotFound, Kind::User, "there is no secret `ci/db`"),
        (CloudErrorKind::Denied, Kind::System, "`secrets.allow`"),
        (
            CloudErrorKind::Transient,
            Kind::System,
            "failed to read the secret `ci/db`, which `SAGEMAKER_SECRET_DB` asks for",
        ),
    ] {
        let harness = harness();
        harness.memory.secrets.plan([Fault::new("value", 1, When::Before, kind)]);
        let error = prepare::run(granted(&harness)).await.unwrap_err();
        assert_eq!(kind_of(&error), expected, "{}", render(&error));
        assert!(render(&error).contains(told), "{}", render(&error));
        assert!(harness.memory.jobs.names().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_in_what_the_api_shows_is_refused() {
    let mut harness = harness();
    harness.variables.insert("SAGEMAKER_ENV_URL", format!("https://{VALUE}@example.com"));
    let error = prepare::run(granted(&harness)).await.unwrap_err();
    let text = render(&error);
    assert!(
        text.contains("`SAGEMAKER_ENV_URL` holds the value of a masked variable") && !text.contains(VALUE),
        "{text}"
    );
    assert!(harness.memory.jobs.names().is_empty());
}

/// Its script would run without the value.
#[tokio::test(start_paused = true)]
async fn a_grant_that_is_withdrawn_ends_the_job_before_its_script() {
    let harness = harness();
    prepare::run(granted(&harness)).await.unwrap();
    let script = harness.script("train\n");
    let error = run::run(harness.context(), &script, "build_script").await.unwrap_err();
    assert_eq!(kind_of(&error), Kind::User);
    assert!(render(&error).contains("grants to no job"), "{}", render(&error));
    assert_eq!(harness.memory.secrets.count("value"), 1);
    assert!(harness.memory.objects.keys().iter().all(|key| !key.contains("/scripts/")));
}
