//! Checks of GitLab Runner's `config.toml`: the stages, their time limits, tokens, and what a job could reach through it.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::machine::HostMachine;
use super::report::{DoctorFinding, counted};
use super::runner_entry::{self, RunnerConfig, RunnerEntry};
use super::service::RunnerService;
use super::{runner_keys, runner_program};

/// Seconds that the runner waits for its stages when it is stopped, unless `shutdown_timeout` says more (GitLab Runner 19).
const USUAL_SHUTDOWN: i64 = 30;
/// Places of the file, as the packages of GitLab Runner and as `docs/INSTALL.md` put it.
const PLACES: [&str; 2] = ["/etc/gitlab-runner/config.toml", "/var/lib/gitlab-runner/config.toml"];
/// Likeness from which on a name may be a misspelling of another.
const ALIKE: f64 = 0.87;

/// The file that the runner's service reads, else the first of the usual places that is there.
pub(super) fn locate(machine: &dyn HostMachine, service: &RunnerService) -> PathBuf {
    if let Some(path) = &service.config {
        return path.clone();
    }
    let is_there = |path: &&str| match machine.look(Path::new(path)) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    PathBuf::from(PLACES.into_iter().find(is_there).unwrap_or(PLACES[0]))
}

/// All findings about the file.
pub(super) fn check(config: &RunnerConfig<'_>) -> Vec<DoctorFinding> {
    let shown = config.path.display().to_string();
    let text = match config.machine.read(config.path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let text = "this user may not read it, so the checks of it are not made; it holds the runner's token, so that may be right";
            let change = "run `sudo sagemaker-executor doctor` once as root: what it says of this file counts, what it says of directories and \
                          credentials does not";
            return vec![DoctorFinding::warning("config.file", shown, text, change)];
        }
        Err(error) => {
            let change = "create it from `runner-config/config.toml`, run `doctor` as a user who may read it, or name another with \
                          `--runner-config`";
            return vec![DoctorFinding::failure("config.file", shown, format!("cannot be read: {error}"), change)];
        }
    };
    let mut findings = vec![DoctorFinding::ok("config.file", &shown, "is read"), mode(config, &shown)];
    match toml::from_str::<Table>(&text) {
        // The parser's own message repeats the line, and the line may hold a token.
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            let text = format!("line {line} is not TOML: {}", error.message());
            let change = "correct the line; GitLab Runner does not read the file either";
            findings.push(DoctorFinding::failure("config.syntax", shown, text, change));
        }
        Ok(table) => findings.extend(of_table(config, &shown, &table)),
    }
    findings
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn mode(config: &RunnerConfig<'_>, shown: &str) -> DoctorFinding {
    match config.machine.look(config.path) {
        Ok(sight) if sight.mode & 0o022 != 0 => DoctorFinding::failure(
            "config.mode",
            shown,
            format!(
                "others than its owner can write it (mode {:04o}), and so name the programs that the runner starts",
                sight.mode
            ),
            format!("type `chmod 600 {shown}`"),
        ),
        Ok(sight) if sight.mode & 0o004 != 0 => DoctorFinding::failure(
            "config.mode",
            shown,
            format!("every user of the host can read it (mode {:04o}); it holds the runner's token", sight.mode),
            format!("type `chmod 600 {shown}`"),
        ),
        Ok(_) => DoctorFinding::ok("config.mode", shown, "only its owner writes it, and not everybody reads it"),
        Err(error) => DoctorFinding::skipped("config.mode", shown, error.to_string()),
    }
}

fn of_table(config: &RunnerConfig<'_>, shown: &str, table: &Table) -> Vec<DoctorFinding> {
    let entries: Vec<&Table> =
        table.get("runners").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect();
    let runners: Vec<RunnerEntry<'_>> =
        entries.iter().enumerate().map(|(at, entry)| RunnerEntry::of(entry, at)).collect();
    let own_program = config.machine.own_program();
    let mut ours: Vec<&RunnerEntry<'_>> = runners.iter().filter(|runner| runner.is_ours(&own_program)).collect();
    let mut findings = vec![concurrent(shown, table)];
    findings.extend(unknown_keys(shown, table, runner_keys::TOP));
    findings.extend(wrong_types(shown, table, runner_keys::NUMBERS_OF_TOP));
    if ours.is_empty() {
        // The path may be misspelt: the findings about the stages tell which.
        ours = runners.iter().filter(|runner| runner.may_be_ours()).collect();
    }
    if ours.is_empty() {
        let is_table = table.get("runners").is_some_and(|runners| !runners.is_array());
        let text = if is_table {
            "`[runners]` has one pair of brackets, and GitLab Runner reads `[[runners]]`"
        } else {
            "no entry of `[[runners]]` calls `sagemaker-executor`"
        };
        let change = "take over `[[runners]]` of `runner-config/config.toml`, with your `url` and `token`";
        findings.push(DoctorFinding::failure("config.runners", shown, text, change));
        findings.extend(runners.iter().filter(|runner| runner.custom.is_none()).flat_map(|runner| keys_of(runner)));
        return findings;
    }
    let names: Vec<String> = ours.iter().map(|runner| runner.shown()).collect();
    findings.push(DoctorFinding::ok(
        "config.runners",
        shown,
        format!("runners that call this program: {}", names.join(", ")),
    ));
    for runner in &ours {
        findings.extend(runner_entry::check(config, runner));
        findings.extend(runner_program::check(config, runner));
        findings.push(shutdown_timeout(shown, table, runner));
        findings.extend(keys_of(runner));
    }
    findings.push(shared_token(&runners));
    findings
}

/// Misspelt keys and wrong types in one entry.
fn keys_of(runner: &RunnerEntry<'_>) -> Vec<DoctorFinding> {
    let shown = runner.shown();
    let mut findings = unknown_keys(&shown, runner.table, runner_keys::RUNNER);
    findings.extend(wrong_types(&shown, runner.table, runner_keys::NUMBERS_OF_RUNNER));
    if let Some(custom) = runner.custom {
        let shown = format!("{shown}, `[runners.custom]`");
        findings.extend(unknown_keys(&shown, custom, runner_keys::CUSTOM));
        findings.extend(wrong_types(&shown, custom, runner_keys::NUMBERS_OF_CUSTOM));
    }
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_str));
    if runner.table.get("environment").is_some_and(|value| !is_list(value)) {
        findings.push(wrong_type(&shown, "environment", "a list of texts"));
    }
    let flags = runner.table.get("feature_flags").and_then(Value::as_table).into_iter().flatten();
    findings.extend(
        flags.filter(|(_, value)| !value.is_bool()).map(|(key, _)| wrong_type(&shown, key, "`true` or `false`")),
    );
    findings
}

fn wrong_types(shown: &str, table: &Table, numbers: &[&str]) -> Vec<DoctorFinding> {
    let wrong = numbers.iter().filter(|key| table.get(**key).is_some_and(|value| !value.is_integer()));
    wrong.map(|key| wrong_type(shown, key, "a number without quotes")).collect()
}

fn wrong_type(shown: &str, key: &str, kind: &str) -> DoctorFinding {
    let text = format!("`{key}` is of another type than GitLab Runner reads, and the runner does not start");
    DoctorFinding::failure("config.syntax", shown, text, format!("set `{key}` to {kind}"))
}

fn concurrent(shown: &str, table: &Table) -> DoctorFinding {
    match table.get("concurrent") {
        Some(Value::Integer(jobs)) if *jobs > 0 => {
            let jobs = counted(jobs.unsigned_abs(), "job");
            DoctorFinding::ok("config.concurrent", shown, format!("up to {jobs} at a time"))
        }
        Some(value) => DoctorFinding::failure(
            "config.concurrent",
            shown,
            format!("`concurrent` is {value}: the runner takes no job"),
            "set `concurrent` at the top of the file to a number above 0; `runner-config/config.toml` has 20",
        ),
        None => DoctorFinding::warning(
            "config.concurrent",
            shown,
            "`concurrent` is absent: the runner takes one job at a time",
            "set `concurrent` at the top of the file; `runner-config/config.toml` has 20",
        ),
    }
}

fn shutdown_timeout(shown: &str, table: &Table, runner: &RunnerEntry<'_>) -> DoctorFinding {
    let seconds = table.get("shutdown_timeout").and_then(Value::as_integer).filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or(USUAL_SHUTDOWN);
    let needed = runner.graceful_kill_timeout();
    if seconds > needed {
        return DoctorFinding::ok(
            "config.shutdown_timeout",
            shown,
            format!("{seconds} s, longer than `graceful_kill_timeout`"),
        );
    }
    DoctorFinding::warning(
        "config.shutdown_timeout",
        shown,
        format!(
            "a stopped runner leaves after {seconds} s, and the stages of {} have {needed} s (`graceful_kill_timeout`) to stop their \
             training jobs",
            runner.shown()
        ),
        "set `shutdown_timeout` at the top of the file above `graceful_kill_timeout`; `runner-config/config.toml` has 300 and 240",
    )
}

/// Two entries with one token: GitLab gives each job to one of them, and both count as one runner.
fn shared_token(runners: &[RunnerEntry<'_>]) -> DoctorFinding {
    for (at, runner) in runners.iter().enumerate() {
        let same = |other: &&RunnerEntry<'_>| !runner.token().is_empty() && other.token() == runner.token();
        if let Some(other) = runners.iter().skip(at + 1).find(same) {
            return DoctorFinding::failure(
                "config.shared_token",
                runner.shown(),
                format!("has the token of {}: their jobs get the same directories at the same time", other.shown()),
                "give each `[[runners]]` a `token` of its own: create a runner in GitLab for each",
            );
        }
    }
    DoctorFinding::ok("config.shared_token", "", "each runner has a token of its own")
}

/// Keys that nobody knows and that look like a known one.
fn unknown_keys(shown: &str, table: &Table, known: &[&str]) -> Vec<DoctorFinding> {
    let nearest = |key: &str| {
        let likeness = |other: &&str| strsim::jaro_winkler(key, other);
        known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|other| likeness(other) > ALIKE)
    };
    let unknown = table.keys().filter(|key| !known.contains(&key.as_str()));
    let alike = unknown.filter_map(|key| Some((key, nearest(key)?)));
    let finding = |(key, other): (&String, &str)| {
        let text = format!("the key `{key}` is not known, and GitLab Runner ignores it");
        DoctorFinding::warning("config.unknown_key", shown, text, format!("did you mean `{other}`?"))
    };
    alike.map(finding).collect()
}
