//! Runs one job with GitLab Runner itself: `gitlab-runner run-single` with a generated `config.toml`.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use toml::{Table, Value};

use super::gitlab::RUNNER_TOKEN;
use super::job::{Job, Trigger};
use super::waiting::poll;
use super::world::{Executor, World};

/// The version line of the runner, for the head of the suite's output.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().expect("the runner was found");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("Version:")).unwrap_or("of unknown version").trim().to_owned()
}

/// Runs the job that was enqueued last; returns the runner's log. Panics when the deadline passes.
pub(crate) fn run(world: &World, program: &Path, id: u64, job: &Job, executor: Executor) -> String {
    // Of each job its own: several runners may be at work in one world.
    let config = world.dirs.root().join(format!("config-{id}.toml"));
    let content = if world.settings.shipped_config { shipped_config_file(world) } else { config_file(world, executor) };
    std::fs::write(&config, toml::to_string(&content).unwrap()).unwrap();
    // The runner may write it anew.
    world.account.give(&config);
    let log = world.dirs.root().join(format!("runner-{id}.log"));
    let output = File::create(&log).unwrap();
    let mut command = Command::new(world.account.reachable(program));
    world.account.become_of(&mut command);
    let mut child = command
        .args(["run-single", "--max-builds", "1", "--runner", "bench", "--config"])
        .arg(&config)
        .current_dir(world.dirs.root())
        .env_clear()
        .envs(world.runner_env_of(executor))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .expect("the runner was found");
    let pid = Pid::from_child(&child);
    let signal = |trigger| match trigger {
        Trigger::InterruptRunner => Some(Signal::TERM),
        Trigger::KillRunner => Some(Signal::KILL),
        Trigger::Cancel | Trigger::Abort => None,
    };
    let mut wanted = job.triggers().iter().find_map(|(text, trigger)| Some((text, signal(*trigger)?)));
    let status = poll(world.settings.deadline, || {
        if let Some((text, signal)) = wanted
            && world.gitlab.question(id, |record| record.trace.contains(text))
        {
            kill_process(pid, signal).unwrap();
            wanted = None;
        }
        child.try_wait().unwrap()
    });
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
        let trace = world.gitlab.question(id, |record| String::from_utf8_lossy(record.trace.bytes()).into_owned());
        panic!("the runner did not end within {:?}\n{text}\n--- trace\n{trace}", world.settings.deadline);
    }
    text
}

/// The file that the project ships for operators, with what an operator replaces: address, token, and where the driver is.
fn shipped_config_file(world: &World) -> Table {
    let mut file: Table = toml::from_str(include_str!("../../../runner-config/config.toml")).unwrap();
    let runner = file["runners"][0].as_table_mut().unwrap();
    for (key, value) in [("name", "bench"), ("url", world.gitlab.url()), ("token", RUNNER_TOKEN)] {
        runner.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    let custom = runner["custom"].as_table_mut().unwrap();
    for stage in ["config", "prepare", "run", "cleanup"] {
        custom.insert(format!("{stage}_exec"), Value::String(world.recorder.to_string_lossy().into_owned()));
        // The recorder names the operator's file itself.
        let args = custom[&format!("{stage}_args")].as_array_mut().unwrap();
        assert_eq!(args.drain(..2).next(), Some(Value::String("--config".to_owned())));
    }
    file
}

/// The runner's configuration, with the same keys as the project's example for operators.
fn config_file(world: &World, executor: Executor) -> Table {
    let settings = &world.settings;
    let text = |value: &str| Value::String(value.to_owned());
    let number = |value: u64| Value::Integer(i64::try_from(value).expect("seconds and KiB are small"));
    let mut runner = Table::from_iter([
        ("name".to_owned(), text("bench")),
        ("url".to_owned(), text(world.gitlab.url())),
        ("id".to_owned(), Value::Integer(7)),
        ("token".to_owned(), text(RUNNER_TOKEN)),
        ("shell".to_owned(), text(settings.shell)),
        ("debug_trace_disabled".to_owned(), Value::Boolean(settings.debug_trace_disabled)),
        ("environment".to_owned(), Value::Array(settings.environment.iter().map(|pair| text(pair)).collect())),
    ]);
    if settings.tls {
        let authority = super::tls::authority(world.dirs.root());
        runner.insert("tls-ca-file".to_owned(), text(&authority.to_string_lossy()));
    }
    if settings.output_limit > 0 {
        runner.insert("output_limit".to_owned(), number(settings.output_limit));
    }
    if let Some(limit) = settings.get_sources_timeout {
        runner.insert("get_sources_timeout".to_owned(), text(limit));
    }
    if settings.custom_build_dir {
        runner.insert(
            "custom_build_dir".to_owned(),
            Value::Table(Table::from_iter([("enabled".to_owned(), Value::Boolean(true))])),
        );
    }
    let flags = settings.feature_flags.iter().map(|(name, on)| ((*name).to_owned(), Value::Boolean(*on)));
    runner.insert("feature_flags".to_owned(), Value::Table(flags.collect()));
    match executor {
        Executor::Shell => {
            runner.insert("executor".to_owned(), text("shell"));
            runner.insert("builds_dir".to_owned(), text(&world.dirs.host_builds().to_string_lossy()));
            runner.insert("cache_dir".to_owned(), text(&world.dirs.cache().to_string_lossy()));
        }
        Executor::Custom => {
            runner.insert("executor".to_owned(), text("custom"));
            let mut custom = Table::new();
            for stage in ["config", "prepare", "run", "cleanup"] {
                custom.insert(format!("{stage}_exec"), text(&world.recorder.to_string_lossy()));
                custom.insert(format!("{stage}_args"), Value::Array(vec![text(stage)]));
            }
            custom.insert("config_exec_timeout".to_owned(), number(settings.config_exec_timeout));
            custom.insert("prepare_exec_timeout".to_owned(), number(settings.prepare_exec_timeout));
            custom.insert("cleanup_exec_timeout".to_owned(), number(settings.cleanup_exec_timeout));
            custom.insert("graceful_kill_timeout".to_owned(), number(settings.graceful_kill_timeout));
            custom.insert("force_kill_timeout".to_owned(), number(settings.force_kill_timeout));
            runner.insert("custom".to_owned(), Value::Table(custom));
        }
    }
    Table::from_iter([
        ("concurrent".to_owned(), Value::Integer(1)),
        ("check_interval".to_owned(), Value::Integer(1)),
        ("runners".to_owned(), Value::Array(vec![Value::Table(runner)])),
    ])
}
