//! The shipped units of systemd, which start `sweep`.

use std::path::Path;
use std::process::Command;

use super::{read, root};
use crate::conformance::skipped;
use crate::support::waiting::find_program;

const FOLDER: &str = "runner-config/systemd";
const SERVICE: &str = "sagemaker-executor-sweep.service";
const TIMER: &str = "sagemaker-executor-sweep.timer";
/// Version of systemd whose scores the page tells: that of Debian 12.
const SCORED_BY: &str = "systemd 252 ";
/// Most exposure of the sweep's unit, of 10, by any version.
const MOST_EXPOSED: f64 = 3.0;

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let found = lines(text).into_iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in\n{text}"))
}

/// The program, the operator's file and the arguments are those that the runner's own file names, and the program knows them.
#[test]
fn the_service_sweeps_with_the_operators_file_of_the_runner() {
    let service = read(&format!("{FOLDER}/{SERVICE}"));
    let words: Vec<_> = value(&service, "ExecStart").split(' ').collect();
    let runner: toml::Table = toml::from_str(&read("runner-config/config.toml")).unwrap();
    let custom = &runner["runners"][0]["custom"];
    assert_eq!(Some(words[0]), custom["cleanup_exec"].as_str());
    assert_eq!(Some(words[2]), custom["cleanup_args"][1].as_str());
    let output = Command::new(crate::support::program::executor())
        .args(["--config", "/nowhere.toml"])
        .args(&words[3..])
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(words[3] == "sweep" && text.contains("/nowhere.toml") && !text.contains("Usage"), "{text}");
    // The default of `runner.state_dir` can be written.
    assert_eq!(value(&service, "ReadWritePaths"), "-/var/lib/sagemaker-executor");
    // So can the documented places of log, audit and metrics: a sweep that cannot write them tells nobody.
    let writable: Vec<_> =
        lines(&service).into_iter().filter_map(|line| line.strip_prefix("ReadWritePaths=")).collect();
    let writable: Vec<_> =
        writable.iter().flat_map(|paths| paths.split(' ')).filter_map(|path| path.strip_prefix('-')).collect();
    for file in
        read("runner-config/sagemaker-executor.toml").lines().filter_map(|line| line.strip_prefix("# file = \"/"))
    {
        let folder = format!("/{file}");
        assert!(writable.iter().any(|path| folder.starts_with(&format!("{path}/"))), "{file}: {writable:?}");
    }
    // It is made where no job has run: systemd refuses to start a service with a path that is missing.
    assert_eq!(value(&service, "StateDirectory"), "sagemaker-executor");
    let readme = read("README.md");
    assert!([SERVICE, TIMER].iter().all(|_| readme.contains(FOLDER)), "the installation names the units");
}

#[test]
fn systemd_understands_the_units() {
    if find_program("systemd-analyze").is_none() {
        return skipped("the units of systemd", "no systemd-analyze");
    }
    let folder = tempfile::tempdir().unwrap();
    let verify = |service: &str| {
        // The program and its user exist on a runner host.
        let program = crate::support::program::executor().display().to_string();
        let service =
            service.replace("/usr/local/bin/sagemaker-executor", &program).replace("User=gitlab-runner", "User=root");
        std::fs::write(folder.path().join(SERVICE), service).unwrap();
        std::fs::copy(root().join(FOLDER).join(TIMER), folder.path().join(TIMER)).unwrap();
        let files = [SERVICE, TIMER].map(|name| Path::new(folder.path()).join(name));
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(files).output().unwrap()
    };
    let shipped = read(&format!("{FOLDER}/{SERVICE}"));
    let output = verify(&shipped);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<_> = text.lines().filter(|line| line.contains("sagemaker-executor-sweep")).collect();
    assert!(ours.is_empty(), "{text}");
    let wrong = verify(&shipped.replace("RestrictRealtime=true", "RestrictRealtim=true"));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("RestrictRealtim"), "the tool reads the file");
}

/// The drop-in for the runner's service keeps what bubblewrap needs.
#[test]
fn systemd_understands_the_drop_in_of_the_runner() {
    let text = read(&format!("{FOLDER}/gitlab-runner.conf"));
    let keys: Vec<_> = lines(&text).into_iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(keys.contains(&"Delegate"), "{keys:?}");
    // Each hides a part of /proc, refuses system calls, or forbids the sandbox's own group.
    for harmful in [
        "ProtectKernelTunables",
        "ProtectKernelLogs",
        "ProtectProc",
        "ProcSubset",
        "ProtectControlGroups",
        "RestrictNamespaces",
        "SystemCallFilter",
        "NoNewPrivileges",
    ] {
        assert!(!keys.contains(&harmful), "{harmful}");
    }
    if find_program("systemd-analyze").is_none() {
        return skipped("the drop-in of the runner's service", "no systemd-analyze");
    }
    let folder = tempfile::tempdir().unwrap();
    let service = folder.path().join("gitlab-runner.service");
    let drop_ins = folder.path().join("gitlab-runner.service.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&service, "[Service]\nExecStart=/bin/true\n").unwrap();
    std::fs::write(drop_ins.join("sagemaker-executor.conf"), &text).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&service)
        .env("SYSTEMD_UNIT_PATH", folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    // systemd before 254 does not know this one.
    let ours: Vec<_> =
        told.lines().filter(|line| line.contains(".conf:") && !line.contains("DelegateSubgroup")).collect();
    assert!(ours.is_empty(), "{told}");
}

/// With `@` they are the same, for another operator's file and its directories.
#[test]
fn the_units_of_a_further_operators_file_differ_by_its_name_alone() {
    let without_comments = |name: &str| lines(&read(&format!("{FOLDER}/{name}"))).join("\n");
    let units = [(SERVICE, "sagemaker-executor-sweep@.service"), (TIMER, "sagemaker-executor-sweep@.timer")];
    for (plain, named) in units {
        let (plain, named) = (without_comments(plain), without_comments(named));
        assert!(named.contains("%i"), "{named}");
        let of_plain = named.replace("/%i.toml", "/sagemaker-executor.toml").replace("-%i", "").replace(" (%i)", "");
        assert_eq!(of_plain, plain);
    }
}

/// The score that systemd gives to a service with these contents.
fn exposure(unit: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scored.service");
    std::fs::write(&file, unit).unwrap();
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["security", "--offline=yes", "--no-pager"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let score = last.split_once("scored.service: ").and_then(|(_, score)| score.split(' ').next()?.parse().ok());
    score.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The scores in the table of docs/INSTALL.md are those of the shipped files.
#[test]
fn the_scores_of_the_units_are_those_of_the_page() {
    let Some(program) = find_program("systemd-analyze") else {
        return skipped("the scores of the units", "no systemd-analyze");
    };
    let files = |names: &[&str]| names.iter().map(|name| read(name)).collect::<Vec<_>>().join("\n");
    let sweep = exposure(&files(&["runner-config/systemd/sagemaker-executor-sweep.service"]));
    let further = exposure(&files(&["runner-config/systemd/sagemaker-executor-sweep@.service"]));
    assert!(sweep <= MOST_EXPOSED && further <= MOST_EXPOSED, "{sweep} {further}");
    let version = Command::new(program).arg("--version").output().unwrap();
    if !String::from_utf8_lossy(&version.stdout).starts_with(SCORED_BY) {
        return skipped("the scores of the units in the page", &format!("another version than {SCORED_BY}"));
    }
    let drop_in = "runner-config/systemd/gitlab-runner.conf";
    let (of_package, ours) = (
        "[Service]\nExecStart=/usr/bin/gitlab-runner run\n",
        files(&["runner-config/opentofu/runner/gitlab-runner.service"]),
    );
    let with_drop_in = |unit: &str| exposure(&format!("{unit}\n{}", read(drop_in)));
    let scored = [
        (
            "the service of GitLab Runner's own package, as root",
            Some(exposure(of_package)),
            Some(with_drop_in(of_package)),
        ),
        ("the service of step 6, as the user `gitlab-runner`", Some(exposure(&ours)), Some(with_drop_in(&ours))),
        ("the sweep", Some(sweep), None),
    ];
    let told = super::rows(&read("docs/INSTALL.md"));
    for (unit, without, with) in scored {
        let cell = |score: Option<f64>| score.map(|score| format!("{score:.1}")).unwrap_or_default();
        let row = [unit.to_owned(), cell(without), cell(with)];
        assert!(told.iter().any(|cells| cells[..] == row), "{row:?}");
    }
}
