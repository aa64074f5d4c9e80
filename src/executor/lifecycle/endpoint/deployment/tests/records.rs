//! Records of the ledger that a job wrote by itself, and records that another command ends meanwhile.

use super::*;
use crate::cloud::{EndpointScaling as _, ScalableTarget, ScaledQuantity, ScaledVariant};

const ROLLBACK: [&str; 3] = ["rollback", "--reason", "wrong prices"];

impl EndpointDesk {
    /// Writes the begin of another deployment, like that of the first one but for a change.
    fn plant(&self, number: u32, change: impl FnOnce(&mut Value)) {
        let mut begin = self.record("00000001.begin");
        change(&mut begin);
        self.memory.objects.insert(&format!("deployments/wine/{number:08}.begin.json"), begin.to_string());
    }

    /// As [`plant`](Self::plant), of a deployment that succeeded.
    fn plant_good(&self, number: u32, change: impl FnOnce(&mut Value)) {
        self.plant(number, change);
        let end = self.record("00000001.end").to_string();
        self.memory.objects.insert(&format!("deployments/wine/{number:08}.end.json"), end);
    }
}

fn scaled(endpoint: &str) -> ScaledVariant {
    let variant = "AllTraffic".to_owned();
    ScaledVariant { endpoint: endpoint.to_owned(), variant, quantity: ScaledQuantity::Instances }
}

/// The endpoint before a deployment, with this scaling.
fn before(endpoint: &str, max: u32) -> Value {
    let scaling = json!({
        "endpoint": endpoint, "variant": "AllTraffic", "of_concurrency": false, "min": max, "max": max, "policies": [],
    });
    json!({"modified": null, "scaling": scaling})
}

#[tokio::test(start_paused = true)]
async fn a_record_scales_no_other_endpoint_and_has_bounds() {
    for (endpoint, max, why) in [("victim", 5, "is of another endpoint"), ("wine", 5000, "is out of bounds")] {
        let desk = EndpointDesk::new().await;
        desk.deploy().await.good();
        desk.plant(2, |begin| {
            begin["to_config"] = json!("x");
            begin["before"] = before(endpoint, max);
        });
        desk.version(2).await;
        let writes = desk.writes();
        for words in [&["deploy"][..], &ROLLBACK] {
            let ended = desk.run(words).await;
            assert!(ended.kind == Some(Kind::User) && ended.error.contains(why), "{}", ended.error);
            assert!(ended.error.contains("deployments/wine/00000002.begin.json"), "{}", ended.error);
        }
        assert_eq!(desk.writes(), writes);
        assert_eq!(desk.memory.serving.scalable_target(&scaled(endpoint)), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_scaling_that_aws_shows_is_stronger_than_a_record() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let limits = ScalableTarget { min: 2, max: 4 };
    desk.memory.serving.register(&scaled("wine"), &limits).await.unwrap();
    desk.version(2).await;
    let to = desk.run(&["deploy", "--plan"]).await.good()["to"].clone();
    // Of another deployment, and of this one.
    desk.plant(2, |begin| {
        begin["to_config"] = json!("wine-0123456789ab");
        begin["before"] = before("wine", 50);
    });
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.scalable_target(&scaled("wine")), Some(limits));
    desk.plant(4, |begin| {
        begin["from_config"] = begin["to_config"].clone();
        begin["to_config"] = to;
        begin["before"] = before("wine", 50);
    });
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.scalable_target(&scaled("wine")), Some(limits));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_a_deployment_and_takes_its_end() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let first = desk.in_service().await;
    desk.version(2).await;
    let rollback = async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        desk.run(&ROLLBACK).await
    };
    let (deployed, back) = tokio::join!(desk.deploy(), rollback);
    deployed.good();
    assert_eq!(back.good()["outcome"], "brought_back");
    assert_eq!(desk.in_service().await, first);
    assert_eq!(desk.record("00000002.end")["outcome"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_waits_for_another_one_and_takes_its_end() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    let later = async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        desk.version(3).await;
        desk.deploy().await
    };
    let (deployed, later) = tokio::join!(desk.deploy(), later);
    deployed.good();
    assert_eq!(later.good()["deployment_number"], 3);
    assert_eq!(desk.record("00000002.end")["outcome"], "succeeded");
}

/// The record of a rollback is none of a deployment: bad answers must not bring back what the rollback removed.
#[tokio::test(start_paused = true)]
async fn a_deployment_does_not_go_on_with_a_rollback() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let first = desk.in_service().await;
    desk.version(2).await;
    desk.deploy().await.good();
    assert!(tokio::time::timeout(Duration::from_mins(1), desk.run(&ROLLBACK)).await.is_err());
    desk.answer(|_| "bad");
    let ended = desk.run(&["deploy", "--version", "1"]).await;
    assert_eq!(ended.verdict(), 10, "{}", ended.error);
    assert_eq!(desk.in_service().await, first);
    assert_eq!(desk.record("00000003.end")["outcome"], "detached-superseded");
}

/// A record that names an approved version, and the configuration of another endpoint with a pending one.
#[tokio::test(start_paused = true)]
async fn a_record_brings_back_no_configuration_of_another_endpoint() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.pending_version(2).await;
    desk.manifest(|manifest| manifest["endpoint"]["name"] = json!("mine"));
    desk.run_in("dev", &["deploy"]).await.good();
    desk.manifest(|_| {});
    let other = desk.memory.serving.endpoint("mine").await.unwrap().unwrap().config;
    desk.plant_good(9, |begin| {
        begin["to_config"] = json!(other);
        begin["to_model"] = Value::Null;
    });
    desk.plant_good(10, |begin| begin["from_config"] = json!(other));
    let (own, writes) = (desk.in_service().await, desk.writes());
    for to in ["9", "previous"] {
        let ended = desk.run(&[&ROLLBACK[..], &["--to", to]].concat()).await;
        let why = format!("{other} was not made by this program for the endpoint wine");
        assert!(ended.verdict() == 1 && ended.error.contains(&why), "{}", ended.error);
    }
    assert_eq!((desk.in_service().await, desk.writes()), (own, writes));
}

#[tokio::test(start_paused = true)]
async fn a_record_brings_back_no_configuration_of_another_environment() {
    let desk = EndpointDesk::new().await;
    desk.run_in("dev", &["deploy"]).await.good();
    let of_dev = desk.in_service().await;
    desk.run(&["deploy", "--adopt"]).await.good();
    let ended = desk.run(&ROLLBACK).await;
    assert!(ended.error.contains("was made for dev, not for prod"), "{}", ended.error);
    assert_ne!(desk.in_service().await, of_dev);
}

#[tokio::test(start_paused = true)]
async fn a_record_gives_a_model_no_other_version() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.deploy().await.good();
    let config = desk.record("00000002.begin")["to_config"].clone();
    desk.plant_good(3, |begin| begin["to_config"] = config);
    let ended = desk.run(&[&ROLLBACK[..], &["--to", "3"]].concat()).await;
    assert!(ended.verdict() == 1 && ended.error.contains("and its model is of arn:"), "{}", ended.error);
}

/// Wrong answers must not bring back what a record names as the configuration before.
#[tokio::test(start_paused = true)]
async fn a_deployment_goes_back_to_no_configuration_of_another_endpoint() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.manifest(|manifest| manifest["endpoint"]["name"] = json!("mine"));
    desk.deploy().await.good();
    desk.manifest(|_| {});
    let other = desk.memory.serving.endpoint("mine").await.unwrap().unwrap().config;
    desk.plant(2, |begin| begin["from_config"] = json!(other));
    desk.answer(|_| "bad");
    let own = desk.in_service().await;
    let ended = desk.deploy().await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("00000002.begin.json"), "{}", ended.error);
    assert_eq!(desk.in_service().await, own);
}

/// The alarm of a record may belong to somebody who turns it on.
#[tokio::test(start_paused = true)]
async fn a_record_names_no_alarm_of_another_endpoint() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.deploy().await.good();
    desk.memory.serving.set_alarm("mine", crate::cloud::AlarmState::Ok);
    let first = desk.record("00000001.begin");
    desk.plant_good(3, |begin| begin["serving"]["alarms"] = json!(["mine", "wine-5xx"]));
    assert_eq!(first["to_config"], desk.record("00000003.begin")["to_config"]);
    desk.run(&[&ROLLBACK[..], &["--to", "3"]].concat()).await.good();
    assert_eq!(desk.memory.serving.changes().pop().unwrap().rollout.unwrap().alarms, ["wine-5xx"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_has_no_other_version_rejected() {
    let desk = EndpointDesk::new().await.with_token();
    let first = desk.version(1).await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.deploy().await.good();
    let from = desk.record("00000001.begin")["to_config"].clone();
    let other = desk.pending_version(3).await;
    desk.plant_good(3, |begin| {
        *begin = desk.record("00000002.begin");
        begin["model_package"] = json!(other);
    });
    assert_eq!(desk.record("00000003.begin")["from_config"], from, "{first}");
    let ended = desk.run(&[&ROLLBACK[..], &["--reject"]].concat()).await;
    assert!(ended.error.contains("and the tags of wine-"), "{}", ended.error);
}
