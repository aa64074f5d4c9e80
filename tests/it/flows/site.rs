//! A GitLab with one project, its runners, and the account of AWS: what pipelines run in.
//!
//! Jobs with the tag `sagemaker` run under the custom executor, all others under the shell executor, which has no images: what a job's
//! image would have is on `PATH`. GitLab's API is a double at an address of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::compiled::{COMPONENTS, starts};
use super::event::{Event, MAIN_PROJECT, PipelineFacts, ProjectName};
use super::pipeline::Pipeline;
use crate::conformance::{can_run_containers, clients, skipped};
use crate::scenarios::sagemaker_registered::with_scikit_learn;
use crate::support::driver::{Driver, sagemaker_with, write_program};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab::Repository;
use crate::support::gitlab_api::{ACCESS_TOKEN, GitLabDouble, PROJECT_PATH};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::job::Variable;
use crate::support::program::executor;
use crate::support::serving::serving_role;
use crate::support::shipped_roles::{of_test_account, shipped_role_with};
use crate::support::waiting::find_program;
use crate::support::world::{Runner, Settings, World};
use crate::templates::compiler::Compiler;

/// The role that the jobs of the lifecycle assume, but for those of production.
pub(crate) const LIFECYCLE_ROLE: &str = "lifecycle";
/// The role of the environment of production, with the trust policy that `credentials trust-policy` makes.
pub(crate) const PRODUCTION_ROLE: &str = "production";
/// The role of the jobs of staging, of the branches `develop` and `main` alone.
pub(crate) const STAGING_ROLE: &str = "staging";
/// The policies that it has: those of the commands that pipelines call.
const POLICIES: [(&str, &str); 15] = [
    ("image-build", include_str!("../../../runner-config/iam/lifecycle/image-build.json")),
    ("image-scan", include_str!("../../../runner-config/iam/lifecycle/image-scan.json")),
    ("image-codebuild", include_str!("../../../runner-config/iam/lifecycle/image-build-codebuild.json")),
    ("register", include_str!("../../../runner-config/iam/lifecycle/model-register.json")),
    ("approve", include_str!("../../../runner-config/iam/lifecycle/model-approve.json")),
    ("latest", include_str!("../../../runner-config/iam/lifecycle/model-latest.json")),
    ("package", include_str!("../../../runner-config/iam/lifecycle/package.json")),
    ("report", include_str!("../../../runner-config/iam/lifecycle/report.json")),
    ("deploy", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy.json")),
    ("deploy-package", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy-package.json")),
    ("test", include_str!("../../../runner-config/iam/lifecycle/endpoint-test.json")),
    ("rollback", include_str!("../../../runner-config/iam/lifecycle/endpoint-rollback.json")),
    ("delete", include_str!("../../../runner-config/iam/lifecycle/endpoint-delete.json")),
    ("prune", include_str!("../../../runner-config/iam/lifecycle/prune.json")),
    ("status", include_str!("../../../runner-config/iam/lifecycle/endpoint-status.json")),
];
/// The role of serving containers, as the policies name it.
pub(super) const SERVING_ROLE: &str = "example-serving";
const HANDLER: &str = include_str!("../../../src/executor/lifecycle/init/endpoint/inference_handler.py");

/// The image of builds in CodeBuild, and the name of their role, as the policies have it.
pub(super) const BUILD_IMAGE: &str = "build-image";
const BUILD_ROLE: &str = "example-build";
const BUILD_POLICY: &str = include_str!("../../../runner-config/iam/lifecycle/codebuild-role.json");
const BUILD_TRUST: &str = include_str!("../../../runner-config/iam/lifecycle/codebuild-role-trust.json");

/// The account of a site, where it is no usual one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere {
    /// Changes a text with names of the partition `aws` for the account's own.
    pub(super) of_region: fn(&str) -> String,
    /// Changes the operator's file.
    pub(super) operator_file: fn(&str) -> String,
    /// `--deployment-wait-scale` of the emulator.
    pub(super) wait_scale: &'static str,
}

/// The partition `aws`, and an operator's file that allows everything.
pub(super) const USUAL: Elsewhere =
    Elsewhere { of_region: str::to_owned, operator_file: str::to_owned, wait_scale: "0.01" };

/// The name of the scaffold, and so of its group of models.
pub(super) const NAME: &str = "wine";
/// The program in the jobs' image: AWS is the emulator there. No variable may say so, because jobs have id tokens.
const COMMAND: &str = "#!/bin/sh
case \"$1 $2\" in
  release* | init* | 'package verify') exec PROGRAM \"$@\" ;;
esac
exec PROGRAM \"$@\" --endpoint-url ADDRESS
";

/// A variable of the project's settings.
#[derive(Debug, Clone)]
pub(super) struct ProjectVariable {
    pub(super) variable: Variable,
    /// `*`, the name of an environment, or its start with `*` behind.
    pub(super) scope: &'static str,
}

impl ProjectVariable {
    /// Whether a job with this environment gets it.
    pub(super) fn reaches(&self, environment: Option<&str>) -> bool {
        match (self.scope.strip_suffix('*'), environment) {
            (Some(""), _) => true,
            (Some(start), Some(name)) => name.starts_with(start),
            (None, Some(name)) => name == self.scope,
            (_, None) => false,
        }
    }
}

/// An environment of the project, as GitLab shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteEnvironment {
    pub(crate) tier: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) is_stopped: bool,
    /// The job that stops it.
    pub(crate) on_stop: Option<String>,
    pub(crate) auto_stop_in: Option<String>,
    /// Pipelines that deployed to it with success.
    pub(crate) deployments: Vec<u64>,
}

/// A project of the site, as its pipelines see it.
#[derive(Clone, Copy)]
pub(super) struct Project<'a> {
    pub(super) name: ProjectName,
    pub(super) repository: &'a Repository,
    pub(super) variables: &'a [ProjectVariable],
    pub(super) environments: &'a RefCell<BTreeMap<String, SiteEnvironment>>,
}

pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) api: GitLabDouble,
    pub(crate) repository: Repository,
    pub(super) compiler: Compiler,
    pub(super) key: TokenKey,
    pub(super) variables: Vec<ProjectVariable>,
    /// As [`Elsewhere::of_region`].
    pub(super) of_region: fn(&str) -> String,
    pub(super) environments: RefCell<BTreeMap<String, SiteEnvironment>>,
    /// GitLab has a deploy freeze.
    pub(super) is_frozen: Cell<bool>,
    /// The repository of the components.
    pub(super) components: PathBuf,
    next_pipeline: RefCell<u64>,
    folder: tempfile::TempDir,
}

impl Site {
    /// A site whose project of models has this name, and whose account is this one. `None` where a program is missing; a line says so.
    ///
    /// In an account that is not [`USUAL`] the requests of jobs are kept: [`World::proxy`] has them.
    pub(crate) fn new(test: &str, runner: Runner, name: &str, account: &Elsewhere) -> Option<Self> {
        let compiler = Compiler::find(test)?;
        let (Some(python), true, Some(_)) = (with_scikit_learn(), can_run_containers(), find_program(id_tokens::NEEDS))
        else {
            skipped(test, "python3 has no scikit-learn, bubblewrap creates no container, or openssl is not installed");
            return None;
        };
        if !has_tools(&python) {
            skipped(test, "python3 has no pytest, pytest-cov and ruff, which jobs would install");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = TokenKey::new(folder.path());
        let is_usual = (account.of_region)(USUAL_REGION) == USUAL_REGION;
        let driver = driver(folder.path(), &python, &key, name, account);
        let world = World::new(runner, driver, Settings { kept_requests: !is_usual, ..Settings::default() });
        let emulator = world.emulator.as_ref().expect("the driver needs AWS");
        let address = world.proxy.as_ref().map_or(&emulator.endpoint, |proxy| &proxy.url);
        let program = COMMAND.replace("PROGRAM", &executor().to_string_lossy()).replace("ADDRESS", address);
        write_program(&world.dirs.bin().join("sagemaker-executor"), &program);
        let repository = world.repository(PROJECT_PATH);
        let components = publish_components(&world);
        Some(Self {
            world,
            api: GitLabDouble::start(),
            repository,
            compiler,
            key,
            variables: variables(account.of_region),
            of_region: account.of_region,
            environments: RefCell::default(),
            is_frozen: Cell::default(),
            components,
            next_pipeline: RefCell::new(88_120),
            folder,
        })
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        self.world.emulator.as_ref().expect("the driver needs AWS")
    }

    /// Starts the pipeline of an event on a commit.
    #[track_caller]
    pub(crate) fn pipeline(&self, event: &Event, sha: &str) -> Pipeline<'_> {
        let (repository, variables) = (&self.repository, self.variables.as_slice());
        let main = Project { name: MAIN_PROJECT, repository, variables, environments: &self.environments };
        self.pipeline_of(main, event, sha)
    }

    /// [`Site::pipeline`] of any project.
    #[track_caller]
    pub(super) fn pipeline_of<'a>(&'a self, project: Project<'a>, event: &Event, sha: &str) -> Pipeline<'a> {
        let facts = self.facts(project.name, event, sha);
        project.repository.keep(&format!("refs/pipelines/{}", facts.id), sha);
        Pipeline::new(self, project, facts)
    }

    /// Tells whether an event on a commit that changes these files starts a pipeline, as the project's `workflow` says.
    #[track_caller]
    pub(super) fn starts_pipeline(&self, event: &Event, sha: &str, changed: &[&str]) -> bool {
        let facts = self.facts(MAIN_PROJECT, event, sha);
        let variables = self.of_rules(&facts, &self.variables);
        starts(&self.compiler, &self.repository, &self.components, &facts, &variables, changed)
    }

    /// Variables that rules may ask for.
    pub(super) fn of_rules(&self, facts: &PipelineFacts, of_project: &[ProjectVariable]) -> Vec<(String, String)> {
        let known = of_project.iter().filter(|known| known.scope == "*" && !known.variable.masked);
        let known = known.map(|known| (known.variable.key.clone(), known.variable.value.clone()));
        let all = facts.variables().into_iter().chain(self.freeze()).chain(known);
        // The compiler takes the last value of a name, and GitLab that of the pipeline.
        all.chain(facts.event.given()).collect()
    }

    /// The variable of a deploy freeze.
    pub(super) fn freeze(&self) -> Option<(String, String)> {
        self.is_frozen.get().then(|| ("CI_DEPLOY_FREEZE".to_owned(), "true".to_owned()))
    }

    fn facts(&self, project: ProjectName, event: &Event, sha: &str) -> PipelineFacts {
        let mut next = self.next_pipeline.borrow_mut();
        let id = *next;
        *next += 1;
        let minute = id % 60;
        PipelineFacts {
            id,
            project,
            event: event.clone(),
            sha: sha.to_owned(),
            created_at: format!("2026-11-29T04:{minute:02}:33Z"),
            server_url: self.world.gitlab.url().to_owned(),
            api_url: self.api.api_url(),
        }
    }

    /// The program of the serving image, over this machine's root.
    pub(super) fn serving_overlay(&self) -> PathBuf {
        self.folder.path().join("serve")
    }

    /// Names of the endpoints in the account.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        endpoints(self.emulator())
    }

    /// Deletes all endpoints, whose containers would stay.
    pub(crate) fn remove_endpoints(&self) {
        remove_endpoints(self.emulator());
    }

    pub(crate) fn environment(&self, name: &str) -> Option<SiteEnvironment> {
        self.environments.borrow().get(name).cloned()
    }

    /// Versions of a model in the registry, the first one first.
    pub(crate) fn versions(&self, group: &str) -> Vec<Value> {
        let groups = self.emulator().call("SageMaker.ListModelPackageGroups", &json!({"NameContains": group}));
        if groups["ModelPackageGroupSummaryList"].as_array().is_none_or(Vec::is_empty) {
            return Vec::new();
        }
        let request = json!({"ModelPackageGroupName": group, "SortBy": "CreationTime", "SortOrder": "Ascending"});
        let mut list = self.emulator().call("SageMaker.ListModelPackages", &request);
        list["ModelPackageSummaryList"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// Names of the endpoints in an account.
pub(super) fn endpoints(emulator: &Emulator) -> Vec<String> {
    let list = emulator.call("SageMaker.ListEndpoints", &json!({}));
    let all = list["Endpoints"].as_array().into_iter().flatten();
    all.filter_map(|endpoint| endpoint["EndpointName"].as_str().map(str::to_owned)).collect()
}

/// Deletes all endpoints of an account, whose containers would stay.
pub(super) fn remove_endpoints(emulator: &Emulator) {
    for name in endpoints(emulator) {
        emulator.call("SageMaker.DeleteEndpoint", &json!({"EndpointName": name}));
    }
}

/// Whether the packages that the jobs would install are there.
fn has_tools(python: &Path) -> bool {
    let tried = Command::new(python).args(["-c", "import pytest, pytest_cov, ruff"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// The driver with the images of the project in its emulator, and the roles of its jobs and endpoints in the account.
fn driver(folder: &Path, python: &Path, key: &TokenKey, name: &str, account: &Elsewhere) -> Driver {
    let python = python.display();
    // This machine's root, with a program of its own before the others.
    let overlay = |name: &str, files: &[(&str, &str)]| {
        let root = folder.join(name);
        std::fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        for (file, text) in files {
            write_program(&root.join("usr/local/bin").join(file), text);
        }
        root.display().to_string()
    };
    let train = overlay("train", &[("python3", &format!("#!/bin/sh\nexec {python} \"$@\"\n"))]);
    let client = clients().map(|clients| format!("#!/bin/sh\nexec {}/python3 -m awscli \"$@\"\n", clients.display()));
    let build = overlay("build", &[("aws", &client.unwrap_or_default())]);
    let start = format!("#!/bin/sh\nexec {python} /usr/local/bin/inference_handler.py \"$@\"\n");
    let serve = overlay("serve", &[("serve", &start), ("inference_handler.py", HANDLER)]);
    let oidc = format!("{}={}", id_tokens::ISSUER, key.jwks.display());
    let findings = folder.join("findings.json");
    std::fs::write(&findings, FINDINGS).unwrap();
    let findings = format!("{name}-serving={}", findings.display());
    let mut driver = sagemaker_with(
        &[
            ["--oidc", &oidc],
            ["--image", &format!("{}=overlay:{train}", image("train"))],
            ["--image", &format!("{}=overlay:{serve}", image("serve"))],
            ["--image", &format!("{BUILD_IMAGE}=overlay:{build}")],
            ["--image-findings", &findings],
            ["--ecr", &format!("serve@{DIGEST}=linux/amd64")],
            ["--quota", "endpoint:ml.m5.large=8"],
            ["--deployment-wait-scale", account.wait_scale],
            ["--alarm-period-scale", "0.01"],
        ]
        .concat(),
        "",
    );
    driver.roles = roles(name);
    move_to(account, &mut driver);
    driver
}

/// Gives the driver and its emulator the names of the account.
fn move_to(account: &Elsewhere, driver: &mut Driver) {
    let Elsewhere { of_region, operator_file, .. } = account;
    driver.operator_config = operator_file(&of_region(&driver.operator_config));
    driver.roles = serde_json::from_str(&of_region(&json!(driver.roles).to_string())).unwrap();
    for argument in driver.emulator.iter_mut().flatten() {
        *argument = of_region(argument);
    }
}

/// The findings of a scan in an image that the project builds for its endpoint.
const FINDINGS: &str = r#"{"findings": [{"name": "CVE-2026-0001", "severity": "HIGH",
    "attributes": [{"key": "package_name", "value": "libexample"}, {"key": "package_version", "value": "1.0"}]}], "duration_ms": 100}"#;

/// The region of the usual account.
const USUAL_REGION: &str = "us-east-1";

/// The digest of all images that no job builds.
pub(super) const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An image of the registry, by its digest.
fn image(name: &str) -> String {
    format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/{name}@{DIGEST}")
}

/// The trust policy of a role for these branches.
fn trust(branches: &[&str]) -> Value {
    let mut program = Command::new(executor());
    let words = ["credentials", "trust-policy", "--account", "000000000000", "--project", PROJECT_PATH];
    let words =
        words.into_iter().chain(branches.iter().flat_map(|branch| ["--branch", branch])).chain(["--issuer-url"]);
    program.args(words).arg(format!("https://{}", id_tokens::ISSUER)).env_clear().current_dir("/");
    let ended = program.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// The role of builds in CodeBuild.
pub(super) fn build_role() -> String {
    format!("arn:aws:iam::000000000000:role/{BUILD_ROLE}")
}

/// The roles with the shipped policies, for jobs of every branch of the project, for staging and for production; and that of the containers.
fn roles(name: &str) -> Vec<Value> {
    let build = json!({
        "RoleName": BUILD_ROLE,
        "RoleId": "AROABUILD",
        "Arn": build_role(),
        "AssumeRolePolicyDocument": of_test_account(BUILD_TRUST),
        "RolePolicyList": [{"PolicyName": BUILD_ROLE, "PolicyDocument": of_test_account(BUILD_POLICY)}],
    });
    let roles = json!([
        shipped_role_with(LIFECYCLE_ROLE, &POLICIES),
        serving_role(SERVING_ROLE),
        shipped_role_with(PRODUCTION_ROLE, &POLICIES),
        build,
        shipped_role_with(STAGING_ROLE, &POLICIES),
    ])
    .to_string();
    // The manifest has the name of the project as prefix of all objects, and an endpoint in each environment.
    let roles = roles.replace(&format!(":s3:::{BUCKET}/"), &format!(":s3:::{BUCKET}/{name}/"));
    let roles = roles.replace(&format!("deployments/{NAME}/*"), &format!("deployments/{name}-*"));
    let roles = roles.replace("repository/example-image", &format!("repository/{name}-*"));
    let roles = roles.replace("/example-prefix/", "/").replace("example-group", "*");
    let roles = roles.replace("\"example-environment\"", "[\"development\",\"staging\",\"stable\",\"production\"]");
    let mut roles: Vec<Value> = serde_json::from_str(&roles).unwrap();
    let conditions = &mut roles[0]["AssumeRolePolicyDocument"]["Statement"][0]["Condition"];
    let equals = conditions["StringEquals"].as_object_mut().expect("the trust policy has conditions");
    let of_subject = format!("{}:sub", id_tokens::ISSUER);
    equals.remove(&of_subject).expect("the trust policy names a branch");
    conditions["StringLike"] = json!({of_subject: format!("project_path:{PROJECT_PATH}:*")});
    roles[2]["AssumeRolePolicyDocument"] = trust(&["main"]);
    roles[4]["AssumeRolePolicyDocument"] = trust(&["develop", "main"]);
    roles
}

/// The project's settings, as the README of the scaffolds names them.
fn variables(of_region: fn(&str) -> String) -> Vec<ProjectVariable> {
    let role = format!("arn:aws:iam::000000000000:role/{LIFECYCLE_ROLE}");
    let everywhere = [
        ("LIFECYCLE_IMAGE", image("lifecycle")),
        ("PYTHON_IMAGE", image("python")),
        ("TRAINING_IMAGE", image("train")),
        // The runner has no network: what `pip` would install is there.
        ("PIP_NO_INDEX", "1".to_owned()),
        ("OWNER", "ml".to_owned()),
    ];
    // Jobs without an environment check the manifest with its own defaults, of which the image and the region fit together.
    let serving = (image("serve"), format!("arn:aws:iam::000000000000:role/{SERVING_ROLE}"));
    let of_aws = [
        ("SERVING_IMAGE", serving.0.as_str()),
        ("AWS_ROLE_ARN", role.as_str()),
        ("ENDPOINT_ROLE_ARN", serving.1.as_str()),
        ("AWS_REGION", USUAL_REGION),
        ("AWS_ACCOUNT_ID", "000000000000"),
        ("MODEL_BUCKET", BUCKET),
    ];
    let everywhere =
        everywhere.iter().map(|(name, value)| ProjectVariable { variable: Variable::new(name, value), scope: "*" });
    let scoped = ["development", "staging", "stable", "production", "review/*"]
        .into_iter()
        .flat_map(|scope| of_aws.map(|(name, value)| ProjectVariable { variable: Variable::new(name, value), scope }));
    let scoped = scoped.map(|known| {
        let of_scope = match known.scope {
            "review/*" => return known,
            "production" => PRODUCTION_ROLE,
            _ => STAGING_ROLE,
        };
        match known.variable.key.as_str() {
            "AWS_ROLE_ARN" => {
                let role = role.replace(LIFECYCLE_ROLE, of_scope);
                ProjectVariable { variable: Variable::new("AWS_ROLE_ARN", &role), ..known }
            }
            _ => known,
        }
    });
    let token = Variable::new("GITLAB_TOKEN", ACCESS_TOKEN).masked();
    let all = everywhere.chain(scoped).chain([ProjectVariable { variable: token, scope: "review/_candidates" }]);
    let moved = |mut known: ProjectVariable| {
        known.variable.value = of_region(&known.variable.value);
        known
    };
    all.map(moved).collect()
}

/// Puts the components into a repository of this GitLab, under a tag.
fn publish_components(world: &World) -> PathBuf {
    let repository = world.repository(COMPONENTS);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci-templates");
    let files = files_below(&root, "");
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let sha = repository.commit("main", &files);
    repository.keep("refs/tags/1.0.0", &sha);
    repository.allow_filters();
    // Clients add `.git`.
    world.gitlab.repositories().join(COMPONENTS)
}

/// Files of a folder, by their paths.
pub(super) fn files_below(folder: &Path, prefix: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path(), &format!("{name}/")));
        } else {
            found.push((name, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}
