//! `sagemaker-executor try`: the current directory and one command go through all stages, as GitLab Runner would call
//! them, on the embedded emulator or on a real account.
//!
//! The stages run as child processes of this same binary: what is seen here is what a runner would see.

mod emulator;
mod image;
mod origin;
mod payload;
mod place;
mod scripts;
mod shared;
mod stages;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::signals::Cancellation;
use crate::boundary;
use crate::config::env::Environment;
use crate::ui::Printer;
use emulator::EmulatorProcess;
pub use image::LocalImage;
use origin::OriginFiles;
use place::Place;
use shared::{BUCKET, canceled, go_on, write};
use stages::Stages;

/// The instance type on the emulator.
const INSTANCE_TYPE: &str = "ml.m5.large";
/// So many names of files are shown.
const NAMES: usize = 10;

#[derive(Debug, Args)]
pub struct TryArgs {
    /// The image of the container: `host` for this machine's own root, the root directory of an unpacked image, or
    /// `engine:IMAGE` to run IMAGE with podman or docker; with `--aws`, an image in Amazon ECR [default: host]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The instance type [default: ml.m5.large; with `--aws`, the operator file's]
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// Use the account and settings of the operator's file (`--config`) instead of the emulator; the job is billed
    #[arg(long)]
    aws: bool,
    /// Keep the folder of the job's files and the emulator's data, and print its path
    #[arg(long)]
    keep: bool,
    /// The command and its arguments; it is ended after an hour
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The emulator that is built into this binary, besides the command `emulator`.
#[derive(Clone, Copy)]
pub struct LocalEmulator {
    /// Tries out whether containers of the image run on this machine; the directory is for what that needs.
    pub check: fn(LocalImage, &Path) -> BoxFuture<'_, anyhow::Result<()>>,
    /// Removes a directory with all that containers left in it.
    pub discard: fn(&Path) -> anyhow::Result<()>,
    /// Reads the access key and the secret that the emulator with this data directory takes.
    pub credentials: fn(&Path) -> anyhow::Result<(String, String)>,
}

pub async fn run(
    args: TryArgs,
    config: PathBuf,
    env: &Environment,
    local: Option<LocalEmulator>,
    printer: &Printer,
) -> ExitCode {
    let work = async |cancellation: Cancellation| {
        let told = async {
            cancellation.changed().await;
            printer.line(
                "Interrupted: the job is ended, and the files that it made are fetched; Ctrl-C again leaves them",
            );
            std::future::pending::<std::convert::Infallible>().await
        };
        let result = tokio::select! {
            result = attempt(&args, &config, env, local, printer, &cancellation) => result,
            never = told => match never {},
        };
        if cancellation.asked() { Err(canceled().into()) } else { result }
    };
    boundary::command(printer, work).await
}

async fn attempt(
    args: &TryArgs,
    config: &Path,
    env: &Environment,
    local: Option<LocalEmulator>,
    printer: &Printer,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    let image = if args.aws { None } else { Some(LocalImage::parse(args.image.as_deref())?) };
    if image.is_some() && local.is_none() {
        return Err(Failure::system("this build of sagemaker-executor has no emulator")
            .hint("use `--aws`, or build with the feature `emulator`")
            .into());
    }
    let origin = std::env::current_dir().map_err(|error| {
        Failure::user("failed to find the current directory").hint("change into another one").caused_by(error)
    })?;
    origin::check(&origin, env)?;
    let folder = tempfile::Builder::new().prefix("sagemaker-executor-try-").tempdir().map_err(|error| {
        Failure::system("failed to make a folder for temporary files")
            .hint("set `TMPDIR` to a directory that exists and that you can write")
            .caused_by(error)
    })?;
    let place = Place::new(folder.path().to_owned(), origin, args.keep);
    let result = in_place(args, config, env, local.zip(image), printer, &place, cancellation).await;
    if place.keep.get() {
        printer.line(format!("Kept: {}", folder.keep().display()));
    } else if let Some(LocalEmulator { discard, .. }) = local {
        // Containers leave directories that only root could remove as they are.
        discard(folder.path())?;
    }
    result
}

async fn in_place(
    args: &TryArgs,
    config: &Path,
    env: &Environment,
    local: Option<(LocalEmulator, LocalImage)>,
    printer: &Printer,
    place: &Place,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    let command = scripts::command_line(&args.command)?;
    let sources = OriginFiles::list(&place.origin, &place.root)?;
    // The copy for the job, its packs and the container's; with an account the container's are elsewhere.
    sources.check_space(&place.root, if local.is_some() { 4 } else { 2 })?;
    sources.write(&place.sources())?;
    let emulator = if let Some((local, image)) = &local {
        (local.check)(image.clone(), &place.root.join("check")).await?;
        printer.line(format!(
            "Trying on this machine, with an emulated AWS that bills nothing: the container starts from {}",
            image.title()
        ));
        Some(EmulatorProcess::start(image, local.credentials, env, &place.root, cancellation).await?)
    } else {
        printer.line(format!("Trying on the AWS account of {}; the training job is billed", config.display()));
        None
    };
    let operator_file = operator_file(args, config, place, local.as_ref().map(|(_, image)| image), emulator.as_ref())?;
    write(&place.operator_file, &operator_file)?;
    let image = args.image.as_deref().filter(|_| args.aws);
    write(&place.payload, &payload::payload(image, place, &command)?)?;
    let started = Instant::now();
    let credentials = emulator.as_ref().map(|emulator| &emulator.credentials);
    let stages = Stages { place, command: &command, env, credentials, cancellation };
    let outcome = stages.all(printer).await;
    if let Some(emulator) = emulator {
        emulator.stop().await;
    }
    tell_files(printer, place, &sources);
    go_on(cancellation)?;
    let code = outcome?;
    tell_end(printer, code, started.elapsed());
    if code == 0 { Ok(()) } else { Err(Failure::script(code).into()) }
}

/// Tells which files of the current directory are new, and which the command deleted in vain.
fn tell_files(printer: &Printer, place: &Place, sources: &OriginFiles) {
    let Ok(changed) = std::fs::read(place.changed()) else {
        return printer.line("No file was fetched from the job's container");
    };
    let text = String::from_utf8_lossy(&changed);
    let names: Vec<_> = text.split('\0').filter_map(|name| name.strip_prefix("./")).map(str::to_owned).collect();
    if names.is_empty() {
        printer.line(
            "No file came back: the command left none in this directory, and files elsewhere end with the container",
        );
    }
    tell_names(printer, "New or changed here", names);
    let project = place.project();
    let deleted = sources.missing_in(&project).map(|path| path.display().to_string());
    tell_names(printer, "Deleted by the command in the job alone, and still here", deleted.collect());
}

fn tell_names(printer: &Printer, what: &str, mut names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    names.sort();
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    printer.line(format!("{what}: {}{more}", names.join(", ")));
}

fn tell_end(printer: &Printer, code: i32, elapsed: Duration) {
    let elapsed = human_duration(elapsed);
    if code == 0 {
        printer.line(format!("The job succeeded: exit code 0 after {elapsed}"));
        printer.line("Next: `sagemaker-executor try --help`, or \"Quick start on a real runner\" in README.md");
        return;
    }
    let meaning = match code {
        126 => " (most often: a program that is not executable)",
        127 => {
            " (most often: a misspelt program, one that is not in the container, or the whole command quoted as one word)"
        }
        137 => " (killed, most often because the memory was full)",
        _ => "",
    };
    printer.line(format!("The job failed: exit code {code} after {elapsed}{meaning}"));
    printer.line("Next: the command's own output is above; docs/TROUBLESHOOTING.md explains other lines");
}

/// The operator's file of the try: its own folders, and either the emulator or the real file's account.
fn operator_file(
    args: &TryArgs,
    config: &Path,
    place: &Place,
    image: Option<&LocalImage>,
    emulator: Option<&EmulatorProcess>,
) -> anyhow::Result<String> {
    let mut table: toml::Table = if let (Some(emulator), Some(image)) = (emulator, image) {
        toml::from_str(&format!(
            "[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\n[storage]\nbucket = \"{BUCKET}\"\n\
         [job]\nrole_arn = \"arn:aws:iam::000000000000:role/try\"\nimage = {}\ninstance_type = \"{INSTANCE_TYPE}\"\n",
            emulator.endpoint,
            toml::Value::from(image.name())
        ))?
    } else {
        let text = std::fs::read_to_string(config).map_err(|error| {
            Failure::system(format!("failed to read the operator's file {}", config.display()))
                .hint("`--aws` needs one: name it with `--config`")
                .caused_by(error)
        })?;
        toml::from_str(&text).context("failed to understand the operator's file")?
    };
    let section = |table: &mut toml::Table, name: &str, key: &str, value: toml::Value| {
        let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
        if let Some(section) = entry.as_table_mut() {
            section.insert(key.to_owned(), value);
        }
    };
    for (key, folder) in [("builds_dir", "builds"), ("cache_dir", "cache"), ("state_dir", "state")] {
        section(&mut table, "runner", key, place.root.join(folder).display().to_string().into());
    }
    if let Some(instance_type) = &args.instance_type {
        section(&mut table, "job", "instance_type", instance_type.clone().into());
    }
    toml::to_string(&table).context("failed to write the operator's file")
}
