//! `endpoint deploy` beside other commands, other environments, autoscaling, and people who change the endpoint by hand.

use super::*;
use crate::cloud::testing::{EndpointFate, Fault};
use crate::cloud::{
    AlarmState, EndpointChange, EndpointScaling as _, ScalableTarget, ScaledQuantity, ScaledVariant, ScalingPolicy,
    ScalingPolicyKind,
};

fn variant() -> ScaledVariant {
    ScaledVariant { endpoint: "wine".to_owned(), variant: "AllTraffic".to_owned(), quantity: ScaledQuantity::Instances }
}

/// A desk with version 1 in service, whose model alone answers well, and version 2.
async fn spoiled() -> EndpointDesk {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let first = desk.memory.serving.models()[0].name.clone();
    desk.answer(move |model| if model == first { "good" } else { "bad" });
    desk.version(2).await;
    desk
}

/// Runs the command until another thing has happened, and kills it then.
async fn killed_after(desk: &EndpointDesk, words: &[&str], event: impl Future<Output = ()>) {
    tokio::select! {
        ended = desk.run(words) => panic!("{}{}", ended.lines, ended.error),
        () = event => {}
    }
}

async fn updates(desk: &EndpointDesk, number: usize) {
    while desk.memory.serving.changes().len() < number {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_environment_takes_no_endpoint_over() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let old = desk.in_service().await;
    desk.pending_version(2).await;
    let ended = desk.run_in("dev", &["deploy", "--latest"]).await;
    assert_eq!(ended.verdict(), 1, "{}", ended.error);
    assert!(ended.error.contains("is of the environment"), "{}", ended.error);
    assert!(ended.error.contains("--adopt"), "{}", ended.error);
    // Nor with a version that nobody approved.
    let ended = desk.run_in("dev", &["deploy", "--latest", "--adopt"]).await;
    assert!(ended.verdict() == 30 && ended.error.contains("PendingManualApproval"), "{}", ended.error);
    assert_eq!(desk.in_service().await, old);
    desk.run_in("dev", &["deploy", "--version", "1", "--adopt"]).await.good();
    assert_eq!(desk.deploy().await.verdict(), 1);
}

#[tokio::test(start_paused = true)]
async fn outside_of_production_a_version_comes_back_whose_approval_was_taken_back() {
    let desk = EndpointDesk::new().await;
    let arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/1";
    desk.run_in("dev", &["deploy"]).await.good();
    desk.version(2).await;
    desk.run_in("dev", &["deploy"]).await.good();
    desk.memory.registry.change(arn, |version| version.approval = Approval::Pending);
    desk.run_in("dev", &["rollback", "--reason", "slow"]).await.good();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_names_no_project_takes_no_endpoint_of_one() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let desk = desk.with([("CI_PROJECT_PATH", "")]);
    desk.version(2).await;
    let ended = desk.deploy().await;
    assert!(ended.verdict() == 1 && ended.error.contains("is of the project"), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_goes_on_with_no_rollback() {
    let desk = spoiled().await;
    desk.answer(|_| "good");
    desk.deploy().await.good();
    killed_after(&desk, &["rollback", "--reason", "it is dangerous"], updates(&desk, 2)).await;
    desk.answer(|_| "bad");
    let ended = desk.run(&["deploy", "--version", "1"]).await;
    assert_eq!(ended.verdict(), 10, "{}", ended.error);
    assert_eq!(json!(desk.in_service().await), desk.record("00000001.begin")["to_config"]);
    assert_eq!(desk.record("00000003.end")["outcome"], "detached-superseded");
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_job_counts_from_its_start() {
    let started = [("CI_JOB_TIMEOUT", "3600"), ("CI_JOB_STARTED_AT", "1970-01-01T11:30:00Z")];
    let ended = EndpointDesk::new().await.with(started).run(&["deploy", "--timeout", "40min"]).await;
    assert!(ended.error.contains("the job ends after 30 min"), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn counts_are_kept_beside_policies_of_another_form() {
    let desk = EndpointDesk::new().await;
    desk.memory.account.set_quota("ml.m5.large", 20.0);
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": 4, "target": 100}));
    desk.deploy().await.good();
    let steps = ScalingPolicy { name: "mine".to_owned(), kind: ScalingPolicyKind::Other };
    desk.memory.serving.put_policy(&variant(), &steps).await.unwrap();
    desk.memory.serving.set_count("wine", 3);
    desk.version(2).await;
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.instances("wine"), Some(3));
    assert_eq!(desk.memory.serving.policies(&variant()).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn scaling_comes_back_with_an_endpoint_that_is_made_again() {
    let desk = EndpointDesk::new().await;
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": 4, "target": 100}));
    desk.memory.serving.fates([EndpointFate::Fails("no ping".to_owned())]);
    desk.deploy().await;
    let serving = &desk.memory.serving;
    serving.register(&variant(), &ScalableTarget { min: 2, max: 4 }).await.unwrap();
    let kind = ScalingPolicyKind::Tracking {
        metric: "SageMakerVariantInvocationsPerInstance".to_owned(),
        target: 100.0,
        scale_in_cooldown: None,
        scale_out_cooldown: None,
    };
    serving.put_policy(&variant(), &ScalingPolicy { name: "wine-target".to_owned(), kind }).await.unwrap();
    desk.run(&["deploy", "--replace-failed"]).await.good();
    assert_eq!(serving.scalable_target(&variant()), Some(ScalableTarget { min: 2, max: 4 }));
}

#[tokio::test(start_paused = true)]
async fn scaling_is_removed_for_a_type_that_nobody_knows() {
    let desk = EndpointDesk::new().await;
    let scaling = json!({"min": 2, "max": 4, "target": 100});
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = scaling.clone());
    desk.deploy().await.good();
    desk.memory.serving.delete_config(&desk.in_service().await.unwrap()).await.unwrap();
    desk.memory.account.set_quota("ml.m6g.large", 8.0);
    desk.manifest(|manifest| {
        manifest["endpoint"]["autoscaling"] = scaling;
        manifest["endpoint"]["instances"]["type"] = json!("ml.m6g.large");
    });
    desk.deploy().await.good();
    assert!(desk.memory.serving.calls().iter().any(|call| call.starts_with("deregister")));
    assert_eq!(desk.memory.serving.scalable_target(&variant()), Some(ScalableTarget { min: 2, max: 4 }));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_is_no_victim_of_its_own_alarm() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    assert_eq!(desk.deploy().await.verdict(), 30);
    desk.memory.serving.set_alarm_after("wine-5xx", Duration::from_mins(1), AlarmState::Ok);
    desk.manifest(|manifest| manifest["endpoint"]["alarms"]["errors_5xx"] = json!(50));
    desk.deploy().await.good();
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_stays_on_with_its_new_limit_stops_the_deployment() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.manifest(|manifest| manifest["endpoint"]["alarms"]["errors_5xx"] = json!(1));
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    let ended = desk.deploy().await;
    assert!(ended.verdict() == 30 && ended.error.contains("`wine-5xx` is on"), "{}", ended.error);
    assert!(desk.memory.serving.changes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_the_manifest_has_no_more_is_deleted() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.memory.serving.set_alarm("wine-of-somebody", AlarmState::Ok);
    desk.manifest(|manifest| manifest["endpoint"]["alarms"] = json!({"errors_5xx": 5}));
    let plan = desk.run(&["deploy", "--plan"]).await.good();
    assert!(plan["steps"].to_string().contains("alarm wine-latency, which the manifest has no more"), "{plan}");
    assert_eq!(desk.deploy().await.good()["outcome"], "adjusted");
    assert_eq!(desk.memory.serving.alarm_names(), ["wine-5xx", "wine-of-somebody"]);
    desk.manifest(|manifest| manifest["endpoint"]["alarms"] = json!({}));
    desk.version(2).await;
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.alarm_names(), ["wine-of-somebody"]);
}

#[tokio::test(start_paused = true)]
async fn a_repair_by_hand_while_samples_are_sent_is_left_alone() {
    for answer in ["good", "bad"] {
        let desk = spoiled().await;
        desk.answer(|_| "good");
        let first = desk.in_service().await.unwrap();
        desk.deploy().await.good();
        desk.version(3).await;
        desk.answer(move |_| answer);
        desk.memory.serving.plan([Fault::slow("invoke", Duration::from_secs(50))]);
        let by_hand = async {
            updates(&desk, 2).await;
            desk.memory.serving.set_provisioning(Duration::from_secs(5));
            while desk.in_service().await != desk.record("00000003.begin")["to_config"].as_str().map(str::to_owned) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // The command has seen it, and waits for the answer.
            tokio::time::sleep(Duration::from_secs(30)).await;
            let change =
                EndpointChange { name: "wine".to_owned(), config: first.clone(), keeps_counts: false, rollout: None };
            desk.memory.serving.update_endpoint(&change).await.unwrap();
        };
        let (ended, ()) = tokio::join!(desk.deploy(), by_hand);
        assert_eq!(ended.kind, Some(Kind::User), "{}{}", ended.lines, ended.error);
        assert!(ended.error.contains("was displaced"), "{}", ended.error);
        assert_eq!(desk.in_service().await.as_deref(), Some(first.as_str()));
        let end = desk.record("00000003.end");
        assert_eq!((&end["outcome"], &end["config"]), (&json!("failed"), &json!(first)));
        assert_eq!(desk.memory.serving.changes().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_back_that_was_killed_brings_nothing_rejected_into_service() {
    for later in [0, 3600] {
        let desk = spoiled().await;
        let old = desk.in_service().await;
        killed_after(&desk, &["deploy"], updates(&desk, 2)).await;
        tokio::time::sleep(Duration::from_secs(later)).await;
        let ended = desk.deploy().await;
        assert_eq!(ended.verdict(), 21, "{}{}", ended.lines, ended.error);
        assert_eq!(desk.in_service().await, old);
        assert_eq!(desk.memory.serving.changes().len(), 2);
        let end = desk.record("00000002.end");
        assert_eq!((&end["outcome"], &end["test"]["is_good"]), (&json!("rolled-back-by-us"), &json!(false)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_back_has_a_time_of_its_own() {
    let desk = spoiled().await;
    desk.memory.serving.set_provisioning(Duration::from_mins(20));
    let ended = desk.run(&["deploy", "--timeout", "33min"]).await;
    assert_eq!(ended.verdict(), 21, "{}{}", ended.lines, ended.error);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_version_stops_no_way_back() {
    let desk = spoiled().await;
    let arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/2";
    killed_after(&desk, &["deploy", "--version", "2"], updates(&desk, 2)).await;
    desk.memory.registry.change(arn, |version| version.approval = Approval::Rejected);
    let ended = desk.run(&["deploy", "--version", "2"]).await;
    assert_eq!(ended.verdict(), 21, "{}{}", ended.lines, ended.error);
}

#[tokio::test(start_paused = true)]
async fn a_planted_record_names_no_configuration_to_go_back_to() {
    let desk = spoiled().await;
    killed_after(&desk, &["deploy"], updates(&desk, 1)).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let model = &desk.memory.serving.models()[0].name;
    desk.memory.serving.create_config(&crate::cloud::testing::example_config("planted", model)).await.unwrap();
    let mut begin = desk.record("00000002.begin");
    begin["from_config"] = json!("planted");
    desk.memory.objects.insert("deployments/wine/00000002.begin.json", begin.to_string());
    for words in [["deploy", "--version", "2"], ["deploy", "--latest", "--keep=2"]] {
        let ended = desk.run(&words).await;
        assert!(ended.kind == Some(Kind::User) && ended.error.contains("planted"), "{}", ended.error);
    }
    assert_eq!(desk.memory.serving.changes().len(), 1);
}
