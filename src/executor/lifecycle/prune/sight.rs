//! Reads who uses what: the endpoints of the account and their deployments; and looks again for what has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::Retryable as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::decide::PruneRules;
use super::references::{EndpointUse, References};
use super::things::stem_of_config;
use crate::base::backoff::backoff;
use crate::cloud::{
    CloudError, CloudErrorKind, EndpointState, ModelEndpoints, ObjectStore, ObjectSurvey, ServedKind, ServingSummary,
};
use crate::lifecycle::endpoint::{Ledger, LedgerEntry, LedgerKind};

/// Calls that are under way at once.
pub(super) const AT_ONCE: usize = 4;
/// Folder of the records of deployments.
const DEPLOYMENTS: &str = "deployments/";
/// Most deployments of an endpoint that are read to find those that are kept.
const MOST_HISTORY: usize = 400;
/// Pauses of a call that AWS throttles, after the SDK's own: four minutes together.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const PAUSES: usize = 12;

/// Makes a call that reads, and again while AWS throttles it. Never one that deletes: what it deletes may be in use by then.
pub(super) async fn patiently<T, F: Future<Output = Result<T, CloudError>>>(
    call: impl FnMut() -> F,
) -> Result<T, CloudError> {
    let pauses = backoff(FIRST_PAUSE, LONGEST_PAUSE).with_max_times(PAUSES);
    call.retry(pauses).when(|error: &CloudError| error.kind == CloudErrorKind::Throttled).await
}

/// The endpoints of the account, as they were when they were looked at last.
pub(super) struct EndpointWatch {
    endpoints: Arc<dyn ModelEndpoints>,
    /// Names of endpoints that go in this run.
    going: BTreeSet<String>,
    seen: BTreeMap<String, (Option<SystemTime>, Option<EndpointState>)>,
    /// Endpoints that may have inference components, which come and go without a change of the endpoint.
    changing: BTreeSet<String>,
}

impl EndpointWatch {
    pub(super) fn new(endpoints: Arc<dyn ModelEndpoints>, going: BTreeSet<String>) -> Self {
        Self { endpoints, going, seen: BTreeMap::new(), changing: BTreeSet::new() }
    }

    /// Names of the endpoints that exist and stay.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.seen.keys().cloned().collect()
    }

    /// Tells whether an endpoint exists and stays.
    pub(super) fn has(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// Adds what endpoints use that are new or have changed. Nothing is taken away: what was in use a moment ago stays.
    pub(super) async fn look(&mut self, references: &mut References) -> Result<(), CloudError> {
        let listed = patiently(|| self.endpoints.listing(ServedKind::Endpoint, "")).await?;
        let listed: Vec<_> = listed.into_iter().filter(|one| !self.going.contains(&one.name)).collect();
        let is_known = |one: &&ServingSummary| {
            self.seen.get(&one.name) == Some(&(one.modified, one.state)) && !self.changing.contains(&one.name)
        };
        let changed: Vec<_> = listed.iter().filter(|one| !is_known(one)).cloned().collect();
        let endpoints = &self.endpoints;
        let reads = changed.iter().map(|one| use_of(endpoints.as_ref(), &one.name));
        let found: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let absent = changed.iter().zip(&found).filter(|(_, found)| found.is_none());
        let absent: BTreeSet<_> = absent.map(|(one, _)| one.name.clone()).collect();
        let mut uses: Vec<_> = found.into_iter().flatten().collect();
        uses.extend(self.listed_again(&absent).await?);
        for one in &uses {
            references.add_endpoint(one);
        }
        self.changing.extend(uses.into_iter().filter(|one| one.has_components).map(|one| one.name));
        self.seen = listed.into_iter().map(|one| (one.name, (one.modified, one.state))).collect();
        Ok(())
    }

    /// Models and images of endpoints that were listed and then not found, as far as AWS still lists them.
    async fn listed_again(&self, absent: &BTreeSet<String>) -> Result<Vec<EndpointUse>, CloudError> {
        let mut uses = Vec::new();
        if absent.is_empty() {
            return Ok(uses);
        }
        let listed = patiently(|| self.endpoints.listing(ServedKind::Endpoint, "")).await?;
        for one in listed.into_iter().filter(|one| absent.contains(&one.name)) {
            let found = use_of(self.endpoints.as_ref(), &one.name).await?;
            uses.push(found.ok_or_else(|| CloudError {
                kind: CloudErrorKind::Transient,
                operation: format!("look at endpoint {}", one.name),
                message: "AWS lists it, and does not find it".to_owned(),
                action: "sagemaker:DescribeEndpoint",
            })?);
        }
        Ok(uses)
    }
}

/// Models and images that an endpoint uses; `None` when it does not exist.
async fn use_of(endpoints: &dyn ModelEndpoints, name: &str) -> Result<Option<EndpointUse>, CloudError> {
    let Some(sight) = patiently(|| endpoints.endpoint(name)).await? else { return Ok(None) };
    let mut found = EndpointUse { name: name.to_owned(), images: sight.images, ..EndpointUse::default() };
    let tells_images = !found.images.is_empty();
    // One that was never made serves nothing.
    let serves = sight.state != EndpointState::Failed || !sight.variants.is_empty();
    let (mut models, mut has_foreign) = (Vec::new(), false);
    for config in [Some(sight.config), sight.pending_config].into_iter().flatten() {
        if let Some(named) = patiently(|| endpoints.models_of(&config)).await? {
            found.has_components |= named.lacks_one;
            models.extend(named.names);
        } else {
            found.lacks_config = true;
            found.has_components = true;
            has_foreign |= stem_of_config(&config).is_none();
        }
        found.configs.push(config);
    }
    if found.has_components {
        let components = patiently(|| endpoints.components(name)).await?;
        let has_any = !components.models.is_empty() || !components.images.is_empty();
        found.is_unknown = serves && found.lacks_config && !has_any && (has_foreign || !tells_images);
        models.extend(components.models);
        found.images.extend(components.images);
    }
    for model in models {
        let described = patiently(|| endpoints.model_parts(&model)).await?;
        found.is_unknown |= serves && described.is_none() && !tells_images;
        found.models.insert(model, described);
    }
    Ok(Some(found))
}

/// The records of deployments in the environment's bucket.
pub(super) struct LedgerWatch {
    store: Arc<dyn ObjectStore>,
    survey: Arc<dyn ObjectSurvey>,
    /// The number of objects of each endpoint's record, and whether it was read as that of an endpoint that exists.
    seen: BTreeMap<String, (usize, bool)>,
    /// Calls of the last look at all records.
    pages: usize,
}

impl LedgerWatch {
    pub(super) fn new(store: Arc<dyn ObjectStore>, survey: Arc<dyn ObjectSurvey>) -> Self {
        Self { store, survey, seen: BTreeMap::new(), pages: 1 }
    }

    /// Tells whether there is a record of this endpoint.
    pub(super) fn has(&self, endpoint: &str) -> bool {
        self.seen.contains_key(endpoint)
    }

    /// Adds the deployments of all endpoints that are kept and were not read yet; with some stems those of endpoints whose names begin with
    /// one, where that costs less. `existing` is `None` when the endpoints could not be read: then each counts as one that exists.
    pub(super) async fn look(
        &mut self,
        stems: &BTreeSet<&str>,
        rules: &PruneRules,
        existing: Option<&BTreeSet<String>>,
        references: &mut References,
    ) -> anyhow::Result<()> {
        let counted = if stems.is_empty() || stems.len() > self.pages {
            let (counted, pages) = self.count(DEPLOYMENTS).await?;
            self.pages = pages;
            counted
        } else {
            let mut counted = BTreeMap::new();
            for stem in stems {
                counted.extend(self.count(&format!("{DEPLOYMENTS}{stem}")).await?.0);
            }
            counted
        };
        for (endpoint, objects) in counted {
            let exists = existing.is_none_or(|existing| existing.contains(&endpoint));
            if self.seen.get(&endpoint) == Some(&(objects, exists)) {
                continue;
            }
            let ledger = Ledger::new(Arc::clone(&self.store), &endpoint);
            references.add_history(&endpoint, &kept(&ledger, rules, exists).await?, rules.keep);
            self.seen.insert(endpoint, (objects, exists));
        }
        Ok(())
    }

    /// The number of objects below each endpoint's folder, and the number of calls.
    async fn count(&self, prefix: &str) -> Result<(BTreeMap<String, usize>, usize), CloudError> {
        let (mut counted, mut after, mut pages) = (BTreeMap::<String, usize>::new(), None::<String>, 0);
        loop {
            let page = patiently(|| self.survey.page(prefix, after.as_deref())).await?;
            pages += 1;
            for listed in &page.objects {
                let endpoint = listed.key.strip_prefix(DEPLOYMENTS).and_then(|rest| rest.split_once('/'));
                if let Some((endpoint, _)) = endpoint {
                    *counted.entry(endpoint.to_owned()).or_default() += 1;
                }
            }
            after = page.objects.last().map(|last| last.key.clone());
            if !page.has_more || after.is_none() {
                return Ok((counted, pages));
            }
        }
    }
}

/// The newest deployments of an endpoint, among them all that are kept.
async fn kept(ledger: &Ledger, rules: &PruneRules, exists: bool) -> anyhow::Result<Vec<LedgerEntry>> {
    if exists {
        return history(ledger, rules.keep).await;
    }
    // After `endpoint delete` only a deployment that makes the endpoint at this time may need what is there. Without it the endpoint may
    // be in another account, or come back.
    let is_deletion = |entry: &LedgerEntry| entry.begin.kind == LedgerKind::Delete && entry.has_succeeded();
    let newest = ledger.history(1).await?;
    if newest.first().is_none_or(is_deletion) {
        return Ok(Vec::new());
    }
    let found = history(ledger, rules.keep).await?;
    let ended = found.iter().find(|entry| entry.end.is_some());
    if ended.is_some_and(is_deletion) {
        let under_way = newest.into_iter().filter(|entry| entry.end.is_none() && is_young(entry, rules));
        return Ok(under_way.collect());
    }
    Ok(found)
}

/// The newest deployments, so many that the last `keep` ones that succeeded are among them, and what a rollback brings back.
async fn history(ledger: &Ledger, keep: usize) -> anyhow::Result<Vec<LedgerEntry>> {
    let mut most = keep + 1;
    loop {
        let found = ledger.history(most).await?;
        let succeeded = found.iter().filter(|entry| entry.has_succeeded()).count();
        let is_enough = succeeded > keep && has_rollback(&found);
        if found.len() < most || is_enough || most >= MOST_HISTORY {
            return Ok(found);
        }
        most = (most * 2).min(MOST_HISTORY);
    }
}

/// Tells whether the newest deployment that is no rollback is among these, and what was in service before it.
fn has_rollback(history: &[LedgerEntry]) -> bool {
    let is_deletion = |entry: &LedgerEntry| entry.begin.kind == LedgerKind::Delete && entry.has_succeeded();
    if history.iter().any(is_deletion) {
        return true;
    }
    let Some(newest) = history.iter().find(|entry| entry.begin.kind == LedgerKind::Deploy) else { return false };
    let before = &newest.begin.from_config;
    let brought =
        |entry: &LedgerEntry| entry.number < newest.number && entry.has_succeeded() && entry.begin.to_config == *before;
    before.is_none() || history.iter().any(brought)
}

fn is_young(entry: &LedgerEntry, rules: &PruneRules) -> bool {
    let begun = humantime::parse_rfc3339(&entry.begin.at).ok();
    let age = begun.and_then(|begun| rules.now.duration_since(begun).ok());
    age.is_none_or(|age| age < rules.retention)
}
