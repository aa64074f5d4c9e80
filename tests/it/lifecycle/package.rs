//! `package`: the same bytes on other machines, of a hostile repository, opened by other programs, and stored under its policy.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::skipped;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::snapshot::assert_snapshot;
use crate::support::waiting::{find_program, search_path};

const POLICY: &str = include_str!("../../../runner-config/iam/lifecycle/package.json");
const PIPELINE: [(&str, &str); 7] = [
    ("CI_PIPELINE_CREATED_AT", "2026-11-29T04:52:33Z"),
    ("CI_PIPELINE_ID", "7"),
    ("CI_PIPELINE_URL", "https://ci:s3cr3t@gitlab.example.com/g/p/-/pipelines/7"),
    ("CI_PROJECT_PATH", "g/p"),
    ("CI_PROJECT_URL", "https://gitlab.example.com/g/p"),
    ("CI_MERGE_REQUEST_IID", "12"),
    ("CI_COMMIT_REF_NAME", "better"),
];

pub(super) fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.args(arguments).current_dir(folder).env_clear().env("PATH", path());
    git.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "n").env(format!("GIT_{who}_EMAIL"), "n@example.com");
        git.env(format!("GIT_{who}_DATE"), "2026-11-28T12:00:00Z");
    }
    let output = git.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(super) fn path() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(search_path);
    &PATH
}

pub(super) fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn manifest() -> Value {
    json!({
        "model": {
            "group": "wine",
            "image": format!("000000000000.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
            "metrics": ["metrics.json"],
        },
        "endpoint": {
            "name": "wine-${CI_ENVIRONMENT_SLUG:dev}",
            "instances": {"type": "ml.m5.large"},
            "test": {"samples": ["samples.jsonl"]},
        },
        "package": {"exclude": ["data/**"]},
        "environments": {"prod": {"region": "eu-west-1", "account": "000000000000", "bucket": BUCKET}},
    })
}

/// A project with its history, whose repository would start programs that leave a file.
pub(super) fn project(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    git(folder, &["init", "-q", "-b", "main"]);
    put(folder, "manifest.json", &manifest().to_string());
    put(folder, ".gitignore", "/model/\n/metrics.json\n/out/\n");
    put(folder, "old.py", "pass\n");
    git(folder, &["add", "."]);
    git(folder, &["commit", "-qm", "Begin"]);
    git(folder, &["tag", "v1"]);
    put(folder, "samples.jsonl", "{\"body\": 1}\n");
    put(folder, "run.sh", "#!/bin/sh\n");
    put(folder, "data/large.csv", "1\n");
    put(folder, "ü/x.py", "TOKEN = 'glpat-abcdefghij0123456789'\n");
    put(folder, "large.txt", &"0123456789abcdef\n".repeat(100_000));
    put(folder, ".env", "A=1\n");
    put(folder, ".gitattributes", "*.py filter=f\n");
    std::fs::set_permissions(folder.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../run.sh", folder.join("ü/link")).unwrap();
    git(folder, &["add", "."]);
    git(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", "1".repeat(40))]);
    git(folder, &["commit", "-qm", "Improve *everything*\n\nwith a body"]);
    // As `release` does after the first time.
    git(folder, &["tag", "stable-1"]);
    give_results(folder, 0o644);
}

/// The model and its metrics, which are not in git.
fn give_results(folder: &Path, mode: u32) {
    put(folder, "model/model.json", "{\"weights\": [1, 2]}");
    put(folder, "metrics.json", "{\"accuracy\": 0.90, \"matrix\": [[1, 2]]}");
    for name in ["model/model.json", "metrics.json"] {
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Makes every program that git could start leave the file `started`.
fn arm(folder: &Path) {
    let trap = folder.join(".git/trap");
    let text = format!("#!/bin/sh\ntouch {}\ncat\n", folder.join("started").display());
    std::fs::write(&trap, text).unwrap();
    std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o755)).unwrap();
    let trap = trap.to_str().unwrap();
    for key in ["core.fsmonitor", "filter.f.clean", "filter.f.smudge", "filter.f.process", "gpg.program", "core.pager"]
    {
        git(folder, &["config", key, trap]);
    }
    git(folder, &["config", "filter.f.required", "true"]);
    git(folder, &["config", "log.showSignature", "true"]);
    std::fs::create_dir_all(folder.join(".git/hooks")).unwrap();
    std::fs::copy(trap, folder.join(".git/hooks/post-index-change")).unwrap();
}

pub(super) fn package(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let variables: Vec<_> = PIPELINE.iter().chain(variables).copied().chain([("PATH", path())]).collect();
    run(folder, &variables, &[&["package"][..], arguments].concat())
}

#[test]
fn a_commit_gives_the_same_bytes_on_every_machine() {
    let around = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| around.path().join(name));
    project(&one);
    git(around.path(), &["clone", "-q", "one", "other"]);
    give_results(&other, 0o600);
    arm(&one);
    // Between two runs another pipeline sets a tag, and someone leaves another history in the clone.
    let [base, head] = ["HEAD~1", "HEAD"].map(|commit| git(&one, &["rev-parse", commit]));
    git(&other, &["tag", "stable-0", &base]);
    put(&other, ".git/info/grafts", &format!("{head}\n"));
    // A file whose times differ is compared, and one that was changed is told.
    put(&one, "old.py", "pass\n");
    put(&one, "large.txt", "changed\n");
    put(&one, "samples.jsonl", "{\"body\": 2}\n");
    put(&one, "manifest.json", &manifest().to_string().replace("wine-", "other-"));
    let base = ("CI_MERGE_REQUEST_DIFF_BASE_SHA", base.as_str());
    let made =
        package(&one, &[base, ("CI_JOB_ID", "8"), ("TZ", "UTC")], &["--dotenv", "package.env", "--output-dir", "out"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(!one.join("started").exists(), "git started a program of the repository");
    assert_snapshot("package_made", &without_hashes(&format!("{}{}", made.stdout, made.stderr)));
    let name = format!("candidate-PR-12-{}-20261129T045233Z.zip", &git(&one, &["rev-parse", "HEAD"])[..8]);
    let file = one.join("out").join(&name);
    let bytes = std::fs::read(&file).unwrap();
    let dotenv = std::fs::read_to_string(one.join("package.env")).unwrap();
    assert!(dotenv.contains(&format!("PACKAGE_FILE=out/{name}\nPACKAGE_NAME={name}\nPACKAGE_SHA256=")), "{dotenv}");

    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$0\" package", env!("CARGO_BIN_EXE_sagemaker-executor")]).current_dir(&other);
    shell.env_clear().envs(PIPELINE).envs([base, ("CI_JOB_ID", "9"), ("TZ", "Asia/Tokyo"), ("PATH", path())]);
    let again = shell.output().unwrap();
    assert!(again.status.success(), "{}", shown(&again));
    assert!(std::fs::read(other.join(&name)).unwrap() == bytes, "another machine makes other bytes");

    let verified = run(around.path(), &[], &["package", "verify", file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let data: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert!(dotenv.contains(data["sha256"].as_str().unwrap()));
    assert!(!verified.stdout.contains("s3cr3t"));
    opened_by_others(&file);
    let extracted = around.path().join("extracted");
    if unzipped(&file, &extracted) {
        let read = |name: &str| std::fs::read_to_string(extracted.join(name)).unwrap();
        assert_eq!(read("source/large.txt").len(), 1_700_000, "the commit is packed, not the folder");
        assert_eq!(extracted.join("source/run.sh").metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(extracted.join("source/ü/link").read_link().unwrap(), Path::new("../run.sh"));
        assert_eq!(read("deploy/manifest.json"), manifest().to_string());
        assert_eq!(read("deploy/samples.jsonl"), "{\"body\": 1}\n");
        assert_snapshot("package_metadata", &without_hashes(&read("metadata.json")));
        assert_snapshot("package_notes", &format!("{}\n{}", read("docs/RELEASE_NOTES.md"), read("docs/USAGE.md")));
    }
}

/// The hashes of this version of the texts and of the program are no part of a snapshot.
pub(super) fn without_hashes(text: &str) -> String {
    Regex::new("[0-9a-f]{64}").unwrap().replace_all(text, "HASH").into_owned()
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Python reads every file, and `unzip` extracts them; `false` without it.
fn unzipped(file: &Path, to: &Path) -> bool {
    if find_program("unzip").is_none() {
        skipped("packages", "unzip is not installed");
        return false;
    }
    let output = Command::new("unzip").arg("-q").arg(file).arg("-d").arg(to).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    true
}

fn opened_by_others(file: &Path) {
    let Some(python) = find_program("python3") else { return skipped("packages", "python3 is not installed") };
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  assert all(i.date_time == (1980, 1, 1, 0, 0, 0) and not i.flag_bits & 8 for i in z.infolist())\n";
    let output = Command::new(python).args(["-c", script]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn what_cannot_be_packed_is_one_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    let refused = |arguments: &[&str]| {
        let ended = package(folder.path(), &[], arguments);
        assert_eq!(ended.code, 1, "{}", ended.stdout);
        ended.stderr.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    put(folder.path(), "untracked.json", &manifest().to_string());
    let mut said = vec![refused(&["--manifest", "untracked.json"]), refused(&["--output-dir", "model/out"])];
    let arn = "arn:aws:sagemaker:eu-west-1:000000000000:model-package/other/1";
    said.push(refused(&["--model-package", arn]));
    said.push(refused(&["--model-package", &arn.replace("other", "wine")]));
    let twin = git(folder.path(), &["rev-parse", "HEAD:run.sh"]);
    git(folder.path(), &["update-index", "--add", "--cacheinfo", &format!("100644,{twin},RUN.sh")]);
    git(folder.path(), &["commit", "-qm", "Add a twin"]);
    said.push(refused(&[]));
    git(folder.path(), &["rm", "-q", "--cached", "RUN.sh"]);
    symlink("/etc/passwd", folder.path().join("passwords")).unwrap();
    git(folder.path(), &["add", "passwords"]);
    git(folder.path(), &["commit", "-qm", "Link"]);
    said.push(refused(&[]));
    said.push(refused(&["--embed-model", "0"]));
    std::fs::remove_dir_all(folder.path().join("model")).unwrap();
    said.push(refused(&[]));
    std::fs::rename(folder.path().join(".git"), folder.path().join("gone")).unwrap();
    let ended = package(folder.path(), &[("GIT_CEILING_DIRECTORIES", "/")], &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("a package is made from git"), "{}", ended.stderr);
    assert_snapshot("package_refused", &said.join("\n"));
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> =
        left.filter(|name| name.to_str().unwrap().contains("zip") || name.to_str().unwrap().contains("tmp")).collect();
    assert_eq!(left, [""; 0]);
}

/// An account with the shipped policy for one role.
fn account() -> String {
    let policy = POLICY.replace("123456789012", "000000000000").replace("example-models", BUCKET);
    let policy: Value = serde_json::from_str(&policy).unwrap();
    json!({"RoleDetailList": [{
        "RoleName": "package",
        "RoleId": "AROAPACKAGE",
        "Arn": "arn:aws:iam::000000000000:role/package",
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement":
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}},
        "RolePolicyList": [{"PolicyName": "package", "PolicyDocument": policy}],
    }]})
    .to_string()
}

#[test]
fn a_package_is_stored_once_under_the_shipped_policy() {
    let around = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { around.path().join(name) };
    let folder = file("project");
    project(&folder);
    std::fs::write(file("account.json"), account()).unwrap();
    let args = ["--iam", file("account.json").to_str().unwrap()].map(str::to_owned);
    let mut emulator = Emulator::start(&file("data"), &args);
    let endpoint = emulator.endpoint.clone();
    let with = |variables: Vec<(String, String)>, words: &[&str]| {
        let mut variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend([("AWS_ENDPOINT_URL", endpoint.as_str()), ("CI_ENVIRONMENT_NAME", "prod"), ("PATH", path())]);
        variables.extend(PIPELINE);
        let ended = run(&folder, &variables, words);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    let version = with(emulator.of_administrator(), &["model", "register", "--output", "json"]);
    let registered = |emulator: &Emulator| {
        let mut variables: Vec<_> = emulator.environment().into_iter().collect();
        for (name, key) in [("MODEL_PACKAGE_ARN", "model_package_arn"), ("MODEL_DATA_URL", "model_data_url")] {
            variables.push((name.to_owned(), version[key].as_str().unwrap().to_owned()));
        }
        variables
    };
    emulator.call_driver_as("role/package");
    let words = ["package", "--output", "json", "--output-dir", "out"];
    let first = with(registered(&emulator), &words);
    let again = with(registered(&emulator), &words);
    assert_eq!(first, again);
    let verified = |made: &Value| {
        let file = made["file"].as_str().unwrap();
        with(Vec::new(), &["package", "verify", file, "--output", "json"])["metadata"].take()
    };
    let packed = verified(&first);
    let key = format!("packages/{}/{}", first["sha256"].as_str().unwrap(), first["name"].as_str().unwrap());
    assert_eq!(first["uri"], json!(format!("s3://{BUCKET}/{key}")));
    // Another model is not the version's, whatever a variable says.
    put(&folder, "model/model.json", "{}");
    let mut variables = registered(&emulator);
    variables.retain(|(name, _)| name != "MODEL_DATA_URL");
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables: Vec<_> =
        variables.chain([("AWS_ENDPOINT_URL", endpoint.as_str()), ("CI_ENVIRONMENT_NAME", "prod")]).collect();
    let other = package(&folder, &variables, &[]);
    assert_eq!(other.code, 1, "{}", other.stdout);
    assert!(other.stderr.contains("the model in `model` is not the registered one, s3://"), "{}", other.stderr);
    // Without the folder, model and metrics are those of the registered version, and jobs that deploy get its image.
    std::fs::remove_dir_all(folder.join("model")).unwrap();
    std::fs::remove_file(folder.join("metrics.json")).unwrap();
    let fetched = with(registered(&emulator), &[&words[..], &["--dotenv", "package.env"]].concat());
    assert_eq!(fetched["model_sha256"], first["model_sha256"]);
    assert_eq!(verified(&fetched)["metrics"], packed["metrics"]);
    assert_ne!(packed["metrics"], json!({}));
    let image = manifest()["model"]["image"].as_str().unwrap().to_owned();
    let dotenv = std::fs::read_to_string(folder.join("package.env")).unwrap();
    assert!(dotenv.contains(&format!("SERVING_IMAGE={image}\n")), "{dotenv}");
    // An image that a job built takes the place of the version's, if the manifest names it.
    let own = with(registered(&emulator), &[&words[..], &["--image", &image]].concat());
    assert_eq!(own["sha256"], fetched["sha256"]);
    let variables = registered(&emulator);
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables: Vec<_> =
        variables.chain([("AWS_ENDPOINT_URL", endpoint.as_str()), ("CI_ENVIRONMENT_NAME", "prod")]).collect();
    let other = package(&folder, &variables, &["--image", &image.replace("0123", "3210")]);
    assert!(other.code == 1 && other.stderr.contains("the image of `--image` is"), "{}", other.stderr);
    let reference = with(registered(&emulator), &[&words[..], &["--embed-model", "0"]].concat());
    assert_eq!(reference["model_sha256"], first["model_sha256"]);
    let archive = verified(&reference)["model"]["archive"].take();
    assert_eq!((&archive["file"], &archive["uri"]), (&Value::Null, &version["model_data_url"]));
    assert_eq!(emulator.decided("package")["denied"], json!({}), "the shipped policy is enough");
}
