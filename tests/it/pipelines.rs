//! Whole pipelines of the components: compiled, and run job by job with the program itself, the emulator as AWS, and a double of GitLab's
//! API. Training is a program in the shell here; the scenarios run jobs in the emulator's training jobs.

mod running;
mod schedule;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{shown, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab_api::{ACCESS_TOKEN, GitLabDouble, JOB_TOKEN, PROJECT_PATH};
use crate::support::program::executor;
use crate::support::waiting::{find_program, search_path};
use crate::templates::compiler::{Compiler, Project};
use crate::templates::yaml::documents;
use running::Pipeline;
use schedule::JobState;

const TRAINING: &str = "import json, os\nos.makedirs('model', exist_ok=True)\nACCURACY = 0.95\n\
                        json.dump({'accuracy': ACCURACY}, open('metrics.json', 'w'))\n\
                        json.dump({'weights': [1, 2]}, open('model/model.json', 'w'))\n";
/// `python3` without the packages that lints and tests install.
const PYTHON: &str =
    "#!/bin/sh\ncase \"$1 $2\" in\n  '-m pip' | '-m ruff' | '-m pytest') exit 0 ;;\nesac\nexec PYTHON \"$@\"\n";

/// A project that includes a flow, with its GitLab and its account of AWS.
struct Desk {
    emulator: Emulator,
    gitlab: GitLabDouble,
    folder: TempDir,
    compiler: Compiler,
}

impl Desk {
    fn new(test: &str) -> Option<Self> {
        let compiler = Compiler::find(test)?;
        let Some(python) = find_program("python3") else {
            skipped(test, "no python3");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["bin", "project", "home"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink(executor(), path("bin/sagemaker-executor")).unwrap();
        std::fs::write(path("bin/python3"), PYTHON.replace("PYTHON", python.to_str().unwrap())).unwrap();
        std::fs::set_permissions(path("bin/python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let emulator = Emulator::start(&path("data"), &[]);
        let desk = Self { emulator, gitlab: GitLabDouble::start(), folder, compiler };
        desk.git(&["init", "--quiet", "--initial-branch", "main"]);
        desk.commit(&[
            ("manifest.json", &manifest().to_string()),
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

    /// Compiles and runs a pipeline of the flow, with what GitLab sets for this kind of it.
    #[track_caller]
    fn pipeline(&self, flow: &str, of: &[(&str, &str)]) -> Pipeline {
        let project = Project::new(&self.compiler, &[]);
        let text = json!({"include": [{"local": format!("/templates/{flow}/template.yml")}]}).to_string();
        let whole = documents(&project.whole(&text), flow).remove(0);
        let listed = project.jobs(&text, &of.iter().copied().collect());
        let Value::Object(jobs) = whole else { panic!("{flow} is no pipeline") };
        let mut pipeline = Pipeline::new(jobs, &listed, &self.project(), self.predefined(of));
        pipeline.run();
        pipeline
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
            ("CI_PIPELINE_ID", "7"),
            ("CI_PIPELINE_CREATED_AT", "2026-11-29T04:52:33Z"),
            ("CI_PROJECT_PATH", PROJECT_PATH),
            ("CI_PROJECT_URL", "https://gitlab.example.com/group/project"),
            ("CI_JOB_TOKEN", JOB_TOKEN),
            ("GITLAB_TOKEN", ACCESS_TOKEN),
            ("AWS_ENDPOINT_URL", &self.emulator.endpoint),
        ];
        let own = own.iter().chain(of).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let gitlab = self.gitlab.variables().map(|(name, value)| (name.to_owned(), value));
        own.filter(|(_, value)| !value.is_empty()).chain(gitlab).chain(self.emulator.of_administrator()).collect()
    }

    /// The stand-ins first.
    fn path(&self) -> String {
        format!("{}:{}", self.folder.path().join("bin").display(), search_path())
    }
}

fn manifest() -> Value {
    let environment = json!({"region": "us-east-1", "account": "000000000000", "bucket": BUCKET});
    json!({
        "model": {
            "group": "wine",
            "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4)),
            "metrics": ["metrics.json"],
            "require": ["accuracy>=0.9"],
        },
        "environments": {"staging": environment, "production": environment},
    })
}

const MAIN: [(&str, &str); 3] =
    [("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main"), ("CI_COMMIT_REF_NAME", "main")];
const REQUEST: [(&str, &str); 7] = [
    ("CI_PIPELINE_SOURCE", "merge_request_event"),
    ("CI_COMMIT_BRANCH", ""),
    ("CI_COMMIT_REF_NAME", "better"),
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
    let candidate = desk.pipeline("training-project", &REQUEST);
    assert_eq!(candidate.in_state(JobState::Failed), Vec::<&str>::new(), "{}", candidate.told());
    let name = &candidate.left["candidate-package"].variables["PACKAGE_NAME"];
    assert!(name.starts_with("candidate-PR-12-") && name.ends_with("-20261129T045233Z.zip"), "{name}");
    assert!(candidate.left["report"].files.contains_key("report.html"));
    assert_eq!(desk.gitlab.notes(12).len(), 1, "{}", candidate.left["report"].log);
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (0, 0));

    let stable = desk.pipeline("training-project", &MAIN);
    assert_eq!(stable.in_state(JobState::Failed), Vec::<&str>::new(), "{}", stable.told());
    assert_eq!(stable.in_state(JobState::Manual), ["stable-approve", "stable-reject"]);
    let package = &stable.left["stable-package"].variables;
    assert_eq!(package["PACKAGE_NAME"], "stable-20261129T045233Z.zip");
    let releases = desk.gitlab.releases();
    assert_eq!(releases.len(), 1);
    assert_eq!((releases[0].tag.as_str(), releases[0].links.len()), ("stable-20261129T045233Z", 1));
    assert_eq!(releases[0].commit, desk.git(&["rev-parse", "HEAD"]));
    assert_eq!(desk.gitlab.files()[0].sha256, package["PACKAGE_SHA256"], "the bytes of the job are published");
    let version = &stable.left["stable-register"].variables["MODEL_PACKAGE_ARN"];
    assert!(version.ends_with("model-package/wine/1"), "{version}");

    let again = desk.pipeline("training-project", &MAIN);
    assert_eq!(again.in_state(JobState::Failed), Vec::<&str>::new(), "{}", again.told());
    assert_eq!(&again.left["stable-register"].variables["MODEL_PACKAGE_ARN"], version);
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (1, 1));
}

/// A worse model stops at the gate: nothing is registered or released, and the report says why.
#[test]
fn a_worse_model_stops_at_the_gate() {
    let Some(desk) = Desk::new("a_worse_model_stops_at_the_gate") else { return };
    desk.commit(&[("training_script.py", &TRAINING.replace("0.95", "0.85"))]);
    let pipeline = desk.pipeline("training-project", &MAIN);
    assert_eq!(pipeline.in_state(JobState::Failed), ["gate"], "{}", pipeline.told());
    assert_eq!(pipeline.left["gate"].code, 10);
    for job in ["stable-register", "stable-package", "stable-release"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Skipped, "{job}");
    }
    assert!(String::from_utf8_lossy(&pipeline.left["report"].files["report.html"]).contains("does not pass the gate"));
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (0, 0));
}
