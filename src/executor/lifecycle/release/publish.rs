//! Brings a publication into GitLab step by step. Before each write it looks at what GitLab has.

use std::path::Path;
use std::time::Duration;

use super::decide::{self, FoundPublication, Likeness, PublicationStep};
use super::wanted::Publication;
use crate::base::failure::Failure;
use crate::gitlab::api::{GitLabApi, GitLabError, GitLabErrorKind, Upload};
use crate::lifecycle::gitlab::{GitLabProject, GitLabWork};

/// Pauses of one run, after replies that were lost and until a write can be seen.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// A publication that is in GitLab.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) likeness: Likeness,
    /// The release's page.
    pub(super) release_url: Option<String>,
    /// This run wrote something, or may have.
    pub(super) has_written: bool,
}

/// The project, with its client.
#[derive(Clone, Copy)]
pub(super) struct PublicationRun<'a> {
    pub(super) project: &'a GitLabProject,
    pub(super) api: &'a dyn GitLabApi,
    pub(super) wanted: &'a Publication,
    pub(super) file: &'a Path,
}

impl PublicationRun<'_> {
    /// Makes what is missing. A write whose reply is lost is looked for before it is repeated; one that GitLab confirmed is never repeated.
    ///
    /// # Errors
    /// Something else has the names: before any write. Failures of GitLab, after its pauses.
    pub(super) async fn publish(self) -> Result<Published, Failure> {
        let mut pauses = PAUSES.iter();
        let mut confirmed = None;
        let mut has_written = false;
        loop {
            let found = self.look().await?;
            let step = decide::next_step(self.wanted, &found)?;
            if step == PublicationStep::Nothing {
                let likeness = decide::likeness(self.wanted, &found.files)?.unwrap_or(Likeness::SizeAlone);
                return Ok(Published {
                    likeness,
                    release_url: found.release.and_then(|release| release.url),
                    has_written,
                });
            }
            if confirmed == Some(step) {
                let Some(pause) = pauses.next() else { return Err(unseen(self.wanted, step)) };
                tokio::time::sleep(*pause).await;
                continue;
            }
            has_written = true;
            match self.write(step).await {
                Ok(()) => confirmed = Some(step),
                Err(error) => {
                    let may_be_done = matches!(error.kind, GitLabErrorKind::Transient | GitLabErrorKind::Exists);
                    let Some(pause) = pauses.next().filter(|_| may_be_done) else {
                        return Err(self.failure(step, error));
                    };
                    tokio::time::sleep(*pause).await;
                }
            }
        }
    }

    /// Reads all at once. Of several failures the first of a fixed order is told, so that two runs say the same.
    async fn look(self) -> Result<FoundPublication, Failure> {
        let files = self.api.package_files(&self.wanted.place);
        let Some(release) = &self.wanted.release else {
            let files = files.await.map_err(|error| self.project.failure(GitLabWork::Packages, error))?;
            return Ok(FoundPublication { files, ..FoundPublication::default() });
        };
        let (files, tag_commit, release) =
            tokio::join!(files, self.api.tag_commit(&release.tag), self.api.release(&release.tag));
        let failed = |work| move |error| self.project.failure(work, error);
        Ok(FoundPublication {
            files: files.map_err(failed(GitLabWork::Packages))?,
            tag_commit: tag_commit.map_err(failed(GitLabWork::Releases))?,
            release: release.map_err(failed(GitLabWork::Releases))?,
        })
    }

    async fn write(self, step: PublicationStep) -> Result<(), GitLabError> {
        let Publication { place, sha256, bytes, release, .. } = self.wanted;
        let upload = Upload { path: self.file, bytes: *bytes, sha256 };
        match (step, release) {
            (PublicationStep::Upload, _) => self.api.upload(place, upload).await,
            (PublicationStep::CreateRelease, Some(release)) => self.api.create_release(release).await.map(|_| ()),
            (PublicationStep::AddLink, Some(release)) => {
                for link in &release.links {
                    self.api.add_link(&release.tag, link).await?;
                }
                Ok(())
            }
            (PublicationStep::CreateRelease | PublicationStep::AddLink, None) | (PublicationStep::Nothing, _) => Ok(()),
        }
    }

    fn failure(self, step: PublicationStep, error: GitLabError) -> Failure {
        let kind = error.kind;
        let work = if step == PublicationStep::Upload { GitLabWork::Packages } else { GitLabWork::Releases };
        let failure = self.project.failure(work, error);
        match (step, kind) {
            (PublicationStep::Upload, GitLabErrorKind::Exists) => failure.hint(
                "GitLab shows no file of this name: let the project's group allow duplicates (Settings > Packages and registries), or wait until a deletion there is over",
            ),
            (PublicationStep::CreateRelease | PublicationStep::AddLink, _) => failure.hint(format!(
                "the package is in the package registry as {}, without its release: the same command goes on there",
                self.wanted.place
            )),
            _ => failure,
        }
    }
}

fn unseen(wanted: &Publication, step: PublicationStep) -> Failure {
    let what = match step {
        PublicationStep::Upload => format!("the file {}", wanted.place),
        PublicationStep::CreateRelease | PublicationStep::AddLink | PublicationStep::Nothing => {
            format!("the release {}", wanted.release.iter().map(|release| &*release.tag).collect::<String>())
        }
    };
    Failure::system(format!("GitLab took {what}, but does not show it"))
        .hint("run the same command again a little later")
}
