//! Forms of GitLab's answers, and the port's types made of them. Unknown members are ignored; a known one of another form is an error.

use std::time::{Duration, SystemTime};

use executor::gitlab::api::{GenericPackage, GitLabError, Note, Release, ReleaseLink};
use serde::Deserialize;

use super::errors::GitLabCall;

/// Characters of an offset like `+01:00`.
const OFFSET: usize = 6;

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
    ///
    /// # Errors
    /// Its time has a form that is not understood.
    pub(super) fn package(self, call: &GitLabCall) -> Result<Option<GenericPackage>, GitLabError> {
        let (id, name) = (self.id, self.name);
        let Some(version) = self.version else { return Ok(None) };
        let created = match self.created_at.as_deref() {
            None => None,
            Some(text) => Some(time(text).ok_or_else(|| call.odd("the time of a package is none"))?),
        };
        Ok(Some(GenericPackage { id, name, version, created }))
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
    name: Option<String>,
    /// Absent for a token that may not read the repository. A release whose tag was removed keeps its commit.
    commit: Option<CommitAnswer>,
    description: Option<String>,
    assets: Option<AssetsAnswer>,
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
    /// It tells no tag, no commit or no assets.
    pub(super) fn listed(mut self, call: &GitLabCall) -> Result<Release, GitLabError> {
        let (Some(tag), Some(commit)) = (self.tag_name.take(), self.commit.take()) else {
            return Err(call.odd("a release has no tag or no commit: the token may not read the project's repository"));
        };
        if self.assets.is_none() {
            return Err(call.odd("a release has no assets"));
        }
        Ok(self.made_of(tag, commit.id))
    }

    fn made_of(self, tag: String, commit: String) -> Release {
        let links = self
            .assets
            .unwrap_or_default()
            .links
            .into_iter()
            .map(|link| ReleaseLink { name: link.name, url: link.url })
            .collect();
        let description = self.description.unwrap_or_default();
        let url = self.links.page.filter(|page| page.starts_with("https://") || page.starts_with("http://"));
        Release { tag, name: self.name.unwrap_or_default(), commit, description, links, url }
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

/// The time of a text like `2026-11-29T04:52:33.711Z`, or with an offset like `+01:00` in the place of the `Z`, as a GitLab with a time
/// zone writes it; `None` for other forms.
fn time(text: &str) -> Option<SystemTime> {
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(text).ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(OFFSET)?)?;
    let (sign, (hours, minutes)) = (offset.get(..1)?, offset.get(1..)?.split_once(':')?);
    let digits = |text: &str, most: u64| {
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())??;
        (text.len() == 2 && number <= most).then_some(number)
    };
    let offset = Duration::from_secs(digits(hours, 23)? * 3600 + digits(minutes, 59)? * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ProjectAnswer {
    pub(super) path_with_namespace: String,
}

/// The job of a token.
#[derive(Debug, Deserialize)]
pub(super) struct JobAnswer {
    /// Its page: `https://gitlab.example.com/group/project/-/jobs/7`.
    web_url: String,
    pipeline: JobPipelineAnswer,
}

#[derive(Debug, Deserialize)]
struct JobPipelineAnswer {
    project_id: u64,
}

impl JobAnswer {
    /// The path of the job's project, when that is `project`, a number or a path. `server` is the address of the server.
    ///
    /// # Errors
    /// The job is of another project, or its page is none of the server.
    pub(super) fn path(&self, call: &GitLabCall, project: &str, server: &str) -> Result<String, GitLabError> {
        let path = self.web_url.strip_prefix(server).and_then(|path| path.split_once("/-/"));
        let Some((path, _)) = path else { return Err(call.odd("the page of the job is none of this server")) };
        let path = path.trim_start_matches('/').to_owned();
        if self.pipeline.project_id.to_string() != project && path != project {
            return Err(call.odd(&format!("the job is of project {}, not {project}", self.pipeline.project_id)));
        }
        Ok(path)
    }
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

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("1970-01-01T01:00:00.000Z" => Some(3600); "UTC")]
    #[test_case("1970-01-01T01:00:00.000+01:00" => Some(0); "east")]
    #[test_case("1970-01-01T01:00:00-02:30" => Some(12_600); "west")]
    #[test_case("1970-01-01T01:00:00" => None; "no zone")]
    #[test_case("1970-01-01T01:00:00+1:000" => None; "no offset")]
    #[test_case("1970-01-01T01:00:00+99:00" => None; "too far")]
    #[test_case("\u{e9}+01:00" => None; "no time")]
    fn a_time_of_any_zone_is_understood(text: &str) -> Option<u64> {
        time(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }
}
