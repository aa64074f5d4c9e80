//! The client of GitLab's API against the double: what one writes, the other reads.

use std::sync::Arc;

use executor::gitlab::api::{
    ConnectGitLab as _, GitLabAccess, GitLabApi, GitLabErrorKind, GitLabToken, NewRelease, PackageFilePlace,
    ReleaseLink, Upload,
};
use gitlab::GitLab;

use crate::support::gitlab_api::{ACCESS_TOKEN, ApiFault, FaultEffect, GitLabDouble, JOB_TOKEN, PROJECT_PATH};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn client(double: &GitLabDouble, token: GitLabToken) -> Arc<dyn GitLabApi> {
    let project = PROJECT_PATH.to_owned();
    GitLab::default().gitlab(&GitLabAccess { api_url: double.api_url(), project, token, ca_file: None }).unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_package_and_a_release_are_found_again() {
    let double = GitLabDouble::start();
    let job = client(&double, GitLabToken::Job(JOB_TOKEN.to_owned()));
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    let file = Upload { path: source.path(), bytes: 4, sha256: HASH };
    let place =
        PackageFilePlace { package: "model".to_owned(), version: "1.0".to_owned(), file: "stable-1.zip".to_owned() };
    block_on(async {
        assert_eq!(job.package_files(&place).await.unwrap(), []);
        for _ in 0..2 {
            job.upload(&place, file).await.unwrap();
        }
        let found = job.package_files(&place).await.unwrap();
        assert_eq!(
            found.iter().map(|file| (file.bytes, file.sha256.as_deref())).collect::<Vec<_>>(),
            [(4, Some(HASH)); 2]
        );
        let link = ReleaseLink { name: "stable-1.zip".to_owned(), url: job.file_url(&place) };
        let new = NewRelease {
            tag: "stable/1".to_owned(),
            commit: COMMIT.to_owned(),
            name: "One".to_owned(),
            description: "text".to_owned(),
            links: vec![link],
        };
        assert_eq!(job.release("stable/1").await.unwrap(), None);
        let made = job.create_release(&new).await.unwrap();
        assert_eq!((made.commit.as_str(), &made.links), (COMMIT, &new.links));
        assert_eq!(job.create_release(&new).await.unwrap_err().kind, GitLabErrorKind::Exists);
        assert_eq!(job.release("stable/1").await.unwrap(), Some(made));
        assert_eq!(job.tag_commit("stable/1").await.unwrap().as_deref(), Some(COMMIT));
        assert_eq!(job.tag_commit("stable").await.unwrap(), None);
        let other = ReleaseLink { name: "b.zip".to_owned(), url: "https://a.example/b.zip".to_owned() };
        job.add_link("stable/1", &other).await.unwrap();
        assert_eq!(job.add_link("stable/1", &other).await.unwrap_err().kind, GitLabErrorKind::Exists);
        assert!(job.release("stable/1").await.unwrap().unwrap().links.contains(&other));
    });
}

#[test]
fn the_limits_of_the_project_have_their_kinds() {
    let double = GitLabDouble::start();
    let job = client(&double, GitLabToken::Job(JOB_TOKEN.to_owned()));
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    let file = Upload { path: source.path(), bytes: 4, sha256: HASH };
    let place = PackageFilePlace { package: "model".to_owned(), version: "1.0".to_owned(), file: "a.zip".to_owned() };
    block_on(async {
        job.upload(&place, file).await.unwrap();
        double.change(|settings| settings.allows_duplicates = false);
        assert_eq!(job.upload(&place, file).await.unwrap_err().kind, GitLabErrorKind::Exists);
        for change in [3, 5] {
            double.change(|settings| (settings.most_bytes, settings.most_bytes_of_proxy) = (change, 8 - change));
            assert_eq!(job.upload(&place, file).await.unwrap_err().kind, GitLabErrorKind::TooLarge);
        }
        double.change(|settings| settings.has_packages = false);
        assert_eq!(job.package_files(&place).await.unwrap_err().kind, GitLabErrorKind::Denied);
    });
}

#[test]
fn notes_are_all_read_and_written_with_an_access_token_alone() {
    let double = GitLabDouble::start();
    for number in 0..250 {
        double.note(5, 3, &number.to_string(), false);
    }
    let access = client(&double, GitLabToken::Access(ACCESS_TOKEN.to_owned()));
    let job = client(&double, GitLabToken::Job(JOB_TOKEN.to_owned()));
    block_on(async {
        let notes = job.notes(5).await.unwrap();
        let bodies: Vec<String> = notes.iter().map(|note| note.body.clone()).collect();
        assert_eq!(bodies, (0..250).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(job.create_note(5, "x").await.unwrap_err().kind, GitLabErrorKind::Unauthenticated);
        let note = access.create_note(5, "x").await.unwrap();
        access.edit_note(5, note.id, "y").await.unwrap();
        assert_eq!(access.edit_note(5, notes[0].id, "y").await.unwrap_err().kind, GitLabErrorKind::Denied);
        assert_eq!(double.notes(5).last().unwrap().body, "y");
        double.plan(ApiFault::new("POST", "/notes", 1, FaultEffect::DropAfter));
        assert_eq!(access.create_note(5, "z").await.unwrap_err().kind, GitLabErrorKind::Transient);
        assert_eq!(double.notes(5).len(), 252, "it is there once");
    });
}
