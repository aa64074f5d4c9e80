//! The life of one training job: from Starting to its end, with its containers, its output and its results.
//!
//! One task per job walks through the phases; whatever goes wrong becomes the job's failure reason, never an error of the
//! emulator.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::Instant;

use super::channels::{self, HostPlace};
use super::containers::{self, Ending, INTERNAL, Round};
use super::handle::JobHandle;
use super::job::{Job, Phase};
use super::state::Training;
use crate::faults::JobTrouble;
use crate::protocol::text;
use crate::store::Store;

struct Life {
    job: JobHandle,
    /// Where its hosts' files are.
    folder: PathBuf,
}

const DAY: Duration = Duration::from_hours(24);
const CAPACITY: &str = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML \
                        instance type.";

/// Lives the life of a job that was accepted, to its end.
pub(super) async fn run(training: Arc<Training>, name: String) {
    let Some(job) = JobHandle::of(training, name) else { return };
    let folder = format!("{}-{}", job.name, job.training.shared.next_number());
    let folder = job.config().data_dir.join("jobs").join(folder);
    let life = Life { job, folder };
    let ending = life.live().await;
    life.finish(ending);
}

impl Life {
    async fn live(&self) -> Ending {
        let wait_until = self.job.seconds("/StoppingCondition/MaxWaitTimeInSeconds").map(|wait| Instant::now() + wait);
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
                    self.job.enter(Phase::Interrupted, "Training job interrupted: the spot instances were reclaimed");
                    self.blocking_or_internal(&places, channels::save_checkpoints).await;
                    if wait_until.is_some_and(|until| Instant::now() >= until) {
                        return Ending::MaxWaitTimeExceeded;
                    }
                    if self.pause(self.job.config().delays.starting).await.is_err() {
                        return Ending::Stopped;
                    }
                    self.job.enter(Phase::Starting, "Starting the training job");
                }
            }
        }
    }

    /// From Starting until instances are there, or the reason why they never are.
    async fn provision(&self) -> Result<(String, usize, Option<JobTrouble>), Ending> {
        let delays = &self.job.config().delays;
        self.job.say("Launching requested ML instances");
        self.pause(delays.starting).await?;
        let mut chosen = None;
        for (instance_type, count) in self.wanted_instances() {
            match self.job.training.shared.faults.job(&instance_type) {
                Some(JobTrouble::Capacity) => {
                    self.job.say("Insufficient capacity error from EC2 while launching instances, retrying!");
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
            self.job.enter(Phase::Pending, "Training job waiting for capacity");
            self.pause(pending).await?;
        }
        self.job.say("Preparing the instances for training");
        self.job.change(|job| {
            job.selected_type = Some((instance_type.clone(), i64::try_from(count).unwrap_or(i64::MAX)));
        });
        Ok((instance_type, count, trouble))
    }

    /// Downloads the channels and runs the containers.
    async fn train(&self, places: &[HostPlace], trouble: Option<JobTrouble>, wait_until: Option<Instant>) -> Round {
        let delays = &self.job.config().delays;
        let started = Instant::now();
        let mut until = started + self.job.seconds("/StoppingCondition/MaxRuntimeInSeconds").unwrap_or(DAY);
        if let Some(wait_until) = wait_until {
            until = until.min(wait_until);
        }
        self.job.change(Job::training_starts);
        self.job.enter(Phase::Downloading, "Downloading input data");
        if self.pause(delays.downloading).await.is_err() {
            return Round::Over(Ending::Stopped);
        }
        if let Err(error) = self.prepare(places).await {
            return Round::Over(Ending::Failed(format!("ClientError: Data download failed:{error:#}")));
        }
        self.job.enter(Phase::Training, "Downloading the training image");
        let Some(image) = self.job.config().image(self.job.image_name()) else {
            return Round::Over(Ending::Failed(
                "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are \
                 incorrect."
                    .to_owned(),
            ));
        };
        if self.pause(delays.training).await.is_err() {
            return Round::Over(Ending::Stopped);
        }
        self.job.say("Training image download completed. Training in progress.");
        if trouble == Some(JobTrouble::Internal) {
            return Round::Over(Ending::Failed(INTERNAL.to_owned()));
        }
        if let Some(JobTrouble::Fail { reason }) = trouble {
            return Round::Over(Ending::Failed(reason));
        }
        let round = containers::run(&self.job, places, &image, trouble, until).await;
        let ran = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.job.change(|job| job.bill(ran));
        match round {
            Round::Over(Ending::MaxRuntimeExceeded) if wait_until == Some(until) => {
                Round::Over(Ending::MaxWaitTimeExceeded)
            }
            round => round,
        }
    }

    /// The way out: results are uploaded, whatever the end was.
    async fn leave(&self, places: &[HostPlace], ending: Ending) -> Ending {
        if matches!(ending, Ending::Failed(_)) {
            self.job.change(Job::training_ends);
        }
        let stopping = self.job.training.jobs().get(&self.job.name).is_some_and(|job| job.phase() == Phase::Stopping);
        if !stopping {
            self.job.enter(Phase::Uploading, "Uploading generated training model");
        }
        // Not interruptible: a stop during the upload lets it finish.
        tokio::time::sleep(self.job.config().delays.uploading).await;
        let upload = {
            let (training, request, name, places) =
                (Arc::clone(&self.job.training), self.job.request.clone(), self.job.name.clone(), places.to_vec());
            tokio::task::spawn_blocking(move || {
                channels::save_checkpoints(&training.store, &request, &places)?;
                channels::collect(&training.store, &request, &name, &places)
            })
        };
        let uploaded = upload.await.map_err(anyhow::Error::from).and_then(|result| result);
        let folder = self.folder.clone();
        // What cannot be removed only costs space.
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await);
        match (uploaded, ending) {
            (Err(error), Ending::Completed) => Ending::Failed(format!("ClientError: Artifact upload failed:{error:#}")),
            (_, Ending::Completed) if self.job.stop.is_cancelled() => Ending::Stopped,
            (_, ending) => ending,
        }
    }

    fn finish(&self, ending: Ending) {
        match ending {
            Ending::Completed => self.job.enter(Phase::Completed, "Training job completed"),
            Ending::Stopped => self.job.enter(Phase::Stopped, "Training job stopped"),
            Ending::MaxRuntimeExceeded => {
                self.job.enter(Phase::MaxRuntimeExceeded, "Training job runtime exceeded MaxRuntimeInSeconds provided");
            }
            Ending::MaxWaitTimeExceeded => {
                self.job
                    .enter(Phase::MaxWaitTimeExceeded, "Training job runtime exceeded MaxWaitTimeInSeconds provided");
            }
            Ending::Failed(reason) => {
                self.job.change(|job| job.fail(&reason));
                self.job.enter(Phase::Failed, "Training job failed");
            }
        }
    }

    async fn prepare(&self, places: &[HostPlace]) -> anyhow::Result<()> {
        let (training, request, places) = (Arc::clone(&self.job.training), self.job.request.clone(), places.to_vec());
        let work = move || {
            let config = &training.shared.config;
            let shared = config.share_channels.then(|| config.shared_folder());
            places.iter().try_for_each(|place| channels::prepare(&training.store, &request, place, shared.as_deref()))
        };
        tokio::task::spawn_blocking(work).await.context("failed to prepare the hosts")?
    }

    async fn blocking_or_internal(
        &self,
        places: &[HostPlace],
        work: fn(&Store, &Value, &[HostPlace]) -> anyhow::Result<()>,
    ) {
        let (training, request, places) = (Arc::clone(&self.job.training), self.job.request.clone(), places.to_vec());
        let done = tokio::task::spawn_blocking(move || work(&training.store, &request, &places)).await;
        if let Err(error) = done.map_err(anyhow::Error::from).and_then(|result| result) {
            tracing::warn!(job = self.job.name, error = format!("{error:#}"), "failed to save checkpoints");
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

    /// Instance types in the order of preference, with their counts.
    fn wanted_instances(&self) -> Vec<(String, usize)> {
        let resources = self.job.request.get("ResourceConfig").cloned().unwrap_or_default();
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

    /// Waits; a stop ends it.
    async fn pause(&self, delay: Duration) -> Result<(), Ending> {
        if self.job.stop.is_cancelled() {
            return Err(Ending::Stopped);
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = self.job.stop.cancelled() => Err(Ending::Stopped),
        }
    }
}
