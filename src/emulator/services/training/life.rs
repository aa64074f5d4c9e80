//! The life cycle of one training job: its phases from Starting to the end of its containers.
//!
//! One task per job goes through the phases; each error becomes the job's failure reason, never an error of the emulator.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::Instant;

use super::capacity::wanted_instances;
use super::channels::{self, HostChannels};
use super::checkpoints::CheckpointSync;
use super::containers::{Ending, INTERNAL, Round, internal};
use super::hosts::{HostGroup, HostPlace, ONE_GROUP};
use super::job::{Instances, Job, Phase};
use super::platform::PlatformStore;
use super::state::{JobHandle, Training};
use super::warm_hosts::WarmHosts;
use crate::faults::JobTrouble;
use crate::host::{ImageSetup, Leftovers, discard};

const DAY: Duration = Duration::from_hours(24);
const CAPACITY: &str = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML \
                        instance type.";
const NO_IMAGE: &str = "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are \
                        incorrect.";

/// The instances of one start of a job.
pub(super) struct JobHosts {
    pub(super) places: Vec<HostPlace>,
    /// The fault that they meet.
    pub(super) trouble: Option<JobTrouble>,
    /// Absent until the channels are there, and for a job without checkpoints.
    pub(super) checkpoints: Option<CheckpointSync>,
}

impl JobHandle {
    /// Runs an accepted job to its end, on the instances of a warm pool when it was given one.
    pub(super) async fn run(self, warm: Option<WarmHosts>) {
        let (ending, pool) = self.run_phases(warm).await;
        if pool.is_none() {
            self.remove(self.folder.clone()).await;
        }
        self.finish(&ending, pool);
    }

    async fn run_phases(&self, mut warm: Option<WarmHosts>) -> (Ending, Option<WarmHosts>) {
        let wait_until = self.seconds("/StoppingCondition/MaxWaitTimeInSeconds").map(|wait| Instant::now() + wait);
        let mut retries =
            self.request.pointer("/RetryStrategy/MaximumRetryAttempts").and_then(Value::as_u64).unwrap_or(0);
        let mut ran = Duration::ZERO;
        for attempt in 1.. {
            let mut hosts = match self.provision(warm.take(), attempt, wait_until).await {
                Ok(hosts) => hosts,
                Err(ending) => return (ending, None),
            };
            let started = Instant::now();
            let round = self.train(&mut hosts, wait_until, ran).await;
            ran += started.elapsed();
            match round {
                Round::Over(Ending::Failed(reason)) if reason == INTERNAL && retries > 0 => {
                    retries -= 1;
                    if self.stop.is_cancelled() {
                        return (Ending::Stopped, None);
                    }
                }
                round => {
                    if let Round::Over(ending) = round
                        && let Some(left) = self.leave(&hosts, ending).await
                    {
                        return left;
                    }
                    if let Err(ending) = self.outlast_interruption(&hosts, wait_until).await {
                        return (ending, None);
                    }
                }
            }
            self.remove(self.attempt_folder(attempt)).await;
            self.enter(Phase::Starting, "Starting the training job");
        }
        (Ending::Failed(INTERNAL.to_owned()), None)
    }

    /// Saves what the reclaimed instances leave, and waits for others; an error is the end of the job.
    async fn outlast_interruption(&self, hosts: &JobHosts, wait_until: Option<Instant>) -> Result<(), Ending> {
        self.enter(Phase::Interrupted, "Training job interrupted: the spot instances were reclaimed");
        self.save_checkpoints(hosts).await;
        if wait_until.is_some_and(|until| Instant::now() >= until) {
            return Err(Ending::MaxWaitTimeExceeded);
        }
        self.pause(self.config().delays.starting, wait_until).await
    }

    /// Runs the phases until the instances exist; an error is the end of the job without them.
    async fn provision(
        &self,
        warm: Option<WarmHosts>,
        attempt: u64,
        wait_until: Option<Instant>,
    ) -> Result<JobHosts, Ending> {
        let (instances, trouble) = match &warm {
            None => self.launch(wait_until).await?,
            Some(warm) => {
                let trouble = self.training.shared.faults.job(&warm.instance_type, true);
                (vec![(warm.instance_type.clone(), warm.count)], trouble)
            }
        };
        self.set_message("Preparing the instances for training");
        let leftovers = match &warm {
            None => Leftovers::None,
            Some(warm) if warm.image == self.image_name() => Leftovers::All,
            Some(_) => Leftovers::Temporary,
        };
        if let Some(warm) = warm {
            let to = self.attempt_folder(attempt);
            let moved = tokio::task::spawn_blocking(move || warm.move_to(&to)).await.context("failed to move files");
            if let Err(error) = moved.flatten() {
                return Err(internal(&error));
            }
        }
        if let Err(denied) = self.may_connect() {
            return Err(Ending::Failed(format!("ClientError: Failed to set up the job's network: {denied}")));
        }
        let groups = host_groups(&self.request, &instances);
        let place = |index: usize| {
            let folder = self.attempt_folder(attempt).join(format!("algo-{}", index + 1));
            HostPlace { leftovers, ..HostPlace::new(index, &groups, &folder) }
        };
        let count = groups.iter().map(|group| group.count).sum();
        Ok(JobHosts { places: (0..count).map(place).collect(), trouble, checkpoints: None })
    }

    /// Launches the first wanted instances that have capacity.
    async fn launch(&self, wait_until: Option<Instant>) -> Result<(Instances, Option<JobTrouble>), Ending> {
        let delays = &self.config().delays;
        self.set_message("Launching requested ML instances");
        self.pause(delays.starting, wait_until).await?;
        let mut chosen = None;
        for instances in wanted_instances(&self.request) {
            let trouble = if self.training.select(&self.name, &instances) {
                instances.iter().find_map(|(instance_type, _)| self.training.shared.faults.job(instance_type, false))
            } else {
                Some(JobTrouble::Capacity)
            };
            if trouble != Some(JobTrouble::Capacity) {
                chosen = Some((instances, trouble));
                break;
            }
            self.set_message("Insufficient capacity error from EC2 while launching instances, retrying!");
        }
        let Some((instances, trouble)) = chosen else {
            self.change(Job::lose_selection);
            return Err(Ending::Failed(CAPACITY.to_owned()));
        };
        let pending = match trouble {
            Some(JobTrouble::Pending { ms }) => Duration::from_millis(ms),
            _ => delays.pending,
        };
        if !pending.is_zero() {
            self.enter(Phase::Pending, "Training job waiting for capacity");
            self.pause(pending, wait_until).await?;
        }
        Ok((instances, trouble))
    }

    /// Downloads the channels and runs the containers, of a job that ran for some time before.
    async fn train(&self, hosts: &mut JobHosts, wait_until: Option<Instant>, ran: Duration) -> Round {
        let started = Instant::now();
        let limit = self.seconds("/StoppingCondition/MaxRuntimeInSeconds").unwrap_or(DAY);
        let mut until = started + limit.saturating_sub(ran);
        if let Some(wait_until) = wait_until {
            until = until.min(wait_until);
        }
        let (channels, image) = match self.download(hosts).await {
            Ok(downloaded) => downloaded,
            Err(ending) => return Round::Over(ending),
        };
        match &hosts.trouble {
            Some(JobTrouble::Internal) => return Round::Over(Ending::Failed(INTERNAL.to_owned())),
            Some(JobTrouble::Fail { reason }) => return Round::Over(Ending::Failed(reason.clone())),
            _ => {}
        }
        let pipes: Vec<_> = channels.iter().flat_map(|channels| &channels.pipes).collect();
        let round = tokio::select! {
            round = self.run_containers(&hosts.places, &image, hosts.trouble.clone(), until) => round,
            never = keep_uploading(hosts.checkpoints.clone(), self.role_store()) => match never {},
            never = feed_all(&pipes) => match never {},
        };
        let ran = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.change(|job| job.bill(ran));
        match round {
            Round::Over(Ending::MaxRuntimeExceeded) if wait_until == Some(until) => {
                Round::Over(Ending::MaxWaitTimeExceeded)
            }
            round => round,
        }
    }

    /// Downloads channels, checkpoints and the image.
    async fn download(&self, hosts: &mut JobHosts) -> Result<(Vec<HostChannels>, ImageSetup), Ending> {
        let delays = &self.config().delays;
        self.change(Job::training_starts);
        self.enter(Phase::Downloading, "Downloading input data");
        self.pause(delays.downloading, None).await?;
        let prepare = |training: &Training, store: &PlatformStore, request: &Value, places: &[HostPlace]| {
            let config = &training.shared.config;
            let one = |place| channels::prepare(store, request, place, config);
            let channels: Vec<_> = places.iter().map(one).collect::<anyhow::Result<_>>()?;
            Ok((channels, CheckpointSync::restore(store, request, places)?))
        };
        let prepared = self.blocking(&hosts.places, prepare).await;
        let failed = |error| Ending::Failed(format!("ClientError: Data download failed:{error:#}"));
        let (mut channels, checkpoints) = prepared.map_err(failed)?;
        for (place, channels) in hosts.places.iter_mut().zip(&mut channels) {
            place.mounts.append(&mut channels.mounts);
        }
        hosts.checkpoints = checkpoints;
        self.enter(Phase::Training, "Downloading the training image");
        let image = match self.may_pull() {
            Ok(()) => self.training.images.find(self.image_name()).await.map_err(|error| internal(&error))?,
            Err(_) => None,
        };
        let image = image.ok_or_else(|| Ending::Failed(NO_IMAGE.to_owned()))?;
        self.pause(delays.training, None).await?;
        self.set_message("Training image download completed. Training in progress.");
        Ok((channels, image))
    }

    /// Works on the hosts' files, on the blocking pool.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        places: &[HostPlace],
        work: impl FnOnce(&Training, &PlatformStore, &Value, &[HostPlace]) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (training, request, places) = (Arc::clone(&self.training), self.request.clone(), places.to_vec());
        let store = self.role_store();
        tokio::task::spawn_blocking(move || work(&training, &store, &request, &places)).await?
    }

    /// Removes a folder; files that cannot be removed only cost space.
    async fn remove(&self, folder: std::path::PathBuf) {
        drop(tokio::task::spawn_blocking(move || discard(&folder)).await);
    }

    fn attempt_folder(&self, attempt: u64) -> std::path::PathBuf {
        self.folder.join(attempt.to_string())
    }

    /// Waits; a stop or the end of the time for spot capacity ends it.
    async fn pause(&self, delay: Duration, wait_until: Option<Instant>) -> Result<(), Ending> {
        if self.stop.is_cancelled() {
            return Err(Ending::Stopped);
        }
        let over = Instant::now() + delay;
        tokio::select! {
            () = tokio::time::sleep_until(wait_until.map_or(over, |until| until.min(over))) => {}
            () = self.stop.cancelled() => return Err(Ending::Stopped),
        }
        if wait_until.is_some_and(|until| until < over) {
            self.enter(Phase::Stopping, "Training job runtime exceeded MaxWaitTimeInSeconds provided");
            return Err(Ending::MaxWaitTimeExceeded);
        }
        Ok(())
    }
}

/// The hosts' groups: those of the request, or one for all.
fn host_groups(request: &Value, instances: &Instances) -> Vec<HostGroup> {
    let name = |index: usize| request.pointer(&format!("/ResourceConfig/InstanceGroups/{index}/InstanceGroupName"));
    let group = |(index, (instance_type, count)): (usize, &(String, u64))| HostGroup {
        name: name(index).and_then(Value::as_str).unwrap_or(ONE_GROUP).to_owned(),
        instance_type: instance_type.clone(),
        count: usize::try_from(*count).unwrap_or(1),
    };
    instances.iter().enumerate().map(group).collect()
}

async fn keep_uploading(checkpoints: Option<CheckpointSync>, store: PlatformStore) -> std::convert::Infallible {
    match checkpoints {
        Some(checkpoints) => checkpoints.keep_uploading(store).await,
        None => std::future::pending().await,
    }
}

async fn feed_all(pipes: &[&super::pipes::PipeChannel]) -> std::convert::Infallible {
    futures::future::join_all(pipes.iter().map(|pipe| pipe.feed())).await;
    std::future::pending().await
}
