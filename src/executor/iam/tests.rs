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
const CREATOR: &str = "arn:aws:iam::210987654321:role/creator";

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = toml::from_str(FILE).unwrap();
    change(&mut settings);
    settings
}

fn refusal(settings: &Settings, creator: Option<&str>) -> String {
    let failure = policies_with(settings, &[], creator).unwrap_err();
    crate::base::failure::render(&failure.into())
}

#[test]
fn a_file_that_leaves_a_name_open_is_refused_with_its_key() {
    let without = |change: fn(&mut Settings)| refusal(&settings(change), None);
    assert!(without(|settings| settings.job.role_arn = None).contains("`job.role_arn`"));
    assert!(without(|settings| settings.aws.region = None).contains("`aws.region`"));
    assert!(without(|settings| settings.iam.host_role_arn = None).contains("`iam.host_role_arn`"));
    let alias = without(|settings| settings.storage.kms_key_id = Some("alias/ci".into()));
    assert!(alias.contains("`storage.kms_key_id` names a KMS key by its alias"), "{alias}");
    let alias = without(|settings| settings.job.volume_kms_key_id = Some("arn:aws:kms:r:1:alias/ci".into()));
    assert!(alias.contains("`job.volume_kms_key_id`"), "{alias}");
    let foreign = refusal(&settings(|_| ()), Some("arn:aws:iam::111122223333:role/creator"));
    assert!(foreign.contains("of different accounts"), "{foreign}");
}

#[test]
fn each_document_is_there_when_it_is_needed() {
    let names =
        |settings: &Settings, creator| policies_with(settings, &[], creator).unwrap().into_keys().collect::<Vec<_>>();
    let plain = ["bucket-policy.json", "runner-host.json", "training-job-trust.json", "training-job.json"];
    assert_eq!(names(&settings(|_| ()), None), plain);
    let keyed = settings(|settings| {
        settings.storage.kms_key_id = Some("1234abcd-12ab-34cd-56ef-1234567890ab".into());
        settings.job.volume_kms_key_id = settings.storage.kms_key_id.clone();
    });
    let all = names(&keyed, Some(CREATOR));
    assert!(
        plain
            .iter()
            .chain(&["creator.json", "creator-trust.json", "storage-key-policy.json"])
            .all(|name| all.contains(name))
    );
    assert_eq!(all.len(), 7);
}
