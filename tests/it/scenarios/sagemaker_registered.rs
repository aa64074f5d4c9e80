//! The path of a model: trained in a training job, judged by the gate, and registered, with a model and data of scikit-learn.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::sagemaker_desk::Desk;
use crate::support::emulator::BUCKET;
use crate::support::job::{Artifacts, Job};
use crate::support::waiting::{find_program, tell};

const TRAINING: &str = include_str!("../../../docs/examples/train_sklearn.py");

fn manifest() -> String {
    let image = format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", "0".repeat(64));
    json!({
        "model": {"group": "wine", "image": image, "content_types": ["text/csv"], "metrics": ["metrics.json"],
            "require": ["accuracy>=0.8", "f1>=0.7"]},
        "environments": {"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}},
    })
    .to_string()
}

/// Runs a command of the program in the project, as a job that comes later does: its exit code and standard output.
fn command(desk: &Desk, arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
    program.args(arguments).args(["--environment", "prod"]).current_dir(desk.project()).env_clear();
    program.envs(desk.emulator.of_administrator()).env("AWS_ENDPOINT_URL", &desk.emulator.endpoint);
    let output = program.output().unwrap();
    tell(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// A Python that has scikit-learn.
pub(crate) fn with_scikit_learn() -> Option<PathBuf> {
    find_program("python3").filter(|python| {
        let found = Command::new(python).args(["-c", "import sklearn"]).output();
        found.is_ok_and(|found| found.status.success())
    })
}

fn job() -> Job {
    Job::new().script(["true"]).artifacts(Artifacts::paths(["model/", "metrics.json"]))
}

/// Trains the example's model in a training job, and puts the job's results into a folder.
pub(crate) fn train(python: &Path, folder: &Path) {
    let desk = Desk::new(&job()).prepared();
    desk.put("train_sklearn.py", TRAINING.as_bytes());
    desk.run("build_script", &format!("{} train_sklearn.py", python.display())).passed().says("Results: 2 files");
    desk.run("upload_artifacts_on_success", "true").passed();
    std::fs::create_dir(folder.join("model")).unwrap();
    for file in ["model/model.pkl", "metrics.json"] {
        std::fs::copy(desk.project().join(file), folder.join(file)).unwrap();
    }
    desk.cleanup().passed();
}

#[test]
fn a_trained_model_is_registered_and_a_worse_one_stops_at_the_gate() {
    let Some(python) = with_scikit_learn() else {
        return tell("SKIPPED: a registered model of scikit-learn: python3 has no scikit-learn");
    };
    let job = job();
    for (argument, code, versions) in [("", 0, 1), ("--dummy", 10, 0)] {
        let desk = Desk::new(&job).prepared();
        desk.put("train_sklearn.py", TRAINING.as_bytes());
        desk.put("manifest.json", manifest().as_bytes());
        let script = format!("{} train_sklearn.py {argument}", python.display());
        desk.run("build_script", &script).passed().says("Results: 2 files");
        desk.run("upload_artifacts_on_success", "true").passed();
        for arguments in [&["gate"][..], &["model", "register"]] {
            let (ended, stdout) = command(&desk, arguments);
            assert_eq!(ended, Some(code), "{arguments:?} {stdout}");
        }
        let (_, stdout) = command(&desk, &["model", "latest", "--status", "any", "--output", "json"]);
        assert_eq!(stdout.matches("model-package/wine/1\"").count(), versions, "{stdout}");
        desk.cleanup().passed();
    }
}
