//! GitLab's API as a port: packages, releases and notes of one project. `src/gitlab/` adapts it to HTTP.

mod error;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

pub use error::{GitLabError, GitLabErrorKind};

/// How a project of a GitLab is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitLabAccess {
    /// `CI_API_V4_URL`: `https://gitlab.example.com/api/v4`.
    pub api_url: String,
    /// Number or path of the project: `CI_PROJECT_ID`.
    pub project: String,
    pub token: GitLabToken,
    /// PEM file with more certificate authorities: `CI_SERVER_TLS_CA_FILE`, or `--gitlab-ca-file` for the token of a secret.
    pub ca_file: Option<PathBuf>,
}

/// A token, and with it the header that carries it.
#[derive(Clone, PartialEq, Eq)]
pub enum GitLabToken {
    /// `CI_JOB_TOKEN`: packages, releases, tags, and from some version on commits; notes can be read alone.
    Job(String),
    /// Of a project, a group or a person, with the scope `api`.
    Access(String),
    /// As `Access`, from a secret that who starts the pipeline need not know: no variable names a proxy that reads it, or an authority.
    Secret(String),
}

impl fmt::Debug for GitLabToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job(..)",
            Self::Access(_) => "Access(..)",
            Self::Secret(_) => "Secret(..)",
        })
    }
}

/// A file of a generic package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    pub id: u64,
    pub name: String,
    pub bytes: u64,
    /// 64 lower-case digits; absent in answers of old GitLab versions.
    pub sha256: Option<String>,
    /// Where a browser finds the file's download.
    pub url: String,
}

/// Place of a file in the package registry: `NAME/VERSION/FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFilePlace {
    pub package: String,
    pub version: String,
    pub file: String,
}

impl fmt::Display for PackageFilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.package, self.version, self.file)
    }
}

/// A generic package: a name and a version, with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenericPackage {
    pub id: u64,
    pub name: String,
    pub version: String,
    pub created: Option<SystemTime>,
}

/// A file to upload.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    pub path: &'a Path,
    pub bytes: u64,
    /// 64 lower-case digits.
    pub sha256: &'a str,
}

/// A release to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    pub tag: String,
    /// The commit that the tag is made of, when there is no tag yet.
    pub commit: String,
    pub name: String,
    /// Markdown.
    pub description: String,
    pub links: Vec<ReleaseLink>,
}

/// A release that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub tag: String,
    /// Its title.
    pub name: String,
    pub commit: String,
    pub description: String,
    pub links: Vec<ReleaseLink>,
    /// Its page.
    pub url: Option<String>,
}

/// A link to a package among the assets of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseLink {
    pub name: String,
    pub url: String,
}

/// A note of a merge request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub id: u64,
    pub body: String,
    /// Number of the user who wrote it.
    pub author: u64,
    /// Written by GitLab itself, as "changed the description".
    pub is_system: bool,
}

/// Packages, releases and notes of one project. Calls that may pass are repeated by the adapter, within its bounds.
#[async_trait]
pub trait GitLabApi: Send + Sync {
    /// All files of this name and version of the package, of all uploads, the oldest first. Empty without such a package.
    async fn package_files(&self, place: &PackageFilePlace) -> Result<Vec<PackageFile>, GitLabError>;
    /// The path of the project, `group/project`; `None` when the token may not ask.
    async fn project_path(&self) -> Result<Option<String>, GitLabError>;
    /// The generic packages of this name, the oldest first. GitLab finds parts of names too: of more than ten thousand that it finds the
    /// rest is left out.
    async fn packages(&self, name: &str) -> Result<Vec<GenericPackage>, GitLabError>;
    /// Deletes a package with its files. One that does not exist is no error.
    async fn delete_package(&self, id: u64) -> Result<(), GitLabError>;
    /// Uploads a file. GitLab keeps earlier files of the name, unless the project refuses duplicates.
    async fn upload(&self, place: &PackageFilePlace, file: Upload<'_>) -> Result<(), GitLabError>;
    /// Where GitLab's API serves a file of the package registry.
    fn file_url(&self, place: &PackageFilePlace) -> String;
    /// Commit of a tag.
    async fn tag_commit(&self, tag: &str) -> Result<Option<String>, GitLabError>;
    /// Tells if the project has a commit; `None` when the token may not ask.
    async fn has_commit(&self, commit: &str) -> Result<Option<bool>, GitLabError>;
    async fn release(&self, tag: &str) -> Result<Option<Release>, GitLabError>;
    /// All releases of the project.
    async fn releases(&self) -> Result<Vec<Release>, GitLabError>;
    /// Makes a release, and its tag when there is none.
    async fn create_release(&self, release: &NewRelease) -> Result<Release, GitLabError>;
    /// Adds a link to a release.
    async fn add_link(&self, tag: &str, link: &ReleaseLink) -> Result<(), GitLabError>;
    /// Number of the user whose token is used: the author of the notes that it writes.
    async fn user(&self) -> Result<u64, GitLabError>;
    /// All notes of a merge request, the oldest first.
    async fn notes(&self, merge_request: u64) -> Result<Vec<Note>, GitLabError>;
    async fn create_note(&self, merge_request: u64, body: &str) -> Result<Note, GitLabError>;
    async fn edit_note(&self, merge_request: u64, note: u64, body: &str) -> Result<(), GitLabError>;
    /// Deletes a note. Repeated after a lost reply, it is not found.
    async fn delete_note(&self, merge_request: u64, note: u64) -> Result<(), GitLabError>;
}

/// How a GitLab server is reached without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAccess {
    /// `CI_SERVER_URL`: `https://gitlab.example.com`.
    pub url: String,
    /// PEM file with more certificate authorities: `CI_SERVER_TLS_CA_FILE`.
    pub ca_file: Option<PathBuf>,
}

/// Documents of a server that everybody may read.
#[async_trait]
pub trait ServerDocuments: Send + Sync {
    /// Reads the document at a path below the server's address: at most `most` bytes.
    async fn document(&self, path: &str, most: usize) -> Result<Vec<u8>, GitLabError>;
}

/// Makes the ports. Sends no request.
///
/// Errors are failures with a hint: the URL is none, or the file of authorities cannot be used.
pub trait ConnectGitLab: Send + Sync {
    fn server(&self, access: &ServerAccess) -> anyhow::Result<Arc<dyn ServerDocuments>>;
    fn gitlab(&self, access: &GitLabAccess) -> anyhow::Result<Arc<dyn GitLabApi>>;
}
