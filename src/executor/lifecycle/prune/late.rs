//! Users of versions, images, packages and jobs that are in lists: versions of the project's other groups, and versions and models that are
//! made while the run goes on.

use std::time::{Duration, SystemTime};

use super::run::{PruneRun, at_once};
use super::sight::patiently;
use super::things::{PruneSource, ThingUser, stem_of_model};
use crate::cloud::{CloudError, VersionSummary};

/// Things of one moment may be listed in any order.
const OVERLAP: Duration = Duration::from_secs(1);

impl PruneRun<'_> {
    /// Notes what the versions of other environments' groups have. None of them goes.
    pub(super) async fn read_other_groups(&mut self) {
        let scope = self.scope;
        for group in &scope.other_groups {
            match self.versions_after(group, 0).await {
                Ok(listed) => self.keep_versions(group, &listed).await,
                Err(error) => self.unread(PruneSource::Versions, &error),
            }
        }
    }

    /// Adds versions and models that were made since the last look.
    pub(super) async fn look_for_users(&mut self) {
        self.look_for_models().await;
        self.look_for_versions().await;
    }

    pub(super) async fn look_for_versions(&mut self) {
        for (group, seen) in self.late.versions.clone() {
            if self.references.blind.contains(&PruneSource::Versions) {
                return;
            }
            match self.versions_after(&group, seen).await {
                Ok(listed) => self.keep_versions(&group, &listed).await,
                Err(error) => self.unread(PruneSource::Versions, &error),
            }
        }
    }

    pub(super) async fn look_for_models(&mut self) {
        let Some(newest) = self.late.newest_model else { return };
        if self.references.blind.contains(&PruneSource::Models) {
            return;
        }
        let ports = self.ports;
        let after = newest.checked_sub(OVERLAP).unwrap_or(SystemTime::UNIX_EPOCH);
        let listed = match patiently(|| ports.endpoints.models_after(after)).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Models, &error),
        };
        let new: Vec<_> = listed.iter().filter(|one| !self.late.models.contains(&one.name)).collect();
        self.keep_parts(new.iter().map(|one| one.name.clone()).collect()).await;
        let own: Vec<_> = new.into_iter().filter(|one| stem_of_model(&one.name).is_some()).collect();
        let tags = at_once(&own, async |one| patiently(|| ports.endpoints.tags(&one.arn)).await).await;
        for (one, tags) in own.iter().zip(tags) {
            self.keep_model(one, tags);
        }
        self.late.saw_models(&listed);
    }

    /// Notes the images of training jobs that run now.
    pub(super) async fn keep_running(&mut self) {
        if self.references.blind.contains(&PruneSource::Jobs) {
            return;
        }
        let ports = self.ports;
        match patiently(|| ports.jobs.images_of_running()).await {
            Ok(images) => {
                for image in images {
                    self.references.add_image(&image, &ThingUser::RunningJob);
                }
            }
            Err(error) => self.unread(PruneSource::Jobs, &error),
        }
    }

    /// The versions of a group with higher numbers than this one, newest first.
    pub(super) async fn versions_after(&self, group: &str, number: u32) -> Result<Vec<VersionSummary>, CloudError> {
        let (mut all, mut page) = (Vec::new(), None::<String>);
        loop {
            let found = patiently(|| self.ports.registry.versions(group, None, page.clone())).await?;
            let is_end = found.versions.iter().any(|version| version.number <= number);
            all.extend(found.versions.into_iter().filter(|version| version.number > number));
            page = found.next;
            if page.is_none() || is_end {
                return Ok(all);
            }
        }
    }

    async fn keep_versions(&mut self, group: &str, listed: &[VersionSummary]) {
        let ports = self.ports;
        let found = at_once(listed, async |one| patiently(|| ports.registry.version(&one.arn)).await).await;
        for version in found {
            match version {
                Ok(None) => {}
                Ok(Some(version)) => self.references.add_version(&version),
                Err(error) => self.unread(PruneSource::Versions, &error),
            }
        }
        self.late.saw_versions(group, listed);
    }
}
