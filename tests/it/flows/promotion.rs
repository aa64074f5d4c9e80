//! The demonstration `promotion`: one package in two accounts and two regions, each an emulator of its own. A project trains, tests and
//! releases in the first; another one, which alone reaches the second, deploys what was released.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::event::{Event, ProjectName};
use super::example::{changed, made};
use super::pipeline::Pipeline;
use super::schedule::JobState;
use super::site::{
    DIGEST, NAME, Project, ProjectVariable, SERVING_ROLE, Site, SiteEnvironment, endpoints, files_below,
    remove_endpoints,
};
use super::training::{commit, sha256};
use super::{play, show};
use crate::support::driver::write_program;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab::Repository;
use crate::support::gitlab_api::PROJECT_PATH;
use crate::support::id_tokens;
use crate::support::job::Variable;
use crate::support::program::executor;
use crate::support::serving::serving_role;
use crate::support::shipped_roles::shipped_role_with;

/// The account and the region of production.
const ACCOUNT: &str = "111111111111";
const REGION: &str = "eu-west-1";
/// The project that deploys to production.
const PRODUCTION: ProjectName = ProjectName { number: 43, path: "group/wine-production" };
const ENDPOINT: &str = "wine-production";
const DEPLOY_ROLE: &str = "deploy";
const APPROVE_ROLE: &str = "approve";
/// Policies of the role that deploys, as the example's README lists them.
const DEPLOYS: [(&str, &str); 4] = [
    ("deploy", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy.json")),
    ("deploy-package", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy-package.json")),
    ("test", include_str!("../../../runner-config/iam/lifecycle/endpoint-test.json")),
    ("status", include_str!("../../../runner-config/iam/lifecycle/endpoint-status.json")),
];
const APPROVES: [(&str, &str); 1] =
    [("approve", include_str!("../../../runner-config/iam/lifecycle/model-approve.json"))];
/// The program in the jobs' image: with a role of production, AWS is its emulator.
const COMMAND: &str = "#!/bin/sh
case \"${AWS_ROLE_ARN:-}\" in
  *::ACCOUNT:*) exec PROGRAM \"$@\" --endpoint-url ADDRESS ;;
esac
exec FIRST \"$@\"
";

/// The release of the first project.
struct Released {
    /// Name and version in the package registry.
    package: String,
    version: String,
    sha256: String,
    model_package: String,
    commit: String,
}

/// The account of production, and the project that reaches it.
struct Production<'a> {
    site: &'a Site,
    emulator: Emulator,
    repository: Repository,
    variables: Vec<ProjectVariable>,
    environments: RefCell<BTreeMap<String, SiteEnvironment>>,
    _folder: tempfile::TempDir,
}

fn whole(site: &Site) {
    let projects = made("promotion");
    let released = released(site, &files_below(&projects.path().join("wine"), ""));
    let production = Production::new(site);
    let files = files_below(&projects.path().join("wine-production"), "");
    commit_to(&production.repository, &files);
    let sha = commit_to(&production.repository, &naming(&files, &released));

    let mut first = production.pipeline(&sha);
    let version = approved_and_deployed(&mut first, &released);
    let (_, body) = production.emulator.invoke(
        ENDPOINT,
        "text/csv",
        "14.23,1.71,2.43,15.6,127,2.8,3.06,0.28,2.29,5.64,1.04,3.92,1065",
    );
    assert!(body.contains("class_0"), "{body}");
    let audit = audit(&production, &first, &released, &version);

    let before = production.state();
    let first_account = site.emulator().all_requests();
    let mut second = production.pipeline(&sha);
    second.run().play("production-plan", &[]).play("production-deploy", &[]);
    show::pipeline(&second);
    assert_eq!(second.in_state(JobState::Failed), Vec::<&str>::new(), "{}", second.told());
    assert_eq!(second.schedule.state("production-plan"), JobState::Success, "{}", second.told());
    second.job("production-deploy").outcome.shows("unchanged");
    let writes = production.writes_since(&before);
    assert_eq!(writes, Vec::<String>::new(), "the second run writes nothing");
    assert_eq!(site.emulator().all_requests(), first_account, "nothing is asked of the first account");

    for role in [DEPLOY_ROLE, APPROVE_ROLE] {
        let decided = production.emulator.decided_of(&format!("arn:aws:iam::{ACCOUNT}:role/{role}"));
        assert_eq!(decided["denied"], json!({}), "{role}");
    }
    show::table(
        "what exists",
        &[
            ["release".to_owned(), format!("{} of {PROJECT_PATH} at {}", released.version, released.commit)],
            ["package".to_owned(), format!("sha256:{}", released.sha256)],
            [
                "first account".to_owned(),
                format!("{}, endpoint {}", released.model_package, site.endpoints().join(", ")),
            ],
            ["production".to_owned(), format!("{version}, endpoint {}", endpoints(&production.emulator).join(", "))],
            ["second run".to_owned(), "0 requests that write in either account".to_owned()],
        ],
    );
    show::table("audit", &audit);
    remove_endpoints(&production.emulator);
}

/// The pipeline of the first project: its package is tested in the first account, and released.
fn released(site: &Site, files: &[(String, String)]) -> Released {
    let sha = commit(site, "main", files);
    let mut pipeline = site.pipeline(&Event::Push { branch: "main" }, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("development-test"), JobState::Success, "{}", pipeline.told());
    let release = pipeline.job("stable-release");
    let stored = site.api.files();
    let [file] = stored.as_slice() else { panic!("{stored:?}") };
    assert_eq!(site.api.releases().len(), 1);
    let model_package = pipeline.job("stable-register").variable("MODEL_PACKAGE_ARN").to_owned();
    assert!(model_package.starts_with("arn:aws:sagemaker:us-east-1:000000000000:"), "{model_package}");
    assert_eq!(pipeline.job("development-deploy").variable("PACKAGE_SHA256"), file.sha256);
    Released {
        package: release.variable("PACKAGE_REGISTRY_NAME").to_owned(),
        version: release.variable("PACKAGE_REGISTRY_VERSION").to_owned(),
        sha256: file.sha256.clone(),
        model_package,
        commit: sha,
    }
}

/// `release.json` of the example, which names this release.
fn naming(files: &[(String, String)], released: &Released) -> Vec<(String, String)> {
    let version = changed(files, "release.json", "stable-20261129T045233Z", &released.version);
    assert!(version[0].1.contains(&format!("\"{}\"", released.package)), "{version:?}");
    changed(&version, "release.json", &"0".repeat(64), &released.sha256)
}

fn commit_to(repository: &Repository, files: &[(String, String)]) -> String {
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    repository.commit("main", &files)
}

/// The first deployment waits for an approval of somebody else; then the bytes that were tested are deployed. The version's ARN.
fn approved_and_deployed(pipeline: &mut Pipeline<'_>, released: &Released) -> String {
    pipeline.run().play("production-plan", &[]);
    assert_eq!(pipeline.schedule.state("production-plan"), JobState::Warning, "{}", pipeline.told());
    let fetched = pipeline.job("fetch");
    assert_eq!(sha256(&fetched.package()), released.sha256);
    pipeline.play("production-deploy", &[]);
    let waits = &pipeline.job("production-deploy").outcome;
    let version = format!("arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{NAME}/1");
    waits.failed("script_failure", Some(30)).shows(&version);
    assert_eq!(pipeline.schedule.state("production-test"), JobState::Skipped);

    let chosen = [("MODEL_PACKAGE_ARN", version.as_str()), ("REASON", "tested in development")];
    // The user who deploys approves nothing.
    pipeline.play("production-approve", &chosen);
    pipeline.job("production-approve").outcome.failed("script_failure", Some(30));
    pipeline.by("2").retry_with("production-approve", &chosen);
    pipeline.by("1").retry("production-deploy");
    show::pipeline(pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    for job in ["production-approve", "production-test", "production-audit"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Success, "{}", pipeline.told());
    }
    let deployed = pipeline.job("production-deploy");
    assert_eq!(deployed.variable("PACKAGE_SHA256"), released.sha256);
    assert_eq!(deployed.variable("MODEL_PACKAGE_ARN"), version);
    version
}

/// Reads the deployment back from the account of production: its record, the approval, and the tags of the endpoint's configuration.
fn audit(production: &Production<'_>, pipeline: &Pipeline<'_>, released: &Released, version: &str) -> Vec<[String; 2]> {
    let emulator = &production.emulator;
    let describe = json!({"ModelPackageName": version});
    let registered = emulator.call("SageMaker.DescribeModelPackage", &describe);
    assert_eq!(registered["ModelApprovalStatus"], "Approved");
    let metadata = registered["CustomerMetadataProperties"].as_object().expect("a version has metadata");
    let approvals: Vec<_> = metadata.iter().filter(|(key, _)| key.starts_with("approval-")).collect();
    let by_another = approvals.iter().find(|(by, _)| by.starts_with("approval-2@"));
    let (by, approval) = by_another.unwrap_or_else(|| panic!("{registered}"));
    let approval = approval.as_str().unwrap();
    assert!(approval.contains("user2") && approval.contains("tested in development"), "{approval}");

    let configuration = pipeline.job("production-deploy").variable("ENDPOINT_CONFIG_NAME");
    let arn = format!("arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint-config/{configuration}");
    let tags = emulator.call("SageMaker.ListTags", &json!({"ResourceArn": arn}));
    let tag = |name: &str| {
        let all = tags["Tags"].as_array().into_iter().flatten();
        let found = all.into_iter().find(|tag| tag["Key"] == format!("sagemaker-executor:{name}"));
        found.and_then(|tag| tag["Value"].as_str()).unwrap_or_else(|| panic!("no {name}: {tags}")).to_owned()
    };
    assert_eq!((tag("package-sha256"), tag("commit")), (released.sha256.clone(), released.commit.clone()));

    let keys: Vec<_> = emulator.objects().into_iter().filter(|key| key.contains("/deployments/")).collect();
    let place = format!("{NAME}/deployments/{ENDPOINT}/");
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with(&place)), "{keys:?}");
    let mut rows = vec![
        ["approved by".to_owned(), format!("{by}: {approval}")],
        ["configuration".to_owned(), format!("{configuration}, tag package-sha256 {}", tag("package-sha256"))],
        ["its commit".to_owned(), tag("commit")],
    ];
    let record = std::fs::read_to_string(emulator.object_file(&keys[0])).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["user"]["login"], &record["user"]["is_proven"]), (&json!("user1"), &json!(true)), "{record}");
    rows.extend(keys.into_iter().map(|key| ["record".to_owned(), key]));
    let told: Value = serde_json::from_slice(&pipeline.job("production-audit").file("audit.json")).unwrap();
    let endpoint = &told["endpoints"][0];
    assert_eq!(endpoint["package"]["sha256"], json!(released.sha256), "{told}");
    let deployments = endpoint["deployments"].as_array().expect("the endpoint has deployments");
    let [deployment] = deployments.as_slice() else { panic!("{told}") };
    assert_eq!((&deployment["user"], &deployment["outcome"]), (&json!("user1"), &json!("succeeded")), "{told}");
    let text = |key: &str| deployment[key].as_str().unwrap_or_else(|| panic!("no {key}: {told}")).to_owned();
    let facts = ["at", "user", "reason", "version", "package", "config", "outcome"]
        .map(|key| [format!("deployment: {key}"), text(key)]);
    rows.extend(facts);
    rows
}

impl<'a> Production<'a> {
    fn new(site: &'a Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("account.json"), json!({"RoleDetailList": roles()}).to_string()).unwrap();
        let args = [
            ("--account", ACCOUNT.to_owned()),
            ("--image", format!("{}=overlay:{}", image(), site.serving_overlay().display())),
            ("--ecr", format!("serve@{DIGEST}=linux/amd64")),
            ("--iam", file("account.json").display().to_string()),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, site.key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=4".to_owned()),
            ("--deployment-wait-scale", "0.01".to_owned()),
            ("--alarm-period-scale", "0.01".to_owned()),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let emulator = Emulator::start(&file("data"), &args).in_region(REGION);
        reach(site, &emulator);
        let variables = variables(site);
        let repository = site.world.repository(PRODUCTION.path);
        Self { site, emulator, repository, variables, environments: RefCell::default(), _folder: folder }
    }

    fn pipeline(&self, sha: &str) -> Pipeline<'_> {
        let project = Project {
            name: PRODUCTION,
            repository: &self.repository,
            variables: &self.variables,
            environments: &self.environments,
        };
        self.site.pipeline_of(project, &Event::Push { branch: "main" }, sha)
    }

    /// Objects, and requests so far.
    fn state(&self) -> (Vec<String>, BTreeMap<String, u64>) {
        (self.emulator.objects(), self.emulator.all_requests())
    }

    /// Operations that may write and were called since, and objects that are new or gone.
    fn writes_since(&self, (objects, requests): &(Vec<String>, BTreeMap<String, u64>)) -> Vec<String> {
        const READS: [&str; 6] = ["AssumeRole", "Describe", "Get", "Head", "InvokeEndpoint", "List"];
        let (now, called) = self.state();
        let more = called.into_iter().filter(|(name, count)| requests.get(name) != Some(count)).map(|(name, _)| name);
        let more: Vec<_> = more.collect();
        assert!(more.iter().any(|name| name == "DescribeEndpoint"), "the second run looks at the endpoint: {more:?}");
        let changed =
            now.iter().filter(|key| !objects.contains(key)).chain(objects.iter().filter(|key| !now.contains(key)));
        let changed: Vec<_> = changed.cloned().collect();
        more.into_iter().filter(|name| !READS.iter().any(|read| name.starts_with(read))).chain(changed).collect()
    }
}

/// Lets the jobs' program reach the second account too.
fn reach(site: &Site, emulator: &Emulator) {
    let programs = site.world.dirs.bin();
    let (program, first) = (programs.join("sagemaker-executor"), programs.join("first-account"));
    std::fs::rename(&program, &first).unwrap();
    let words = [
        ("ACCOUNT", ACCOUNT),
        ("PROGRAM", &executor().to_string_lossy()),
        ("ADDRESS", &emulator.endpoint),
        ("FIRST", &first.to_string_lossy()),
    ];
    let text = words.iter().fold(COMMAND.to_owned(), |text, (word, value)| text.replace(word, value));
    write_program(&program, &text);
}

fn image() -> String {
    format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/serve@{DIGEST}")
}

/// The roles of the second account: they trust the main branch of the project that deploys alone.
fn roles() -> Value {
    let roles = [
        shipped_role_with(DEPLOY_ROLE, &DEPLOYS),
        shipped_role_with(APPROVE_ROLE, &APPROVES),
        serving_role(SERVING_ROLE),
    ];
    let roles = json!(roles).to_string().replace("000000000000", ACCOUNT).replace("us-east-1", REGION);
    let roles = roles.replace(&format!(":s3:::{BUCKET}/"), &format!(":s3:::{BUCKET}/{NAME}/"));
    let roles = roles.replace(&format!("deployments/{NAME}/*"), &format!("deployments/{ENDPOINT}/*"));
    let roles = roles.replace(&format!("project_path:{PROJECT_PATH}:"), &format!("project_path:{}:", PRODUCTION.path));
    serde_json::from_str(&roles).unwrap()
}

/// The settings of the project that deploys, as the example's README names them.
fn variables(site: &Site) -> Vec<ProjectVariable> {
    let role = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/{name}");
    let image_of = |key: &str| {
        let known = site.variables.iter().find(|known| known.variable.key == key).expect("the site has images");
        known.variable.value.clone()
    };
    let everywhere = [
        ("LIFECYCLE_IMAGE", image_of("LIFECYCLE_IMAGE")),
        ("PYTHON_IMAGE", image_of("PYTHON_IMAGE")),
        ("LIFECYCLE_PACKAGE_PROJECT", PROJECT_PATH.to_owned()),
    ];
    let scoped = [
        ("SERVING_IMAGE", image()),
        ("AWS_ROLE_ARN", role(DEPLOY_ROLE)),
        ("LIFECYCLE_DECISION_ROLE_ARN", role(APPROVE_ROLE)),
        ("ENDPOINT_ROLE_ARN", role(SERVING_ROLE)),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCOUNT_ID", ACCOUNT.to_owned()),
        ("MODEL_BUCKET", BUCKET.to_owned()),
    ];
    let variable =
        |scope| move |(name, value): (&str, String)| ProjectVariable { variable: Variable::new(name, &value), scope };
    let of_aws = ["production", "approval"].into_iter().flat_map(|scope| scoped.clone().map(variable(scope)));
    everywhere.into_iter().map(variable("*")).chain(of_aws).collect()
}

#[test]
#[ignore = "takes half a minute of the machine: `.ci/demo promotion` runs it"]
fn promotion_demonstration() {
    play("promotion_demonstration", whole);
}
