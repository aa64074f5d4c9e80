//! Moves a workspace through the library's public interface, as `workspace.py` asks: one transfer a process, one line of JSON
//! about it.
//!
//! It measures itself only: no emulator, no other program, no judgement. Each transfer gets the kind of runtime that it has in
//! the executor: one thread on the host, two in the container.
#![expect(clippy::print_stdout, reason = "the line of figures is what this program is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use aws::Aws;
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use executor::base::seal::{Label, Seal, SealKey};
use executor::cloud::{Access, Connect as _, MOST_BYTES, ObjectStore};
use executor::protocol::keys::TransferKeys;
use executor::protocol::project::{Selection, Trees};
use executor::workspace::{
    AllSent, Bounds, Destination, Snapshot, Summary, TransferLimits, TransferProgress, apply_changes, receive, send,
    send_changes,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

/// As many packs as the sender has on their way at a time.
const UPLOADS: usize = 5;
/// The kernel's unit of CPU time in `/proc`, on every platform that the executor is built for.
const TICKS: f64 = 100.0;

#[derive(Parser)]
#[command(about = "One transfer of a workspace, and its figures as a line of JSON")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Host: sends the project
    Up(Transfer),
    /// Container: receives it
    Receive(Transfer),
    /// Container: sends back a tree that is new as a whole
    ResultsUp(Transfer),
    /// Host: fetches that and applies it
    Apply(Transfer),
    /// Puts the stored bytes of a transfer under other keys, from memory; times the requests alone
    Bound(Bound),
}

#[derive(Args)]
struct Place {
    #[arg(long)]
    endpoint: String,
    #[arg(long, default_value = "bench")]
    bucket: String,
    /// Prefix of the manifest
    #[arg(long)]
    manifest: String,
    /// Prefix of the packs
    #[arg(long)]
    packs: String,
}

#[derive(Args)]
struct Transfer {
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    project: PathBuf,
    /// Directory of the host's cache of packs and of received results
    #[arg(long)]
    state: PathBuf,
}

#[derive(Args)]
struct Bound {
    #[command(flatten)]
    place: Place,
    /// Prefix of the keys to write
    #[arg(long)]
    copy: String,
    /// Threads of the runtime; the host has one
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// The printed result.
#[derive(Default)]
struct Figures {
    seconds: f64,
    cpu: f64,
    files: u64,
    bytes: u64,
    sent: u64,
}

fn main() -> ExitCode {
    // Cargo's own word to a benchmark is no part of the command.
    let words = std::env::args_os().filter(|word| word != "--bench");
    match run(Cli::parse_from(words).command) {
        Ok(figures) => {
            let Figures { seconds, cpu, files, bytes, sent } = figures;
            let (seconds, cpu) = (round(seconds), round(cpu));
            let memory = peak_memory();
            let line = json!({
                "seconds": seconds, "cpu": cpu, "files": files, "bytes": bytes, "sent": sent, "memory_kib": memory,
            });
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<Figures> {
    match command {
        Command::Up(transfer) => block_on(1, transfer.up()),
        Command::Receive(transfer) => block_on(2, transfer.receive()),
        Command::ResultsUp(transfer) => block_on(2, transfer.results_up()),
        Command::Apply(transfer) => block_on(1, transfer.apply()),
        Command::Bound(bound) => block_on(bound.threads, bound.run()),
    }
}

fn block_on<T>(threads: usize, task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().context("failed to start the runtime")?;
    let answer = runtime.block_on(task);
    // As in the executor: a thread that is still at work does not hold the process.
    runtime.shutdown_background();
    answer
}

impl Place {
    async fn store(&self) -> anyhow::Result<Arc<dyn ObjectStore>> {
        let access = Access {
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(self.endpoint.clone()),
            bucket: self.bucket.clone(),
            ..Access::default()
        };
        Aws::default().objects(&access).await
    }

    fn route(&self) -> TransferKeys {
        let private = format!("{}/private", self.manifest);
        let seal = Seal::Keyed(SealKey::new([7; 32]));
        let first = Label::project_part(1, 0);
        TransferKeys { seal, first, manifest: self.manifest.clone(), packs: self.packs.clone(), private }
    }
}

impl Transfer {
    fn trees(&self) -> Trees {
        let mut tmp = self.project.clone().into_os_string();
        tmp.push(".tmp");
        Trees { project: self.project.clone(), tmp: tmp.into(), host: None }
    }

    fn staging(&self) -> PathBuf {
        self.state.join("staging")
    }

    async fn up(&self) -> anyhow::Result<Figures> {
        let store = self.place.store().await?;
        let cache = self.state.join("packs");
        let (route, trees, progress) = (self.place.route(), self.trees(), Arc::default());
        measure(send(&*store, &route, &trees, &cache, SystemTime::now(), &progress)).await
    }

    async fn receive(&self) -> anyhow::Result<Figures> {
        let store = self.place.store().await?;
        let (route, trees) = (self.place.route(), self.trees());
        let progress = Arc::<TransferProgress>::default();
        measure(async { Ok(receive(&*store, &route, &trees, &progress).await?.1) }).await
    }

    async fn results_up(&self) -> anyhow::Result<Figures> {
        let store = self.place.store().await?;
        let selection = Selection { everything: true, ..Selection::default() };
        let (route, trees, progress) = (self.place.route(), self.trees(), Arc::default());
        measure(send_changes(&*store, &route, &trees, &Snapshot::default(), &selection, &progress)).await
    }

    async fn apply(&self) -> anyhow::Result<Figures> {
        let store = self.place.store().await?;
        let (route, trees, limits, progress) =
            (self.place.route(), self.trees(), TransferLimits::default(), Arc::default());
        // Not told: the sender may still be at work.
        let sent = AllSent::default();
        let selection = Selection { everything: true, ..Selection::default() };
        let bounds = Bounds { selection: &selection, limits: &limits };
        let destination = Destination { trees: &trees, staging: &self.staging() };
        measure(apply_changes(&*store, &route, destination, bounds, &sent, &progress)).await
    }
}

async fn measure(transfer: impl Future<Output = anyhow::Result<Summary>>) -> anyhow::Result<Figures> {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let summary = transfer.await?;
    if let Some(warning) = summary.warnings.first() {
        anyhow::bail!("the transfer is not complete: {warning}");
    }
    let Summary { files, bytes, sent, .. } = summary;
    Ok(Figures { seconds: started.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu, files, bytes, sent })
}

impl Bound {
    async fn run(&self) -> anyhow::Result<Figures> {
        let store = self.place.store().await?;
        let mut bodies = Vec::new();
        for prefix in [&self.place.packs, &self.place.manifest] {
            for object in store.inventory(&format!("{prefix}/")).await? {
                anyhow::ensure!(object.bytes <= MOST_BYTES, "{} is no pack", object.key);
                let body = store.get(&object.key).await?.context("an object vanished")?;
                bodies.push(Bytes::from(body));
            }
        }
        let (files, sent) = (bodies.len() as u64, bodies.iter().map(|body| body.len() as u64).sum());
        let (started, cpu) = (Instant::now(), cpu_seconds());
        stream::iter(bodies.into_iter().enumerate())
            .map(|(number, body)| {
                let store = &store;
                let key = format!("{}/{number:06}", self.copy);
                async move {
                    anyhow::ensure!(store.put_if_absent(&key, body).await?, "{key} was there already");
                    Ok(())
                }
            })
            .buffer_unordered(UPLOADS)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        Ok(Figures { seconds: started.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu, files, bytes: sent, sent })
    }
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}

/// The largest resident set of this process, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
