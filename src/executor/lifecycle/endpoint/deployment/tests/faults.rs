//! `endpoint deploy` when calls fail, answers are late, or the command is ended in a wait.

use super::*;
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fault, When};

/// Runs the command for so long, and ends it as a signal does.
async fn ended_after(desk: &EndpointDesk, time: Duration) {
    assert!(tokio::time::timeout(time, desk.deploy()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_ended_is_gone_on_with() {
    let desk = EndpointDesk::new().await;
    ended_after(&desk, Duration::from_mins(1)).await;
    assert_eq!(desk.record("00000001.end"), Value::Null);
    let ended = desk.deploy().await;
    assert!(ended.lines.contains("Going on with deployment 1 of wine"), "{}", ended.lines);
    assert_eq!(ended.good()["deployment_number"], 1);
    desk.version(2).await;
    ended_after(&desk, Duration::from_mins(3)).await;
    let data = desk.deploy().await.good();
    assert_eq!((&data["outcome"], &data["deployment_number"]), (&json!("updated"), &json!(2)));
    assert_eq!(desk.memory.serving.changes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_nobody_saw_is_told() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.memory.serving.fates([crate::cloud::testing::EndpointFate::Fails("no ping".to_owned())]);
    ended_after(&desk, Duration::from_mins(1)).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let ended = desk.deploy().await;
    assert!(ended.verdict() == 20 && ended.error.contains("no ping"), "{}", ended.error);
    assert_eq!(desk.record("00000002.end")["outcome"], "rolled-back");
}

#[tokio::test(start_paused = true)]
async fn another_deployment_takes_the_place_of_an_interrupted_one() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    ended_after(&desk, Duration::from_mins(1)).await;
    desk.version(3).await;
    let data = desk.deploy().await.good();
    assert_eq!((&data["outcome"], &data["deployment_number"]), (&json!("updated"), &json!(3)));
    assert_eq!(desk.record("00000002.end")["outcome"], "detached-superseded");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_over_leaves_the_deployment_to_aws() {
    let desk = EndpointDesk::new().await;
    desk.memory.serving.set_provisioning(Duration::from_mins(50));
    let ended = desk.run(&["deploy", "--timeout", "40min"]).await;
    assert!(ended.verdict() == 75 && ended.error.contains("it goes on at AWS"), "{}", ended.error);
    assert_eq!(desk.deploy().await.good()["deployment_number"], 1);
}

#[tokio::test(start_paused = true)]
async fn late_answers_are_waited_for() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.memory.serving.show_late(4);
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.changes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_capacity_ends_the_record_and_may_pass() {
    let desk = EndpointDesk::new().await;
    desk.memory.serving.plan([Fault::new("create_endpoint", 1, When::Before, CloudErrorKind::Capacity)]);
    let ended = desk.deploy().await;
    assert!(ended.kind == Some(Kind::System) && ended.error.contains("create_endpoint"), "{}", ended.error);
    assert_eq!(desk.record("00000001.end")["outcome"], "failed");
    assert_eq!(desk.deploy().await.good()["deployment_number"], 2);
}

#[tokio::test(start_paused = true)]
async fn calls_whose_answers_are_lost_are_made_once() {
    let desk = EndpointDesk::new().await;
    let lost = |method| Fault::new(method, 1, When::After, CloudErrorKind::Transient);
    desk.memory.serving.plan([lost("create_endpoint"), lost("endpoint")]);
    desk.deploy().await.good();
    desk.version(2).await;
    desk.memory.serving.plan([lost("update_endpoint")]);
    desk.deploy().await.good();
    assert_eq!(desk.memory.serving.changes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_way_back_that_was_interrupted_ends_as_it_would_have() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let (old, first) = (desk.in_service().await, desk.memory.serving.models()[0].name.clone());
    desk.answer(move |model| if model == first { "good" } else { "bad" });
    desk.version(2).await;
    let on_the_way_back = async {
        while desk.memory.serving.changes().len() < 2 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        ended = desk.deploy() => panic!("{}", ended.error),
        () = on_the_way_back => {}
    }
    let ended = desk.deploy().await;
    assert_eq!(ended.verdict(), 21, "{}", ended.error);
    assert_eq!(desk.in_service().await, old);
    assert_eq!(desk.record("00000002.end")["outcome"], "rolled-back-by-us");
}

#[tokio::test(start_paused = true)]
async fn scaling_comes_back_after_a_command_that_was_ended() {
    let desk = EndpointDesk::new().await;
    let scaling = json!({"min": 2, "max": 4, "target": 100});
    desk.manifest(|manifest| manifest["endpoint"]["autoscaling"] = scaling.clone());
    desk.deploy().await.good();
    desk.memory.account.set_quota("ml.m6g.large", 8.0);
    desk.manifest(|manifest| {
        manifest["endpoint"]["autoscaling"] = scaling;
        manifest["endpoint"]["instances"]["type"] = json!("ml.m6g.large");
    });
    ended_after(&desk, Duration::from_mins(1)).await;
    desk.deploy().await.good();
    assert!(!desk.memory.serving.changes()[0].keeps_counts);
    let variant = crate::cloud::ScaledVariant {
        endpoint: "wine".to_owned(),
        variant: "AllTraffic".to_owned(),
        quantity: crate::cloud::ScaledQuantity::Instances,
    };
    assert!(desk.memory.serving.scalable_target(&variant).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_denied_ends_no_record() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    let (old, first) = (desk.in_service().await, desk.memory.serving.models()[0].name.clone());
    desk.answer(move |model| if model == first { "good" } else { "bad" });
    desk.version(2).await;
    let update = async {
        while desk.memory.serving.changes().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        desk.memory.serving.plan([Fault::new("endpoint", 1, When::Before, CloudErrorKind::Denied)]);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = desk.deploy() => ended,
        () = update => unreachable!(),
    };
    assert!(ended.error.contains("endpoint"), "{}", ended.error);
    assert_eq!(desk.record("00000002.end"), Value::Null);
    assert_eq!(desk.deploy().await.verdict(), 21);
    assert_eq!(desk.in_service().await, old);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_answer_leaves_the_record_open() {
    let desk = EndpointDesk::new().await;
    desk.deploy().await.good();
    desk.version(2).await;
    desk.memory.serving.show_late(8);
    desk.memory.serving.plan([Fault::new("update_endpoint", 1, When::After, CloudErrorKind::Transient)]);
    // The update is under way, and the answers to the looks are late: each new request is refused.
    let ended = desk.deploy().await;
    assert!(ended.kind.is_some(), "{}", ended.lines);
    assert_eq!(desk.record("00000002.end"), Value::Null);
    assert_eq!(desk.deploy().await.good()["outcome"], "updated");
    assert_eq!(desk.memory.serving.changes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_of_looks_are_counted_in_a_row() {
    let desk = EndpointDesk::new().await;
    desk.memory.serving.set_provisioning(Duration::from_mins(25));
    // Each of them is followed by a look that succeeds.
    desk.memory
        .serving
        .plan((1..=15).map(|at| Fault::new("endpoint", 2 * at, When::Before, CloudErrorKind::Transient)));
    desk.deploy().await.good();
}
