//! The shipped policies are those that `policy iam` makes of the sample file; and what policies of other files hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use executor::config::env::Environment;
use executor::config::settings::Settings;
use regex::Regex;
use serde_json::Value;

use super::{OPERATOR_FILE, read, root};
use crate::conformance::{clients, shown, skipped};
use crate::support::snapshot::assert_snapshot;

/// The sample with the keys active that the policies need, and with `changes` in place of its lines.
fn sample(changes: &[(&str, &str)]) -> Settings {
    let mut text = read(OPERATOR_FILE).replace("# host_role_arn", "host_role_arn");
    for (line, change) in changes {
        assert!(text.contains(line), "{line}");
        text = text.replace(line, change);
    }
    toml::from_str(&text).unwrap()
}

const IN_A_VPC: [(&str, &str); 3] = [
    ("\nsubnets = []", "\nsubnets = [\"subnet-0a\", \"subnet-0b\"]"),
    ("\nsecurity_group_ids = []", "\nsecurity_group_ids = [\"sg-0a\"]"),
    ("vpc_endpoint_ids = []", "vpc_endpoint_ids = [\"vpce-0a\"]"),
];
const WITH_KEYS: [(&str, &str); 2] = [
    ("# kms_key_id", "kms_key_id"),
    (
        "# volume_kms_key_id = \"arn:aws:kms:eu-west-1:123456789012:key/1",
        "volume_kms_key_id = \"arn:aws:kms:eu-west-1:123456789012:key/2",
    ),
];

/// Data of the operator's, a registry of his, and a warm pool.
const WITH_DATA: [(&str, &str); 7] = [
    ("# max_keep_alive_seconds", "max_keep_alive_seconds"),
    ("# training_plans", "training_plans"),
    (
        "# inputs = [\"s3://example-training-data/**\"]",
        "inputs = [\"s3://example-training-data/**\", \"efs://fs-01234567/**\"]",
    ),
    ("# model_outputs", "model_outputs"),
    ("image_repository_access = \"platform\"", "image_repository_access = \"vpc\""),
    ("# image_credentials_lambda_arn", "image_credentials_lambda_arn"),
    ("# inputs = {", "inputs = {"),
];

/// Secrets for jobs, with a key of their own.
const WITH_SECRETS: [(&str, &str); 2] =
    [("# allow = [{ match", "allow = [{ match"), ("# secret_kms_key_ids", "secret_kms_key_ids")];

/// Names that the modules for `OpenTofu` replace: a VPC, a key for the objects, a creator, and repositories that the rule lists.
const OF_THE_MODULES: [(&str, &str); 6] =
    [IN_A_VPC[0], IN_A_VPC[1], IN_A_VPC[2], WITH_KEYS[0], WITH_A_CREATOR[0], ("# images = ", "images = ")];

const WITH_A_CREATOR: [(&str, &str); 1] = [("# creator_role_arn", "creator_role_arn")];

/// Each partition, and what makes the sample one of it.
const PARTITIONS: [(&str, &[(&str, &str)]); 3] = [
    ("aws", &[]),
    ("aws-us-gov", &[("arn:aws:", "arn:aws-us-gov:"), ("eu-west-1", "us-gov-west-1")]),
    ("aws-cn", &[("arn:aws:", "arn:aws-cn:"), ("eu-west-1", "cn-north-1")]),
];

/// The kinds of files that lead to different policies.
fn variants() -> Vec<(String, Settings)> {
    let features: [(&str, &[(&str, &str)]); 3] =
        [("vpc", &IN_A_VPC), ("keys", &WITH_KEYS), ("creator", &WITH_A_CREATOR)];
    let mut variants = Vec::new();
    for (partition, names) in PARTITIONS {
        for set in 0..1 << features.len() {
            let chosen = features.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
            let (mut name, mut changes) = (partition.to_owned(), Vec::new());
            for (_, (feature, lines)) in chosen {
                name = format!("{name} {feature}");
                changes.extend_from_slice(lines);
            }
            changes.extend_from_slice(names);
            variants.push((name, sample(&changes)));
        }
    }
    variants
}

/// The text of each file.
fn made(settings: &Settings) -> BTreeMap<String, String> {
    let policies = executor::iam::policies(settings).unwrap();
    policies.iter().map(|(name, policy)| ((*name).to_owned(), executor::iam::file_text(policy).unwrap())).collect()
}

fn statements(policies: &BTreeMap<String, String>, file: &str) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&policies[file]).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    policy["Statement"].as_array().unwrap().clone()
}

/// One text, or a list.
fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The actions that the statements allow.
fn allowed(statements: &[Value]) -> BTreeSet<String> {
    let allowing = statements.iter().filter(|statement| statement["Effect"] == "Allow");
    allowing.flat_map(|statement| texts(&statement["Action"])).collect()
}

/// `INSTA_UPDATE=always` writes the files anew.
fn assert_shipped(folder: &str, settings: &Settings) {
    let (folder, policies) = (root().join(folder), made(settings));
    if Environment::of_process().get("INSTA_UPDATE") == Some("always") {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in &policies {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let shipped: BTreeMap<_, _> = files.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect();
    let rewrite = "`INSTA_UPDATE=always cargo test --test it -- policies` writes it anew";
    assert_eq!(shipped, policies, "{}: {rewrite}", folder.display());
}

#[test]
fn the_shipped_policies_are_those_of_the_sample() {
    assert_shipped("runner-config/iam", &sample(&[]));
    assert_shipped("runner-config/iam/creator", &sample(&WITH_A_CREATOR));
    assert_shipped("runner-config/iam/creator-in-vpc", &sample(&OF_THE_MODULES));
}

/// The policies of a file with a VPC, keys and data, at one glance.
#[test]
fn a_vpc_and_keys_add_their_statements() {
    let settings = sample(&[&IN_A_VPC[..], &WITH_KEYS[..], &WITH_DATA[..]].concat());
    let texts: Vec<_> = made(&settings).into_iter().map(|(name, text)| format!("{name}\n{text}")).collect();
    assert_snapshot("policies_with_vpc_and_keys", &texts.concat());
}

#[test]
fn the_policies_allow_what_the_adapter_calls_and_no_more() {
    let action = Regex::new(r#""((?:sagemaker|s3|logs|iam|kms|sts):[A-Za-z]+)""#).unwrap();
    let mut called = BTreeSet::new();
    for file in ["errors", "input_data", "jobs", "logs", "objects", "survey"] {
        let text = read(&format!("src/aws/{file}.rs"));
        called.extend(action.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    // Those that only a creator needs, see below, and one of the scaling of endpoints.
    called.retain(|action| !action.starts_with("sts:") && action != "iam:CreateServiceLinkedRole");
    for (name, settings) in variants() {
        let policies = made(&settings);
        let mut host = allowed(&statements(&policies, "runner-host.json"));
        if name.contains("creator") {
            // The host has two actions on the creator's role, which has all that creates a job.
            let creator = allowed(&statements(&policies, "creator.json"));
            for action in ["sagemaker:CreateTrainingJob", "sagemaker:AddTags", "iam:PassRole"] {
                assert!(creator.contains(action) && !host.contains(action), "{name}: {action}");
            }
            assert!(["sts:AssumeRole", "sts:TagSession"].iter().all(|action| host.remove(*action)), "{name}");
            host.extend(creator);
        }
        let job = allowed(&statements(&policies, "training-job.json"));
        // A key's actions are called by S3 and SageMaker, and each role has its own.
        let (of_keys, others): (BTreeSet<_>, BTreeSet<_>) =
            called.iter().cloned().partition(|action| action.starts_with("kms:"));
        let keys: BTreeSet<_> = host.union(&job).filter(|action| action.starts_with("kms:")).cloned().collect();
        assert_eq!(keys, if name.contains("keys") { of_keys } else { BTreeSet::new() }, "{name}");
        let hosts_own: BTreeSet<_> = host.iter().filter(|action| !action.starts_with("kms:")).cloned().collect();
        assert_eq!(hosts_own, others, "{name}");
        // The agent reads and writes objects; it deletes none, and knows nothing of the bucket. SageMaker deletes checkpoints.
        let deletions = statements(&policies, "training-job.json").into_iter().filter(|statement| {
            statement["Effect"] == "Allow" && texts(&statement["Action"]).contains(&"s3:DeleteObject".to_owned())
        });
        for key in deletions.flat_map(|statement| texts(&statement["Resource"])) {
            assert!(key.contains("/sagemaker-executor/checkpoints/"), "{name}: {key}");
        }
        let hosts_alone = ["s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"];
        for action in called.iter().filter(|action| action.starts_with("s3:")) {
            assert_eq!(job.contains(action), !hosts_alone.contains(&action.as_str()), "{name}: {action}");
        }
        assert_eq!(job.iter().any(|action| action.starts_with("ec2:")), name.contains("vpc"), "{name}");
    }
}

/// The runner host alone reads secrets: those of the file, and their keys through Secrets Manager.
#[test]
fn the_policies_allow_the_secrets_of_the_file_alone() {
    let without = sample(&[]);
    for (partition, names) in PARTITIONS {
        let with = sample(&[&WITH_SECRETS[..], names].concat());
        let (with, region) = (made(&with), names.last().map_or("eu-west-1", |(_, region)| *region));
        let host = statements(&with, "runner-host.json");
        let of = |action: &str| host.iter().find(|one| texts(&one["Action"]) == [action]).unwrap();
        let secrets = format!("arn:{partition}:secretsmanager:{region}:123456789012:secret:ci/churn/*-??????");
        assert_eq!(texts(&of("secretsmanager:GetSecretValue")["Resource"]), [secrets]);
        let key = of("kms:Decrypt");
        assert!(texts(&key["Resource"])[0].starts_with(&format!("arn:{partition}:kms:{region}:123456789012:key/")));
        let via = texts(&key["Condition"]["StringEquals"]["kms:ViaService"]);
        assert!(
            !via.is_empty() && via.iter().all(|via| via.starts_with(&format!("secretsmanager.{region}."))),
            "{via:?}"
        );
        let more: Vec<_> =
            allowed(&host).difference(&allowed(&statements(&made(&without), "runner-host.json"))).cloned().collect();
        assert_eq!(more, ["kms:Decrypt", "secretsmanager:GetSecretValue"]);
        for file in with.keys().filter(|file| *file != "runner-host.json") {
            assert!(!with[file].contains("secretsmanager"), "{file}");
        }
    }
}

/// With a creator, the objects, names and streams of a training job are those that its tags name, and without a tag it has none.
#[test]
fn tags_keep_the_training_jobs_of_a_creator_apart() {
    let job = statements(&made(&sample(&WITH_A_CREATOR)), "training-job.json");
    let (session, project) = ("${aws:PrincipalTag/sme-session}", "${aws:PrincipalTag/sme-project}");
    let named: Vec<String> = job
        .iter()
        .filter(|statement| statement["Effect"] == "Allow")
        .flat_map(|statement| {
            [texts(&statement["Resource"]), texts(&statement["Condition"]["StringLike"]["s3:prefix"])]
        })
        .flatten()
        .filter(|name| ["/sessions/", "/projects/", "log-stream:"].iter().any(|part| name.contains(part)))
        .collect();
    let of = |part: &str, tag: &str| named.iter().filter(|name| name.contains(&format!("{part}{tag}"))).count();
    assert_eq!((of("/sessions/", session), of("/projects/", project), of("log-stream:", session)), (2, 1, 2));
    assert_eq!(named.len(), 5, "{named:?}");
    let denied: BTreeSet<String> = job
        .iter()
        .filter(|statement| statement["Effect"] == "Deny" && texts(&statement["Action"]) == ["s3:*"])
        .flat_map(|statement| statement["Condition"]["Null"].as_object().unwrap().keys().cloned())
        .collect();
    assert_eq!(denied, BTreeSet::from([session, project].map(|tag| tag[2..tag.len() - 1].to_owned())));
}

/// IAM's limits, without white space: 10,240 characters for the policies within a role, 2,048 for its trust, 20 KB for a bucket.
#[test]
fn the_policies_fit() {
    for (name, settings) in variants() {
        for (file, text) in made(&settings) {
            let size = serde_json::from_str::<Value>(&text).unwrap().to_string().len();
            let most = if file.ends_with("-trust.json") { 2048 } else { 6144 };
            assert!(size <= most, "{name}: {file}: {size}");
        }
    }
}

#[test]
fn the_linter_finds_nothing() {
    let Some(python) = clients().map(|folder| folder.join("python3")) else {
        return skipped("the policies", "neither the machine nor the package index has the linter");
    };
    let has_linter = Command::new(&python).args(["-c", "import parliament"]).output().unwrap().status.success();
    if !has_linter {
        return skipped("the policies", "the package index does not have parliament");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let with_secrets = ("secrets".to_owned(), sample(&WITH_SECRETS));
    for (name, settings) in variants().into_iter().chain([with_secrets]) {
        let folder = folder.path().join(name.replace(' ', "-"));
        std::fs::create_dir(&folder).unwrap();
        for (file, text) in made(&settings) {
            files.push(folder.join(file));
            std::fs::write(files.last().unwrap(), text).unwrap();
        }
    }
    let of_models = std::fs::read_dir(root().join("runner-config/iam/lifecycle")).unwrap();
    let of_models = of_models.map(|entry| entry.unwrap().path());
    // The linter knows no identity provider but those of the large sites.
    files.extend(of_models.filter(|path| !path.to_str().unwrap().ends_with("-trust.json")));
    let lint = |files: &[&Path]| {
        Command::new(&python).arg("tests/fixtures/conformance/policies.py").args(files).output().unwrap()
    };
    let output = lint(&files.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", shown(&output));
    // It reads what it is given: a wrong action, and a condition that the action does not know.
    let wrong = folder.path().join("wrong.json");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    std::fs::write(&wrong, text.replace("s3:PutObject", "s3:PutObjekt")).unwrap();
    assert!(!lint(&[&wrong]).status.success());
}

/// Matches as IAM does: `*` any characters, `?` one, a slash included.
fn is_like(pattern: &str, text: &str) -> bool {
    let escaped = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("^{escaped}$")).unwrap().is_match(text)
}

/// A prefix of a key that the role of training jobs may list, or a key that it may read or write, holds the session's random bits.
#[test]
fn a_training_job_reaches_a_session_only_by_its_random_bits() {
    let objects = "arn:aws:s3:::example-ci-sagemaker/";
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    for statement in statements(&made(&sample(&[])), "training-job.json") {
        match texts(&statement["Action"]) {
            actions if actions.contains(&"s3:ListBucket".to_owned()) => {
                prefixes.extend(texts(&statement["Condition"]["StringLike"]["s3:prefix"]));
            }
            actions if actions[0].starts_with("s3:") => keys.extend(texts(&statement["Resource"])),
            _ => {}
        }
    }
    let random = "0123456789abcdef0123456789abcdef";
    let session = "sagemaker-executor/sessions/gitlab-1-2-abcdef12/";
    let may_list = |prefix: &str| prefixes.iter().any(|pattern| is_like(pattern, prefix));
    let may_reach = |key: &str| keys.iter().any(|pattern| is_like(pattern, &format!("{objects}{key}")));
    for name in
        ["open", "orders/000001.json", "trace/algo-1/000001/000000", "results/packs/0123456789abcdef0123456789abcdef"]
    {
        let key = format!("{session}{random}/{name}");
        assert!(may_reach(&key));
        for end in 0..=key.len() {
            let knows = end > session.len() + random.len();
            assert_eq!(may_list(&key[..end]), knows, "{}", &key[..end]);
        }
    }
    assert!(
        may_list(&format!("sagemaker-executor/agents/{random}/"))
            && may_reach(&format!("sagemaker-executor/agents/{random}/start.sh"))
    );
    for prefix in [
        "",
        "sagemaker-executor/",
        "sagemaker-executor/projects/",
        "sagemaker-executor/hosts/",
        "sagemaker-executor/projects/7-",
    ] {
        assert!(!may_list(prefix), "{prefix}");
    }
    assert!(!may_reach("sagemaker-executor/hosts/scope-key") && !may_reach("sagemaker-executor/output/x/model.tar.gz"));
}
