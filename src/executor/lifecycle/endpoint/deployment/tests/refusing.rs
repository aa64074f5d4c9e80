//! Preconditions of `endpoint deploy`: nothing is written, and all are told at once.

use super::*;
use crate::cloud::testing::{example_config, example_endpoint, example_model};
use crate::cloud::{AlarmState, EndpointConfiguration, ModelEndpoints as _};

type Change = fn(&mut EndpointConfiguration);

/// A desk whose endpoint was made by somebody else.
async fn foreign(change: impl FnOnce(&mut EndpointConfiguration)) -> EndpointDesk {
    let desk = EndpointDesk::new().await;
    let serving = &desk.memory.serving;
    serving.create_model(&example_model("m")).await.unwrap();
    let mut config = EndpointConfiguration { name: "c".to_owned(), ..example_config("c", "m") };
    change(&mut config);
    serving.create_config(&config).await.unwrap();
    serving.create_endpoint(&example_endpoint("wine", "c")).await.unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    desk
}

async fn refused(desk: &EndpointDesk, words: &[&str]) -> Ended {
    let writes = desk.writes();
    let ended = desk.run(words).await;
    assert_eq!(desk.writes(), writes, "{}", ended.error);
    ended
}

#[tokio::test(start_paused = true)]
async fn everything_that_does_not_hold_is_told_at_once() {
    let desk = EndpointDesk::new().await;
    let arn = desk.pending_version(2).await;
    desk.memory.account.set_quota("ml.m5.large", 1.0);
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    desk.manifest(|manifest| {
        manifest["endpoint"]["alarms"]["names"] = json!(["absent"]);
    });
    let ended = refused(&desk, &["deploy", "--model-package", &arn, "--timeout", "10min"]).await;
    assert_eq!(ended.verdict(), 1, "{}", ended.error);
    for text in [
        "5 preconditions do not hold",
        "the status of arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/2 is PendingManualApproval",
        "`--timeout` is 10 min, and SageMaker may take 32 min",
        "there is no alarm `absent`",
        "the alarm `wine-5xx` is on, and would roll the deployment back at once",
        "the quota of ml.m5.large for endpoints is 1, and the deployment needs up to 2",
    ] {
        assert!(ended.error.contains(text), "{text}: {}", ended.error);
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_is_missing_has_its_own_exit_code() {
    let desk = EndpointDesk::new().await;
    desk.pending_version(2).await;
    assert_eq!(refused(&desk, &["deploy", "--latest"]).await.verdict(), 30);
    desk.memory.registry.change("arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/2", |version| {
        version.approval = crate::cloud::Approval::Approved;
    });
    let outside = refused(&desk, &["deploy", "--latest"]).await;
    assert!(outside.verdict() == 30 && outside.error.contains("outside of this program"), "{}", outside.error);
    // The newest approved one by its records is not looked for: the status decides what is found.
    assert_eq!(refused(&desk, &["deploy"]).await.verdict(), 30);
    let raised = EndpointDesk::new().await.with([("CI_ENVIRONMENT_TIER", "production")]);
    raised.pending_version(2).await;
    assert_eq!(raised.run_in("dev", &["deploy", "--latest"]).await.verdict(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_somebody_else_is_left_alone() {
    let desk = foreign(|_| {}).await;
    let ended = refused(&desk, &["deploy"]).await;
    assert!(ended.verdict() == 1 && ended.error.contains("--adopt"), "{}", ended.error);
    assert_eq!(desk.run(&["deploy", "--adopt"]).await.good()["previous_endpoint_config_name"], "c");
    // The configuration in service is of this program now.
    assert_eq!(desk.deploy().await.good()["outcome"], "unchanged");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_another_project_is_left_alone() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let desk = desk.with([("CI_PROJECT_PATH", "group/other")]);
    let ended = refused(&desk, &["deploy"]).await;
    assert!(ended.verdict() == 1 && ended.error.contains("is of the project"), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn configurations_that_this_program_cannot_bring_back_are_refused() {
    let changes: [(Change, &str); 4] = [
        (|config| config.variants = 2, "has 2 variants"),
        (|config| config.model.clear(), "has inference components"),
        (|config| config.variant = "blue".to_owned(), "the variant of c is `blue`"),
        (
            |config| {
                config.capacity = crate::cloud::VariantCapacity::Serverless {
                    memory_mb: 1024,
                    max_concurrency: 1,
                    provisioned_concurrency: None,
                };
            },
            "between instances and serverless",
        ),
    ];
    for (change, text) in changes {
        let desk = EndpointDesk::new().await;
        desk.deploy().await.good();
        // Somebody changed the endpoint meanwhile.
        let mut config = example_config("c", &desk.memory.serving.models()[0].name);
        change(&mut config);
        let name = desk.in_service().await.unwrap();
        desk.memory.serving.delete_config(&name).await.unwrap();
        let is_without_model = config.model.is_empty();
        if is_without_model {
            desk.memory.serving.create_model(&example_model("")).await.unwrap();
        }
        desk.memory.serving.create_config(&EndpointConfiguration { name, ..config }).await.unwrap();
        let version = desk.version(2).await;
        let ended = refused(&desk, &["deploy", "--model-package", &version]).await;
        let text = text.replace("of c ", "of wine-");
        assert!(ended.verdict() == 1 && ended.error.contains(text.split("wine-").next().unwrap()), "{}", ended.error);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_version_needs_must_be_there() {
    let desk = EndpointDesk::new().await;
    desk.memory.objects.expire("models/1/model.tar.gz");
    let ended = refused(&desk, &["deploy"]).await;
    assert!(
        ended.verdict() == 1 && ended.error.contains("there is no model at s3://memory/models/1/"),
        "{}",
        ended.error
    );
}

#[tokio::test(start_paused = true)]
async fn the_job_ends_after_the_command() {
    let desk = EndpointDesk::new().await.with([("CI_JOB_TIMEOUT", "1800")]);
    let ended = refused(&desk, &["deploy"]).await;
    assert!(ended.verdict() == 1 && ended.error.contains("`--timeout` is 29 min"), "{}", ended.error);
    let ended = refused(&desk, &["deploy", "--timeout", "1h"]).await;
    assert!(ended.error.contains("the job ends after 30 min"), "{}", ended.error);
}
