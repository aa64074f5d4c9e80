//! What a command leaves: data on stdout as text or JSON, and a dotenv file for later jobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::files::{self, Durability};
use crate::ui::Printer;

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Form of the data on stdout
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Form,
    /// Write variables for later jobs into this file, for `artifacts:reports:dotenv`
    #[arg(long, value_name = "FILE")]
    pub(crate) dotenv: Option<PathBuf>,
}

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Lines and tables for people
    Text,
    /// One JSON object
    Json,
}

/// The data of a command: JSON by `Serialize`, and its text.
pub(crate) trait Data: Serialize {
    fn text(&self) -> String;
    /// Variables for later jobs.
    fn variables(&self) -> BTreeMap<&'static str, String>;
}

impl OutputArgs {
    /// Prints the data, and writes the dotenv file.
    pub(crate) fn leave(&self, data: &impl Data, printer: &Printer) -> anyhow::Result<()> {
        if let Some(file) = &self.dotenv {
            write_dotenv(file, &data.variables())?;
        }
        let mut text = match self.output {
            Form::Text => data.text(),
            Form::Json => serde_json::to_string_pretty(data).context("failed to write the data as JSON")?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        printer.write_data(text.as_bytes()).context("failed to write to stdout")
    }
}

/// Writes `NAME=VALUE` lines as GitLab reads them: no quotes, no line breaks.
fn write_dotenv(file: &Path, variables: &BTreeMap<&'static str, String>) -> anyhow::Result<()> {
    let mut text = String::new();
    for (name, value) in variables {
        if value.contains(['\n', '\r']) {
            return Err(Failure::system(format!("`{name}` has a line break, which no dotenv file can hold")).into());
        }
        text.extend([name, "=", value, "\n"]);
    }
    files::replace(file, text.as_bytes(), Durability::Eventual)
        .with_context(|| format!("failed to write {}", file.display()))
}
