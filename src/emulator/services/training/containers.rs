//! Runs the containers of one job, one per host, to their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::final_metrics::MetricFinder;
use super::hosts::{HostPlace, INTERFACE, POOL_CACHE};
use super::job::Phase;
use super::results::failure_text;
use super::shipping::{LogPlace, ship};
use super::state::{JobHandle, Training};
use super::warm_hosts::keep_alive;
use crate::clock;
use crate::event::InputLogEvent;
use crate::faults::JobTrouble;
use crate::host::{
    self, ContainerExit, ContainerImage, ContainerNetwork, ContainerSpec, ImageSetup, SharedLoopback, StopSignals,
};

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Failed(String),
    Stopped,
    MaxRuntimeExceeded,
    MaxWaitTimeExceeded,
}

/// The end of one start of all containers: the job's end, or an interruption after which they start again.
pub(super) enum Round {
    Over(Ending),
    /// The spot instances were reclaimed.
    Interrupted,
}

/// The failure reason for errors of the platform.
pub(super) const INTERNAL: &str = "InternalServerError: We encountered an internal error. Please try again.";

/// The failure reason when the entrypoint cannot be executed, as for an image with neither `ENTRYPOINT` nor `train`.
const NO_START: &str = "AlgorithmError: CannotStartContainerError. Please make sure the container can be run with 'docker run \
                        <image> train'. Please refer SageMaker documentation for details. It is possible that the \
                        Dockerfile's entrypoint is not properly defined, or missing permissions.";

type Containers = JoinSet<(HostPlace, anyhow::Result<ContainerExit>)>;

impl JobHandle {
    /// Runs a container on each host until all have ended; the first cause counts.
    pub(super) async fn run_containers(
        &self,
        places: &[HostPlace],
        image: &ImageSetup,
        trouble: Option<JobTrouble>,
        until: Instant,
    ) -> Round {
        let grace = self.config().stop_grace;
        let signals = StopSignals { stop: CancellationToken::new(), kill: CancellationToken::new(), grace };
        let role = match self.training.shared.keys.place(self.role.clone()) {
            Ok(path) => path,
            Err(error) => return Round::Over(internal(&error)),
        };
        let started = async {
            let shared = self.shared_loopback(places).await?;
            let network = match &shared {
                Some(shared) => shared.network()?,
                None if self.asks_for("EnableNetworkIsolation") => ContainerNetwork::Loopback,
                None => ContainerNetwork::Host,
            };
            Ok((shared, self.start(places, image, (&role, network), &signals)?))
        };
        let round = match started.await {
            Ok((_shared, containers)) => self.wait(containers, &signals, self.incident(trouble), until).await,
            Err(error) => Round::Over(internal(&error)),
        };
        self.training.shared.keys.revoke(&role);
        signals.kill.cancel(); // Ends what waits to send it.
        round
    }

    /// The network of several isolated containers, which reach each other and nothing else.
    async fn shared_loopback(&self, places: &[HostPlace]) -> anyhow::Result<Option<SharedLoopback>> {
        if places.len() < 2 || !self.asks_for("EnableNetworkIsolation") {
            return Ok(None);
        }
        SharedLoopback::create().await.map(Some)
    }

    fn start(
        &self,
        places: &[HostPlace],
        image: &ImageSetup,
        (role, network): (&str, ContainerNetwork),
        signals: &StopSignals,
    ) -> anyhow::Result<Containers> {
        let mut containers = JoinSet::new();
        for place in places {
            let spec = ContainerSpec { network: network.clone(), ..self.spec(place, image, role)? };
            let (sender, receiver) = mpsc::channel(64);
            let stream = format!("{}/{}-{}", self.name, place.hostname(), clock::now_ms());
            let (shared, logs) = (Arc::clone(&self.training.shared), Arc::clone(&self.training.logs));
            let stream = self.may_log(&stream).then(|| LogPlace::of_job(stream));
            let seen = self.metric_reader();
            self.training.shared.tasks.spawn(async move { ship(shared, logs, stream, receiver, seen).await });
            let (training, place, signals) = (Arc::clone(&self.training), place.clone(), signals.clone());
            containers.spawn(async move { (place, contain(&training, spec, sender, signals).await) });
        }
        Ok(containers)
    }

    /// The fault that occurs while containers run, with its time.
    fn incident(&self, trouble: Option<JobTrouble>) -> Option<(JobTrouble, Instant)> {
        let after_ms = match trouble {
            Some(JobTrouble::SpotInterruption { after_ms, .. }) if self.asks_for("EnableManagedSpotTraining") => {
                after_ms
            }
            Some(JobTrouble::Kill { after_ms } | JobTrouble::HostFailure { after_ms }) => after_ms,
            _ => return None,
        };
        Some((trouble?, Instant::now() + Duration::from_millis(after_ms)))
    }

    /// Applies a fault to the containers. A spot instance gives its containers the time that the fault says.
    fn strike(&self, incident: &JobTrouble, signals: &StopSignals, cause: &mut Option<Round>) {
        match incident {
            JobTrouble::SpotInterruption { .. } if signals.stop.is_cancelled() => {}
            JobTrouble::SpotInterruption { grace_ms, .. } => {
                cause.get_or_insert(Round::Interrupted);
                signals.stop.cancel();
                if let Some(grace) = grace_ms.map(Duration::from_millis) {
                    let kill = signals.kill.clone();
                    self.training.shared.tasks.spawn(async move {
                        tokio::select! {
                            () = tokio::time::sleep(grace) => kill.cancel(),
                            () = kill.cancelled() => {}
                        }
                    });
                }
            }
            JobTrouble::HostFailure { .. } => {
                cause.get_or_insert(Round::Over(Ending::Failed(INTERNAL.to_owned())));
                signals.kill.cancel();
            }
            _ => signals.kill.cancel(),
        }
    }

    async fn wait(
        &self,
        mut containers: Containers,
        signals: &StopSignals,
        incident: Option<(JobTrouble, Instant)>,
        until: Instant,
    ) -> Round {
        // The first cause counts; the containers are always waited for.
        let mut cause: Option<Round> = None;
        let mut over = false;
        let mut incident_over = incident.is_none();
        let mut struck = self.await_strike();
        let mut is_struck = false;
        while !over {
            tokio::select! {
                ended = containers.join_next() => match ended {
                    None => over = true,
                    Some(Ok((_, Ok(exit)))) if exit.code == 0 => {}
                    Some(Ok((_, Ok(exit)))) if !exit.started => {
                        cause.get_or_insert(Round::Over(Ending::Failed(NO_START.to_owned())));
                        signals.kill.cancel();
                    }
                    Some(Ok((place, Ok(exit)))) => {
                        let reason = format!("AlgorithmError: {}, exit code: {}", failure_text(&place), exit.code);
                        cause.get_or_insert(Round::Over(Ending::Failed(reason)));
                        signals.kill.cancel();
                    }
                    Some(Ok((_, Err(error)))) => {
                        cause.get_or_insert(Round::Over(internal(&error)));
                        signals.kill.cancel();
                    }
                    Some(Err(error)) => {
                        cause.get_or_insert(Round::Over(internal(&error.into())));
                        signals.kill.cancel();
                    }
                },
                () = self.stop.cancelled(), if !signals.stop.is_cancelled() => {
                    cause.get_or_insert(Round::Over(Ending::Stopped));
                    signals.stop.cancel();
                }
                () = tokio::time::sleep_until(until), if !signals.stop.is_cancelled() => {
                    self.enter(Phase::Stopping, "Training job runtime exceeded MaxRuntimeInSeconds provided");
                    cause.get_or_insert(Round::Over(Ending::MaxRuntimeExceeded));
                    signals.stop.cancel();
                }
                () = tokio::time::sleep_until(incident.as_ref().map_or(until, |(_, at)| *at)), if !incident_over => {
                    incident_over = true;
                    if let Some((incident, _)) = &incident {
                        self.strike(incident, signals, &mut cause);
                    }
                }
                strike = &mut struck, if !is_struck => {
                    is_struck = true;
                    if let Ok(incident) = strike {
                        self.strike(&incident, signals, &mut cause);
                    }
                }
                () = self.training.shared.shutdown.cancelled(), if !signals.kill.is_cancelled() => {
                    cause.get_or_insert(Round::Over(Ending::Stopped));
                    signals.kill.cancel();
                }
            }
        }
        self.change(|job| job.strike = None);
        cause.unwrap_or(Round::Over(Ending::Completed))
    }

    /// Makes this start of the containers, or their upload, one that a fault can hit.
    pub(super) fn await_strike(&self) -> oneshot::Receiver<JobTrouble> {
        let (sender, receiver) = oneshot::channel();
        self.change(|job| job.strike = Some(sender));
        receiver
    }

    fn spec(&self, place: &HostPlace, image: &ImageSetup, role: &str) -> anyhow::Result<ContainerSpec> {
        let scratch = place.opt_ml.with_file_name("scratch");
        std::fs::create_dir_all(&scratch).with_context(|| format!("failed to create {}", scratch.display()))?;
        let algorithm = self.request.get("AlgorithmSpecification").cloned().unwrap_or_default();
        let words = |name: &str| -> Vec<String> {
            let words = algorithm.get(name).and_then(Value::as_array).into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut entrypoint = words("ContainerEntrypoint");
        let mut arguments = words("ContainerArguments");
        if entrypoint.is_empty() && arguments.is_empty() {
            arguments.push("train".to_owned());
        }
        if entrypoint.is_empty() {
            entrypoint.clone_from(&image.profile.entrypoint);
        }
        Ok(ContainerSpec {
            id: format!("{}-{}", self.name, place.hostname()),
            root: image.root.clone(),
            profile: image.profile.clone(),
            entrypoint,
            arguments,
            environment: self.environment(role),
            hostname: place.hostname(),
            hosts: place.addresses(&self.arn),
            network: ContainerNetwork::Host,
            opt_ml: place.opt_ml.clone(),
            mounts: place.mounts.clone(),
            scratch,
            leftovers: place.leftovers,
        })
    }

    /// Reads the job's metrics from an event of its log.
    fn metric_reader(&self) -> impl Fn(&InputLogEvent) + Send + use<> {
        let (training, name, finder) = (Arc::clone(&self.training), self.name.clone(), MetricFinder::of(&self.request));
        move |event| {
            let found = finder.find(event);
            if let Some(job) = training.jobs().get_mut(&name).filter(|_| !found.is_empty()) {
                for metric in found {
                    metric.add_to(&mut job.metrics);
                }
            }
        }
    }

    /// The variables that SageMaker sets in every container, then those of the request. The role's credentials are at the path `role`.
    fn environment(&self, role: &str) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = [
            ("PWD", "/"),
            ("TRAINING_JOB_NAME", self.name.as_str()),
            ("TRAINING_JOB_ARN", self.arn.as_str()),
            ("AWS_REGION", self.region.as_str()),
            ("AWS_EXECUTION_ENV", "AWS_ECS_EC2"),
            ("SAGEMAKER_METRICS_DIRECTORY", "/opt/ml/output/metrics/sagemaker"),
            ("DMLC_INTERFACE", INTERFACE),
            ("NVIDIA_VISIBLE_DEVICES", "void"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if keep_alive(&self.request).is_some() {
            environment.insert("SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY".to_owned(), POOL_CACHE.to_owned());
        }
        if !self.asks_for("EnableNetworkIsolation") {
            let endpoint = &self.training.shared.endpoint;
            environment.insert("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("{endpoint}{role}"));
            // The real platform needs no such hint: its services are where the region says.
            environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint.clone());
        }
        let own = self.request.get("Environment").and_then(Value::as_object).into_iter().flatten();
        environment.extend(own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
        environment
    }
}

/// Runs a container; the machine's isolation is detected for the first one only.
async fn contain(
    training: &Training,
    spec: ContainerSpec,
    output: mpsc::Sender<Vec<u8>>,
    signals: StopSignals,
) -> anyhow::Result<ContainerExit> {
    if matches!(spec.root, ContainerImage::Engine(_)) {
        return host::run(spec, output, signals.stop, signals.kill, signals.grace).await;
    }
    host::run_with(spec, training.isolation().await?, output, signals).await
}

pub(super) fn internal(error: &anyhow::Error) -> Ending {
    tracing::error!(error = format!("{error:#}"), "failed to run a training container");
    Ending::Failed(INTERNAL.to_owned())
}
