//! `image build` with buildah and the emulator's registry, under the shipped policy; and `image scan`, with a stand-in of trivy and with
//! findings of the registry.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::skipped;
use crate::support::emulator::{Emulator, command, processes};
use crate::support::images::{
    REGISTRY, configuration, create_repository, files, images, missing_builder, push, push_base,
};
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::search_path;

const BUILD: &str = include_str!("../../../runner-config/iam/lifecycle/image-build.json");
const SCAN: &str = include_str!("../../../runner-config/iam/lifecycle/image-scan.json");
const SECRET: &str = "s3cret-of-the-build";
/// Two stages; the first one reads the secret.
const DOCKERFILE: &str = "ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS first
RUN --mount=type=secret,id=pip cat /run/secrets/pip && wc -c < /run/secrets/pip > /length
FROM ${BASE_IMAGE} AS second
COPY --from=first /length /length
COPY run.sh /run.sh
FROM second
RUN echo third
";

/// An account, its registry, and a project beside it.
struct Builds {
    emulator: Emulator,
    folder: tempfile::TempDir,
    base: String,
}

impl Builds {
    fn new(name: &str, roles: &[Value], args: &[String]) -> Option<Self> {
        if let Some(missing) = missing_builder() {
            skipped(name, missing);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().join("account.json");
        std::fs::write(&account, json!({"RoleDetailList": roles}).to_string()).unwrap();
        let iam = ["--iam".to_owned(), account.to_str().unwrap().to_owned()];
        let emulator = Emulator::start(&folder.path().join("data"), &[args, &iam].concat());
        let base = push_base(&emulator, folder.path());
        std::fs::create_dir(folder.path().join("project")).unwrap();
        let builds = Self { emulator, folder, base };
        builds.write("Dockerfile", DOCKERFILE);
        builds.write("run.sh", "#!/bin/sh\n");
        let manifest = json!({
            "image": {
                "repository": "example-image", "args": {"BASE_IMAGE": "${BASE_IMAGE}"}, "secrets": {"pip": "PIP_PASSWORD"},
                "tags": ["{short_sha}", "build-{pipeline}-{short_sha}"],
            },
            "environments": {"prod": {"region": "us-east-1", "account": "000000000000"}},
        });
        builds.write("manifest.json", &manifest.to_string());
        Some(builds)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join("project").join(name), text).unwrap();
    }

    fn run(&self, pipeline: &str, arguments: &[&str]) -> Ended {
        self.with_variables(pipeline, |project, variables| run(project, variables, &[&["image"], arguments].concat()))
    }

    fn with_variables<T>(&self, pipeline: &str, call: impl FnOnce(&Path, &[(&str, &str)]) -> T) -> T {
        let (path, own) = (search_path(), self.emulator.environment());
        let mut variables: Vec<_> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend([
            ("AWS_ENDPOINT_URL", self.emulator.endpoint.as_str()),
            ("BASE_IMAGE", &self.base),
            ("CI_COMMIT_SHA", "0123456789abcdef0123456789abcdef01234567"),
            ("CI_PIPELINE_ID", pipeline),
            ("PATH", &path),
            ("PIP_PASSWORD", SECRET),
            ("TMPDIR", self.folder.path().to_str().unwrap()),
        ]);
        call(&self.folder.path().join("project"), &variables)
    }

    /// A build in the environment, as a job calls it.
    fn build(&self, pipeline: &str, arguments: &[&str]) -> Ended {
        self.run(pipeline, &[&["build", "--environment", "prod", "--dotenv", "image.env"], arguments].concat())
    }

    fn images(&self) -> Vec<String> {
        images(&self.emulator, "example-image").into_iter().collect()
    }

    /// A program that a `RUN` leaves; no other test has it.
    fn left(&self) -> String {
        format!("sleep 6{}", self.emulator.endpoint.rsplit(':').next().unwrap())
    }

    /// Nothing of a build is left, on the disk or as a process.
    #[track_caller]
    fn is_left_clean(&self) {
        let left = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("image-")).collect();
        assert!(left.is_empty(), "{left:?}");
        let own = self.folder.path().to_str().unwrap();
        let running: Vec<_> =
            processes().map(command).filter(|line| line.starts_with("buildah") && line.contains(own)).collect();
        assert!(running.is_empty(), "{running:?}");
        let left = self.left();
        assert!(processes().map(command).all(|line| !line.contains(&left)), "a `RUN` left a process");
    }
}

/// Tells that the buildah of this machine is new enough to follow no link of an image out of it.
fn is_mended() -> bool {
    let answer = Command::new("buildah").arg("--version").output().unwrap().stdout;
    let answer = String::from_utf8(answer).unwrap();
    let minor = answer.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 33)
}

fn dotenv(builds: &Builds, name: &str) -> String {
    let text = std::fs::read_to_string(builds.folder.path().join("project/image.env")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    value.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
}

#[test]
fn an_image_is_built_once_for_a_context_and_gets_its_tags() {
    let test = "an_image_is_built_once_for_a_context_and_gets_its_tags";
    let Some(mut builds) = Builds::new(test, &[shipped_role(("build", BUILD))], &[]) else { return };
    create_repository(&builds.emulator, "example-image", "IMMUTABLE");
    builds.emulator.call_driver_as("role/build");

    let first = builds.build("7", &["--for", "training"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let uri = dotenv(&builds, "IMAGE_URI");
    let digest = uri.strip_prefix(&format!("{REGISTRY}/example-image@")).unwrap_or_else(|| panic!("{uri}"));
    assert_eq!(dotenv(&builds, "TRAINING_IMAGE"), uri);
    assert!(first.stdout.contains("status   built"), "{}", first.stdout);
    let tags = builds.images();
    assert_eq!(tags.len(), 3, "{tags:?}");
    assert!(tags.contains(&format!("{digest} 01234567")) && tags.contains(&format!("{digest} build-7-01234567")));
    builds.is_left_clean();

    // Clones of a commit differ by umask, and jobs leave files.
    std::fs::set_permissions(builds.folder.path().join("project/run.sh"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    let pushed = builds.emulator.requests("InitiateLayerUpload");
    let again = builds.build("8", &["--tag", "build-{pipeline}"]);
    assert!(again.code == 0 && again.stdout.contains("not built again"), "{}{}", again.stdout, again.stderr);
    assert_eq!(dotenv(&builds, "IMAGE_URI"), uri);
    assert_eq!(builds.emulator.requests("InitiateLayerUpload"), pushed, "nothing is sent");
    assert!(builds.images().contains(&format!("{digest} build-8")));

    // The same files give the same bytes, also in a repository that has nothing of them.
    create_repository(&builds.emulator, "example-other", "MUTABLE");
    let other = builds.build("9", &["--repository", "example-other"]);
    assert!(other.code == 2 && other.stderr.contains("`ecr:DescribeRepositories`"), "{}", other.stderr);
    builds.emulator.call_driver_as("default");
    let other = builds.build("9", &["--repository", "example-other"]);
    assert_eq!((other.code, dotenv(&builds, "IMAGE_DIGEST")), (0, digest.to_owned()), "{}", other.stderr);

    // One stage alone is another image.
    let stage = builds.build("10", &["--target", "second", "--tag", "second"]);
    assert_eq!(stage.code, 0, "{}", stage.stderr);
    assert!(stage.stdout.contains("built") && dotenv(&builds, "IMAGE_DIGEST") != digest);
    assert!(!stage.stderr.contains("third"), "{}", stage.stderr);

    let shown = [&first, &again, &stage].map(|ended| format!("{}{}", ended.stdout, ended.stderr)).concat();
    assert!(shown.contains("[MASKED]") && !shown.contains(SECRET), "{shown}");
    is_without_secret(&builds, digest);
}

/// Neither the image's history nor anything else that the registry got has the secret.
#[track_caller]
fn is_without_secret(builds: &Builds, digest: &str) {
    let data = builds.folder.path().join("data");
    let history = configuration(&builds.emulator, &data, "example-image", digest)["history"].to_string();
    assert!(history.contains("run.sh") && !history.contains(SECRET), "{history}");
    let with: Vec<_> = files(&data)
        .into_iter()
        .filter(|file| std::fs::read(file).unwrap().windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()))
        .collect();
    assert!(with.is_empty(), "{with:?}");
}

#[test]
fn a_build_that_cannot_end_well_pushes_nothing() {
    let test = "a_build_that_cannot_end_well_pushes_nothing";
    let mut reading: Value = serde_json::from_str(BUILD).unwrap();
    reading["Statement"][2]["Action"] = json!("ecr:DescribeRepositories");
    let roles = [shipped_role(("build", BUILD)), shipped_role(("reader", &reading.to_string()))];
    let Some(mut builds) = Builds::new(test, &roles, &[]) else { return };
    let said = |builds: &Builds, arguments: &[&str], code: i32, text: &str| {
        let ended = builds.build("7", arguments);
        assert!(ended.code == code && ended.stderr.contains(text), "{text}: {} {}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
        builds.is_left_clean();
    };
    builds.emulator.call_driver_as("role/build");
    // The account's registry has no such repository, for this role.
    said(&builds, &[], 1, "no repository example-image");
    create_repository(&builds.emulator, "example-image", "IMMUTABLE");

    std::os::unix::fs::symlink("/", builds.folder.path().join("project/root")).unwrap();
    for (dockerfile, arguments, text) in [
        ("FROM ${BASE}\n", &[][..], "`image.args.BASE`"),
        ("FROM busybox:1\n", &[], "names no registry"),
        ("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN exit 7\n", &[], "the image does not build"),
        ("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY absent /\n", &[], "the image does not build"),
        ("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN echo begun && sleep 600\n", &["--timeout", "4s"], "`--timeout`"),
        ("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n", &["--target", "absent"], "the image does not build"),
        ("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}0\n", &[], "is no name of an image"),
        ("FROM oci:/etc\n", &[], "is no name of an image"),
        (
            "FROM scratch\nRUN --mount=type=bind,source=root,target=/h,rw cat /h/etc/passwd\n",
            &[],
            "follows a link of the context",
        ),
        ("FROM scratch\nRUN --mount=type=cache,id=../../etc,target=/h ls /h\n", &[], "has `..`"),
        ("FROM scratch\n", &["--build-arg", "API_TOKEN=x"], "looks like a secret"),
    ] {
        builds.write("Dockerfile", dockerfile);
        said(&builds, arguments, 1, text);
    }
    std::fs::remove_file(builds.folder.path().join("project/root")).unwrap();
    builds.write("Dockerfile", &format!("FROM {REGISTRY}/example-base@sha256:{}\n", "0".repeat(64)));
    said(&builds, &[], 1, "no such base image");
    if !is_mended() {
        let linked = "ARG BASE_IMAGE\nFROM $BASE_IMAGE AS one\nRUN busybox ln -s / /l\nFROM $BASE_IMAGE\nRUN --mount=from=one,source=/l,target=/h cat /h/etc/passwd\n";
        builds.write("Dockerfile", linked);
        said(&builds, &[], 1, "CVE-2024-1753");
    }
    builds.write("Dockerfile", DOCKERFILE);
    said(&builds, &["--tag", "a b"], 1, "which is no tag");
    said(&builds, &["--secret", "id=a,env=ABSENT"], 1, "`ABSENT`, which is not set");
    assert_eq!(builds.images(), Vec::<String>::new());

    builds.emulator.call_driver_as("role/reader");
    said(&builds, &[], 1, "the registry refused it");
    assert_eq!(builds.images(), Vec::<String>::new());

    // A tag of another context in a repository that keeps its tags.
    builds.emulator.call_driver_as("role/build");
    assert_eq!(builds.build("7", &["--tag", "1.0"]).code, 0);
    let before = builds.images();
    builds.write("run.sh", "#!/bin/sh\nexit 1\n");
    said(&builds, &["--tag", "new", "--tag", "1.0"], 1, "the tag `1.0` of example-image is of another image");
    assert_eq!(builds.images(), before, "nothing is half pushed");
}

#[test]
fn a_signal_leaves_no_file_and_no_process() {
    let test = "a_signal_leaves_no_file_and_no_process";
    let Some(builds) = Builds::new(test, &[], &[]) else { return };
    create_repository(&builds.emulator, "example-image", "MUTABLE");
    let left = builds.left();
    let step = |then: &str| format!("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN busybox setsid {left} & {then}\n");
    builds.write("Dockerfile", &step("echo 'be''gun' && sleep 600"));
    let mut child = builds.with_variables("7", |project, variables| {
        let mut program = Command::new(crate::support::program::executor());
        program
            .args(["image", "build", "--environment", "prod"])
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(project);
        program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "begun"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let said: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    builds.is_left_clean();

    // A process that a step leaves ends with it, and does not delay the image.
    builds.write("Dockerfile", &step("true"));
    let ended = builds.build("7", &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    builds.is_left_clean();

    // The context has the passwords of builds when it has their folder.
    let inside = builds.folder.path().join("project/tmp");
    std::fs::create_dir(&inside).unwrap();
    let refused = builds.with_variables("7", |project, variables| {
        let own = [variables, &[("TMPDIR", inside.to_str().unwrap())]].concat();
        run(project, &own, &["image", "build", "--environment", "prod"])
    });
    assert!(refused.code == 1 && refused.stderr.contains("`TMPDIR`"), "{}", refused.stderr);
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
}

/// Another user than root has no ids for the files of an image, and is told what root must add.
#[test]
fn a_user_without_subordinate_ids_is_told_what_to_add() {
    let test = "a_user_without_subordinate_ids_is_told_what_to_add";
    if !rustix::process::geteuid().is_root() {
        return skipped(test, "only root can start a program as another user");
    }
    let Some(builds) = Builds::new(test, &[], &[]) else { return };
    create_repository(&builds.emulator, "example-image", "MUTABLE");
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = folder.path();
    for name in ["Dockerfile", "run.sh"] {
        std::fs::copy(builds.folder.path().join("project").join(name), place.join(name)).unwrap();
    }
    let program = place.join("sagemaker-executor");
    std::fs::copy(crate::support::program::executor(), &program).unwrap();
    for folder in [place, temporary.path()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let tried = |path: &str| {
        let mut call = Command::new(&program);
        call.args(["image", "build", "--repository", "example-image", "--build-arg", "BASE_IMAGE"]);
        call.args(["--secret", "id=pip,env=PIP_PASSWORD", "--tag", "1"]).env_clear().current_dir(place);
        call.envs(builds.emulator.of_administrator()).envs([
            ("PATH", path),
            ("PIP_PASSWORD", SECRET),
            ("AWS_REGION", "us-east-1"),
        ]);
        call.env("AWS_ENDPOINT_URL", &builds.emulator.endpoint).env("BASE_IMAGE", &builds.base);
        call.env("TMPDIR", temporary.path());
        // No user of a system has this id, so no file gives it others.
        let ended = call.uid(65_533).gid(65_533).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, said) = tried(&search_path());
    assert_eq!(code, Some(1), "{said}");
    for text in ["/etc/subuid and /etc/subgid has no line", "--add-subuids 100000-165535", "`--via codebuild`"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let (code, said) = tried("/nonexistent");
    assert!(code == Some(1) && said.contains("install the package `buildah`"), "{said}");
}

#[test]
fn layers_are_kept_in_a_repository_for_caches() {
    let test = "layers_are_kept_in_a_repository_for_caches";
    let Some(builds) = Builds::new(test, &[], &[]) else { return };
    for name in ["example-image", "example-cache"] {
        create_repository(&builds.emulator, name, "MUTABLE");
    }
    builds.write("Dockerfile", "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo slow-step\nCOPY run.sh /run.sh\n");
    let first = builds.build("7", &["--cache", "example-cache"]);
    assert!(first.code == 0 && first.stderr.lines().any(|line| line == "slow-step"), "{}", first.stderr);
    builds.write("run.sh", "#!/bin/sh\nexit 0\n");
    let second = builds.build("8", &["--cache", "example-cache"]);
    assert!(second.code == 0 && !second.stderr.lines().any(|line| line == "slow-step"), "{}", second.stderr);
}

const FINDINGS: &str = r#"{"findings": [
    {"name": "CVE-2026-0001", "severity": "HIGH", "description": "d", "uri": "https://example.com/1",
     "attributes": [{"key": "package_name", "value": "openssl"}, {"key": "package_version", "value": "3.0.1"}]},
    {"name": "CVE-2026-0002", "severity": "LOW", "attributes": [{"key": "package_name", "value": "tar"}]}], "duration_ms": 300}"#;
/// Writes the report of trivy 0.5x where it is told to, after it has looked at its arguments and its environment.
const TRIVY: &str = r#"#!/bin/sh
set -eu
env > "$TRIVY_SEEN"
echo "$*" >> "$TRIVY_SEEN"
[ ! -e .trivyignore ]
setsid sleep 600 &
echo $! > "$TRIVY_LEFT"
[ -n "$TRIVY_PASSWORD" ] && [ "$TRIVY_USERNAME" = AWS ]
while [ "$1" != --output ]; do shift; done
cat > "$2" <<'END'
{"SchemaVersion": 2, "Metadata": {"OS": {"Family": "debian", "Name": "12.7"}}, "Results": [{"Target": "t", "Vulnerabilities": [
  {"VulnerabilityID": "CVE-2026-0003", "PkgName": "zlib1g", "InstalledVersion": "1.2", "FixedVersion": "1.3", "Severity": "CRITICAL"}]}]}
END
"#;

#[test]
fn findings_of_the_registry_stop_the_pipeline_unless_they_are_accepted() {
    let test = "findings_of_the_registry_stop_the_pipeline_unless_they_are_accepted";
    let never = r#"{"duration_ms": 3600000}"#;
    let unsupported = r#"{"failure": "UnsupportedImageError: the operating system is not supported"}"#;
    let scripts = tempfile::tempdir().unwrap();
    let args = [("example-image", FINDINGS), ("never", never), ("unsupported", unsupported)].map(|(name, text)| {
        let file = scripts.path().join(name);
        std::fs::write(&file, text).unwrap();
        ["--image-findings".to_owned(), format!("{name}={}", file.display())]
    });
    let Some(mut builds) = Builds::new(test, &[shipped_role(("scan", SCAN))], &args.concat()) else { return };
    let work = builds.folder.path().to_owned();
    let image = |repository: &str| {
        create_repository(&builds.emulator, repository, "MUTABLE");
        push(&builds.emulator, &work, &work.join("base"), repository)
    };
    let [image, never, unsupported] = ["example-image", "never", "unsupported"].map(image);
    builds.emulator.call_driver_as("role/scan");
    let accept = |until: &str| {
        let entry = json!({"id": "CVE-2026-0001", "package": "openssl", "reason": "not called", "until": until});
        builds.write("accepted.json", &json!({"accepted": [entry]}).to_string());
    };
    let scan = |image: &str, arguments: &[&str]| {
        builds.run("7", &[&["scan", "--image", image, "--scanner", "ecr"], arguments].concat())
    };
    let found = scan(&image, &["--severity", "HIGH"]);
    assert_eq!(found.code, 10, "{}{}", found.stdout, found.stderr);
    for text in ["1 Low, 1 High", "CVE-2026-0001  openssl 3.0.1"] {
        assert!(found.stdout.contains(text), "{text}: {}", found.stdout);
    }
    assert!(found.stderr.contains("the image has a finding of severity High or above"), "{}", found.stderr);
    let report = || {
        let made = std::fs::read(work.join("project/gl-container-scanning-report.json")).unwrap();
        serde_json::from_slice::<Value>(&made).unwrap()
    };
    let made = report();
    assert_eq!(made["vulnerabilities"].as_array().unwrap().len(), 2);
    assert_eq!(made["vulnerabilities"][0]["location"]["image"], image.as_str());

    assert_eq!(scan(&image, &["--severity", "critical"]).code, 0);
    accept("2999-12-31");
    let accepted = scan(&image, &["--accept", "accepted.json", "--output", "json"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    let data: Value = serde_json::from_str(&accepted.stdout).unwrap();
    assert_eq!((&data["passed"], &data["accepted"]), (&json!(true), &json!(["CVE-2026-0001"])));
    assert_eq!(report()["vulnerabilities"].as_array().unwrap().len(), 1);
    accept("2020-12-31");
    let expired = scan(&image, &["--accept", "accepted.json"]);
    assert!(expired.code == 1 && expired.stderr.contains("it was accepted until 2020-12-31"), "{}", expired.stderr);

    // The policy names one repository: these are scanned by somebody with all rights.
    builds.emulator.call_driver_as("default");
    let scan = |image: &str, arguments: &[&str]| {
        builds.run("7", &[&["scan", "--image", image, "--scanner", "ecr"], arguments].concat())
    };
    let waited = scan(&never, &["--timeout", "1s"]);
    assert!(waited.code == 2 && waited.stderr.contains("did not end within 1s"), "{}", waited.stderr);
    let refused = scan(&unsupported, &[]);
    assert!(refused.code == 1 && refused.stderr.contains("could not be scanned: FAILED"), "{}", refused.stderr);
    let absent = scan(&format!("{REGISTRY}/never@sha256:{}", "0".repeat(64)), &[]);
    assert!(absent.code == 1 && absent.stderr.contains("the registry has no image"), "{}", absent.stderr);
    let unnamed = builds.run("7", &["scan"]);
    assert!(unnamed.code == 1 && unnamed.stderr.contains("`IMAGE_URI`"), "{}", unnamed.stderr);
}

#[test]
fn trivy_of_the_job_scans_with_the_password_of_the_registry() {
    let emulator_folder = tempfile::tempdir().unwrap();
    let folder = emulator_folder.path();
    let mut emulator = {
        let account = folder.join("account.json");
        std::fs::write(&account, json!({"RoleDetailList": [shipped_role(("scan", SCAN))]}).to_string()).unwrap();
        Emulator::start(&folder.join("data"), &["--iam".to_owned(), account.to_str().unwrap().to_owned()])
    };
    emulator.call_driver_as("role/scan");
    let (bin, seen) = (folder.join("bin"), folder.join("seen"));
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("trivy"), TRIVY).unwrap();
    std::fs::set_permissions(bin.join("trivy"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let uri = format!("{REGISTRY}/example-image@sha256:{}", "0123456789abcdef".repeat(4));
    let own = emulator.environment();
    let mut variables: Vec<_> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let seen_by = seen.to_str().unwrap();
    variables.extend([("AWS_ENDPOINT_URL", emulator.endpoint.as_str()), ("IMAGE_URI", &uri), ("PATH", &path)]);
    variables.extend([("TRIVY_SEEN", seen_by), ("API_TOKEN", SECRET), ("TRIVY_SEVERITY", "LOW")]);
    let left = folder.join("left");
    variables.push(("TRIVY_LEFT", left.to_str().unwrap()));
    std::fs::write(folder.join(".trivyignore"), "CVE-2026-0003\n").unwrap();
    let ended = run(folder, &variables, &["image", "scan", "--dotenv", "scan.env"]);
    assert_eq!(ended.code, 10, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("CVE-2026-0003  zlib1g 1.2, fixed in 1.3"), "{}", ended.stdout);
    assert_eq!(std::fs::read_to_string(folder.join("scan.env")).unwrap(), "IMAGE_SCAN_RESULT=failed\n");
    let seen = std::fs::read_to_string(&seen).unwrap();
    assert!(!seen.contains("TRIVY_SEVERITY") && ended.stderr.contains("`TRIVY_SEVERITY`"), "{seen}{}", ended.stderr);
    assert!(seen.contains("TRIVY_TIMEOUT=600s"), "{seen}");
    let left = std::fs::read_to_string(&left).unwrap();
    // Also of one that nobody has collected yet.
    assert_eq!(command(left.trim().parse().unwrap()), "", "the process that trivy left is ended");
    let line = seen.lines().last().unwrap();
    let host = emulator.endpoint.trim_start_matches("http://");
    assert!(line.contains(&format!("{host}/example-image@sha256:")), "{line}");
    let password = seen.lines().find_map(|line| line.strip_prefix("TRIVY_PASSWORD=")).unwrap();
    assert!(!line.contains(password) && !seen.contains(SECRET) && seen.contains("TRIVY_NON_SSL=true"), "{seen}");
    let report = std::fs::read_to_string(folder.join("gl-container-scanning-report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["vulnerabilities"][0]["location"]["operating_system"], "debian 12.7");

    std::fs::write(bin.join("trivy"), "#!/bin/sh\necho no database >&2\nexit 1\n").unwrap();
    let failed = run(folder, &variables, &["image", "scan"]);
    assert!(failed.code == 2 && failed.stderr.contains("no database"), "{}", failed.stderr);
}

#[test]
fn a_base_by_its_tag_is_a_part_of_the_context() {
    let test = "a_base_by_its_tag_is_a_part_of_the_context";
    let Some(mut builds) = Builds::new(test, &[], &[]) else { return };
    create_repository(&builds.emulator, "example-image", "MUTABLE");
    builds.write("Dockerfile", "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY run.sh /run.sh\n");
    builds.base = format!("{REGISTRY}/example-base:1");
    let status = |builds: &Builds| {
        let ended = builds.build("7", &["--output", "json"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!([status(&builds), status(&builds)], ["built", "unchanged"]);
    let base = builds.folder.path().join("base");
    std::fs::write(base.join("Containerfile"), "FROM scratch\nCOPY bin /bin\nENV PATH=/bin NEW=1\n").unwrap();
    push(&builds.emulator, builds.folder.path(), &base, "example-base");
    assert_eq!(status(&builds), "built", "the tag names another image now");
}
