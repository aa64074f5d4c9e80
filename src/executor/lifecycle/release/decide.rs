//! The next step of a publication, from what GitLab has. Pure.

use super::wanted::Publication;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::gitlab::api::{NewRelease, PackageFile, Release};

/// Files, tag and release of a publication that GitLab has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FoundPublication {
    /// Files of the place, of all uploads.
    pub(super) files: Vec<PackageFile>,
    /// Commit of the tag. `None` for a candidate.
    pub(super) tag_commit: Option<String>,
    /// The tag's release. `None` for a candidate.
    pub(super) release: Option<Release>,
}

/// A write, or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PublicationStep {
    /// The release is there without its tag: another run may be making both, or the tag was deleted.
    AwaitTag,
    Upload,
    CreateRelease,
    AddLink,
    Nothing,
}

/// How sure it is that the file in GitLab is the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    Sha256,
    /// GitLab tells no SHA-256.
    SizeAlone,
}

/// The first step that is left.
///
/// # Errors
/// Failures of the user: something else has a name of this publication. They come before the first write.
pub(super) fn next_step(wanted: &Publication, found: &FoundPublication) -> Result<PublicationStep, Failure> {
    let file = likeness(wanted, &found.files)?;
    let release = wanted.release.as_ref().map(|release| of_release(release, found)).transpose()?;
    Ok(match (file, release) {
        (_, Some(PublicationStep::AwaitTag)) => PublicationStep::AwaitTag,
        (None, _) => PublicationStep::Upload,
        (Some(_), Some(step)) => step,
        (Some(_), None) => PublicationStep::Nothing,
    })
}

/// Compares the files in GitLab with the package. `None` when there is none.
///
/// # Errors
/// One of them has other bytes: GitLab serves the newest, so that nobody knows which one a reader gets.
pub(super) fn likeness(wanted: &Publication, files: &[PackageFile]) -> Result<Option<Likeness>, Failure> {
    let mut all = None;
    for file in files {
        let (is_equal, likeness) = match &file.sha256 {
            Some(sha256) => (sha256.eq_ignore_ascii_case(&wanted.sha256), Likeness::Sha256),
            None => (file.bytes == wanted.bytes, Likeness::SizeAlone),
        };
        if !is_equal {
            return Err(other_file(wanted, file));
        }
        // One without a hash may have other bytes, whatever the others have.
        all = all.filter(|all| *all == Likeness::SizeAlone).or(Some(likeness));
    }
    Ok(all)
}

fn other_file(wanted: &Publication, file: &PackageFile) -> Failure {
    let found = file
        .sha256
        .as_ref()
        .map_or_else(|| format!("{} bytes", file.bytes), |sha256| format!("SHA-256 {}", plain::line(sha256, 64)));
    let own =
        if file.sha256.is_some() { format!("SHA-256 {}", wanted.sha256) } else { format!("{} bytes", wanted.bytes) };
    Failure::user(format!("the package registry has another file as {}: {found}, this package has {own}", wanted.place))
        .hint("a name is published once: run `package` and `release` in a new pipeline, whose time makes another name, or delete the file (Deploy > Package registry)")
}

/// The failure of a release whose tag does not appear. GitLab makes no tag for a release that exists.
pub(super) fn tag_is_gone(wanted: &NewRelease) -> Failure {
    let tag = plain::line(&wanted.tag, 255);
    Failure::user(format!("the release {tag} is there, but its tag was deleted")).hint(format!(
        "make the tag again at the commit {} (Code > Tags), or delete the release too (Deploy > Releases), or choose another name with `--tag`",
        wanted.commit
    ))
}

/// The failure of a package whose commit the project does not have.
pub(super) fn commit_is_absent(wanted: &NewRelease) -> Failure {
    Failure::user(format!("the project has no commit {}, of which the package says that it is made", wanted.commit)).hint(
        "release the package in the project that made it, after its branch is pushed; `CI_PROJECT_ID` says which project this job asks",
    )
}

/// The step that is left of a release.
fn of_release(wanted: &NewRelease, found: &FoundPublication) -> Result<PublicationStep, Failure> {
    let tag = plain::line(&wanted.tag, 255);
    let elsewhere = |thing: &str, commit: &str| {
        let commit = plain::line(commit, 64);
        Failure::user(format!("the {thing} {tag} is of commit {commit}, and the package is of {}", wanted.commit))
            .hint("choose another name with `--tag`, or delete that tag and its release (Code > Tags)")
    };
    if let Some(commit) = found.tag_commit.as_ref().filter(|commit| !commit.eq_ignore_ascii_case(&wanted.commit)) {
        return Err(elsewhere("tag", commit));
    }
    let Some(release) = &found.release else { return Ok(PublicationStep::CreateRelease) };
    if !release.commit.eq_ignore_ascii_case(&wanted.commit) {
        return Err(elsewhere("release", &release.commit));
    }
    if found.tag_commit.is_none() {
        return Ok(PublicationStep::AwaitTag);
    }
    let missing = wanted.links.iter().find(|link| release.links.iter().all(|known| known.url != link.url));
    let Some(link) = missing else { return Ok(PublicationStep::Nothing) };
    match release.links.iter().find(|known| known.name == link.name) {
        None => Ok(PublicationStep::AddLink),
        Some(other) => Err(Failure::user(format!(
            "the release {tag} has another file as {}: {}",
            plain::line(&link.name, 255),
            plain::line(&other.url, 1000)
        ))
        .hint("remove that link from the release (Deploy > Releases), or choose another name with `--tag`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{COMMIT, publication};
    use super::*;
    use crate::base::failure::render;
    use crate::gitlab::api::ReleaseLink;

    fn file(sha256: Option<&str>, bytes: u64) -> PackageFile {
        let sha256 = sha256.map(|digit| digit.repeat(64));
        PackageFile { id: 1, name: "stable-20261129T045233Z.zip".to_owned(), bytes, sha256, url: String::new() }
    }

    fn release(change: impl FnOnce(&mut Release)) -> Release {
        let made = publication().release.unwrap();
        let mut release = Release {
            tag: made.tag,
            name: made.name,
            commit: made.commit,
            description: String::new(),
            links: made.links,
            url: None,
        };
        change(&mut release);
        release
    }

    fn step(files: Vec<PackageFile>, tag: Option<&str>, release: Option<Release>) -> Result<PublicationStep, String> {
        let found = FoundPublication { files, tag_commit: tag.map(str::to_owned), release };
        next_step(&publication(), &found).map_err(|failure| render(&failure.into()))
    }

    #[test]
    fn each_step_comes_when_the_ones_before_are_done() {
        let file = || vec![file(Some("5"), 7)];
        assert_eq!(step(Vec::new(), None, None), Ok(PublicationStep::Upload));
        assert_eq!(step(file(), None, None), Ok(PublicationStep::CreateRelease));
        assert_eq!(step(file(), Some(COMMIT), None), Ok(PublicationStep::CreateRelease));
        assert_eq!(
            step(file(), Some(COMMIT), Some(release(|found| found.links.clear()))),
            Ok(PublicationStep::AddLink)
        );
        assert_eq!(step(file(), Some(COMMIT), Some(release(|_| {}))), Ok(PublicationStep::Nothing));
        assert_eq!(
            step(Vec::new(), Some(COMMIT), Some(release(|_| {}))),
            Ok(PublicationStep::Upload),
            "the file was deleted"
        );
        let renamed = release(|found| found.links[0].name = "by hand".to_owned());
        assert_eq!(step(file(), Some(COMMIT), Some(renamed)), Ok(PublicationStep::Nothing), "GitLab takes a URL once");
        for files in [file(), Vec::new()] {
            assert_eq!(step(files, None, Some(release(|_| {}))), Ok(PublicationStep::AwaitTag), "before any write");
        }
        let candidate = Publication { release: None, ..publication() };
        assert_eq!(
            next_step(&candidate, &FoundPublication { files: file(), ..FoundPublication::default() }).unwrap(),
            PublicationStep::Nothing
        );
    }

    #[test]
    fn files_are_compared_by_what_gitlab_tells() {
        let judged = |files: &[PackageFile]| likeness(&publication(), files).map_err(|failure| render(&failure.into()));
        assert_eq!(judged(&[]), Ok(None));
        assert_eq!(judged(&[file(Some("5"), 7), file(Some("5"), 7)]), Ok(Some(Likeness::Sha256)));
        assert_eq!(judged(&[file(None, 7), file(Some("5"), 7)]), Ok(Some(Likeness::SizeAlone)));
        assert_eq!(judged(&[file(Some("5"), 7), file(None, 7)]), Ok(Some(Likeness::SizeAlone)));
        for others in [vec![file(Some("6"), 7)], vec![file(None, 8)], vec![file(Some("5"), 7), file(Some("6"), 7)]] {
            let text = judged(&others).unwrap_err();
            assert!(text.contains("has another file as wine/stable-20261129T045233Z/stable-"), "{text}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_an_error_before_the_first_step() {
        let other = "1".repeat(40);
        let refused = |tag: Option<&str>, found: Option<Release>, text: &str| {
            let error = step(Vec::new(), tag, found).unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        refused(Some(&other), None, "the tag stable-20261129T045233Z is of commit 1111");
        refused(Some(COMMIT), Some(release(|found| found.commit.clone_from(&other))), "the release stable-2026");
        let link =
            ReleaseLink { name: "stable-20261129T045233Z.zip".to_owned(), url: "https://x/\u{1b}[2K".to_owned() };
        refused(
            Some(COMMIT),
            Some(release(|found| found.links = vec![link])),
            "another file as stable-20261129T045233Z.zip: https://x/\\x1b",
        );
    }
}
