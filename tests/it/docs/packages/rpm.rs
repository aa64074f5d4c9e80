//! The package for RPM, with `PACKAGES`: installed, upgraded from an earlier version with a changed configuration, and removed, by rpm with its
//! own database in a Debian root.

use super::debian::Debian;
use super::{built, packages};
use crate::conformance::{shown, skipped};

const OPERATOR: &str = "/etc/sagemaker-executor/sagemaker-executor.toml";
const COPY: &str = "usr/lib/sagemaker-executor/bwrap";
const WANTED: &str = "etc/systemd/system/timers.target.wants/sagemaker-executor-sweep.timer";

/// Provides what Debian's packages have brought, which rpm's database does not know of.
const STAND_IN: &str = "Name: debian\nVersion: 12\nRelease: 1\nSummary: Stand-in\nLicense: none\nBuildArch: noarch\n\
     Provides: /bin/sh bash git ca-certificates systemd\n%description\nStand-in.\n%files\n";

/// A version before all others: the files of the package, with another program and another sample, and the scripts of this repository.
const EARLIER: &str = "Name: sagemaker-executor\nVersion: 0.0.1\nRelease: 1\nSummary: Earlier\nLicense: none\nAutoReqProv: no\n%global __os_install_post %{nil}\n\
     %description\nEarlier.\n%install\ncd %{buildroot}\nrpm2cpio /tmp/package.rpm | cpio --extract --make-directories --quiet\n\
     cp /bin/true usr/bin/sagemaker-executor\necho '# earlier' >>etc/sagemaker-executor/sagemaker-executor.toml\n\
     %post -f /tmp/postinst\n%preun -f /tmp/prerm\n%files\n/usr\n%config(noreplace) /etc/sagemaker-executor/sagemaker-executor.toml\n\
     %config(noreplace) /etc/logrotate.d/sagemaker-executor\n";

#[test]
fn a_package_for_rpm_is_installed_upgraded_and_removed() {
    let test = "a package for RPM";
    let Some(folder) = packages() else {
        return skipped(test, "PACKAGES names no folder of `.ci/package`");
    };
    let Some(debian) = Debian::bare(test) else { return };
    std::fs::copy(built(&folder, ".rpm"), debian.path("tmp/package.rpm")).unwrap();
    for script in ["postinst", "prerm"] {
        let of_package = crate::docs::root().join("runner-config/package").join(script);
        std::fs::copy(of_package, debian.path("tmp").join(script)).unwrap();
    }
    debian.ok("apt-get update && apt-get install --yes --no-install-recommends rpm cpio bubblewrap systemd git");
    let refused = debian.run("rpm --install /tmp/package.rpm");
    let told = shown(&refused);
    assert!(
        !refused.status.success() && told.contains("git is needed") && told.contains("systemd is needed"),
        "{told}"
    );
    for (name, spec) in [("debian", STAND_IN), ("earlier", EARLIER)] {
        std::fs::write(debian.path(&format!("tmp/{name}.spec")), spec).unwrap();
        debian.ok(&format!("rpmbuild --quiet -bb --define '_rpmdir /tmp' /tmp/{name}.spec"));
    }
    debian.ok("rpm --install /tmp/noarch/debian-12-1.noarch.rpm");

    fresh(&debian);
    debian.ok("rpm --erase sagemaker-executor");
    assert!(!debian.path("usr/bin/sagemaker-executor").exists());

    // A system with AppArmor 4: the copy of bubblewrap shows which scripts ran, and with which word.
    debian.ok("mkdir -p /etc/apparmor.d/abi && touch /etc/apparmor.d/abi/4.0");
    debian.ok("rpm --install /tmp/x86_64/sagemaker-executor-0.0.1-1.x86_64.rpm");
    debian.ok(&format!("echo '# ours' >>{OPERATOR} && systemctl enable sagemaker-executor-sweep.timer"));
    debian.ok("(exec 3</usr/bin/sagemaker-executor; rpm --upgrade /tmp/package.rpm; cmp /proc/self/fd/3 /bin/true)");
    assert!(debian.ok("sagemaker-executor --version").contains(env!("CARGO_PKG_VERSION")));
    assert!(debian.ok("rpm --query sagemaker-executor").contains(env!("CARGO_PKG_VERSION")));
    assert!(debian.ok(&format!("tail -1 {OPERATOR}")).contains("# ours"));
    assert!(!debian.ok(&format!("cat {OPERATOR}.rpmnew")).contains("# earlier"));
    assert_eq!(debian.owned(&format!("/{COPY}")), "750 root gitlab-runner");
    assert!(debian.path(WANTED).is_symlink());

    // And back.
    debian.ok("rpm --upgrade --oldpackage /tmp/x86_64/sagemaker-executor-0.0.1-1.x86_64.rpm");
    assert!(debian.path(COPY).exists() && debian.ok(&format!("tail -1 {OPERATOR}")).contains("# ours"));
    debian.ok("rpm --upgrade /tmp/package.rpm && rpm --erase sagemaker-executor");
    assert!(!debian.path("usr/bin/sagemaker-executor").exists() && !debian.path(COPY).exists());
    assert!(debian.ok(&format!("tail -1 {OPERATOR}.rpmsave")).contains("# ours"));
    assert!(debian.path("var/lib/sagemaker-executor").exists(), "records of jobs are nobody's to remove");
}

fn fresh(debian: &Debian) {
    let installed = debian.ok("rpm --install /tmp/package.rpm");
    // Debian's rpm warns of its own use, and systemd tells the user that it makes.
    let is_expected = |line: &&str| line.is_empty() || line.starts_with("rpm: ") || line.starts_with("Creating ");
    let others: Vec<_> = installed.lines().filter(|line| !is_expected(line)).collect();
    assert!(others.is_empty(), "{others:?}");
    // Owners, modes and contents of all files are those that the package tells.
    assert_eq!(debian.ok("rpm --verify sagemaker-executor").trim(), "");
    assert!(debian.ok("sagemaker-executor --version").contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(debian.owned("/var/lib/sagemaker-executor"), "700 gitlab-runner gitlab-runner");
    assert_eq!(debian.owned("~gitlab-runner"), "700 gitlab-runner gitlab-runner");
    let configuration = debian.ok("rpm --query --configfiles sagemaker-executor");
    assert!(configuration.contains(OPERATOR) && configuration.contains("/etc/logrotate.d/sagemaker-executor"));
    let scripts = debian.ok("rpm --query --scripts sagemaker-executor");
    assert!(scripts.contains("postinstall") && scripts.contains("preuninstall"), "{scripts}");
}
