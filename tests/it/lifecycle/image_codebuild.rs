//! `image build` in the emulator's CodeBuild, under the shipped policies: built once for the same files, a build that fails, and one that is
//! stopped with its job.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::package::{git, put};
use super::{Ended, run};
use crate::conformance::{can_run_containers, clients, skipped};
use crate::support::driver::write_program;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::images::{REGISTRY, create_repository, images, missing_builder, push_base};
use crate::support::shipped_roles::{of_test_account, shipped_role_with};
use crate::support::waiting::{poll, search_path};

/// The policies of the job's role, as their pages say.
const POLICIES: [(&str, &str); 2] = [
    ("image", include_str!("../../../runner-config/iam/lifecycle/image-build.json")),
    ("codebuild", include_str!("../../../runner-config/iam/lifecycle/image-build-codebuild.json")),
];
const SERVICE: &str = include_str!("../../../runner-config/iam/lifecycle/codebuild-role.json");
const SERVICE_TRUST: &str = include_str!("../../../runner-config/iam/lifecycle/codebuild-role-trust.json");
const OWN_BUILDSPEC: &str =
    "version: 0.2\nphases:\n  build:\n    commands:\n      - echo \"begun $IMAGE_TAG\"; COMMAND\n";

/// The role of the builds.
fn service_role() -> Value {
    json!({
        "RoleName": "example-build",
        "RoleId": "AROABUILD",
        "Arn": "arn:aws:iam::000000000000:role/example-build",
        "AssumeRolePolicyDocument": of_test_account(SERVICE_TRUST),
        "RolePolicyList": [{"PolicyName": "build", "PolicyDocument": of_test_account(SERVICE)}],
    })
}

/// An account with CodeBuild, and a project in git.
struct Desk {
    emulator: Emulator,
    folder: tempfile::TempDir,
    base: String,
}

impl Desk {
    fn new(test: &str) -> Option<Self> {
        let (Some(clients), true, None) = (clients(), can_run_containers(), missing_builder()) else {
            skipped(test, "no AWS CLI, bubblewrap creates no container, or buildah and busybox are missing");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let programs = path("build-image/usr/local/bin");
        std::fs::create_dir_all(&programs).unwrap();
        let python = clients.join("python3");
        write_program(&programs.join("aws"), &format!("#!/bin/sh\nexec {} -m awscli \"$@\"\n", python.display()));
        let roles = json!({"RoleDetailList": [shipped_role_with("job", &POLICIES), service_role()]});
        std::fs::write(path("account.json"), roles.to_string()).unwrap();
        let image = format!("build-image=overlay:{}", path("build-image").display());
        let args =
            ["--iam", path("account.json").to_str().unwrap(), "--image", &image, "--no-delays"].map(str::to_owned);
        let mut emulator = Emulator::start(&path("data"), &args);
        let base = push_base(&emulator, folder.path());
        create_repository(&emulator, "example-image", "IMMUTABLE");
        emulator.call_driver_as("role/job");
        let project = path("project");
        std::fs::create_dir(&project).unwrap();
        git(&project, &["init", "-q", "-b", "main"]);
        put(
            &project,
            "Dockerfile",
            "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG NAME\nCOPY data.txt /data.txt\nRUN echo \"$NAME\" > /name\n",
        );
        put(&project, "data.txt", "data\n");
        let desk = Self { emulator, folder, base };
        desk.manifest(&json!({}));
        Some(desk)
    }

    /// Writes the manifest with these keys of `codebuild` besides, and adds all files to git.
    fn manifest(&self, changes: &Value) {
        let mut codebuild = json!({
            "role": "arn:aws:iam::000000000000:role/example-build", "image": "build-image",
            "client": "example", "product": "fraud", "version": "${MODEL_VERSION:1}",
        });
        codebuild.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let manifest = json!({
            "image": {
                "repository": "example-image", "builder": "codebuild", "tags": ["{pipeline}"],
                "args": {"BASE_IMAGE": "${BASE_IMAGE}", "NAME": "a 'b' $c"}, "codebuild": codebuild,
            },
            "environments": {"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}},
        });
        let project = self.folder.path().join("project");
        put(&project, "manifest.json", &manifest.to_string());
        git(&project, &["add", "."]);
    }

    fn variables(&self, pipeline: &str) -> Vec<(String, String)> {
        let mut variables = self.emulator.environment();
        variables.extend(
            [
                ("AWS_ENDPOINT_URL", self.emulator.endpoint.as_str()),
                ("BASE_IMAGE", &self.base),
                ("CI_PIPELINE_ID", pipeline),
                ("CI_PROJECT_PATH", "group/fraud"),
                ("PATH", &search_path()),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        variables
    }

    const BUILD: [&str; 5] = ["image", "build", "--environment", "prod", "--dotenv=image.env"];

    fn build(&self, pipeline: &str) -> Ended {
        let variables = self.variables(pipeline);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(&self.folder.path().join("project"), &variables, &Self::BUILD)
    }

    fn uri(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("project/image.env")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("IMAGE_URI=")).unwrap().to_owned()
    }

    fn counts(&self) -> (u64, u64) {
        (self.emulator.requests("StartBuild"), self.emulator.requests("PutObject"))
    }
}

#[test]
fn an_image_is_built_in_codebuild_once_for_the_same_files() {
    let Some(desk) = Desk::new("an_image_is_built_in_codebuild_once_for_the_same_files") else { return };
    put(&desk.folder.path().join("project"), "untracked.txt", "not in git\n");
    let first = desk.build("1");
    let said = &first.stderr;
    assert_eq!(first.code, 0, "{said}");
    for part in [
        "Sent the source of 3 files",
        "Created the CodeBuild project example-fraud-1",
        "Phase BUILD",
        "STEP 1/",
        "Phase POST_BUILD done",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let uri = desk.uri();
    assert!(uri.starts_with(&format!("{REGISTRY}/example-image@sha256:")), "{uri}");
    let built = images(&desk.emulator, "example-image");
    assert_eq!(built.len(), 2, "the tag of the files and that of the pipeline: {built:?}");
    let counts = desk.counts();
    assert_eq!(counts.0, 1);

    let second = desk.build("2");
    assert_eq!((second.code, desk.uri()), (0, uri), "{}", second.stderr);
    assert!(second.stderr.contains("nothing is sent, and nothing is built"), "{}", second.stderr);
    assert_eq!(desk.counts(), counts, "no build, and no byte to S3");
    assert_eq!(images(&desk.emulator, "example-image").len(), 3);
    for role in ["job", "example-build"] {
        let decided = desk.emulator.decided_of(&format!("arn:aws:iam::000000000000:role/{role}"));
        assert_eq!(decided["denied"], json!({}), "{role}");
    }
}

#[test]
fn a_build_that_fails_or_is_stopped_leaves_no_image() {
    let Some(desk) = Desk::new("a_build_that_fails_or_is_stopped_leaves_no_image") else { return };
    let project = desk.folder.path().join("project");
    put(&project, "ci/build.yml", &OWN_BUILDSPEC.replace("COMMAND", "exit 7"));
    desk.manifest(&json!({"buildspec": "ci/build.yml"}));
    let failed = desk.build("1");
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    for part in ["begun context-", "failed in the phase BUILD", "exit status 7", "hint:"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }

    put(&project, "ci/build.yml", &OWN_BUILDSPEC.replace("COMMAND", "true"));
    desk.manifest(&json!({"buildspec": "ci/build.yml", "timeout_minutes": 20}));
    let empty = desk.build("1");
    assert_eq!(empty.code, 1, "{}", empty.stderr);
    assert!(empty.stderr.contains("Changed the CodeBuild project example-fraud-1"), "{}", empty.stderr);
    assert_eq!(desk.emulator.requests("UpdateProject"), 1);
    assert!(empty.stderr.contains("pushed no image"), "{}", empty.stderr);

    put(&project, "ci/build.yml", &OWN_BUILDSPEC.replace("COMMAND", "sleep 600"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
    program.args(Desk::BUILD).env_clear().envs(desk.variables("1")).current_dir(&project);
    let child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = || (desk.emulator.requests("StartBuild") == 3).then_some(());
    poll(Duration::from_mins(1), started).expect("the build begins");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("is stopped"), "{said}");
    assert_eq!(desk.emulator.requests("StopBuild"), 1);

    // The limit of 20 minutes passes at once.
    desk.emulator.set_faults(&json!({"build_minute_ms": 20}));
    let late = desk.build("1");
    assert_eq!(late.code, 1, "{}", late.stderr);
    for part in ["took longer than 20 minutes", "`image.codebuild.timeout_minutes`"] {
        assert!(late.stderr.contains(part), "{part}: {}", late.stderr);
    }
    assert!(images(&desk.emulator, "example-image").is_empty());
}

#[test]
fn what_is_not_ours_is_refused_before_a_build() {
    let Some(desk) = Desk::new("what_is_not_ours_is_refused_before_a_build") else { return };
    let is_refused = |part: &str| {
        let ended = desk.build("1");
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(part) && ended.stderr.contains("hint:"), "{part}: {}", ended.stderr);
    };
    let refused = |changes: Value, part: &str| {
        desk.manifest(&changes);
        is_refused(part);
    };
    refused(json!({"role": "arn:aws:iam::111111111111:role/example-build"}), "of account 111111111111");
    refused(json!({"role": null}), "no role is named");
    refused(json!({"buildspec": "ci/no.yml"}), "git tracks no file ci/no.yml");
    refused(json!({"role": "arn:aws:iam::000000000000:role/job"}), "may not hand the role");
    desk.manifest(&json!({}));
    std::fs::remove_file(desk.folder.path().join("project/data.txt")).unwrap();
    is_refused("git tracks data.txt, and it cannot be read");
    assert_eq!(desk.emulator.requests("StartBuild"), 0);
}
