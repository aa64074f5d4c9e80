//! `endpoint deploy` from the first endpoint to a rollback.

use super::*;
use crate::cloud::testing::EndpointFate;
use crate::cloud::{
    AlarmMetric, AlarmState, EndpointScaling as _, MetricAlarms as _, ModelSource, ScalableTarget, ScaledQuantity,
    ScaledVariant, TrafficShift,
};

fn variant() -> ScaledVariant {
    ScaledVariant { endpoint: "wine".to_owned(), variant: "AllTraffic".to_owned(), quantity: ScaledQuantity::Instances }
}

/// A desk with an endpoint in service, and a second version that answers `answer`.
async fn updated(answer: &'static str) -> (EndpointDesk, String) {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let first = desk.memory.serving.models()[0].name.clone();
    desk.answer(move |model| if model == first { "good" } else { answer });
    desk.version(2).await;
    let config = desk.in_service().await.unwrap();
    (desk, config)
}

#[tokio::test(start_paused = true)]
async fn the_first_deployment_makes_everything() {
    let desk = EndpointDesk::new().await;
    let data = desk.deploy().await.good();
    let config = desk.in_service().await.unwrap();
    assert_eq!(data["outcome"], "created");
    assert_eq!(data["endpoint_config_name"], config.as_str());
    assert_eq!(data["deployment_number"], 1);
    let model = desk.memory.serving.models().remove(0);
    assert_eq!(model.name.strip_prefix("wine-m-"), config.strip_prefix("wine-"));
    assert!(matches!(&model.source, ModelSource::Package(arn) if arn.ends_with(":model-package/wine/1")));
    assert_eq!(model.tags["sagemaker-executor:endpoint"], "wine");
    assert_eq!(model.tags["Project"], "wine");
    let alarms = desk.memory.serving.alarms(&["wine-5xx".to_owned(), "wine-latency".to_owned()]).await.unwrap();
    let latency = alarms[1].definition.clone().unwrap();
    assert_eq!((latency.metric, latency.threshold.to_bits()), (AlarmMetric::LatencyP95, 200_000_f64.to_bits()));
    let begin = desk.record("00000001.begin");
    assert_eq!((&begin["kind"], &begin["user"]["login"]), (&json!("deploy"), &json!("jane")));
    assert_eq!((&begin["from_config"], &begin["to_config"]), (&Value::Null, &json!(config)));
    let end = desk.record("00000001.end");
    assert_eq!((&end["outcome"], &end["test"]["is_good"]), (&json!("succeeded"), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_deployment_writes_nothing_in_few_calls() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let (writes, calls) = (desk.writes(), desk.calls());
    let began = tokio::time::Instant::now();
    let data = desk.deploy().await.good();
    assert_eq!((data["outcome"].as_str(), data["deployment_number"].as_u64()), (Some("unchanged"), Some(1)));
    assert_eq!(desk.writes(), writes);
    assert!(desk.calls() - calls <= 15, "{}", desk.calls() - calls);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_update_moves_traffic_as_the_manifest_says() {
    let (desk, old) = updated("good").await;
    let ended = desk.deploy().await;
    assert!(ended.lines.contains("wine: Updating to wine-"), "{}", ended.lines);
    let data = ended.good();
    assert_eq!((&data["outcome"], &data["previous_endpoint_config_name"]), (&json!("updated"), &json!(old)));
    let change = desk.memory.serving.changes().remove(0);
    let rollout = change.rollout.unwrap();
    assert_eq!(rollout.traffic, TrafficShift::Canary { percent: 50, wait: 120, termination_wait: 0 });
    assert_eq!(rollout.alarms, ["wine-5xx", "wine-latency"]);
    assert_eq!((rollout.limit_seconds, change.keeps_counts), (1920, false));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_sounds_brings_the_old_configuration_back() {
    let (desk, old) = updated("good").await;
    desk.memory.serving.log("wine", "Traceback: \u{1b}[2Kboom");
    desk.memory.serving.set_alarm_after("wine-5xx", Duration::from_mins(5), AlarmState::Alarm);
    let ended = desk.deploy().await;
    assert_eq!(ended.verdict(), 20, "{}", ended.error);
    for text in ["wine-5xx", "the alarm `wine-5xx` is on", "Traceback: \\x1b[2Kboom"] {
        assert!(ended.error.contains(text), "{}", ended.error);
    }
    assert_eq!(desk.in_service().await, Some(old.clone()));
    let end = desk.record("00000002.end");
    assert_eq!((&end["outcome"], &end["config"]), (&json!("rolled-back"), &json!(old)));
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_bring_the_old_configuration_back() {
    let (desk, old) = updated("bad").await;
    let ended = desk.deploy().await;
    assert_eq!(ended.verdict(), 21, "{}", ended.error);
    assert_eq!(ended.data()["endpoint_config_name"], old.as_str());
    assert_eq!(desk.in_service().await, Some(old));
    let back = desk.memory.serving.changes().pop().unwrap().rollout.unwrap();
    assert_eq!((back.traffic, back.alarms.len()), (TrafficShift::AllAtOnce { wait: 0, termination_wait: 0 }, 0));
    let end = desk.record("00000002.end");
    assert_eq!((&end["outcome"], &end["test"]["is_good"]), (&json!("rolled-back-by-us"), &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn a_person_is_needed_when_the_old_answers_are_wrong_too() {
    let (desk, old) = updated("bad").await;
    desk.answer(|_| "bad");
    let ended = desk.deploy().await;
    assert_eq!(ended.verdict(), 22, "{}", ended.error);
    assert!(ended.error.contains("does not answer the samples either"), "{}", ended.error);
    assert_eq!(desk.in_service().await, Some(old));
}

#[tokio::test(start_paused = true)]
async fn the_first_deployment_has_nothing_to_go_back_to() {
    let desk = EndpointDesk::new().await;
    desk.answer(|_| "bad");
    let ended = desk.deploy().await;
    assert_eq!(ended.verdict(), 10, "{}", ended.error);
    assert!(ended.error.contains("nothing to go back to") && desk.in_service().await.is_some(), "{}", ended.error);
    let desk = EndpointDesk::new().await;
    desk.answer(|_| "bad");
    let ended = desk.run(&["deploy", "--delete-failed"]).await;
    assert!(ended.verdict() == 10 && ended.error.contains("the endpoint was deleted"), "{}", ended.error);
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(desk.in_service().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_failed_is_made_again_on_demand() {
    let desk = EndpointDesk::new().await;
    desk.memory.serving.fates([EndpointFate::Fails("no ping".to_owned())]);
    let ended = desk.deploy().await;
    assert_eq!(ended.kind, Some(Kind::User), "{}", ended.error);
    assert!(ended.error.contains("no ping"), "{}", ended.error);
    assert_eq!(desk.record("00000001.end")["outcome"], "failed");
    let ended = desk.deploy().await;
    assert!(ended.verdict() == 1 && ended.error.contains("--replace-failed"), "{}", ended.error);
    assert_eq!(desk.run(&["deploy", "--replace-failed"]).await.good()["outcome"], "created");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_fails_needs_a_person() {
    let (desk, _) = updated("good").await;
    desk.memory.serving.fates([EndpointFate::RollbackFails("lost".to_owned())]);
    let ended = desk.deploy().await;
    assert!(ended.verdict() == 22 && ended.error.contains("AWS Support"), "{}", ended.error);
    let again = desk.deploy().await;
    assert!(again.verdict() == 22 && again.error.contains("UpdateRollbackFailed"), "{}", again.error);
}

#[tokio::test(start_paused = true)]
async fn counts_of_autoscaling_are_kept_and_its_target_leaves_for_another_type() {
    let desk = EndpointDesk::new().await;
    let scaling = json!({"min": 2, "max": 4, "target": 100});
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = scaling.clone());
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.scalable_target(&variant()), Some(ScalableTarget { min: 2, max: 4 }));
    desk.memory.serving.set_count("wine", 3);
    desk.version(2).await;
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.instances("wine"), Some(3));
    desk.memory.account.set_quota("ml.m6g.large", 8.0);
    desk.manifest(|manifest| {
        manifest["endpoint"]["autoscaling"] = scaling;
        manifest["endpoint"]["instances"]["type"] = json!("ml.m6g.large");
    });
    assert_eq!(desk.deploy().await.good()["outcome"], "updated");
    let changes = desk.memory.serving.changes();
    assert_eq!(changes.iter().map(|change| change.keeps_counts).collect::<Vec<_>>(), [true, false]);
    assert_eq!(desk.memory.serving.policies(&variant()).await.unwrap().len(), 1);
    assert_eq!(desk.memory.serving.scalable_target(&variant()), Some(ScalableTarget { min: 2, max: 4 }));
}

#[tokio::test(start_paused = true)]
async fn scaling_comes_back_after_a_rollback() {
    let desk = EndpointDesk::new().await;
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": 4, "target": 100}));
    desk.deploy().await.good();
    desk.memory.account.set_quota("ml.m6g.large", 20.0);
    desk.manifest(|manifest| {
        manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": 6, "target": 100});
        manifest["endpoint"]["instances"]["type"] = json!("ml.m6g.large");
    });
    desk.memory.serving.fates([EndpointFate::Fails("no ping".to_owned())]);
    assert_eq!(desk.deploy().await.verdict(), 20);
    assert_eq!(desk.memory.serving.scalable_target(&variant()), Some(ScalableTarget { min: 2, max: 4 }));
}

#[tokio::test(start_paused = true)]
async fn a_plan_writes_nothing_and_says_everything() {
    let (desk, old) = updated("good").await;
    let writes = desk.writes();
    let plan = desk.run(&["deploy", "--plan"]).await.good();
    assert_eq!(desk.writes(), writes);
    assert_eq!((&plan["changes"], &plan["from"], &plan["longest_seconds"]), (&json!(true), &json!(old), &json!(1920)));
    assert_eq!(plan["most_instances"], 4);
    let steps: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert_eq!(steps, ["create", "create", "keep", "keep", "update"]);
    let text = desk.run_with_output("prod", &["deploy", "--plan"], "text").await.out;
    for line in [
        "wine: changes",
        "  traffic        moves to 50 % of the instances first, which is watched for 2 min; then to the rest, and the old instances end at once",
        "  longest        32 min",
        "  instances      up to 4 of ml.m5.large at once during the deployment",
        "  alarms         wine-5xx, wine-latency",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{text}");
    }
    desk.deploy().await.good();
    assert_eq!(desk.run(&["deploy", "--plan"]).await.good()["changes"], false);
}

#[tokio::test(start_paused = true)]
async fn old_configurations_are_deleted_beyond_the_kept_ones() {
    let desk = EndpointDesk::new().await;
    let mut ended = Vec::new();
    for count in 2..16 {
        desk.memory.account.set_quota("ml.m5.large", 100.0);
        desk.manifest(|manifest| manifest["endpoint"]["instances"]["count"] = json!(count));
        ended.push(desk.run(&["deploy", "--keep", "2"]).await.good());
    }
    // The newest ten deployments of the ledger name eleven.
    assert_eq!((desk.memory.serving.all_configs().len(), desk.memory.serving.models().len()), (11, 11));
}

#[tokio::test(start_paused = true)]
async fn outside_of_production_a_version_needs_no_approval() {
    let desk = EndpointDesk::new().await;
    desk.pending_version(2).await;
    desk.run_in("dev", &["deploy"]).await.good();
    let model = desk.memory.serving.models().remove(0);
    assert!(matches!(&model.source, ModelSource::Container { image, .. } if image.contains("@sha256:2222")));
    assert_eq!(model.environment["LEVEL"], "1");
}

#[tokio::test(start_paused = true)]
async fn scaling_that_the_manifest_has_no_more_is_removed() {
    let desk = EndpointDesk::new().await;
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": 4, "target": 100}));
    desk.deploy().await.good();
    desk.manifest(|_| {});
    assert_eq!(desk.deploy().await.good()["outcome"], "adjusted");
    assert_eq!(desk.memory.serving.scalable_target(&variant()), None);
    assert_eq!(desk.deploy().await.good()["outcome"], "unchanged");
}

#[tokio::test(start_paused = true)]
async fn alarms_follow_the_manifest() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.manifest(|manifest| manifest["endpoint"]["alarms"]["errors_5xx"] = json!(1));
    assert_eq!(desk.deploy().await.good()["outcome"], "adjusted");
    let alarms = desk.memory.serving.alarms(&["wine-5xx".to_owned()]).await.unwrap();
    assert_eq!(alarms[0].definition.as_ref().unwrap().threshold.to_bits(), 1_f64.to_bits());
}
