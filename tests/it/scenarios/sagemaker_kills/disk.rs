//! A small file system in place of a desk's directory, in a mount namespace of its own: the drivers run inside, and this process fills it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::scenarios::sagemaker_desk::Desk;
use crate::support::driver::write_program;
use crate::support::waiting::{find_program, tell};

/// The thing that the file system has no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Room,
    Inodes,
    /// Nothing can be written.
    Writing,
}

/// The namespace, which ends with the process in it.
pub(super) struct Disk {
    holder: Child,
    folder: PathBuf,
    /// The driver itself; the desk's program enters the namespace first.
    driver: PathBuf,
}

impl Disk {
    /// Mounts it over a folder of the desk, whose files it gets. `None` where mount namespaces cannot be made.
    pub(super) fn mounted(desk: &mut Desk, folder: &str) -> Option<Self> {
        let (unshare, nsenter) = find_program("unshare").zip(find_program("nsenter"))?;
        let (folder, backup) = (desk.root().join(folder), desk.root().join("before-the-mount"));
        let _ = std::fs::remove_dir_all(&backup);
        std::fs::create_dir_all(&backup).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let script =
            "set -e; cp -a \"$FOLDER/.\" \"$BACKUP\"; mount -t tmpfs -o size=4m,nr_inodes=600 tmpfs \"$FOLDER\"
            cp -a \"$BACKUP/.\" \"$FOLDER\"; echo mounted; exec cat > /dev/null";
        let mut holder = Command::new(unshare)
            .args(["-rm", "bash", "-c", script])
            .env("FOLDER", &folder)
            .env("BACKUP", &backup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare is a program");
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.take().expect("it is a pipe")).read_line(&mut line);
        std::fs::remove_dir_all(&backup).unwrap();
        if line != "mounted\n" {
            tell("SKIPPED: trials with a disk: no mount namespaces here");
            drop(holder.stdin.take());
            let _ = holder.wait();
            return None;
        }
        let inside = desk.root().join("in-the-namespace");
        let driver = std::mem::replace(&mut desk.program, inside);
        let script = format!(
            "#!/usr/bin/env bash\nexec '{}' -t {} -U -m --preserve-credentials '{}' \"$@\"\n",
            nsenter.display(),
            holder.id(),
            driver.display()
        );
        write_program(&desk.program, &script);
        Some(Self { holder, folder, driver })
    }

    /// The folder as the namespace has it.
    fn inside(&self) -> PathBuf {
        let relative = self.folder.strip_prefix("/").expect("the folder's path is absolute");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(relative)
    }

    /// From now on it lacks this.
    pub(super) fn lacks(&self, lack: Lack) {
        let inside = self.inside();
        match lack {
            Lack::Room => {
                let filled = std::io::copy(
                    &mut std::io::repeat(0),
                    &mut std::fs::File::create(inside.join("filler")).expect("a file can be made"),
                );
                assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
            }
            Lack::Inodes => {
                let made = (0..1_000_000)
                    .find(|number| std::fs::File::create(inside.join(format!("filler-{number}"))).is_err());
                assert!(made.is_some());
            }
            Lack::Writing => {
                let holder = self.holder.id().to_string();
                let remounted = Command::new("nsenter")
                    .args(["-t", &holder, "-U", "-m", "--preserve-credentials", "mount", "-o", "remount,ro"])
                    .arg(&self.folder)
                    .status();
                assert!(remounted.expect("nsenter is a program").success(), "the disk stays writable");
            }
        }
    }

    /// Ends the namespace; the desk's folder gets its files, but not what filled it.
    pub(super) fn unmounted(mut self, desk: &mut Desk) {
        let copy = desk.root().join("after-the-mount");
        let copied = Command::new("cp").arg("-a").arg(self.inside()).arg(&copy).status();
        assert!(copied.expect("cp is a program").success(), "the files cannot be copied");
        // This ends the mount as well.
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::rename(&copy, &self.folder).unwrap();
        for entry in std::fs::read_dir(&self.folder).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        desk.program = std::mem::take(&mut self.driver);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
