//! Tests of `endpoint status` over the fakes.

use test_case::test_case;

use super::*;
use crate::base::exit_codes::BELOW_BAR;
use crate::cloud::testing::Fault;
use crate::cloud::{
    AlarmState, Approval, CloudErrorKind, EndpointChange, GroupSpec, ModelRegistry as _, ScalableTarget, VersionSpec,
};

const STATUS: [&str; 3] = ["status", "--environment", "test"];

#[tokio::test(start_paused = true)]
async fn a_healthy_endpoint_is_shown_with_its_deployments() {
    let ended = ServedDesk::new().await.run(&STATUS).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    insta::assert_snapshot!(ended.out, @r"
    wine of test: healthy
     Check           Result  Found
     state           ok      InService
     configuration   ok      wine-1, of deployment 2
     model                   wine-m-1
     instances       ok      2 of 2 ml.m5.large
     autoscaling     ok      2 to 4
     alarm wine-5xx  ok      INSUFFICIENT_DATA: The state is INSUFFICIENT_DATA.

     Deployment  Kind    Outcome    At                        By    Version  Configuration  Reason
     2           deploy  succeeded  1970-01-01T12:00:00.000Z  jane           wine-1         better
     1           deploy  succeeded  1970-01-01T12:00:00.000Z  jane           wine-0         better
    ");
}

#[tokio::test(start_paused = true)]
async fn the_data_goes_into_files() {
    let desk = ServedDesk::new().await;
    let file = |name: &str| desk.project.path().join(name).to_str().unwrap().to_owned();
    let [junit, openmetrics, dotenv] = ["health.xml", "health.txt", "health.env"].map(file);
    let words = ["--junit", &junit, "--openmetrics", &openmetrics, "--dotenv", &dotenv, "--output", "json"];
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    let ended = desk.run(&[&STATUS[..], &words].concat()).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: BELOW_BAR }), "{}", ended.error);
    let data: Value = serde_json::from_str(&ended.out).unwrap();
    let endpoint = &data["endpoints"][0];
    assert_eq!((&endpoint["is_healthy"], &endpoint["config"]), (&json!(false), &json!("wine-1")));
    assert_eq!(endpoint["deployments"][0]["number"], json!(2));
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    assert!(read(&junit).contains("<testcase name=\"alarm wine-5xx\""), "{}", read(&junit));
    let metrics = read(&openmetrics);
    for line in [
        "endpoint_healthy{environment=\"test\",endpoint=\"wine\"} 0\n",
        "endpoint_instances{environment=\"test\",endpoint=\"wine\"} 2\n",
        "endpoint_alarm_on{environment=\"test\",endpoint=\"wine\",alarm=\"wine-5xx\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(read(&dotenv).contains("ENDPOINT_HEALTH=not-healthy\n"), "{}", read(&dotenv));
}

/// Makes something wrong.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Absent,
    Alarm,
    NoAlarm,
    Drift,
    NoLedger,
    NoScaling,
    NoModel,
    NarrowScaling,
    OtherPolicy,
    AlarmOfAnotherMetric,
    AlarmOfAnotherVariant,
}

impl ServedDesk {
    async fn spoil(&self, trouble: Trouble) {
        let serving = &self.memory.serving;
        match trouble {
            Trouble::Absent => {
                serving.delete_endpoint("wine").await.unwrap();
                tokio::time::sleep(Duration::from_mins(5)).await;
            }
            Trouble::Alarm => serving.set_alarm("wine-5xx", AlarmState::Alarm),
            Trouble::NoAlarm => serving.delete_alarms(&["wine-5xx".to_owned()]).await.unwrap(),
            Trouble::Drift => self.updates("wine-0").await,
            Trouble::NoLedger => {
                for key in self.memory.objects.keys() {
                    self.memory.objects.expire(&key);
                }
            }
            Trouble::NoScaling => serving.deregister(&variant()).await.unwrap(),
            Trouble::NoModel => serving.delete_model("wine-m-1").await.unwrap(),
            Trouble::NarrowScaling => serving.register(&variant(), &ScalableTarget { min: 0, max: 1 }).await.unwrap(),
            Trouble::OtherPolicy => {
                let policy = LedgerScaling { target: 7000.0, ..scaling() }.policy();
                serving.put_policy(&variant(), &policy).await.unwrap();
            }
            Trouble::AlarmOfAnotherMetric => {
                serving.delete_alarms(&["wine-5xx".to_owned()]).await.unwrap();
                serving.set_alarm("wine-5xx", AlarmState::Ok);
            }
            Trouble::AlarmOfAnotherVariant => {
                let alarm = EndpointAlarm { variant: "Other".to_owned(), ..alarm("wine-5xx", "wine") };
                serving.put_alarm(&alarm).await.unwrap();
            }
        }
    }

    /// The ARN of a version of the registry.
    async fn version(&self, approval: Approval, approvals: usize) -> String {
        let registry = &self.memory.registry;
        let spec = VersionSpec {
            group: "wine".to_owned(),
            client_token: "1".to_owned(),
            description: String::new(),
            image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:0".to_owned(),
            model_data_url: "s3://memory/models/1/model.tar.gz".to_owned(),
            environment: BTreeMap::new(),
            content_types: Vec::new(),
            response_types: Vec::new(),
            instance_types: Vec::new(),
            metrics: None,
            commit: None,
            repository: None,
            generated_by: None,
            project: None,
            metadata: BTreeMap::new(),
        };
        let group = GroupSpec { name: "wine".to_owned(), description: None, tags: BTreeMap::new() };
        registry.create_group(&group).await.unwrap();
        let arn = registry.create_version(&spec).await.unwrap();
        registry.change(&arn, |version| {
            version.approval = approval;
            let approval = |user| (format!("approval-{user}@1234abcd"), format!("round=1 user={user}"));
            version.metadata.extend((0..approvals).map(approval));
        });
        arn
    }

    /// Somebody brings a configuration into service.
    async fn updates(&self, config: &str) {
        self.begins_update(config).await;
        tokio::time::sleep(Duration::from_mins(30)).await;
    }

    async fn begins_update(&self, config: &str) {
        let change =
            EndpointChange { name: "wine".to_owned(), config: config.to_owned(), keeps_counts: true, rollout: None };
        self.memory.serving.update_endpoint(&change).await.unwrap();
    }
}

#[test_case(Trouble::Absent, "state: does not exist, and no deployment deleted it"; "absent")]
#[test_case(Trouble::Alarm, "alarm wine-5xx: ALARM: "; "an alarm is on")]
#[test_case(Trouble::NoAlarm, "alarm wine-5xx: does not exist"; "no alarm")]
#[test_case(Trouble::Drift, "configuration: wine-0, but wine-1 after deployment 2: another program changed the endpoint"; "drift")]
#[test_case(Trouble::NoLedger, "configuration: wine-1, which no deployment brought there"; "no ledger")]
#[test_case(Trouble::NoScaling, "autoscaling: none, though the deployment set 2 to 4"; "no scaling")]
#[test_case(Trouble::NarrowScaling, "autoscaling: 0 to 1, though the deployment set 2 to 4"; "narrow scaling")]
#[test_case(Trouble::OtherPolicy, "autoscaling: 2 to 4, without the policy `wine` of the deployment"; "other policy")]
#[test_case(Trouble::AlarmOfAnotherMetric, "alarm wine-5xx: another program changed what it watches"; "other metric")]
#[test_case(Trouble::AlarmOfAnotherVariant, "alarm wine-5xx: it watches another endpoint or variant"; "other variant")]
#[test_case(Trouble::NoModel, "model: wine-m-1 was deleted: no instance more can start"; "no model")]
#[tokio::test(start_paused = true)]
async fn trouble_is_told(trouble: Trouble, told: &str) {
    let desk = ServedDesk::new().await;
    desk.spoil(trouble).await;
    let ended = desk.run(&STATUS).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: BELOW_BAR }), "{}", ended.out);
    assert!(ended.error.contains(&format!("wine of test is not healthy: {told}")), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_without_an_end_is_under_way_or_was_interrupted() {
    let desk = ServedDesk::new().await;
    desk.makes("wine", 2).await;
    desk.ledger().begin(&begin(2)).await.unwrap();
    let interrupted = desk.run(&STATUS).await;
    assert_eq!(interrupted.kind, None, "{}", interrupted.error);
    assert!(interrupted.out.contains("`sagemaker-executor endpoint deploy` goes on with it"), "{}", interrupted.out);
    desk.begins_update("wine-2").await;
    let under_way = desk.run(&STATUS).await;
    assert_eq!(under_way.kind, None, "{}", under_way.error);
    assert!(under_way.out.contains("deploy, under way since 1970-01-01T12:00:00.000Z"), "{}", under_way.out);
}

/// The alarm is on only above a threshold that is never reached.
#[tokio::test(start_paused = true)]
async fn an_alarm_is_compared_with_the_manifest() {
    let desk = ServedDesk::new().await;
    desk.manifest(|manifest| manifest["endpoint"]["alarms"] = json!({"errors_5xx": 4}));
    let ended = desk.run(&STATUS).await;
    assert!(ended.error.contains("alarm wine-5xx: it is not as the manifest says"), "{}", ended.error);
}

/// A version that no deployment to the environment would be accepted of.
#[test_case("prod", Approval::Pending, 0 => Some(Kind::Verdict { code: BELOW_BAR }); "pending in production")]
#[test_case("prod", Approval::Approved, 0 => Some(Kind::Verdict { code: BELOW_BAR }); "without the approvals")]
#[test_case("prod", Approval::Approved, 1 => None; "approved")]
#[test_case("test", Approval::Pending, 0 => None; "pending elsewhere")]
#[test_case("test", Approval::Rejected, 0 => Some(Kind::Verdict { code: BELOW_BAR }); "rejected")]
#[tokio::test(start_paused = true)]
async fn a_version_is_judged_as_for_a_deployment(
    environment: &str,
    approval: Approval,
    approvals: usize,
) -> Option<Kind> {
    let desk = ServedDesk::new().await;
    let arn = desk.version(approval, approvals).await;
    let begin = LedgerBegin { model_package: Some(arn), ..begin(1) };
    let deployment = desk.ledger().begin(&begin).await.unwrap();
    desk.ledger().end(deployment, &end(LedgerOutcome::Succeeded, 1)).await.unwrap();
    desk.run(&["status", "--environment", environment]).await.kind
}

/// Deployments that were taken back push the one in service out of the newest ones.
#[test_case(21; "many")]
#[test_case(101; "very many")]
#[tokio::test(start_paused = true)]
async fn alarms_are_looked_at_after_many_deployments_that_were_taken_back(number: u32) {
    let desk = ServedDesk::new().await;
    for _ in 0..number {
        let deployment = desk.ledger().begin(&begin(2)).await.unwrap();
        desk.ledger().end(deployment, &end(LedgerOutcome::RolledBack, 1)).await.unwrap();
    }
    let healthy = desk.run(&STATUS).await;
    assert_eq!(healthy.kind, None, "{}", healthy.error);
    assert!(healthy.out.contains("wine-1, of deployment 2\n"), "{}", healthy.out);
    desk.spoil(Trouble::NoAlarm).await;
    let ended = desk.run(&STATUS).await;
    assert!(ended.error.contains("alarm wine-5xx: does not exist"), "{}", ended.error);
}

/// The endpoint's own alarm is looked at whatever the ledger says.
#[tokio::test(start_paused = true)]
async fn an_alarm_that_is_on_is_shown_without_a_record_of_it() {
    let desk = ServedDesk::new().await;
    desk.spoil(Trouble::NoLedger).await;
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    let ended = desk.run(&STATUS).await;
    assert!(ended.out.contains(" alarm wine-5xx  bad "), "{}", ended.out);
}

/// A fact that cannot be read is unknown, and hides no other.
#[test_case("alarms", "alarm wine-5xx"; "alarms")]
#[test_case("target", "autoscaling"; "scaling")]
#[test_case("config", "model"; "configuration")]
#[tokio::test(start_paused = true)]
async fn what_aws_denies_is_unknown(method: &'static str, check: &str) {
    let desk = ServedDesk::new().await;
    desk.memory.serving.plan([Fault::new(method, 1, When::Before, CloudErrorKind::Denied).forever()]);
    let ended = desk.run(&STATUS).await;
    assert_eq!(ended.kind, Some(Kind::System), "{}", ended.error);
    let line = ended.out.lines().find(|line| line.trim_start().starts_with(check)).unwrap();
    assert!(line.contains("unknown") && ended.out.starts_with("wine of test: not known\n"), "{}", ended.out);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_forged_hides_no_alarm() {
    let desk = ServedDesk::new().await;
    desk.memory.objects.insert("deployments/wine/00000003.begin.json", "\u{1b}[2J");
    desk.manifest(|manifest| manifest["endpoint"]["alarms"] = json!({"names": ["wine-5xx"]}));
    let unknown = desk.run(&STATUS).await;
    assert_eq!(unknown.kind, Some(Kind::User), "{}", unknown.out);
    assert!(unknown.error.contains("deployments/wine/00000003.begin.json"), "{}", unknown.error);
    desk.memory.serving.set_alarm("wine-5xx", AlarmState::Alarm);
    let ended = desk.run(&STATUS).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: BELOW_BAR }), "{}", ended.out);
}

#[tokio::test(start_paused = true)]
async fn one_environment_does_not_stop_the_others() {
    let desk = ServedDesk::new().await;
    desk.manifest(|manifest| {
        manifest["environments"]["elsewhere"] =
            json!({"region": "eu-west-1", "account": "210987654321", "bucket": "memory"});
        manifest["environments"]["none"] = json!({"patch": {"endpoint": null}});
        manifest["environments"]["wrong"] = json!({"account": "${NOT_SET}"});
    });
    let ended = desk.run(&["status", "--all"]).await;
    assert_eq!(ended.kind, Some(Kind::User), "{}", ended.out);
    for line in [
        "the endpoint of elsewhere: not known\n",
        "the endpoint of wrong: not known\n",
        "wine of prod: healthy\n",
        "wine of test: healthy\n",
    ] {
        assert!(ended.out.contains(line), "{line} {}", ended.out);
    }
    assert!(ended.told.contains("The environment none has no `endpoint`"), "{}", ended.told);
    desk.spoil(Trouble::Alarm).await;
    let ended = desk.run(&["status", "--all"]).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: BELOW_BAR }), "{}", ended.out);
    assert!(ended.error.contains("1 more of 4 endpoints are not healthy"), "{}", ended.error);
}

/// Manifests of `init` name the endpoint by the slug of the job's environment, which is one of all.
#[tokio::test(start_paused = true)]
async fn each_environment_has_the_slug_of_its_own_name() {
    let desk = ServedDesk::new().await;
    desk.manifest(|manifest| {
        manifest["endpoint"]["name"] = "wine-${CI_ENVIRONMENT_SLUG}".into();
        manifest["environments"]["review/a"] = manifest["environments"]["test"].clone();
    });
    let ended = desk.run(&["status", "--all"]).await;
    for line in ["wine-prod of prod: ", "wine-test of test: ", "wine-review-a-ppbxnw of review/a: "] {
        assert!(ended.out.contains(line), "{line} {}", ended.out);
    }
}

/// Only the jobs of a pipeline that follow the building of the image have its address.
#[tokio::test(start_paused = true)]
async fn the_image_of_the_manifest_is_not_judged() {
    let desk = ServedDesk::new().await;
    desk.manifest(|manifest| {
        manifest["model"] = json!({"group": "wine", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve:1"});
    });
    for words in [&["status"][..], &["status", "--all"], &["rollback", "--reason", "x"], &["test"], &["delete"]] {
        let ended = desk.run(words).await;
        assert!(
            !format!("{}{}{}", ended.out, ended.told, ended.error).contains("model.image"),
            "{words:?} {}",
            ended.error
        );
    }
}
