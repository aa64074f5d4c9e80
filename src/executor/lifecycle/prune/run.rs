//! Carries a clean-up out, kind after kind: what refers to another thing goes before it, so that a run that was killed leaves nothing that
//! the next one does not find in a list.
//!
//! Things of a kind go in small batches. Before each the users of the batch are looked for again, then the owner of each thing, which is
//! the last look before its deletion. One that cannot be read or deleted does not end the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::decide::{self, PruneRules};
use super::listed::LateUsers;
use super::references::References;
use super::sight::{AT_ONCE, EndpointWatch, LedgerWatch};
use super::things::{JudgedThing, PruneSource, ThingFate, ThingKind, ThingReason, ThingVerdict};
use super::turns::TurnQueue;
use super::under_way::UnderWay;
use crate::base::plain;
use crate::cloud::{
    CloudError, CloudErrorKind, EndedJobs, EndpointScaling, MetricAlarms, ModelEndpoints, ModelRegistry, ObjectStore,
    ObjectSurvey, RepositoryImages, VersionSummary,
};
use crate::gitlab::api::{GitLabApi, GitLabError, GitLabErrorKind};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::endpoint::ENDPOINT;
use crate::lifecycle::target::ProjectTarget;
use crate::ui::Printer;

/// Things whose users are looked for together.
pub(super) const BATCH: usize = 16;
/// Longest error that is told, in bytes.
const LONGEST_ERROR: usize = 2000;

/// Tags of a resource.
pub(super) type ThingTags = BTreeMap<String, String>;

/// The ports of a clean-up.
pub(super) struct PrunePorts {
    pub(super) endpoints: Arc<dyn ModelEndpoints>,
    pub(super) scaling: Arc<dyn EndpointScaling>,
    pub(super) alarms: Arc<dyn MetricAlarms>,
    pub(super) registry: Arc<dyn ModelRegistry>,
    pub(super) images: Arc<dyn RepositoryImages>,
    pub(super) jobs: Arc<dyn EndedJobs>,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) survey: Arc<dyn ObjectSurvey>,
    /// `None` outside of a job of GitLab.
    pub(super) gitlab: Option<Arc<dyn GitLabApi>>,
}

impl PrunePorts {
    pub(super) async fn connect(
        inputs: &CommandInputs,
        target: &ProjectTarget,
        gitlab: Option<Arc<dyn GitLabApi>>,
    ) -> anyhow::Result<Self> {
        let (connect, access) = (&inputs.connect, &target.access);
        Ok(Self {
            endpoints: connect.endpoints(access).await?,
            scaling: connect.scaling(access).await?,
            alarms: connect.alarms(access).await?,
            registry: connect.registry(access).await?,
            images: connect.repository_images(access).await?,
            jobs: connect.ended_jobs(access).await?,
            objects: connect.objects(access).await?,
            survey: connect.survey(access).await?,
            gitlab,
        })
    }
}

/// The places of the project that are looked through.
#[derive(Debug, Clone, Default)]
pub(super) struct PruneScope {
    /// Model package group.
    pub(super) group: Option<String>,
    /// The groups of all entries of the manifest, whose versions may have the same images and packages, whoever made them.
    pub(super) entry_groups: BTreeSet<String>,
    /// An entry of another environment names its group by variables: it may be any group.
    pub(super) has_unknown_group: bool,
    /// Account and name of each repository of images.
    pub(super) repositories: BTreeSet<(String, String)>,
    /// Images that the manifest names, for any environment.
    pub(super) images: Vec<String>,
    /// Environments whose entries name the image by variables, which may have other values there.
    pub(super) variable_images: Vec<String>,
    /// Environments whose entries have a mistake in the model's image or group.
    pub(super) unread_entries: Vec<String>,
    /// Name of the generic package in GitLab.
    pub(super) generic_package: Option<String>,
}

impl PruneScope {
    /// Tells whether a version with this ARN is of the own group.
    fn is_own_version(&self, arn: &str) -> bool {
        self.group.as_deref().is_some_and(|group| is_of_group(arn, group))
    }

    /// Tells whether a version may have an image or a package of the project. Any version may have an image, whoever made it; a package only
    /// one that this program made, or one of a group that an entry of the manifest may name.
    pub(super) fn asks_version(&self, version: &VersionSummary) -> bool {
        !self.repositories.is_empty()
            || self.has_unknown_group
            || decide::has_mark(version)
            || self.is_own_version(&version.arn)
            || self.entry_groups.iter().any(|group| is_of_group(&version.arn, group))
    }
}

/// Tells whether a version is of a group, whose letters AWS may write small in ARNs.
fn is_of_group(arn: &str, group: &str) -> bool {
    let named = arn.split_once(":model-package/").and_then(|(_, rest)| rest.rsplit_once('/'));
    named.is_some_and(|(named, _)| named.eq_ignore_ascii_case(group))
}

/// Something that failed, and whether AWS or GitLab may do it later.
#[derive(Debug, Clone)]
pub(super) struct PruneFailure {
    pub(super) text: String,
    pub(super) may_pass: bool,
}

/// The names of things that were to be deleted, and are not.
#[derive(Debug, Default)]
pub(super) struct PruneLeft {
    pub(super) failed: BTreeSet<String>,
    /// AWS throttled their deletion: they are looked at again in a later turn.
    pub(super) again: BTreeSet<String>,
}

impl PruneLeft {
    pub(super) fn has(&self, name: &str) -> bool {
        self.failed.contains(name) || self.again.contains(name)
    }

    fn len(&self) -> usize {
        self.failed.len() + self.again.len()
    }
}

/// The error of a call, of AWS or of GitLab.
pub(super) trait CallError: Display {
    fn is_throttled(&self) -> bool;
    /// The call may succeed when it is made again, and its caller makes it once.
    fn comes_again(&self) -> bool {
        false
    }
    fn is_absent(&self) -> bool;
    /// A hint, when the error itself has none.
    fn advice(&self) -> &'static str {
        ""
    }
}

impl CallError for CloudError {
    fn is_throttled(&self) -> bool {
        self.kind == CloudErrorKind::Throttled
    }

    fn comes_again(&self) -> bool {
        matches!(self.kind, CloudErrorKind::Throttled | CloudErrorKind::Transient)
    }

    fn is_absent(&self) -> bool {
        // CloudWatch and SageMaker have no one code for it.
        self.kind == CloudErrorKind::NotFound
            || (self.kind == CloudErrorKind::Invalid
                && ["Could not find", "does not exist", "not found"].iter().any(|words| self.message.contains(words)))
    }
}

impl CallError for GitLabError {
    fn is_throttled(&self) -> bool {
        self.kind == GitLabErrorKind::Throttled
    }

    fn is_absent(&self) -> bool {
        self.kind == GitLabErrorKind::NotFound
    }

    fn advice(&self) -> &'static str {
        match self.kind {
            GitLabErrorKind::Denied | GitLabErrorKind::Unauthenticated => {
                "; the user or the token of `--token-env` needs the role Maintainer, and a token of its own the scope `api`"
            }
            _ => "",
        }
    }
}

pub(super) struct PruneRun<'a> {
    pub(super) ports: &'a PrunePorts,
    pub(super) rules: &'a PruneRules,
    pub(super) scope: &'a PruneScope,
    pub(super) printer: &'a Printer,
    pub(super) is_dry: bool,
    pub(super) references: References,
    pub(super) endpoints: EndpointWatch,
    pub(super) ledgers: LedgerWatch,
    pub(super) late: LateUsers,
    pub(super) things: Vec<JudgedThing>,
    pub(super) failures: Vec<PruneFailure>,
    /// Things of others that were looked at.
    pub(super) others: usize,
    /// Things whose deletion was sent and may have been done, although AWS did not say so. Most of them are deleted or told later.
    pub(super) tried: BTreeSet<(ThingKind, String)>,
    pub(super) under_way: UnderWay,
    has_told_unknown: bool,
}

impl<'a> PruneRun<'a> {
    pub(super) fn new(
        ports: &'a PrunePorts,
        rules: &'a PruneRules,
        scope: &'a PruneScope,
        printer: &'a Printer,
        is_dry: bool,
    ) -> Self {
        Self {
            ports,
            rules,
            scope,
            printer,
            is_dry,
            references: References::default(),
            endpoints: EndpointWatch::new(Arc::clone(&ports.endpoints), BTreeSet::new()),
            ledgers: LedgerWatch::new(Arc::clone(&ports.objects), Arc::clone(&ports.survey)),
            late: LateUsers::default(),
            things: Vec::new(),
            failures: Vec::new(),
            others: 0,
            tried: BTreeSet::new(),
            under_way: UnderWay::default(),
            has_told_unknown: false,
        }
    }

    /// Looks at everything, and deletes what goes.
    pub(super) async fn carry_out(&mut self) {
        let going = self.take_endpoints().await;
        self.endpoints = EndpointWatch::new(Arc::clone(&self.ports.endpoints), going);
        self.look_again().await;
        self.take_alarms().await;
        self.take_configs().await;
        self.take_models().await;
        self.read_releases().await;
        self.note_manifest();
        self.take_versions().await;
        self.take_images().await;
        self.take_generic_packages().await;
        self.take_objects().await;
        self.take_jobs().await;
    }

    /// Notes the deletions whose outcome was not known when the run was interrupted: no answer had come, or one after which the deletion
    /// would have been sent again.
    pub(super) fn interrupt(&mut self) {
        let under_way = self.under_way.take();
        let told: BTreeSet<_> = self.things.iter().map(|thing| (thing.kind, thing.name.clone())).collect();
        let waiting: Vec<_> = self.tried.difference(&told).filter(|one| !under_way.contains(one)).cloned().collect();
        let waiting = waiting.into_iter().map(|one| (one, "it was to be sent again"));
        for ((kind, name), what) in under_way.into_iter().map(|one| (one, "no answer came")).chain(waiting) {
            let error = Some(format!("interrupted, and it may be deleted: {what}"));
            self.printer.warn(format!("{} {} may be deleted: {what}", kind.name(), plain::line(&name, 200)));
            let thing = JudgedThing::new(kind, &name, ThingFate::Failed, &ThingReason::Unused);
            self.things.push(JudgedThing { error, ..thing });
        }
    }

    /// Adds users that have come since the last look: endpoints of the account, and deployments.
    pub(super) async fn look_again(&mut self) {
        self.look_at(&BTreeSet::new()).await;
    }

    /// As [`PruneRun::look_again`], with the deployments to endpoints whose names begin with one of these stems, where that costs less
    /// than a look at all. No stem means all.
    pub(super) async fn look_at(&mut self, stems: &BTreeSet<&str>) {
        // A source that could not be read is not asked again: all that it may refer to stays anyway.
        let is_blind = |references: &References, source| references.blind.contains(&source);
        if !is_blind(&self.references, PruneSource::Endpoints)
            && let Err(error) = self.endpoints.look(&mut self.references).await
        {
            self.unread(PruneSource::Endpoints, &error);
        }
        if self.references.blind.contains(&PruneSource::EndpointModels) && !self.has_told_unknown {
            self.has_told_unknown = true;
            self.printer.warn(
                "models, versions, images and packages stay: somebody deleted the configuration or the model of an endpoint of the account, \
                 and AWS does not tell what it serves",
            );
        }
        if is_blind(&self.references, PruneSource::Ledger) {
            return;
        }
        let names = self.endpoints.names();
        let existing = (!is_blind(&self.references, PruneSource::Endpoints)).then_some(&names);
        if let Err(error) = self.ledgers.look(stems, self.rules, existing, &mut self.references).await {
            let may_pass = error.downcast_ref::<CloudError>().is_some_and(CallError::is_throttled);
            self.unread_text(PruneSource::Ledger, &format!("{error:#}"), may_pass);
        }
        self.references.unrecorded = names.into_iter().filter(|name| !self.ledgers.has(name)).collect();
    }

    /// Notes a source that cannot be read. What it may refer to stays.
    pub(super) fn unread(&mut self, source: PruneSource, error: &impl CallError) {
        self.unread_text(source, &error.to_string(), error.is_throttled());
    }

    pub(super) fn unread_text(&mut self, source: PruneSource, error: &str, may_pass: bool) {
        if self.references.blind.insert(source) {
            let error = plain::line(error, LONGEST_ERROR);
            self.printer.warn(format!("{} could not be read: {error}", source.name()));
            self.failures.push(PruneFailure { text: error, may_pass });
        }
    }

    /// A thing that does not exist any more: somebody else deleted it, or this run.
    pub(super) fn gone(&mut self, kind: ThingKind, name: &str) {
        if self.tried.contains(&(kind, name.to_owned())) {
            self.ended(kind, name, &ThingReason::Unused);
        }
    }

    pub(super) fn stays(&mut self, kind: ThingKind, name: &str, reason: &ThingReason) {
        self.things.push(JudgedThing::new(kind, name, ThingFate::Stays, reason));
    }

    pub(super) fn failed(&mut self, kind: ThingKind, name: &str, reason: &ThingReason, error: &impl CallError) {
        let text = plain::line(&format!("{error}{}", error.advice()), LONGEST_ERROR);
        self.printer.warn(format!("{} {} was not deleted: {text}", kind.name(), plain::line(name, 200)));
        self.failures.push(PruneFailure { text: text.clone(), may_pass: error.is_throttled() });
        let thing = JudgedThing { error: Some(text), ..JudgedThing::new(kind, name, ThingFate::Failed, reason) };
        self.things.push(thing);
    }

    pub(super) fn ended(&mut self, kind: ThingKind, name: &str, reason: &ThingReason) {
        let fate = if self.is_dry { ThingFate::WouldBeDeleted } else { ThingFate::Deleted };
        if !self.is_dry {
            self.printer.line(format!("Deleted {} {}", kind.name(), plain::line(name, 200)));
        }
        self.things.push(JudgedThing::new(kind, name, fate, reason));
    }

    /// Deletes these things, or in a dry run says that it would. Those whose deletion AWS throttled are not told when they come again.
    pub(super) async fn end<E: CallError>(
        &mut self,
        kind: ThingKind,
        going: &[(String, ThingReason)],
        may_come_again: bool,
        delete: impl AsyncFn(&str) -> Result<(), E>,
    ) -> PruneLeft {
        let mut left = PruneLeft::default();
        if self.is_dry {
            for (name, reason) in going {
                self.ended(kind, name, reason);
            }
            return left;
        }
        let under_way = self.under_way.clone();
        let deletion = async |(name, reason)| {
            under_way.begin(kind, name);
            (name, reason, delete(name).await)
        };
        let sent = going.iter().map(|(name, reason)| deletion((name, reason)));
        let mut answers = std::pin::pin!(stream::iter(sent).buffer_unordered(AT_ONCE));
        // Each is told as soon as it is answered: a signal may end the run before the others are.
        while let Some((name, reason, answer)) = answers.next().await {
            under_way.end(kind, name);
            match answer {
                Err(error) if may_come_again && error.comes_again() => {
                    self.tried.insert((kind, name.to_owned()));
                    left.again.insert(name.to_owned());
                }
                Err(error) if !error.is_absent() => {
                    self.failed(kind, name, reason, &error);
                    left.failed.insert(name.to_owned());
                }
                _ => self.ended(kind, name, reason),
            }
        }
        left
    }

    /// A turn of a queue: deletes these of its things, and puts those back whose deletion AWS throttled.
    pub(super) async fn end_turn<'t, T, E: CallError>(
        &mut self,
        kind: ThingKind,
        queue: &mut TurnQueue<&'t T>,
        turn: &[&'t T],
        going: &[(String, ThingReason)],
        name: impl Fn(&T) -> &str,
        delete: impl AsyncFn(&str) -> Result<(), E>,
    ) -> PruneLeft {
        let left = self.end(kind, going, queue.is_patient(), delete).await;
        let again = turn.iter().copied().filter(|one| left.again.contains(name(one)));
        queue.end(going.len() - left.len(), again);
        left
    }

    /// Sorts the things of a list by their verdicts: those that may go are returned, each with its name.
    pub(super) fn sorted<'t, T>(
        &mut self,
        kind: ThingKind,
        things: &'t [T],
        name: impl Fn(&T) -> &str,
        judge: impl Fn(&References, &T) -> ThingVerdict,
    ) -> Vec<&'t T> {
        let mut may_go = Vec::new();
        for thing in things {
            match judge(&self.references, thing) {
                ThingVerdict::Goes(_) => may_go.push(thing),
                ThingVerdict::Stays(reason) => self.stays(kind, name(thing), &reason),
                ThingVerdict::Foreign => {}
            }
        }
        may_go.sort_by(|one, other| name(one).cmp(name(other)));
        may_go
    }

    /// The endpoint of a configuration or model with these tags, when it exists and its deployments are recorded elsewhere.
    fn unrecorded(&self, kind: ThingKind, tags: &ThingTags) -> Option<String> {
        let has_record = matches!(kind, ThingKind::Configuration | ThingKind::Model);
        let endpoint = tags.get(ENDPOINT).filter(|_| has_record)?;
        let is_elsewhere = self.rules.is_recorded_elsewhere(tags) && self.endpoints.has(endpoint);
        (is_elsewhere || self.references.unrecorded.contains(endpoint)).then(|| endpoint.clone())
    }

    /// Judges things again after the look at their tags: those that go are returned.
    pub(super) fn settled<T, E: CallError>(
        &mut self,
        kind: ThingKind,
        looks: Vec<(&T, Result<ThingTags, E>)>,
        name: impl Fn(&T) -> &str,
        owns: impl Fn(&PruneRules, &T, &ThingTags) -> bool,
        judge: impl Fn(&References, &T) -> ThingVerdict,
    ) -> Vec<(String, ThingReason)> {
        let mut going = Vec::new();
        for (thing, look) in looks {
            match (judge(&self.references, thing), look) {
                (_, Err(error)) if error.is_absent() => self.gone(kind, name(thing)),
                (ThingVerdict::Goes(reason), Err(error)) => self.failed(kind, name(thing), &reason, &error),
                (_, Ok(tags)) if !owns(self.rules, thing, &tags) => self.others += 1,
                (ThingVerdict::Goes(reason), Ok(tags)) => match self.unrecorded(kind, &tags) {
                    Some(endpoint) => self.stays(kind, name(thing), &ThingReason::NoRecord(endpoint)),
                    None => going.push((name(thing).to_owned(), reason)),
                },
                (ThingVerdict::Stays(reason), _) => self.stays(kind, name(thing), &reason),
                (ThingVerdict::Foreign, _) => {}
            }
        }
        going
    }
}

/// Works on all items, some at once, and returns the results in their order.
pub(super) async fn at_once<T, R>(items: &[T], work: impl AsyncFn(&T) -> R) -> Vec<R> {
    stream::iter(items.iter().map(|item| work(item))).buffered(AT_ONCE).collect().await
}
