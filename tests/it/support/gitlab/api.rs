//! The HTTP side of the double: the paths of GitLab's runner API, and git for everything else.
//!
//! It translates between HTTP and [`Shared`] and keeps no state of its own.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use serde_json::{Value, json};

use super::{FinalUpdate, JobStatus, PatchReply, RUNNER_TOKEN, Shared, artifacts, git};

/// Upload limit of the double; larger bodies are refused with 413.
const BODY_LIMIT: usize = 256 * 1024 * 1024;
/// The shortest interval the runner understands, so that a cancel is seen soon.
const UPDATE_INTERVAL_SECONDS: u32 = 1;

type AppState = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v4/runners/verify", post(verify_runner))
        .route("/api/v4/jobs/request", post(request_job))
        .route("/api/v4/jobs/{id}/trace", patch(patch_trace))
        .route("/api/v4/jobs/{id}", put(update_job))
        .route("/api/v4/jobs/{id}/artifacts", get(download_artifacts).post(upload_artifacts))
        .fallback(serve_git)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

async fn verify_runner(body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    if is_of_a_runner(&request["token"]) {
        let reply = json!({"id": 7, "token": request["token"], "token_expires_at": null});
        (StatusCode::OK, axum::Json(reply)).into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// [`RUNNER_TOKEN`], alone or with the name of one of several runners behind it.
fn is_of_a_runner(token: &Value) -> bool {
    token.as_str().is_some_and(|token| token.starts_with(RUNNER_TOKEN))
}

async fn request_job(State(shared): AppState, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !is_of_a_runner(&request["token"]) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match shared.take_job() {
        Some((_, payload)) => (StatusCode::CREATED, axum::Json(payload)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn patch_trace(State(shared): AppState, Path(id): Path<u64>, headers: HeaderMap, body: Bytes) -> Response {
    if !may_touch(&shared, id, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some((first, last)) = content_range(&headers) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if last + 1 != first + body.len() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Some((reply, status)) = shared.append_trace(id, first, &body) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (code, length) = match reply {
        PatchReply::Accepted { length } => (StatusCode::ACCEPTED, length),
        PatchReply::Mismatch { length } => (StatusCode::RANGE_NOT_SATISFIABLE, length),
    };
    let range = HeaderValue::from_str(&format!("0-{length}")).expect("digits are a header value");
    (code, job_headers(status), [(header::RANGE, range)]).into_response()
}

async fn update_job(State(shared): AppState, Path(id): Path<u64>, headers: HeaderMap, body: Bytes) -> Response {
    if !may_touch(&shared, id, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let update = FinalUpdate {
        state: text(&request["state"]).unwrap_or_default(),
        failure_reason: text(&request["failure_reason"]),
        exit_code: request["exit_code"].as_i64(),
        checksum: text(&request["output"]["checksum"]),
    };
    match shared.update_job(id, update) {
        Some(status) => (StatusCode::OK, job_headers(status)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn upload_artifacts(
    State(shared): AppState,
    Path(id): Path<u64>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !may_touch(&shared, id, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(artifact) = artifacts::from_upload(content_type, query.as_deref().unwrap_or_default(), &body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut records = shared.lock();
    let Some(record) = records.jobs.get_mut(&id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    record.events.push(format!("artifact {}", artifact.kind));
    record.artifacts.push(artifact);
    (StatusCode::CREATED, axum::Json(json!({"message": "201 Created"}))).into_response()
}

async fn download_artifacts(State(shared): AppState, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let token = job_token(&headers);
    if !shared.knows_token(token) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let records = shared.lock();
    let archive = records
        .jobs
        .get(&id)
        .and_then(|record| record.artifacts.iter().rev().find(|artifact| artifact.kind == "archive"));
    match archive {
        Some(artifact) => {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"))];
            (StatusCode::OK, headers, artifact.bytes.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve_git(State(shared): AppState, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let allowed = git::password(&parts.headers).is_some_and(|token| shared.knows_token(&token));
    if !allowed {
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"GitLab\""))];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    git::serve(shared.root.path(), &parts, &body).await
}

fn job_token(headers: &HeaderMap) -> &str {
    headers.get("job-token").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn may_touch(shared: &Shared, id: u64, headers: &HeaderMap) -> bool {
    shared.lock().jobs.get(&id).is_some_and(|record| record.token == job_token(headers))
}

/// First and last byte of `Content-Range: <first>-<last>`.
fn content_range(headers: &HeaderMap) -> Option<(usize, usize)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (first, last) = value.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn job_headers(status: JobStatus) -> [(HeaderName, HeaderValue); 2] {
    [
        (HeaderName::from_static("job-status"), HeaderValue::from_static(status.header())),
        (HeaderName::from_static("x-gitlab-trace-update-interval"), HeaderValue::from(UPDATE_INTERVAL_SECONDS)),
    ]
}
