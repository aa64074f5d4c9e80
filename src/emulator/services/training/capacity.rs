//! The account's quotas of instances: how many of a type may run at once on demand, as spot instances and in warm pools.

use std::collections::BTreeMap;

use serde_json::Value;

use super::job::{Instances, Job, PoolPhase};
use super::state::Training;
use super::warm_hosts::{WarmHosts, keep_alive};
use crate::protocol::{ApiError, text};

/// The kind of a quota; each type of instance has one quota of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceQuota {
    OnDemand,
    Spot,
    WarmPool,
}

impl InstanceQuota {
    /// The kind that a job's instances count against.
    pub(super) fn of(request: &Value) -> Self {
        match request.get("EnableManagedSpotTraining").and_then(Value::as_bool) {
            Some(true) => InstanceQuota::Spot,
            _ => InstanceQuota::OnDemand,
        }
    }

    /// The name of a type's quota on the command line and in fault plans.
    pub(super) fn key(self, instance_type: &str) -> String {
        match self {
            InstanceQuota::OnDemand => instance_type.to_owned(),
            InstanceQuota::Spot => format!("spot:{instance_type}"),
            InstanceQuota::WarmPool => format!("warm-pool:{instance_type}"),
        }
    }

    /// The quota's name in the service's errors.
    fn usage(self) -> &'static str {
        match self {
            InstanceQuota::OnDemand => "training job usage",
            InstanceQuota::Spot => "spot training job usage",
            InstanceQuota::WarmPool => "training warm pool usage",
        }
    }
}

/// The instances that a job may have, in the order of preference.
pub(super) fn wanted_instances(request: &Value) -> Vec<Instances> {
    let resources = request.get("ResourceConfig").cloned().unwrap_or_default();
    let count_of = |value: &Value| value.get("InstanceCount").and_then(Value::as_u64);
    let shared = count_of(&resources);
    let one = |one: &Value| {
        let count = count_of(one).or(shared).unwrap_or(1).max(1);
        (text(one, "InstanceType").unwrap_or_default().to_owned(), count)
    };
    let list = |name: &str| resources.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
    match (list("InstancePreferences"), list("InstanceGroups")) {
        (Some(preferences), _) => preferences.iter().map(|preference| vec![one(preference)]).collect(),
        (None, Some(groups)) => vec![groups.iter().map(one).collect()],
        (None, None) => vec![vec![one(&resources)]],
    }
}

/// Instances of a type that jobs and warm pools hold, of one kind.
fn used(kind: InstanceQuota, instance_type: &str, jobs: &BTreeMap<String, Job>, except: &str) -> u64 {
    let counts = |job: &Job| {
        let of_type = job.instances.iter().flatten().filter(|(held, _)| held == instance_type);
        let held = of_type.map(|(_, count)| *count).sum();
        let is_warm = matches!(job.pool(), Some(PoolPhase::InUse | PoolPhase::Available));
        let runs = !job.phase().ended() || job.pool() == Some(PoolPhase::Available);
        let is_of_kind = runs && InstanceQuota::of(&job.request) == kind;
        let is_held = if kind == InstanceQuota::WarmPool { is_warm } else { is_of_kind };
        if is_held && job.name != except { held } else { 0 }
    };
    jobs.values().map(counts).sum()
}

impl Training {
    /// Checks the quotas of a new job, which has the instances of another one that left them to a warm pool.
    pub(super) fn check_quotas(
        &self,
        request: &Value,
        jobs: &BTreeMap<String, Job>,
        warm: Option<&WarmHosts>,
    ) -> Result<(), ApiError> {
        let except = warm.map_or("", |warm| warm.job.as_str());
        let check = |kind: InstanceQuota, instances: &Instances| self.check_all(kind, instances, jobs, except);
        let wanted = wanted_instances(request);
        if keep_alive(request).is_some() {
            wanted.iter().try_for_each(|one| check(InstanceQuota::WarmPool, one))?;
        }
        let kind = InstanceQuota::of(request);
        let mut refused = wanted.iter().map(|one| check(kind, one));
        let first = refused.next().unwrap_or(Ok(()));
        // One preference within its quota is enough.
        if first.is_err() && refused.any(|one| one.is_ok()) { Ok(()) } else { first }
    }

    /// Gives a job instances of a type, if the quota allows them now.
    pub(super) fn select(&self, name: &str, instances: &Instances) -> bool {
        let mut jobs = self.jobs();
        let Some(request) = jobs.get(name).map(|job| job.request.clone()) else { return false };
        let kind = InstanceQuota::of(&request);
        // That of a single type was checked when the job was created.
        if wanted_instances(&request).len() > 1 && self.check_all(kind, instances, &jobs, name).is_err() {
            return false;
        }
        if let Some(job) = jobs.get_mut(name) {
            job.instances = Some(instances.clone());
        }
        true
    }

    /// Checks each type once: groups of one type count together.
    fn check_all(
        &self,
        kind: InstanceQuota,
        instances: &Instances,
        jobs: &BTreeMap<String, Job>,
        except: &str,
    ) -> Result<(), ApiError> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (instance_type, count) in instances {
            *sums.entry(instance_type).or_default() += count;
        }
        sums.into_iter().try_for_each(|(instance_type, count)| {
            self.check_quota(kind, (instance_type, count), used(kind, instance_type, jobs, except))
        })
    }

    /// Refuses more instances of a type than its quota allows beside those that run and wait in warm pools.
    fn check_quota(&self, kind: InstanceQuota, (instance_type, asked): (&str, u64), used: u64) -> Result<(), ApiError> {
        let Some(limit) = self.shared.instance_quota(&kind.key(instance_type)) else { return Ok(()) };
        if used + asked <= limit {
            return Ok(());
        }
        // The text of the service, as users of it have reported it.
        Err(ApiError::new(
            "ResourceLimitExceeded",
            format!(
                "The account-level service limit '{instance_type} for {}' is {limit} Instances, with current utilization \
                 of {used} Instances and a request delta of {asked} Instances. Please use AWS Service Quotas to request \
                 an increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an \
                 increase for this quota.",
                kind.usage()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_count_of_the_job_is_that_of_every_preference_without_one() {
        let request = json!({"ResourceConfig": {"InstanceCount": 2, "InstancePreferences": [
            {"InstanceType": "ml.p4d.24xlarge"}, {"InstanceType": "ml.g5.xlarge", "InstanceCount": 8}]}});
        let wanted = wanted_instances(&request);
        let of = |name: &str, count| (name.to_owned(), count);
        assert_eq!(wanted, [vec![of("ml.p4d.24xlarge", 2)], vec![of("ml.g5.xlarge", 8)]]);
        let groups = json!({"ResourceConfig": {"InstanceGroups": [
            {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2, "InstanceGroupName": "data"},
            {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "InstanceGroupName": "train"}]}});
        assert_eq!(wanted_instances(&groups), [vec![of("ml.c5.xlarge", 2), of("ml.g5.xlarge", 1)]]);
    }
}
