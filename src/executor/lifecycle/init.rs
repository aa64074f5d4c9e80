//! `sagemaker-executor init`: makes the files of a new project, which trains a model or serves one.

mod placing;
mod templates;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::templates::{ENDPOINT, TRAINING, Template};
use super::CommandInputs;
use super::manifest::is_name;
use super::output::{Data, OutputArgs, OutputForm};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::signals::Cancellation;

#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(subcommand)]
    command: InitCommand,
}

#[derive(Debug, Subcommand)]
enum InitCommand {
    /// Make a project that trains a model, judges it and registers it
    Training(NewProjectArgs),
    /// Make a project that serves a registered model at an endpoint
    Endpoint(NewProjectArgs),
}

#[derive(Debug, Args)]
struct NewProjectArgs {
    /// Name of the project, of its model package group and of its endpoint: letters, digits and hyphens
    name: String,
    /// Folder in which the project's folder is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
    /// Form of the data on stdout
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: OutputForm,
}

/// The files of a project that was made.
#[derive(Debug, Serialize)]
struct NewProject {
    folder: PathBuf,
    files: Vec<&'static str>,
}

impl Data for NewProject {
    fn text(&self) -> String {
        let lines: Vec<_> = self.files.iter().map(|file| self.folder.join(file).display().to_string()).collect();
        lines.join("\n")
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

#[expect(clippy::unused_async, reason = "every command is a future on the boundary of commands")]
pub async fn run(inputs: &CommandInputs, args: InitArgs, _: Cancellation) -> anyhow::Result<()> {
    let (template, args) = match args.command {
        InitCommand::Training(args) => (&TRAINING, args),
        InitCommand::Endpoint(args) => (&ENDPOINT, args),
    };
    check(&args.name, template)?;
    let folder = args.output_dir.join(&args.name);
    placing::place(&folder, &template.files_of(&args.name))?;
    let project = NewProject { folder, files: template.files.iter().map(|(name, _)| *name).collect() };
    OutputArgs { output: args.output, dotenv: None }.leave(&project, &inputs.printer)?;
    inputs.printer.line(format!("The project {} is made; its README.md says how to go on", args.name));
    Ok(())
}

fn check(name: &str, template: &Template) -> Result<(), Failure> {
    if is_name(name) && name.len() <= template.longest_name {
        return Ok(());
    }
    let shown = plain::line(name, 100);
    Err(Failure::user(format!("`{shown}` cannot be the name of a project")).hint(format!(
        "use 1 to {} letters, digits and hyphens, with a letter or digit at both ends",
        template.longest_name
    )))
}
