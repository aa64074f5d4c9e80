//! The life of one training job: from Starting to its end, with its containers, its output and its results.
//!
//! One task per job walks through the phases; whatever goes wrong becomes the job's failure reason, never an error of the
//! emulator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::channels::{self, HostPlace};
use super::faults::JobTrouble;
use super::host::{self, ContainerExit, ContainerSpec, Image, Signals};
use super::ingest::Ingest;
use super::job::{Job, Phase};
use super::logs::JOB_GROUP;
use super::protocol::text;
use super::quirks::mixed;
use super::{Core, clock};

/// How a job comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Completed,
    Failed(String),
    Stopped,
    MaxRuntimeExceeded,
    MaxWaitTimeExceeded,
}

/// What a round of containers ended with.
enum Round {
    Over(Ending),
    /// The spot instances were taken away.
    Interrupted,
}

/// What does not change while a job lives.
struct Life {
    core: Arc<Core>,
    name: String,
    request: Value,
    region: String,
    arn: String,
    stop: CancellationToken,
    folder: PathBuf,
    spot: bool,
}

const CAPACITY: &str = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML \
                        instance type.";
const INTERNAL: &str = "InternalServerError: We encountered an internal error. Please try again.";

/// Lives the life of a job that was accepted, to its end.
pub(crate) async fn run(core: Arc<Core>, name: String) {
    let Some(life) = Life::of(core, name) else { return };
    let ending = life.live().await;
    life.finish(ending);
}

impl Life {
    fn of(core: Arc<Core>, name: String) -> Option<Self> {
        let (request, region, arn, stop) = {
            let jobs = core.jobs();
            let job = jobs.get(&name)?;
            (job.request.clone(), job.region.clone(), job.arn.clone(), job.stop.clone())
        };
        let spot = request.get("EnableManagedSpotTraining").and_then(Value::as_bool).unwrap_or(false);
        let folder = core.config.data_dir.join("jobs").join(format!("{name}-{}", core.next_number()));
        Some(Self { core, name, request, region, arn, stop, folder, spot })
    }

    async fn live(&self) -> Ending {
        let wait_until = self.seconds("/StoppingCondition/MaxWaitTimeInSeconds").map(|wait| Instant::now() + wait);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (instance_type, count, trouble) = match self.provision().await {
                Ok(instances) => instances,
                Err(ending) => return ending,
            };
            let places = self.places(&instance_type, count, attempt);
            match self.train(&places, trouble, wait_until).await {
                Round::Over(ending) => return self.leave(&places, ending).await,
                Round::Interrupted => {
                    self.enter(Phase::Interrupted, "Training job interrupted: the spot instances were reclaimed");
                    self.blocking_or_internal(&places, channels::save_checkpoints).await;
                    if wait_until.is_some_and(|until| Instant::now() >= until) {
                        return Ending::MaxWaitTimeExceeded;
                    }
                    if self.pause(self.core.config.delays.starting).await.is_err() {
                        return Ending::Stopped;
                    }
                    self.enter(Phase::Starting, "Starting the training job");
                }
            }
        }
    }

    /// From Starting until instances are there, or the reason why they never are.
    async fn provision(&self) -> Result<(String, usize, Option<JobTrouble>), Ending> {
        let delays = &self.core.config.delays;
        self.say("Launching requested ML instances");
        self.pause(delays.starting).await?;
        let mut chosen = None;
        for (instance_type, count) in self.wanted_instances() {
            match self.core.faults.job(&instance_type) {
                Some(JobTrouble::Capacity) => {
                    self.say("Insufficient capacity error from EC2 while launching instances, retrying!");
                }
                trouble => {
                    chosen = Some((instance_type, count, trouble));
                    break;
                }
            }
        }
        let Some((instance_type, count, trouble)) = chosen else { return Err(Ending::Failed(CAPACITY.to_owned())) };
        let pending = match trouble {
            Some(JobTrouble::Pending { ms }) => Duration::from_millis(ms),
            _ => delays.pending,
        };
        if !pending.is_zero() {
            self.enter(Phase::Pending, "Training job waiting for capacity");
            self.pause(pending).await?;
        }
        self.say("Preparing the instances for training");
        self.change(|job| {
            job.selected_type = Some((instance_type.clone(), i64::try_from(count).unwrap_or(i64::MAX)));
        });
        Ok((instance_type, count, trouble))
    }

    /// Downloads the channels and runs the containers.
    async fn train(&self, places: &[HostPlace], trouble: Option<JobTrouble>, wait_until: Option<Instant>) -> Round {
        let delays = &self.core.config.delays;
        let started = Instant::now();
        let mut until = started + self.seconds("/StoppingCondition/MaxRuntimeInSeconds").unwrap_or(DAY);
        if let Some(wait_until) = wait_until {
            until = until.min(wait_until);
        }
        self.change(Job::training_starts);
        self.enter(Phase::Downloading, "Downloading input data");
        if self.pause(delays.downloading).await.is_err() {
            return Round::Over(Ending::Stopped);
        }
        if let Err(error) = self.prepare(places).await {
            return Round::Over(Ending::Failed(format!("ClientError: Data download failed:{error:#}")));
        }
        self.enter(Phase::Training, "Downloading the training image");
        let Some(image) = self.core.config.image(self.image_name()) else {
            return Round::Over(Ending::Failed(
                "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are \
                 incorrect."
                    .to_owned(),
            ));
        };
        if self.pause(delays.training).await.is_err() {
            return Round::Over(Ending::Stopped);
        }
        self.say("Training image download completed. Training in progress.");
        if trouble == Some(JobTrouble::Internal) {
            return Round::Over(Ending::Failed(INTERNAL.to_owned()));
        }
        if let Some(JobTrouble::Fail { reason }) = trouble {
            return Round::Over(Ending::Failed(reason));
        }
        let round = self.run_containers(places, &image, trouble, until).await;
        let ran = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.change(|job| job.bill(ran));
        match round {
            Round::Over(Ending::MaxRuntimeExceeded) if wait_until == Some(until) => {
                Round::Over(Ending::MaxWaitTimeExceeded)
            }
            round => round,
        }
    }

    async fn run_containers(
        &self,
        places: &[HostPlace],
        image: &host::Image,
        trouble: Option<JobTrouble>,
        until: Instant,
    ) -> Round {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let role = self.core.lend_role();
        let mut containers = tokio::task::JoinSet::new();
        for place in places {
            let spec = match self.spec(place, image, &role) {
                Ok(spec) => spec,
                Err(error) => return Round::Over(internal(&error)),
            };
            let (sender, receiver) = mpsc::channel(64);
            let stream = format!("{}/{}-{}", self.name, place.hostname(), clock::now_ms());
            self.core.tasks.spawn(ship(Arc::clone(&self.core), stream, receiver));
            let signals = Signals { stop: stop.clone(), kill: kill.clone(), grace: self.core.config.stop_grace };
            let (core, place) = (Arc::clone(&self.core), place.clone());
            containers.spawn(async move { (place, contain(&core, spec, sender, signals).await) });
        }
        let incident = trouble.filter(|trouble| match trouble {
            JobTrouble::SpotInterruption { .. } => self.spot,
            trouble => matches!(trouble, JobTrouble::Kill { .. }),
        });
        let incident_at = match incident {
            Some(JobTrouble::SpotInterruption { after_ms } | JobTrouble::Kill { after_ms }) => {
                Some(Instant::now() + Duration::from_millis(after_ms))
            }
            _ => None,
        };
        // The first cause counts; the containers are always waited for.
        let mut cause: Option<Round> = None;
        let mut over = false;
        let mut incident_over = incident_at.is_none();
        while !over {
            tokio::select! {
                ended = containers.join_next() => match ended {
                    None => over = true,
                    Some(Ok((_, Ok(exit)))) if exit.code == 0 => {}
                    Some(Ok((place, Ok(exit)))) => {
                        let reason = format!("AlgorithmError: {}, exit code: {}", channels::failure_text(&place), exit.code);
                        cause.get_or_insert(Round::Over(Ending::Failed(reason)));
                        kill.cancel();
                    }
                    Some(Ok((_, Err(error)))) => {
                        cause.get_or_insert(Round::Over(internal(&error)));
                        kill.cancel();
                    }
                    Some(Err(error)) => {
                        cause.get_or_insert(Round::Over(internal(&error.into())));
                        kill.cancel();
                    }
                },
                () = self.stop.cancelled(), if !stop.is_cancelled() => {
                    cause.get_or_insert(Round::Over(Ending::Stopped));
                    stop.cancel();
                }
                () = tokio::time::sleep_until(until), if !stop.is_cancelled() => {
                    self.enter(Phase::Stopping, "Training job runtime exceeded MaxRuntimeInSeconds provided");
                    cause.get_or_insert(Round::Over(Ending::MaxRuntimeExceeded));
                    stop.cancel();
                }
                () = tokio::time::sleep_until(incident_at.unwrap_or(until)), if !incident_over => {
                    incident_over = true;
                    if matches!(incident, Some(JobTrouble::Kill { .. })) {
                        kill.cancel();
                    } else if !stop.is_cancelled() {
                        cause.get_or_insert(Round::Interrupted);
                        stop.cancel();
                    }
                }
                () = self.core.shutdown.cancelled(), if !kill.is_cancelled() => {
                    cause.get_or_insert(Round::Over(Ending::Stopped));
                    kill.cancel();
                }
            }
        }
        self.core.return_role(&role);
        cause.unwrap_or(Round::Over(Ending::Completed))
    }

    /// The way out: results are uploaded, whatever the end was.
    async fn leave(&self, places: &[HostPlace], ending: Ending) -> Ending {
        if matches!(ending, Ending::Failed(_)) {
            self.change(Job::training_ends);
        }
        let stopping = self.core.jobs().get(&self.name).is_some_and(|job| job.phase() == Phase::Stopping);
        if !stopping {
            self.enter(Phase::Uploading, "Uploading generated training model");
        }
        // Not interruptible: a stop during the upload lets it finish.
        tokio::time::sleep(self.core.config.delays.uploading).await;
        let upload = {
            let (core, request, name, places) =
                (Arc::clone(&self.core), self.request.clone(), self.name.clone(), places.to_vec());
            tokio::task::spawn_blocking(move || {
                channels::save_checkpoints(&core.store, &request, &places)?;
                channels::collect(&core.store, &request, &name, &places)
            })
        };
        let uploaded = upload.await.map_err(anyhow::Error::from).and_then(|result| result);
        let folder = self.folder.clone();
        // What cannot be removed only costs space.
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await);
        match (uploaded, ending) {
            (Err(error), Ending::Completed) => Ending::Failed(format!("ClientError: Artifact upload failed:{error:#}")),
            (_, Ending::Completed) if self.stop.is_cancelled() => Ending::Stopped,
            (_, ending) => ending,
        }
    }

    fn finish(&self, ending: Ending) {
        match ending {
            Ending::Completed => self.enter(Phase::Completed, "Training job completed"),
            Ending::Stopped => self.enter(Phase::Stopped, "Training job stopped"),
            Ending::MaxRuntimeExceeded => {
                self.enter(Phase::MaxRuntimeExceeded, "Training job runtime exceeded MaxRuntimeInSeconds provided");
            }
            Ending::MaxWaitTimeExceeded => {
                self.enter(Phase::MaxWaitTimeExceeded, "Training job runtime exceeded MaxWaitTimeInSeconds provided");
            }
            Ending::Failed(reason) => {
                self.change(|job| job.fail(&reason));
                self.enter(Phase::Failed, "Training job failed");
            }
        }
    }

    async fn prepare(&self, places: &[HostPlace]) -> anyhow::Result<()> {
        let (core, request, places) = (Arc::clone(&self.core), self.request.clone(), places.to_vec());
        let work = move || {
            let shared = core.config.share_channels.then(|| core.shared_folder());
            places.iter().try_for_each(|place| channels::prepare(&core.store, &request, place, shared.as_deref()))
        };
        tokio::task::spawn_blocking(work).await.context("failed to prepare the hosts")?
    }

    async fn blocking_or_internal(
        &self,
        places: &[HostPlace],
        work: fn(&super::store::Store, &Value, &[HostPlace]) -> anyhow::Result<()>,
    ) {
        let (core, request, places) = (Arc::clone(&self.core), self.request.clone(), places.to_vec());
        let done = tokio::task::spawn_blocking(move || work(&core.store, &request, &places)).await;
        if let Err(error) = done.map_err(anyhow::Error::from).and_then(|result| result) {
            tracing::warn!(job = self.name, error = format!("{error:#}"), "failed to save checkpoints");
        }
    }

    fn places(&self, instance_type: &str, count: usize, attempt: usize) -> Vec<HostPlace> {
        let folder = |index: usize| self.folder.join(format!("{attempt}/algo-{}", index + 1));
        (0..count)
            .map(|index| HostPlace {
                index,
                count,
                instance_type: instance_type.to_owned(),
                opt_ml: folder(index).join("opt-ml"),
            })
            .collect()
    }

    fn spec(&self, place: &HostPlace, image: &host::Image, role: &str) -> anyhow::Result<ContainerSpec> {
        let scratch = place.opt_ml.with_file_name("scratch");
        std::fs::create_dir_all(&scratch).with_context(|| format!("failed to create {}", scratch.display()))?;
        let algorithm = self.request.get("AlgorithmSpecification").cloned().unwrap_or_default();
        let words = |name: &str| -> Vec<String> {
            let words = algorithm.get(name).and_then(Value::as_array).into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let entrypoint = words("ContainerEntrypoint");
        let mut arguments = words("ContainerArguments");
        if entrypoint.is_empty() && arguments.is_empty() {
            arguments.push("train".to_owned());
        }
        Ok(ContainerSpec {
            id: format!("{}-{}", self.name, place.hostname()),
            root: image.clone(),
            profile: self.profile(),
            entrypoint,
            arguments,
            environment: self.environment(role),
            hostname: place.hostname(),
            opt_ml: place.opt_ml.clone(),
            scratch,
        })
    }

    fn profile(&self) -> host::Profile {
        self.core.config.profiles.get(self.image_name()).cloned().unwrap_or_default()
    }

    fn image_name(&self) -> &str {
        self.request.pointer("/AlgorithmSpecification/TrainingImage").and_then(Value::as_str).unwrap_or_default()
    }

    /// What the platform gives every container, then what the job asks for.
    fn environment(&self, role: &str) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = [
            ("PWD", "/"),
            ("TRAINING_JOB_NAME", self.name.as_str()),
            ("TRAINING_JOB_ARN", self.arn.as_str()),
            ("AWS_REGION", self.region.as_str()),
            ("AWS_EXECUTION_ENV", "AWS_ECS_EC2"),
            ("SAGEMAKER_METRICS_DIRECTORY", "/opt/ml/output/metrics/sagemaker"),
            ("DMLC_INTERFACE", "eth0"),
            ("NVIDIA_VISIBLE_DEVICES", "void"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let isolated = self.request.get("EnableNetworkIsolation").and_then(Value::as_bool).unwrap_or(false);
        if !isolated {
            let endpoint = self.core.endpoint();
            environment.insert(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(),
                format!("{endpoint}{}{role}", super::ROLE_PATH),
            );
            // The real platform needs no such hint: its services are where the region says.
            environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint.to_owned());
        }
        let own = self.request.get("Environment").and_then(Value::as_object).into_iter().flatten();
        environment.extend(own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
        environment
    }

    /// Instance types in the order of preference, with their counts.
    fn wanted_instances(&self) -> Vec<(String, usize)> {
        let resources = self.request.get("ResourceConfig").cloned().unwrap_or_default();
        let count_of = |value: &Value| value.get("InstanceCount").and_then(Value::as_u64);
        let shared = count_of(&resources);
        let list = ["InstancePreferences", "InstanceGroups"]
            .into_iter()
            .find_map(|name| resources.get(name).and_then(Value::as_array).filter(|list| !list.is_empty()).cloned())
            .unwrap_or_else(|| vec![resources.clone()]);
        list.iter()
            .map(|one| {
                let count = count_of(one).or(shared).unwrap_or(1).max(1);
                (text(one, "InstanceType").unwrap_or_default().to_owned(), usize::try_from(count).unwrap_or(1))
            })
            .collect()
    }

    fn seconds(&self, pointer: &str) -> Option<Duration> {
        self.request.pointer(pointer).and_then(Value::as_u64).map(Duration::from_secs)
    }

    /// Waits; a stop ends it.
    async fn pause(&self, delay: Duration) -> Result<(), Ending> {
        if self.stop.is_cancelled() {
            return Err(Ending::Stopped);
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = self.stop.cancelled() => Err(Ending::Stopped),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.core.jobs().get_mut(&self.name) {
            change(job);
        }
    }

    /// Enters a phase, unless a stop was accepted in the meantime and this is not the end.
    fn enter(&self, phase: Phase, message: &str) {
        self.change(|job| {
            if phase.ended() || job.phase() != Phase::Stopping {
                job.enter(phase, message);
            }
        });
    }

    fn say(&self, message: &str) {
        self.change(|job| {
            if job.phase() != Phase::Stopping {
                job.say(message);
            }
        });
    }
}

/// Runs a container; what the machine offers for it is found out for the first one only.
async fn contain(
    core: &Core,
    spec: ContainerSpec,
    output: mpsc::Sender<Vec<u8>>,
    signals: Signals,
) -> anyhow::Result<ContainerExit> {
    if matches!(spec.root, Image::Engine(_)) {
        return host::run(spec, output, signals.stop, signals.kill, signals.grace).await;
    }
    host::run_with(spec, core.means().await?, output, signals).await
}

const DAY: Duration = Duration::from_hours(24);

impl From<Ending> for Round {
    fn from(ending: Ending) -> Self {
        Round::Over(ending)
    }
}

fn internal(error: &anyhow::Error) -> Ending {
    tracing::error!(error = format!("{error:#}"), "failed to run a training container");
    Ending::Failed(INTERNAL.to_owned())
}

/// Carries one container's output to its log stream, in batches, also after the job has ended.
pub(crate) async fn ship(core: Arc<Core>, stream: String, mut output: mpsc::Receiver<Vec<u8>>) {
    let delay = core.config.quirks.batch_delay;
    let mut ingest = Ingest::new(&core.config.quirks);
    let mut due: Option<Instant> = None;
    let longest_lag = u64::try_from(core.config.quirks.ingestion_lag.as_millis()).unwrap_or(u64::MAX);
    let (mut batches, mut ingested) = (0, 0);
    let mut publish = |events: Vec<super::ingest::Event>| {
        if events.is_empty() {
            return;
        }
        let batch = core.faults.events(events);
        let late = u64::try_from(batch.late.as_millis()).unwrap_or(u64::MAX);
        batches += 1;
        let lag = mixed(core.config.seed, &stream, batches).checked_rem(longest_lag).unwrap_or(0);
        ingested = clock::now_ms().saturating_add(lag).max(ingested);
        core.logs.append(JOB_GROUP, &stream, batch.events, ingested.saturating_add(late));
    };
    loop {
        tokio::select! {
            chunk = output.recv() => {
                let Some(chunk) = chunk else { break };
                ingest.push(&chunk, clock::now_ms());
                if delay.is_zero() {
                    publish(ingest.flush());
                } else if due.is_none() && ingest.has_events() {
                    due = Some(Instant::now() + delay);
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                publish(ingest.flush());
            }
        }
    }
    let tail = ingest.finish(clock::now_ms());
    if !tail.is_empty() {
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + delay)) => {}
            () = core.shutdown.cancelled() => {}
        }
    }
    publish(tail);
}
