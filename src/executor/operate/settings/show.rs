//! `config show`: every key with its value, and with `--origin` where it comes from.

use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::origin::{self, KeyValue, Origin};
use crate::base::plain;
use crate::config::env::Environment;
use crate::config::operator_file;
use crate::ui::Printer;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Say where each value comes from: a line of the file, a variable of the environment of this command, or the program's default
    #[arg(long)]
    origin: bool,
    /// Print one JSON object on stdout in place of the lines
    #[arg(long)]
    json: bool,
}

/// All values, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    file: String,
    values: &'a [KeyValue],
}

pub(super) fn run(args: &ShowArgs, config: &Path, env: &Environment, printer: &Printer) -> anyhow::Result<()> {
    let text = operator_file::read(config)?;
    // Errors name the file as those of the stages do.
    let settings = operator_file::load(config)?;
    let values = origin::all(&text, &settings, env)?;
    if args.json {
        let text = serde_json::to_string(&Shown { file: config.display().to_string(), values: &values })?;
        printer.write_data(format!("{}\n", plain::json(&text)).as_bytes())?;
        return Ok(());
    }
    let mut lines = String::new();
    for value in &values {
        let shown = match &value.value {
            Value::Null => "(not set)".to_owned(),
            value => value.to_string(),
        };
        let origin = match &value.origin {
            _ if !args.origin => String::new(),
            Origin::Line(line) => format!("  # {}:{line}", config.display()),
            Origin::Variable(name) => format!("  # environment variable {name}"),
            Origin::Default => "  # default".to_owned(),
        };
        lines.push_str(&plain::lines(&format!("{} = {shown}{origin}", value.key)));
        lines.push('\n');
    }
    printer.write_data(lines.as_bytes())?;
    Ok(())
}
