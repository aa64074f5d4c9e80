//! `config check`: every mistake of the operator's file, and what on this host does not go with it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Args;
use rustix::fs::Access;
use serde::Serialize;

use crate::base::failure::{Failure, render};
use crate::base::files;
use crate::base::plain;
use crate::config::faults::{self, FileMistake, FileMistakes, Rest};
use crate::config::operator_file;
use crate::config::settings::{JOURNALD, Settings};
use crate::ui::Printer;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print one JSON object on stdout in place of the lines
    #[arg(long)]
    json: bool,
}

/// Mistakes and warnings, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Found {
    file: String,
    mistakes: Vec<Mistake>,
    /// More mistakes may show once these are mended.
    maybe_more: bool,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Mistake {
    line: Option<usize>,
    message: String,
    hints: Vec<String>,
}

pub(super) fn run(args: &CheckArgs, config: &Path, printer: &Printer) -> anyhow::Result<()> {
    let text = match operator_file::read(config) {
        Ok(text) => text,
        // A program that reads the JSON gets some in any case.
        Err(failure) if args.json => {
            let found = FileMistakes { found: vec![FileMistake { line: None, failure }], rest: Rest::MayBeHidden };
            return tell_as_json(found, Vec::new(), config, printer);
        }
        Err(failure) => return Err(failure.into()),
    };
    let mistakes = faults::all(&text);
    let is_sound = mistakes.found.is_empty();
    let warnings = if is_sound { warnings(config, &operator_file::parse(&text)?) } else { Vec::new() };
    if args.json {
        return tell_as_json(mistakes, warnings, config, printer);
    }
    let (count, rest) = (mistakes.found.len(), mistakes.rest);
    for fault in mistakes.found {
        let place = fault.line.map(|line| format!(":{line}")).unwrap_or_default();
        let text = render(&fault.failure.into());
        printer.error(format!("{}{place}: {}", config.display(), text.strip_prefix("error: ").unwrap_or(&text)));
    }
    for warning in &warnings {
        printer.warn(warning);
    }
    if is_sound {
        printer.line(format!("{} is usable; the stages of the next jobs read it as it is", config.display()));
    }
    conclude(count, rest, config)
}

fn tell_as_json(mistakes: FileMistakes, warnings: Vec<String>, config: &Path, printer: &Printer) -> anyhow::Result<()> {
    let (count, rest) = (mistakes.found.len(), mistakes.rest);
    let mistake = |fault: FileMistake| Mistake {
        line: fault.line,
        message: fault.failure.message().to_owned(),
        hints: fault.failure.hints().to_vec(),
    };
    let mistakes = mistakes.found.into_iter().map(mistake).collect();
    let maybe_more = rest != Rest::Nothing;
    let text = serde_json::to_string(&Found { file: config.display().to_string(), mistakes, maybe_more, warnings })?;
    printer.write_data(format!("{}\n", plain::json(&text)).as_bytes())?;
    conclude(count, rest, config)
}

fn conclude(count: usize, rest: Rest, config: &Path) -> anyhow::Result<()> {
    let words = match count {
        0 => return Ok(()),
        1 => "one mistake".to_owned(),
        count if rest == Rest::NotTold => format!("more than {count} mistakes"),
        count => format!("{count} mistakes"),
    };
    let failure = Failure::system(format!("{words} in the operator's file {}", config.display()))
        .hint("no job starts until they are mended; `docs/CONFIG.md` lists every key with its section and its type");
    let failure = match rest {
        Rest::Nothing => failure,
        Rest::MayBeHidden => failure.hint("call `config check` again then: these mistakes may hide others"),
        Rest::NotTold => failure.hint(format!(
            "{count} of them are told, and the file has more, which nobody has counted: call `config check` again then"
        )),
    };
    Err(failure.into())
}

/// Warnings about this host: things that do not go with the file. The runner's user may differ from the caller.
fn warnings(config: &Path, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o022 != 0) {
        warnings.push(format!("others than its owner may write {}; set its mode to 0644 or 0640", config.display()));
    }
    for WrittenFile { key, path, is_replaced, .. } in written_files(settings) {
        let is_made = is_replaced || !path.exists();
        let opened = if is_made { can_make(path) } else { files::open_to_append(path, 0o600).map(drop) };
        let what = if is_replaced { "make files beside" } else { "append to" };
        if let Err(error) = opened {
            warnings.push(format!("this user cannot {what} `{key}`, {}: {error}", path.display()));
        }
    }
    let runner = &settings.runner;
    let directories = [
        ("runner.state_dir", &runner.state_dir),
        ("runner.builds_dir", &runner.builds_dir),
        ("runner.cache_dir", &runner.cache_dir),
    ];
    warnings.extend(directories.into_iter().filter_map(|(key, path)| unusable(key, path)));
    // Files that another user made in it.
    let below = ["sessions", "jobs", "metrics"].map(|name| runner.state_dir.join(name));
    for folder in below.iter().filter(|folder| folder.exists()) {
        if let Err(error) = can_make(&folder.join("file")) {
            warnings.push(not_makeable("runner.state_dir", folder, &error));
        }
    }
    warnings
}

/// The reason why a directory that the stages make, or use, cannot be.
fn unusable(key: &str, path: &Path) -> Option<String> {
    let nearest = path.ancestors().find(|path| path.exists())?;
    if !nearest.is_dir() {
        return Some(format!("{}, which `{key}` names or lies in, is no directory", nearest.display()));
    }
    // Nothing is made beside directories of others.
    let made = if nearest == path {
        can_make(&path.join("file"))
    } else {
        rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into)
    };
    made.err().map(|error| not_makeable(key, nearest, &error))
}

fn not_makeable(key: &str, folder: &Path, error: &std::io::Error) -> String {
    let folder = folder.display();
    format!("this user cannot make files in {folder}, of `{key}`, which all stages have to: {error}")
}

/// A file outside of the directories, which the operator's file asks the stages to write.
#[derive(Debug, Clone, Copy)]
pub(in crate::operate) struct WrittenFile<'a> {
    pub(in crate::operate) key: &'static str,
    pub(in crate::operate) path: &'a Path,
    /// By a rename of a file beside it.
    pub(in crate::operate) is_replaced: bool,
    /// No job starts without it.
    pub(in crate::operate) is_needed: bool,
}

/// The files of `log.file`, `audit.file` and `metrics.file`.
pub(in crate::operate) fn written_files(settings: &Settings) -> Vec<WrittenFile<'_>> {
    let log = settings.log.file.as_deref().filter(|file| *file != JOURNALD).map(|file| ("log.file", Path::new(file)));
    let audit = settings.audit.file.as_deref().map(|file| ("audit.file", file));
    let metrics = settings.metrics.file.as_deref().map(|file| ("metrics.file", file));
    let file =
        |(key, path)| WrittenFile { key, path, is_replaced: key == "metrics.file", is_needed: key == "audit.file" };
    [log, audit, metrics].into_iter().flatten().map(file).collect()
}

fn can_make(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    tempfile::Builder::new().prefix(".sagemaker-executor.").suffix(".tmp").tempfile_in(folder).map(|_| ())
}
