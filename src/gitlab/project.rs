//! The calls of the port, on one project.

use async_trait::async_trait;
use executor::gitlab::api::{
    GenericPackage, GitLabAccess, GitLabApi, GitLabError, GitLabErrorKind, NewRelease, Note, PackageFile,
    PackageFilePlace, Release, ReleaseLink, Upload,
};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::answers::{
    CommitAnswer, JobAnswer, NoteAnswer, PackageAnswer, PackageFileAnswer, ProjectAnswer, ReleaseAnswer, TagAnswer,
    UserAnswer,
};
use super::connection::Connection;
use super::errors::GitLabCall;
use super::repetition::Repeatable;

/// Most packages of one name and version. GitLab makes one.
const MOST_PACKAGES: usize = 10;
/// GitLab's limit of the path of a permanent link.
const MOST_LINK_PATH: usize = 128;

/// A project of GitLab over HTTP.
pub(super) struct HttpProject {
    connection: Connection,
    project: String,
}

impl HttpProject {
    pub(super) fn new(connection: Connection, access: &GitLabAccess) -> Self {
        Self { connection, project: access.project.clone() }
    }

    fn url(&self, segments: &[&str]) -> Url {
        self.connection.url(&[&["projects", &self.project], segments].concat())
    }

    /// The address of a file, and its call. GitLab gives no name a meaning in paths, but servers before it do.
    fn place(&self, verb: &str, place: &PackageFilePlace) -> Result<(GitLabCall, Url), GitLabError> {
        let call = self.connection.call(format!("{verb} {place}"));
        for part in [&place.package, &place.version, &place.file] {
            check_segment(&call, part)?;
        }
        Ok((call, self.file_place(place)))
    }

    fn file_place(&self, place: &PackageFilePlace) -> Url {
        self.url(&["packages", "generic", &place.package, &place.version, &place.file])
    }

    fn call_of_release(&self, verb: &str, tag: &str) -> Result<GitLabCall, GitLabError> {
        let call = self.connection.call(format!("{verb} release {tag}"));
        check_segment(&call, tag)?;
        Ok(call)
    }

    fn notes_url(&self, merge_request: u64, rest: &[&str]) -> Url {
        let number = merge_request.to_string();
        self.url(&[&["merge_requests", &number, "notes"], rest].concat())
    }

    /// The page from which a browser downloads a file of the package; by GitLab's API when its page is not known.
    fn download(&self, package: &PackageAnswer, file: u64, place: &PackageFilePlace) -> String {
        let end = format!("/-/packages/{}", package.id);
        let project = package.links.web_path.as_deref().and_then(|path| path.strip_suffix(&end));
        let is_plain = |path: &&str| {
            let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b"/-_.".contains(&letter);
            path.starts_with('/') && !path.starts_with("//") && path.bytes().all(is_letter)
        };
        match project.filter(is_plain) {
            Some(project) => format!("{}{project}/-/package_files/{file}/download", self.connection.origin()),
            None => self.file_place(place).to_string(),
        }
    }
}

/// The search that finds a tag. GitLab takes the first `^` and the first `$` of a search as the bounds of a name, and finds parts of
/// names without them. `None` for a name that no search finds.
fn search_of_tag(tag: &str) -> Option<String> {
    if !tag.contains('$') {
        return Some(format!("^{tag}$"));
    }
    // No tag has a `^`.
    let part = tag.split('$').max_by_key(|part| part.len())?;
    (!part.is_empty()).then(|| part.to_owned())
}

/// Refuses a name that would change the path of the request.
fn check_segment(call: &GitLabCall, name: &str) -> Result<(), GitLabError> {
    match name {
        "" | "." | ".." => Err(call.error(GitLabErrorKind::Invalid, &format!("`{name}` is no name"))),
        _ => Ok(()),
    }
}

#[async_trait]
impl GitLabApi for HttpProject {
    async fn package_files(&self, place: &PackageFilePlace) -> Result<Vec<PackageFile>, GitLabError> {
        let (call, _) = self.place("list files of", place)?;
        let mut url = self.url(&["packages"]);
        url.query_pairs_mut()
            .append_pair("package_type", "generic")
            .append_pair("package_name", &place.package)
            .append_pair("package_version", &place.version);
        // GitLab searches for parts of names, and old versions know no filter by version.
        let is_meant = |package: &PackageAnswer| {
            package.package_type == "generic"
                && package.name == place.package
                && package.version.as_ref() == Some(&place.version)
        };
        let listed: Vec<PackageAnswer> = self.connection.list(&call, &url).await?;
        let packages: Vec<_> = listed.into_iter().filter(is_meant).collect();
        if packages.len() > MOST_PACKAGES {
            return Err(call.odd("it has too many packages of one name and version"));
        }
        let mut files = Vec::new();
        for package in &packages {
            let url = self.url(&["packages", &package.id.to_string(), "package_files"]);
            let found: Vec<PackageFileAnswer> = self.connection.list(&call, &url).await?;
            files.extend(found.into_iter().filter(|file| file.file_name == place.file).map(|file| PackageFile {
                id: file.id,
                bytes: file.size,
                sha256: file.sha256(),
                url: self.download(package, file.id, place),
                name: file.file_name,
            }));
        }
        files.sort_by_key(|file| file.id);
        Ok(files)
    }

    async fn project_path(&self) -> Result<Option<String>, GitLabError> {
        let refused = |error: &GitLabError| {
            use GitLabErrorKind::{Denied, NotFound, Unauthenticated};
            matches!(error.kind, NotFound | Unauthenticated | Denied)
        };
        let call = self.connection.call(format!("read project {}", self.project));
        match self.connection.get(&call, &self.url(&[])).await {
            Ok(answer) => return Ok(Some(answer.read::<ProjectAnswer>(&call)?.path_with_namespace)),
            Err(error) if refused(&error) => {}
            Err(error) => return Err(error),
        }
        // A job's own token may ask for its job alone.
        let call = self.connection.call("read the job of the token".to_owned());
        match self.connection.get(&call, &self.connection.url(&["job"])).await {
            Ok(answer) => {
                let api = self.connection.url(&[]).to_string();
                let server = api.trim_end_matches('/').trim_end_matches("/api/v4");
                answer.read::<JobAnswer>(&call)?.path(&call, &self.project, server).map(Some)
            }
            Err(error) if refused(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn packages(&self, name: &str) -> Result<Vec<GenericPackage>, GitLabError> {
        let call = self.connection.call(format!("list packages named {name}"));
        let mut url = self.url(&["packages"]);
        url.query_pairs_mut()
            .append_pair("package_type", "generic")
            .append_pair("package_name", name)
            .append_pair("order_by", "created_at")
            .append_pair("sort", "asc");
        let (listed, _) = self.connection.begin::<PackageAnswer>(&call, &url).await?;
        // GitLab searches for parts of names.
        let meant = listed.into_iter().filter(|package| package.package_type == "generic" && package.name == name);
        meant.filter_map(|package| package.package(&call).transpose()).collect()
    }

    async fn delete_package(&self, id: u64) -> Result<(), GitLabError> {
        let call = self.connection.call(format!("delete package {id}"));
        let request = (Method::DELETE, &self.url(&["packages", &id.to_string()]));
        match self.connection.send(&call, request, &json!({}), Repeatable::Always).await {
            Err(error) if error.kind == GitLabErrorKind::NotFound && !error.message.contains("Project Not Found") => {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    async fn upload(&self, place: &PackageFilePlace, file: Upload<'_>) -> Result<(), GitLabError> {
        let (call, mut url) = self.place("upload", place)?;
        url.query_pairs_mut().append_pair("select", "package_file");
        self.connection.upload(&call, &url, file).await
    }

    fn file_url(&self, place: &PackageFilePlace) -> String {
        self.file_place(place).to_string()
    }

    async fn tag_commit(&self, tag: &str) -> Result<Option<String>, GitLabError> {
        let call = self.connection.call(format!("read tag {tag}"));
        // The list, because a job token may not read a tag alone.
        let mut url = self.url(&["repository", "tags"]);
        if let Some(search) = search_of_tag(tag) {
            url.query_pairs_mut().append_pair("search", &search);
        }
        let tags: Vec<TagAnswer> = self.connection.list(&call, &url).await?;
        Ok(tags.into_iter().find(|found| found.name == tag).map(|found| found.commit.id))
    }

    async fn has_commit(&self, commit: &str) -> Result<Option<bool>, GitLabError> {
        let call = self.connection.call(format!("read commit {commit}"));
        check_segment(&call, commit)?;
        let mut url = self.url(&["repository", "commits", commit]);
        url.query_pairs_mut().append_pair("stats", "false");
        match self.connection.get(&call, &url).await {
            Ok(answer) => Ok(Some(answer.read::<CommitAnswer>(&call)?.id.eq_ignore_ascii_case(commit))),
            Err(error) => match error.kind {
                GitLabErrorKind::NotFound if error.message.contains("Commit Not Found") => Ok(Some(false)),
                // A job token may not read commits in every version.
                GitLabErrorKind::NotFound | GitLabErrorKind::Unauthenticated | GitLabErrorKind::Denied => Ok(None),
                _ => Err(error),
            },
        }
    }

    async fn release(&self, tag: &str) -> Result<Option<Release>, GitLabError> {
        let call = self.call_of_release("read", tag)?;
        let answer = match self.connection.get(&call, &self.url(&["releases", tag])).await {
            Ok(answer) => answer,
            Err(error) if error.kind == GitLabErrorKind::NotFound && !error.message.contains("Project Not Found") => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        answer.read::<ReleaseAnswer>(&call)?.release(&call, tag).map(Some)
    }

    async fn releases(&self) -> Result<Vec<Release>, GitLabError> {
        let call = self.connection.call("list the releases".to_owned());
        let listed: Vec<ReleaseAnswer> = self.connection.list(&call, &self.url(&["releases"])).await?;
        listed.into_iter().map(|release| release.listed(&call)).collect()
    }

    async fn create_release(&self, release: &NewRelease) -> Result<Release, GitLabError> {
        let call = self.call_of_release("create", &release.tag)?;
        let body = json!({
            "tag_name": release.tag,
            "ref": release.commit,
            "name": release.name,
            "description": release.description,
            "assets": { "links": release.links.iter().map(link_body).collect::<Vec<_>>() },
        });
        let request = (Method::POST, &self.url(&["releases"]));
        let answer = self.connection.send(&call, request, &body, Repeatable::UnlessSent).await?;
        answer.read::<ReleaseAnswer>(&call)?.release(&call, &release.tag)
    }

    async fn add_link(&self, tag: &str, link: &ReleaseLink) -> Result<(), GitLabError> {
        let call = self.call_of_release("add a link to", tag)?;
        let request = (Method::POST, &self.url(&["releases", tag, "assets", "links"]));
        self.connection.send(&call, request, &link_body(link), Repeatable::UnlessSent).await.map(drop)
    }

    async fn user(&self) -> Result<u64, GitLabError> {
        let call = self.connection.call("find the user of the token".to_owned());
        let answer = self.connection.get(&call, &self.connection.url(&["user"])).await?;
        Ok(answer.read::<UserAnswer>(&call)?.id)
    }

    async fn notes(&self, merge_request: u64) -> Result<Vec<Note>, GitLabError> {
        let call = self.connection.call(format!("list notes of merge request !{merge_request}"));
        let mut url = self.notes_url(merge_request, &[]);
        url.query_pairs_mut().append_pair("order_by", "created_at").append_pair("sort", "asc");
        let notes: Vec<NoteAnswer> = self.connection.list(&call, &url).await?;
        Ok(notes.into_iter().map(NoteAnswer::note).collect())
    }

    async fn create_note(&self, merge_request: u64, body: &str) -> Result<Note, GitLabError> {
        let call = self.connection.call(format!("create a note of merge request !{merge_request}"));
        let request = (Method::POST, &self.notes_url(merge_request, &[]));
        let answer = self.connection.send(&call, request, &json!({ "body": body }), Repeatable::UnlessSent).await?;
        Ok(answer.read::<NoteAnswer>(&call)?.note())
    }

    async fn edit_note(&self, merge_request: u64, note: u64, body: &str) -> Result<(), GitLabError> {
        let call = self.connection.call(format!("edit note {note} of merge request !{merge_request}"));
        let request = (Method::PUT, &self.notes_url(merge_request, &[&note.to_string()]));
        self.connection.send(&call, request, &json!({ "body": body }), Repeatable::Always).await.map(drop)
    }

    async fn delete_note(&self, merge_request: u64, note: u64) -> Result<(), GitLabError> {
        let call = self.connection.call(format!("delete note {note} of merge request !{merge_request}"));
        let request = (Method::DELETE, &self.notes_url(merge_request, &[&note.to_string()]));
        self.connection.send(&call, request, &json!({}), Repeatable::Always).await.map(drop)
    }
}

/// A link to a package, with a permanent address below the release when the name can be one.
fn link_body(link: &ReleaseLink) -> Value {
    let mut body = json!({ "name": link.name, "url": link.url, "link_type": "package" });
    let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    let is_path = link.name.bytes().all(is_letter) && link.name.ends_with(|last: char| last.is_ascii_alphanumeric());
    if is_path && link.name.len() < MOST_LINK_PATH {
        body["direct_asset_path"] = format!("/{}", link.name).into();
    }
    body
}
