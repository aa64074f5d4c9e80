//! Checks of this host: the runner's program and user, tools, sandbox, clock, timer.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::machine::HostMachine;
use super::report::DoctorFinding;
use super::service::{RunnerService, SERVICE};
use crate::config::settings::Settings;

/// The executor reads `BUILD_EXIT_CODE_FILE` and `JOB_RESPONSE_FILE`, which earlier runners do not set.
const LEAST_RUNNER: (u32, u32) = (16, 9);
/// The version whose contract the driver follows.
const KNOWN_RUNNER: u32 = 19;
const LEAST_BUBBLEWRAP: (u32, u32) = (0, 7);
/// AWS refuses requests that are five minutes off.
const MOST_SKEW: Duration = Duration::from_mins(4);
const SOME_SKEW: Duration = Duration::from_secs(30);
const TIMER: &str = "sagemaker-executor-sweep.timer";
/// Address of the metadata service of instances.
pub(super) const METADATA: &str = "169.254.169.254";

/// The first two numbers of a version in a text.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let is_version =
        |word: &&str| word.split('.').count() > 1 && word.starts_with(|first: char| first.is_ascii_digit());
    let word = text.split_whitespace().map(|word| word.trim_start_matches('v')).find(is_version)?;
    let mut numbers = word.split('.').map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// GitLab Runner's program, its version and its user.
pub(super) async fn runner(machine: &dyn HostMachine, service: &RunnerService) -> Vec<DoctorFinding> {
    let Some(path) = service.find(machine, "gitlab-runner") else {
        let change = "install GitLab Runner, or put its folder into the PATH of the runner's service (`Environment=PATH=...` in its systemd unit)";
        let text = "host stages call it by this name for artifacts and caches";
        return vec![
            absent(service, "runner.program", "gitlab-runner", (text, change)),
            DoctorFinding::waiting("runner.version", "runner.program"),
            runner_user(machine, service),
        ];
    };
    let shown = path.display().to_string();
    let told = machine.output(&shown, &["--version"]).await.ok().and_then(|text| version(&text));
    let version = match told {
        None => DoctorFinding::skipped("runner.version", &shown, "does not tell its version"),
        Some(found) if found < LEAST_RUNNER => DoctorFinding::failure(
            "runner.version",
            &shown,
            format!("is version {}.{}, and the executor needs {}.{}", found.0, found.1, LEAST_RUNNER.0, LEAST_RUNNER.1),
            format!("install GitLab Runner {KNOWN_RUNNER}"),
        ),
        Some((major, minor)) if major != KNOWN_RUNNER => DoctorFinding::warning(
            "runner.version",
            &shown,
            format!("is version {major}.{minor}; the executor follows the contract of GitLab Runner {KNOWN_RUNNER}"),
            format!("install GitLab Runner {KNOWN_RUNNER}, or try a job with artifacts before others use it"),
        ),
        Some((major, minor)) => DoctorFinding::ok("runner.version", &shown, format!("is version {major}.{minor}")),
    };
    let found = DoctorFinding::ok("runner.program", &shown, format!("is in {}", service.named_path()));
    vec![found, version, runner_user(machine, service)]
}

/// A program that is not in the `PATH` of the stages, as far as that is known.
fn absent(service: &RunnerService, id: &'static str, program: &str, (why, change): (&str, &str)) -> DoctorFinding {
    let text = format!("is not in {}", service.named_path());
    if service.unread().is_some() {
        return DoctorFinding::skipped(id, program, text);
    }
    DoctorFinding::failure(id, program, format!("{text}; {why}"), change)
}

fn runner_user(machine: &dyn HostMachine, service: &RunnerService) -> DoctorFinding {
    if !service.is_told {
        return DoctorFinding::skipped(
            "runner.user",
            SERVICE,
            "systemctl does not answer; run `doctor` as the user of the runner's service",
        );
    }
    if !service.is_loaded {
        return DoctorFinding::skipped(
            "runner.user",
            SERVICE,
            "is not installed; run `doctor` as the user that GitLab Runner runs as",
        );
    }
    let (user, sudo) = (&service.user, service.sudo_user());
    match service.user_id {
        None => DoctorFinding::skipped(
            "runner.user",
            SERVICE,
            format!("runs as {user}, whose number neither `/etc/passwd` nor `id` tells; run `doctor` as that user"),
        ),
        Some(id) if id != machine.user() => DoctorFinding::warning(
            "runner.user",
            SERVICE,
            format!(
                "runs as {user}, and this command as another user: what it says of directories, sandbox and credentials may differ"
            ),
            format!(
                "run `sudo -u {sudo} sagemaker-executor doctor`; where {user} may not read `config.toml`, what this run says of that file counts"
            ),
        ),
        Some(_) => DoctorFinding::ok("runner.user", SERVICE, format!("runs as {user}")),
    }
}

/// Shell, git and, unless the sandbox is switched off, bubblewrap.
pub(super) async fn tools(
    machine: &dyn HostMachine,
    service: &RunnerService,
    settings: Option<&Settings>,
) -> Vec<DoctorFinding> {
    let shell = settings.map_or("bash", |settings| settings.runner.shell.as_str());
    let of_bubblewrap = async { if has_sandbox(settings) { Some(bubblewrap(machine, service).await) } else { None } };
    let shell = of_shell(machine, service, shell);
    let (shell, git, bubblewrap) = tokio::join!(shell, git(machine, service), of_bubblewrap);
    [shell, git].into_iter().chain(bubblewrap).collect()
}

fn has_sandbox(settings: Option<&Settings>) -> bool {
    settings.is_none_or(|settings| settings.sandbox.enabled)
}

/// A sandbox that was made for the check, and whether the metadata service can be reached from it; or why none could be made.
#[derive(Debug)]
pub(super) struct SandboxTrial(Result<Result<bool, String>, String>);

/// Makes a sandbox; none where the operator's file switches it off. It needs nothing of the service.
pub(super) async fn try_sandbox(machine: &dyn HostMachine, settings: Option<&Settings>) -> Option<SandboxTrial> {
    if !has_sandbox(settings) {
        return None;
    }
    Some(SandboxTrial(match machine.try_sandbox().await {
        Ok(()) => Ok(machine.reaches_metadata().await),
        Err(text) => Err(text),
    }))
}

/// Findings of the trial. Without the program the finding about that tells all.
pub(super) fn sandbox(
    machine: &dyn HostMachine,
    service: &RunnerService,
    trial: Option<SandboxTrial>,
) -> Vec<DoctorFinding> {
    let Some(trial) = trial else {
        let text = "`sandbox.enabled` is false: the author of a job can run commands as the runner's user";
        let change = "remove `enabled` from `[sandbox]`, and read docs/THREAT-MODEL.md before it is set again";
        return vec![DoctorFinding::warning("host.sandbox", "", text, change)];
    };
    if service.find(machine, "bwrap").is_none() {
        return ["host.sandbox", "host.metadata"].map(|id| DoctorFinding::waiting(id, "host.bubblewrap")).into();
    }
    match trial.0 {
        Ok(reaches) => {
            let made = DoctorFinding::ok("host.sandbox", "bwrap", "makes the sandbox of the host stages");
            vec![made, metadata(reaches)]
        }
        Err(text) => {
            let text = text.trim_start_matches("error: ");
            let failed = DoctorFinding::failure("host.sandbox", "bwrap", text, namespaces(machine));
            vec![failed, DoctorFinding::waiting("host.metadata", "host.sandbox")]
        }
    }
}

async fn of_shell(machine: &dyn HostMachine, service: &RunnerService, shell: &str) -> DoctorFinding {
    if let Some(path) = service.find(machine, shell) {
        let shown = path.display().to_string();
        let told = machine.output(&shown, &["-c", "echo it runs"]).await.unwrap_or_default();
        if told.trim_end() == "it runs" {
            return DoctorFinding::ok("host.shell", shell, format!("is {shown}"));
        }
        let text = format!("{shown} runs no command: `{shown} -c 'echo it runs'` does not print the text");
        let change = format!("install `{shell}` again, or set `runner.shell` in the operator's file to another");
        return DoctorFinding::failure("host.shell", shell, text, change);
    }
    let change = format!("install `{shell}`, or set `runner.shell` in the operator's file to one that is there");
    absent(service, "host.shell", shell, ("the host stages need it", &change))
}

async fn git(machine: &dyn HostMachine, service: &RunnerService) -> DoctorFinding {
    let Some(path) = service.find(machine, "git") else {
        let change = "install `git` (and `git-lfs`), or add its folder to the PATH of the runner's service";
        return absent(service, "host.git", "git", ("sources are fetched on this host", change));
    };
    let told = machine.output(&path.display().to_string(), &["--version"]).await.ok().and_then(|text| version(&text));
    let Some((major, minor)) = told else {
        let text = format!("{} does not run: `git --version` tells no version", path.display());
        return DoctorFinding::failure("host.git", "git", text, "install the package `git` again");
    };
    if service.find(machine, "git-lfs").is_none() {
        if service.unread().is_some() {
            return DoctorFinding::skipped("host.git", "git-lfs", format!("is not in {}", service.named_path()));
        }
        let path = service.named_path();
        let text = format!("`git-lfs` is not in {path}: projects with large files get pointers in place of them");
        return DoctorFinding::warning("host.git", "git-lfs", text, "install the package `git-lfs`");
    }
    DoctorFinding::ok("host.git", "git", format!("is {}, version {major}.{minor}", path.display()))
}

async fn bubblewrap(machine: &dyn HostMachine, service: &RunnerService) -> DoctorFinding {
    let change = "install the package `bubblewrap`, 0.7 or newer";
    let Some(path) = service.find(machine, "bwrap") else {
        return absent(service, "host.bubblewrap", "bwrap", ("the sandbox of the host stages needs it", change));
    };
    match machine.output(&path.display().to_string(), &["--version"]).await.ok().and_then(|text| version(&text)) {
        Some(found) if found < LEAST_BUBBLEWRAP => {
            let text = format!("is version {}.{}; the sandbox needs 0.7", found.0, found.1);
            DoctorFinding::failure("host.bubblewrap", "bwrap", text, change)
        }
        Some((major, minor)) => DoctorFinding::ok("host.bubblewrap", "bwrap", format!("is version {major}.{minor}")),
        None => DoctorFinding::skipped("host.bubblewrap", "bwrap", "does not tell its version"),
    }
}

/// The setting of the kernel that most likely stands in the way.
fn namespaces(machine: &dyn HostMachine) -> String {
    let read = |name: &str| machine.read(&Path::new("/proc/sys").join(name)).ok().map(|text| text.trim().to_owned());
    let is = |name: &str, value: &str| read(name).as_deref() == Some(value);
    if is("user/max_user_namespaces", "0") {
        return "set `user.max_user_namespaces` above 0 with sysctl: it is 0".to_owned();
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return "set `kernel.unprivileged_userns_clone = 1` with sysctl: it is 0".to_owned();
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "give `/usr/bin/bwrap` an AppArmor profile with `userns`: `kernel.apparmor_restrict_unprivileged_userns` is 1".to_owned();
    }
    "let the runner's user make user namespaces; the row has the settings of each distribution".to_owned()
}

fn metadata(reaches: Result<bool, String>) -> DoctorFinding {
    match reaches {
        Ok(false) => DoctorFinding::ok("host.metadata", METADATA, "cannot be reached from the sandbox"),
        Ok(true) => DoctorFinding::failure(
            "host.metadata",
            METADATA,
            "a program in the sandbox connects with the metadata service, which gives out the credentials of this host",
            "install the distribution's own `bubblewrap` in place of the program of that name in the PATH",
        ),
        Err(text) => DoctorFinding::skipped("host.metadata", METADATA, text),
    }
}

/// The timer of the sweep.
pub(super) async fn sweep_timer(machine: &dyn HostMachine) -> DoctorFinding {
    let Ok(text) = machine.output("systemctl", &["is-enabled", TIMER]).await else {
        return DoctorFinding::skipped("host.sweep_timer", TIMER, "systemctl does not answer");
    };
    if text.trim().is_empty() {
        return DoctorFinding::skipped("host.sweep_timer", TIMER, "systemctl does not tell whether it is enabled");
    }
    if ["enabled", "enabled-runtime", "linked", "static"].contains(&text.trim()) {
        return DoctorFinding::ok("host.sweep_timer", TIMER, "is enabled");
    }
    DoctorFinding::warning(
        "host.sweep_timer",
        TIMER,
        "is not enabled: what a killed host leaves in AWS is billed until somebody ends it",
        format!(
            "copy the units of `runner-config/systemd/` to `/etc/systemd/system/`, and type `systemctl enable --now {TIMER}`"
        ),
    )
}

/// The clock of this host against that of AWS.
pub(super) fn clock(here: SystemTime, there: SystemTime) -> DoctorFinding {
    let (apart, word) = match here.duration_since(there) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let text = format!("is {} s {word} AWS's", apart.as_secs());
    let change = "set the clock, and let chrony or systemd-timesyncd keep it";
    if apart > MOST_SKEW {
        return DoctorFinding::failure(
            "host.clock",
            "the clock",
            format!("{text}: AWS refuses requests that are five minutes off"),
            change,
        );
    }
    if apart > SOME_SKEW {
        return DoctorFinding::warning("host.clock", "the clock", text, change);
    }
    DoctorFinding::ok("host.clock", "the clock", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(version("Version:      19.4.0\nGit revision: 1a2b3c4\n"), Some((19, 4)));
        assert_eq!(version("git version 2.39.5"), Some((2, 39)));
        assert_eq!(version("bubblewrap 0.8.0"), Some((0, 8)));
        assert_eq!(version("v17.11.2-rc1"), Some((17, 11)));
        assert_eq!((version("unknown"), version("")), (None, None));
    }
}
