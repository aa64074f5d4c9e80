//! Projects of `docs/examples`, made by the commands that their READMEs give.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::site::files_below;
use crate::conformance::shown;
use crate::support::program::executor;

/// The files of a project that the example's README makes, by their paths.
#[track_caller]
pub(super) fn project(example: &str, name: &str) -> Vec<(String, String)> {
    let folder = made(example);
    files_below(&folder.path().join(name), "")
}

/// A folder with the projects that the example's README makes.
#[track_caller]
pub(super) fn made(example: &str) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("docs/examples").join(example).join("README.md")).unwrap();
    let commands = readme.split_once("```sh\n").expect("the README has commands").1.split_once("```").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    // The clone beside the project, as the README says.
    symlink(root, folder.path().join("sagemaker-executor")).unwrap();
    let programs = tempfile::tempdir().unwrap();
    symlink(executor(), programs.path().join("sagemaker-executor")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).current_dir(folder.path()).env_clear();
    shell.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", programs.path().display()));
    let ended = shell.output().unwrap();
    assert!(ended.status.success(), "{example}: {}", shown(&ended));
    std::fs::remove_file(folder.path().join("sagemaker-executor")).unwrap();
    folder
}

/// One file with a text in the place of another, which is in it once.
#[track_caller]
pub(super) fn changed(files: &[(String, String)], path: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let (_, text) = files.iter().find(|(known, _)| known == path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(text.matches(from).count(), 1, "{path}: {from}");
    vec![(path.to_owned(), text.replacen(from, to, 1))]
}
