//! Checks of the directories and files that this program writes, and of disk and proxy.

use std::io;
use std::path::{Path, PathBuf};

use super::host::METADATA;
use super::machine::{HostMachine, PathSight};
use super::report::DoctorFinding;
use super::service::RunnerService;
use crate::base::human::human_bytes;
use crate::config::settings::Settings;
use crate::operate::settings::{WrittenFile, written_files};

/// Free bytes and inodes that the files of a job need beside its project: its record, its log, its counts.
const LEAST_OF_FILES: u64 = 32 << 20;
const LEAST_FILES: u64 = 200;
/// Free bytes below which a clone fails.
const LEAST_BYTES: u64 = 1 << 30;
const LEAST_INODES: u64 = 10_000;
const FEW_INODES: u64 = 200_000;
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];

/// Directories, disk and proxies of the operator's file.
pub(super) fn storage(machine: &dyn HostMachine, service: &RunnerService, settings: &Settings) -> Vec<DoctorFinding> {
    let runner = &settings.runner;
    let mut findings = vec![
        directory(machine, "host.state_dir", "runner.state_dir", &runner.state_dir),
        directory(machine, "host.builds_dir", "runner.builds_dir", &runner.builds_dir),
        directory(machine, "host.cache_dir", "runner.cache_dir", &runner.cache_dir),
    ];
    findings.extend(written(machine, settings));
    findings.extend(disk(machine, settings));
    findings.extend(full(machine, "runner.state_dir", &runner.state_dir, "no job begins, and none is cleaned up"));
    findings.extend(full(machine, "runner.cache_dir", &runner.cache_dir, "caches are not stored"));
    findings.push(proxy(machine, service));
    findings
}

/// The nearest directory above a path that exists, or the path itself.
fn nearest<'a>(machine: &dyn HostMachine, path: &'a Path) -> Option<(&'a Path, PathSight)> {
    path.ancestors().find_map(|path| Some((path, machine.look(path).ok()?)))
}

fn directory(machine: &dyn HostMachine, id: &'static str, key: &str, path: &Path) -> DoctorFinding {
    let shown = path.display().to_string();
    let change = format!(
        "make it a directory of the runner's user: `install -d -m 0700 -o gitlab-runner {shown}`, or set `{key}` to another"
    );
    let failure = |text: String| DoctorFinding::failure(id, &shown, text, &change);
    let Some((at, sight)) = nearest(machine, path) else { return failure("cannot be looked at".to_owned()) };
    if !sight.is_dir {
        return failure(format!("{} is no directory", at.display()));
    }
    if !sight.is_writable {
        let text = format!("this user cannot write {}", at.display());
        if at != path {
            return failure(text);
        }
        let change = format!(
            "give all of it to the runner's user: `chown -R gitlab-runner: {shown}`, or set `{key}` to another"
        );
        return DoctorFinding::failure(id, &shown, text, change);
    }
    if at != path {
        return DoctorFinding::ok(id, &shown, format!("does not exist yet, and can be made in {}", at.display()));
    }
    // With the sticky bit others cannot replace what is there, but they can put files beside it.
    if sight.mode & 0o002 != 0 {
        return failure(format!("every user of the host can write it (mode {:04o})", sight.mode));
    }
    if id == "host.state_dir"
        && let Some(other) = of_another_user(machine, path)
    {
        let text = format!("{} is of another user: jobs fail there", other.display());
        let change = format!(
            "give all of it to the runner's user: `chown -R gitlab-runner: {shown}`; run no command of this program as root"
        );
        return DoctorFinding::failure(id, &shown, text, change);
    }
    DoctorFinding::ok(id, &shown, "is writable")
}

/// Something in the directory, or one level below, that this user does not own. Root may write all, and tells nothing.
fn of_another_user(machine: &dyn HostMachine, path: &Path) -> Option<PathBuf> {
    let user = machine.user();
    if user == 0 {
        return None;
    }
    let entries = machine.entries(path);
    let below = entries.iter().filter(|(_, sight)| sight.is_dir && sight.owner == user);
    let below: Vec<_> = below.flat_map(|(path, _)| machine.entries(path)).collect();
    let is_other = |(path, sight): &&(PathBuf, PathSight)| sight.owner != user && !path.ends_with("lost+found");
    entries.iter().chain(&below).find(is_other).map(|(path, _)| path.clone())
}

/// The files that the operator's file asks to write.
fn written(machine: &dyn HostMachine, settings: &Settings) -> Vec<DoctorFinding> {
    let finding = |file: WrittenFile<'_>| {
        let shown = file.path.display().to_string();
        let folder = file.path.parent().unwrap_or(Path::new("/"));
        let reason = match machine.look(file.path) {
            Ok(sight) if sight.is_dir => Some("is a directory".to_owned()),
            Ok(sight) if !file.is_replaced => (!sight.is_writable).then(|| "this user cannot append to it".to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Some(format!("this user cannot look at it: {error}"))
            }
            _ => match machine.look(folder) {
                Ok(sight) if sight.is_dir && sight.is_writable => None,
                _ => Some(format!("this user cannot make files in {}", folder.display())),
            },
        };
        let Some(reason) = reason else {
            return DoctorFinding::ok("host.files", shown, format!("can be written (`{}`)", file.key));
        };
        let change = format!("give the file and its folder to the runner's user, or set `{}` to another", file.key);
        if file.is_needed {
            return DoctorFinding::failure(
                "host.files",
                shown,
                format!("`{}`: {reason}; every job is refused", file.key),
                change,
            );
        }
        DoctorFinding::warning(
            "host.files",
            shown,
            format!("`{}`: {reason}; nothing is written there", file.key),
            change,
        )
    };
    written_files(settings).into_iter().map(finding).collect()
}

fn disk(machine: &dyn HostMachine, settings: &Settings) -> Vec<DoctorFinding> {
    let builds = &settings.runner.builds_dir;
    let shown = builds.display().to_string();
    let Some(disk) = nearest(machine, builds).and_then(|(at, _)| machine.disk(at).ok()) else {
        return vec![DoctorFinding::skipped("host.space", shown, "its file system cannot be looked at")];
    };
    let (free, most) = (disk.free_bytes, settings.sandbox.max_bytes);
    let space = if free < LEAST_BYTES {
        let text = format!("{} are free: clones and results fail", human_bytes(free));
        DoctorFinding::failure(
            "host.space",
            &shown,
            text,
            "free some of the disk, or set `runner.builds_dir` to a larger one",
        )
    } else if settings.sandbox.enabled && free < most {
        let text =
            format!("{} are free, and one job may fill {} (`sandbox.max_bytes`)", human_bytes(free), human_bytes(most));
        DoctorFinding::warning(
            "host.space",
            &shown,
            text,
            "set `sandbox.max_bytes` below the free space, or use a larger disk",
        )
    } else {
        DoctorFinding::ok("host.space", &shown, format!("{} are free", human_bytes(free)))
    };
    let inodes = match disk.free_inodes {
        Some(free) if free < LEAST_INODES => {
            let text = format!("{free} inodes are free: clones fail although there is room");
            DoctorFinding::failure(
                "host.inodes",
                &shown,
                text,
                "remove files, or make the file system with more inodes",
            )
        }
        Some(free) if free < FEW_INODES => {
            let text = format!("{free} inodes are free, and one environment of Python has tens of thousands of files");
            DoctorFinding::warning("host.inodes", &shown, text, "make the file system with more inodes, or use XFS")
        }
        Some(free) => DoctorFinding::ok("host.inodes", &shown, format!("{free} inodes are free")),
        None => DoctorFinding::ok("host.inodes", &shown, "the file system makes inodes as they are needed"),
    };
    vec![space, inodes]
}

/// The file system of a directory for small files, when it has no room for these.
fn full(machine: &dyn HostMachine, key: &str, path: &Path, effect: &str) -> Option<DoctorFinding> {
    let shown = path.display().to_string();
    let disk = nearest(machine, path).and_then(|(at, _)| machine.disk(at).ok())?;
    let (id, what) = match disk.free_inodes {
        _ if disk.free_bytes < LEAST_OF_FILES => ("host.space", format!("{} are", human_bytes(disk.free_bytes))),
        Some(free) if free < LEAST_FILES => ("host.inodes", format!("{free} inodes are")),
        _ => return None,
    };
    let text = format!("{what} free for `{key}`: {effect}");
    Some(DoctorFinding::failure(id, shown, text, format!("free some of that disk, or set `{key}` to another")))
}

fn proxy(machine: &dyn HostMachine, service: &RunnerService) -> DoctorFinding {
    if let Some(unread) = service.unread() {
        let text =
            "could not be read, and may set a proxy; where it is a file of root alone, run `doctor` once as root";
        return DoctorFinding::skipped("host.proxy", unread, text);
    }
    let value = |name: &str| service.variable(machine, name);
    let Some(name) = PROXIES.into_iter().find(|name| value(name).is_some()) else {
        return DoctorFinding::ok("host.proxy", "", "no proxy is set");
    };
    let beside = ["no_proxy", "NO_PROXY"].into_iter().find_map(value).unwrap_or_default();
    if beside.split(',').any(|host| [METADATA, "169.254.0.0/16", "*"].contains(&host.trim())) {
        return DoctorFinding::ok("host.proxy", name, format!("is set, and {METADATA} is in `no_proxy`"));
    }
    DoctorFinding::warning(
        "host.proxy",
        name,
        format!(
            "is set, and `no_proxy` does not have {METADATA}: programs ask the proxy for the credentials of the instance"
        ),
        format!("add `{METADATA}` to `no_proxy` in the environment of the runner's service"),
    )
}
