//! Forms of GitLab's answers, and the port's types made of them. Unknown members are ignored; a known one of another form is an error.

use std::time::SystemTime;

use executor::gitlab::api::{GenericPackage, GitLabError, Note, Release, ReleaseLink};
use serde::Deserialize;

use super::errors::GitLabCall;

#[derive(Debug, Deserialize)]
pub(super) struct PackageAnswer {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) package_type: String,
    /// As RFC 3339 says.
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default, rename = "_links")]
    pub(super) links: PackageLinks,
}

impl PackageAnswer {
    /// `None` without a version.
    pub(super) fn package(self) -> Option<GenericPackage> {
        let created = self.created_at.as_deref().and_then(time);
        Some(GenericPackage { id: self.id, name: self.name, version: self.version?, created })
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct PackageLinks {
    /// `/group/project/-/packages/7`.
    pub(super) web_path: Option<String>,
}

/// A file of a package, listed or just uploaded.
#[derive(Debug, Deserialize)]
pub(super) struct PackageFileAnswer {
    pub(super) id: u64,
    pub(super) file_name: String,
    pub(super) size: u64,
    file_sha256: Option<String>,
}

impl PackageFileAnswer {
    /// 64 lower-case digits.
    pub(super) fn sha256(&self) -> Option<String> {
        let hash = self.file_sha256.as_deref()?.to_ascii_lowercase();
        (hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(hash)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TagAnswer {
    pub(super) name: String,
    /// The commit that the tag, or the tag object, leads to.
    pub(super) commit: CommitAnswer,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommitAnswer {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReleaseAnswer {
    tag_name: Option<String>,
    /// Absent for a token that may not read the repository. A release whose tag was removed keeps its commit.
    commit: Option<CommitAnswer>,
    description: Option<String>,
    #[serde(default)]
    assets: AssetsAnswer,
    #[serde(default, rename = "_links")]
    links: ReleaseLinksAnswer,
}

#[derive(Debug, Default, Deserialize)]
struct AssetsAnswer {
    #[serde(default)]
    links: Vec<LinkAnswer>,
}

#[derive(Debug, Deserialize)]
struct LinkAnswer {
    name: String,
    url: String,
}

#[derive(Debug, Default, Deserialize)]
struct ReleaseLinksAnswer {
    #[serde(rename = "self")]
    page: Option<String>,
}

impl ReleaseAnswer {
    /// # Errors
    /// The answer is about another tag, or tells no commit.
    pub(super) fn release(mut self, call: &GitLabCall, tag: &str) -> Result<Release, GitLabError> {
        let commit = self.commit.take().filter(|_| self.tag_name.is_some());
        let Some(commit) = commit else {
            return Err(call.odd("the release has no commit: the token may not read the project's repository"));
        };
        if self.tag_name.as_deref() != Some(tag) {
            return Err(call.odd("it is about another release"));
        }
        Ok(self.made_of(tag.to_owned(), commit.id))
    }

    /// A release of a list.
    ///
    /// # Errors
    /// It tells no tag or no commit.
    pub(super) fn listed(mut self, call: &GitLabCall) -> Result<Release, GitLabError> {
        let (Some(tag), Some(commit)) = (self.tag_name.take(), self.commit.take()) else {
            return Err(call.odd("a release has no tag or no commit: the token may not read the project's repository"));
        };
        Ok(self.made_of(tag, commit.id))
    }

    fn made_of(self, tag: String, commit: String) -> Release {
        let links = self.assets.links.into_iter().map(|link| ReleaseLink { name: link.name, url: link.url }).collect();
        let description = self.description.unwrap_or_default();
        let url = self.links.page.filter(|page| page.starts_with("https://") || page.starts_with("http://"));
        Release { tag, commit, description, links, url }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NoteAnswer {
    id: u64,
    body: String,
    author: Option<UserAnswer>,
    #[serde(default)]
    system: bool,
}

/// The time of a text like `2026-11-29T04:52:33.711Z`; `None` for other forms.
fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[derive(Debug, Deserialize)]
pub(super) struct UserAnswer {
    pub(super) id: u64,
}

impl NoteAnswer {
    pub(super) fn note(self) -> Note {
        // No user has the number 0.
        let author = self.author.map_or(0, |author| author.id);
        Note { id: self.id, body: self.body, author, is_system: self.system }
    }
}
