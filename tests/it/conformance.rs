//! The emulator with clients of others: boto3 with the models of botocore, and the AWS CLI.
//!
//! The clients come from the machine, or from a virtual environment in the target directory. Without either the tests
//! print `SKIPPED` and pass.

mod builds;
mod endpoints;
mod images;
mod registry;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use emulator::{EcrImage, Emulator, EmulatorConfig};

const PINS: &str = "tests/fixtures/conformance/requirements.txt";

/// An emulator in this process on its own runtime.
struct Running {
    runtime: tokio::runtime::Runtime,
    emulator: Option<Emulator>,
    endpoint: String,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(change: impl FnOnce(&mut EmulatorConfig)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmulatorConfig::new(folder.path()).without_delays();
        change(&mut config);
        let emulator = runtime.block_on(Emulator::start(config)).unwrap();
        Self { runtime, endpoint: emulator.endpoint().to_owned(), emulator: Some(emulator), folder }
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(emulator) = self.emulator.take() {
            self.runtime.block_on(emulator.stop());
        }
    }
}

/// The folder of `python3` and `aws` with the pinned clients; `None` if they are not available.
pub(crate) fn clients() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(find_clients).as_deref()
}

fn find_clients() -> Option<PathBuf> {
    let prints = |python: &Path, code: &str| {
        let output = Command::new(python).args(["-c", code]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = |python: &Path| prints(python, "import boto3, awscli, botocore; print(botocore.__version__)");
    let pinned = pinned("botocore");
    let system = PathBuf::from(prints(Path::new("python3"), "import sys; print(sys.executable)")?);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-clients-{pinned}"));
    let of_the_gate = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin/python3");
    let own = venv.join("bin/python3");
    let found = [&system, &of_the_gate, &own]
        .into_iter()
        .find(|one| version(one) == Some(pinned.clone()) && prints(one, "import parliament").is_some());
    if let Some(python) = found {
        return Some(python.parent()?.to_owned());
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().ok()?;
    let filled = Command::new(&own).args(["-m", "pip", "install", "--quiet", "-r", PINS]).status().ok()?;
    // Clients of another version are better than none.
    let usable = if made.success() && filled.success() { own } else { system };
    version(&usable).and_then(|_| Some(usable.parent()?.to_owned()))
}

/// The version of a package that the tests are written for.
fn pinned(package: &str) -> String {
    let pins = std::fs::read_to_string(PINS).unwrap();
    let mut pairs = pins.lines().filter_map(|line| line.split_once("=="));
    pairs.find(|(name, _)| *name == package).unwrap().1.to_owned()
}

pub(crate) fn skipped(test: &str, what: &str) {
    eprintln!("SKIPPED: {test}: {what}");
}

pub(crate) fn can_run_containers() -> bool {
    let tried = Command::new("bwrap").args(["--dev-bind", "/", "/", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

pub(crate) fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn boto3_and_its_models_accept_every_operation() {
    let Some(clients) = clients() else {
        return skipped("boto3", "neither the machine nor the package index has the clients");
    };
    if !can_run_containers() {
        return skipped("boto3", "bubblewrap cannot create a container here");
    }
    // A container whose time is over before it can take a signal ends soon.
    let running = Running::start(|config| config.stop_grace = Duration::from_secs(10));
    let output = Command::new(clients.join("python3"))
        .args(["tests/fixtures/conformance/drive.py", &running.endpoint, "conformance"])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_SHARED_CREDENTIALS_FILE", running.credentials())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn boto3_may_do_as_a_user_or_role_what_its_policies_grant() {
    let Some(clients) = clients() else {
        return skipped("boto3 as users and roles", "neither the machine nor the package index has the clients");
    };
    if !can_run_containers() {
        return skipped("boto3 as users and roles", "bubblewrap cannot create a container here");
    }
    let account = std::fs::read("tests/fixtures/conformance/account.json").unwrap();
    let running = Running::start(|config| {
        config.buckets.push("iam".to_owned());
        config.iam.push(serde_json::from_slice(&account).unwrap());
    });
    let output = Command::new(clients.join("python3"))
        .args(["tests/fixtures/conformance/iam.py", &running.endpoint])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_SHARED_CREDENTIALS_FILE", running.credentials())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn the_aws_cli_accepts_the_replies() {
    let Some(clients) = clients() else {
        return skipped("the AWS CLI", "neither the machine nor the package index has the clients");
    };
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let running = Running::start(|config| {
        config.buckets.push("from-cli".to_owned());
        config.instance_quotas.insert("endpoint:ml.m5.large".to_owned(), 4);
        let platforms = vec!["linux/arm64".to_owned()];
        config.ecr_images.push(EcrImage { repository: "serve".to_owned(), digest: digest.clone(), platforms });
    });
    let folder = tempfile::tempdir().unwrap();
    let aws = |arguments: &[&str]| -> String {
        let output = Command::new(clients.join("aws"))
            .args(arguments)
            .env_clear()
            .env("PATH", clients)
            .env("HOME", folder.path())
            .env("AWS_ENDPOINT_URL", &running.endpoint)
            .env("AWS_SHARED_CREDENTIALS_FILE", running.credentials())
            .env("AWS_DEFAULT_REGION", "eu-west-1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(aws(&["sts", "get-caller-identity"]).contains("000000000000"));
    assert!(aws(&["service-quotas", "list-service-quotas", "--service-code", "sagemaker"]).contains("endpoint usage"));
    assert!(aws(&["iam", "get-role", "--role-name", "any"]).contains("\"Service\": \"sagemaker.amazonaws.com\""));
    let simulate = ["iam", "simulate-principal-policy", "--policy-source-arn", "arn:aws:iam::000000000000:user/test"];
    assert!(
        aws(&[&simulate[..], &["--action-names", "iam:PassRole"]].concat()).contains("\"EvalDecision\": \"allowed\"")
    );
    let id = format!("imageDigest={digest}");
    let image = ["--repository-name", "serve", "--image-ids", &id];
    assert!(aws(&[&["ecr", "describe-images"], &image[..]].concat()).contains(&digest));
    assert!(aws(&[&["ecr", "batch-get-image"], &image[..]].concat()).contains("image.config.v1"));
    // Larger than one part of a multipart upload.
    let body: Vec<u8> = (0..9_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::write(&source, &body).unwrap();
    aws(&["s3", "cp", "--no-progress", source.to_str().unwrap(), "s3://from-cli/some/big file"]);
    aws(&["s3", "cp", "--no-progress", "s3://from-cli/some/big file", target.to_str().unwrap()]);
    assert!(std::fs::read(&target).unwrap() == body, "the object comes back as it was");
    assert!(aws(&["s3", "ls", "s3://from-cli/"]).contains("PRE some/"));
    assert!(aws(&["sagemaker", "list-training-jobs"]).contains("\"TrainingJobSummaries\": []"));
    assert!(aws(&["logs", "describe-log-groups"]).contains("\"logGroups\": []"));
}

#[test]
fn the_constraint_tables_are_what_the_tool_makes_of_the_service_models() {
    let Some(clients) = clients() else {
        return skipped("the constraint tables", "neither the machine nor the package index has botocore");
    };
    let python = |arguments: &[&str]| {
        let output = Command::new(clients.join("python3")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let (version, pinned) = (python(&["-c", "import botocore; print(botocore.__version__)"]), pinned("botocore"));
    if version.trim() != pinned {
        return skipped("the constraint tables", &format!("they are those of botocore {pinned}, not of {version}"));
    }
    let (folder, model) = (tempfile::tempdir().unwrap(), Path::new("src/emulator/model"));
    let operations = model.join("operations.json");
    python(&[
        "tests/fixtures/conformance/constraints.py",
        operations.to_str().unwrap(),
        folder.path().to_str().unwrap(),
    ]);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let committed = std::fs::read_to_string(model.join(entry.file_name())).unwrap_or_default();
        let made = std::fs::read_to_string(entry.path()).unwrap();
        assert!(
            committed == made,
            "{} is not what the tool writes; run `python3 tests/fixtures/conformance/constraints.py {} {}` with botocore {}",
            entry.file_name().display(),
            operations.display(),
            model.display(),
            version.trim()
        );
    }
}
