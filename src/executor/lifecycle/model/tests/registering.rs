//! Registrations, and what is found of them.

use sha2::{Digest as _, Sha256};
use test_case::test_case;

use super::*;
use crate::base::exit_codes;
use crate::cloud::testing::{Fault, When};
use crate::cloud::{Approval, CloudErrorKind, ModelVersion, RegistrationState};
use crate::lifecycle::hex::hex;

#[tokio::test]
async fn a_model_becomes_a_version_that_names_its_content_and_origin() {
    let desk = Desk::new();
    let dotenv = desk.project.path().join("out.env");
    let ended = desk.run_as(Some("42"), &["register", "--dotenv", dotenv.to_str().unwrap()]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    let [version] = desk.memory.registry.all().try_into().unwrap();
    assert_eq!(version.approval, Approval::Pending);
    let hash = version.metadata["model-sha256"].clone();
    assert_eq!(version.model_data_url, format!("s3://memory/models/{hash}/model.tar.gz"));
    let stored = desk.memory.objects.contents(&format!("models/{hash}/model.tar.gz")).unwrap();
    assert_eq!(hex(&Sha256::digest(stored)), hash);
    let metrics = format!("metrics/{}.json", hex(&Sha256::digest(r#"{"accuracy": 0.9}"#)));
    assert_eq!(version.metrics.unwrap().uri, format!("s3://memory/{metrics}"));
    assert!(desk.memory.objects.contents(&metrics).is_some());
    for (name, value) in [
        ("pipeline-id", "7"),
        ("commit", "c0ffee"),
        ("project", "group/project"),
        ("registered-by", "id=42@bf08810b user=user42 pipeline=7 job=8"),
        ("metrics-1", metrics.as_str()),
    ] {
        assert_eq!(version.metadata[name], value);
    }
    let [group] = desk.memory.registry.groups().try_into().unwrap();
    assert_eq!((group.name.as_str(), group.tags["Project"].as_str()), ("churn", "churn"));
    let left = std::fs::read_to_string(dotenv).unwrap();
    for line in [format!("MODEL_PACKAGE_ARN={}\n", version.arn), "MODEL_PACKAGE_VERSION=1\n".to_owned()] {
        assert!(left.contains(&line), "{left}");
    }
}

#[tokio::test]
async fn the_same_content_in_the_same_pipeline_is_registered_once() {
    let desk = Desk::new();
    let arn = desk.registers().await;
    let (writes, calls) = (desk.writes(), desk.memory.registry.calls().len());
    let again = desk.run(&["register"]).await;
    assert!(again.out.starts_with("churn version 1: unchanged\n"), "{}{}", again.out, again.error);
    assert_eq!(desk.writes(), writes);
    assert_eq!(desk.memory.registry.calls().len() - calls, 2);
    // Another pipeline, or another content, is another version of the same object.
    let desk = desk.with([("CI_PIPELINE_ID", "9")]);
    assert_ne!(desk.registers().await, arn);
    assert_eq!(desk.memory.objects.keys().len(), 3);
    std::fs::write(desk.project.path().join("model/model.json"), "{1}").unwrap();
    desk.registers().await;
    assert_eq!((desk.memory.registry.all().len(), desk.memory.objects.keys().len()), (3, 5));
}

#[tokio::test]
async fn a_given_object_is_copied_under_its_hash() {
    let desk = Desk::new();
    desk.manifest(|manifest| manifest["model"]["path"] = json!("s3://memory/sessions/x/output/model.tar.gz"));
    let absent = desk.run(&["register"]).await;
    assert!(absent.error.contains("s3://memory/sessions/x/output/model.tar.gz does not exist"), "{}", absent.error);
    desk.memory.objects.insert("sessions/x/output/model.tar.gz", "weights");
    desk.registers().await;
    let key = format!("models/{}/model.tar.gz", hex(&Sha256::digest("weights")));
    assert_eq!(desk.memory.registry.all()[0].model_data_url, format!("s3://memory/{key}"));
    desk.memory.objects.expire("sessions/x/output/model.tar.gz");
    assert_eq!(desk.memory.objects.contents(&key).unwrap(), b"weights");
    // The stored object itself needs no copy.
    desk.manifest(|manifest| manifest["model"]["path"] = json!(format!("s3://memory/{key}")));
    desk.registers().await;
    assert_eq!(desk.memory.objects.count("copy"), 1);
}

#[test_case(|m| m["model"] = Value::Null, "the manifest has no `model`"; "no model")]
#[test_case(|m| m["model"]["image"] = json!("r/i:latest"), "`model.image`: does not have the right form"; "a tag")]
#[test_case(|m| m["model"]["path"] = json!("nothing"), "nothing does not exist"; "no folder")]
#[test_case(|m| m["model"]["path"] = json!("metrics.json"), "metrics.json is no folder"; "a file")]
#[test_case(|m| m["model"]["path"] = json!("s3://b/models/"), "`model.path`: must name a `.tar.gz`"; "a prefix")]
#[test_case(|m| m["model"]["path"] = json!("s3://b"), "`model.path`: must name a `.tar.gz`"; "a bucket")]
#[test_case(|m| m["model"]["metrics"] = json!(["no.json"]), "no.json cannot be read"; "no metrics")]
#[test_case(|m| m["environments"]["prod"]["bucket"] = Value::Null, "there is no bucket for the model"; "no bucket")]
#[test_case(|m| m["environments"]["prod"]["account"] = Value::Null, "the environment prod has no `account`"; "no account")]
#[test_case(|m| m["environments"]["prod"]["account"] = json!("999999999999"), "the credentials are of account 123456789012, not 999999999999"; "another account")]
fn a_wrong_request_is_one_error_before_anything_is_stored(change: fn(&mut Value), expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let desk = Desk::new();
        desk.manifest(change);
        let ended = desk.run(&["register"]).await;
        assert_eq!(ended.kind, Some(Kind::User), "{}", ended.error);
        assert!(ended.error.contains(expected) && ended.error.contains("\n  hint: "), "{}", ended.error);
        assert!(desk.memory.objects.keys().is_empty() && desk.memory.registry.all().is_empty());
    });
}

#[test_case(&["register"]; "register")]
#[test_case(&["approve", "--latest"]; "approve")]
#[test_case(&["reject", "--latest", "--reason", "x"]; "reject")]
#[test_case(&["latest"]; "latest")]
#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_before_aws_is_asked(words: &[&str]) {
    let desk = Desk::new();
    let path = |name: &str| desk.project.path().join(name).to_str().unwrap().to_owned();
    for (file, why) in [("absent/a", "does not exist"), ("manifest.json", "is read by this command")] {
        let ended = desk.run_as(Some("2"), &[words, &["--dotenv", &path(file)]].concat()).await;
        assert!(ended.kind == Some(Kind::User) && ended.error.contains(why), "{}", ended.error);
    }
    assert_eq!(desk.memory.made(), [""; 0]);
    for file in ["metrics.json", "model/model.json"] {
        let ended = desk.run(&["register", "--dotenv", &path(file)]).await;
        assert!(ended.error.contains("is read by this command"), "{}", ended.error);
    }
}

#[tokio::test]
async fn a_registry_is_read_only_in_the_account_that_the_manifest_names() {
    let desk = Desk::new();
    desk.manifest(|manifest| manifest["environments"]["prod"]["account"] = Value::Null);
    for words in [&["latest"][..], &["approve", "--latest"], &["reject", "--version", "1", "--reason", "x"]] {
        let ended = desk.run_as(Some("2"), words).await;
        assert_eq!(ended.kind, Some(Kind::User));
        assert!(ended.error.contains("the environment prod has no `account`"), "{}", ended.error);
    }
    assert_eq!(desk.memory.made(), [""; 0]);
}

#[tokio::test]
async fn a_model_below_its_bar_is_not_registered() {
    let desk = Desk::new();
    desk.manifest(|manifest| manifest["model"]["require"] = json!(["accuracy>=0.95"]));
    let ended = desk.run(&["register"]).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: exit_codes::BELOW_BAR }), "{}", ended.error);
    assert!(desk.memory.objects.keys().is_empty());
    desk.manifest(|manifest| manifest["model"]["require"] = json!(["accuracy>=0.9"]));
    desk.registers().await;
}

#[tokio::test(start_paused = true)]
async fn sagemaker_may_take_time_or_fail() {
    let desk = Desk::new();
    desk.memory.registry.begin_as(RegistrationState::Failed("scan: no image".to_owned()));
    let failed = desk.run(&["register"]).await;
    assert!(failed.kind == Some(Kind::User) && failed.error.contains("scan: no image"), "{}", failed.error);
    desk.memory.registry.begin_as(RegistrationState::UnderWay);
    let waiting = desk.run(&["register"]).await;
    assert_eq!(waiting.kind, Some(Kind::Verdict { code: exit_codes::TRY_LATER }), "{}", waiting.error);
    let arn = desk.memory.registry.all()[1].arn.clone();
    desk.memory.registry.change(&arn, |version| version.state = RegistrationState::Failed("scan: no image".to_owned()));
    // A failed version does not block its pipeline: the next attempt is another version.
    desk.memory.registry.begin_as(RegistrationState::Completed);
    let next = desk.registers().await;
    assert_eq!((next != arn, desk.registers().await), (true, next));
}

/// Two jobs of a pipeline register the same at once: the second finds the group, and then the version, of the first.
#[tokio::test]
async fn a_lost_race_is_won_by_looking_again() {
    let desk = Desk::new();
    let lost = [
        Fault::new("create_group", 1, When::After, CloudErrorKind::Invalid),
        Fault::new("create_version", 1, When::After, CloudErrorKind::Exists),
    ];
    desk.memory.registry.plan(lost);
    let ended = desk.run(&["register"]).await;
    assert!(ended.out.starts_with("churn version 1: unchanged\n"), "{}{}", ended.out, ended.error);
    assert_eq!(desk.memory.registry.all().len(), 1);
}

/// The list does not show the version yet, and the same token with another job is refused.
#[tokio::test(start_paused = true)]
async fn another_job_of_the_pipeline_finds_the_version_in_a_late_list() {
    let desk = Desk::new();
    let arn = desk.registers().await;
    let desk = desk.with([("CI_JOB_ID", "9")]);
    desk.memory.registry.list_late(3);
    assert_eq!(desk.registers().await, arn);
    desk.memory.registry.list_late(20);
    let later = desk.run(&["register"]).await;
    assert_eq!(later.kind, Some(Kind::Verdict { code: exit_codes::TRY_LATER }), "{}", later.error);
    assert_eq!(desk.memory.registry.all().len(), 1);
}

#[test_case(|v| v.image = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/evil@sha256:{}", "0".repeat(64)), "image"; "image")]
#[test_case(|v| v.model_data_url = "s3://evil/model.tar.gz".to_owned(), "model"; "model")]
#[test_case(|v| { v.environment.insert("A".to_owned(), "b".to_owned()); }, "variables"; "variables")]
#[test_case(|v| v.metrics = None, "metrics"; "metrics")]
#[test_case(|v| { v.metadata.insert("registered-by".to_owned(), "id=2 user=user2".to_owned()); }, "registered-by"; "author")]
#[test_case(|v| { v.metadata.remove("commit"); }, "`commit`"; "a record")]
fn a_planted_version_is_not_adopted(plant: fn(&mut ModelVersion), part: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let desk = Desk::new();
        assert_eq!(desk.run_as(Some("1"), &["register"]).await.kind, None);
        let arn = desk.memory.registry.all()[0].arn.clone();
        desk.memory.registry.change(&arn, plant);
        let ended = desk.run_as(Some("1"), &["register"]).await;
        assert_eq!((ended.kind, ended.out.as_str()), (Some(Kind::User), ""), "{}", ended.error);
        assert!(
            ended.error.contains(&format!("{arn} is marked as this content, and differs in: {part}\n")),
            "{}",
            ended.error
        );
    });
}

#[tokio::test]
async fn another_user_registers_in_his_own_name() {
    let desk = Desk::new();
    for (user, number) in [("1", 1), ("2", 2), ("1", 2)] {
        assert_eq!(desk.run_as(Some(user), &["register"]).await.kind, None);
        assert_eq!(desk.memory.registry.all().len(), number);
    }
}

/// The variables of a job are text of people.
#[tokio::test]
async fn the_origin_is_one_line_without_secrets() {
    let desk = Desk::new().with([
        ("CI_PIPELINE_URL", "https://gitlab.example/p/7?private_token=s3cr3t"),
        ("CI_COMMIT_SHA", "c0\nffee"),
        ("CI_PROJECT_PATH", "\n"),
    ]);
    desk.registers().await;
    let [request] = desk.memory.registry.requests().try_into().unwrap();
    assert_eq!(request.generated_by.as_deref(), Some("https://gitlab.example/p/7"));
    assert_eq!((request.commit.as_deref(), request.project.as_deref()), (Some("c0 ffee"), None));
    assert!(!format!("{request:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn the_newest_version_of_a_status_is_found() {
    let desk = Desk::new();
    let none = desk.run(&["latest"]).await;
    assert_eq!(none.kind, Some(Kind::User));
    assert!(none.error.contains("the group `churn` has no version with the status Approved"), "{}", none.error);
    let mut arns = Vec::new();
    let mut desk = desk;
    for pipeline in ["1", "2", "3", "4"] {
        desk = desk.with([("CI_PIPELINE_ID", pipeline)]);
        arns.push(desk.registers().await);
    }
    desk.memory.registry.change(&arns[0], |version| version.approval = Approval::Approved);
    desk.memory.registry.change(&arns[3], |version| version.state = RegistrationState::Failed(String::new()));
    for (status, number) in [("approved", 1), ("pending", 3), ("any", 3)] {
        let ended = desk.run(&["latest", "--status", status]).await;
        assert!(ended.out.starts_with(&format!("churn version {number}: found\n")), "{}{}", ended.out, ended.error);
    }
    // An image that the pipeline builds is known in later jobs alone: here the manifest has the value for a desk.
    desk.manifest(|manifest| {
        manifest["model"]["image"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serve:1".into();
    });
    let ended = desk.run(&["latest"]).await;
    assert!(ended.out.starts_with("churn version 1: found\n"), "{}{}", ended.out, ended.error);
    let ended = desk.run(&["register"]).await;
    assert!(ended.error.contains("`model.image`"), "{}{}", ended.out, ended.error);
}
