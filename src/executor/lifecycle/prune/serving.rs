//! Endpoints that do not serve, with their scaling; alarms, configurations and models.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backon::BackoffBuilder as _;

use super::decide;
use super::run::{BATCH, CallError as _, PrunePorts, PruneRun, ThingTags, at_once};
use super::sight::patiently;
use super::things::{PruneSource, ThingKind, stem_of_config, stem_of_model};
use super::turns::TurnQueue;
use crate::base::backoff::backoff;
use crate::cloud::{AlarmSight, CloudError, CloudErrorKind, ScaledQuantity, ScaledVariant, ServedKind, ServingSummary};

/// The variant of endpoints that this program makes.
const VARIANT: &str = "AllTraffic";
/// Looks until an endpoint is gone: some minutes.
const LOOKS: usize = 24;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl PruneRun<'_> {
    /// Returns the names of the endpoints that have gone, or would.
    pub(super) async fn take_endpoints(&mut self) -> BTreeSet<String> {
        let ports = self.ports;
        let listed = match patiently(|| ports.endpoints.listing(ServedKind::Endpoint, "")).await {
            Ok(listed) => listed,
            Err(error) => {
                self.unread(PruneSource::Endpoints, &error);
                return BTreeSet::new();
            }
        };
        let tags = at_once(&listed, async |one| patiently(|| ports.endpoints.tags(&one.arn)).await).await;
        let looks: Vec<_> = listed.iter().zip(tags).collect();
        let rules = self.rules;
        let owns =
            |rules: &decide::PruneRules, one: &ServingSummary, tags: &ThingTags| rules.owns_endpoint(&one.name, tags);
        let judge = |_: &_, one: &ServingSummary| decide::endpoint(rules, one);
        let going = self.settled(ThingKind::Endpoint, looks, |one| &one.name, owns, judge);
        let before: BTreeMap<_, _> = listed.iter().map(|one| (one.name.clone(), one.clone())).collect();
        let mut gone = BTreeSet::new();
        let mut queue = TurnQueue::new(going.iter().collect(), BATCH);
        while let Some(turn) = queue.next().await {
            let now: Vec<_> = turn.iter().map(|&one| one.clone()).collect();
            let delete = async |name: &str| match before.get(name) {
                Some(before) => delete_endpoint(ports, before).await,
                None => Ok(()),
            };
            let left = self.end_turn(ThingKind::Endpoint, &mut queue, &turn, &now, |(name, _)| name, delete).await;
            gone.extend(now.into_iter().map(|(name, _)| name).filter(|name| !left.has(name)));
        }
        if !self.is_dry && !gone.is_empty() {
            self.await_deletion(&gone).await;
            return BTreeSet::new();
        }
        gone
    }

    /// Waits until AWS shows these endpoints no more. What one uses that is still there stays until the next run.
    async fn await_deletion(&self, names: &BTreeSet<String>) {
        for pause in backoff(FIRST_PAUSE, LONGEST_PAUSE).build().take(LOOKS) {
            tokio::time::sleep(pause).await;
            let shown = patiently(|| self.ports.endpoints.listing(ServedKind::Endpoint, "")).await;
            if shown.is_ok_and(|shown| !shown.iter().any(|one| names.contains(&one.name))) {
                return;
            }
        }
    }

    pub(super) async fn take_alarms(&mut self) {
        let ports = self.ports;
        let alarms = match patiently(|| ports.alarms.all_alarms()).await {
            Ok(alarms) => alarms,
            Err(error) => return self.unread(PruneSource::Alarms, &error),
        };
        let rules = self.rules;
        let existing = self.endpoints.names();
        let judge = |references: &_, one: &AlarmSight| decide::alarm(rules, references, &existing, one);
        let may_go = self.sorted(ThingKind::Alarm, &alarms, |one| &one.name, judge);
        let mut queue = TurnQueue::new(may_go, BATCH);
        while let Some(turn) = queue.next().await {
            self.look_again().await;
            let existing = self.endpoints.names();
            let judge = |references: &_, one: &AlarmSight| decide::alarm(rules, references, &existing, one);
            let tags = at_once(&turn, async |one| patiently(|| ports.alarms.alarm_tags(&one.arn)).await).await;
            let looks = turn.iter().copied().zip(tags).collect();
            let owns = |rules: &decide::PruneRules, one: &AlarmSight, tags: &ThingTags| {
                one.definition.as_ref().is_some_and(|alarm| rules.owns_endpoint(&alarm.endpoint, tags))
            };
            let going = self.settled(ThingKind::Alarm, looks, |one| &one.name, owns, judge);
            let delete = async |name: &str| ports.alarms.delete_alarms(&[name.to_owned()]).await;
            self.end_turn(ThingKind::Alarm, &mut queue, &turn, &going, |one| &one.name, delete).await;
        }
    }

    pub(super) async fn take_configs(&mut self) {
        let ports = self.ports;
        let listed = match patiently(|| ports.endpoints.listing(ServedKind::Configuration, "")).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Configurations, &error),
        };
        let rules = self.rules;
        let judge = |references: &_, one: &ServingSummary| decide::configuration(rules, references, one);
        let may_go = self.sorted(ThingKind::Configuration, &listed, |one| &one.name, judge);
        let mut staying: BTreeSet<String> = listed.iter().map(|one| one.name.clone()).collect();
        let mut queue = TurnQueue::new(may_go, BATCH);
        while let Some(turn) = queue.next().await {
            self.look_at(&turn.iter().filter_map(|one| stem_of_config(&one.name)).collect()).await;
            let tags = at_once(&turn, async |one| patiently(|| ports.endpoints.tags(&one.arn)).await).await;
            let looks = turn.iter().copied().zip(tags).collect();
            let owns =
                |rules: &decide::PruneRules, one: &ServingSummary, tags: &ThingTags| rules.owns_named(&one.name, tags);
            let going = self.settled(ThingKind::Configuration, looks, |one| &one.name, owns, judge);
            let delete = async |name: &str| ports.endpoints.delete_config(name).await;
            let left =
                self.end_turn(ThingKind::Configuration, &mut queue, &turn, &going, |one| &one.name, delete).await;
            for (name, _) in going.iter().filter(|(name, _)| !left.has(name)) {
                staying.remove(name);
            }
        }
        for name in &staying {
            self.references.add_config(name);
        }
        let foreign: Vec<_> = staying.into_iter().filter(|name| stem_of_config(name).is_none()).collect();
        let looks = at_once(&foreign, async |name| patiently(|| ports.endpoints.models_of(name)).await).await;
        for (name, look) in foreign.iter().zip(looks) {
            match look {
                Ok(models) => self.references.add_models_of(name, models.unwrap_or_default().names),
                Err(error) => self.unread(PruneSource::Configurations, &error),
            }
        }
    }

    pub(super) async fn take_models(&mut self) {
        let ports = self.ports;
        let listed = match patiently(|| ports.endpoints.listing(ServedKind::Model, "")).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Models, &error),
        };
        self.late.saw_models(&listed);
        let rules = self.rules;
        let judge = |references: &_, one: &ServingSummary| decide::model(rules, references, one);
        let may_go = self.sorted(ThingKind::Model, &listed, |one| &one.name, judge);
        let names: BTreeSet<_> = may_go.iter().map(|one| one.name.as_str()).collect();
        // Also models of others, and those of another form: what they are made of stays.
        let staying: Vec<_> = listed.iter().filter(|one| !names.contains(one.name.as_str())).collect();
        self.keep_parts(staying.iter().map(|one| one.name.clone()).collect()).await;
        let staying: Vec<_> = staying.into_iter().filter(|one| stem_of_model(&one.name).is_some()).collect();
        let tags = at_once(&staying, async |one| patiently(|| ports.endpoints.tags(&one.arn)).await).await;
        for (one, tags) in staying.iter().zip(tags) {
            self.keep_model(one, tags);
        }
        let mut queue = TurnQueue::new(may_go, BATCH);
        while let Some(turn) = queue.next().await {
            self.look_at(&turn.iter().filter_map(|one| stem_of_model(&one.name)).collect()).await;
            let tags = at_once(&turn, async |one| patiently(|| ports.endpoints.tags(&one.arn)).await).await;
            if tags.iter().any(|tags| tags.as_ref().is_err_and(|error| !error.is_absent())) {
                // It stays, and nobody knows its version.
                self.references.blind.insert(PruneSource::Models);
            }
            let known = turn.iter().zip(&tags);
            let mut known: BTreeMap<_, _> =
                known.filter_map(|(one, tags)| Some((one.name.clone(), tags.as_ref().ok()?.clone()))).collect();
            let looks = turn.iter().copied().zip(tags).collect();
            let owns =
                |rules: &decide::PruneRules, one: &ServingSummary, tags: &ThingTags| rules.owns_named(&one.name, tags);
            let going = self.settled(ThingKind::Model, looks, |one| &one.name, owns, judge);
            let delete = async |name: &str| ports.endpoints.delete_model(name).await;
            let left = self.end_turn(ThingKind::Model, &mut queue, &turn, &going, |one| &one.name, delete).await;
            // Those that come again may go later.
            let going: BTreeSet<_> = going.into_iter().map(|(name, _)| name).collect();
            // In a dry run they are still there.
            let is_dry = self.is_dry;
            for name in going.iter().filter(|name| !is_dry && !left.has(name)) {
                self.late.lost_model(name);
            }
            known.retain(|name, _| left.failed.contains(name) || !going.contains(name));
            for (name, tags) in &known {
                self.references.add_model(name, tags);
            }
            self.keep_parts(known.into_keys().collect()).await;
        }
    }

    /// Notes the images and versions of these models, which stay.
    pub(super) async fn keep_parts(&mut self, names: Vec<String>) {
        let endpoints = &self.ports.endpoints;
        let looks = at_once(&names, async |name| patiently(|| endpoints.model_parts(name)).await).await;
        for (name, look) in names.iter().zip(looks) {
            match look {
                Ok(Some(parts)) => self.references.add_parts_of(name, &parts),
                Ok(None) => {}
                Err(error) if error.is_absent() => {}
                Err(error) => self.unread(PruneSource::Models, &error),
            }
        }
    }

    /// Notes what a model that stays is made of.
    pub(super) fn keep_model(&mut self, one: &ServingSummary, tags: Result<ThingTags, CloudError>) {
        match tags {
            Ok(tags) => self.references.add_model(&one.name, &tags),
            Err(error) if error.is_absent() => {}
            Err(error) => self.unread(PruneSource::Models, &error),
        }
    }
}

/// Ends the scaling of an endpoint, then the endpoint, unless it has changed.
async fn delete_endpoint(ports: &PrunePorts, before: &ServingSummary) -> Result<(), CloudError> {
    let name = &before.name;
    let Some(sight) = patiently(|| ports.endpoints.endpoint(name)).await? else { return Ok(()) };
    if Some(sight.state) != before.state || sight.modified != before.modified {
        return Err(CloudError {
            kind: CloudErrorKind::Exists,
            operation: format!("delete endpoint {name}"),
            message: "it has changed in the meantime".to_owned(),
            action: "",
        });
    }
    let variants: BTreeSet<_> = sight.variants.into_iter().map(|one| one.name).chain([VARIANT.to_owned()]).collect();
    for variant in variants {
        for quantity in [ScaledQuantity::Instances, ScaledQuantity::ProvisionedConcurrency] {
            let scaled = ScaledVariant { endpoint: name.clone(), variant: variant.clone(), quantity };
            ports.scaling.deregister(&scaled).await?;
        }
    }
    ports.endpoints.delete_endpoint(name).await
}
