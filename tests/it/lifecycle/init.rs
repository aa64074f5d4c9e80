//! `init`: the projects that it makes are valid, and their own tests pass.

use std::path::PathBuf;
use std::process::Command;

use super::run;
use crate::conformance::skipped;
use crate::support::snapshot::assert_snapshot;
use crate::support::waiting::find_program;

/// A Python with scikit-learn.
fn python() -> Option<PathBuf> {
    find_program("python3").filter(|python| {
        let found = Command::new(python).args(["-c", "import sklearn"]).output();
        found.is_ok_and(|found| found.status.success())
    })
}

#[test]
fn a_new_project_is_valid_and_passes_its_tests() {
    for (kind, made) in [("training", "training_script.py"), ("endpoint", "sample_model.py")] {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("my-wine");
        let init = run(folder.path(), &[], &["init", kind, "my-wine"]);
        assert_eq!(init.code, 0, "{}", init.stderr);
        assert_snapshot(&format!("init_{kind}"), &format!("{}{}", init.stdout, init.stderr));
        let valid = run(&project, &[], &["validate"]);
        assert_eq!(valid.code, 0, "{}", valid.stdout);
        let Some(python) = python() else {
            skipped("the tests of new projects", "python3 has no scikit-learn");
            continue;
        };
        let python = |arguments: &[&str]| {
            let mut python = Command::new(&python);
            let output = python.args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&project).output();
            let output = output.unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        };
        python(&["-W", "error", "-m", "unittest", "discover", "--start-directory", "tests/unit"]);
        python(&[made]);
        assert!(project.join("model/model.pkl").exists());
        if kind == "training" {
            let gate = run(&project, &[], &["gate"]);
            assert_eq!(gate.code, 0, "{}", gate.stderr);
        }
    }
}

#[test]
fn the_handler_of_the_examples_tells_what_it_cannot_read() {
    let Some(python) = find_program("python3") else {
        return skipped("the handler of the examples", "python3 is not installed");
    };
    let script = "import inference_handler\n\
        bodies = ['[' * 100000, '{\"instances\": [[' + '9' * 401 + ']]}', '{\"instances\": [[1e308]]}', '{\"instances\": [1]}']\n\
        for body in bodies:\n    try:\n        inference_handler.input_fn(body.encode(), 'application/json')\n    \
        except ValueError:\n        continue\n    raise SystemExit(body[:99])\n";
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");
    let output = Command::new(python).args(["-B", "-c", script]).current_dir(examples).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_project_replaces_nothing_and_has_a_name_that_aws_takes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("projects/wine/.git")).unwrap();
    let init = |kind: &str, name: &str| run(folder.path(), &[], &["init", kind, name, "--output-dir", "projects"]);
    assert_eq!(init("training", "wine").code, 0, "an empty clone is taken");
    let again = init("endpoint", "wine");
    let long = init("endpoint", &"a".repeat(39));
    let wrong = init("training", "-../wine");
    assert_eq!([again.code, long.code], [1, 1]);
    assert!(wrong.code != 0 && !wrong.stdout.contains("wine"));
    assert_snapshot("init_refused", &format!("{}{}", again.stderr, long.stderr));
    assert!(!folder.path().join("projects/wine/inference_handler.py").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("projects")).unwrap().count(), 1);
}
