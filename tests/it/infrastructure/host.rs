//! The script that sets a runner host up, and the one that writes the runner's configuration: both run in a container whose programs that
//! reach the network or the system's services are doubles.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::folder;
use crate::conformance::{can_run_containers, shown, skipped};

const TOKEN: &str = "glrt-s3cr3t_Token-1.01.abc";

/// A host: folders in place of `/etc`, `/usr/local` and `/var/lib`, and doubles that write their calls down in `/var/lib/calls`.
struct Host {
    root: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["etc/gitlab-runner", "etc/systemd/system", "local/bin", "lib/served", "lib/gitlab-runner"] {
            std::fs::create_dir_all(host.path(folder)).unwrap();
        }
        std::fs::write(
            host.path("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\ngitlab-runner:x:999:999::/var/lib/gitlab-runner:/bin/bash\n",
        )
        .unwrap();
        std::fs::write(host.path("etc/group"), "root:x:0:\ngitlab-runner:x:999:\n").unwrap();
        for (name, then) in [
            ("systemctl", ""),
            ("git", ""),
            ("git-lfs", ""),
            ("bwrap", ""),
            ("aws", "case \" $* \" in *get-parameter*|*get-secret-value*) cat /var/lib/served/token;; esac"),
            (
                "curl",
                "for last; do url=$last; done\nwhile [ $# -gt 0 ]; do [ \"$1\" = --output ] && cp \"/var/lib/served/${url##*/}\" \"$2\"; shift; done",
            ),
            // Without the owners, which an ordinary user cannot give.
            ("install", "set -- $(printf '%s\\n' \"$@\" | sed -e '/^-[og]$/{N;d}')\nexec /usr/bin/install \"$@\""),
        ] {
            host.program(name, &format!("#!/bin/bash\necho \"{name} $*\" >>/var/lib/calls\n{then}\n"));
        }
        std::fs::write(host.path("lib/served/token"), format!("{TOKEN}\n")).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("local/bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &Path) -> Output {
        let mut bwrap = Command::new("bwrap");
        bwrap.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-net"]);
        for (own, place) in [("etc", "/etc"), ("local", "/usr/local"), ("lib", "/var/lib")] {
            bwrap.arg("--bind").arg(self.path(own)).arg(place);
        }
        bwrap.arg("--ro-bind").arg(script).arg("/tmp/script");
        bwrap
            .args(["/bin/bash", "/tmp/script"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .output()
            .unwrap()
    }
}

/// The script of the host is sound, fits its place, and sets a host up whose runner has its tokens.
#[track_caller]
pub(super) fn assert_set_up(outputs: &BTreeMap<String, Value>) {
    let mut script = outputs["set_up"].as_str().unwrap().to_owned();
    let host = Host::new();
    for (file, expected) in [("sagemaker-executor", "a"), ("gitlab-runner", "b")] {
        let content = format!("#!/bin/sh\necho {file}\n");
        std::fs::write(host.path("lib/served").join(file), &content).unwrap();
        let hash = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        script = script.replace(&expected.repeat(64), &hash);
    }
    let path = host.path("set-up.sh");
    std::fs::write(&path, &script).unwrap();
    assert_is_sound(&path);
    if !can_run_containers() {
        return skipped("the set-up of a runner host", "bubblewrap cannot create a container here");
    }
    let ended = host.run(&path);
    assert!(ended.status.success(), "{}", shown(&ended));
    assert_eq!(host.read("etc/sagemaker-executor/sagemaker-executor.toml"), outputs["operator_file"].as_str().unwrap());
    assert_eq!(host.read("etc/gitlab-runner/config.toml.in"), outputs["runner_config"].as_str().unwrap());
    assert!(host.read("local/bin/sagemaker-executor").contains("echo sagemaker-executor"));
    let calls = host.read("lib/calls");
    assert!(calls.contains("systemctl enable --now --no-block gitlab-runner.service"), "{calls}");
    assert!(calls.contains("systemctl enable --now sagemaker-executor-sweep.timer"), "{calls}");

    // The service's steps before each start.
    let ended = host.run(&host.path("local/libexec/sagemaker-executor/write-runner-config"));
    assert!(ended.status.success(), "{}", shown(&ended));
    let config: toml::Table = toml::from_str(&host.read("lib/gitlab-runner/config.toml")).unwrap();
    let runners = config["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 2);
    assert!(runners.iter().all(|runner| runner["token"].as_str() == Some(TOKEN)), "{config}");
    let mode = std::fs::metadata(host.path("lib/gitlab-runner/config.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let calls = host.read("lib/calls");
    assert!(calls.contains("--name /gitlab/sagemaker --with-decryption"), "{calls}");
    assert!(calls.contains("--secret-id arn:aws:secretsmanager:"), "{calls}");
    assert!(!calls.contains(TOKEN) && !shown(&ended).contains(TOKEN), "a token is in an argument or an output");

    // Another file than the one that was asked for is not installed.
    std::fs::write(host.path("lib/served/gitlab-runner"), "#!/bin/sh\necho forged\n").unwrap();
    let ended = host.run(&path);
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("has not the SHA-256"), "{}", shown(&ended));
    assert!(!host.read("local/bin/gitlab-runner").contains("forged"));
}

#[track_caller]
fn assert_is_sound(script: &Path) {
    match Command::new("shellcheck").arg(script).output() {
        Ok(ended) => assert!(ended.status.success(), "{}", shown(&ended)),
        Err(_) => skipped("the scripts of the runner host", "there is no shellcheck"),
    }
}

/// A token that is absent, of another kind, or hostile ends in one line that names its runner and its place.
#[test]
fn a_runner_without_its_token_says_where_it_belongs() {
    let script = folder().join("runner/write-runner-config.sh");
    assert_is_sound(&script);
    if !can_run_containers() {
        return skipped("the runner's configuration", "bubblewrap cannot create a container here");
    }
    let arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/gitlab/sagemaker";
    let host = Host::new();
    std::fs::write(host.path("etc/gitlab-runner/tokens"), format!("eu-west-1\nsagemaker {arn}\n")).unwrap();
    std::fs::write(host.path("etc/gitlab-runner/config.toml.in"), "token = \"@TOKEN:sagemaker@\"\n").unwrap();
    let refused = |token: &str| {
        std::fs::write(host.path("lib/served/token"), token).unwrap();
        let ended = host.run(&script);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{token}: {said}");
        assert!(said.contains("sagemaker") && said.contains(arn), "{said}");
        assert!(token.is_empty() || !said.contains(token.trim()), "{said}");
        assert!(!host.path("lib/gitlab-runner/config.toml").exists(), "{token}");
        said
    };
    assert!(refused("GR1348941abcdefghijk\n").contains("begins with glrt-"));
    assert!(refused("").contains("begins with glrt-"));
    assert!(refused("glrt-a\"\n[[runners]]\n").contains("characters"));
    host.program("aws", "#!/bin/sh\nexit 254\n");
    assert!(refused(TOKEN).contains("cannot be read"));
}
