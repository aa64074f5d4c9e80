//! Refusals, and which documents there are.

use super::*;

const FILE: &str = r#"
[aws]
region = "eu-west-1"
[storage]
bucket = "ci"
[job]
role_arn = "arn:aws:iam::210987654321:role/train"
[iam]
host_role_arn = "arn:aws:iam::210987654321:role/host"
"#;

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = toml::from_str(FILE).unwrap();
    change(&mut settings);
    settings
}

fn refusal(change: impl FnOnce(&mut Settings)) -> String {
    let failure = policies(&settings(change)).unwrap_err();
    crate::base::failure::render(&failure.into())
}

#[test]
fn a_file_that_leaves_a_name_open_is_refused_with_its_key() {
    assert!(refusal(|settings| settings.job.role_arn = None).contains("`job.role_arn`"));
    assert!(refusal(|settings| settings.aws.region = None).contains("`aws.region`"));
    assert!(refusal(|settings| settings.iam.host_role_arn = None).contains("`iam.host_role_arn`"));
    let alias = refusal(|settings| settings.storage.kms_key_id = Some("alias/ci".into()));
    assert!(alias.contains("`storage.kms_key_id` names a KMS key by its alias"), "{alias}");
    let alias = refusal(|settings| settings.job.volume_kms_key_id = Some("arn:aws:kms:r:1:alias/ci".into()));
    assert!(alias.contains("`job.volume_kms_key_id`"), "{alias}");
    let foreign = refusal(|settings| settings.aws.creator_role_arn = Some("arn:aws:iam::111122223333:role/c".into()));
    assert!(foreign.contains("of different accounts"), "{foreign}");
}

#[test]
fn each_document_is_there_when_it_is_needed() {
    let names = |settings: &Settings| policies(settings).unwrap().into_keys().collect::<Vec<_>>();
    let plain = ["bucket-policy.json", "runner-host.json", "training-job-trust.json", "training-job.json"];
    assert_eq!(names(&settings(|_| ())), plain);
    let all = names(&settings(|settings| {
        settings.storage.kms_key_id = Some("1234abcd-12ab-34cd-56ef-1234567890ab".into());
        settings.job.volume_kms_key_id.clone_from(&settings.storage.kms_key_id);
        settings.aws.creator_role_arn = Some("arn:aws:iam::210987654321:role/creator".into());
    }));
    let more = ["creator.json", "creator-trust.json", "storage-key-policy.json"];
    assert!(plain.iter().chain(&more).all(|name| all.contains(name)) && all.len() == 7, "{all:?}");
}

/// The statements of a document that name an action.
fn statements(settings: &Settings, file: &str, action: &str) -> Vec<serde_json::Value> {
    let document = serde_json::to_value(&policies(settings).unwrap()[file]).unwrap();
    let mut all = document["Statement"].as_array().unwrap().clone();
    all.retain(|one| one["Action"] == action || one["Action"].as_array().is_some_and(|of| of.contains(&action.into())));
    all
}

fn with_rule(allow: &str) -> Settings {
    toml::from_str(&format!("{FILE}[[rules]]\nname = \"all\"\n[rules.allow]\n{allow}\n")).unwrap()
}

#[test]
fn names_are_allowed_below_the_prefixes_of_their_own_bucket() {
    let settings = with_rule("inputs = [\"s3://ci/data/**\", \"s3://elsewhere/**\", \"s3://ci/more/x\"]");
    let of = |file, place| {
        let all = statements(&settings, file, "s3:ListBucket").into_iter();
        all.filter(|one| one["Resource"] == place && one["Sid"].as_str().unwrap().starts_with("NamesOfInputData"))
            .map(|one| one["Condition"]["StringLike"]["s3:prefix"].clone())
            .collect::<Vec<_>>()
    };
    for file in ["training-job.json", "runner-host.json"] {
        assert_eq!(of(file, "arn:aws:s3:::ci"), [serde_json::json!(["data/*", "more/x", "more/x/*"])], "{file}");
        assert_eq!(of(file, "arn:aws:s3:::elsewhere"), ["*"], "{file}");
    }
    assert!(statements(&settings, "bucket-policy.json", "s3:AbortMultipartUpload").is_empty());
}

#[test]
fn the_role_of_jobs_may_use_the_keys_of_data_and_models() {
    let settings = settings(|settings| {
        settings.iam.input_kms_key_ids = vec!["1234abcd-12ab-34cd-56ef-1234567890ab".into()];
        settings.iam.model_kms_key_ids = vec!["arn:aws:kms:eu-west-1:111122223333:key/models".into()];
    });
    let keys = statements(&settings, "training-job.json", "kms:Decrypt");
    let of = |sid: &str| keys.iter().find(|one| one["Sid"] == sid).unwrap();
    let own = "arn:aws:kms:eu-west-1:210987654321:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    assert_eq!(of("KeysOfInputData")["Resource"], own);
    assert_eq!(of("KeysOfModels")["Resource"], "arn:aws:kms:eu-west-1:111122223333:key/models");
    assert_eq!(of("KeysOfModels")["Condition"]["StringEquals"]["kms:ViaService"], "s3.eu-west-1.amazonaws.com");
    assert_eq!((keys.len(), statements(&settings, "training-job.json", "kms:GenerateDataKey").len()), (2, 1));
}

#[test]
fn a_pattern_for_all_buckets_opens_no_more_of_the_executors_own_one() {
    let settings = with_rule(
        "inputs = [\"s3://*/**\", \"s3://c?/data/**\", \"s3://cd/**\"]\nmodel_outputs = [\"s3://ci/models/**\"]\ncheckpoints = \"allow\"",
    );
    let names = statements(&settings, "training-job.json", "s3:ListBucketVersions");
    let prefixes = &names[0]["Condition"]["StringNotLike"]["s3:prefix"];
    assert_eq!((&names[0]["Effect"], &names[0]["Resource"]), (&"Deny".into(), &"arn:aws:s3:::ci".into()));
    let place = "?".repeat(32);
    let own = |keys: &str| format!("sagemaker-executor/{keys}");
    let kept = [own(&format!("sessions/*/{place}/*")), own(&format!("checkpoints/*-{place}/*"))];
    let [sessions, checkpoints] = &kept;
    assert_eq!(*prefixes, serde_json::json!([own("agents/*"), sessions, checkpoints, "data/*"]));
    let written = statements(&settings, "bucket-policy.json", "s3:AbortMultipartUpload");
    let objects = |keys: &[&str]| keys.iter().map(|key| format!("arn:aws:s3:::ci/{key}")).collect::<Vec<_>>();
    assert_eq!(written[0]["NotResource"], serde_json::json!(objects(&[sessions, checkpoints, "models/*"])));
    let read = statements(&settings, "bucket-policy.json", "s3:GetObject");
    let read: Vec<_> = read.iter().filter(|one| one["NotResource"].is_array()).collect();
    let all = objects(&[&own("agents/*"), &own("projects/*"), sessions, checkpoints, "data/*"]);
    assert_eq!((read.len(), &read[0]["NotResource"]), (1, &serde_json::json!(all)));
    assert_eq!(read[0]["Condition"]["ArnEquals"]["aws:PrincipalArn"], "arn:aws:iam::210987654321:role/train");
}

#[test]
fn training_plans_are_those_of_the_account_whatever_the_pattern() {
    let jobs = |allow: &str| {
        let mut settings = with_rule(allow);
        settings.aws.creator_role_arn = Some("arn:aws:iam::210987654321:role/creator".into());
        let all = statements(&settings, "creator.json", "sagemaker:CreateTrainingJob");
        let of = |sid: &str| all.iter().find(|one| one["Sid"] == sid).cloned();
        (of("TrainingPlans"), of("NoJobsOfOtherSessions").unwrap()["NotResource"].clone())
    };
    let plan = "arn:aws:sagemaker:eu-west-1:210987654321:training-plan/team-*";
    let (plans, own) = jobs("training_plans = [\"arn:aws:sagemaker:*:*:training-plan/team-**\"]");
    assert_eq!(plans.unwrap()["Resource"], plan);
    assert!(own.as_array().unwrap().contains(&plan.into()), "{own}");
    assert_eq!(jobs("training_plans = [\"**\"]").0, None);
}
