//! Checks of the programs that the stages of one entry of `[[runners]]` call.

use std::path::Path;

use super::machine::PathSight;
use super::ownership;
use super::report::{CheckVerdict, DoctorFinding};
use super::runner_entry::{PROGRAM, RunnerConfig, RunnerEntry, STAGES};

/// The findings about each program once, however many stages call it.
pub(super) fn check(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>) -> Vec<DoctorFinding> {
    let mut programs: Vec<&str> =
        STAGES.iter().map(|stage| runner.program(stage)).filter(|one| !one.is_empty()).collect();
    programs.sort_unstable();
    programs.dedup();
    programs.into_iter().flat_map(|program| of_program(config, runner, program)).collect()
}

fn of_program(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>, program: &str) -> Vec<DoctorFinding> {
    let failure = |text: String, change: &str| DoctorFinding::failure("config.program", runner.shown(), text, change);
    if !program.starts_with('/') {
        return vec![failure(
            format!("`{program}` is no absolute path: the runner starts it in a temporary folder"),
            "name the program by its absolute path, such as `/usr/local/bin/sagemaker-executor`",
        )];
    }
    match config.machine.look(Path::new(program)) {
        Err(error) => vec![failure(
            format!("`{program}`: {error}"),
            "install the program there, or correct the `_exec` keys of `[runners.custom]`",
        )],
        Ok(sight) if !sight.is_executable => vec![failure(
            format!("`{program}` is not executable for this user (mode {:04o})", sight.mode),
            "type `chmod 755` for this file, or name the program itself",
        )],
        Ok(sight) => {
            // The kind of program and its owner are two mistakes: neither hides the other.
            let of_file = of_file(config, runner, program, &sight);
            let of_owner = writers(config, runner, program, &sight);
            let is_fine = of_owner.is_some() && of_file.verdict == CheckVerdict::Ok;
            let of_file = Some(of_file).filter(|_| !is_fine);
            of_file.into_iter().chain(of_owner).collect()
        }
    }
}

/// Others than root who may change the program, or put another in its place.
fn writers(
    config: &RunnerConfig<'_>,
    runner: &RunnerEntry<'_>,
    program: &str,
    sight: &PathSight,
) -> Option<DoctorFinding> {
    let (id, shown) = ("config.program", runner.shown());
    if sight.mode & 0o022 != 0 {
        let text = format!("others than its owner can write `{program}` (mode {:04o})", sight.mode);
        return Some(DoctorFinding::failure(id, shown, text, "type `chmod 755` for this file"));
    }
    let other = ownership::of(config.machine, config.service, Path::new(program))?;
    Some(match other.verdict {
        CheckVerdict::Failure => DoctorFinding::failure(id, shown, other.text, other.change),
        _ => DoctorFinding::warning(id, shown, other.text, other.change),
    })
}

/// The program itself: this one, under its name.
fn of_file(config: &RunnerConfig<'_>, runner: &RunnerEntry<'_>, program: &str, sight: &PathSight) -> DoctorFinding {
    let own = config.machine.own_program();
    let is_own = config.machine.look(&own).is_ok_and(|own| own.file == sight.file);
    let (id, shown) = ("config.program", runner.shown());
    if is_own {
        return DoctorFinding::ok(id, shown, format!("`{program}` is executable, and is this program"));
    }
    if Path::new(program).file_name().is_none_or(|name| name != PROGRAM) {
        let text = format!("`{program}` is no `{PROGRAM}`: jobs pass that stage without what it does");
        let change = "name this program in all four `_exec` keys of `[runners.custom]`";
        return DoctorFinding::failure(id, shown, text, change);
    }
    let text = format!("`{program}` is another file than this program, {}: its version may be another", own.display());
    DoctorFinding::warning(id, shown, text, format!("run `{program} doctor`, or install this program there"))
}
