//! The life cycle of one training job: its phases from Starting to the end, with containers, output and results.
//!
//! One task per job goes through the phases; each error becomes the job's failure reason, never an error of the emulator.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::channels::{self, HostPlace};
use super::containers::{Ending, INTERNAL, Round};
use super::job::{Job, Phase};
use super::platform::PlatformStore;
use super::state::{JobHandle, Training};
use crate::faults::JobTrouble;
use crate::protocol::text;

const DAY: Duration = Duration::from_hours(24);
const CAPACITY: &str = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML \
                        instance type.";

impl JobHandle {
    /// Runs an accepted job to its end.
    pub(super) async fn run(self) {
        let ending = self.run_phases().await;
        self.finish(ending);
    }

    async fn run_phases(&self) -> Ending {
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
                    let save = |_: &Training, store: &PlatformStore, request: &Value, places: &[HostPlace]| {
                        channels::save_checkpoints(store, request, places)
                    };
                    if let Err(error) = self.blocking(&places, save).await {
                        tracing::warn!(job = self.name, error = format!("{error:#}"), "failed to save checkpoints");
                    }
                    if wait_until.is_some_and(|until| Instant::now() >= until) {
                        return Ending::MaxWaitTimeExceeded;
                    }
                    if self.pause(self.config().delays.starting).await.is_err() {
                        return Ending::Stopped;
                    }
                    self.enter(Phase::Starting, "Starting the training job");
                }
            }
        }
    }

    /// Runs the phases until the instances exist; an error is the end of the job without them.
    async fn provision(&self) -> Result<(String, usize, Option<JobTrouble>), Ending> {
        let delays = &self.config().delays;
        self.set_message("Launching requested ML instances");
        self.pause(delays.starting).await?;
        let mut chosen = None;
        for (instance_type, count) in self.wanted_instances() {
            match self.training.shared.faults.job(&instance_type) {
                Some(JobTrouble::Capacity) => {
                    self.set_message("Insufficient capacity error from EC2 while launching instances, retrying!");
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
        self.set_message("Preparing the instances for training");
        if let Err(denied) = self.may_connect() {
            return Err(Ending::Failed(format!("ClientError: Failed to set up the job's network: {denied}")));
        }
        self.change(|job| {
            job.selected_type = Some((instance_type.clone(), i64::try_from(count).unwrap_or(i64::MAX)));
        });
        Ok((instance_type, count, trouble))
    }

    /// Downloads the channels and runs the containers.
    async fn train(&self, places: &[HostPlace], trouble: Option<JobTrouble>, wait_until: Option<Instant>) -> Round {
        let delays = &self.config().delays;
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
        let prepare = |training: &Training, store: &PlatformStore, request: &Value, places: &[HostPlace]| {
            let config = &training.shared.config;
            let shared = config.share_channels.then(|| config.shared_folder());
            places.iter().try_for_each(|place| channels::prepare(store, request, place, shared.as_deref()))
        };
        if let Err(error) = self.blocking(places, prepare).await {
            return Round::Over(Ending::Failed(format!("ClientError: Data download failed:{error:#}")));
        }
        self.enter(Phase::Training, "Downloading the training image");
        let Some(image) = self.config().image(self.image_name()).filter(|_| self.may_pull().is_ok()) else {
            return Round::Over(Ending::Failed(
                "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are \
                 incorrect."
                    .to_owned(),
            ));
        };
        if self.pause(delays.training).await.is_err() {
            return Round::Over(Ending::Stopped);
        }
        self.set_message("Training image download completed. Training in progress.");
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

    /// Uploads the results, whatever the end is, and removes the hosts' files.
    async fn leave(&self, places: &[HostPlace], ending: Ending) -> Ending {
        if matches!(ending, Ending::Failed(_)) {
            self.change(Job::training_ends);
        }
        let stopping = self.training.jobs().get(&self.name).is_some_and(|job| job.phase() == Phase::Stopping);
        if !stopping {
            self.enter(Phase::Uploading, "Uploading generated training model");
        }
        // Not interruptible: a stop during the upload lets it finish.
        tokio::time::sleep(self.config().delays.uploading).await;
        let name = self.name.clone();
        let upload = move |_: &Training, store: &PlatformStore, request: &Value, places: &[HostPlace]| {
            channels::save_checkpoints(store, request, places)?;
            channels::collect(store, request, &name, places)
        };
        let uploaded = self.blocking(places, upload).await;
        let folder = self.folder.clone();
        // Files that cannot be removed only cost space.
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

    /// Works on the hosts' files, on the blocking pool.
    async fn blocking(
        &self,
        places: &[HostPlace],
        work: impl FnOnce(&Training, &PlatformStore, &Value, &[HostPlace]) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (training, request, places) = (Arc::clone(&self.training), self.request.clone(), places.to_vec());
        let store = self.role_store();
        tokio::task::spawn_blocking(move || work(&training, &store, &request, &places)).await?
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
}
