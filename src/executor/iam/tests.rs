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
