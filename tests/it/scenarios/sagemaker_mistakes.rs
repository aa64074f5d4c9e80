//! What an operator gets wrong, one row each: the runner's `config.toml`, the operator's file, the environment, AWS. Each row
//! must be refused in the stage that it names, as the kind of failure that it names, with words that name the key and the mend.

mod host_rows;
mod rows;
mod rule_rows;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use host_rows::{HOST, OF_AWS};
use rows::{
    Administrator, Args, Aws, Config, Disk, Env, File, Line, Make, Mistake, OPERATORS_FILE, Ordinary, Prepare,
    RUNNERS_FILE, Run,
};
use serde_json::json;

use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::account::Account;
use crate::support::driver;
use crate::support::job::Job;
use crate::support::scenario::{Scenario, With, play as play_scenario};
use crate::support::waiting::search_path;
use crate::support::world::Settings;

/// A desk whose operator's file and environment are made anew for each row.
struct Bench {
    desk: Desk,
    operator: String,
}

struct Called {
    code: Option<i32>,
    out: String,
    told: String,
}

impl Bench {
    fn new() -> Self {
        let desk = Desk::new(&Job::new().script(["true"]));
        let operator = std::fs::read_to_string(desk.operator_file()).unwrap();
        std::fs::set_permissions(desk.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { desk, operator }
    }

    /// One call of the runner with what the row makes wrong.
    fn call(&self, make: &[Make], arguments: &[&str], session: Option<&str>) -> Called {
        let is_ordinary = make.iter().any(|make| matches!(make, Ordinary(_)));
        let account = if is_ordinary { Account::ordinary() } else { Account::own() };
        let script = self.desk.root().join("script");
        let mut command = Command::new(account.reachable(&self.desk.program));
        account.become_of(&mut command);
        for argument in arguments {
            let argument = argument.replace("SCRIPT", &script.to_string_lossy());
            command.arg(argument.replace("FILE", &self.desk.operator_file().to_string_lossy()));
        }
        command
            .current_dir("/")
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.desk.root().join("home"))
            .env("JOB_RESPONSE_FILE", self.desk.root().join("response.json"))
            .env("BUILD_FAILURE_EXIT_CODE", BUILD_FAILURE.to_string())
            .env("SYSTEM_FAILURE_EXIT_CODE", SYSTEM_FAILURE.to_string())
            .env("CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR", format!("{}.tmp", self.desk.project().display()))
            .envs(self.desk.env.iter().map(|(key, value)| (key, value)))
            .envs(session.map(|session| ("SAGEMAKER_EXECUTOR_SESSION", session)))
            .stdin(Stdio::null());
        for make in make {
            match make {
                Env(name, Some(value)) => command.env(name, value),
                Env(name, None) => command.env_remove(name),
                Administrator => command.envs(self.desk.emulator.of_administrator()),
                Make::Job(name, value) => command.env(format!("CUSTOM_ENV_{name}"), value),
                _ => &mut command,
            };
        }
        let output = command.output().unwrap();
        Called {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            told: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn make(&self, make: &[Make]) {
        let mut operator = self.operator.clone();
        for make in make {
            match make {
                File(from, to) => {
                    assert!(operator.contains(from), "{from:?}");
                    operator = operator.replace(from, to);
                }
                Line(section, line) => {
                    let head = format!("[{section}]\n");
                    if operator.contains(&head) {
                        operator = operator.replace(&head, &format!("{head}{line}\n"));
                    } else {
                        operator = format!("{operator}{head}{line}\n");
                    }
                }
                _ => {}
            }
        }
        std::fs::write(self.desk.operator_file(), operator).unwrap();
        for make in make {
            if let Disk(act) | Ordinary(act) = make {
                act(self.desk.root());
            }
        }
    }

    /// Plays a row; what is not as it says.
    fn play(&self, mistake: &Mistake) -> Result<(), String> {
        let calls = [
            (Config, &["--config", "FILE", "config"][..]),
            (Prepare, &["--config", "FILE", "prepare"]),
            (Run, &["--config", "FILE", "run", "SCRIPT", "get_sources"]),
        ];
        let mut session = None;
        for (at, right) in calls {
            let is_last = at == mistake.at;
            let make = if is_last { mistake.make } else { &[] };
            if is_last {
                self.make(make);
                for make in make {
                    if let Aws(operation, error, message, status) = make {
                        self.desk.emulator.set_faults(&json!({"calls": [
                            {"operation": operation, "error": error, "message": message, "status": status}]}));
                    }
                }
            }
            let wrong = make.iter().find_map(|make| if let Args(arguments) = make { Some(*arguments) } else { None });
            let called = self.call(make, wrong.unwrap_or(right), session.as_deref());
            if is_last {
                let errors = called
                    .told
                    .lines()
                    .filter(|line| line.starts_with("error: ") || line.starts_with("\u{1b}[31merror:"))
                    .count();
                let missing: Vec<_> = mistake.words.iter().filter(|word| !called.told.contains(**word)).collect();
                let is_right = called.code == Some(mistake.code) && errors == 1 && missing.is_empty();
                let found = format!(
                    "{}: code {:?}, {errors} errors, without {missing:?}\n{}",
                    mistake.name, called.code, called.told
                );
                return self.clear(session.as_deref()).and(if is_right { Ok(()) } else { Err(found) });
            }
            if called.code != Some(0) {
                return Err(format!("{}: an earlier call failed: {}", mistake.name, called.told));
            }
            if at == Config {
                let answer: serde_json::Value = serde_json::from_str(&called.out).unwrap();
                session = answer["job_env"]["SAGEMAKER_EXECUTOR_SESSION"].as_str().map(str::to_owned);
            }
        }
        unreachable!("a row names its call")
    }

    /// What the row left: with everything set right, `cleanup` passes.
    fn clear(&self, session: Option<&str>) -> Result<(), String> {
        self.desk.emulator.set_faults(&json!({}));
        for folder in ["state", "builds", "cache"] {
            let path = self.desk.root().join(folder);
            if path.is_file() {
                std::fs::remove_file(&path).unwrap();
            } else if path.is_dir() {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        let _ = std::fs::remove_file(self.desk.operator_file());
        self.make(&[]);
        let cleaned = self.call(&[], &["--config", "FILE", "cleanup"], session);
        if cleaned.code == Some(0) { Ok(()) } else { Err(format!("cleanup failed: {}", cleaned.told)) }
    }
}

fn play(mistakes: &[Mistake]) {
    let bench = Bench::new();
    let wrong: Vec<_> = mistakes.iter().filter_map(|mistake| bench.play(mistake).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n\n{}", wrong.len(), mistakes.len(), wrong.join("\n"));
    bench.desk.is_left_clean();
}

#[test]
fn mistakes_in_the_runners_file_name_key_and_mend() {
    play(RUNNERS_FILE);
}

#[test]
fn mistakes_in_the_operators_file_name_key_and_mend() {
    play(OPERATORS_FILE);
}

#[test]
fn jobs_outside_the_bounds_of_their_rule_are_refused() {
    play(rule_rows::BOUNDS);
}

#[test]
fn jobs_without_a_rule_are_refused() {
    play(rule_rows::NO_RULE);
}

#[test]
fn unusable_rules_name_key_and_mend() {
    play(rule_rows::RULES);
}

#[test]
fn mistakes_of_the_host_name_key_and_mend() {
    play(HOST);
}

#[test]
fn what_aws_refuses_names_key_and_mend() {
    play(OF_AWS);
}

/// The runner takes the shell from the driver's answer, whatever its own file names.
#[test]
fn the_runner_is_told_the_shell() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    let answer: serde_json::Value = serde_json::from_slice(&desk.config().passed().stdout).unwrap();
    assert_eq!(answer["shell"], "bash");
    desk.close();
}

/// With another shell in its `config.toml` the runner still writes the scripts for the one that the driver names. Only the real
/// runner reads that file.
#[test]
fn another_shell_in_the_runners_file_does_no_harm() {
    let scenario = Scenario {
        name: "another_shell",
        needs: &[],
        settings: || Settings { shell: "pwsh", ..Settings::default() },
        play: |world| vec![world.run(&Job::new().script(["echo on $BASH_VERSION"]).after_script(["echo after"]))],
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("\non 5").shows("\nafter\n");
        },
    };
    play_scenario(&scenario, With::RealRunner, driver::sagemaker());
}

/// Each of two runner processes numbers its jobs from 0: a job beside another with the same token and number is of another process.
#[test]
fn two_runner_processes_with_one_token_are_told() {
    const JOB: fn() -> Job = || Job::new().script(["true"]);
    let mut desk = Desk::new(&JOB());
    for (key, value) in [("CI_RUNNER_SHORT_TOKEN", "tok"), ("CI_CONCURRENT_ID", "0")] {
        desk.set(key, value);
    }
    let mut desk = desk.prepared();
    let first = desk.session.clone();
    let mut running = desk.start_run("build_script", "echo reached; sleep 3600");
    running.until("reached");
    desk.set("CI_CONCURRENT_ID", "1");
    desk.next_job(&JOB(), 4712);
    let second = desk.session.clone();
    desk.set("CI_CONCURRENT_ID", "0");
    desk.config().passed();
    let told = desk.prepare();
    told.passed()
        .says("two GitLab Runner processes use one token")
        .says("give each `[[runners]]` in `config.toml` a `token` of its own");
    assert!(
        told.stderr.contains(first.as_deref().unwrap()) && !told.stderr.contains(second.as_deref().unwrap()),
        "{told}"
    );
    running.signal(rustix::process::Signal::TERM);
    running.end().with_code(SYSTEM_FAILURE);
    desk.cleanup().passed();
    for session in [first, second] {
        desk.session = session;
        desk.cleanup().passed();
    }
    desk.is_left_clean();
}
