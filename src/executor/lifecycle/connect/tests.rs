//! The checks on a fake account.

use std::sync::Arc;

use super::decide;
use crate::base::clock::HostClock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::{Fault, Memory, When};
use crate::cloud::{AlarmSight, AlarmState, CloudErrorKind, ObjectStore as _};
use crate::config::env::Environment;
use crate::lifecycle::validate::{self, ValidateArgs};
use crate::lifecycle::{CommandInputs, with_exit_code};
use crate::ui::Printer;

const MANIFEST: &str = include_str!("../manifest/tests/manifest.json");
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ROLE: &str = "arn:aws:iam::123456789012:role/serve";
const TRUST: &str = r#"{"Statement": {"Effect": "Allow", "Principal": {"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}, "Action": "sts:AssumeRole"}}"#;

/// An account that has all that the manifest names.
fn account() -> Memory {
    let memory = Memory::new();
    memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/deployer/job-1");
    memory.account.set_image(&format!("serve@{DIGEST}"), &["linux/amd64"]);
    memory.account.set_role("arn:aws:iam::123456789012:role/ci/deployer", "{}");
    memory.account.set_role(ROLE, TRUST);
    memory.account.set_quota("ml.m5.large", 8.0);
    memory
}

/// The output of the command, and its error.
async fn validated(memory: &Memory, arguments: &[&str]) -> (String, Option<anyhow::Error>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.json");
    let bucket = memory.objects.uri("").trim_start_matches("s3://").trim_end_matches('/').to_owned();
    let staging = r#""account": "${STAGING_ACCOUNT:210987654321}","#;
    let of_staging = format!(r#"{staging} "role": "arn:aws:iam::210987654321:role/serve", "bucket": "models","#);
    let manifest = MANIFEST.replace(staging, &of_staging).replace("\"models\"", &format!("\"{bucket}\""));
    std::fs::write(&file, manifest).unwrap();
    std::fs::write(folder.path().join("samples.jsonl"), "").unwrap();
    let (printer, captured) = Printer::captured();
    let inputs = CommandInputs {
        gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
        env: Environment::from_pairs([("COUNT".into(), "3".into()), ("TEAM".into(), "risk".into())]),
        connect: Arc::new(memory.clone()),
        clock: Arc::new(HostClock),
        printer,
    };
    let file = file.display().to_string();
    let arguments = [&["validate", "--connect", "--manifest", &file], arguments].concat();
    let command = <ValidateArgs as clap::Args>::augment_args(clap::Command::new("validate"));
    let matches = command.try_get_matches_from(arguments).unwrap();
    let args = <ValidateArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
    let result = validate::run(&inputs, args, Cancellation::default()).await;
    (String::from_utf8(captured.data()).unwrap(), result.err().map(with_exit_code))
}

const PROD: [&str; 2] = ["--environment", "prod"];

#[tokio::test]
async fn an_account_as_the_manifest_says_passes() {
    let (text, error) = validated(&account(), &PROD).await;
    assert!(error.is_none(), "{error:?}\n{text}");
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn all_that_is_wrong_is_told_together() {
    let memory = account();
    memory.account.set_caller("arn:aws:iam::210987654321:user/someone");
    memory.account.set_image(&format!("serve@{DIGEST}"), &["linux/arm64"]);
    memory.account.set_role(ROLE, &TRUST.replace("Allow", "Deny"));
    memory.account.pass_no_role();
    memory.account.set_quota("ml.m5.large", 7.0);
    memory.objects.plan([Fault::new("size", 1, When::Before, CloudErrorKind::Denied)]);
    let (text, error) = validated(&memory, &PROD).await;
    let error = error.unwrap();
    assert_eq!((failure::kind_of(&error), error.to_string().as_str()), (Kind::User, "6 checks failed"));
    insta::assert_snapshot!(text);
}

#[test]
fn an_alarm_must_exist_and_be_off() {
    let names = ["errors", "slow"].map(str::to_owned);
    let alarm = |name: &String, state| AlarmSight {
        name: name.clone(),
        arn: String::new(),
        state,
        reason: String::new(),
        definition: None,
        changed: None,
    };
    let off = alarm(&names[0], AlarmState::Ok);
    for (found, answer) in [
        (vec![off.clone()], ("failed", "CloudWatch has no alarm slow")),
        (vec![off.clone(), alarm(&names[1], AlarmState::InsufficientData)], ("ok", "none of errors, slow is on")),
        (vec![off, alarm(&names[1], AlarmState::Alarm)], ("unknown", "on now: slow")),
    ] {
        let given = decide::alarms(&names, &found);
        let (result, text, _) = given.texts();
        assert_eq!((result, text), answer);
    }
}

#[tokio::test]
async fn what_may_not_be_asked_is_unknown() {
    let memory = account();
    let denied = |method| Fault::new(method, 1, When::Before, CloudErrorKind::Denied).forever();
    memory.account.plan(["platforms", "find", "may_pass", "endpoint_instances"].map(denied));
    let (text, error) = validated(&memory, &PROD).await;
    assert!(error.is_none(), "{error:?}\n{text}");
    assert_eq!(text.matches("| unknown").count(), 4, "{text}");
    assert!(text.contains("allow them `fake:Action`"), "{text}");
}

#[tokio::test]
async fn a_throttled_check_is_worth_another_try() {
    let memory = account();
    memory.account.plan([Fault::new("endpoint_instances", 1, When::Before, CloudErrorKind::Throttled)]);
    let (text, error) = validated(&memory, &PROD).await;
    assert_eq!(failure::kind_of(&error.unwrap()), Kind::Verdict { code: 75 });
    assert!(text.contains("| quota") && text.contains("again later"), "{text}");
    memory.account.plan([Fault::new("arn", 1, When::Before, CloudErrorKind::Unauthenticated)]);
    let (text, error) = validated(&memory, &PROD).await;
    assert_eq!((text.as_str(), failure::kind_of(&error.unwrap())), ("", Kind::System));
}

#[tokio::test]
async fn a_check_without_an_answer_leaves_the_others() {
    let memory = account();
    memory.account.plan([Fault::new("platforms", 1, When::Before, CloudErrorKind::Transient)]);
    let (text, error) = validated(&memory, &PROD).await;
    assert_eq!(failure::kind_of(&error.unwrap()), Kind::System);
    assert!(text.contains("| image           | unknown") && text.contains("| quota"), "{text}");
    memory.account.plan([Fault::new("platforms", 1, When::Before, CloudErrorKind::Transient)]);
    memory.account.set_quota("ml.m5.large", 1.0);
    let (_, error) = validated(&memory, &PROD).await;
    assert_eq!(error.unwrap().to_string(), "1 check failed");
}

#[tokio::test]
async fn reading_is_unknown_to_a_caller_who_may_not_list() {
    let memory = account();
    let denied = |method| Fault::new(method, 1, When::Before, CloudErrorKind::Denied);
    memory.objects.plan(["find", "size"].map(denied));
    let (text, error) = validated(&memory, &PROD).await;
    assert_eq!(error.unwrap().to_string(), "1 check failed", "{text}");
    assert!(text.contains("| read the bucket | unknown") && !text.contains("s3:GetObject"), "{text}");
}

#[tokio::test]
async fn every_environment_is_checked_when_none_is_named() {
    let (text, error) = validated(&account(), &["--output", "json"]).await;
    assert_eq!(error.unwrap().to_string(), "3 checks failed");
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = |name: &str, check: &str| {
        let rows = data["checks"].as_array().unwrap();
        rows.iter().find(|row| row["environment"] == name && row["check"] == check).cloned().unwrap_or_default()
    };
    assert_eq!(row("prod", "caller")["result"], "ok");
    assert_eq!(row("staging", "caller")["result"], "failed");
    assert_eq!(row("staging", "architecture")["found"], "serverless runs linux/amd64");
    assert_eq!(row("staging", "quota"), serde_json::Value::Null);
}
