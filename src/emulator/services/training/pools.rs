//! Warm pools: instances that stay for a while after their job, for the next job that matches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::capacity::InstanceQuota;
use super::containers::Ending;
use super::hosts::HostPlace;
use super::job::Job;
use super::life::JobHosts;
use super::state::{JobHandle, Training};
use super::warm_hosts::{WarmHosts, keep_alive, matching};
use crate::host::discard;
use crate::tags::TagMap;

/// Whether instances stay after such an end: they do not after an error of the platform.
fn is_kept_after(ending: &Ending) -> bool {
    match ending {
        Ending::Completed | Ending::Stopped | Ending::MaxRuntimeExceeded => true,
        Ending::MaxWaitTimeExceeded => false,
        Ending::Failed(reason) => reason.starts_with("AlgorithmError") || reason.starts_with("ClientError"),
    }
}

impl Training {
    /// Takes the pool that a new job matches, if there is one.
    pub(super) fn claim(&self, request: &Value, region: &str, tags: &TagMap) -> Option<WarmHosts> {
        let plain = request.pointer("/ResourceConfig/InstanceType").is_some();
        if InstanceQuota::of(request) == InstanceQuota::Spot || !plain {
            return None;
        }
        let (wanted, now) = (matching(request, region, tags), Instant::now());
        let mut pools = self.pools();
        let at = pools.iter().position(|pool| pool.matching == wanted && now < pool.until)?;
        Some(pools.remove(at))
    }

    /// Puts instances into their pool, which ends when its time is over.
    pub(super) fn keep(self: &Arc<Self>, pool: WarmHosts) {
        let (job, until) = (pool.job.clone(), pool.until);
        self.pools().push(pool);
        self.watch(job, until);
    }

    /// Changes how long the pool of an ended job stays, from the job's end on; zero ends it. `false` without such a pool.
    pub(super) fn change_pool(self: &Arc<Self>, job: &mut Job, period: Duration) -> bool {
        let mut pools = self.pools();
        let Some(pool) = pools.iter_mut().find(|pool| pool.job == job.name) else { return false };
        pool.until = pool.since + period;
        let until = pool.until;
        drop(pools);
        if period.is_zero() {
            self.end_pool(job);
        } else {
            self.watch(job.name.clone(), until);
        }
        true
    }

    /// Ends a pool at a time, unless that was changed meanwhile.
    fn watch(self: &Arc<Self>, job: String, until: Instant) {
        let training = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = training.shared.shutdown.cancelled() => {
                    let ended: Vec<_> = training.pools().extract_if(.., |pool| pool.job == job).collect();
                    // Files that cannot be removed only cost space, until the next start.
                    drop(tokio::task::spawn_blocking(move || ended.iter().try_for_each(|pool| discard(&pool.folder))).await);
                    return;
                }
            }
            if let Some(job) = training.jobs().get_mut(&job) {
                training.end_pool(job);
            }
        });
    }

    /// Ends the pool of a job if its time is over.
    fn end_pool(&self, job: &mut Job) {
        let mut pools = self.pools();
        let Some(at) = pools.iter().position(|pool| pool.job == job.name && Instant::now() >= pool.until) else {
            return;
        };
        let pool = pools.remove(at);
        job.end_pool(None);
        // Files that cannot be removed only cost space.
        self.shared.tasks.spawn_blocking(move || drop(discard(&pool.folder)));
    }
}

impl JobHandle {
    /// The instances of the job for a pool, when it ends so.
    pub(super) fn warm_hosts(&self, ending: &Ending, hosts: &JobHosts) -> Option<WarmHosts> {
        let jobs = self.training.jobs();
        let job = jobs.get(&self.name)?;
        // An update may have changed the period while the job ran.
        let period = keep_alive(&job.request).filter(|_| is_kept_after(ending) && job.ran())?;
        let (instance_type, count) = job.instances.clone()?.into_iter().next()?;
        let since = Instant::now();
        Some(WarmHosts {
            job: self.name.clone(),
            instance_type,
            count,
            image: self.image_name().to_owned(),
            folder: self.folder.clone(),
            hosts: hosts.places.first().map(HostPlace::folder)?.parent()?.to_owned(),
            matching: matching(&self.request, &self.region, &self.role.tags),
            since,
            until: since + period,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_platform_ends_the_instances() {
        let failed = |reason: &str| Ending::Failed(reason.to_owned());
        assert!(is_kept_after(&failed("AlgorithmError: , exit code: 1")) && is_kept_after(&Ending::Stopped));
        assert!(!is_kept_after(&failed("InternalServerError: We")) && !is_kept_after(&Ending::MaxWaitTimeExceeded));
    }
}
