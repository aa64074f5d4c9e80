//! `sagemaker-executor doctor`: checks an installation in the order in which it is made, and says what to change.
//!
//! Each topic is a file of functions of one port that return findings. A check that another one stands in the way of is skipped, and says so.
//! Nothing is written without `--job`.

mod account;
mod bucket;
mod bucket_policy;
mod directories;
mod follow_ups;
mod host;
mod images;
mod installation;
mod job;
mod keys;
mod machine;
mod network;
mod ownership;
mod permissions;
mod questions;
mod quotas;
mod report;
mod roles;
mod runner_config;
mod runner_entry;
mod runner_keys;
mod runner_program;
mod service;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use self::installation::Installation;
use self::machine::{HostMachine, ThisMachine};
use self::report::{CheckVerdict, DoctorFinding, DoctorReport};
use self::runner_entry::RunnerConfig;
use self::service::RunnerService;
use crate::base::clock::Clock;
use crate::base::failure::{Failure, render};
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::cloud::Connect;
use crate::config::env::Environment;
use crate::config::operator_file;
use crate::config::settings::Settings;
use crate::session::agent_delivery;
use crate::ui::Printer;

pub use self::report::CHECKS;

/// Checks that need credentials, for the report when there are none.
const OF_AWS: [&str; 7] =
    ["aws.actions", "bucket.exists", "kms.key", "role.exists", "network.vpc", "quota.training", "agent.stored"];

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// GitLab Runner's own configuration [default: the one that its service names, else the one in /etc/gitlab-runner or /var/lib/gitlab-runner]
    #[arg(long, value_name = "FILE")]
    runner_config: Option<PathBuf>,
    /// Run a training job of a minute with the default image and instance type, and tell its cost; it is billed
    #[arg(long)]
    job: bool,
    /// The image of that job [default: `job.image` of the operator's file]
    #[arg(long, value_name = "IMAGE", requires = "job")]
    image: Option<String>,
    /// Print one JSON object on stdout in place of the lines
    #[arg(long)]
    json: bool,
}

pub async fn run(
    args: DoctorArgs,
    config: &Path,
    env: &Environment,
    (connect, clock): (&dyn Connect, &dyn Clock),
    printer: &Printer,
) -> ExitCode {
    let work = async |cancellation: Cancellation| {
        let machine = ThisMachine { env };
        let inspected = Box::pin(inspect(args.runner_config.as_deref(), config, env, (&machine, connect, clock)));
        let mut findings = tokio::select! {
            findings = inspected => findings,
            () = cancellation.token().cancelled() => return Err(Failure::canceled("interrupted").into()),
        };
        if args.job {
            let asked = job::AskedJob { config, env, image: args.image.as_deref() };
            findings.push(job::run(&asked, &findings, (printer, &cancellation)).await);
        }
        conclude(&args, findings, printer)
    };
    boundary::command(printer, work).await
}

fn conclude(args: &DoctorArgs, findings: Vec<DoctorFinding>, printer: &Printer) -> anyhow::Result<()> {
    let report = DoctorReport::of(findings);
    if args.json {
        printer.write_data(format!("{}\n", serde_json::to_string(&report)?).as_bytes())?;
    } else {
        printer.line(report.text());
    }
    match report.failures {
        0 => Ok(()),
        failures => Err(Failure::user(format!("{failures} of the checks failed"))
            .hint("each finding names what to change; docs/TROUBLESHOOTING.md has a row for each")
            .into()),
    }
}

/// All findings, in the order of an installation. Those of the host and of AWS wait at the same time.
async fn inspect(
    runner_config: Option<&Path>,
    operator_file: &Path,
    env: &Environment,
    (machine, connect, clock): (&dyn HostMachine, &dyn Connect, &dyn Clock),
) -> Vec<DoctorFinding> {
    let (settings, of_file) = load(operator_file, env, machine);
    let of_account = async {
        let Some(settings) = &settings else {
            let waiting = ["host.state_dir", "aws.credentials"].into_iter().chain(OF_AWS);
            return waiting.map(|id| DoctorFinding::waiting(id, "operator.file")).collect();
        };
        let installation = Installation::new(settings, (connect, clock));
        let mut findings = of_account(&installation).await;
        findings.push(named_role(&installation, operator_file));
        follow_ups::fold(findings, settings)
    };
    let (host, account) = tokio::join!(of_host(runner_config, operator_file, settings.as_ref(), machine), of_account);
    [host, vec![of_file], account].concat()
}

/// The checks of the runner and of this machine. The sandbox is tried beside the others, which wait for systemd: each may take seconds.
async fn of_host(
    runner_config: Option<&Path>,
    operator_file: &Path,
    settings: Option<&Settings>,
    machine: &dyn HostMachine,
) -> Vec<DoctorFinding> {
    let of_service = async {
        let service = RunnerService::ask(machine).await;
        let (runner, tools) = tokio::join!(host::runner(machine, &service), host::tools(machine, &service, settings));
        (service, [runner, tools].concat())
    };
    let ((service, mut findings), timer, trial) =
        tokio::join!(of_service, host::sweep_timer(machine), host::try_sandbox(machine, settings));
    let service = &service;
    let shell = settings.map(|settings| settings.runner.shell.as_str());
    let path = runner_config.map_or_else(|| runner_config::locate(machine, service), Path::to_owned);
    findings.extend(runner_config::check(&RunnerConfig { path: &path, operator_file, shell, machine, service }));
    findings.extend([timer, writers(operator_file, machine, service)]);
    findings.extend(host::sandbox(machine, service, trial));
    findings.extend(settings.into_iter().flat_map(|settings| directories::storage(machine, service, settings)));
    findings
}

fn named_role(installation: &Installation<'_>, operator_file: &Path) -> DoctorFinding {
    let (roles, shown) = (installation.job_roles(), operator_file.display().to_string());
    if roles.is_empty() {
        let text = "names no role of the training jobs: every job is refused";
        let change = "set `job.role_arn`, or `allow.roles` of the rules";
        return DoctorFinding::failure("operator.role", shown, text, change);
    }
    DoctorFinding::ok("operator.role", shown, format!("names {}", roles.join(", ")))
}

/// Reads the operator's file.
fn load(path: &Path, env: &Environment, machine: &dyn HostMachine) -> (Option<Settings>, DoctorFinding) {
    let shown = path.display().to_string();
    let text = match machine.read(path) {
        Ok(text) => text,
        Err(error) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let change = operator_file::unreadable(&whole, error.kind());
            let text = format!("cannot be read: {error}");
            return (None, DoctorFinding::failure("operator.file", shown, text, change));
        }
    };
    match operator_file::parse(&text) {
        Ok(mut settings) => {
            settings.adopt_endpoint(env);
            (Some(settings), DoctorFinding::ok("operator.file", &shown, "is usable"))
        }
        Err(failure) => {
            let text = render(&failure.into());
            let (what, hints) = text.split_once("\n  hint: ").unwrap_or((&text, "`docs/CONFIG.md` lists every key"));
            let what = what.trim_start_matches("error: ");
            (None, DoctorFinding::failure("operator.file", &shown, what, hints.replace("\n  hint: ", "; ")))
        }
    }
}

/// Others than root who can change the operator's file.
fn writers(path: &Path, machine: &dyn HostMachine, service: &RunnerService) -> DoctorFinding {
    let shown = path.display().to_string();
    match machine.look(path) {
        Ok(sight) if sight.mode & 0o022 != 0 => DoctorFinding::failure(
            "operator.mode",
            &shown,
            format!("others than its owner can write it (mode {:04o}), and so decide what jobs may have", sight.mode),
            format!("type `chmod 644 {shown}`, and let root own it"),
        ),
        Ok(_) => match ownership::of(machine, service, path) {
            Some(other) if other.verdict == CheckVerdict::Failure => {
                DoctorFinding::failure("operator.mode", &shown, other.text, other.change)
            }
            Some(other) => DoctorFinding::warning("operator.mode", &shown, other.text, other.change),
            None => DoctorFinding::ok("operator.mode", &shown, "only its owner writes it"),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => DoctorFinding::waiting("operator.mode", "operator.file"),
        Err(error) => DoctorFinding::skipped("operator.mode", &shown, error.to_string()),
    }
}

/// The checks of AWS. Those of one topic follow each other; the topics wait for AWS at the same time.
async fn of_account(installation: &Installation<'_>) -> Vec<DoctorFinding> {
    let (caller, mut findings) = account::caller(installation).await;
    let Some(caller) = caller else {
        findings.extend(OF_AWS.map(|id| DoctorFinding::waiting(id, "aws.credentials")));
        return findings;
    };
    findings.extend(account::place(installation.settings, &caller, &installation.roles()));
    // The agent is looked for while the other topics wait: a service that does not answer uses up the time of all.
    let of_bucket = async {
        let (own, (is_there, mut findings)) =
            tokio::join!(agent_delivery::own(installation.settings), bucket::check(installation, &caller));
        findings.push(if is_there {
            images::agent(installation, own).await
        } else {
            DoctorFinding::waiting("agent.stored", "bucket.exists")
        });
        findings
    };
    let (actions, bucket, keys, roles, network, quotas, images) = tokio::join!(
        permissions::check(installation, &caller),
        of_bucket,
        keys::check(installation, &caller),
        roles::check(installation, &caller),
        network::check(installation),
        quotas::check(installation),
        images::check(installation, &caller),
    );
    for found in [actions, bucket, keys, roles, network, quotas, images] {
        findings.extend(found);
    }
    findings
}
