//! Versions, images, candidates and training jobs.

use std::collections::{BTreeMap, BTreeSet};

use super::decide;
use super::run::{BATCH, CallError, PruneRun, ThingTags, at_once};
use super::sight::patiently;
use super::things::{PruneSource, ThingKind, ThingReason, ThingUser, ThingVerdict};
use super::turns::TurnQueue;
use crate::base::plain;
use crate::cloud::{
    CloudError, CloudErrorKind, EndedJob, Listed, MOST_DELETED_IMAGES, ModelVersion, RepositoryImage, VersionSummary,
};
use crate::gitlab::api::GenericPackage;

/// ECR's code for an image that is a part of an index.
const IN_INDEX: &str = "ImageReferencedByManifestList";
/// Entries that a message names.
const MOST_NAMES: usize = 10;
/// Objects whose users are looked for together.
const OBJECTS: usize = 100;

impl PruneRun<'_> {
    /// Notes what the releases of the project name.
    pub(super) async fn read_releases(&mut self) {
        if self.references.blind.contains(&PruneSource::Releases) {
            return;
        }
        let Some(gitlab) = &self.ports.gitlab else {
            self.references.blind.insert(PruneSource::Releases);
            let text = "this is no job of GitLab: versions, images and packages stay, because a release may name them";
            return self.printer.warn(text);
        };
        match gitlab.releases().await {
            Ok(releases) => {
                for release in &releases {
                    self.references.add_release(release);
                }
            }
            Err(error) => self.unread(PruneSource::Releases, &error),
        }
    }

    pub(super) async fn take_versions(&mut self) {
        let Some(group) = self.scope.group.as_deref() else { return };
        let listed = match self.versions_of(group).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Versions, &error),
        };
        self.late.saw_versions(&listed);
        let (ports, rules) = (self.ports, self.rules);
        let newest = decide::newest_versions(rules, &listed);
        let judge = |references: &_, one: &VersionSummary| decide::listed_version(rules, references, &newest, one);
        let mut may_go = self.sorted(ThingKind::Version, &listed, |one| &one.arn, judge);
        may_go.sort_by_key(|one| std::cmp::Reverse(one.number));
        let going: BTreeSet<_> = may_go.iter().map(|one| one.arn.as_str()).collect();
        let staying: Vec<_> = listed.iter().filter(|one| !going.contains(one.arn.as_str())).collect();
        let found = at_once(&staying, async |one| patiently(|| ports.registry.version(&one.arn)).await).await;
        let mut own = BTreeSet::new();
        for version in found {
            match version {
                Ok(None) => {}
                Ok(Some(version)) => {
                    own.extend(decide::own_number(rules, &version));
                    self.references.add_version(&version);
                }
                Err(error) => self.unread(PruneSource::Versions, &error),
            }
        }
        let mut queue = TurnQueue::new(may_go, BATCH);
        while let Some(turn) = queue.next().await {
            self.look_again().await;
            self.read_releases().await;
            self.look_for_models().await;
            let found = at_once(&turn, async |one| patiently(|| ports.registry.version(&one.arn)).await).await;
            let looks = turn.into_iter().zip(found).collect();
            self.end_versions(&newest, &mut own, looks, &mut queue).await;
        }
    }

    /// Versions that may go, as they are now. What stays of them refers to its image and its package. `own` are the numbers of the
    /// project's own versions that are newer than these.
    async fn end_versions<'t>(
        &mut self,
        newest: &BTreeSet<u32>,
        own: &mut BTreeSet<u32>,
        looks: Vec<(&'t VersionSummary, Result<Option<ModelVersion>, CloudError>)>,
        queue: &mut TurnQueue<&'t VersionSummary>,
    ) {
        let turn: Vec<_> = looks.iter().map(|(summary, _)| *summary).collect();
        let (mut going, mut described) = (Vec::new(), BTreeMap::new());
        let seen = looks.iter().filter_map(|(_, look)| look.as_ref().ok()?.as_ref());
        own.extend(seen.filter_map(|version| decide::own_number(self.rules, version)));
        let newest: BTreeSet<u32> = newest.iter().chain(own.iter().rev().take(self.rules.keep)).copied().collect();
        for (summary, look) in looks {
            let version = match look {
                Ok(Some(version)) => version,
                Ok(None) => {
                    self.gone(ThingKind::Version, &summary.arn);
                    continue;
                }
                Err(error) => {
                    self.failed(ThingKind::Version, &summary.arn, &ThingReason::Unused, &error);
                    self.references.blind.insert(PruneSource::Versions);
                    continue;
                }
            };
            match decide::version(self.rules, &self.references, &newest, &version) {
                ThingVerdict::Goes(reason) => {
                    going.push((summary.arn.clone(), reason));
                    described.insert(summary.arn.clone(), version);
                    continue;
                }
                ThingVerdict::Stays(reason) => self.stays(ThingKind::Version, &summary.arn, &reason),
                ThingVerdict::Foreign => self.others += 1,
            }
            self.references.add_version(&version);
        }
        let registry = &self.ports.registry;
        let delete = async |arn: &str| registry.delete_version(arn).await;
        let left = self.end_turn(ThingKind::Version, queue, &turn, &going, |one| &one.arn, delete).await;
        for version in left.failed.iter().filter_map(|arn| described.get(arn)) {
            self.references.add_version(version);
        }
    }

    /// Notes what the manifest names, for any environment.
    pub(super) fn note_manifest(&mut self) {
        for image in &self.scope.images {
            self.references.add_image(image, &ThingUser::Manifest);
        }
        if !self.scope.unread_entries.is_empty() {
            self.references.blind.insert(PruneSource::Manifest);
            let names = names(&self.scope.unread_entries);
            self.printer.warn(format!(
                "images stay: `model.image` or `model.group` has a mistake in {names} of the manifest; `validate` tells it"
            ));
        }
        if !self.scope.variable_images.is_empty() && !self.scope.repositories.is_empty() {
            let names = names(&self.scope.variable_images);
            self.printer.line(format!(
                "The image of {names} has a variable, whose value there is not known here: it stays while something uses it, and for the retention"
            ));
        }
    }

    pub(super) async fn take_images(&mut self) {
        for (account, repository) in self.scope.repositories.clone() {
            self.take_images_of(&account, &repository).await;
        }
    }

    async fn take_images_of(&mut self, account: &str, repository: &str) {
        let ports = self.ports;
        let images = match patiently(|| ports.images.repository_images(account, repository)).await {
            Ok(images) => images,
            Err(error) => return self.unread(PruneSource::Images, &error),
        };
        let rules = self.rules;
        let newest = decide::newest_images(rules, &images);
        let judge = |references: &_, one: &RepositoryImage| decide::image(rules, references, &newest, one);
        let may_go = self.sorted(ThingKind::Image, &images, |one| &one.digest, judge);
        if may_go.is_empty() || !self.keep_used_elsewhere(account, repository, &may_go).await {
            return;
        }
        self.read_other_versions().await;
        let mut queue = TurnQueue::new(may_go, MOST_DELETED_IMAGES.min(BATCH));
        while let Some(turn) = queue.next().await {
            self.look_again().await;
            self.read_releases().await;
            self.look_for_users().await;
            self.keep_running().await;
            let now = self.images_now(account, repository, &turn).await;
            let going = self.sorted(ThingKind::Image, &now, |one| &one.digest, judge).into_iter();
            let digests: Vec<String> = going.map(|one| one.digest.clone()).collect();
            if digests.is_empty() {
                continue;
            }
            let answer = if self.is_dry {
                Ok(Vec::new())
            } else {
                self.under_way.begin_all(ThingKind::Image, &digests);
                let answer = ports.images.delete_images(account, repository, &digests).await;
                self.under_way.end_all(ThingKind::Image, &digests);
                answer
            };
            match answer {
                Err(error) if queue.is_patient() && error.comes_again() => {
                    // ECR may have deleted them.
                    self.tried.extend(digests.iter().map(|digest| (ThingKind::Image, digest.clone())));
                    queue.end(0, turn.into_iter().filter(|one| digests.contains(&one.digest)));
                }
                answer => {
                    self.end_images(&digests, answer);
                    queue.end(digests.len(), []);
                }
            }
        }
    }

    /// These images with the tags and pulls that they have now.
    async fn images_now(&mut self, account: &str, repository: &str, turn: &[&RepositoryImage]) -> Vec<RepositoryImage> {
        let ports = self.ports;
        if !self.references.blind.contains(&PruneSource::Images) {
            match patiently(|| ports.images.repository_images(account, repository)).await {
                Ok(mut images) => {
                    images.retain(|image| turn.iter().any(|one| one.digest == image.digest));
                    for one in turn.iter().filter(|one| images.iter().all(|image| image.digest != one.digest)) {
                        self.gone(ThingKind::Image, &one.digest);
                    }
                    return images;
                }
                Err(error) => self.unread(PruneSource::Images, &error),
            }
        }
        turn.iter().copied().cloned().collect()
    }

    /// `false` when all of these stay, because other accounts may use them.
    async fn keep_used_elsewhere(&mut self, account: &str, repository: &str, may_go: &[&RepositoryImage]) -> bool {
        let ports = self.ports;
        match patiently(|| ports.images.is_shared(account, repository)).await {
            Ok(false) => {}
            Ok(true) => {
                for image in may_go {
                    self.stays(ThingKind::Image, &image.digest, &ThingReason::SharedRepository);
                }
                return false;
            }
            Err(error) => self.unread(PruneSource::Images, &error),
        }
        true
    }

    fn end_images(&mut self, digests: &[String], answer: Result<Vec<(String, String)>, CloudError>) {
        let left: BTreeMap<_, _> = match answer {
            Ok(left) => left.into_iter().collect(),
            Err(error) => {
                for one in digests {
                    self.failed(ThingKind::Image, one, &ThingReason::Unused, &error);
                }
                return;
            }
        };
        for digest in digests {
            match left.get(digest) {
                None => self.ended(ThingKind::Image, digest, &ThingReason::Unused),
                Some(message) if message.starts_with(IN_INDEX) => {
                    self.stays(ThingKind::Image, digest, &ThingReason::Used(ThingUser::Index));
                }
                Some(message) => {
                    let error = CloudError {
                        kind: CloudErrorKind::Invalid,
                        operation: format!("delete image {digest}"),
                        message: message.clone(),
                        action: "ecr:BatchDeleteImage",
                    };
                    self.failed(ThingKind::Image, digest, &ThingReason::Unused, &error);
                }
            }
        }
    }

    pub(super) async fn take_generic_packages(&mut self) {
        let (Some(gitlab), Some(name)) = (&self.ports.gitlab, self.scope.generic_package.as_deref()) else { return };
        let packages = match gitlab.packages(name).await {
            Ok(packages) => packages,
            Err(error) => return self.unread(PruneSource::Packages, &error),
        };
        let rules = self.rules;
        let judge = |references: &_, one: &GenericPackage| decide::generic_package(rules, references, one);
        let mut may_go = self.sorted(ThingKind::GenericPackage, &packages, |one| &one.version, judge);
        // A version may have several packages.
        let mut ids = BTreeMap::<String, Vec<u64>>::new();
        for one in &may_go {
            ids.entry(one.version.clone()).or_default().push(one.id);
        }
        may_go.dedup_by(|one, other| one.version == other.version);
        for batch in may_go.chunks(BATCH) {
            self.read_releases().await;
            let mut going = Vec::new();
            for one in batch {
                match judge(&self.references, one) {
                    ThingVerdict::Goes(reason) => going.push((one.version.clone(), reason)),
                    ThingVerdict::Stays(reason) => self.stays(ThingKind::GenericPackage, &one.version, &reason),
                    ThingVerdict::Foreign => {}
                }
            }
            let delete = async |version: &str| {
                for id in ids.get(version).into_iter().flatten() {
                    match gitlab.delete_package(*id).await {
                        Err(error) if !error.is_absent() => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            };
            // The adapter has waited already.
            self.end(ThingKind::GenericPackage, &going, false, delete).await;
        }
    }

    pub(super) async fn take_objects(&mut self) {
        for folder in [decide::CANDIDATES, decide::PACKAGES] {
            let mut after = None::<String>;
            loop {
                let page = match patiently(|| self.ports.survey.page(folder, after.as_deref())).await {
                    Ok(page) => page,
                    Err(error) => return self.unread(PruneSource::Objects, &error),
                };
                let from = after;
                after = page.objects.last().map(|last| last.key.clone());
                self.end_objects(folder, from.as_deref(), &page.objects).await;
                if !page.has_more || after.is_none() {
                    break;
                }
            }
        }
    }

    /// The objects of a page of this folder, behind the key `from`.
    async fn end_objects(&mut self, folder: &str, from: Option<&str>, objects: &[Listed]) {
        let rules = self.rules;
        let judge = |references: &_, one: &Listed| decide::object(rules, references, one);
        let may_go = self.sorted(ThingKind::Object, objects, |one| &one.key, judge);
        if folder == decide::PACKAGES && !may_go.is_empty() {
            self.read_other_versions().await;
        }
        let mut queue = TurnQueue::new(may_go, OBJECTS);
        while let Some(turn) = queue.next().await {
            self.look_again().await;
            self.read_releases().await;
            self.look_for_users().await;
            // They may have been stored again. One that the page does not show stays for the next run.
            let now = match patiently(|| self.ports.survey.page(folder, from)).await {
                Ok(page) => page.objects,
                Err(error) => {
                    self.unread(PruneSource::Objects, &error);
                    for one in &turn {
                        self.stays(ThingKind::Object, &one.key, &ThingReason::ReferencesUnknown(PruneSource::Objects));
                    }
                    continue;
                }
            };
            let now: Vec<_> = now.into_iter().filter(|one| turn.iter().any(|known| known.key == one.key)).collect();
            for one in turn.iter().filter(|one| now.iter().all(|now| now.key != one.key)) {
                self.gone(ThingKind::Object, &one.key);
            }
            let going = self.sorted(ThingKind::Object, &now, |one| &one.key, judge);
            let keys: Vec<_> = going.iter().map(|one| one.key.clone()).collect();
            if self.delete_objects(&keys, queue.is_patient()).await {
                queue.end(keys.len(), []);
            } else {
                queue.end(0, turn.into_iter().filter(|one| keys.contains(&one.key)));
            }
        }
    }

    /// `false` when S3 throttled it, and the objects may come again.
    async fn delete_objects(&mut self, keys: &[String], may_come_again: bool) -> bool {
        if keys.is_empty() {
            return true;
        }
        let store = &self.ports.objects;
        let answer = if self.is_dry {
            Ok(())
        } else {
            self.under_way.begin_all(ThingKind::Object, keys);
            let answer = store.delete(keys).await;
            self.under_way.end_all(ThingKind::Object, keys);
            answer
        };
        if may_come_again && answer.as_ref().is_err_and(CallError::comes_again) {
            // S3 may have deleted some of them.
            self.tried.extend(keys.iter().map(|key| (ThingKind::Object, key.clone())));
            return false;
        }
        for key in keys {
            match &answer {
                Ok(()) => self.ended(ThingKind::Object, key, &ThingReason::Candidate),
                Err(error) => self.failed(ThingKind::Object, key, &ThingReason::Candidate, error),
            }
        }
        true
    }

    pub(super) async fn take_jobs(&mut self) {
        let Some(project) = self.rules.project_number.as_deref() else { return };
        let (ports, rules) = (self.ports, self.rules);
        let named = format!("gitlab-{project}-");
        let Some(before) = rules.now.checked_sub(rules.retention) else { return };
        let jobs = match patiently(|| ports.jobs.ended(&named, before)).await {
            Ok(jobs) => jobs,
            Err(error) => return self.unread(PruneSource::Jobs, &error),
        };
        let jobs: Vec<EndedJob> = jobs.into_iter().filter(|job| job.name.starts_with(&named)).collect();
        let judge = |references: &_, one: &EndedJob| decide::job(rules, references, one);
        let may_go = self.sorted(ThingKind::TrainingJob, &jobs, |one| &one.name, judge);
        if !may_go.is_empty() {
            self.read_other_versions().await;
        }
        let mut queue = TurnQueue::new(may_go, BATCH);
        while let Some(turn) = queue.next().await {
            self.look_for_versions().await;
            let tags = at_once(&turn, async |one| patiently(|| ports.jobs.job_tags(&one.arn)).await).await;
            let looks = turn.iter().copied().zip(tags).collect();
            let owns = |rules: &decide::PruneRules, one: &EndedJob, tags: &ThingTags| rules.owns_job(&one.name, tags);
            let going = self.settled(ThingKind::TrainingJob, looks, |one| &one.name, owns, judge);
            let delete = async |name: &str| ports.jobs.delete_job(name).await;
            self.end_turn(ThingKind::TrainingJob, &mut queue, &turn, &going, |one| &one.name, delete).await;
        }
    }
}

/// Names of entries, for a message.
fn names(entries: &[String]) -> String {
    let shown: Vec<_> = entries.iter().take(MOST_NAMES).map(|name| format!("`{}`", plain::line(name, 100))).collect();
    let word = if entries.len() == 1 { "the entry" } else { "the entries" };
    let rest = if entries.len() > MOST_NAMES { " and others" } else { "" };
    format!("{word} {}{rest}", shown.join(", "))
}
