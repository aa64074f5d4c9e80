//! `doctor`, through the program: on a sound host, with planted mistakes in the account, and with the role of a runner host. Its rows in the
//! documents.
//!
//! The table of all planted mistakes is in memory, beside the checks; here are the ways to AWS and to the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use executor::config::env::Environment;
use executor::operate::doctor::CHECKS;
use regex::Regex;
use serde_json::{Value, json};

use crate::conformance::{can_run_containers, skipped};
use crate::docs::read;
use crate::support::driver::write_program;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::program::executor;
use crate::support::waiting::search_path;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/1234";
const OPERATOR_FILE: &str = r#"
[aws]
region = "us-east-1"
endpoint_url = "{emulator}"
[storage]
bucket = "ci-bucket"
kms_key_id = "{key}"
[job]
role_arn = "arn:aws:iam::000000000000:role/plain"
image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/train@{digest}"
subnets = ["subnet-1"]
security_group_ids = ["sg-1"]
[iam]
host_role_arn = "arn:aws:iam::000000000000:role/runner"
[runner]
builds_dir = "{root}/builds"
cache_dir = "{root}/cache"
state_dir = "{root}/state"
[sandbox]
max_bytes = 1048576
"#;

/// A runner host in a folder.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::create_dir(file("bin")).unwrap();
        let program =
            |name: &str, lines: &str| write_program(&file("bin").join(name), &format!("#!/bin/sh\n{lines}\n"));
        program("gitlab-runner", "echo 'Version:      19.4.0'");
        program("git-lfs", "true");
        program("systemctl", "case $1 in is-enabled) echo enabled;; *) echo LoadState=not-found;; esac");
        let text = read("runner-config/config.toml")
            .replace("https://gitlab.example.com", "https://gitlab.company.org")
            .replace("glrt-REPLACE_ME", "glrt-abc")
            .replace("/usr/local/bin/sagemaker-executor", executor().to_str().unwrap())
            .replace("/etc/sagemaker-executor/sagemaker-executor.toml", file("operator.toml").to_str().unwrap());
        write_private(&file("config.toml"), &text);
        let network = json!({
            "Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1"}],
            "SecurityGroups": [{"GroupId": "sg-1", "VpcId": "vpc-1", "IpPermissionsEgress": [{"IpProtocol": "-1"}]}],
            "RouteTables": [{"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Associations": [{"Main": true}], "Routes": [
                {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"},
            ]}],
            "VpcEndpoints": [{
                "VpcEndpointId": "vpce-1", "VpcEndpointType": "Gateway", "VpcId": "vpc-1", "State": "available",
                "ServiceName": "com.amazonaws.us-east-1.s3", "RouteTableIds": ["rtb-1"],
            }],
        });
        std::fs::write(file("network.json"), network.to_string()).unwrap();
        Self { folder }
    }

    fn emulator(&self, more: &[(&str, String)]) -> Emulator {
        let network = self.folder.path().join("network.json").display().to_string();
        let usual = [
            ("--network", network),
            ("--kms-key", format!("{KEY}=Enabled")),
            ("--ecr", format!("train@{DIGEST}=linux/amd64")),
            ("--quota", "ml.m5.large=4".to_owned()),
        ];
        let args = usual.iter().chain(more).flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
        let emulator = Emulator::start(&self.folder.path().join("data"), &args.collect::<Vec<_>>());
        let rules = read("runner-config/bucket-lifecycle.json");
        let rules: Value = serde_json::from_str(&rules).unwrap();
        let rule = |rule: &Value| {
            let days =
                rule["Expiration"]["Days"].as_u64().map(|days| format!("<Expiration><Days>{days}</Days></Expiration>"));
            let prefix = rule["Filter"]["Prefix"].as_str().unwrap();
            format!(
                "<Rule><Status>Enabled</Status><Filter><Prefix>{prefix}</Prefix></Filter>{}</Rule>",
                days.unwrap_or_default()
            )
        };
        let rules: Vec<_> = rules["Rules"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["Expiration"]["Days"].is_u64())
            .map(rule)
            .collect();
        emulator.put_bucket_setting(
            "lifecycle",
            &format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat()),
        );
        let ours = ["arn:aws:iam::000000000000:role/runner", "arn:aws:iam::000000000000:user/test"];
        emulator.put_bucket_policy(&json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
            "Resource": format!("arn:aws:s3:::{BUCKET}/sagemaker-executor/agents/*"),
            "Condition": {"ArnNotEquals": {"aws:PrincipalArn": ours}},
        }}));
        emulator
    }

    fn write_operator_file(&self, emulator: &str, change: impl FnOnce(String) -> String) {
        let root = self.folder.path().display().to_string();
        let text = OPERATOR_FILE.replace("{emulator}", emulator).replace("{root}", &root);
        let text = text.replace("{key}", KEY).replace("{digest}", DIGEST);
        std::fs::write(self.folder.path().join("operator.toml"), change(text)).unwrap();
    }

    fn doctor(&self, credentials: &[(String, String)], more: &[&str]) -> (i32, Value, String) {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), search_path());
        let output = Command::new(executor())
            .arg("--config")
            .arg(self.folder.path().join("operator.toml"))
            .args(["doctor", "--json", "--runner-config"])
            .arg(self.folder.path().join("config.toml"))
            .args(more)
            .env_clear()
            .envs(credentials.iter().cloned())
            .env("PATH", path)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        (output.status.code().unwrap(), report, log)
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Texts and changes of the findings with a verdict, by their check.
fn of_verdict(report: &Value, verdict: &str) -> BTreeMap<String, String> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == verdict);
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    findings
        .map(|finding| (text(finding, "id"), format!("{}; {}", text(finding, "text"), text(finding, "change"))))
        .collect()
}

fn ids(report: &Value, verdict: &str) -> BTreeSet<String> {
    of_verdict(report, verdict).into_keys().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Neither a sound host has a finding, nor does any check write; then the account is spoilt in many ways at once.
#[test]
fn a_sound_host_has_no_finding_and_a_spoilt_account_is_told() {
    if !can_run_containers() {
        return skipped("doctor", "bubblewrap makes no container");
    }
    let site = Site::new();
    let emulator = site.emulator(&[("--quota", "ml.c5.large=0".to_owned())]);
    let credentials = emulator.of_administrator();
    let without_host_role = |text: String| text.replace("host_role_arn", "# host_role_arn");
    site.write_operator_file(&emulator.endpoint, without_host_role);
    let before = emulator.all_requests();
    let (code, report, log) = site.doctor(&credentials, &[]);
    assert_eq!(ids(&report, "failure"), set(&[]), "{log}");
    assert_eq!((code, ids(&report, "warning")), (0, set(&[])), "{:?}", of_verdict(&report, "warning"));
    let asked = emulator.all_requests();
    let is_read = Regex::new("^(Get|List|Describe|Head|Simulate|BatchGet)").unwrap();
    let made = asked.iter().filter(|(name, count)| before.get(*name) != Some(count)).map(|(name, _)| name);
    let writes: Vec<_> = made.filter(|name| !is_read.is_match(name)).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert!(!site.folder.path().join("state").exists());

    emulator.keep_versions();
    let other = "<Rule><Status>Enabled</Status><Filter><Prefix>other/</Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>";
    emulator.put_bucket_setting("lifecycle", &format!("<LifecycleConfiguration>{other}</LifecycleConfiguration>"));
    emulator.put_bucket_setting(
        "publicAccessBlock",
        "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
    );
    emulator.put_bucket_setting(
        "encryption",
        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>\
         <KMSMasterKeyID>other</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    );
    let spoilt = |text: String| {
        let text = without_host_role(text);
        text.replace("kms_key_id = ", "# ")
            .replace("[job]", "[job]\nvolume_kms_key_id = \"absent\"\ninstance_type = \"ml.c5.large\"")
            .replace("\"subnet-1\"", "\"subnet-1\", \"subnet-2\"")
            .replace("/train@", "/absent@")
    };
    site.write_operator_file(&emulator.endpoint, spoilt);
    let (code, report, log) = site.doctor(&credentials, &[]);
    let failures = ["bucket.public_access", "image.exists", "kms.key", "network.subnet", "quota.training"];
    assert_eq!((code, ids(&report, "failure")), (1, set(&failures)), "{log}");
    assert_eq!(ids(&report, "warning"), set(&["bucket.encryption", "bucket.lifecycle", "bucket.versioning"]));
    assert!(of_verdict(&report, "failure")["network.subnet"].contains("job.subnets"));

    site.write_operator_file("http://127.0.0.1:1", without_host_role);
    let (code, report, _) = site.doctor(&credentials, &[]);
    let failures = of_verdict(&report, "failure");
    assert_eq!((code, failures.keys().map(String::as_str).collect::<Vec<_>>()), (1, vec!["aws.credentials"]));
    assert!(failures["aws.credentials"].contains("every request goes to http://127.0.0.1:1, by `aws.endpoint_url`"));

    emulator.create_bucket("elsewhere", "eu-west-1");
    site.write_operator_file(&emulator.endpoint, |text| without_host_role(text).replace("ci-bucket", "elsewhere"));
    let (_, report, _) = site.doctor(&credentials, &[]);
    let failures = of_verdict(&report, "failure");
    assert!(
        failures["bucket.region"].contains("eu-west-1") && failures["bucket.region"].contains("aws.region"),
        "{failures:?}"
    );
}

/// One training job, in the form for `DOCTOR=all` alone. Its cost is told, and nothing of it stays but the agent.
#[test]
fn a_job_runs_and_its_cost_is_told() {
    if Environment::of_process().get("DOCTOR") != Some("all") {
        return skipped("doctor --job", "played with DOCTOR=all");
    }
    if !can_run_containers() {
        return skipped("doctor --job", "bubblewrap makes no container");
    }
    let site = Site::new();
    let emulator = site.emulator(&[]);
    let priced =
        |text: String| text.replace("host_role_arn", "# host_role_arn") + "[prices]\n\"ml.m5.large\" = 0.128\n";
    site.write_operator_file(&emulator.endpoint, priced);
    let (code, report, log) = site.doctor(&emulator.of_administrator(), &["--job"]);
    assert_eq!((code, ids(&report, "failure")), (0, set(&[])), "{log}");
    let told = of_verdict(&report, "ok");
    assert!(told["job.run"].contains("Billed") && told["job.run"].contains("0.01"), "{told:?}");
    assert_eq!(emulator.session_objects(), Vec::<String>::new());
}

/// The role of the runner hosts, with a statement left out of its policy, and a role that SageMaker may not assume. Without the right to
/// simulate, the check is skipped.
#[test]
fn a_missing_permission_comes_with_its_statement() {
    if !can_run_containers() {
        return skipped("doctor, roles", "bubblewrap makes no container");
    }
    let site = Site::new();
    site.write_operator_file("http://127.0.0.1:1", |text| text);
    let output = Command::new(executor())
        .arg("--config")
        .arg(site.folder.path().join("operator.toml"))
        .args(["policy", "iam"])
        .env_clear()
        .output()
        .unwrap();
    let policies: Value = serde_json::from_slice(&output.stdout).unwrap();
    let statements = policies["runner-host.json"]["Statement"].as_array().unwrap();
    let left_out = statements.iter().find(|statement| statement["Sid"] == "TrainingJobs").unwrap();
    let mut granted: Vec<Value> = statements.iter().filter(|statement| *statement != left_out).cloned().collect();
    let mut role = |name: &str, more: &[&str]| {
        granted.extend((!more.is_empty()).then(|| json!({"Effect": "Allow", "Action": more, "Resource": "*"})));
        let trust = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}});
        json!({
            "RoleName": name, "RoleId": format!("AROA{}", name.to_uppercase()),
            "Arn": format!("arn:aws:iam::000000000000:role/{name}"), "AssumeRolePolicyDocument": trust,
            "RolePolicyList": [{"PolicyName": name, "PolicyDocument": {"Version": "2012-10-17", "Statement": granted.clone()}}],
        })
    };
    let mut plain = role("plain", &[]);
    let of_jobs = &policies["training-job.json"];
    let list = plain["RolePolicyList"].as_array_mut().unwrap();
    list.push(json!({"PolicyName": "jobs", "PolicyDocument": of_jobs}));
    let host = role("runner", &["iam:SimulatePrincipalPolicy", "iam:GetRole"]);
    let account = json!({"RoleDetailList": [host, plain]});
    std::fs::write(site.folder.path().join("account.json"), account.to_string()).unwrap();
    let mut emulator = site.emulator(&[("--iam", site.folder.path().join("account.json").display().to_string())]);
    emulator.call_driver_as("role/runner");
    site.write_operator_file(&emulator.endpoint, |text| text);
    let (code, report, log) = site.doctor(&emulator.environment(), &[]);
    assert_eq!((code, ids(&report, "failure")), (1, set(&["aws.actions", "role.trust"])), "{log}");
    // The emulator's keys of a role are those of a session, which nobody renews.
    assert_eq!(ids(&report, "warning"), set(&["aws.expiry"]));
    let findings = report["findings"].as_array().unwrap();
    let missing =
        findings.iter().find(|finding| finding["id"] == "aws.actions" && finding["verdict"] == "failure").unwrap();
    assert_eq!(missing["statement"], *left_out);
    assert!(missing["text"].as_str().unwrap().contains("sagemaker:StopTrainingJob"), "{missing}");
    let skipped = of_verdict(&report, "skipped");
    assert!(
        skipped["kms.key"].contains("kms:DescribeKey") && skipped["network.subnet"].contains("ec2:DescribeSubnets")
    );
    emulator.call_driver_as("role/plain");
    let (code, report, _) = site.doctor(&emulator.environment(), &[]);
    assert_eq!((code, ids(&report, "failure")), (0, set(&[])));
    assert!(of_verdict(&report, "skipped")["aws.actions"].contains("iam:SimulatePrincipalPolicy"));
    assert_eq!(ids(&report, "warning"), set(&["aws.expiry", "aws.host_role"]));
}

/// `docs/TROUBLESHOOTING.md` has a row for each check, and no other.
#[test]
fn each_check_has_its_row() {
    let page = read("docs/TROUBLESHOOTING.md");
    let (_, section) = page.split_once("\n## Findings of `doctor`\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cell = Regex::new(r"(?m)^\| ((?:`[a-z.0-9_]+`(?:, )?)+) \|").unwrap();
    let id = Regex::new("`([a-z.0-9_]+)`").unwrap();
    let rows: BTreeSet<String> = cell
        .captures_iter(section)
        .flat_map(|found| id.captures_iter(&found[1]).map(|found| found[1].to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(rows, set(CHECKS));
}
