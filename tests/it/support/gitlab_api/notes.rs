//! The double's notes of merge requests.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::http::{AppState, Caller, answer, paged, parameters, refusal};

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredNote {
    pub(crate) id: u64,
    pub(crate) author: u64,
    pub(crate) body: String,
    pub(crate) is_system: bool,
}

fn note_json(note: &StoredNote) -> Value {
    let author = json!({ "id": note.author, "username": format!("user-{}", note.author) });
    json!({ "id": note.id, "body": note.body, "author": author, "system": note.is_system, "noteable_type": "MergeRequest" })
}

/// The user of an access token.
pub(super) async fn user(Extension(caller): Extension<Caller>) -> Response {
    answer(200, &json!({ "id": caller.user, "username": format!("user-{}", caller.user) }))
}

fn no_merge_request() -> Response {
    refusal(404, "404 Merge request Not Found")
}

/// The newest first, unless the request asks for another order.
pub(super) async fn list(State(shared): AppState, Path((_, number)): Path<(String, u64)>, uri: Uri) -> Response {
    let parameters = parameters(uri.query());
    let state = shared.lock();
    let Some(notes) = state.notes.get(&number) else { return no_merge_request() };
    let mut shown: Vec<Value> = notes.iter().map(note_json).collect();
    if parameters.get("sort").is_none_or(|sort| sort != "asc") {
        shown.reverse();
    }
    paged(&shown, &shared.origin, uri.path(), &parameters)
}

fn text(body: &Bytes) -> Option<String> {
    let request: Value = serde_json::from_slice(body).ok()?;
    request["body"].as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

pub(super) async fn create(
    State(shared): AppState,
    Extension(caller): Extension<Caller>,
    Path((_, number)): Path<(String, u64)>,
    body: Bytes,
) -> Response {
    let Some(text) = text(&body) else { return answer(400, &json!({ "error": "body is missing" })) };
    let mut state = shared.lock();
    let id = state.id();
    let Some(notes) = state.notes.get_mut(&number) else { return no_merge_request() };
    let note = StoredNote { id, author: caller.user, body: text, is_system: false };
    notes.push(note.clone());
    answer(201, &note_json(&note))
}

/// Only the author may change a note.
pub(super) async fn edit(
    State(shared): AppState,
    Extension(caller): Extension<Caller>,
    Path((_, number, id)): Path<(String, u64, u64)>,
    body: Bytes,
) -> Response {
    let Some(text) = text(&body) else { return answer(400, &json!({ "error": "body is empty" })) };
    let mut state = shared.lock();
    let Some(notes) = state.notes.get_mut(&number) else { return no_merge_request() };
    let Some(note) = notes.iter_mut().find(|note| note.id == id) else { return refusal(404, "404 Not found") };
    if note.author != caller.user || note.is_system {
        return refusal(403, "403 Forbidden");
    }
    note.body = text;
    answer(200, &note_json(note))
}

/// Only the author may delete a note, and a maintainer, who no token of the double is.
pub(super) async fn delete(
    State(shared): AppState,
    Extension(caller): Extension<Caller>,
    Path((_, number, id)): Path<(String, u64, u64)>,
) -> Response {
    let mut state = shared.lock();
    let Some(notes) = state.notes.get_mut(&number) else { return no_merge_request() };
    let Some(at) = notes.iter().position(|note| note.id == id) else { return refusal(404, "404 Not found") };
    if notes[at].author != caller.user || notes[at].is_system {
        return refusal(403, "403 Forbidden");
    }
    notes.remove(at);
    StatusCode::NO_CONTENT.into_response()
}
