//! `endpoint rollback`, after deployments.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64_simd::URL_SAFE_NO_PAD;

use super::*;
use crate::cloud::testing::{EndpointFate, FaultDecision, Watch, When};
use crate::cloud::{AlarmState, ModelEndpoints as _, ScalableTarget, ScaledQuantity, ScaledVariant, TrafficShift};

const ROLLBACK: [&str; 3] = ["rollback", "--reason", "wrong prices"];

impl EndpointDesk {
    /// Versions 1 to `last` were deployed one after the other.
    async fn after(last: u8) -> Self {
        let desk = Self::new().await;
        desk.deploys(1..=last).await;
        desk
    }

    async fn deploys(&self, versions: std::ops::RangeInclusive<u8>) {
        for version in versions {
            if version > 1 {
                self.version(version).await;
            }
            self.deploy().await.good();
        }
    }

    async fn rollback(&self, words: &[&str]) -> Ended {
        self.run(&[&ROLLBACK[..], words].concat()).await
    }

    /// The configuration that a deployment brought into service.
    fn config_of(&self, number: u32) -> Value {
        self.record(&format!("{number:08}.begin"))["to_config"].clone()
    }

    pub(super) fn with_token(self) -> Self {
        let claims = json!({"iss": "https://gitlab.example", "user_id": "42", "user_login": "jane", "pipeline_id": "7", "job_id": "8"});
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode_to_string(claims.to_string()));
        self.with([("SAGEMAKER_ID_TOKEN", &token), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rollback")])
    }
}

/// The scaled variant of the endpoint.
fn scaled() -> ScaledVariant {
    ScaledVariant { endpoint: "wine".to_owned(), variant: "AllTraffic".to_owned(), quantity: ScaledQuantity::Instances }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_comes_back_once() {
    let desk = EndpointDesk::after(2).await;
    let data = desk.rollback(&[]).await.good();
    assert_eq!((&data["outcome"], &data["deployment_number"]), (&json!("brought_back"), &json!(3)));
    assert_eq!(json!(desk.in_service().await), desk.config_of(1));
    let (begin, end) = (desk.record("00000003.begin"), desk.record("00000003.end"));
    assert_eq!(
        (&begin["kind"], &begin["target"], &begin["reason"]),
        (&json!("rollback"), &json!(1), &json!("wrong prices"))
    );
    assert_eq!(begin["model_package"], desk.record("00000001.begin")["model_package"]);
    assert_eq!((&end["outcome"], &end["test"]["is_good"]), (&json!("succeeded"), &json!(true)));
    let change = desk.memory.serving.changes().pop().unwrap();
    let rollout = change.rollout.unwrap();
    assert_eq!(rollout.traffic, TrafficShift::AllAtOnce { wait: 120, termination_wait: 0 });
    assert_eq!(rollout.alarms, ["wine-5xx", "wine-latency"]);

    let writes = desk.writes();
    let again = desk.rollback(&[]).await;
    assert!(again.lines.contains("already; `--to NUMBER` names an earlier deployment"), "{}", again.lines);
    assert_eq!(again.good()["outcome"], "unchanged");
    assert_eq!(desk.writes(), writes);
    // The version that is newest comes with a deployment alone.
    let forth = desk.rollback(&["--to", "2"]).await.good();
    assert_eq!((forth["deployment_number"].clone(), json!(desk.in_service().await)), (json!(4), desk.config_of(2)));
}

/// A deployment that was taken back already is no reason to go one further back.
#[tokio::test(start_paused = true)]
async fn a_failed_deployment_leaves_nothing_to_bring_back() {
    let desk = EndpointDesk::after(2).await;
    desk.version(3).await;
    desk.memory.serving.fates([EndpointFate::Fails("no ping".to_owned())]);
    assert_eq!(desk.deploy().await.verdict(), 20);
    assert_eq!(desk.rollback(&[]).await.good()["outcome"], "unchanged");
    assert_eq!(json!(desk.in_service().await), desk.config_of(2));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_back_is_refused() {
    let desk = EndpointDesk::after(1).await;
    let first = desk.rollback(&[]).await;
    assert!(first.error.contains("nothing was in service before deployment 1"), "{}", first.error);
    for (to, why) in [("7", "there is no deployment 7"), ("3", "deployment 3 ended as rolled-back: it was not good")] {
        if to == "3" {
            desk.deploys(2..=2).await;
            desk.version(3).await;
            desk.memory.serving.fates([EndpointFate::Fails("no ping".to_owned())]);
            assert_eq!(desk.deploy().await.verdict(), 20);
        }
        let refused = desk.rollback(&["--to", to]).await;
        assert!(refused.kind == Some(Kind::User) && refused.error.contains(why), "{}", refused.error);
    }
    let writes = desk.writes();
    let begin = desk.record("00000001.begin");
    let model = begin["to_model"].as_str().unwrap().to_owned();
    desk.memory.serving.delete_config(begin["to_config"].as_str().unwrap()).await.unwrap();
    desk.memory.serving.delete_model(&model).await.unwrap();
    desk.memory.objects.expire("models/1/model.tar.gz");
    let gone = desk.rollback(&["--to", "1"]).await;
    assert_eq!(gone.verdict(), 1);
    for what in
        ["3 preconditions do not hold", "the endpoint configuration wine-", &model, "s3://memory/models/1/model.tar.gz"]
    {
        assert!(gone.error.contains(what), "{what}: {}", gone.error);
    }
    assert_eq!(desk.writes().len(), writes.len() + 2, "{:?}", desk.writes());
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_rejected_since_does_not_come_back() {
    let desk = EndpointDesk::after(2).await;
    let arn = desk.record("00000001.begin")["model_package"].as_str().unwrap().to_owned();
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Rejected);
    let refused = desk.rollback(&[]).await;
    assert!(refused.verdict() == 30 && refused.error.contains("was rejected"), "{}", refused.error);
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Pending);
    let refused = desk.rollback(&[]).await;
    assert!(refused.verdict() == 30 && refused.error.contains("was taken back"), "{}", refused.error);
    desk.memory.registry.change(&arn, |version| {
        version.approval = Approval::Approved;
        version.metadata.clear();
    });
    let refused = desk.rollback(&[]).await;
    assert!(refused.verdict() == 30 && refused.error.contains("outside of this program"), "{}", refused.error);
    let other = desk.run_in("dev", &ROLLBACK).await;
    assert!(other.verdict() == 1 && other.error.contains("is of the environment"), "{}", other.error);
    let staging = |manifest: &mut Value| manifest["environments"]["prod"]["tier"] = json!("staging");
    desk.manifest(staging);
    desk.rollback(&[]).await.good();
}

#[tokio::test(start_paused = true)]
async fn the_version_that_goes_is_rejected_by_the_user_of_the_token() {
    let desk = EndpointDesk::after(2).await;
    let without = desk.rollback(&["--reject"]).await;
    assert!(without.error.contains("SAGEMAKER_ID_TOKEN"), "{}", without.error);
    let desk = desk.with_token();
    let ended = desk.rollback(&["--reject"]).await;
    assert!(ended.lines.contains("Rejected arn:aws:sagemaker:"), "{}", ended.lines);
    ended.good();
    let rejected = |desk: &EndpointDesk| -> Vec<_> {
        desk.memory.registry.all().iter().map(|version| version.approval == Approval::Rejected).collect()
    };
    assert_eq!(rejected(&desk), [false, true]);
    assert_eq!(desk.record("00000003.begin")["user"], json!({"login": "jane", "id": "42@bf08810b", "is_proven": true}));
    // The step of the record was not done yet.
    let arn = desk.memory.registry.all()[1].arn.clone();
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Approved);
    desk.rollback(&["--reject"]).await.good();
    assert_eq!(rejected(&desk), [false, true]);
}

/// The alarm is on because of the model that goes.
#[tokio::test(start_paused = true)]
async fn an_alarm_that_is_on_does_not_stop_the_way_back() {
    let desk = EndpointDesk::after(2).await;
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    let ended = desk.rollback(&[]).await;
    assert!(ended.lines.contains("The alarm wine-5xx is on, and does not guard the rollback"), "{}", ended.lines);
    ended.good();
    assert_eq!(json!(desk.in_service().await), desk.config_of(1));
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_of_what_came_back_are_told_every_time() {
    let desk = EndpointDesk::after(2).await;
    desk.answer(|_| "bad");
    let ended = desk.rollback(&[]).await;
    assert!(ended.verdict() == 10 && ended.error.contains("answers wrongly too"), "{}", ended.error);
    assert_eq!(
        (desk.record("00000003.end")["outcome"].clone(), json!(desk.in_service().await)),
        (json!("failed"), desk.config_of(1))
    );
    assert_eq!(desk.rollback(&[]).await.verdict(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_aws_takes_back_is_told() {
    let desk = EndpointDesk::after(2).await;
    desk.memory.serving.fates([EndpointFate::Fails("no capacity".to_owned())]);
    let ended = desk.rollback(&[]).await;
    assert!(ended.verdict() == 20 && ended.error.contains("AWS took the rollback back"), "{}", ended.error);
    assert_eq!(desk.record("00000003.end")["outcome"], "rolled-back");
    desk.rollback(&[]).await.good();
}

/// Scaling that stood in the way is that of the deployment that comes back, also when the deployment that removed it was interrupted.
#[tokio::test(start_paused = true)]
async fn scaling_comes_back_with_its_instance_type() {
    for minutes in [1, 60] {
        let desk = EndpointDesk::new().await;
        desk.memory.account.set_quota("ml.m5.xlarge", 8.0);
        let with = |instance: &'static str, max: u32| {
            move |manifest: &mut Value| {
                manifest["endpoint"]["autoscaling"] = json!({"min": 2, "max": max, "target": 70});
                manifest["endpoint"]["instances"]["type"] = json!(instance);
            }
        };
        desk.manifest(with("ml.m5.large", 4));
        desk.deploy().await.good();
        desk.manifest(with("ml.m5.xlarge", 3));
        let _ = tokio::time::timeout(Duration::from_mins(minutes), desk.deploy()).await;
        desk.rollback(&[]).await.good();
        assert_eq!(json!(desk.in_service().await), desk.config_of(1), "{minutes}");
        let target = desk.memory.serving.scalable_target(&scaled());
        assert_eq!(target, Some(ScalableTarget { min: 2, max: 4 }), "{minutes}");
    }
}

/// Lets no call pass from the `at`th moment on; counts the moments.
#[derive(Debug)]
struct Kill {
    at: usize,
    seen: AtomicUsize,
}

impl Watch for Kill {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.at { FaultDecision::Passes } else { FaultDecision::Hangs }
    }
}

impl EndpointDesk {
    fn kill_at(&self, at: usize) -> Arc<Kill> {
        let kill = Arc::new(Kill { at, seen: AtomicUsize::new(0) });
        let Memory { serving, objects, registry, .. } = &self.memory;
        serving.watch(kill.clone());
        objects.watch(kill.clone());
        registry.watch(kill.clone());
        kill
    }

    /// Everything that a rollback may change.
    async fn state(&self) -> (Option<String>, Value, Vec<String>, Vec<Approval>) {
        let versions = self.memory.registry.all();
        (
            self.in_service().await,
            self.record("00000003.end")["outcome"].clone(),
            self.memory.objects.keys(),
            versions.iter().map(|version| version.approval).collect(),
        )
    }
}

/// `SIGKILL` before or after a call, with `KILLS=1000` each of them: the same command again ends as an undisturbed one.
#[tokio::test(start_paused = true)]
async fn a_killed_rollback_goes_on() {
    let prepared = async || EndpointDesk::after(2).await.with_token();
    let undisturbed = prepared().await;
    let count = undisturbed.kill_at(usize::MAX);
    undisturbed.rollback(&["--reject"]).await.good();
    let moments = count.seen.load(Ordering::Relaxed);
    let kills = Environment::of_process().get("KILLS").map_or(12, |kills| kills.parse().unwrap());
    for at in (0..moments).step_by(moments.div_ceil(kills)) {
        let desk = prepared().await;
        desk.kill_at(at);
        let killed = tokio::time::timeout(Duration::from_mins(10), desk.rollback(&["--reject"])).await;
        assert!(killed.is_err(), "{at}");
        desk.kill_at(usize::MAX);
        desk.rollback(&["--reject"]).await.good();
        assert_eq!(desk.state().await, undisturbed.state().await, "{at}");
    }
}
