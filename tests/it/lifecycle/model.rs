//! `model`: versions in the emulator's registry, under the shipped policies, with id tokens and kills.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use executor::config::env::Environment;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::skipped;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::shipped_roles::shipped_role;
use crate::support::snapshot::assert_snapshot;
use crate::support::waiting::poll;

const REGISTER: &str = include_str!("../../../runner-config/iam/lifecycle/model-register.json");
const APPROVE: &str = include_str!("../../../runner-config/iam/lifecycle/model-approve.json");
const GATE: &str = include_str!("../../../runner-config/iam/lifecycle/gate.json");
const LATEST: &str = include_str!("../../../runner-config/iam/lifecycle/model-latest.json");

/// The region in which the emulator's own requests are.
const REGION: &str = "us-east-1";

/// Moments at which `register` is killed, unless `KILLS` says otherwise.
const KILLS: usize = 3;

/// A project, and an account whose roles have the shipped policies.
struct Desk {
    /// Ends before its folder goes.
    emulator: Emulator,
    folder: tempfile::TempDir,
    key: TokenKey,
}

/// Roles by name. Training jobs and versions are in the account that the emulator has by itself.
fn account() -> String {
    let roles = [("register", REGISTER), ("approve", APPROVE), ("gate", GATE), ("latest", LATEST)].map(shipped_role);
    json!({ "RoleDetailList": roles }).to_string()
}

impl Desk {
    /// `None` without `openssl`, which signs the tokens.
    fn new() -> Option<Self> {
        if Command::new(id_tokens::NEEDS).arg("version").stdout(Stdio::null()).status().is_err() {
            skipped("models", "openssl is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let key = TokenKey::new(folder.path());
        std::fs::write(file("account.json"), account()).unwrap();
        let oidc = format!("{}={}", id_tokens::ISSUER, key.jwks.display());
        let args = ["--iam", file("account.json").to_str().unwrap(), "--oidc", &oidc].map(str::to_owned);
        let emulator = Emulator::start(&file("data"), &args);
        std::fs::create_dir_all(file("model/code")).unwrap();
        std::fs::write(file("model/model.json"), "{\"weights\": [1, 2]}").unwrap();
        std::fs::write(file("model/code/inference.py"), "def model_fn(folder): pass\n").unwrap();
        std::fs::write(file("metrics.json"), "{\"accuracy\": 0.9}").unwrap();
        let manifest = json!({
            "model": {
                "group": "wine",
                "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
                "metrics": ["metrics.json"],
                "require": ["accuracy>=0.8"],
                "approvals": {"min": 2, "no_self": true},
            },
            "tags": {"Project": "wine"},
            "environments": {"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}},
        });
        std::fs::write(file("manifest.json"), manifest.to_string()).unwrap();
        Some(Self { emulator, folder, key })
    }

    fn variables(&self, role: &str, user: &str) -> Vec<(String, String)> {
        let arn = format!("arn:aws:iam::000000000000:role/{role}");
        let own = [
            ("AWS_ROLE_ARN", arn.as_str()),
            ("SAGEMAKER_ID_TOKEN", &self.key.token(user)),
            ("CI_ENVIRONMENT_NAME", "prod"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_PIPELINE_ID", "7"),
            ("CI_JOB_ID", "8"),
        ];
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// Runs `model` as a user whose token is exchanged for the role.
    fn model(&self, role: &str, user: &str, words: &[&str]) -> Ended {
        let variables = self.variables(role, user);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(self.folder.path(), &variables, &self.line(words))
    }

    /// `model`, for the emulator.
    fn line<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["model"], words, &["--endpoint-url", &self.emulator.endpoint]].concat()
    }

    /// Checks that the role used all of its policy, and was denied nothing.
    fn assert_uses_all(&self, role: &str, policy: &str) {
        let decided = self.emulator.decided(role);
        assert_eq!(decided["denied"], json!({}), "{role}");
        let used: BTreeSet<String> = decided["allowed"].as_object().unwrap().keys().cloned().collect();
        let policy: Value = serde_json::from_str(policy).unwrap();
        let actions = |statement: &Value| match &statement["Action"] {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        let granted = policy["Statement"].as_array().unwrap().iter().flat_map(actions);
        // Without it, S3 answers for an absent object as for one that may not be read.
        let granted: BTreeSet<String> = granted.map(|action| action.as_str().unwrap().to_owned()).collect();
        let unused: Vec<_> = granted.difference(&used).filter(|action| *action != "s3:ListBucket").collect();
        assert!(unused.is_empty(), "{role}: {unused:?} of {granted:?}");
    }

    /// Every stored object, and the versions.
    fn state(&self) -> (Vec<String>, Vec<Value>) {
        let list = self.emulator.call("SageMaker.ListModelPackages", &json!({"ModelPackageGroupName": "wine"}));
        let versions = list["ModelPackageSummaryList"].as_array().cloned().unwrap_or_default();
        let arns = versions.iter().map(|version| json!({"ModelPackageName": version["ModelPackageArn"]}));
        let described = arns.map(|arn| {
            let mut version = self.emulator.call("SageMaker.DescribeModelPackage", &arn);
            for time in ["CreationTime", "LastModifiedTime", "CreatedBy", "LastModifiedBy"] {
                version.as_object_mut().unwrap().remove(time);
            }
            version
        });
        let mut objects = self.emulator.objects();
        objects.sort();
        (objects, described.collect())
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// From the folder to the approved version, as users of GitLab, under the shipped policies.
#[test]
fn a_model_is_registered_approved_by_two_and_found() {
    let Some(desk) = Desk::new() else { return };
    let folder = desk.folder.path();
    let registered = desk.model("register", "1", &["register", "--dotenv", "model.env"]);
    assert_eq!(registered.code, 0, "{}", registered.stderr);
    assert_snapshot("model_register", &registered.stdout);
    let (objects, versions) = desk.state();
    let [version] = versions.as_slice() else { panic!("{versions:?}") };
    assert_eq!(objects.len(), 3, "{objects:?}");
    assert!(objects.iter().all(|key| version.to_string().contains(key)), "{objects:?} {version}");
    let arn = "arn:aws:sagemaker:us-east-1:000000000000:model-package/wine/1";
    assert!(read(folder, "model.env").contains(&format!("\nMODEL_PACKAGE_ARN={arn}\n")));

    let again = desk.model("register", "1", &["register"]);
    assert!(again.code == 0 && again.stdout.starts_with("wine version 1: unchanged\n"), "{}", again.stderr);
    assert_eq!(desk.emulator.requests("CreateModelPackage"), 1);

    let none = desk.model("latest", "1", &["latest"]);
    assert_eq!((none.code, none.stdout.as_str()), (1, ""), "{}", none.stderr);
    let own = desk.model("approve", "1", &["approve", "--latest"]);
    assert_eq!(own.code, 30, "{}", own.stderr);
    let first = desk.model("approve", "2", &["approve", "--model-package", arn, "--reason", "good on the holdout"]);
    assert_eq!(first.code, 30, "{}", first.stderr);
    assert_snapshot("model_approve_first", &format!("{}{}", first.stdout, first.stderr));
    let second = desk.model("approve", "3", &["approve", "--version", "1", "--output", "json"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert_eq!(serde_json::from_str::<Value>(&second.stdout).unwrap()["approval"], "Approved");
    let found = desk.model("latest", "1", &["latest", "--dotenv", "latest.env"]);
    assert_eq!(found.code, 0, "{}", found.stderr);
    assert!(read(folder, "latest.env").contains(&format!("\nMODEL_PACKAGE_ARN={arn}\n")));
    let rejected = desk.model("approve", "4", &["reject", "--latest", "--reason", "drifts"]);
    assert_eq!(rejected.code, 0, "{}", rejected.stderr);
    let refused = desk.model("approve", "3", &["approve", "--latest"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);

    desk.assert_uses_all("register", REGISTER);
    desk.assert_uses_all("approve", APPROVE);
    desk.assert_uses_all("latest", LATEST);

    // A token that a job made up, and a role that may not approve.
    let mut forged = desk.variables("approve", "3");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = TokenKey::new(elsewhere.path());
    forged.push(("SAGEMAKER_ID_TOKEN".to_owned(), other.token("3")));
    let forged: Vec<_> = forged.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let ended = run(folder, &forged, &desk.line(&["approve", "--latest", "--force"]));
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert_snapshot("model_approve_forged", &ended.stderr);
    let denied = desk.model("register", "3", &["approve", "--latest", "--force"]);
    assert_eq!(denied.code, 2);
    assert!(denied.stderr.contains("`sagemaker:UpdateModelPackage`"), "{}", denied.stderr);
}

/// The blocks of the page in a language, with their places.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<(usize, &'a str)> {
    let start = format!("```{language}\n");
    let block = |(at, _): (usize, &str)| {
        let text = page[at + start.len()..].split("```").next().unwrap();
        (at, text)
    };
    page.match_indices(&start).map(block).collect()
}

/// The lines of a job's script.
fn script(job: &str) -> String {
    let (_, script) = job.split_once("  script:\n    - ").unwrap();
    let (first, others) = script.split_once('\n').unwrap();
    let others = others.lines().take_while(|line| line.starts_with("    ")).map(str::trim_start);
    std::iter::once(first).chain(others).collect::<Vec<_>>().join(" ")
}

/// Someone who copies the page's manifest and jobs, with the shipped policies.
#[test]
fn the_jobs_of_the_page_work_with_its_manifests() {
    let Some(desk) = Desk::new() else { return };
    let page = include_str!("../../../docs/LIFECYCLE.md");
    let page = page
        .replace("123456789012", "000000000000")
        .replace("eu-west-1", REGION)
        .replace("example-models\"", &format!("{BUCKET}\""));
    let folder = desk.folder.path();
    std::fs::write(folder.join("metrics.json"), "{\"accuracy\": 0.9, \"f1\": 0.8}").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_sagemaker-executor")).parent().unwrap();
    let mut done = Vec::new();
    for (at, job) in blocks(&page, "yaml") {
        let name = job.split(':').next().unwrap();
        if !["gate", "register", "approve"].contains(&name) {
            continue;
        }
        assert!(job.contains(&format!("role/{name}\n")) && job.contains("id_tokens:"), "{job}");
        let environment = job.lines().find_map(|line| line.trim().strip_prefix("environment: ")).unwrap();
        let environment = environment.trim_start_matches("{name: ").split(',').next().unwrap();
        let manifests = blocks(&page, "json");
        let manifest = manifests.iter().rfind(|(place, text)| *place < at && text.starts_with('{')).unwrap().1;
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
        let mut shell = Command::new("/bin/sh");
        let script = format!("{} --endpoint-url {}", script(job), desk.emulator.endpoint);
        shell.args(["-ec", &script]).current_dir(folder).env_clear().env("PATH", program);
        shell.envs(desk.variables(name, "1")).env("CI_ENVIRONMENT_NAME", environment).env("REASON", "good");
        let variables = std::fs::read_to_string(folder.join("model.env")).unwrap_or_default();
        shell.envs(variables.lines().filter_map(|line| line.split_once('=')));
        let ended = shell.output().unwrap();
        assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
        done.push(name);
    }
    assert_eq!(done, ["gate", "register", "approve"]);
}

/// `SIGKILL` at any moment: the same command again ends as one that nothing disturbed.
#[test]
fn a_killed_register_goes_on() {
    let Some(undisturbed) = Desk::new() else { return };
    assert_eq!(undisturbed.model("register", "1", &["register"]).code, 0);
    let expected = undisturbed.state();
    let kills = Environment::of_process().get("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let operations = ["CreateModelPackageGroup", "PutObject", "CreateModelPackage"];
    for kill in 0..kills {
        let Some(desk) = Desk::new() else { return };
        let at = operations[kill % operations.len()];
        let accepted = kill % 2 == 1;
        // The call hangs, so that the kill finds the command in it; AWS may carry it out all the same.
        let hangs = json!({"operation": at, "count": 1, "delay_ms": 60_000, "accepted": accepted});
        desk.emulator.set_faults(&json!({"calls": [hangs]}));
        let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
        program.args(desk.line(&["register"])).env_clear().envs(desk.variables("register", "1"));
        let mut child = program
            .current_dir(desk.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let reached = poll(Duration::from_secs(30), || (desk.emulator.requests(at) > 0).then_some(()));
        assert!(reached.is_some(), "{at}");
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        child.wait().unwrap();
        desk.emulator.set_faults(&json!({}));
        let ended = desk.model("register", "1", &["register"]);
        assert_eq!(ended.code, 0, "{at} {accepted}: {}", ended.stderr);
        assert_eq!(desk.state(), expected, "{at} {accepted}");
    }
}
