//! The packages for runner hosts: their scripts, the pages and completions that they hold. With `PACKAGES=FOLDER`, the folder of
//! `.ci/package`, each is installed, upgraded and removed, and the pages on installation run from a bare Debian to a green job.

mod deb;
mod debian;
mod rpm;
pub(super) mod way;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{read, root};
use crate::conformance::{shown, skipped};
use crate::support::program::executor;
use crate::support::waiting::{find_program, search_path};

const SCRIPTS: [&str; 3] = ["runner-config/package/postinst", "runner-config/package/prerm", ".ci/package"];

#[test]
fn the_scripts_of_packages_are_sound() {
    let Some(shellcheck) = find_program("shellcheck") else {
        return skipped("the scripts of packages", "no shellcheck");
    };
    let checked = Command::new(shellcheck).args(SCRIPTS).current_dir(root()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Every file that the script puts into a package is there.
#[test]
fn what_a_package_holds_is_there() {
    let script = read(".ci/package");
    let named = regex::Regex::new(r"(?:runner-config|docs)/[\w./*-]+").unwrap();
    let files: Vec<_> =
        named.find_iter(&script).map(|found| found.as_str()).filter(|path| !path.contains('*')).collect();
    assert!(files.len() > 7, "{files:?}");
    for file in files {
        assert!(root().join(file).exists(), "{file}");
    }
    // The copy of bubblewrap that the program looks for is the one that the script makes.
    let place = "/usr/lib/sagemaker-executor";
    assert!(read("runner-config/package/postinst").contains(place));
    assert!(read("runner-config/package/apparmor").contains(&format!("{place}/bwrap flags=")));
    assert!(read("src/executor/sandbox/bubblewrap.rs").contains(&format!("\"{place}/bwrap\"")));
}

/// A page for each command that people type, and completions; the same bytes each time.
#[test]
fn the_manual_has_a_page_for_each_command() {
    let write = || {
        let folder = tempfile::tempdir().unwrap();
        let ended = Command::new(executor()).arg("manual").arg(folder.path()).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let names = |part: &str| {
            let mut names: Vec<_> =
                std::fs::read_dir(folder.path().join(part)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names.into_iter().map(|name| format!("{part}/{}", name.to_str().unwrap())).collect::<Vec<_>>()
        };
        let files = [names("man"), names("completions")].concat();
        let content = |file: &String| (file.clone(), std::fs::read_to_string(folder.path().join(file)).unwrap());
        files.iter().map(content).collect::<Vec<_>>()
    };
    let written = write();
    let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
    for name in
        ["man/sagemaker-executor.1", "man/sagemaker-executor-prepare.1", "man/sagemaker-executor-endpoint-deploy.1"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for name in ["man/sagemaker-executor-agent.1", "man/sagemaker-executor-manual.1", "man/sagemaker-executor-help.1"] {
        assert!(!names.contains(&name), "{name} is for no person");
    }
    assert_eq!(names.iter().filter(|name| name.starts_with("completions/")).count(), 3);
    assert!(written.iter().all(|(_, text)| text.contains("sagemaker-executor")));
    assert_eq!(written, write());
}

/// The folder of `.ci/package` that `PACKAGES` names.
#[expect(clippy::disallowed_methods, reason = "the tests are not the program")]
pub(crate) fn packages() -> Option<PathBuf> {
    std::env::var("PACKAGES").ok().map(|folder| root().join(folder))
}

fn built(folder: &Path, part: &str) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_str().unwrap().contains(part)));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Where the machine has Python alone: `pip` brings the command.
#[test]
fn a_wheel_brings_the_command() {
    let test = "the wheel in a virtual environment";
    let Some(folder) = packages() else {
        return skipped(test, "PACKAGES names no folder of `.ci/package`");
    };
    let work = tempfile::tempdir().unwrap();
    let run = |program: &Path, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(&work).env_clear().env("PATH", search_path()).env("HOME", work.path());
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{words:?}: {}", shown(&ended));
        String::from_utf8(ended.stdout).unwrap()
    };
    run(Path::new("python3"), &["-m", "venv", "venv"]);
    let wheel = built(&folder, ".whl");
    let pip = ["-m", "pip", "install", "--no-index", "--disable-pip-version-check"];
    run(&work.path().join("venv/bin/python3"), &[&pip[..], &[wheel.to_str().unwrap()]].concat());
    let program = work.path().join("venv/bin/sagemaker-executor");
    let told = run(&program, &["--version"]);
    assert!(told.contains(env!("CARGO_PKG_VERSION")) && told.contains("without emulator"), "{told}");
    // The wheel has the program of the packages, byte for byte.
    run(
        Path::new("tar"),
        &[
            "-xzf",
            built(&folder, &format!("executor-{}-x86", env!("CARGO_PKG_VERSION"))).to_str().unwrap(),
            "./usr/bin/sagemaker-executor",
        ],
    );
    assert!(std::fs::read(&program).unwrap() == std::fs::read(work.path().join("usr/bin/sagemaker-executor")).unwrap());
    let metadata =
        run(&work.path().join("venv/bin/python3"), &["-m", "pip", "show", "--verbose", "sagemaker-executor"]);
    assert!(metadata.contains("runs CI jobs"), "{metadata}");
}

/// The list of components is that of the program, and says nothing about the machine that made it.
#[test]
fn the_packages_tell_their_components() {
    let Some(folder) = packages() else {
        return skipped("the components of packages", "PACKAGES names no folder of `.ci/package`");
    };
    let components = |name: &str| {
        let file = folder.join(format!("{name}-{}.cdx.json", env!("CARGO_PKG_VERSION")));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for of_the_machine in ["file:///root", "file:///home", "file:///tmp", root().to_str().unwrap()] {
            assert!(!text.contains(of_the_machine), "{of_the_machine}");
        }
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&list["bomFormat"], &list["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        assert!(list["serialNumber"].is_null() && list["metadata"]["component"]["name"] == "sagemaker-executor");
        let listed = list["components"].as_array().unwrap().iter();
        listed.map(|component| component["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let (production, all) = (components("sagemaker-executor"), components("sagemaker-executor-with-emulator"));
    assert!(production.contains("aws-sdk-sagemaker") && production.contains("ring") && production.is_subset(&all));
    // Parts of the emulator, and of the tests.
    assert!(!production.contains("s3s") && all.contains("s3s") && !all.contains("insta"), "{all:?}");
    let checked = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", shown(&checked));
    assert!(shown(&checked).lines().filter(|line| line.ends_with(": OK")).count() >= 7, "{}", shown(&checked));
}
