//! The end of a job: uploads its results, leaves its instances to a warm pool, and enters its last phase.

use super::checkpoints::CheckpointSync;
use super::containers::Ending;
use super::hosts::empty;
use super::job::{Job, Phase};
use super::life::JobHosts;
use super::results::collect;
use super::state::JobHandle;
use super::warm_hosts::WarmHosts;
use crate::faults::JobTrouble;

impl JobHandle {
    /// Uploads the results, whatever the end is. `None`: the spot instances were reclaimed meanwhile.
    pub(super) async fn leave(&self, hosts: &JobHosts, ending: Ending) -> Option<(Ending, Option<WarmHosts>)> {
        if matches!(ending, Ending::Failed(_)) {
            self.change(Job::training_ends);
        }
        let stopping = self.training.jobs().get(&self.name).is_some_and(|job| job.phase() == Phase::Stopping);
        if !stopping {
            self.enter(Phase::Uploading, "Uploading generated training model");
        }
        // A stop during the upload lets it finish.
        let struck = self.await_strike();
        tokio::select! {
            () = tokio::time::sleep(self.config().delays.uploading) => {}
            Ok(_) = struck => return None,
        }
        self.change(|job| job.strike = None);
        let (name, checkpoints) = (self.name.clone(), hosts.checkpoints.clone());
        let fault = match &hosts.trouble {
            Some(JobTrouble::Upload { reason }) => Some(reason.clone()),
            _ => None,
        };
        let upload = move |_: &_, store: &_, request: &_, places: &[_]| {
            checkpoints.as_ref().map_or(Ok(()), |checkpoints: &CheckpointSync| checkpoints.upload(store))?;
            if let Some(fault) = fault {
                anyhow::bail!(fault);
            }
            collect(store, request, &name, places)
        };
        let ending = match (self.blocking(&hosts.places, upload).await, ending) {
            (Err(error), Ending::Completed) => Ending::Failed(format!("ClientError: Artifact upload failed:{error:#}")),
            (_, Ending::Completed) if self.stop.is_cancelled() => Ending::Stopped,
            (_, ending) => ending,
        };
        let pool = self.warm_hosts(&ending, hosts);
        if pool.is_some() {
            let clear = |_: &_, _: &_, _: &_, places: &[_]| places.iter().try_for_each(empty);
            if let Err(error) = self.blocking(&hosts.places, clear).await {
                tracing::warn!(job = self.name, error = format!("{error:#}"), "failed to empty a host's folders");
            }
        }
        Some((ending, pool))
    }

    /// Uploads what an interrupted container has left of its checkpoints.
    pub(super) async fn save_checkpoints(&self, hosts: &JobHosts) {
        let Some(checkpoints) = hosts.checkpoints.clone() else { return };
        let save = move |_: &_, store: &_, _: &_, _: &[_]| checkpoints.upload(store);
        if let Err(error) = self.blocking(&hosts.places, save).await {
            tracing::warn!(job = self.name, error = format!("{error:#}"), "failed to save checkpoints");
        }
    }

    /// Enters the last phase. In one step with it the instances go to their warm pool: whoever sees the end finds the pool.
    pub(super) fn finish(&self, ending: &Ending, pool: Option<WarmHosts>) {
        let (phase, message) = match ending {
            Ending::Completed => (Phase::Completed, "Training job completed"),
            Ending::Stopped => (Phase::Stopped, "Training job stopped"),
            Ending::MaxRuntimeExceeded => {
                (Phase::MaxRuntimeExceeded, "Training job runtime exceeded MaxRuntimeInSeconds provided")
            }
            Ending::MaxWaitTimeExceeded => {
                (Phase::MaxWaitTimeExceeded, "Training job runtime exceeded MaxWaitTimeInSeconds provided")
            }
            Ending::Failed(_) => (Phase::Failed, "Training job failed"),
        };
        let mut jobs = self.training.jobs();
        let Some(job) = jobs.get_mut(&self.name) else { return };
        if let Ending::Failed(reason) = ending {
            job.fail(reason);
        }
        job.enter(phase, message);
        match pool {
            Some(pool) => {
                job.leave_pool();
                self.training.keep(pool);
            }
            None if job.pool().is_some() => job.end_pool(None),
            None => {}
        }
    }
}
