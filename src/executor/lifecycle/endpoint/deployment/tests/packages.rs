//! `endpoint deploy --package`: a package in an account that knows nothing of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use test_case::test_case;

use super::*;
use crate::cloud::testing::{Fault, FaultDecision, Watch, When};
use crate::cloud::{CloudErrorKind, ModelSource, Sha256Hash};
use crate::lifecycle::hex::hex;
use crate::lifecycle::package::testing::TestPackage;

const NEXT: &str = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/2";
const SAMPLES: &str = r#"[{"name": "one", "content_type": "text/plain", "body": "x", "expect": {"equals": "good"}}]"#;

impl EndpointDesk {
    /// A package of the desk's manifest with a change, in an account that has its image. The project's own manifest is gone.
    async fn packed(change: impl FnOnce(&mut TestPackage)) -> (Self, PathBuf, TestPackage) {
        let desk = Self::new().await;
        let text = std::fs::read_to_string(desk.project.path().join("manifest.json")).unwrap();
        let mut package = TestPackage {
            manifest: serde_json::from_str(&text).unwrap(),
            files: vec![("deploy/samples.json", SAMPLES.to_owned())],
            model: b"the model".to_vec(),
            reference: None,
            package_arn: Some("arn:aws:sagemaker:us-east-1:999999999999:model-package/wine/7".to_owned()),
            project: Some("group/project"),
        };
        change(&mut package);
        let file = package.write(desk.project.path());
        for name in ["manifest.json", "samples.json"] {
            std::fs::remove_file(desk.project.path().join(name)).unwrap();
        }
        desk.memory.account.set_image(&format!("serve@sha256:{}", "0".repeat(64)), &["linux/amd64"]);
        (desk, file, package)
    }

    async fn deploy_package(&self, environment: &str, package: &str, words: &[&str]) -> Ended {
        let words = [&["deploy", "--package", package], words].concat();
        self.run_line(&words, &["--environment", environment, "--output", "json"]).await
    }

    fn approve(&self, arn: &str) {
        self.memory.registry.change(arn, |version| {
            version.approval = Approval::Approved;
            version.metadata.insert("approval-42@1234abcd".to_owned(), "round=1 user=jane".to_owned());
        });
    }

    /// Hash of a file's content, as hexadecimal digits.
    fn stored_hash_of(file: &Path) -> String {
        hex(&Sha256::digest(std::fs::read(file).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_package_waits_for_its_approval_and_then_goes_live_as_it_is() {
    let (desk, file, package) = EndpointDesk::packed(|_| {}).await;
    let path = file.to_str().unwrap();
    let waits = desk.deploy_package("prod", path, &[]).await;
    assert_eq!(waits.verdict(), 30, "{}", waits.error);
    let command = format!("`sagemaker-executor model approve --model-package {NEXT} --environment prod`");
    assert!(waits.error.contains(&command), "{}", waits.error);
    let sha256 = EndpointDesk::stored_hash_of(&file);
    let objects = &desk.memory.objects;
    let model = format!("models/{}/model.tar.gz", package.model_sha256());
    assert_eq!(objects.contents(&model).unwrap(), package.model);
    let stored = objects.contents(&format!("packages/{sha256}/stable-20261129T045233Z.zip"));
    assert_eq!(stored, Some(std::fs::read(&file).unwrap()));
    let spec = desk.memory.registry.requests().pop().unwrap();
    assert_eq!(spec.model_data_url, format!("s3://memory/{model}"));
    assert_eq!((&spec.metadata["package-sha256"], spec.metadata["commit"].get(..4)), (&sha256, Some("0123")));
    // Another pipeline and job find the same version.
    let desk = desk.with([("CI_PIPELINE_ID", "9"), ("CI_JOB_ID", "10")]);
    let writes = desk.writes();
    assert_eq!(desk.deploy_package("prod", path, &[]).await.verdict(), 30);
    assert_eq!(desk.writes(), writes);

    desk.approve(NEXT);
    let data = desk.deploy_package("prod", path, &["--package-sha256", &sha256.to_uppercase()]).await.good();
    assert_eq!((&data["outcome"], &data["package"]["sha256"]), (&json!("created"), &json!(sha256)));
    assert_eq!(data["package"]["model_sha256"], json!(package.model_sha256()));
    let served = desk.memory.serving.models().remove(0);
    assert_eq!(served.source, ModelSource::Package(NEXT.to_owned()));
    assert_eq!(served.tags["sagemaker-executor:package-sha256"], sha256);
    assert_eq!(served.tags["sagemaker-executor:commit"], "0123456789abcdef0123456789abcdef01234567");
    assert_eq!(desk.record("00000001.begin")["package"], data["package"]);

    let (writes, calls) = (desk.writes(), desk.calls());
    assert_eq!(desk.deploy_package("prod", path, &[]).await.good()["outcome"], "unchanged");
    assert_eq!(desk.writes(), writes);
    assert!(desk.calls() - calls <= 21, "{}", desk.calls() - calls);
    // From the bucket too, where its key says which bytes it has.
    let uri = data["package"]["uri"].as_str().unwrap();
    assert_eq!(desk.deploy_package("prod", uri, &[]).await.good()["outcome"], "unchanged");
    assert_eq!(desk.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn an_environment_without_approvals_shows_its_package_and_goes_back_to_it() {
    let (desk, file, package) = EndpointDesk::packed(|_| {}).await;
    let first = desk.deploy_package("dev", file.to_str().unwrap(), &[]).await.good();
    assert!(matches!(&desk.memory.serving.models()[0].source, ModelSource::Container { model_data_url: Some(url), .. }
        if url.contains(&package.model_sha256())));
    let other = TestPackage { model: b"another model".to_vec(), ..package };
    let folder = tempfile::tempdir().unwrap();
    let second = desk.deploy_package("dev", other.write(folder.path()).to_str().unwrap(), &[]).await.good();
    assert_eq!(second["outcome"], "updated");
    assert_ne!(second["package"]["sha256"], first["package"]["sha256"]);

    std::fs::write(desk.project.path().join("manifest.json"), other.manifest.to_string()).unwrap();
    std::fs::write(desk.project.path().join("samples.json"), SAMPLES).unwrap();
    let status = desk.run_in("dev", &["status"]).await.good();
    assert_eq!(status["endpoints"][0]["package"], second["package"]);
    let back = desk.run_in("dev", &["rollback", "--reason", "slow"]).await.good();
    assert_eq!((&back["outcome"], &back["package"]), (&json!("brought_back"), &first["package"]));
    assert_eq!(desk.record("00000003.begin")["package"], first["package"]);
}

#[tokio::test(start_paused = true)]
async fn a_package_lowers_no_tier_and_reads_no_file_of_the_job() {
    let (desk, file, _) = EndpointDesk::packed(|package| {
        package.manifest["environments"]["prod"]["tier"] = json!("development");
    })
    .await;
    assert_eq!(desk.deploy_package("prod", file.to_str().unwrap(), &[]).await.verdict(), 30);
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "secret").unwrap();
    for (name, sample) in [("samples.json", outside.path().display().to_string()), ("..", String::new())] {
        let (desk, file, _) = EndpointDesk::packed(|package| {
            package.manifest["endpoint"]["test"]["samples"] = json!([name]);
            package.files = vec![("deploy/samples.json", json!([{"body_file": sample}]).to_string())];
        })
        .await;
        refused(&desk, "dev", file.to_str().unwrap(), &[], "it is no file of the package").await;
    }
}

/// The environment is production by the reviewed manifest alone, whose packages wait for two users.
#[tokio::test(start_paused = true)]
async fn an_endpoint_remembers_its_approvals_whatever_manifest_is_packed() {
    let (desk, file, reviewed) = EndpointDesk::packed(|package| {
        package.manifest["environments"]["dev"]["tier"] = json!("production");
        package.manifest["model"]["approvals"] = json!({"min": 2});
    })
    .await;
    let path = file.to_str().unwrap();
    assert_eq!(desk.deploy_package("dev", path, &[]).await.verdict(), 30);
    let approve = |arn: &str, user: &str| {
        desk.memory.registry.change(arn, |version| {
            version.approval = Approval::Approved;
            version.metadata.insert(format!("approval-{user}@1234abcd"), format!("round=1 user={user}"));
        });
    };
    let needed = |arn: &str| {
        let versions = desk.memory.registry.all();
        let version = versions.into_iter().find(|version| version.arn == arn).unwrap();
        version.metadata["approvals-needed"].clone()
    };
    assert_eq!(needed(NEXT), "2");
    approve(NEXT, "1");
    assert_eq!(desk.deploy_package("dev", path, &[]).await.verdict(), 30);
    approve(NEXT, "2");
    assert_eq!(desk.deploy_package("dev", path, &[]).await.good()["outcome"], "created");

    let folder = tempfile::tempdir().unwrap();
    let mut lax = TestPackage { model: b"another".to_vec(), ..reviewed };
    lax.manifest["environments"]["dev"]["tier"] = json!("development");
    lax.manifest["model"]["approvals"] = json!({"min": 1});
    let path = lax.write(folder.path());
    let path = path.to_str().unwrap();
    let waits = desk.deploy_package("dev", path, &["--plan"]).await;
    assert_eq!(waits.verdict(), 30);
    let waits = desk.deploy_package("dev", path, &[]).await;
    let by_tags = waits.error.contains("the endpoint wine, by its tags, takes approved versions alone");
    assert!(waits.verdict() == 30 && by_tags, "{}", waits.error);
    let arn = NEXT.replace("wine/2", "wine/3");
    assert_eq!(needed(&arn), "2");
    approve(&arn, "1");
    let waits = desk.deploy_package("dev", path, &[]).await;
    assert!(waits.verdict() == 30 && waits.error.contains("by too few users: 2 are needed"), "{}", waits.error);
    approve(&arn, "2");
    assert_eq!(desk.deploy_package("dev", path, &[]).await.good()["outcome"], "updated");
    lax.model = b"a third".to_vec();
    let path = lax.write(folder.path());
    assert_eq!(desk.deploy_package("dev", path.to_str().unwrap(), &[]).await.verdict(), 30);

    // The project's own manifest loosens it on purpose.
    desk.manifest(|manifest| manifest["environments"]["dev"]["tier"] = json!("development"));
    std::fs::write(desk.project.path().join("samples.json"), SAMPLES).unwrap();
    desk.run_in("dev", &["deploy", "--version", "1"]).await.good();
    assert_eq!(desk.deploy_package("dev", path.to_str().unwrap(), &[]).await.good()["outcome"], "updated");
}

/// Configurations from before there was a tag: their model is made from the version.
#[tokio::test(start_paused = true)]
async fn a_model_that_is_made_from_a_version_tells_that_approvals_are_needed() {
    let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
    desk.manifest(|manifest| manifest["environments"]["dev"]["tier"] = json!("production"));
    std::fs::write(desk.project.path().join("samples.json"), SAMPLES).unwrap();
    desk.run_in("dev", &["deploy", "--version", "1"]).await.good();
    desk.memory.serving.untag("sagemaker-executor:approvals");
    let path = file.to_str().unwrap();
    let waits = desk.deploy_package("dev", path, &[]).await;
    assert!(waits.verdict() == 30 && waits.error.contains("by its tags"), "{}", waits.error);
}

#[test_case(&["--min-approvals", "2"], "2 are needed"; "a number")]
#[test_case(&["--no-self"], "1, and not the one who registered it, is needed"; "other users")]
#[tokio::test(start_paused = true)]
async fn the_command_line_asks_for_approvals_where_nothing_remembers_any(words: &[&str], needed: &str) {
    let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
    let path = file.to_str().unwrap();
    assert_eq!(desk.deploy_package("dev", path, words).await.verdict(), 30);
    desk.approve(NEXT);
    let waits = desk.deploy_package("dev", path, words).await;
    assert!(waits.verdict() == 30 && waits.error.contains(needed), "{}", waits.error);
    // The version remembers it too.
    let waits = desk.deploy_package("prod", path, &[]).await;
    assert!(waits.verdict() == 30 && waits.error.contains(needed), "{}", waits.error);
}

#[test_case(1, |package| package.manifest["endpoint"]["alarms"]["names"] = json!(["absent"]); "an alarm that is not there")]
#[test_case(1, |package| package.manifest["endpoint"]["deployment"]["timeout_seconds"] = json!(28_000); "a limit")]
#[test_case(30, |package| package.manifest["endpoint"]["instances"]["count"] = json!(20); "the quota")]
#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_package_that_is_refused(code: u8, change: fn(&mut TestPackage)) {
    for environment in ["dev", "prod"] {
        let (desk, file, _) = EndpointDesk::packed(change).await;
        let desk = desk.with([("CI_JOB_TIMEOUT", "3600")]);
        let before = (desk.writes(), desk.memory.objects.keys(), desk.memory.registry.all().len());
        let ended = desk.deploy_package(environment, file.to_str().unwrap(), &[]).await;
        assert_eq!(ended.verdict(), code, "{}", ended.error);
        assert_eq!((desk.writes(), desk.memory.objects.keys(), desk.memory.registry.all().len()), before);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_package_for_the_endpoint_of_another_project() {
    let (desk, file, other) = EndpointDesk::packed(|_| {}).await;
    desk.deploy_package("dev", file.to_str().unwrap(), &[]).await.good();
    let folder = tempfile::tempdir().unwrap();
    let other = TestPackage { project: Some("group/other"), model: b"another".to_vec(), ..other };
    let file = other.write(folder.path());
    let desk = desk.with([("CI_PROJECT_PATH", "group/other")]);
    let before = (desk.writes(), desk.memory.registry.all().len());
    let ended = desk.deploy_package("dev", file.to_str().unwrap(), &[]).await;
    assert!(ended.verdict() == 1 && ended.error.contains("is of the project group/project"), "{}", ended.error);
    assert_eq!((desk.writes(), desk.memory.registry.all().len()), before);
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_a_package_writes_nothing() {
    let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
    let desk = desk.with([("CI_ENVIRONMENT_TIER", "production")]);
    let before = desk.writes();
    let plan = desk.deploy_package("dev", file.to_str().unwrap(), &["--plan"]).await;
    assert_eq!((plan.verdict(), desk.writes()), (30, before), "{}", plan.error);
    assert!(plan.error.contains("without `--plan` registers it"), "{}", plan.error);
    let steps = plan.data()["steps"].to_string();
    for what in ["object s3://memory/models/", "object s3://memory/packages/", "version of the group wine"] {
        assert!(steps.contains(what), "{steps}");
    }
    // The version's ARN is in the hash that gives all names.
    let data = plan.data();
    let unknown = json!("not known before the version is registered");
    assert_eq!((&data["specification"], &data["to"]), (&unknown, &unknown));
    assert!(!plan.out.contains("wine-m-"), "{}", plan.out);
    assert!(!plan.error.contains("there is no model at"), "{}", plan.error);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_here_needs_no_second_approval() {
    let (desk, _, mut package) = EndpointDesk::packed(|_| {}).await;
    let hash: Sha256Hash = Sha256::digest(&package.model).into();
    let key = format!("models/{}/model.tar.gz", package.model_sha256());
    let version = |change: fn(&mut VersionSpec)| {
        let mut spec = desk.memory.registry.requests().remove(0);
        spec.image = package.manifest["model"]["image"].as_str().unwrap().to_owned();
        (spec.environment, spec.model_data_url, spec.client_token) =
            (BTreeMap::new(), format!("s3://memory/{key}"), format!("t{}", desk.memory.registry.all().len()));
        change(&mut spec);
        spec
    };
    desk.memory.objects.insert_as(&key, hash);
    let arn = desk.memory.registry.create_version(&version(|_| {})).await.unwrap();
    desk.approve(&arn);
    let other = desk
        .memory
        .registry
        .create_version(&version(|spec| drop(spec.environment.insert("A".to_owned(), "b".to_owned()))))
        .await;
    let other = other.unwrap();
    desk.approve(&other);
    package.package_arn = Some(arn.clone());
    let folder = tempfile::tempdir().unwrap();
    let data = desk.deploy_package("prod", package.write(folder.path()).to_str().unwrap(), &[]).await.good();
    assert_eq!(data["model_package_arn"], json!(arn));
    // Approved, but with other variables.
    package.package_arn = Some(other);
    let waits = desk.deploy_package("prod", package.write(folder.path()).to_str().unwrap(), &[]).await;
    assert_eq!(waits.verdict(), 30, "{}", waits.error);
}

async fn refused(desk: &EndpointDesk, environment: &str, package: &str, words: &[&str], why: &str) {
    let writes = desk.writes();
    let ended = desk.deploy_package(environment, package, words).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains(why), "{why}: {:?} {}", ended.kind, ended.error);
    assert_eq!(desk.writes(), writes, "{why}");
}

#[tokio::test(start_paused = true)]
async fn another_package_than_the_one_that_was_meant_is_refused() {
    let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
    let (path, sha256) = (file.to_str().unwrap(), EndpointDesk::stored_hash_of(&file));
    let other = "0".repeat(64);
    refused(&desk, "dev", path, &["--package-sha256", &other], "and `--package-sha256` says 000").await;
    refused(&desk, "dev", path, &["--package-sha256", "12"], "`--package-sha256` is no SHA-256").await;
    refused(&desk, "other", path, &[], "stable-20261129T045233Z.zip/deploy/manifest.json has a mistake").await;
    refused(
        &desk,
        "dev",
        path,
        &["--package-project", "group/other"],
        "is of the project group/project, not of group/other",
    )
    .await;
    refused(&desk, "dev", "absent.zip", &[], "absent.zip cannot be used").await;
    refused(&desk, "dev", "", &[], "`PACKAGE_FILE` or `PACKAGE_URI` of `package --dotenv`").await;
    let (unknown, nameless, _) = EndpointDesk::packed(|package| package.project = None).await;
    let (nameless, why) = (nameless.to_str().unwrap(), "is of no project, not of group/project");
    refused(&unknown, "dev", nameless, &[], why).await;
    refused(&unknown, "dev", nameless, &["--package-project", "group/project"], why).await;
    let desk = desk.with([("PACKAGE_SHA256", other.as_str()), ("CI_PROJECT_PATH", "group/other")]);
    refused(&desk, "dev", path, &[], "and `PACKAGE_SHA256` says 000").await;
    let by_flag = ["--package-sha256", sha256.as_str()];
    refused(&desk, "dev", path, &by_flag, "give `--package-project group/project`").await;
    let with_project = [&by_flag[..], &["--package-project", "group/project"]].concat();
    desk.memory.account.set_caller("arn:aws:sts::999999999999:assumed-role/ci/job");
    refused(&desk, "dev", path, &with_project, "the credentials are of account 999999999999, not 123456789012").await;
    desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(9).position(|part| part == b"the model").unwrap();
    bytes[at] = b'T';
    std::fs::write(&file, bytes).unwrap();
    refused(
        &desk,
        "dev",
        path,
        &["--package-sha256", &EndpointDesk::stored_hash_of(&file)],
        "model/model.tar.gz cannot be read",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_package_in_a_bucket_is_the_one_of_its_key() {
    let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
    let bytes = std::fs::read(&file).unwrap();
    let key = format!("packages/{}/stable-20261129T045233Z.zip", "0".repeat(64));
    desk.memory.objects.insert(&key, bytes.clone());
    refused(&desk, "dev", &format!("s3://memory/{key}"), &[], "and its key says 000").await;
    refused(&desk, "dev", "s3://memory/absent.zip", &[], "s3://memory/absent.zip does not exist").await;
    refused(&desk, "dev", "s3://memory", &[], "s3://memory is no object of S3").await;
    desk.memory.objects.insert("cut.zip", &bytes[..bytes.len() - 30]);
    refused(&desk, "dev", "s3://memory/cut.zip", &[], "it is no zip file, or was cut").await;
    desk.memory.objects.insert("whole.zip", bytes);
    assert_eq!(desk.deploy_package("dev", "s3://memory/whole.zip", &[]).await.good()["outcome"], "created");
}

#[tokio::test(start_paused = true)]
async fn an_image_or_metrics_that_do_not_fit_are_refused() {
    let digest = format!("sha256:{}", "1".repeat(64));
    let (desk, file, _) = EndpointDesk::packed(|package| {
        let image = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@{digest}");
        package.manifest["environments"]["dev"]["patch"] = json!({"model": {"image": image}});
    })
    .await;
    refused(&desk, "dev", file.to_str().unwrap(), &[], "environments.dev.patch.model.image").await;
    let (desk, file, _) = EndpointDesk::packed(|package| {
        package.manifest["model"]["require"] = json!(["f1>=0.8"]);
        package.manifest["model"]["metrics"] = json!(["./metrics.json"]);
        package.files.push(("model/metrics/metrics.json", "{\"f1\": 0.7}".to_owned()));
    })
    .await;
    let writes = desk.writes();
    let below = desk.deploy_package("dev", file.to_str().unwrap(), &[]).await;
    assert_eq!((below.verdict(), desk.writes()), (10, writes), "{}", below.error);
}

#[test_case(Some(CloudErrorKind::Denied), b"the model" => "it cannot be read"; "denied")]
#[test_case(None, b"the other" => "that object is another one"; "another model")]
#[test_case(None, b"the" => "that object is another one"; "of another size")]
#[test_case(None, b"" => "there is no such object"; "absent")]
fn a_model_that_is_elsewhere_must_be_the_same(fault: Option<CloudErrorKind>, content: &[u8]) -> &'static str {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (desk, file, _) = EndpointDesk::packed(|package| package.reference = Some("s3://first/model.tar.gz")).await;
        if !content.is_empty() {
            desk.memory.objects.insert("model.tar.gz", content);
        }
        if let Some(kind) = fault {
            desk.memory.objects.plan([Fault::new("look", 1, When::Before, kind)]);
        }
        let ended = desk.deploy_package("dev", file.to_str().unwrap(), &[]).await;
        assert!(ended.kind == Some(Kind::User) && ended.error.contains("`--embed-model`"), "{}", ended.error);
        let whys = ["it cannot be read", "that object is another one", "there is no such object"];
        whys.into_iter().find(|why| ended.error.contains(why)).unwrap_or("another reason")
    })
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_elsewhere_is_copied_into_the_bucket() {
    let (desk, file, package) =
        EndpointDesk::packed(|package| package.reference = Some("s3://first/model.tar.gz")).await;
    desk.memory.objects.insert("model.tar.gz", "the model");
    assert_eq!(desk.deploy_package("dev", file.to_str().unwrap(), &[]).await.good()["outcome"], "created");
    let key = format!("models/{}/model.tar.gz", package.model_sha256());
    assert_eq!(desk.memory.objects.contents(&key).unwrap(), package.model);
    assert!(!desk.writes().iter().any(|call| call.starts_with("copy")), "{:?}", desk.writes());
    // It is never read again.
    desk.memory.objects.expire("model.tar.gz");
    assert_eq!(desk.deploy_package("dev", file.to_str().unwrap(), &[]).await.good()["outcome"], "unchanged");
}

/// Lets no call pass from the `at`th moment on; counts the moments.
#[derive(Debug)]
struct Kill {
    at: usize,
    seen: AtomicUsize,
}

impl Watch for Kill {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.at { FaultDecision::Passes } else { FaultDecision::Hangs }
    }
}

/// Runs the deployment until this moment of the bucket and the registry, and returns the number of moments.
async fn run_until(desk: &EndpointDesk, path: &str, at: usize) -> usize {
    let kill = Arc::new(Kill { at, seen: AtomicUsize::new(0) });
    desk.memory.objects.watch(kill.clone());
    desk.memory.registry.watch(kill.clone());
    // No time passes: the clock goes on when nothing else can.
    let _ = tokio::time::timeout(Duration::from_mins(1), desk.deploy_package("prod", path, &[])).await;
    kill.seen.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_package_is_stored_and_registered_once_whenever_a_run_is_killed() {
    let state = |desk: &EndpointDesk| (desk.memory.objects.keys(), desk.memory.registry.all());
    let (undisturbed, file, _) = EndpointDesk::packed(|_| {}).await;
    let moments = run_until(&undisturbed, file.to_str().unwrap(), usize::MAX).await;
    assert!(moments > 10, "{moments}");
    for at in 0..moments {
        let (desk, file, _) = EndpointDesk::packed(|_| {}).await;
        let path = file.to_str().unwrap();
        run_until(&desk, path, at).await;
        run_until(&desk, path, usize::MAX).await;
        assert_eq!(state(&desk), state(&undisturbed), "killed at {at}");
    }
}
