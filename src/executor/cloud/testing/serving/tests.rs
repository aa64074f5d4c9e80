//! Tests of the fake of endpoints, in simulated time.

use super::*;
use crate::cloud::testing::Memory;
use crate::cloud::{
    AsynchronousOutput, AsynchronousRequest, CloudErrorKind, EndpointScaling as _, EndpointState, Inference as _,
    MetricAlarms as _, ModelEndpoints as _, RolloutSpec, ScaledQuantity, TrafficShift,
};

/// An endpoint `e` in service with configuration `c-1` of model `m-1`; `c-2` of `m-2` is there too.
async fn serving() -> Memory {
    let memory = Memory::new();
    let serving = &memory.serving;
    for number in [1, 2] {
        serving.create_model(&example_model(&format!("m-{number}"))).await.unwrap();
        serving.create_config(&example_config(&format!("c-{number}"), &format!("m-{number}"))).await.unwrap();
    }
    serving.create_endpoint(&example_endpoint("e", "c-1")).await.unwrap();
    assert_eq!(state(serving).await, EndpointState::Creating);
    pass(240).await;
    assert_eq!(state(serving).await, EndpointState::InService);
    memory
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn state(serving: &MemoryServing) -> EndpointState {
    serving.endpoint("e").await.unwrap().unwrap().state
}

fn canary() -> EndpointChange {
    let traffic = TrafficShift::Canary { percent: 20, wait: 300, termination_wait: 60 };
    let rollout = RolloutSpec { traffic, limit_seconds: 1800, alarms: vec!["errors".to_owned()] };
    EndpointChange { name: "e".to_owned(), config: "c-2".to_owned(), keeps_counts: false, rollout: Some(rollout) }
}

/// How many of a hundred requests model `m-2` answers.
async fn share(serving: &MemoryServing) -> usize {
    let request =
        InferenceRequest { endpoint: "e".to_owned(), content_type: String::new(), accept: None, body: "".into() };
    let before = serving.requests().len();
    for _ in 0..100 {
        serving.invoke(&request).await.unwrap();
    }
    serving.requests()[before..].iter().filter(|(model, _)| model == "m-2").count()
}

#[tokio::test(start_paused = true)]
async fn a_canary_moves_the_traffic_in_two_steps() {
    let memory = serving().await;
    let serving = &memory.serving;
    serving.update_endpoint(&canary()).await.unwrap();
    assert_eq!(serving.update_endpoint(&canary()).await.unwrap_err().kind, CloudErrorKind::Invalid);
    assert_eq!(share(serving).await, 0);
    pass(240).await;
    assert_eq!(share(serving).await, 20);
    let sight = serving.endpoint("e").await.unwrap().unwrap();
    assert_eq!((sight.config.as_str(), sight.pending_config.as_deref()), ("c-1", Some("c-2")));
    assert_eq!(sight.pending_variants[0].status.as_deref(), Some("Baking"));
    pass(300).await;
    assert_eq!(share(serving).await, 100);
    pass(359).await;
    assert_eq!(state(serving).await, EndpointState::Updating);
    pass(1).await;
    let sight = serving.endpoint("e").await.unwrap().unwrap();
    assert_eq!((sight.state, sight.config.as_str(), sight.pending_config), (EndpointState::InService, "c-2", None));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_brings_the_old_configuration_back() {
    for by_model in [true, false] {
        let memory = serving().await;
        let serving = &memory.serving;
        if by_model {
            serving.spoil("m-2", "errors");
            serving.set_alarm("errors", AlarmState::Ok);
        } else {
            serving.set_alarm_after("errors", Duration::from_mins(5), AlarmState::Alarm);
        }
        serving.update_endpoint(&canary()).await.unwrap();
        pass(299).await;
        assert_eq!(share(serving).await, 20);
        pass(1).await;
        assert_eq!(state(serving).await, EndpointState::RollingBack);
        assert_eq!(share(serving).await, 0);
        pass(240).await;
        let sight = serving.endpoint("e").await.unwrap().unwrap();
        assert_eq!((sight.state, sight.config.as_str()), (EndpointState::InService, "c-1"));
        assert!(sight.failure.unwrap().contains("errors"));
        let alarm = serving.alarms(&["errors".to_owned(), "absent".to_owned()]).await.unwrap();
        assert_eq!(alarm.len(), 1);
        assert_eq!(alarm[0].state == AlarmState::Ok, by_model);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_fail_as_planned_and_are_shown_late() {
    let memory = serving().await;
    let serving = &memory.serving;
    serving.fates([EndpointFate::Fails("no capacity".to_owned()), EndpointFate::RollbackFails("lost".to_owned())]);
    serving.show_late(2);
    serving.update_endpoint(&canary()).await.unwrap();
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(state(serving).await);
    }
    assert_eq!(states, [EndpointState::InService, EndpointState::InService, EndpointState::Updating]);
    pass(480).await;
    let sight = serving.endpoint("e").await.unwrap().unwrap();
    assert_eq!((sight.config.as_str(), sight.failure.as_deref()), ("c-1", Some("no capacity")));
    serving.show_late(0);
    serving.update_endpoint(&canary()).await.unwrap();
    pass(480).await;
    assert_eq!(state(serving).await, EndpointState::UpdateRollbackFailed);
    serving.delete_endpoint("e").await.unwrap();
    pass(60).await;
    assert_eq!(serving.endpoint("e").await.unwrap(), None);
    serving.fates([EndpointFate::Fails("no ping".to_owned())]);
    serving.create_endpoint(&example_endpoint("e", "c-1")).await.unwrap();
    pass(240).await;
    assert_eq!(state(serving).await, EndpointState::Failed);
    assert_eq!(serving.update_endpoint(&canary()).await.unwrap_err().kind, CloudErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_scaled_variant_keeps_its_type_and_its_count_on_demand() {
    let memory = serving().await;
    let serving = &memory.serving;
    let (endpoint, variant) = ("e".to_owned(), "AllTraffic".to_owned());
    let scaled = ScaledVariant { endpoint, variant, quantity: ScaledQuantity::Instances };
    serving.register(&scaled, &ScalableTarget { min: 2, max: 6 }).await.unwrap();
    serving.set_count("e", 5);
    let capacity = VariantCapacity::Instances { instance_type: "ml.m5.xlarge".to_owned(), count: 2 };
    let large = EndpointConfiguration { capacity, ..example_config("c-3", "m-2") };
    serving.create_config(&large).await.unwrap();
    let change = |config: &str, keeps_counts| EndpointChange { config: config.to_owned(), keeps_counts, ..canary() };
    let refused = serving.update_endpoint(&change("c-3", false)).await.unwrap_err();
    assert!(refused.message.contains("must be deregistered"), "{refused}");
    serving.update_endpoint(&change("c-2", true)).await.unwrap();
    pass(900).await;
    assert_eq!((state(serving).await, serving.instances("e")), (EndpointState::InService, Some(5)));
    serving.deregister(&scaled).await.unwrap();
    serving.update_endpoint(&change("c-3", false)).await.unwrap();
    pass(900).await;
    assert_eq!((state(serving).await, serving.instances("e")), (EndpointState::InService, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn an_asynchronous_endpoint_writes_its_answer() {
    let memory = serving().await;
    let places = AsynchronousOutput {
        output: "s3://memory/out".to_owned(),
        failures: None,
        max_concurrent: None,
        kms_key_id: None,
    };
    let config = EndpointConfiguration { asynchronous: Some(places), ..example_config("later", "m-1") };
    memory.serving.create_config(&config).await.unwrap();
    memory.serving.create_endpoint(&example_endpoint("later", "later")).await.unwrap();
    pass(240).await;
    memory.objects.insert("in/1", "x");
    let request = AsynchronousRequest {
        endpoint: "later".to_owned(),
        content_type: "text/csv".to_owned(),
        accept: None,
        input: "s3://memory/in/1".to_owned(),
    };
    let places = memory.serving.invoke_later(&request).await.unwrap();
    let written = memory.objects.contents(places.output.strip_prefix("s3://memory/").unwrap());
    assert_eq!(written.as_deref(), Some(b"m-1".as_slice()));
}
