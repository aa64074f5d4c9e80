//! Whole pipelines of the components: compiled, and run job by job with the program itself, the emulator as AWS, and a double of GitLab's
//! API. In one of them a training job of the emulator trains, by the custom executor; in the others a shell does.

mod running;
mod schedule;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{can_run_containers, shown, skipped};
use crate::support::driver;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab::Artifact;
use crate::support::gitlab_api::{ACCESS_TOKEN, GitLabDouble, JOB_TOKEN, PROJECT_PATH};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::job::{Artifacts, Job};
use crate::support::program::executor;
use crate::support::serving::{serving_image, serving_role};
use crate::support::shipped_roles::{of_test_account, shipped_role};
use crate::support::waiting::{enter_gate, find_program, search_path};
use crate::support::world::{Runner, Settings, World};
use crate::templates::compiler::{Compiler, Project};
use crate::templates::yaml::{documents, texts};
use running::{Left, Pipeline};
use schedule::JobState;

/// Trains a model that answers with this text, and has this accuracy.
const TRAINING: &str = "import json, os\nos.makedirs('model', exist_ok=True)\nANSWER, ACCURACY = 'good', 0.95\n\
                        json.dump({'accuracy': ACCURACY}, open('metrics.json', 'w'))\n\
                        json.dump({'answer': ANSWER}, open('model/model.json', 'w'))\n";
const HANDLER: &str = r#"
import json, os
def model_fn(folder):
    return json.load(open(os.path.join(folder, "model.json")))["answer"]
def input_fn(body, content_type):
    return body
def predict_fn(request, model):
    return model
def output_fn(prediction):
    return prediction.encode(), "text/plain"
"#;
/// `python3` without the packages that lints and tests install.
const PYTHON: &str =
    "#!/bin/sh\ncase \"$1 $2\" in\n  '-m pip' | '-m ruff' | '-m pytest') exit 0 ;;\nesac\nexec PYTHON \"$@\"\n";
/// The program with the emulator as AWS. With an id token the address may only be in the command line.
const PROGRAM: &str = "#!/bin/sh\ncase \"$1\" in\n  model | endpoint | package | report) exec PROGRAM \"$@\" --endpoint-url ENDPOINT ;;\nesac\n\
                       exec PROGRAM \"$@\"\n";
/// The policies of the one role of all jobs.
const POLICIES: [&str; 10] = [
    include_str!("../../runner-config/iam/lifecycle/model-register.json"),
    include_str!("../../runner-config/iam/lifecycle/model-approve.json"),
    include_str!("../../runner-config/iam/lifecycle/model-latest.json"),
    include_str!("../../runner-config/iam/lifecycle/endpoint-deploy.json"),
    include_str!("../../runner-config/iam/lifecycle/endpoint-deploy-package.json"),
    include_str!("../../runner-config/iam/lifecycle/endpoint-test.json"),
    include_str!("../../runner-config/iam/lifecycle/endpoint-rollback.json"),
    include_str!("../../runner-config/iam/lifecycle/endpoint-delete.json"),
    include_str!("../../runner-config/iam/lifecycle/package.json"),
    include_str!("../../runner-config/iam/lifecycle/report.json"),
];

/// A project that includes a flow, with its GitLab and its account of AWS.
struct Desk {
    emulator: Emulator,
    gitlab: GitLabDouble,
    key: TokenKey,
    folder: TempDir,
    compiler: Compiler,
}

impl Desk {
    fn new(test: &str) -> Option<Self> {
        let compiler = Compiler::find(test)?;
        let needs = ["python3", "git", id_tokens::NEEDS];
        if !can_run_containers() || needs.iter().any(|program| find_program(program).is_none()) {
            skipped(test, &format!("bubblewrap creates no container, or one of {needs:?} is not there"));
            return None;
        }
        let python = find_program("python3").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["bin", "project", "home"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("account.json"), account()).unwrap();
        let key = TokenKey::new(folder.path());
        let args = [
            ("--image", serving_image(&path("image"), &image(), &python, HANDLER)),
            ("--ecr", format!("serve@sha256:{}=linux/amd64", "0123456789abcdef".repeat(4))),
            ("--iam", path("account.json").display().to_string()),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=8".to_owned()),
            ("--deployment-wait-scale", "0.01".to_owned()),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let emulator = Emulator::start(&path("data"), &args);
        let program = PROGRAM.replace("PROGRAM", executor().to_str().unwrap()).replace("ENDPOINT", &emulator.endpoint);
        let python = PYTHON.replace("PYTHON", python.to_str().unwrap());
        for (name, text) in [("sagemaker-executor", program), ("python3", python)] {
            let path = path("bin").join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let desk = Self { emulator, gitlab: GitLabDouble::start(), key, folder, compiler };
        desk.git(&["init", "--quiet", "--initial-branch", "main"]);
        let sample = json!([{"content_type": "text/plain", "body": "x", "expect": {"contains": "good"}}]);
        desk.commit(&[
            ("manifest.json", &manifest().to_string()),
            ("samples.json", &sample.to_string()),
            ("training_script.py", TRAINING),
            ("requirements.txt", ""),
            (".gitignore", "/model/\n/metrics.json\n"),
        ]);
        Some(desk)
    }

    fn project(&self) -> std::path::PathBuf {
        self.folder.path().join("project")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(self.project()).env_clear().env("PATH", search_path());
        git.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "n").env(format!("GIT_{who}_EMAIL"), "n@example.com");
        }
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(self.project().join(name), text).unwrap();
        }
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--message", "Change a number"]);
    }

    /// Compiles and runs a pipeline of the flow, with what GitLab sets for this kind of it. It is made at this minute.
    #[track_caller]
    fn pipeline(&self, flow: &str, of: &[(&str, &str)], minute: u32) -> Pipeline {
        let mut pipeline = self.compiled(flow, of, minute);
        self.run(&mut pipeline, "1");
        pipeline
    }

    #[track_caller]
    fn compiled(&self, flow: &str, of: &[(&str, &str)], minute: u32) -> Pipeline {
        let project = Project::new(&self.compiler, &[]);
        let text = json!({"include": [{"local": format!("/templates/{flow}/template.yml")}]}).to_string();
        let whole = documents(&project.whole(&text), flow).remove(0);
        let listed = project.jobs(&text, &of.iter().copied().collect());
        let Value::Object(jobs) = whole else { panic!("{flow} is no pipeline") };
        let mut predefined = self.predefined(of);
        predefined.insert("CI_PIPELINE_CREATED_AT".to_owned(), format!("2026-11-29T04:{minute}:33Z"));
        predefined.insert("CI_PIPELINE_ID".to_owned(), minute.to_string());
        Pipeline::new(jobs, &listed, &self.project(), predefined)
    }

    /// Runs what can run, as this user.
    fn run(&self, pipeline: &mut Pipeline, user: &str) {
        pipeline.run(&self.key.token(user), None);
    }

    fn predefined(&self, of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let (commit, path) = (self.git(&["rev-parse", "HEAD"]), self.path());
        let home = self.folder.path().join("home");
        let own = [
            ("PATH", path.as_str()),
            ("HOME", home.to_str().unwrap()),
            ("CI_COMMIT_SHA", &commit),
            ("CI_COMMIT_SHORT_SHA", &commit[..8]),
            ("CI_DEFAULT_BRANCH", "main"),
            ("CI_PROJECT_PATH", PROJECT_PATH),
            ("CI_PROJECT_URL", "https://gitlab.example.com/group/project"),
            ("CI_JOB_TOKEN", JOB_TOKEN),
            ("GITLAB_TOKEN", ACCESS_TOKEN),
            ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/pipeline"),
        ];
        let own = own.iter().chain(of).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let gitlab = self.gitlab.variables().map(|(name, value)| (name.to_owned(), value));
        own.filter(|(_, value)| !value.is_empty()).chain(gitlab).collect()
    }

    /// The stand-ins first.
    fn path(&self) -> String {
        format!("{}:{}", self.folder.path().join("bin").display(), search_path())
    }
}

fn image() -> String {
    format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4))
}

/// The role of the jobs, whose policies are those that are shipped, for the endpoints of this project; and that of the containers.
fn account() -> String {
    let mut role = shipped_role(("pipeline", POLICIES[0]));
    let more = POLICIES.iter().enumerate().skip(1);
    let more = more
        .map(|(at, policy)| json!({"PolicyName": format!("policy-{at}"), "PolicyDocument": of_test_account(policy)}));
    role["RolePolicyList"].as_array_mut().unwrap().extend(more);
    let account = json!({"RoleDetailList": [role, serving_role("example-serving")]});
    account.to_string().replace("deployments/wine/*", "deployments/wine-*")
}

fn manifest() -> Value {
    let environment = json!({
        "region": "us-east-1", "account": "000000000000", "bucket": BUCKET,
        "role": "arn:aws:iam::000000000000:role/example-serving",
    });
    json!({
        "model": {"group": "wine", "image": image(), "metrics": ["metrics.json"], "require": ["accuracy>=0.9"]},
        "endpoint": {
            "name": "wine-${CI_ENVIRONMENT_SLUG:dev}",
            "instances": {"type": "ml.m5.large"},
            "test": {"samples": ["samples.json"]},
        },
        "environments": {"staging": environment, "production": environment},
    })
}

const MAIN: [(&str, &str); 4] = [
    ("CI_PIPELINE_SOURCE", "push"),
    ("CI_COMMIT_BRANCH", "main"),
    ("CI_COMMIT_REF_NAME", "main"),
    ("CI_COMMIT_REF_SLUG", "main"),
];
const REQUEST: [(&str, &str); 8] = [
    ("CI_PIPELINE_SOURCE", "merge_request_event"),
    ("CI_COMMIT_BRANCH", ""),
    ("CI_COMMIT_REF_NAME", "better"),
    ("CI_COMMIT_REF_SLUG", "better"),
    ("CI_MERGE_REQUEST_IID", "12"),
    ("CI_MERGE_REQUEST_TITLE", "Change a number"),
    ("CI_MERGE_REQUEST_PROJECT_ID", "42"),
    ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "42"),
];

/// A merge request makes a candidate and a note, its merge a version in the registry and a release; a second run changes nothing.
#[test]
fn a_training_project_goes_from_a_candidate_to_a_release() {
    let Some(desk) = Desk::new("a_training_project_goes_from_a_candidate_to_a_release") else { return };
    desk.gitlab.merge_request(12);
    let candidate = desk.pipeline("training-project", &REQUEST, 52);
    assert_eq!(candidate.in_state(JobState::Failed), Vec::<&str>::new(), "{}", candidate.told());
    let name = &candidate.left["candidate-package"].variables["PACKAGE_NAME"];
    assert!(name.starts_with("candidate-PR-12-") && name.ends_with("-20261129T045233Z.zip"), "{name}");
    assert!(candidate.left["report"].files.contains_key("report.html"));
    assert_eq!(desk.gitlab.notes(12).len(), 1, "{}", candidate.left["report"].log);
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (0, 0));

    let stable = desk.pipeline("training-project", &MAIN, 53);
    assert_eq!(stable.in_state(JobState::Failed), Vec::<&str>::new(), "{}", stable.told());
    assert_eq!(stable.in_state(JobState::Manual), ["stable-approve", "stable-reject"]);
    let package = &stable.left["stable-package"].variables;
    assert_eq!(package["PACKAGE_NAME"], "stable-20261129T045333Z.zip");
    let releases = desk.gitlab.releases();
    assert_eq!(releases.len(), 1);
    assert_eq!((releases[0].tag.as_str(), releases[0].links.len()), ("stable-20261129T045333Z", 1));
    assert_eq!(releases[0].commit, desk.git(&["rev-parse", "HEAD"]));
    assert_eq!(desk.gitlab.files()[0].sha256, package["PACKAGE_SHA256"], "the bytes of the job are published");
    let version = &stable.left["stable-register"].variables["MODEL_PACKAGE_ARN"];
    assert!(version.ends_with("model-package/wine/1"), "{version}");

    let again = desk.pipeline("training-project", &MAIN, 53);
    assert_eq!(again.in_state(JobState::Failed), Vec::<&str>::new(), "{}", again.told());
    assert_eq!(&again.left["stable-register"].variables["MODEL_PACKAGE_ARN"], version);
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (1, 1));
}

/// A worse model stops at the gate: nothing is registered or released, and the report says why.
#[test]
fn a_worse_model_stops_at_the_gate() {
    let Some(desk) = Desk::new("a_worse_model_stops_at_the_gate") else { return };
    desk.commit(&[("training_script.py", &TRAINING.replace("0.95", "0.85"))]);
    let pipeline = desk.pipeline("training-project", &MAIN, 53);
    assert_eq!(pipeline.in_state(JobState::Failed), ["gate"], "{}", pipeline.told());
    assert_eq!(pipeline.left["gate"].code, 10);
    for job in ["stable-register", "stable-package", "stable-release"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Skipped, "{job}");
    }
    assert!(String::from_utf8_lossy(&pipeline.left["report"].files["report.html"]).contains("does not pass the gate"));
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (0, 0));
}

/// The package of a merge goes to staging, is tested and released there, and then to production, byte for byte, when a second person has
/// approved it and somebody starts the deployment. The Rollback button, which runs the deployment of an earlier pipeline again, brings the
/// old model back.
#[test]
fn a_full_project_goes_to_production_and_back() {
    let Some(desk) = Desk::new("a_full_project_goes_to_production_and_back") else { return };
    let mut first = desk.pipeline("full-project", &MAIN, 52);
    assert_eq!(first.in_state(JobState::Failed), Vec::<&str>::new(), "{}", first.told());
    for job in ["staging-test", "stable-release", "production-plan"] {
        assert_eq!(first.schedule.state(job), JobState::Succeeded, "{job}: {}", first.told());
    }
    assert_eq!(first.left["staging-deploy"].variables["ENDPOINT_NAME"], "wine-staging");
    let plan = &first.left["production-plan"];
    assert_eq!(
        (plan.code, serde_json::from_slice::<Value>(&plan.files["plan.json"]).is_ok()),
        (30, true),
        "{}",
        plan.log
    );
    // Not approved yet.
    first.schedule.play("production-deploy");
    desk.run(&mut first, "1");
    assert_eq!(first.left["production-deploy"].code, 30, "{}", first.told());
    first.schedule.play("stable-approve");
    desk.run(&mut first, "2");
    assert_eq!(first.left["stable-approve"].code, 0, "{}", first.told());
    let version = first.left["stable-register"].variables["MODEL_PACKAGE_ARN"].clone();
    first.schedule.retry("production-deploy");
    desk.run(&mut first, "1");
    assert_eq!(first.in_state(JobState::Failed), Vec::<&str>::new(), "{}", first.told());
    assert_eq!(first.schedule.state("production-test"), JobState::Succeeded, "{}", first.told());
    let in_production = |pipeline: &Pipeline| pipeline.left["production-deploy"].variables.clone();
    assert_eq!(in_production(&first)["MODEL_PACKAGE_ARN"], version);
    let package = &first.left["stable-package"].variables["PACKAGE_SHA256"];
    for job in ["staging-deploy", "production-deploy"] {
        assert_eq!(&first.left[job].variables["PACKAGE_SHA256"], package, "{job}");
    }

    desk.commit(&[("training_script.py", &TRAINING.replace("'good'", "'as good'"))]);
    let mut second = desk.pipeline("full-project", &MAIN, 53);
    second.schedule.play("stable-approve");
    desk.run(&mut second, "2");
    second.schedule.play("production-deploy");
    desk.run(&mut second, "1");
    assert_eq!(second.in_state(JobState::Failed), Vec::<&str>::new(), "{}", second.told());
    assert_ne!(in_production(&second)["MODEL_PACKAGE_ARN"], version);
    let configuration = in_production(&first)["ENDPOINT_CONFIG_NAME"].clone();
    first.schedule.retry("production-deploy");
    desk.run(&mut first, "1");
    let back = in_production(&first);
    assert_eq!((&back["MODEL_PACKAGE_ARN"], &back["ENDPOINT_CONFIG_NAME"]), (&version, &configuration));
    // The job brings back what served before that.
    second.schedule.play("production-rollback");
    desk.run(&mut second, "1");
    let rolled_back = &second.left["production-rollback"];
    assert_eq!(rolled_back.code, 0, "{}", second.told());
    assert_eq!(rolled_back.variables["MODEL_PACKAGE_ARN"], in_production(&second)["MODEL_PACKAGE_ARN"]);
    assert_eq!(desk.emulator.decided("pipeline")["denied"], json!({}), "the shipped policies suffice");
}

/// The endpoint of a merge request serves its candidate, and is removed when somebody stops it, and when its model answers wrongly.
#[test]
fn a_review_endpoint_is_removed() {
    let Some(desk) = Desk::new("a_review_endpoint_is_removed") else { return };
    desk.gitlab.merge_request(12);
    let mut good = desk.pipeline("full-project", &REQUEST, 52);
    assert_eq!(good.in_state(JobState::Failed), Vec::<&str>::new(), "{}", good.told());
    assert_eq!(good.left["review-deploy"].variables["ENDPOINT_NAME"], "wine-review-better");
    for job in ["review-clean", "review-clean-deploy"] {
        assert_eq!(good.schedule.state(job), JobState::Skipped, "{job}");
    }
    good.schedule.play("review-stop");
    desk.run(&mut good, "1");
    assert_eq!(good.left["review-stop"].code, 0, "{}", good.told());

    desk.commit(&[("training_script.py", &TRAINING.replace("'good'", "'bad'"))]);
    let bad = desk.pipeline("full-project", &REQUEST, 53);
    assert_eq!(bad.in_state(JobState::Failed), ["review-deploy"], "{}", bad.told());
    let cleaned = &bad.left["review-clean-deploy"];
    assert_eq!((cleaned.code, bad.schedule.state("review-clean")), (0, JobState::Skipped), "{}", bad.told());
    assert!(cleaned.log.contains("wine-review-better"), "{}", bad.told());
}

/// A project that serves takes the version that another pipeline registered and somebody approved, and ships it with its own package.
#[test]
fn an_inference_project_deploys_the_registered_model() {
    let Some(desk) = Desk::new("an_inference_project_deploys_the_registered_model") else { return };
    let mut trained = desk.pipeline("training-project", &MAIN, 52);
    trained.schedule.play("stable-approve");
    desk.run(&mut trained, "2");
    let version = &trained.left["stable-register"].variables["MODEL_PACKAGE_ARN"];

    let mut manifest = manifest();
    for key in ["metrics", "require"] {
        manifest["model"].as_object_mut().unwrap().remove(key);
    }
    desk.commit(&[("manifest.json", &manifest.to_string())]);
    let mut pipeline = desk.pipeline("inference-project", &MAIN, 53);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    pipeline.schedule.play("production-deploy");
    desk.run(&mut pipeline, "1");
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    for job in ["stable-latest", "staging-deploy", "production-deploy"] {
        assert_eq!(&pipeline.left[job].variables["MODEL_PACKAGE_ARN"], version, "{job}");
    }
    assert_eq!(pipeline.schedule.state("stable-release"), JobState::Succeeded);
    assert_eq!(desk.gitlab.releases().len(), 2);
    assert_eq!(desk.emulator.decided("pipeline")["denied"], json!({}), "the shipped policies suffice");
}

/// The training runs in a training job, by the driver as GitLab Runner calls it; its model, metrics and bill go on to later jobs.
#[test]
fn a_training_job_trains_in_the_pipeline() {
    let Some(desk) = Desk::new("a_training_job_trains_in_the_pipeline") else { return };
    let _place = enter_gate();
    let runner = Runner::real().unwrap_or(Runner::Double);
    let world = World::new(runner, driver::sagemaker(), Settings::default());
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("training_script.py", TRAINING)]);
    let train = |job: &Value, variables: &BTreeMap<String, String>| {
        let script = texts(&job["script"]).join("\n");
        let paths = Artifacts::paths(texts(&job["artifacts"]["paths"]));
        // The training image is this machine's root.
        let wanted = Job::new().sources(&repository, "main", &sha).set("PATH", &search_path()).artifacts(paths);
        let wanted = variables.iter().fold(wanted, |wanted, (name, value)| wanted.set(name, value));
        let outcome = world.run(&wanted.script([&script]));
        let is_success = outcome.state.as_deref() == Some("success");
        let code = outcome.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(i32::from(!is_success));
        Left {
            log: outcome.text(),
            code,
            files: outcome.artifacts.iter().flat_map(Artifact::files).collect(),
            ..Left::default()
        }
    };
    let mut pipeline = desk.compiled("training-project", &MAIN, 52);
    pipeline.run(&desk.key.token("1"), Some(&train));
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    let left = &pipeline.left["train"].files;
    for file in ["model/model.json", "metrics.json", "sagemaker-report.json"] {
        assert!(left.contains_key(file), "{file}: {:?}\n{}", left.keys(), pipeline.left["train"].log);
    }
    let page = String::from_utf8_lossy(&pipeline.left["report"].files["report.html"]).into_owned();
    assert!(page.contains("Training job"), "{page}");
    assert_eq!(desk.gitlab.releases().len(), 1);
    world.is_left_clean();
}
