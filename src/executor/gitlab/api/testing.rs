//! Fake of GitLab's API: one project, in memory. Keeps what the port promises; `Fault` plans failures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::{
    ConnectGitLab, GenericPackage, GitLabAccess, GitLabApi, GitLabError, GitLabErrorKind, NewRelease, Note,
    PackageFile, PackageFilePlace, Release, ReleaseLink, ServerAccess, ServerDocuments, Upload,
};
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fake, PlannedError};

/// Packages, tags, releases and notes in maps.
pub type MemoryGitLab = Fake<ProjectState>;

/// Number of the user whose token is used.
pub const OWN_USER: u64 = 7;

#[derive(Debug, Default)]
pub struct ProjectState {
    files: Vec<(PackageFilePlace, PackageFile, Vec<u8>)>,
    packages: Vec<GenericPackage>,
    tags: BTreeMap<String, String>,
    releases: BTreeMap<String, Release>,
    notes: BTreeMap<u64, Vec<Note>>,
    last_note: u64,
    last_package: u64,
    /// Written when the next note is: by another job at the same time.
    rival: Option<String>,
    refuses_duplicates: bool,
    hides_hashes: bool,
    /// Looks at files that still show none.
    blind_looks: usize,
    /// Looks at a release that still show neither it nor its tag.
    blind_release_looks: usize,
    /// Commits that the project does not have.
    absent_commits: Vec<String>,
    /// The project's path, when a test sets it.
    path: Option<String>,
    /// The token may not ask for the path.
    hides_path: bool,
    /// Public documents of the server, by their paths.
    documents: BTreeMap<String, Vec<u8>>,
}

impl MemoryGitLab {
    /// Refuses a second file of a name, as a group may.
    pub fn refuse_duplicates(&self, refuses: bool) {
        self.inner().service.refuses_duplicates = refuses;
    }

    /// Shows no file to this many looks, as a replica that is behind.
    pub fn hide_files(&self, looks: usize) {
        self.inner().service.blind_looks = looks;
    }

    /// Shows no release and no tag to this many looks: of a request whose effect comes late, as behind a proxy that gave up.
    pub fn hide_releases(&self, looks: usize) {
        self.inner().service.blind_release_looks = looks;
    }

    /// Shows a public document at a path of the server.
    pub fn show_document(&self, path: &str, text: &str) {
        self.inner().service.documents.insert(path.to_owned(), text.as_bytes().to_vec());
    }

    /// The project has this path, or the token may not ask for it.
    pub fn set_path(&self, path: Option<&str>) {
        let service = &mut self.inner().service;
        service.hides_path = path.is_none();
        service.path = path.map(str::to_owned);
    }

    /// Takes a commit away.
    pub fn forget_commit(&self, commit: &str) {
        self.inner().service.absent_commits.push(commit.to_owned());
    }

    /// Deletes a tag, as `git push --delete` does: its release stays.
    pub fn delete_tag(&self, name: &str) {
        self.inner().service.tags.remove(name);
    }

    /// Tells no SHA-256 of files, as an old version.
    pub fn hide_hashes(&self) {
        self.inner().service.hides_hashes = true;
    }

    /// The uploaded files, in their order.
    pub fn files(&self) -> Vec<(PackageFilePlace, Vec<u8>)> {
        self.inner().service.files.iter().map(|(place, _, content)| (place.clone(), content.clone())).collect()
    }

    /// Makes a package by hand, without files.
    pub fn package(&self, name: &str, version: &str, created: SystemTime) {
        self.inner().service.add_package(name, version, Some(created));
    }

    /// Versions of all packages, with their names.
    pub fn all_packages(&self) -> Vec<(String, String)> {
        let packages = &self.inner().service.packages;
        packages.iter().map(|package| (package.name.clone(), package.version.clone())).collect()
    }

    /// Makes a release by hand.
    pub fn make_release(&self, release: Release) {
        self.inner().service.releases.insert(release.tag.clone(), release);
    }

    pub fn releases(&self) -> Vec<Release> {
        self.inner().service.releases.values().cloned().collect()
    }

    /// Makes a tag by hand.
    pub fn tag(&self, name: &str, commit: &str) {
        self.inner().service.tags.insert(name.to_owned(), commit.to_owned());
    }

    /// The notes of a merge request.
    pub fn notes_of(&self, merge_request: u64) -> Vec<Note> {
        self.inner().service.notes.get(&merge_request).cloned().unwrap_or_default()
    }

    /// Writes a note by hand.
    pub fn note(&self, merge_request: u64, author: u64, body: &str) {
        self.inner().service.add_note(merge_request, author, body);
    }

    /// Lets another job of the same user write this note right before the next one is written.
    pub fn write_at_once(&self, body: &str) {
        self.inner().service.rival = Some(body.to_owned());
    }
}

impl ProjectState {
    fn add_package(&mut self, name: &str, version: &str, created: Option<SystemTime>) {
        if !self.packages.iter().any(|known| known.name == name && known.version == version) {
            self.last_package += 1;
            let (name, version) = (name.to_owned(), version.to_owned());
            self.packages.push(GenericPackage { id: self.last_package, name, version, created });
        }
    }

    fn add_note(&mut self, merge_request: u64, author: u64, body: &str) -> Note {
        self.last_note += 1;
        let note = Note { id: self.last_note, body: body.to_owned(), author, is_system: false };
        self.notes.entry(merge_request).or_default().push(note.clone());
        note
    }
}

fn error(kind: GitLabErrorKind, operation: String, message: &str) -> GitLabError {
    GitLabError { kind, operation, message: message.to_owned() }
}

fn release_of(new: &NewRelease, commit: String) -> Release {
    let url = Some(format!("https://gitlab.example.com/group/project/-/releases/{}", new.tag));
    let (tag, name) = (new.tag.clone(), new.name.clone());
    Release { tag, name, commit, description: new.description.clone(), links: new.links.clone(), url }
}

impl PlannedError for GitLabError {
    fn planned(kind: CloudErrorKind, operation: String, message: String) -> Self {
        let kind = match kind {
            CloudErrorKind::NotFound => GitLabErrorKind::NotFound,
            CloudErrorKind::Exists => GitLabErrorKind::Exists,
            CloudErrorKind::Throttled => GitLabErrorKind::Throttled,
            CloudErrorKind::Denied => GitLabErrorKind::Denied,
            CloudErrorKind::Unauthenticated => GitLabErrorKind::Unauthenticated,
            CloudErrorKind::Quota => GitLabErrorKind::TooLarge,
            CloudErrorKind::Transient => GitLabErrorKind::Transient,
            CloudErrorKind::Invalid => GitLabErrorKind::Refused,
            _ => GitLabErrorKind::Invalid,
        };
        Self { kind, operation, message }
    }
}

#[async_trait]
impl GitLabApi for MemoryGitLab {
    async fn package_files(&self, place: &PackageFilePlace) -> Result<Vec<PackageFile>, GitLabError> {
        let act = |project: &mut ProjectState| {
            if let Some(left) = project.blind_looks.checked_sub(1) {
                project.blind_looks = left;
                return Ok(Vec::new());
            }
            let meant = project.files.iter().filter(|(known, ..)| known == place);
            Ok(meant.map(|(_, file, _)| file.clone()).collect())
        };
        self.call("package_files", &place.to_string(), act).await
    }

    async fn project_path(&self) -> Result<Option<String>, GitLabError> {
        let act = |project: &mut ProjectState| {
            let path = project.path.clone().unwrap_or_else(|| "group/project".to_owned());
            Ok(Some(path).filter(|_| !project.hides_path))
        };
        self.call("project_path", "", act).await
    }

    async fn packages(&self, name: &str) -> Result<Vec<GenericPackage>, GitLabError> {
        let act = |project: &mut ProjectState| {
            Ok(project.packages.iter().filter(|package| package.name == name).cloned().collect())
        };
        self.call("packages", name, act).await
    }

    async fn delete_package(&self, id: u64) -> Result<(), GitLabError> {
        let act = |project: &mut ProjectState| {
            if let Some(at) = project.packages.iter().position(|package| package.id == id) {
                let gone = project.packages.remove(at);
                project.files.retain(|(place, ..)| (&place.package, &place.version) != (&gone.name, &gone.version));
            }
            Ok(())
        };
        self.call("delete_package", &id.to_string(), act).await
    }

    async fn upload(&self, place: &PackageFilePlace, file: Upload<'_>) -> Result<(), GitLabError> {
        let operation = || format!("upload {place}");
        let content = std::fs::read(file.path)
            .map_err(|cause| error(GitLabErrorKind::Invalid, operation(), &cause.to_string()))?;
        let act = |project: &mut ProjectState| {
            let id = project.files.len() as u64 + 1;
            let bytes = content.len() as u64;
            let is_there = project.files.iter().any(|(known, ..)| known == place);
            if is_there && project.refuses_duplicates {
                return Err(error(GitLabErrorKind::Exists, operation(), "Duplicate package is not allowed"));
            }
            let sha256 = Sha256::digest(&content).iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            let sha256 = Some(sha256).filter(|_| !project.hides_hashes);
            project.add_package(&place.package, &place.version, None);
            let (name, url) = (place.file.clone(), self.file_url(place));
            project.files.push((place.clone(), PackageFile { id, name, bytes, sha256, url }, content));
            Ok(())
        };
        self.call("upload", &place.to_string(), act).await
    }

    fn file_url(&self, place: &PackageFilePlace) -> String {
        format!("https://gitlab.example.com/api/v4/projects/42/packages/generic/{place}")
    }

    async fn tag_commit(&self, tag: &str) -> Result<Option<String>, GitLabError> {
        let act = |project: &mut ProjectState| {
            let is_shown = project.blind_release_looks == 0;
            Ok(project.tags.get(tag).filter(|_| is_shown).cloned())
        };
        self.call("tag_commit", tag, act).await
    }

    async fn has_commit(&self, commit: &str) -> Result<Option<bool>, GitLabError> {
        let act = |project: &mut ProjectState| Ok(Some(project.absent_commits.iter().all(|absent| absent != commit)));
        self.call("has_commit", commit, act).await
    }

    async fn release(&self, tag: &str) -> Result<Option<Release>, GitLabError> {
        let act = |project: &mut ProjectState| {
            if let Some(left) = project.blind_release_looks.checked_sub(1) {
                project.blind_release_looks = left;
                return Ok(None);
            }
            Ok(project.releases.get(tag).cloned())
        };
        self.call("release", tag, act).await
    }

    async fn releases(&self) -> Result<Vec<Release>, GitLabError> {
        self.call("releases", "", |project| Ok(project.releases.values().cloned().collect())).await
    }

    async fn create_release(&self, new: &NewRelease) -> Result<Release, GitLabError> {
        let act = |project: &mut ProjectState| {
            if project.releases.contains_key(&new.tag) {
                let operation = format!("create release {}", new.tag);
                return Err(error(GitLabErrorKind::Exists, operation, "Release already exists"));
            }
            if !project.tags.contains_key(&new.tag) && project.absent_commits.contains(&new.commit) {
                let operation = format!("create release {}", new.tag);
                return Err(error(GitLabErrorKind::Refused, operation, "Target is invalid"));
            }
            let commit = project.tags.entry(new.tag.clone()).or_insert_with(|| new.commit.clone()).clone();
            let release = release_of(new, commit);
            project.releases.insert(new.tag.clone(), release.clone());
            Ok(release)
        };
        self.call("create_release", &new.tag, act).await
    }

    async fn add_link(&self, tag: &str, link: &ReleaseLink) -> Result<(), GitLabError> {
        let act = |project: &mut ProjectState| {
            let operation = || format!("add a link to release {tag}");
            let Some(release) = project.releases.get_mut(tag) else {
                return Err(error(GitLabErrorKind::NotFound, operation(), "404 Not Found"));
            };
            if release.links.iter().any(|known| known.name == link.name || known.url == link.url) {
                return Err(error(GitLabErrorKind::Exists, operation(), "Name has already been taken"));
            }
            release.links.push(link.clone());
            Ok(())
        };
        self.call("add_link", tag, act).await
    }

    async fn user(&self) -> Result<u64, GitLabError> {
        self.call("user", "", |_| Ok(OWN_USER)).await
    }

    async fn notes(&self, merge_request: u64) -> Result<Vec<Note>, GitLabError> {
        let act = |project: &mut ProjectState| Ok(project.notes.get(&merge_request).cloned().unwrap_or_default());
        self.call("notes", &merge_request.to_string(), act).await
    }

    async fn create_note(&self, merge_request: u64, body: &str) -> Result<Note, GitLabError> {
        let act = |project: &mut ProjectState| {
            if let Some(rival) = project.rival.take() {
                project.add_note(merge_request, OWN_USER, &rival);
            }
            Ok(project.add_note(merge_request, OWN_USER, body))
        };
        self.call("create_note", &merge_request.to_string(), act).await
    }

    async fn edit_note(&self, merge_request: u64, note: u64, body: &str) -> Result<(), GitLabError> {
        let act = |project: &mut ProjectState| {
            let notes = project.notes.entry(merge_request).or_default();
            let Some(known) = notes.iter_mut().find(|known| known.id == note) else {
                return Err(error(GitLabErrorKind::NotFound, format!("edit note {note}"), "404 Not Found"));
            };
            body.clone_into(&mut known.body);
            Ok(())
        };
        self.call("edit_note", &note.to_string(), act).await
    }

    async fn delete_note(&self, merge_request: u64, note: u64) -> Result<(), GitLabError> {
        let act = |project: &mut ProjectState| {
            let notes = project.notes.entry(merge_request).or_default();
            let Some(at) = notes.iter().position(|known| known.id == note) else {
                return Err(error(GitLabErrorKind::NotFound, format!("delete note {note}"), "404 Not Found"));
            };
            notes.remove(at);
            Ok(())
        };
        self.call("delete_note", &note.to_string(), act).await
    }
}

#[async_trait]
impl ServerDocuments for MemoryGitLab {
    async fn document(&self, path: &str, most: usize) -> Result<Vec<u8>, GitLabError> {
        let act = |project: &mut ProjectState| {
            let absent = || error(GitLabErrorKind::NotFound, format!("read {path}"), "404 Not Found");
            project.documents.get(path).filter(|text| text.len() <= most).cloned().ok_or_else(absent)
        };
        self.call("document", path, act).await
    }
}

/// Gives out one fake, whatever the access.
#[derive(Debug, Clone, Default)]
pub struct MemoryGitLabConnect(pub Arc<MemoryGitLab>);

impl ConnectGitLab for MemoryGitLabConnect {
    fn server(&self, _: &ServerAccess) -> anyhow::Result<Arc<dyn ServerDocuments>> {
        Ok(self.0.clone())
    }

    fn gitlab(&self, _: &GitLabAccess) -> anyhow::Result<Arc<dyn GitLabApi>> {
        Ok(self.0.clone())
    }
}
