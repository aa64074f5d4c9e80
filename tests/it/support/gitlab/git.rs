//! Repositories of the double: made by running git with fixed author and date, served by `git http-backend`.
//!
//! Every clone needs the job token as password, as on a private project.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt as _;

/// Whether git is there at all; scenarios that clone are skipped loudly without it.
pub(crate) fn git_available() -> bool {
    Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A bare repository of the double, with a work tree for making commits.
#[derive(Debug)]
pub(crate) struct Repository {
    bare: PathBuf,
    work: tempfile::TempDir,
    /// The path in the URL, without `.git`: `ml/churn`.
    pub(crate) project: String,
}

impl Repository {
    /// Makes an empty repository `<project>.git` below `root`, with `main` as its first branch.
    pub(crate) fn create(root: &Path, project: &str) -> Self {
        let bare = root.join(format!("{project}.git"));
        let work = tempfile::tempdir().unwrap();
        run_git(root, &["init", "-q", "--bare", "-b", "main", &bare.to_string_lossy()]);
        run_git(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        run_git(work.path(), &["init", "-q", "-b", "main", "."]);
        run_git(work.path(), &["remote", "add", "origin", &bare.to_string_lossy()]);
        Self { bare, work, project: project.to_owned() }
    }

    /// Writes files on a branch (made from the current commit when it is new), commits and publishes it.
    /// Returns the commit's id.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str)]) -> String {
        self.switch(branch);
        for (path, content) in files {
            let path = self.work.path().join(path);
            std::fs::create_dir_all(path.parent().expect("files lie in the work tree")).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.publish(branch)
    }

    /// Adds `other` as a submodule at `path`, with the given URL in `.gitmodules`; returns the commit's id.
    pub(crate) fn add_submodule(&self, branch: &str, path: &str, url: &str, other: &Repository) -> String {
        self.switch(branch);
        let head = run_git(&other.bare, &["rev-parse", "main"]);
        let modules = self.work.path().join(".gitmodules");
        let mut text = std::fs::read_to_string(&modules).unwrap_or_default();
        let _ = write!(text, "[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
        std::fs::write(&modules, text).unwrap();
        run_git(self.work.path(), &["update-index", "--add", "--cacheinfo", &format!("160000,{head},{path}")]);
        std::fs::create_dir_all(self.work.path().join(path)).unwrap();
        run_git(self.work.path(), &["add", ".gitmodules"]);
        run_git(self.work.path(), &["commit", "-q", "-m", "Add a submodule"]);
        run_git(self.work.path(), &["push", "-q", "origin", branch]);
        run_git(self.work.path(), &["rev-parse", "HEAD"])
    }

    /// Merges a branch into another, with a commit of its own, and publishes that; returns the commit's id.
    pub(crate) fn merge(&self, branch: &str, into: &str) -> String {
        self.switch(into);
        run_git(self.work.path(), &["merge", "-q", "--no-ff", "-m", &format!("Merge branch '{branch}'"), branch]);
        self.publish_head(into)
    }

    /// Makes a ref such as `refs/pipelines/7` for a commit.
    pub(crate) fn keep(&self, name: &str, sha: &str) {
        run_git(&self.bare, &["update-ref", name, sha]);
    }

    /// Lets clients fetch a part of the files, as GitLab does.
    pub(crate) fn allow_filters(&self) {
        run_git(&self.bare, &["config", "uploadpack.allowFilter", "true"]);
    }

    /// Clones the commit into a folder, whose remote gets this address.
    pub(crate) fn check_out(&self, sha: &str, folder: &Path, remote: &str) {
        let of_bare = self.bare.to_string_lossy();
        run_git(self.work.path(), &["clone", "-q", &of_bare, &folder.to_string_lossy()]);
        run_git(folder, &["checkout", "-q", sha]);
        run_git(folder, &["remote", "set-url", "origin", remote]);
    }

    fn switch(&self, branch: &str) {
        if run_git(self.work.path(), &["symbolic-ref", "--short", "HEAD"]) == branch {
            return;
        }
        let known = run_git(self.work.path(), &["branch", "--list", branch]);
        let args: &[&str] =
            if known.is_empty() { &["checkout", "-q", "-b", branch] } else { &["checkout", "-q", branch] };
        run_git(self.work.path(), args);
    }

    fn publish(&self, branch: &str) -> String {
        run_git(self.work.path(), &["add", "--all", "."]);
        run_git(self.work.path(), &["commit", "-q", "--allow-empty", "-m", "A commit of the test"]);
        self.publish_head(branch)
    }

    fn publish_head(&self, branch: &str) -> String {
        run_git(self.work.path(), &["push", "-q", "origin", branch]);
        run_git(self.work.path(), &["rev-parse", "HEAD"])
    }
}

/// Runs git without any configuration of this machine and returns its trimmed output.
fn run_git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.com")])
        .envs([("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z"), ("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")])
        .output()
        .expect("git is needed for scenarios with sources");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The password of a request with basic authentication.
pub(super) fn password(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let plain = String::from_utf8(decode_base64(encoded)?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Answers one request of a git client through `git http-backend` as CGI.
pub(super) async fn serve(root: &Path, parts: &Parts, body: &[u8]) -> Response {
    let header_text =
        |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", "1")
        .envs([("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header_text(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header_text(header::CONTENT_ENCODING))
        .env("GIT_PROTOCOL", header_text(HeaderName::from_static("git-protocol")))
        .env("REMOTE_USER", "gitlab-ci-token")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(mut child) = command.spawn() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut input = child.stdin.take().expect("standard input is piped");
    let feed = async move {
        // A backend that refuses early closes its input; its answer says why.
        let _ = input.write_all(body).await;
        drop(input);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    match output {
        Ok(output) => from_cgi(&output.stdout),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn from_cgi(output: &[u8]) -> Response {
    let Some(end) = output.windows(4).position(|window| window == b"\r\n\r\n") else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut response = Response::new(Body::from(output[end + 4..].to_vec()));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            *response.status_mut() = code.unwrap_or(StatusCode::BAD_GATEWAY);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[test]
fn the_password_is_read_from_basic_authentication() {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic Z2l0bGFiLWNpLXRva2VuOnMzY3IzdA=="));
    assert_eq!(password(&headers).as_deref(), Some("s3cr3t"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    assert_eq!(password(&headers), None);
}
