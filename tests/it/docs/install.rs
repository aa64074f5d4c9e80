//! `docs/INSTALL.md` as it stands: all its commands, one after the other, on a host with doubles in place of AWS and of the system's services.
//! After them those of `docs/OPERATING.md` that begin on an installed host.
//!
//! The AWS CLI judges the calls afterwards, without sending them. Left out is the one line that runs a job in an account.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use executor::config::operator_file;
use tempfile::TempDir;

use super::book;
use super::packages::way;
use super::root;
use crate::conformance::{can_run_containers, clients, shown, skipped};
use crate::support::program::executor;

const PAGE: &str = "docs/INSTALL.md";
const LATER: &str = "docs/OPERATING.md";
/// The words after the fence of its blocks that run on an installed host.
const ON_A_HOST: &str = "sh host";
/// Runs a job that is billed.
const IN_AN_ACCOUNT: &str = "try --aws";
/// Where the host sees the repository.
const REPOSITORY: &str = "/tmp/repository";

/// Folders in place of `/etc`, `/usr/local`, `/var/lib` and the repository's own.
struct Host {
    root: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["etc/systemd/system", "local/bin", "lib", "repository/runner-config"] {
            std::fs::create_dir_all(host.path(folder)).unwrap();
        }
        let release = host.path("repository/target/x86_64-unknown-linux-gnu/release");
        std::fs::create_dir_all(&release).unwrap();
        std::fs::copy(executor(), host.path("repository/sagemaker-executor")).unwrap();
        for small in ["repository/gitlab-runner", "repository/token.txt"] {
            std::fs::write(host.path(small), "#!/bin/sh\n").unwrap();
        }
        std::fs::write(release.join("sagemaker-executor"), "#!/bin/sh\n").unwrap();
        for (name, then) in [
            ("aws", "{ printf '%s\\x1f' \"$@\"; printf '\\x1e'; } >>/var/lib/aws-calls; echo sg-0123456789abcdef0"),
            ("tofu", ""),
            ("apt-get", ""),
            ("useradd", "[[ \"$*\" =~ --home-dir\\ ([^ ]+)\\ --create-home ]] && mkdir -p \"${BASH_REMATCH[1]}\""),
            ("chown", ""),
            ("systemctl", ""),
            ("editor", "[ -w \"$1\" ]"),
            ("sudo", "[[ \"$1 $2\" =~ ^-Hu\\ gitlab-runner(-team-b)?$ ]] && shift 2 && exec \"$@\""),
            // Without the owners, which an ordinary user cannot give.
            ("install", "set -- $(printf '%s\\n' \"$@\" | sed -e '/^-[og]$/{N;d}')\nexec /usr/bin/install \"$@\""),
        ] {
            let text = format!("#!/bin/bash\necho \"{name} $*\" >>/var/lib/calls\n{then}\n");
            let path = host.path("local/bin").join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn run(&self, script: &str) -> Output {
        let mut bwrap = Command::new("bwrap");
        bwrap.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-net"]);
        for (own, place) in [("etc", "/etc"), ("local", "/usr/local"), ("lib", "/var/lib"), ("repository", REPOSITORY)]
        {
            bwrap.arg("--bind").arg(self.path(own)).arg(place);
        }
        bwrap.arg("--ro-bind").arg(root().join("runner-config")).arg(format!("{REPOSITORY}/runner-config"));
        bwrap.args(["--chdir", REPOSITORY, "/bin/bash", "-euo", "pipefail", "-c", script]).env_clear();
        bwrap.env("PATH", format!("/usr/local/bin:{REPOSITORY}:/usr/bin:/bin")).env("HOME", "/tmp").output().unwrap()
    }
}

#[test]
fn the_commands_of_the_installation_install_it() {
    if !can_run_containers() {
        return skipped("the commands of the installation", "bubblewrap cannot create a container here");
    }
    let is_of_host = |info: &str| info.starts_with("sh") && info != way::MARK;
    let blocks: Vec<_> = book::blocks(PAGE).into_iter().filter(|block| is_of_host(&block.info)).collect();
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.text.lines()).collect();
    let in_an_account = lines.iter().filter(|line| line.contains(IN_AN_ACCOUNT)).count();
    assert_eq!(in_an_account, 1);
    let script = lines.into_iter().filter(|line| !line.contains(IN_AN_ACCOUNT)).collect::<Vec<_>>().join("\n");
    let host = Host::new();
    let ended = host.run(&script);
    assert!(ended.status.success(), "{}", shown(&ended));
    let later: Vec<_> = book::blocks(LATER).into_iter().filter(|block| block.info == ON_A_HOST).collect();
    assert_eq!(later.len(), 3);
    for block in later {
        let ended = host.run(&block.text);
        assert!(ended.status.success(), "{}\n{}", block.text, shown(&ended));
    }
    the_second_runner_is_apart(&host);

    operator_file::load(&host.path("etc/sagemaker-executor/sagemaker-executor.toml")).unwrap();
    let mode = |name: &str| std::fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("lib/gitlab-runner/config.toml"), 0o600);
    assert_eq!(mode("lib/sagemaker-executor"), 0o700);
    let unit = host.read("etc/systemd/system/gitlab-runner.service");
    assert!(unit.contains("--config /var/lib/gitlab-runner/config.toml") && !unit.contains("ExecStartPre"), "{unit}");
    let calls = host.read("lib/calls");
    for unit in ["gitlab-runner.service", "sagemaker-executor-sweep.timer"] {
        assert!(host.path("etc/systemd/system").join(unit).exists(), "{unit}");
        assert!(calls.contains(&format!("systemctl enable --now {unit}")), "{calls}");
    }
    judge(&host);
}

fn the_second_runner_is_apart(host: &Host) {
    let load = |name: &str| operator_file::load(&host.path("etc/sagemaker-executor").join(name)).unwrap().runner;
    let (first, second) = (load("sagemaker-executor.toml"), load("team-b.toml"));
    for (first, second) in [
        (first.state_dir, second.state_dir),
        (first.builds_dir, second.builds_dir),
        (first.cache_dir, second.cache_dir),
    ] {
        assert!(first != second && second.starts_with("/var/lib/sagemaker-executor-team-b"), "{}", second.display());
    }
    let (first, second) = (
        host.read("etc/systemd/system/gitlab-runner.service"),
        host.read("etc/systemd/system/gitlab-runner-team-b.service"),
    );
    let changed: Vec<_> = second.lines().filter(|line| !first.lines().any(|other| other == *line)).collect();
    let (user, group) = ("User=gitlab-runner-team-b", "Group=gitlab-runner-team-b");
    let start = "ExecStart=/usr/local/bin/gitlab-runner run --config /var/lib/gitlab-runner-team-b/config.toml \
                 --working-directory /var/lib/gitlab-runner-team-b";
    let state = "StateDirectory=sagemaker-executor-team-b gitlab-runner-team-b";
    assert_eq!(changed, [user, group, start, state]);
    let config = host.read("lib/gitlab-runner-team-b/config.toml");
    assert_eq!(config.matches("\"/etc/sagemaker-executor/team-b.toml\"").count(), 4, "{config}");
    assert!(!config.contains("sagemaker-executor.toml"), "{config}");
}

/// The calls of `aws` are ones that the AWS CLI takes.
fn judge(host: &Host) {
    let Some(clients) = clients() else {
        return skipped(
            "the AWS calls of the installation",
            "neither the machine nor the package index has the clients",
        );
    };
    let python = clients.join("python3");
    let checks = root().join("tests/fixtures/conformance/accepted_calls.py");
    let judge = |calls: &Path| {
        let mut judge = Command::new(&python);
        judge.arg(&checks).arg(calls).current_dir(host.path("repository")).env_clear().env("HOME", host.root.path());
        judge.output().unwrap()
    };
    // The host's view of the repository, for files that the calls name.
    std::fs::copy(
        root().join("runner-config/bucket-lifecycle.json"),
        host.path("repository/runner-config/bucket-lifecycle.json"),
    )
    .unwrap();
    let calls = host.path("lib/aws-calls");
    let judged = judge(&calls);
    assert!(judged.status.success(), "{}", shown(&judged));
    assert!(host.read("lib/aws-calls").matches('\x1e').count() > 20);
    let wrong = host.path("wrong");
    std::fs::write(&wrong, "iam\x1fcreate-role\x1f--role-name\x1fci\x1f\x1e").unwrap();
    let judged = judge(&wrong);
    assert!(!judged.status.success() && shown(&judged).contains("--assume-role-policy-document"), "{}", shown(&judged));
}
