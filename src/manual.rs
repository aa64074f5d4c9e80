//! Pages of the manual and completions of shells, made of the command line for packages.

use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use executor::ui::Printer;

use crate::cli::Cli;

/// Shells with a usual place for completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Writes a page a command into `folder/man`, and a file a shell into `folder/completions`. The same program gives the same bytes.
pub(crate) fn write(folder: &Path, printer: &Printer) -> ExitCode {
    match try_write(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&anyhow::Error::from(error).context(format!("failed to write into {}", folder.display())));
            ExitCode::FAILURE
        }
    }
}

/// Leaves out `help`, whose pages would say the same once more.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

fn try_write(folder: &Path) -> std::io::Result<()> {
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    clap_mangen::generate_to(without_help(Cli::command()), &pages)
}
