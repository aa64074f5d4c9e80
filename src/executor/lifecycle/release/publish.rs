//! Brings a publication into GitLab step by step. Before each write it looks at what GitLab has.

use std::collections::BTreeMap;
use std::path::Path;
use std::slice::Iter;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{self, FoundPublication, Likeness, PublicationStep};
use super::wanted::Publication;
use crate::base::failure::Failure;
use crate::gitlab::api::{GitLabApi, GitLabError, GitLabErrorKind, Upload};
use crate::lifecycle::gitlab::{GitLabProject, GitLabWork};

/// Pauses between looks for a write that cannot be seen, about a minute together. GitLab has no lock, and a proxy may give up long
/// before GitLab has stored a file: what was sent may appear late.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// Most times that one write is sent.
const MOST_SENT: u32 = 3;
/// No write is sent again later after the begin of the run: an upload may wait minutes for its answer.
const LATEST: Duration = Duration::from_mins(10);

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

/// A write of this run, or the wait for what another one makes.
struct SentWrite {
    /// GitLab's answer to the newest one.
    outcome: Result<(), GitLabError>,
    pauses: Iter<'static, Duration>,
    times: u32,
}

impl SentWrite {
    /// `false` when GitLab said that another run did it.
    fn may_be_done(&self) -> bool {
        self.outcome.as_ref().err().is_none_or(|error| error.kind != GitLabErrorKind::Exists)
    }
}

impl PublicationRun<'_> {
    /// Makes what is missing. A write whose reply is lost is looked for, for a minute, before it is sent again; one that GitLab confirmed
    /// is never sent again.
    ///
    /// # Errors
    /// Something else has the names, or the project has no such commit: before any write. Failures of GitLab, after its pauses.
    pub(super) async fn publish(self) -> Result<Published, Failure> {
        let begun = Instant::now();
        let mut sent: BTreeMap<PublicationStep, SentWrite> = BTreeMap::new();
        loop {
            let found = self.look().await?;
            let has_written = sent.keys().any(|step| *step != PublicationStep::AwaitTag);
            let step = decide::next_step(self.wanted, &found).map_err(|failure| {
                let is_ours = sent.get(&PublicationStep::CreateRelease).is_some_and(SentWrite::may_be_done);
                if is_ours { self.made_by_us(failure, &found) } else { failure }
            })?;
            if step == PublicationStep::Nothing {
                let likeness = decide::likeness(self.wanted, &found.files)?.unwrap_or(Likeness::SizeAlone);
                let release_url = found.release.and_then(|release| release.url);
                return Ok(Published { likeness, release_url, has_written });
            }
            if !has_written {
                self.check_commit(&found).await?;
            }
            if step == PublicationStep::AwaitTag {
                sent.entry(step).or_insert(SentWrite { outcome: Ok(()), pauses: PAUSES.iter(), times: 0 });
            }
            let mut times = 0;
            if let Some(mut write) = sent.remove(&step) {
                if let Some(pause) = write.pauses.next() {
                    sent.insert(step, write);
                    tokio::time::sleep(*pause).await;
                    continue;
                }
                match write.outcome {
                    Ok(()) => return Err(unseen(self.wanted, step)),
                    Err(error) if !is_sent_again(&error, write.times, begun) => {
                        return Err(self.failure(step, error));
                    }
                    Err(_) => times = write.times,
                }
            }
            let outcome = match self.write(step).await {
                // After the others it may be done, by this run or by another one.
                Err(error) if !matches!(error.kind, GitLabErrorKind::Transient | GitLabErrorKind::Exists) => {
                    return Err(self.failure(step, error));
                }
                outcome => outcome,
            };
            sent.insert(step, SentWrite { outcome, pauses: PAUSES.iter(), times: times + 1 });
        }
    }

    /// Refuses a package whose commit is not in the project, before its file is there and its release can never be made.
    async fn check_commit(self, found: &FoundPublication) -> Result<(), Failure> {
        let Some(release) = &self.wanted.release else { return Ok(()) };
        if found.tag_commit.is_some() || found.release.is_some() {
            return Ok(());
        }
        let has_commit = self.api.has_commit(&release.commit).await;
        match has_commit.map_err(|error| self.project.failure(GitLabWork::Releases, error))? {
            Some(false) => Err(decide::commit_is_absent(release)),
            Some(true) | None => Ok(()),
        }
    }

    /// Adds to a failure that this run has asked for the release that is in the way: GitLab takes a tag that is there as it is.
    fn made_by_us(self, failure: Failure, found: &FoundPublication) -> Failure {
        let is_wanted = |commit: &str| self.wanted.release.as_ref().is_some_and(|wanted| wanted.commit == commit);
        if found.release.as_ref().is_none_or(|release| is_wanted(&release.commit.to_ascii_lowercase())) {
            return failure;
        }
        failure.hint(
            "this run has made the release: somebody made its tag elsewhere after the run had looked for it; delete that release \
            (Deploy > Releases), which is of another commit than the package",
        )
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
            (PublicationStep::CreateRelease | PublicationStep::AddLink, None)
            | (PublicationStep::AwaitTag | PublicationStep::Nothing, _) => Ok(()),
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
            (PublicationStep::CreateRelease | PublicationStep::AddLink, GitLabErrorKind::Refused) => failure.hint(format!(
                "the package is in the package registry as {}, without its release: the same command fails again until that is changed",
                self.wanted.place
            )),
            (PublicationStep::CreateRelease | PublicationStep::AddLink, _) => failure.hint(format!(
                "the package is in the package registry as {}, without its release: the same command goes on there",
                self.wanted.place
            )),
            _ => failure,
        }
    }
}

/// Decides about a write that was looked for without success.
fn is_sent_again(error: &GitLabError, times: u32, begun: Instant) -> bool {
    error.kind == GitLabErrorKind::Transient && times < MOST_SENT && begun.elapsed() < LATEST
}

fn unseen(wanted: &Publication, step: PublicationStep) -> Failure {
    if let (PublicationStep::AwaitTag, Some(release)) = (step, &wanted.release) {
        return decide::tag_is_gone(release);
    }
    let what = match step {
        PublicationStep::Upload => format!("the file {}", wanted.place),
        PublicationStep::AwaitTag
        | PublicationStep::CreateRelease
        | PublicationStep::AddLink
        | PublicationStep::Nothing => {
            format!("the release {}", wanted.release.iter().map(|release| &*release.tag).collect::<String>())
        }
    };
    Failure::system(format!("GitLab took {what}, but does not show it"))
        .hint("run the same command again a little later")
}
