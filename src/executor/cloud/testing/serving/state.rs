//! State of the fake of endpoints, and what changes in it as time passes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::alarm_book::AlarmBook;
use super::timeline::{Timeline, TimelineStep};
use crate::cloud::testing::objects::MemoryObjects;
use crate::cloud::{
    AlarmState, ComponentParts, EndpointChange, EndpointConfiguration, EndpointSight, EndpointState, InferenceReply,
    InferenceRequest, RolloutSpec, ScalableTarget, ScalingPolicy, ServedModel, VariantCapacity, VariantSight,
};

/// The end of a creation or an update of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointFate {
    /// The new instances do not come into service, for this reason: a new endpoint is `Failed`, an old one rolls back.
    Fails(String),
    /// The new instances do not come into service, and the rollback fails: `UpdateRollbackFailed`.
    RollbackFails(String),
}

/// Makes a reply from the name of the model and the request.
type Reply = dyn Fn(&str, &InferenceRequest) -> InferenceReply + Send;

#[derive(Default)]
pub(super) struct Replies(pub Option<Box<Reply>>);

impl Debug for Replies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// Models, configurations, endpoints and what belongs to them.
#[derive(Debug)]
pub struct ServingState {
    pub(super) began: Instant,
    pub(super) models: BTreeMap<String, ServedModel>,
    /// Creation of models and configurations, by ARN.
    pub(super) made: BTreeMap<String, Instant>,
    /// In the order of their creation.
    pub(super) configs: Vec<EndpointConfiguration>,
    pub(super) endpoints: BTreeMap<String, FakeEndpoint>,
    /// Inference components, by endpoint.
    pub(super) components: BTreeMap<String, ComponentParts>,
    /// Images that endpoints tell, by endpoint.
    pub(super) deployed: BTreeMap<String, Vec<String>>,
    pub(super) alarms: AlarmBook,
    /// By resource and dimension.
    pub(super) targets: BTreeMap<(String, &'static str), (ScalableTarget, Vec<ScalingPolicy>)>,
    /// Lines by endpoint.
    pub(super) logs: BTreeMap<String, Vec<String>>,
    /// Of the next changes.
    pub(super) fates: VecDeque<EndpointFate>,
    /// Time until new instances are in service.
    pub(super) provisioning: Duration,
    /// Describes that show what was before a change.
    pub(super) stale: usize,
    /// Alarms that are on a minute after a model gets traffic.
    pub(super) bad_models: BTreeMap<String, String>,
    pub(super) changes: Vec<EndpointChange>,
    pub(super) replies: Replies,
    /// Gets the answers of asynchronous endpoints.
    pub(super) objects: Option<Arc<MemoryObjects>>,
    /// Requests, with the model that answered.
    pub(super) requests: Vec<(String, InferenceRequest)>,
}

impl Default for ServingState {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            models: BTreeMap::new(),
            made: BTreeMap::new(),
            configs: Vec::new(),
            endpoints: BTreeMap::new(),
            components: BTreeMap::new(),
            deployed: BTreeMap::new(),
            alarms: AlarmBook::default(),
            targets: BTreeMap::new(),
            logs: BTreeMap::new(),
            fates: VecDeque::new(),
            provisioning: Duration::from_mins(4),
            stale: 0,
            bad_models: BTreeMap::new(),
            changes: Vec::new(),
            replies: Replies::default(),
            objects: None,
            requests: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct FakeEndpoint {
    pub name: String,
    pub arn: String,
    pub tags: BTreeMap<String, String>,
    /// In service; of a new endpoint, the one that it is made with.
    pub config: String,
    pub state: EndpointState,
    pub failure: Option<String>,
    /// Instances in service, as autoscaling may have set them.
    pub count: Option<u32>,
    pub created: Instant,
    pub modified: Instant,
    pub run: Option<FakeUpdate>,
    /// Describes that show this instead.
    pub before: Option<(usize, Box<EndpointSight>)>,
}

/// A change that is under way.
#[derive(Debug, Clone)]
pub(super) struct FakeUpdate {
    pub began: Instant,
    pub to: String,
    pub rollout: Option<RolloutSpec>,
    pub keeps_counts: bool,
    pub fate: Option<EndpointFate>,
    pub provisioning: Duration,
    /// Of a rollback: its reason.
    pub reason: String,
}

impl ServingState {
    pub(super) fn config(&self, name: &str) -> Option<&EndpointConfiguration> {
        self.configs.iter().find(|config| config.name == name)
    }

    /// Number of instances that a configuration says.
    pub(super) fn count_of(&self, config: &str) -> Option<u32> {
        match self.config(config)?.capacity {
            VariantCapacity::Instances { count, .. } => Some(count),
            VariantCapacity::Serverless { .. } => None,
        }
    }

    /// Applies what has happened until now.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        for name in self.endpoints.keys().cloned().collect::<Vec<_>>() {
            while let Some(next) = self.endpoints.get(&name).and_then(|endpoint| self.next(endpoint, now)) {
                if next.state == EndpointState::Deleting && next.run.is_none() {
                    self.endpoints.remove(&name);
                    let resources = format!("endpoint/{name}/variant/");
                    self.targets.retain(|(resource, _), _| !resource.starts_with(&resources));
                } else {
                    self.endpoints.insert(name.clone(), next);
                }
            }
        }
    }

    /// The endpoint after its next turn, when that has been reached. A deleting one without a run is gone.
    fn next(&self, endpoint: &FakeEndpoint, now: Instant) -> Option<FakeEndpoint> {
        let run = endpoint.run.as_ref()?;
        let provisioned = run.began + run.provisioning;
        let mut after = endpoint.clone();
        let at = match endpoint.state {
            EndpointState::Updating => {
                let (at, reason) = self.end_of_update(run);
                if let Some(reason) = reason {
                    after.state = EndpointState::RollingBack;
                    after.run = Some(FakeUpdate { began: at, reason, ..run.clone() });
                } else {
                    after.state = EndpointState::InService;
                    after.failure = None;
                    after.config.clone_from(&run.to);
                    after.count = endpoint.count.filter(|_| run.keeps_counts).or_else(|| self.count_of(&run.to));
                    after.run = None;
                }
                at
            }
            EndpointState::RollingBack => {
                let is_lost = matches!(run.fate, Some(EndpointFate::RollbackFails(_)));
                after.state = if is_lost { EndpointState::UpdateRollbackFailed } else { EndpointState::InService };
                after.failure = Some(run.reason.clone());
                after.run = None;
                provisioned
            }
            EndpointState::Creating => {
                after.state = if run.fate.is_some() { EndpointState::Failed } else { EndpointState::InService };
                after.failure = run.fate.clone().map(reason);
                after.run = None;
                provisioned
            }
            _ => {
                after.run = None;
                provisioned
            }
        };
        after.modified = at;
        (at <= now).then_some(after)
    }

    /// The time at which an update ends, or begins to roll back for a reason.
    fn end_of_update(&self, run: &FakeUpdate) -> (Instant, Option<String>) {
        let line = Timeline::new(run.rollout.as_ref(), run.provisioning);
        let mut ends = vec![(run.began + line.end, None)];
        if let Some(fate) = &run.fate {
            ends.push((run.began + run.provisioning, Some(reason(fate.clone()))));
        }
        if let Some(rollout) = &run.rollout {
            let watched = run.began + line.watched;
            let words = |name| format!("The alarm {name} is in ALARM: the deployment is rolled back.");
            if let Some((at, name)) = self.alarms.first_on(&rollout.alarms, run.began, watched) {
                ends.push((at, Some(words(name))));
            }
            let bad = self.config(&run.to).and_then(|config| self.bad_models.get(&config.model));
            let sounds = run.began + line.traffic() + Duration::from_mins(1);
            if let Some(alarm) = bad.filter(|alarm| rollout.alarms.contains(alarm) && sounds <= watched) {
                ends.push((sounds, Some(words(alarm.clone()))));
            }
            let limit = run.began + Duration::from_secs(rollout.limit_seconds.into());
            ends.push((limit, Some("The deployment took longer than MaximumExecutionTimeoutInSeconds.".to_owned())));
        }
        ends.into_iter().min_by_key(|(at, _)| *at).unwrap_or((run.began, None))
    }

    /// The time of day of an instant.
    pub(super) fn day(&self, at: Instant) -> SystemTime {
        SystemTime::UNIX_EPOCH + (at - self.began)
    }

    /// The phase of an update that moves traffic.
    fn phase(endpoint: &FakeEndpoint, now: Instant) -> Option<TimelineStep> {
        let run = endpoint.run.as_ref().filter(|_| endpoint.state == EndpointState::Updating)?;
        Some(Timeline::new(run.rollout.as_ref(), run.provisioning).phase(now - run.began))
    }

    pub(super) fn sight(&self, endpoint: &FakeEndpoint) -> EndpointSight {
        let now = Instant::now();
        let variant = |config: &str, count: Option<u32>, status: Option<&str>| VariantSight {
            name: self.config(config).map_or("AllTraffic", |config| &config.variant).to_owned(),
            current_instances: count,
            desired_instances: count,
            status: status.map(str::to_owned),
        };
        let is_new = matches!(endpoint.state, EndpointState::Creating | EndpointState::Failed);
        let changes = [EndpointState::Updating, EndpointState::RollingBack].contains(&endpoint.state);
        let pending = endpoint.run.as_ref().filter(|_| changes);
        let status = Self::phase(endpoint, now).map_or("Deleting", |phase| phase.status);
        let day = |at: Instant| Some(self.day(at));
        EndpointSight {
            name: endpoint.name.clone(),
            arn: endpoint.arn.clone(),
            state: endpoint.state,
            config: endpoint.config.clone(),
            variants: if is_new { Vec::new() } else { vec![variant(&endpoint.config, endpoint.count, None)] },
            pending_config: pending.map(|run| run.to.clone()),
            pending_variants: pending
                .map(|run| variant(&run.to, self.count_of(&run.to), Some(status)))
                .into_iter()
                .collect(),
            images: self.deployed.get(&endpoint.name).cloned().unwrap_or_default(),
            failure: endpoint.failure.clone(),
            created: day(endpoint.created),
            modified: day(endpoint.modified),
        }
    }

    /// The models that get an endpoint's traffic, with their shares in percent and the time since which they get it.
    fn traffic(&self, endpoint: &FakeEndpoint, now: Instant) -> Vec<(String, u32, Instant)> {
        if [EndpointState::Creating, EndpointState::Failed].contains(&endpoint.state) {
            return Vec::new();
        }
        let model = |config: &str| self.config(config).map(|config| config.model.clone()).unwrap_or_default();
        let mut shares = Vec::new();
        let new = Self::phase(endpoint, now).map_or(0, |phase| phase.percent);
        if let Some(run) = endpoint.run.as_ref().filter(|_| new > 0) {
            let since = run.began + Timeline::new(run.rollout.as_ref(), run.provisioning).traffic();
            shares.push((model(&run.to), new, since));
        }
        if new < 100 {
            shares.push((model(&endpoint.config), 100 - new, endpoint.created));
        }
        shares
    }

    /// The state of an alarm that is on while a bad model gets traffic.
    pub(super) fn bad_model_state(&self, alarm: &str) -> Option<AlarmState> {
        let now = Instant::now();
        let is_bad = |model: &String| self.bad_models.get(model).is_some_and(|bad| bad == alarm);
        let mut traffic = self.endpoints.values().flat_map(|endpoint| self.traffic(endpoint, now));
        traffic
            .any(|(model, _, since)| is_bad(&model) && now >= since + Duration::from_mins(1))
            .then_some(AlarmState::Alarm)
    }

    /// The model that answers the next request to an endpoint: each gets its share of a hundred requests.
    pub(super) fn answering_model(&self, endpoint: &str) -> Option<String> {
        let shares = self.traffic(self.endpoints.get(endpoint)?, Instant::now());
        let place = u32::try_from(self.requests.len() * 37 % 100).unwrap_or_default();
        let mut upper = 0;
        shares.into_iter().find_map(|(model, share, _)| {
            upper += share;
            (place < upper).then_some(model)
        })
    }
}

fn reason(fate: EndpointFate) -> String {
    match fate {
        EndpointFate::Fails(reason) | EndpointFate::RollbackFails(reason) => reason,
    }
}
