//! The command on a fake of GitLab, with faults and kills at each of its calls.

mod faults;
mod kills;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};

use super::ReleaseArgs;
use super::wanted::{ChosenNames, Publication, VerifiedFile};
use crate::base::clock::HostClock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::testing::Memory;
use crate::config::env::Environment;
use crate::gitlab::api::testing::{MemoryGitLab, MemoryGitLabConnect};
use crate::gitlab::api::{PackageFilePlace, Release, ReleaseLink};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::package::tests::{origin, package_of};
use crate::lifecycle::package::{PackageKind, PackageMetadata};
use crate::ui::Printer;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const STABLE: &str = "stable-20261129T045233Z";
const CANDIDATE: &str = "candidate-PR-none-01234567-20261129T045233Z";

pub(super) fn metadata(kind: PackageKind) -> PackageMetadata {
    let stem = if kind == PackageKind::Stable { STABLE } else { CANDIDATE };
    let project = Some("group/project".to_owned());
    PackageMetadata { kind, name: format!("{stem}.zip"), project, ..origin() }
}

pub(super) fn url(place: &PackageFilePlace) -> String {
    format!("https://gitlab.example.com/api/v4/projects/42/packages/generic/{place}")
}

/// A stable package of seven bytes.
pub(super) fn publication() -> Publication {
    let (metadata, sha256) = (metadata(PackageKind::Stable), "5".repeat(64));
    let file = VerifiedFile { metadata: &metadata, sha256: &sha256, bytes: 7, description: "" };
    Publication::of(file, &ChosenNames::default(), url).unwrap()
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    release: ReleaseArgs,
}

/// A job with a package, and a project without any.
struct Desk {
    folder: tempfile::TempDir,
    gitlab: Arc<MemoryGitLab>,
    env: BTreeMap<String, String>,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    kind: Option<Kind>,
    error: String,
    out: String,
    lines: String,
}

impl Ended {
    #[track_caller]
    fn good(&self) -> Value {
        assert_eq!(self.kind, None, "{}", self.error);
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn refused(&self, text: &str) {
        assert_eq!(self.kind, Some(Kind::User), "{}{}", self.out, self.error);
        assert!(self.error.contains(text) && self.error.contains("\n  hint: "), "{}", self.error);
    }
}

impl Desk {
    fn new(kind: PackageKind) -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap(), gitlab: Arc::default(), env: BTreeMap::new() };
        desk.package(metadata(kind));
        let file = desk.file().display().to_string();
        desk.with([
            ("CI_API_V4_URL", "https://gitlab.example.com/api/v4"),
            ("CI_PROJECT_ID", "42"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_JOB_TOKEN", "s3cret"),
            ("PACKAGE_FILE", &file),
        ])
    }

    fn stable() -> Self {
        Self::new(PackageKind::Stable)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("package.zip")
    }

    /// Replaces the package.
    fn package(&self, metadata: PackageMetadata) {
        std::fs::write(self.file(), package_of(metadata, "# Release notes\n\n- Improve it\n")).unwrap();
    }

    fn with<const N: usize>(mut self, variables: [(&str, &str); N]) -> Self {
        self.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    async fn run(&self, words: &[&str]) -> Ended {
        let line = Line::try_parse_from(["release", "--output", "json"].iter().chain(words)).unwrap();
        let (printer, captured) = Printer::captured();
        let env = self.env.clone().into_iter().map(|(name, value)| (name.into(), value.into()));
        let inputs = CommandInputs {
            gitlab: Arc::new(MemoryGitLabConnect(self.gitlab.clone())),
            env: Environment::from_pairs(env),
            connect: Arc::new(Memory::new()),
            clock: Arc::new(HostClock),
            printer,
        };
        let result = super::run(&inputs, line.release, Cancellation::default()).await;
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        assert!(!format!("{error}{}", captured.text()).contains("s3cret"));
        Ended {
            kind: result.err().map(|error| failure::kind_of(&error)),
            error,
            out: String::from_utf8(captured.data()).unwrap(),
            lines: captured.text(),
        }
    }

    /// Names of the calls that change something.
    fn writes(&self) -> Vec<String> {
        let is_write =
            |call: &String| ["upload", "create_release", "add_link"].iter().any(|name| call.starts_with(name));
        self.gitlab.calls().into_iter().filter(is_write).collect()
    }

    /// Uploads bytes under the package's name, as somebody else does.
    async fn upload(&self, bytes: &[u8]) {
        use crate::gitlab::api::{GitLabApi as _, Upload};
        let file = self.folder.path().join("other");
        std::fs::write(&file, bytes).unwrap();
        let sha256 = crate::lifecycle::hex::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
        let upload = Upload { path: &file, bytes: bytes.len() as u64, sha256: &sha256 };
        self.gitlab.upload(&publication().place, upload).await.unwrap();
    }

    /// Makes a release by hand.
    async fn release(&self, tag: &str, commit: &str, links: Vec<ReleaseLink>) {
        use crate::gitlab::api::{GitLabApi as _, NewRelease};
        let (tag, commit) = (tag.to_owned(), commit.to_owned());
        let new = NewRelease { tag: tag.clone(), commit, name: tag, description: String::new(), links };
        self.gitlab.create_release(&new).await.unwrap();
    }

    /// The one release, with its one file.
    #[track_caller]
    fn only(&self) -> Release {
        let (mut releases, files) = (self.gitlab.releases(), self.gitlab.files());
        assert_eq!((releases.len(), files.len()), (1, 1), "{:?}", self.gitlab.calls());
        assert!(files[0].1 == std::fs::read(self.file()).unwrap());
        releases.remove(0)
    }
}

#[tokio::test]
async fn a_stable_package_becomes_a_file_and_a_release() {
    let desk = Desk::stable();
    let ended = desk.run(&[]).await;
    let data = ended.good();
    let release = desk.only();
    let link = ReleaseLink { name: format!("{STABLE}.zip"), url: url(&publication().place) };
    assert_eq!((&*release.tag, &*release.commit, &release.links), (STABLE, COMMIT, &vec![link]));
    let sha256 = data["sha256"].as_str().unwrap();
    assert!(release.description.ends_with("\n\n# Release notes\n\n- Improve it\n"), "{}", release.description);
    assert!(release.description.contains(sha256));
    assert_eq!(
        data,
        json!({
            "status": "published",
            "kind": "stable",
            "registry_package": "wine",
            "version": STABLE,
            "file": format!("{STABLE}.zip"),
            "sha256": sha256,
            "url": url(&publication().place),
            "release": {
                "tag": STABLE, "commit": COMMIT, "url": format!("https://gitlab.example.com/group/project/-/releases/{STABLE}"),
            },
        })
    );
    let again = desk.run(&[]).await.good();
    assert_eq!(again["status"], "already_published");
    assert_eq!((&again["sha256"], &again["release"]), (&data["sha256"], &data["release"]));
    assert_eq!(desk.writes().len(), 2, "the second run writes nothing");
}

#[tokio::test]
async fn a_candidate_becomes_a_file_alone() {
    let desk = Desk::new(PackageKind::Candidate);
    let data = desk.run(&[]).await.good();
    assert_eq!((&data["release"], &data["version"]), (&Value::Null, &json!(CANDIDATE)));
    assert_eq!(desk.run(&[]).await.good()["status"], "already_published");
    let read: Vec<_> = desk.gitlab.calls().into_iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(read, ["package_files", "upload", "package_files", "package_files"], "nothing is asked about releases");
    desk.run(&["--tag", "v1"]).await.refused("a candidate has no release");
}

#[tokio::test]
async fn names_may_be_chosen() {
    let desk = Desk::stable();
    let data = desk.run(&["--tag", "v1.0", "--name", "One", "--registry-package", "models"]).await.good();
    assert_eq!((&data["release"]["tag"], &data["registry_package"]), (&json!("v1.0"), &json!("models")));
    assert_eq!(desk.only().tag, "v1.0");
}

#[tokio::test]
async fn variables_are_left_for_later_jobs() {
    let desk = Desk::stable();
    let dotenv = desk.folder.path().join("release.env");
    desk.run(&["--dotenv", dotenv.to_str().unwrap()]).await.good();
    let url = url(&publication().place);
    let expected = format!(
        "PACKAGE_REGISTRY_NAME=wine\nPACKAGE_REGISTRY_URL={url}\nPACKAGE_REGISTRY_VERSION={STABLE}\nRELEASE_TAG={STABLE}\n\
         RELEASE_URL=https://gitlab.example.com/group/project/-/releases/{STABLE}\n"
    );
    assert_eq!(std::fs::read_to_string(dotenv).unwrap(), expected);
}

#[tokio::test]
async fn what_is_there_already_is_used() {
    // The file alone, as after a kill.
    let desk = Desk::stable();
    desk.upload(&std::fs::read(desk.file()).unwrap()).await;
    desk.run(&[]).await.good();
    desk.only();
    // Two equal uploads of two jobs.
    let desk = Desk::stable();
    for _ in 0..2 {
        desk.upload(&std::fs::read(desk.file()).unwrap()).await;
    }
    desk.run(&[]).await.good();
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (2, 1));
    // The tag, at the package's commit.
    let desk = Desk::stable();
    desk.gitlab.tag(STABLE, COMMIT);
    desk.run(&[]).await.good();
    desk.only();
    // A release that somebody made by hand: its text and its other links stay.
    let desk = Desk::stable();
    let by_hand = ReleaseLink { name: "docs".to_owned(), url: "https://example.com".to_owned() };
    desk.release(STABLE, COMMIT, vec![by_hand.clone()]).await;
    assert_eq!(desk.run(&[]).await.good()["status"], "published");
    let release = desk.only();
    assert_eq!((release.links.len(), &release.links[0], &*release.description), (2, &by_hand, ""));
}

#[tokio::test]
async fn what_is_in_the_way_is_an_error_before_any_write() {
    let other = "1".repeat(40);
    let desk = Desk::stable();
    desk.upload(b"other").await;
    desk.run(&[]).await.refused("the package registry has another file as wine/");
    assert_eq!((desk.writes().len(), desk.gitlab.releases().len()), (1, 0));
    let desk = Desk::stable();
    desk.gitlab.tag(STABLE, &other);
    desk.run(&[]).await.refused("the tag stable-20261129T045233Z is of commit 1111");
    assert_eq!(desk.writes(), [""; 0]);
    let desk = Desk::stable();
    let elsewhere = ReleaseLink { name: format!("{STABLE}.zip"), url: "https://example.com/x.zip".to_owned() };
    desk.release(STABLE, COMMIT, vec![elsewhere]).await;
    desk.run(&[]).await.refused("has another file as stable-20261129T045233Z.zip: https://example.com/x.zip");
    assert_eq!(desk.writes().len(), 1);
}

#[tokio::test]
async fn a_package_that_is_not_as_it_was_made_is_refused_before_any_call() {
    let refused = async |desk: &Desk, text: &str| {
        desk.run(&[]).await.refused(text);
        assert_eq!(desk.gitlab.calls(), [""; 0]);
    };
    let desk = Desk::stable();
    let mut bytes = std::fs::read(desk.file()).unwrap();
    let at = bytes.windows(1000).position(|part| part.iter().all(|byte| *byte == 7)).unwrap();
    bytes[at + 500] = 8;
    std::fs::write(desk.file(), bytes).unwrap();
    refused(&desk, "model/model.tar.gz").await;
    let desk = Desk::stable().with([("PACKAGE_SHA256", "0123")]);
    refused(&desk, "is not the package that was made: its SHA-256 is ").await;
    let path = desk.folder.path().join("other.zip");
    std::fs::copy(desk.file(), &path).unwrap();
    desk.run(&["--package", path.to_str().unwrap()]).await.good();
    // The same file under other names, and a package that no variable names.
    let mut desk = Desk::stable().with([("PACKAGE_SHA256", "0123")]);
    let link = desk.folder.path().join("link.zip");
    std::os::unix::fs::symlink(desk.file(), &link).unwrap();
    let dotted = desk.folder.path().join("./package.zip");
    for named in [Some("/nonexistent/package.zip"), None] {
        for path in [&link, &dotted] {
            let ended = desk.run(&["--package", path.to_str().unwrap()]).await;
            ended.refused("is not the package that was made: its SHA-256 is ");
            assert_eq!(desk.gitlab.calls(), [""; 0]);
        }
        desk.env.remove("PACKAGE_FILE");
        desk.env.extend(named.map(|path| ("PACKAGE_FILE".to_owned(), path.to_owned())));
    }
    let desk = Desk::stable().with([("CI_PROJECT_PATH", "group/fork")]);
    refused(&desk, "is a package of the project group/project, not of group/fork").await;
    let desk = Desk::stable();
    desk.package(PackageMetadata { kind: PackageKind::Candidate, ..metadata(PackageKind::Stable) });
    refused(&desk, "another name than kind, commit and time give").await;
    let mut desk = Desk::stable();
    desk.env.remove("PACKAGE_FILE");
    refused(&desk, "no package is named").await;
    let mut desk = Desk::stable();
    desk.env.remove("CI_JOB_TOKEN");
    refused(&desk, "`CI_JOB_TOKEN` is not set").await;
    let desk = Desk::stable();
    let mut metadata = metadata(PackageKind::Stable);
    metadata.model.group = "../wine\u{1b}[2K".to_owned();
    desk.package(metadata);
    refused(&desk, "`../wine\\x1b[2K` cannot be the name of a package").await;
}

#[tokio::test]
async fn the_pipeline_of_the_release_s_own_tag_publishes_nothing() {
    let desk = Desk::stable();
    let first = desk.run(&[]).await.good();
    // `package` makes a candidate there, or with `--kind stable` one of another time.
    let desk = desk.with([("CI_COMMIT_TAG", STABLE)]);
    let later = "stable-20261129T050000Z.zip".to_owned();
    let stable =
        PackageMetadata { name: later, created_at: "2026-11-29T05:00:00Z".to_owned(), ..metadata(PackageKind::Stable) };
    for package in [metadata(PackageKind::Candidate), stable.clone()] {
        desk.package(package);
        let ended = desk.run(&[]).await;
        let data = ended.good();
        assert_eq!(
            (&data["status"], &data["release"], &data["url"]),
            (&json!("already_published"), &first["release"], &first["url"])
        );
        assert!(ended.lines.contains("the pipeline of the tag stable-20261129T045233Z"), "{}", ended.lines);
    }
    assert_eq!(desk.writes().len(), 2, "those of the first run");
    // Of a tag that somebody made: its own release, and no other tag.
    let desk = desk.with([("CI_COMMIT_TAG", "v1.0")]);
    desk.gitlab.tag("v1.0", COMMIT);
    desk.run(&[]).await.refused("would make another tag, stable-20261129T050000Z");
    assert_eq!(desk.writes().len(), 2);
    let data = desk.run(&["--tag", "v1.0"]).await.good();
    assert_eq!((&data["status"], &data["release"]["tag"]), (&json!("published"), &json!("v1.0")));
    assert_eq!(desk.run(&["--tag", "v1.0"]).await.good()["sha256"], data["sha256"], "a retry looks at the bytes");
}
