//! Users of versions, images, packages and jobs that are in lists: versions of all other groups, and versions and models that are made
//! while the run goes on.

use std::time::{Duration, SystemTime};

use super::run::{PruneRun, at_once};
use super::sight::patiently;
use super::things::{PruneSource, ThingUser, stem_of_model};
use crate::cloud::{CloudError, VersionSummary};

/// Things of one moment may be listed in any order.
const OVERLAP: Duration = Duration::from_secs(1);

impl PruneRun<'_> {
    /// Notes what the versions have that were not looked at yet, those of all groups. None of them goes. It is done once, when something may
    /// go that one of them may have: each version costs a call, and an account may have many.
    pub(super) async fn read_other_versions(&mut self) {
        let is_known = self.late.newest_version.is_some();
        if is_known || self.references.blind.contains(&PruneSource::Versions) {
            return;
        }
        let ports = self.ports;
        let listed = match patiently(|| ports.registry.all_versions(None)).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Versions, &error),
        };
        self.late.saw_account(&listed);
        let others: Vec<_> = listed.into_iter().filter(|one| !self.late.versions.contains(&one.arn)).collect();
        self.keep_versions(&others).await;
    }

    /// Adds versions and models that were made since the last look.
    pub(super) async fn look_for_users(&mut self) {
        self.look_for_models().await;
        self.look_for_versions().await;
    }

    pub(super) async fn look_for_versions(&mut self) {
        let Some(newest) = self.late.newest_version else { return };
        if self.references.blind.contains(&PruneSource::Versions) {
            return;
        }
        let ports = self.ports;
        let after = newest.checked_sub(OVERLAP).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut listed = match patiently(|| ports.registry.all_versions(Some(after))).await {
            Ok(listed) => listed,
            Err(error) => return self.unread(PruneSource::Versions, &error),
        };
        self.late.saw_account(&listed);
        listed.retain(|one| !self.late.versions.contains(&one.arn));
        self.keep_versions(&listed).await;
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

    /// All versions of a group, newest first.
    pub(super) async fn versions_of(&self, group: &str) -> Result<Vec<VersionSummary>, CloudError> {
        let (mut all, mut page) = (Vec::new(), None::<String>);
        loop {
            let found = patiently(|| self.ports.registry.versions(group, None, page.clone())).await?;
            all.extend(found.versions);
            page = found.next;
            if page.is_none() {
                return Ok(all);
            }
        }
    }

    /// Notes what these versions have, as far as they may have something of the project.
    async fn keep_versions(&mut self, listed: &[VersionSummary]) {
        let ports = self.ports;
        let asked: Vec<_> = listed.iter().filter(|one| self.scope.asks_version(one)).collect();
        let found = at_once(&asked, async |one| patiently(|| ports.registry.version(&one.arn)).await).await;
        for version in found {
            match version {
                Ok(None) => {}
                Ok(Some(version)) => self.references.add_version(&version),
                Err(error) => self.unread(PruneSource::Versions, &error),
            }
        }
        self.late.saw_versions(listed);
    }
}
