//! Commands about models, through the program as a CI job calls it.

mod credentials;
mod deploy_package;
mod endpoint_deploy;
mod endpoint_flow;
mod endpoint_test;
mod endpoint_upkeep;
mod gate;
mod gitlab;
mod image;
mod image_codebuild;
mod image_flow;
mod init;
mod model;
mod package;
pub(crate) mod prune;
mod prune_large;
mod release;
mod report;
mod token_secret;
mod validate;

use std::path::Path;
use std::process::Command;

/// The exit code and output of a command.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program in a folder, with these variables alone.
fn run(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
    program.args(arguments).env_clear().envs(variables.iter().copied()).current_dir(folder);
    let output = program.output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
