//! `endpoint deploy --package`: the same bytes in two accounts and partitions, the second of which knows nothing of the first, under the
//! shipped policies. No request to the second one names another partition than its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::endpoint_deploy::SERVE;
use super::package::{git, path, put};
use super::{Ended, run};
use crate::conformance::{can_run_containers, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::partition::{REGION, assert_own_names};
use crate::support::proxy::Proxy;
use crate::support::serving::serving_role;
use crate::support::shipped_roles::{of_test_account, shipped_role};
use crate::support::waiting::find_program;

const PACKAGE: &str = include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy-package.json");
/// Policies of the roles.
const POLICIES: [(&str, &str); 3] = [
    ("deploy", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy.json")),
    ("package", include_str!("../../../runner-config/iam/lifecycle/package.json")),
    ("approve", include_str!("../../../runner-config/iam/lifecycle/model-approve.json")),
];

/// An environment: its account, its region and the emulator of both.
struct Place {
    name: &'static str,
    account: &'static str,
    partition: &'static str,
    emulator: Emulator,
    /// Keeps the requests to it.
    proxy: Proxy,
}

fn partition(region: &str) -> &'static str {
    if region == REGION { "aws-us-gov" } else { "aws" }
}

/// A project, and what its pipeline has.
struct Desk {
    folder: tempfile::TempDir,
    key: TokenKey,
}

fn image(account: &str, region: &str) -> String {
    format!("{account}.dkr.ecr.{region}.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4))
}

fn manifest() -> Value {
    let environment = |account: &str, region: &str| {
        json!({
            "region": region, "account": account, "bucket": BUCKET,
            "role": format!("arn:{}:iam::{account}:role/example-serving", partition(region)),
            "patch": {"model": {"image": image(account, region)}},
        })
    };
    json!({
        "model": {"group": "wine", "image": image("000000000000", "us-east-1"), "environment": {"ANSWER": "good"}, "metrics": ["metrics.json"]},
        "endpoint": {
            "name": "wine",
            "instances": {"type": "ml.m5.large"},
            "test": {"samples": ["samples.json"]},
        },
        "environments": {
            "dev": environment("000000000000", "us-east-1"),
            "prod": environment("111111111111", REGION),
        },
    })
}

/// The account's roles with the shipped policies, in another account and region.
fn account(account: &str, region: &str) -> String {
    let mut roles = POLICIES.map(shipped_role);
    let second = json!({"PolicyName": "package", "PolicyDocument": of_test_account(PACKAGE)});
    roles[0]["RolePolicyList"].as_array_mut().unwrap().push(second);
    let roles = [&roles[..], &[serving_role("example-serving")]].concat();
    let text = json!({ "RoleDetailList": roles }).to_string().replace("000000000000", account);
    text.replace("us-east-1", region).replace("arn:aws:", &format!("arn:{}:", partition(region)))
}

impl Desk {
    /// `None` where no container runs, or nobody signs tokens.
    fn new() -> Option<Self> {
        let needs = ["python3", "git", id_tokens::NEEDS];
        if !can_run_containers() || needs.iter().any(|program| find_program(program).is_none()) {
            skipped(
                "endpoint deploy --package",
                &format!("bubblewrap creates no container, or one of {needs:?} is not there"),
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let desk = Self { key: TokenKey::new(folder.path()), folder };
        let python = find_program("python3").unwrap();
        put(desk.path(), "image/usr/local/bin/serve", &format!("#!{}\n{SERVE}", python.display()));
        let serve = desk.path().join("image/usr/local/bin/serve");
        std::fs::set_permissions(serve, std::fs::Permissions::from_mode(0o755)).unwrap();
        let project = desk.project();
        put(&project, "manifest.json", &manifest().to_string());
        let sample = json!([{"content_type": "text/plain", "body": "x", "expect": {"contains": "good"}}]);
        put(&project, "samples.json", &sample.to_string());
        put(&project, ".gitignore", "/model/\n/metrics.json\n*.zip\n");
        git(&project, &["init", "-q", "-b", "main"]);
        git(&project, &["add", "."]);
        git(&project, &["commit", "-qm", "Begin"]);
        put(&project, "model/model.json", "{}");
        put(&project, "metrics.json", "{\"f1\": 0.9}");
        Some(desk)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn project(&self) -> PathBuf {
        self.path().join("project")
    }

    fn place(&self, name: &'static str, account_id: &'static str, region: &str) -> Place {
        let file = |end: &str| self.path().join(format!("{name}{end}"));
        std::fs::write(file(".json"), account(account_id, region)).unwrap();
        let args = [
            ("--account", account_id.to_owned()),
            ("--image", format!("{}=overlay:{}", image(account_id, region), self.path().join("image").display())),
            ("--ecr", format!("serve@sha256:{}=linux/amd64", "0123456789abcdef".repeat(4))),
            ("--iam", file(".json").display().to_string()),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, self.key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=4".to_owned()),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let emulator = Emulator::start(&file("-data"), &args);
        let proxy = Proxy::keeping(&emulator.endpoint);
        Place { name, account: account_id, partition: partition(region), emulator, proxy }
    }

    /// Runs a command in a folder as a user, whose token is exchanged for the role of the place.
    fn run(
        &self,
        folder: &Path,
        place: &Place,
        (role, user): (&str, &str),
        variables: &[(&str, &str)],
        words: &[&str],
    ) -> Ended {
        let (token, role) =
            (self.key.token(user), format!("arn:{}:iam::{}:role/{role}", place.partition, place.account));
        let own = [
            ("CI_ENVIRONMENT_NAME", place.name),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_PIPELINE_ID", "7"),
            ("CI_PIPELINE_CREATED_AT", "2026-11-29T04:52:33Z"),
            ("SAGEMAKER_ID_TOKEN", token.as_str()),
            ("AWS_ROLE_ARN", role.as_str()),
            ("PATH", path()),
        ];
        run(folder, &[&own[..], variables].concat(), &[words, &["--endpoint-url", &place.proxy.url]].concat())
    }
}

/// The data of a command that ended well.
fn data(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn the_same_bytes_go_from_one_account_to_the_next() {
    let Some(desk) = Desk::new() else { return };
    let project = desk.project();
    let deploy = |place: &Place, folder: &Path, variables: &[(&str, &str)], words: &[&str]| {
        let words = [&["endpoint", "deploy", "--output", "json"], words].concat();
        desk.run(folder, place, ("deploy", "1"), variables, &words)
    };

    let dev = desk.place("dev", "000000000000", "us-east-1");
    let made = data(&desk.run(&project, &dev, ("package", "1"), &[], &["package", "--output", "json"]));
    let (name, sha256) = (made["name"].as_str().unwrap(), made["sha256"].as_str().unwrap());
    let tested =
        data(&deploy(&dev, &project, &[("PACKAGE_SHA256", sha256)], &["--package", made["uri"].as_str().unwrap()]));
    assert_eq!((&tested["outcome"], &tested["package"]["sha256"]), (&json!("created"), &made["sha256"]));
    assert_eq!(dev.emulator.decided("deploy")["denied"], json!({}));
    drop(dev);

    // A job of the next environment has the package alone.
    let prod = desk.place("prod", "111111111111", REGION);
    let job = desk.path().join("job");
    std::fs::create_dir(&job).unwrap();
    std::fs::copy(project.join(name), job.join(name)).unwrap();
    // Variables of the first jobs; the version is none of this account.
    let variables = [
        ("PACKAGE_SHA256", sha256),
        ("MODEL_PACKAGE_ARN", "arn:aws:sagemaker:us-east-1:000000000000:model-package/wine/1"),
    ];
    let promote = |words: &[&str]| deploy(&prod, &job, &variables, &[&["--package", name], words].concat());
    let waits = promote(&[]);
    assert_eq!(waits.code, 30, "{}", waits.stderr);
    let arn = "arn:aws-us-gov:sagemaker:us-gov-west-1:111111111111:model-package/wine/1";
    let command = format!("sagemaker-executor model approve --model-package {arn} --environment prod");
    assert!(waits.stderr.contains(&command), "{}", waits.stderr);
    let words: Vec<_> = command.split(' ').skip(1).collect();
    let approved = desk.run(&project, &prod, ("approve", "2"), &[], &words);
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    let live = data(&promote(&[]));
    assert_eq!((&live["outcome"], &live["model_package_arn"]), (&json!("created"), &json!(arn)));
    for key in ["sha256", "model_sha256", "commit", "name"] {
        assert_eq!(live["package"][key], tested["package"][key]);
    }

    let objects = prod.emulator.objects();
    assert!(objects.contains(&format!("packages/{sha256}/{name}")), "{objects:?}");
    assert_eq!(data(&promote(&[]))["outcome"], "unchanged");
    // From the environment's own bucket, whose region nothing names.
    let stored = deploy(&prod, &job, &[], &["--package", live["package"]["uri"].as_str().unwrap()]);
    assert_eq!(data(&stored)["outcome"], "unchanged");
    assert_eq!(prod.emulator.objects(), objects);
    assert_eq!(prod.emulator.requests("CreateModelPackage"), 1);
    for role in ["deploy", "approve"] {
        let arn = format!("arn:aws-us-gov:iam::111111111111:role/{role}");
        assert_eq!(prod.emulator.decided_of(&arn)["denied"], json!({}), "{role}");
    }

    // The package has the manifest with both environments.
    assert_own_names(&prod.proxy.kept(), |first| first.starts_with("PUT ") && first.contains("/packages/"));

    let mut bytes = std::fs::read(job.join(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(job.join(name), bytes).unwrap();
    let tampered = promote(&[]);
    assert_eq!(tampered.code, 1, "{}", tampered.stderr);
    let both = promote(&["--manifest", "manifest.json"]);
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "{} {}", both.code, both.stderr);
}
