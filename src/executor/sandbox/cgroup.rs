//! A control group (cgroup v2) for one stage, beside the runner's own group, where the service manager gives the runner's service a group to
//! divide (`Delegate=yes`). Its limits hold for the whole stage, and for root too.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::base::failure::Failure;

/// Controllers that the limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Begins the names of the groups; the id of the driver's process follows.
const PREFIX: &str = "sagemaker-executor-";
/// Marks of systemd on a group that it gave away.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// Attempts to remove a group whose last process is about to end, 10 ms apart.
const ATTEMPTS: usize = 100;
/// Moves its own process into a group and becomes the program.
const ENTER: &str = r#"echo 0 > "$0" && exec "$@""#;

/// The group of a stage. Dropped, it is removed when it is empty; the next stage of the host removes it otherwise.
#[derive(Debug)]
pub(super) struct StageGroup {
    directory: PathBuf,
}

impl StageGroup {
    /// Makes a group with the limits; `None` on a host that gives the driver no group to divide.
    pub(super) fn create(processes: u64, memory: u64) -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let parent = place(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        // To root every group is open.
        if rustix::process::geteuid().is_root() && !is_given(&parent) {
            return None;
        }
        Self::below(&parent, processes, memory)
    }

    fn below(parent: &Path, processes: u64, memory: u64) -> Option<Self> {
        let offered = std::fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
        if CONTROLLERS.iter().any(|needed| !offered.split_whitespace().any(|name| name == *needed)) {
            return None;
        }
        remove_left(parent);
        // Refused where the group has processes of its own.
        std::fs::write(parent.join("cgroup.subtree_control"), "+memory +pids").ok()?;
        let directory = parent.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&directory).ok()?;
        let group = Self { directory };
        for (file, most) in [("pids.max", processes), ("memory.max", memory)] {
            std::fs::write(group.directory.join(file), most.to_string()).ok()?;
        }
        // Absent where the kernel counts no swap.
        let _ = std::fs::write(group.directory.join("memory.swap.max"), "0");
        Some(group)
    }

    /// A command that runs the program in the group, with the arguments that follow.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ENTER]).arg(self.directory.join("cgroup.procs")).arg(program);
        command
    }

    /// The limit that the kernel has applied, if it has.
    pub(super) fn broken_limit(&self) -> Option<Failure> {
        if self.count("memory.events", "oom_kill") > 0 {
            let failure = Failure::user("the processes of this stage together used more memory than a stage may");
            return Some(
                failure.hint("use less memory; the limit is `sandbox.max_memory_bytes` of the operator's file"),
            );
        }
        (self.count("pids.events", "max") > 0).then(too_many_processes)
    }

    fn count(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        let of = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(of).unwrap_or_default()
    }

    /// Removes the group once its processes have ended.
    pub(super) async fn remove(&self) {
        for _ in 0..ATTEMPTS {
            match std::fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                _ => return,
            }
        }
    }
}

impl Drop for StageGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// The failure of a stage with too many processes, whatever counted them.
pub(super) fn too_many_processes() -> Failure {
    Failure::user("this stage started more processes than a stage may")
        .hint("start fewer at once; the limit is `sandbox.max_processes` of the operator's file")
}

/// The group that holds the one of this process, from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`. Pure. A group that limits
/// its children may have no processes of its own, so the group of this process cannot be divided.
fn place(own: &str, mounts: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (left, kind) = line.split_once(" - ")?;
        let mut words = left.split(' ').skip(3);
        kind.starts_with("cgroup2 ").then(|| Some((words.next()?, words.next()?)))?
    })?;
    let own = Path::new(own).strip_prefix(root).ok()?;
    let is_below = own.components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| own.parent().map(|parent| Path::new(mount).join(parent)))?
}

fn is_given(group: &Path) -> bool {
    MARKS.iter().any(|mark| matches!(rustix::fs::getxattr(group, *mark, &mut [0; 8][..]), Ok(1)))
}

/// Removes groups of drivers that were killed. The kernel removes no group that has processes.
fn remove_left(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let driver = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if driver.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str =
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_stages_group_lies_beside_the_drivers() {
        let place = |own: &str, mounts: &str| place(own, mounts).map(|path| path.to_string_lossy().into_owned());
        let service = Some("/sys/fs/cgroup/system.slice/gitlab-runner.service".to_owned());
        assert_eq!(place("0::/system.slice/gitlab-runner.service/runner\n", MOUNTS), service);
        assert_eq!(place("0::/runner\n", MOUNTS), Some("/sys/fs/cgroup/".to_owned()));
        // Hosts with the first version beside the second.
        assert_eq!(place("4:memory:/a\n0::/a/b\n", MOUNTS), Some("/sys/fs/cgroup/a".to_owned()));
        let below = MOUNTS.replace(" / /sys", " /docker/1 /sys");
        assert_eq!(place("0::/docker/1/runner/leaf", &below), Some("/sys/fs/cgroup/runner".to_owned()));
        for (own, mounts) in [
            ("0::/", MOUNTS),
            ("4:memory:/a\n", MOUNTS),
            ("0::/../other/leaf", MOUNTS),
            ("0::/elsewhere/leaf", &below),
            ("0::/a/b", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"),
        ] {
            assert_eq!(place(own, mounts), None, "{own}");
        }
    }

    fn service(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        folder
    }

    #[test]
    fn a_group_has_both_limits() {
        let service = service("cpu memory pids\n");
        let group = StageGroup::below(service.path(), 7, 99).unwrap();
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        assert_eq!(text(service.path().join("cgroup.subtree_control")), "+memory +pids");
        assert_eq!(text(group.directory.join("pids.max")), "7");
        assert_eq!(text(group.directory.join("memory.max")), "99");
        assert!(StageGroup::below(service.path(), 7, 99).is_none(), "there is one for each driver");
    }

    #[test]
    fn a_group_that_offers_too_little_is_not_divided() {
        for controllers in ["", "cpu memory\n", "pids\n", "memory_x pids\n"] {
            assert!(StageGroup::below(service(controllers).path(), 7, 99).is_none(), "{controllers}");
        }
        let closed = service("memory pids");
        std::fs::create_dir(closed.path().join("cgroup.subtree_control")).unwrap();
        assert!(StageGroup::below(closed.path(), 7, 99).is_none());
    }

    #[test]
    fn groups_of_killed_drivers_are_removed() {
        let service = service("memory pids");
        let named = |pid: &str| service.path().join(format!("{PREFIX}{pid}"));
        for pid in ["1", "999999999"] {
            std::fs::create_dir(named(pid)).unwrap();
        }
        remove_left(service.path());
        assert!(named("1").exists() && !named("999999999").exists());
    }

    #[test]
    fn the_limit_that_was_applied_is_named() {
        let service = service("memory pids");
        let group = StageGroup::below(service.path(), 7, 99).unwrap();
        let write = |file: &str, text: &str| std::fs::write(group.directory.join(file), text).unwrap();
        assert!(group.broken_limit().is_none());
        write("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n");
        write("pids.events", "max 0\n");
        assert!(group.broken_limit().is_none());
        write("pids.events", "max 3\n");
        assert!(format!("{:?}", group.broken_limit()).contains("`sandbox.max_processes`"));
        write("memory.events", "max 9\noom 1\noom_kill 1\n");
        assert!(format!("{:?}", group.broken_limit()).contains("`sandbox.max_memory_bytes`"));
    }
}
