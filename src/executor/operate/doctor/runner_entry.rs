//! Checks of one entry of `[[runners]]` in GitLab Runner's `config.toml`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::machine::HostMachine;
use super::report::DoctorFinding;
use super::service::RunnerService;
use crate::config::settings::DEFAULT_PATH;

pub(super) const STAGES: [&str; 4] = ["config", "prepare", "run", "cleanup"];
pub(super) const PROGRAM: &str = "sagemaker-executor";
/// Seconds after which the runner ends a stage that has no limit of its own (GitLab Runner 19).
const USUAL_LIMIT: i64 = 3600;
/// `prepare` tries for up to 225 s to create the training job, and may upload the agent before.
const LEAST_PREPARE: i64 = 300;
/// `cleanup` stops a training job within 150 s, and deletes its objects after that.
const LEAST_CLEANUP: i64 = 200;
/// Seconds from SIGTERM to SIGKILL unless `graceful_kill_timeout` says others (GitLab Runner 19).
const USUAL_GRACE: i64 = 600;
/// A stage that is told to end stops its training job within 150 s.
const LEAST_GRACE: i64 = 150;
/// After a job timeout the runner waits 300 s for a stage, and calls `cleanup` beside it then.
const MOST_GRACE: i64 = 270;
/// Likeness of a program's name from which on it may be a misspelling of this one.
const ALIKE: f64 = 0.87;
const ESCAPES: &str = "FF_POSIXLY_CORRECT_ESCAPES";

/// The file, and what the entries of it are compared with.
pub(super) struct RunnerConfig<'a> {
    pub(super) path: &'a Path,
    /// The operator's file that this run reads.
    pub(super) operator_file: &'a Path,
    /// `runner.shell` of that file, when it could be read.
    pub(super) shell: Option<&'a str>,
    pub(super) machine: &'a dyn HostMachine,
    pub(super) service: &'a RunnerService,
}

/// An entry of `[[runners]]`.
pub(super) struct RunnerEntry<'a> {
    pub(super) table: &'a Table,
    pub(super) custom: Option<&'a Table>,
    /// Its place in the file, from 0.
    at: usize,
}

impl<'a> RunnerEntry<'a> {
    pub(super) fn of(table: &'a Table, at: usize) -> Self {
        Self { table, custom: table.get("custom").and_then(Value::as_table), at }
    }

    pub(super) fn shown(&self) -> String {
        match self.text("name") {
            "" => format!("runner {}", self.at + 1),
            name => format!("runner `{name}`"),
        }
    }

    fn text(&self, key: &str) -> &'a str {
        self.table.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn token(&self) -> &'a str {
        self.text("token").trim()
    }

    pub(super) fn program(&self, stage: &str) -> &'a str {
        self.custom.and_then(|custom| custom.get(&format!("{stage}_exec"))).and_then(Value::as_str).unwrap_or_default()
    }

    /// Some stage calls this program, by its name or its file.
    pub(super) fn is_ours(&self, own_program: &Path) -> bool {
        let is_own = |program: &str| {
            let path = Path::new(program);
            path == own_program || path.file_name().is_some_and(|name| name == PROGRAM)
        };
        STAGES.iter().any(|stage| is_own(self.program(stage)))
    }

    /// A custom executor whose program has nearly the name of this one.
    pub(super) fn may_be_ours(&self) -> bool {
        let is_alike = |program: &str| {
            let name = program.rsplit('/').next().unwrap_or_default();
            strsim::jaro_winkler(name, PROGRAM) > ALIKE
        };
        STAGES.iter().any(|stage| is_alike(self.program(stage)))
    }

    fn seconds(&self, key: &str) -> Option<i64> {
        // A number that is not above 0 stands for the usual one.
        self.custom?.get(key)?.as_integer().filter(|seconds| *seconds > 0)
    }

    pub(super) fn graceful_kill_timeout(&self) -> i64 {
        self.seconds("graceful_kill_timeout").unwrap_or(USUAL_GRACE)
    }
}

/// All findings about one entry that calls this program, but those about the programs themselves.
pub(super) fn check(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>) -> Vec<DoctorFinding> {
    let mut findings = vec![executor(runner), stages(runner)];
    findings.extend(STAGES.iter().filter_map(|stage| arguments(runner, stage)));
    findings.push(operator_file(config, runner));
    findings.push(at_least(runner, "config.prepare_timeout", "prepare_exec_timeout", LEAST_PREPARE));
    findings.push(at_least(runner, "config.cleanup_timeout", "cleanup_exec_timeout", LEAST_CLEANUP));
    findings.push(kill_timeout(runner));
    findings.push(token(runner));
    findings.push(url(runner));
    findings.extend(tls_ca(config, runner));
    findings.extend(shell(config, runner));
    findings.extend(environment(runner));
    findings.push(feature_flag(runner));
    findings.push(debug_trace(runner));
    findings.extend(directories(runner));
    findings
}

fn executor(runner: &RunnerEntry<'_>) -> DoctorFinding {
    match runner.text("executor") {
        "custom" => DoctorFinding::ok("config.executor", runner.shown(), "is a custom executor"),
        other => DoctorFinding::failure(
            "config.executor",
            runner.shown(),
            format!("has `executor = \"{other}\"`, and GitLab Runner does not look at `[runners.custom]`"),
            "set `executor = \"custom\"` in this `[[runners]]`",
        ),
    }
}

fn stages(runner: &RunnerEntry<'_>) -> DoctorFinding {
    let missing: Vec<_> = STAGES.iter().filter(|stage| runner.program(stage).is_empty()).collect();
    if missing.is_empty() {
        return DoctorFinding::ok("config.stages", runner.shown(), "has all four stages");
    }
    let names: Vec<_> = missing.iter().map(|stage| format!("`{stage}_exec`")).collect();
    DoctorFinding::failure(
        "config.stages",
        runner.shown(),
        format!("has no {}", names.join(", ")),
        format!(
            "set {} and the `_args` to each in `[runners.custom]`, as `runner-config/config.toml` does",
            names.join(", ")
        ),
    )
}

fn arguments(runner: &RunnerEntry<'_>, stage: &str) -> Option<DoctorFinding> {
    if runner.program(stage).is_empty() {
        return None;
    }
    let key = format!("{stage}_args");
    let change = format!(
        "set `{key} = [\"--config\", \"/etc/sagemaker-executor/sagemaker-executor.toml\", \"{stage}\"]` in `[runners.custom]`"
    );
    let failure = |text: String| Some(DoctorFinding::failure("config.arguments", runner.shown(), text, &change));
    let value = runner.custom.and_then(|custom| custom.get(&key));
    let Some(texts) = value.and_then(Value::as_array) else {
        return failure(match value {
            None => format!("has no `{key}`"),
            Some(_) => format!("`{key}` is no list of texts"),
        });
    };
    let words: Vec<&str> = texts.iter().filter_map(Value::as_str).collect();
    if words.len() < texts.len() {
        return failure(format!("`{key}` is no list of texts"));
    }
    let called: Vec<&str> = words.iter().copied().filter(|word| STAGES.contains(word)).collect();
    let is_path = |word: &str| !word.is_empty() && !word.starts_with('-');
    match (words.as_slice(), called.as_slice()) {
        ([one], _) if *one == stage => {}
        (["--config", file, one] | [one, "--config", file], _) if *one == stage && is_path(file) => {}
        ([joined, one] | [one, joined], _)
            if *one == stage && joined.strip_prefix("--config=").is_some_and(is_path) => {}
        (_, []) if words.iter().any(|word| word.split_whitespace().count() > 1) => {
            return failure(format!("`{key}` has several words in one text: the program takes them as one"));
        }
        (_, []) => return failure(format!("`{key}` calls no stage")),
        (_, [one]) if *one != stage => return failure(format!("`{key}` calls `{one}` where it should call `{stage}`")),
        _ => {
            let option = words
                .iter()
                .find(|word| word.starts_with('-') && **word != "--config" && !word.starts_with("--config="));
            return failure(match option {
                Some(option) => format!("`{key}` has `{option}`, which the program does not know: every job fails"),
                None => format!("`{key}` has more than `--config`, its file and `{stage}`"),
            });
        }
    }
    Some(DoctorFinding::ok("config.arguments", runner.shown(), format!("`{key}` calls `{stage}`")))
}

/// The file that `--config` names in each stage.
fn operator_file(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>) -> DoctorFinding {
    let mut named: Vec<PathBuf> = STAGES
        .iter()
        .filter(|stage| !runner.program(stage).is_empty())
        .map(|stage| config_of(runner, stage).unwrap_or_else(|| DEFAULT_PATH.into()))
        .collect();
    named.sort();
    named.dedup();
    let failure =
        |text: String, change: &str| DoctorFinding::failure("config.operator_file", runner.shown(), text, change);
    match named.as_slice() {
        [] => DoctorFinding::waiting("config.operator_file", "config.stages"),
        [one] if one.is_relative() => failure(
            format!(
                "`--config {}` is no absolute path: the runner starts its stages in a temporary folder",
                one.display()
            ),
            "give `--config` an absolute path in all four `*_args`",
        ),
        [one] if one == config.operator_file => {
            DoctorFinding::ok("config.operator_file", runner.shown(), format!("the stages read {}", one.display()))
        }
        [one] => DoctorFinding::warning(
            "config.operator_file",
            runner.shown(),
            format!("the stages read {}, and this command reads {}", one.display(), config.operator_file.display()),
            format!("run `sagemaker-executor --config {} doctor`, or correct the `*_args`", one.display()),
        ),
        several => {
            let files: Vec<_> = several.iter().map(|one| one.display().to_string()).collect();
            failure(
                format!("the stages read different files: {}", files.join(", ")),
                "name one file with `--config` in all four `*_args`",
            )
        }
    }
}

fn config_of(runner: &RunnerEntry<'_>, stage: &str) -> Option<PathBuf> {
    let list = runner.custom?.get(&format!("{stage}_args"))?.as_array()?;
    let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--config="));
    let behind = || words.iter().position(|word| *word == "--config").and_then(|at| words.get(at + 1)).copied();
    joined.or_else(behind).map(PathBuf::from)
}

fn at_least(runner: &RunnerEntry<'_>, id: &'static str, key: &str, least: i64) -> DoctorFinding {
    let seconds = runner.seconds(key).unwrap_or(USUAL_LIMIT);
    if seconds >= least {
        return DoctorFinding::ok(id, runner.shown(), format!("`{key}` is {seconds} s"));
    }
    DoctorFinding::failure(
        id,
        runner.shown(),
        format!("`{key}` is {seconds} s: the runner ends the stage before it is done"),
        format!("set `{key}` in `[runners.custom]` to {least} at least"),
    )
}

fn kill_timeout(runner: &RunnerEntry<'_>) -> DoctorFinding {
    let seconds = runner.graceful_kill_timeout();
    let change = "set `graceful_kill_timeout = 240` in `[runners.custom]`, as `runner-config/config.toml` does";
    if seconds < LEAST_GRACE {
        let text = format!(
            "`graceful_kill_timeout` is {seconds} s: a canceled stage is killed before its training job is stopped, which is billed on"
        );
        return DoctorFinding::failure("config.kill_timeout", runner.shown(), text, change);
    }
    if seconds > MOST_GRACE {
        let text = format!(
            "`graceful_kill_timeout` is {seconds} s: after a job timeout the runner calls `cleanup` after 300 s, beside a stage that still runs"
        );
        return DoctorFinding::warning("config.kill_timeout", runner.shown(), text, change);
    }
    DoctorFinding::ok("config.kill_timeout", runner.shown(), format!("`graceful_kill_timeout` is {seconds} s"))
}

fn token(runner: &RunnerEntry<'_>) -> DoctorFinding {
    let token = runner.token();
    if token.is_empty() || token.contains("REPLACE_ME") {
        let what = if token.is_empty() { "has no `token`" } else { "has the token of the sample" };
        let change = "create a runner in GitLab, and set `token` to the text that begins with `glrt-`";
        return DoctorFinding::failure("config.token", runner.shown(), what, change);
    }
    DoctorFinding::ok("config.token", runner.shown(), "has a token")
}

fn url(runner: &RunnerEntry<'_>) -> DoctorFinding {
    let url = runner.text("url");
    if let Some((scheme, rest)) = url.split_once("://")
        && let Some((_, place)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
    {
        let text = format!("`url` has a user or a password before {scheme}://{place}: the runner prints it in logs");
        let change = format!("set `url = \"{scheme}://{place}\"`, and change the password");
        return DoctorFinding::failure("config.url", runner.shown(), text, change);
    }
    let host = url.split_once("://").map(|(_, rest)| rest.split(['/', ':']).next().unwrap_or_default());
    match host {
        Some(host) if !host.is_empty() && host != "gitlab.example.com" && url.starts_with("https://") => {
            DoctorFinding::ok("config.url", runner.shown(), url)
        }
        Some(host) if !host.is_empty() && host != "gitlab.example.com" && url.starts_with("http://") => {
            DoctorFinding::warning(
                "config.url",
                runner.shown(),
                "`url` begins with `http://`: tokens and variables of jobs cross the network in clear",
                "set `url` to the `https://` address of GitLab",
            )
        }
        _ => DoctorFinding::failure(
            "config.url",
            runner.shown(),
            format!("`url = \"{url}\"` is no address of your GitLab"),
            "set `url` to its address, such as `https://gitlab.company.com`",
        ),
    }
}

fn tls_ca(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>) -> Option<DoctorFinding> {
    let path = runner.table.get("tls-ca-file")?.as_str()?;
    Some(match config.machine.read(Path::new(path)) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {
            DoctorFinding::ok("config.tls_ca", runner.shown(), format!("`tls-ca-file` {path} holds certificates"))
        }
        Ok(_) => DoctorFinding::failure(
            "config.tls_ca",
            runner.shown(),
            format!("`tls-ca-file` {path} holds no certificate in PEM form"),
            "name a PEM file with the authority of GitLab's certificate in `tls-ca-file`",
        ),
        Err(error) => DoctorFinding::failure(
            "config.tls_ca",
            runner.shown(),
            format!("`tls-ca-file` {path} cannot be read: {error}"),
            "put the authority's PEM file there, or correct `tls-ca-file`",
        ),
    })
}

fn shell(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>) -> Option<DoctorFinding> {
    let shell = runner.text("shell");
    let expected = config.shell.unwrap_or("bash");
    if shell.is_empty() || shell == expected {
        return None;
    }
    Some(DoctorFinding::warning(
        "config.shell",
        runner.shown(),
        format!(
            "`shell = \"{shell}\"` has no effect: `config` tells the runner `runner.shell` of the operator's file, {expected}"
        ),
        format!("set `shell = \"{expected}\"`"),
    ))
}

/// Values of `environment` reach every job, and a job can override them.
fn environment(runner: &RunnerEntry<'_>) -> Vec<DoctorFinding> {
    let list = runner.table.get("environment").and_then(Value::as_array).into_iter().flatten();
    let names = list.filter_map(Value::as_str).map(|entry| entry.split('=').next().unwrap_or_default().trim());
    names.filter_map(|name| of_variable(runner, name)).collect()
}

fn of_variable(runner: &RunnerEntry<'_>, name: &str) -> Option<DoctorFinding> {
    let upper = name.to_ascii_uppercase();
    let is_secret =
        ["SECRET", "PASSWORD", "PRIVATE_KEY", "SESSION_TOKEN", "ACCESS_KEY"].iter().any(|word| upper.contains(word))
            || upper.ends_with("_TOKEN");
    let change = format!("remove `{name}` from `environment` of this `[[runners]]`");
    if is_secret {
        let text = format!("`environment` sets `{name}`: every job can print it");
        return Some(DoctorFinding::failure(
            "config.environment",
            runner.shown(),
            text,
            format!("{change}, and renew the secret"),
        ));
    }
    let is_loader =
        upper.starts_with("LD_") || ["BASH_ENV", "ENV", "PATH", "SHELLOPTS", "IFS"].contains(&upper.as_str());
    let is_ours = upper.starts_with("SAGEMAKER_") || upper.starts_with("AWS_") || upper == ESCAPES;
    let text = if is_loader {
        format!("`environment` sets `{name}`, which changes how programs start in the stages of all jobs")
    } else if is_ours {
        format!(
            "`environment` sets `{name}`: a job can override it, and this program reads its settings from the operator's file alone"
        )
    } else {
        return None;
    };
    Some(DoctorFinding::warning("config.environment", runner.shown(), text, change))
}

fn feature_flag(runner: &RunnerEntry<'_>) -> DoctorFinding {
    let flags = runner.table.get("feature_flags").and_then(Value::as_table);
    let change = format!("set `{ESCAPES} = false` in `[runners.feature_flags]`");
    match flags.and_then(|flags| flags.get(ESCAPES)).and_then(Value::as_bool) {
        Some(false) => DoctorFinding::ok("config.feature_flag", runner.shown(), format!("`{ESCAPES}` is off")),
        Some(true) => {
            let text =
                format!("`{ESCAPES}` is on: every job is refused, because a value could run as a command on this host");
            DoctorFinding::failure("config.feature_flag", runner.shown(), text, change)
        }
        None => {
            let text = format!("`{ESCAPES}` is not set: a job can turn it on, and is refused then");
            DoctorFinding::warning("config.feature_flag", runner.shown(), text, change)
        }
    }
}

fn debug_trace(runner: &RunnerEntry<'_>) -> DoctorFinding {
    if runner.table.get("debug_trace_disabled").and_then(Value::as_bool) == Some(true) {
        return DoctorFinding::ok(
            "config.debug_trace",
            runner.shown(),
            "jobs cannot print their secrets by `CI_DEBUG_TRACE`",
        );
    }
    DoctorFinding::warning(
        "config.debug_trace",
        runner.shown(),
        "`debug_trace_disabled` is not set: who may start a job can print its secrets by `CI_DEBUG_TRACE`",
        "set `debug_trace_disabled = true` in this `[[runners]]`",
    )
}

fn directories(runner: &RunnerEntry<'_>) -> Option<DoctorFinding> {
    let set: Vec<&str> =
        ["builds_dir", "cache_dir"].into_iter().filter(|key| runner.table.contains_key(*key)).collect();
    let first = set.first()?;
    let text = format!("sets `{}`, which have no effect: `config` tells the directories", set.join("` and `"));
    let change =
        format!("remove them, and set `runner.{first}` in the operator's file where the directory must be another");
    Some(DoctorFinding::warning("config.directories", runner.shown(), text, change))
}
