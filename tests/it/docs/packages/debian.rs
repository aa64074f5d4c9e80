//! A bare Debian 12 root made by debootstrap, in which the packages are installed, and in which pages of the documentation run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use crate::conformance::{shown, skipped};
use crate::support::waiting::find_program;

/// Makes a folder the root of a mount namespace, as it is on a machine of its own: bubblewrap needs a root that is a mount.
const ENTER: &str = r#"mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && cd "$0" && pivot_root . mnt && umount -l /mnt && cd / && exec /bin/sh -c "$1""#;

/// Where the tests put files from outside, for commands that expect them in the current directory.
pub(super) const DOWNLOADS: &str = "root/downloads";

/// A Debian root, which ends with the test. Network and user ids are those of this machine.
pub(super) struct Debian {
    folder: tempfile::TempDir,
}

impl Debian {
    /// A root with the packages of `debootstrap --variant=minbase` alone; `None`, which is told, where none can be made.
    pub(super) fn bare(test: &str) -> Option<Self> {
        if find_program("debootstrap").is_none() || !rustix::process::geteuid().is_root() {
            skipped(test, "no debootstrap, or another user than root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(made_once().join(".")).arg(folder.path()).output().unwrap();
        assert!(copied.status.success(), "{}", shown(&copied));
        std::fs::create_dir_all(folder.path().join(DOWNLOADS)).unwrap();
        // The root does not outlive the machine: dpkg need not wait for the disk after each file.
        std::fs::write(folder.path().join("etc/dpkg/dpkg.cfg.d/quick"), "force-unsafe-io\n").unwrap();
        Some(Self { folder })
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Copies a file into [`DOWNLOADS`], under its own name.
    pub(super) fn download(&self, file: &Path) {
        std::fs::copy(file, self.path(DOWNLOADS).join(file.file_name().unwrap())).unwrap();
    }

    /// Runs a script of `sh` as root. Processes that it leaves end with it.
    pub(super) fn run(&self, script: &str) -> Output {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "sh", "-c", ENTER]).arg(self.folder.path()).arg(script);
        command.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        command.output().unwrap()
    }

    /// Output and errors of a script that succeeds.
    #[track_caller]
    pub(super) fn ok(&self, script: &str) -> String {
        let ended = self.run(script);
        assert!(ended.status.success(), "{script}: {}", shown(&ended));
        shown(&ended)
    }

    /// The mode of a file or folder, its user and its group, as `stat` tells them.
    #[track_caller]
    pub(super) fn owned(&self, file: &str) -> String {
        self.ok(&format!("stat --format='%a %U %G' {file}")).trim().to_owned()
    }
}

/// The root that others are copied from. It stays in the target folder for later runs, whose `apt-get update` brings newer lists.
fn made_once() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap();
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-12");
    if !base.exists() {
        let unfinished = tempfile::Builder::new().prefix("debian-12-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = unfinished.path().join("root");
        let mut command = Command::new("debootstrap");
        let made = command.args(["--variant=minbase", "bookworm"]).arg(&root).output().unwrap();
        assert!(made.status.success(), "{}", shown(&made));
        std::fs::rename(&root, &base).unwrap();
    }
    base
}
