//! Debian's package in a Debian root, with `PACKAGES`: installed, changed, upgraded, removed and purged; its files as the system's own
//! tools read them.

use super::debian::Debian;
use super::{built, packages};
use crate::conformance::skipped;

const OPERATOR: &str = "etc/sagemaker-executor/sagemaker-executor.toml";
const COPY: &str = "usr/lib/sagemaker-executor/bwrap";
const PROFILE: &str = "etc/apparmor.d/sagemaker-executor-bwrap";

#[test]
fn a_package_is_installed_upgraded_and_removed() {
    let test = "a package in a Debian root";
    let Some(folder) = packages() else {
        return skipped(test, "PACKAGES names no folder of `.ci/package`");
    };
    let Some(debian) = Debian::bare(test) else { return };
    std::fs::copy(built(&folder, ".deb"), debian.path("tmp/package.deb")).unwrap();
    debian.ok("apt-get update && apt-get install --yes /tmp/package.deb logrotate");
    is_installed(&debian);
    the_system_reads_its_files(&debian);
    let operator = format!("/{OPERATOR}");
    debian.ok(&format!("echo '# ours' >> {operator}"));
    debian.ok("systemctl enable sagemaker-executor-sweep.timer sagemaker-executor-sweep@team-b.timer");
    // A system with AppArmor 4: the sandbox gets its own copy of bubblewrap.
    debian.ok("mkdir -p /etc/apparmor.d/abi && touch /etc/apparmor.d/abi/4.0");
    // A stage that runs during the upgrade goes on with its own program: here one that is not the package's.
    debian.ok(
        "cp /bin/true /usr/bin/sagemaker-executor; \
         (exec 3</usr/bin/sagemaker-executor; dpkg --install --force-confold /tmp/package.deb; cmp /proc/self/fd/3 /bin/true)",
    );
    assert!(debian.ok("sagemaker-executor --version").contains(env!("CARGO_PKG_VERSION")));
    assert!(debian.ok(&format!("tail -1 {operator}")).contains("# ours"));
    assert!(debian.path("etc/systemd/system/timers.target.wants/sagemaker-executor-sweep.timer").is_symlink());
    assert_eq!(debian.owned(&format!("/{COPY}")), "750 root gitlab-runner");
    assert!(debian.path(PROFILE).is_file());
    debian.ok("dpkg --remove sagemaker-executor");
    assert!(!debian.path("usr/bin/sagemaker-executor").exists() && debian.path(OPERATOR).exists());
    assert!(!debian.path(COPY).exists() && !debian.path(PROFILE).exists());
    debian.ok("dpkg --purge sagemaker-executor");
    assert!(!debian.path(OPERATOR).exists());
    assert!(debian.path("var/lib/sagemaker-executor").exists(), "records of jobs are nobody's to remove");
}

fn is_installed(debian: &Debian) {
    assert!(debian.ok("sagemaker-executor --version").contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(debian.owned("/var/lib/sagemaker-executor"), "700 gitlab-runner gitlab-runner");
    assert_eq!(debian.owned("/var/log/sagemaker-executor"), "750 gitlab-runner gitlab-runner");
    assert_eq!(debian.owned("~gitlab-runner"), "700 gitlab-runner gitlab-runner");
    assert_eq!(debian.owned(&format!("/{OPERATOR}")), "644 root root");
    for file in ["usr/share/bash-completion/completions/sagemaker-executor", "etc/logrotate.d/sagemaker-executor"] {
        assert!(debian.path(file).is_file(), "{file}");
    }
    let pages = std::fs::read_dir(debian.path("usr/share/man/man1")).unwrap();
    let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|name| name.starts_with("sagemaker-executor")).count() > 20);
    // Debian 12 has AppArmor 3, which keeps no namespaces from programs.
    assert!(!debian.path(COPY).exists() && !debian.path(PROFILE).exists());
}

/// Where no double stands for program, user and folders.
fn the_system_reads_its_files(debian: &Debian) {
    let rotated = debian.ok(
        "touch /var/log/sagemaker-executor/executor.log && chown gitlab-runner: /var/log/sagemaker-executor/executor.log && \
         echo line >>/var/log/sagemaker-executor/executor.log && logrotate --force /etc/logrotate.d/sagemaker-executor && \
         ls /var/log/sagemaker-executor && logrotate --debug /etc/logrotate.d/sagemaker-executor 2>&1",
    );
    assert!(rotated.contains("executor.log.1") && !rotated.contains("error"), "{rotated}");
    assert_eq!(debian.owned("/var/log/sagemaker-executor/executor.log"), "640 gitlab-runner gitlab-runner");
    let folder = "/usr/lib/systemd/system/sagemaker-executor-sweep";
    let verified = debian
        .ok(&format!("systemd-analyze verify --man=no {folder}.service {folder}.timer {folder}@team-b.timer 2>&1"));
    assert_eq!(verified.trim(), "");
    // Users and folders in another root, such as that of an image.
    let made = debian.ok(
        "mkdir -p /tmp/image/etc && systemd-sysusers --root=/tmp/image /usr/lib/sysusers.d/sagemaker-executor.conf && \
         systemd-tmpfiles --root=/tmp/image --create /usr/lib/tmpfiles.d/sagemaker-executor.conf && \
         cat /tmp/image/etc/passwd && ls /tmp/image/var/lib",
    );
    assert!(made.contains("gitlab-runner:x:") && made.contains("sagemaker-executor"), "{made}");
}
