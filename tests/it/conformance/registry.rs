//! The emulator's model registry with clients of others, in an emulator that is started as users do.

use std::path::Path;
use std::process::Command;

use super::{clients, shown, skipped};
use crate::support::emulator::{BUCKET, Emulator};

/// The version of the SageMaker SDK for Python that the test is written for. It brings 300 MB, so it is not among the pinned clients.
const SDK: &str = "sagemaker-core==2.27.0";

/// A client's program with the emulator's address and its keys.
pub(super) fn client(emulator: &Emulator, data_dir: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", program.parent().expect("a program is in a folder"))
        .env("HOME", data_dir)
        .env("AWS_ENDPOINT_URL", &emulator.endpoint)
        .env("AWS_SHARED_CREDENTIALS_FILE", data_dir.join("credentials"))
        .env("AWS_DEFAULT_REGION", "eu-west-1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn clients_of_two_accounts_share_models() {
    let Some(clients) = clients() else {
        return skipped("the model registry", "neither the machine nor the package index has the clients");
    };
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let iam = |file: &str| ["--iam".to_owned(), format!("tests/fixtures/conformance/{file}")];
    let emulator = Emulator::start(&data_dir, &[iam("account.json"), iam("other-account.json")].concat());
    let script = "tests/fixtures/conformance/registry.py";
    run(client(&emulator, &data_dir, &clients.join("python3")).args([script, &emulator.endpoint, BUCKET]));

    let aws = |profile: &str, arguments: &[&str]| {
        let mut command = client(&emulator, &data_dir, &clients.join("aws"));
        run(command.args(["--profile", profile, "--output", "text", "sagemaker"]).args(arguments))
    };
    let containers = r#"{"Containers": [{"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz"}]}"#;
    let create =
        ["create-model-package", "--model-package-group-name", "fraud", "--inference-specification", containers];
    let version = aws("default", &create);
    let update = ["update-model-package", "--model-approval-status", "Approved", "--model-package-arn", version.trim()];
    assert_eq!(aws("default", &update), version);
    let group = "arn:aws:sagemaker:eu-west-1:000000000000:model-package-group/fraud";
    let approved = ["--model-approval-status", "Approved", "--query", "ModelPackageSummaryList[].ModelPackageArn"];
    let list = [&["list-model-packages", "--model-package-group-name", group], &approved[..]].concat();
    assert_eq!(aws("222222222222/role/deployer", &list), version);
}

#[test]
fn the_sagemaker_sdk_registers_a_model() {
    let Some(clients) = clients() else {
        return skipped("the SageMaker SDK", "neither the machine nor the package index has the clients");
    };
    let python = clients.join("python3");
    let found =
        Command::new(&python).args(["-c", "import importlib.util as u; assert u.find_spec('sagemaker.core')"]).output();
    if !found.unwrap().status.success() {
        let install = format!("it is not installed; to run the test: {} -m pip install {SDK}", python.display());
        return skipped("the SageMaker SDK", &install);
    }
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let emulator = Emulator::start(&data_dir, &[]);
    run(client(&emulator, &data_dir, &python).args(["tests/fixtures/conformance/sdk.py", BUCKET]));
}
