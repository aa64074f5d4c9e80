//! The double's tags and releases.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use regex::{Regex, escape};
use serde_json::{Value, json};

use super::http::{AppState, answer, paged, parameters, refusal};
use super::{PROJECT_PATH, ProjectState};

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRelease {
    pub(crate) tag: String,
    pub(crate) commit: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) links: Vec<StoredLink>,
}

/// A link among the assets of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredLink {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) link_type: String,
}

/// GitLab searches tags for a part of the name, without regard to case. The first `^` and the first `$` mark its start and end, wherever
/// they stand, and `*` is any text.
pub(super) async fn list_tags(State(shared): AppState, uri: Uri) -> Response {
    let parameters = parameters(uri.query());
    let search = parameters.get("search").map(String::as_str).unwrap_or_default();
    let operators = escape(search).replacen("\\^", "^", 1).replace("\\*", ".*?").replacen("\\$", "$", 1);
    let meant = Regex::new(&format!("(?i){operators}")).expect("an escaped text");
    let state = shared.lock();
    let tags = state.tags.iter().filter(|(name, _)| meant.is_match(name));
    let shown: Vec<Value> = tags
        .map(|(name, commit)| json!({ "name": name, "target": commit, "commit": { "id": commit }, "protected": false }))
        .collect();
    paged(&shown, &shared.origin, uri.path(), &parameters)
}

/// Every commit is one of the project, except those that a test took away.
pub(super) async fn read_commit(State(shared): AppState, Path((_, commit)): Path<(String, String)>) -> Response {
    if shared.lock().settings.absent_commits.contains(&commit) {
        return refusal(404, "404 Commit Not Found");
    }
    answer(200, &json!({ "id": commit, "short_id": commit.get(..8), "title": "A commit" }))
}

pub(super) async fn list(State(shared): AppState, uri: Uri) -> Response {
    let parameters = parameters(uri.query());
    let state = shared.lock();
    let shown: Vec<Value> = state.releases.iter().map(|release| release_json(release, &shared.origin)).collect();
    paged(&shown, &shared.origin, uri.path(), &parameters)
}

pub(super) async fn read(State(shared): AppState, Path((_, tag)): Path<(String, String)>) -> Response {
    let state = shared.lock();
    match state.releases.iter().find(|release| release.tag == tag) {
        Some(release) => answer(200, &release_json(release, &shared.origin)),
        None => refusal(404, "404 Not Found"),
    }
}

fn release_json(release: &StoredRelease, origin: &str) -> Value {
    let links = release.links.iter().rev().map(link_json).collect::<Vec<_>>();
    json!({
        "tag_name": release.tag, "name": release.name, "description": release.description,
        "commit": { "id": release.commit }, "upcoming_release": false,
        "assets": { "count": links.len(), "sources": [], "links": links },
        "_links": { "self": format!("{origin}/{PROJECT_PATH}/-/releases/{}", release.tag) },
    })
}

fn link_json(link: &StoredLink) -> Value {
    json!({ "id": link.id, "name": link.name, "url": link.url, "link_type": link.link_type })
}

pub(super) async fn create(State(shared): AppState, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else { return refusal(400, "400 Bad request") };
    let mut state = shared.lock();
    match make(&mut state, &request) {
        Ok(release) => answer(201, &release_json(&release, &shared.origin)),
        Err((status, message)) => refusal(status, &message),
    }
}

/// In the order of GitLab's checks. An existing tag keeps its commit, and `ref` counts for a new tag alone.
fn make(state: &mut ProjectState, request: &Value) -> Result<StoredRelease, (u16, String)> {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let tag = text("tag_name");
    if tag.is_empty() {
        return Err((400, "tag_name is missing".to_owned()));
    }
    if state.settings.protected_tags.iter().any(|start| tag.starts_with(start.as_str())) {
        return Err((403, "You are not allowed to create this tag as it is protected.".to_owned()));
    }
    if state.releases.iter().any(|release| release.tag == tag) {
        return Err((409, "Release already exists".to_owned()));
    }
    let commit = match state.tags.get(&tag) {
        Some(commit) => commit.clone(),
        None => match text("ref") {
            commit if commit.is_empty() => return Err((422, "Ref is not specified".to_owned())),
            commit if state.settings.absent_commits.contains(&commit) => {
                return Err((400, format!("Target {commit} is invalid")));
            }
            commit if commit.len() == 40 && commit.bytes().all(|digit| digit.is_ascii_hexdigit()) => commit,
            other => return Err((400, format!("Target {other} is invalid"))),
        },
    };
    // The tag is made first, and stays when the release fails.
    state.tags.insert(tag.clone(), commit.clone());
    let mut release =
        StoredRelease { tag: tag.clone(), commit, name: text("name"), description: text("description"), links: vec![] };
    for link in request["assets"]["links"].as_array().into_iter().flatten() {
        push_link(state, &mut release, link).map_err(|message| (400, format!("Validation failed: Links {message}")))?;
    }
    state.releases.push(release.clone());
    Ok(release)
}

fn push_link(state: &mut ProjectState, release: &mut StoredRelease, link: &Value) -> Result<Value, &'static str> {
    let text = |name: &str| link[name].as_str().unwrap_or_default().to_owned();
    let (name, url) = (text("name"), text("url"));
    if name.is_empty() || !url.starts_with("http") {
        return Err("name is missing, or url is invalid");
    }
    if release.links.iter().any(|known| known.name == name) {
        return Err("name has already been taken");
    }
    if release.links.iter().any(|known| known.url == url) {
        return Err("url has already been taken");
    }
    let link = StoredLink { id: state.id(), name, url, link_type: text("link_type") };
    let shown = link_json(&link);
    release.links.push(link);
    Ok(shown)
}

pub(super) async fn add_link(State(shared): AppState, Path((_, tag)): Path<(String, String)>, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else { return refusal(400, "400 Bad request") };
    let mut state = shared.lock();
    let Some(at) = state.releases.iter().position(|release| release.tag == tag) else {
        return refusal(404, "404 Not found");
    };
    let mut release = state.releases[at].clone();
    match push_link(&mut state, &mut release, &request) {
        Ok(link) => {
            state.releases[at] = release;
            answer(201, &link)
        }
        Err(message) => {
            let (name, said) = message.split_once(' ').unwrap_or_default();
            answer(400, &json!({ "message": { name: [said] } }))
        }
    }
}
