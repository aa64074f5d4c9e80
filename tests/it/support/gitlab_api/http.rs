//! The HTTP side of the double: paths, tokens, planned failures, pages of lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};

use super::{ApiRequest, ApiShared, FaultEffect, PROJECT, PROJECT_PATH, TokenKind, notes, packages, releases};

pub(super) type AppState = State<Arc<ApiShared>>;

pub(super) fn router(shared: Arc<ApiShared>) -> Router {
    let project = Router::new()
        .route("/", get(read_project))
        .route("/packages", get(packages::list))
        .route("/packages/{package}", axum::routing::delete(packages::delete))
        .route("/packages/{package}/package_files", get(packages::list_files))
        .route("/packages/generic/{name}/{version}/{file}", put(packages::upload).get(packages::download))
        .route("/repository/tags", get(releases::list_tags))
        .route("/repository/commits/{commit}", get(releases::read_commit))
        .route("/releases", get(releases::list).post(releases::create))
        .route("/releases/{tag}", get(releases::read))
        .route("/releases/{tag}/assets/links", post(releases::add_link))
        .route("/merge_requests/{number}/notes", get(notes::list).post(notes::create))
        .route("/merge_requests/{number}/notes/{note}", put(notes::edit).delete(notes::delete));
    Router::new()
        .nest("/api/v4/projects/{project}", project)
        .route("/api/v4/user", get(notes::user))
        .route("/api/v4/job", get(read_job))
        .fallback(async || refusal(404, "404 Not Found"))
        .layer(from_fn_with_state(Arc::clone(&shared), gate))
        .route("/storage/{*place}", get(packages::stored))
        .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
        .with_state(shared)
}

/// The user of a request that may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) user: u64,
}

/// Before and behind each request: faults, limits, tokens and records.
async fn gate(State(shared): AppState, mut request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let uri = request.uri().to_string();
    let (project, path) = split(&uri);
    let token_header = token_header(request.headers());
    let (fate, refused) = {
        let mut state = shared.lock();
        // Each of them counts the request.
        let fate = state.faults.iter_mut().fold(None, |fate, fault| {
            let met = fault.meet(&method, &path);
            fate.or(met)
        });
        let limit = state.settings.rate_limit.filter(|(most, _)| state.seen.len() >= *most);
        let refused = match (fate, limit) {
            (Some(FaultEffect::RateLimit(pause)), _) | (None, Some((_, pause))) => Some(throttled(pause)),
            (Some(FaultEffect::Page(status)), _) => Some(page(status)),
            _ => match caller(&state.tokens, request.headers(), &method, &path) {
                Err(refusal) => Some(*refusal),
                Ok(_)
                    if !APART.contains(&path.as_str()) && project != PROJECT.to_string() && project != PROJECT_PATH =>
                {
                    Some(refusal(404, "404 Project Not Found"))
                }
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    None
                }
            },
        };
        (fate, refused)
    };
    let response = match (fate, refused) {
        (Some(FaultEffect::DropBefore), _) => None,
        (_, Some(refused)) => {
            // A body that nobody reads would end the connection before the client has read the answer.
            drain(request).await;
            Some(refused)
        }
        (Some(FaultEffect::Late(lists)), None) => Some(later(&shared, lists, request, next).await),
        (_, None) => Some(next.run(request).await),
    };
    advance_late(&shared, &method, &path);
    let status = response.as_ref().map_or(0, |response| response.status().as_u16());
    shared.lock().seen.push(ApiRequest { method, path, token_header, status });
    match response {
        Some(response) if fate != Some(FaultEffect::DropAfter) => response,
        // Ends the task of the connection, and so the connection.
        _ => std::panic::resume_unwind(Box::new("a planned fault")),
    }
}

/// Reads the request, and lets it take effect when packages were listed this many times.
async fn later(shared: &ApiShared, lists: usize, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    let (sender, effect) = tokio::sync::oneshot::channel();
    shared.lock().late.push((lists, sender));
    tokio::spawn(async move {
        if effect.await.is_ok() {
            next.run(Request::from_parts(parts, body.into())).await;
        }
    });
    page(504)
}

fn advance_late(shared: &ApiShared, method: &str, path: &str) {
    if method != "GET" || !path.starts_with("/packages?") {
        return;
    }
    let mut state = shared.lock();
    for (mut lists, effect) in std::mem::take(&mut state.late) {
        lists = lists.saturating_sub(1);
        if lists > 0 {
            state.late.push((lists, effect));
        } else {
            let _ = effect.send(());
        }
    }
}

async fn drain(request: Request) {
    let mut parts = request.into_body().into_data_stream();
    while let Some(Ok(_)) = futures::StreamExt::next(&mut parts).await {}
}

/// The paths outside of the project.
const USER: &str = "/user";
const APART: [&str; 2] = [USER, "/job"];

async fn read_project() -> Response {
    answer(200, &json!({ "id": PROJECT, "path_with_namespace": PROJECT_PATH }))
}

/// The job of a job's token.
async fn read_job(State(shared): AppState) -> Response {
    let page = format!("{}/{PROJECT_PATH}/-/jobs/8", shared.origin);
    answer(200, &json!({ "id": 8, "web_url": page, "pipeline": { "id": 7, "project_id": PROJECT } }))
}

/// Project and rest of a path: `/api/v4/projects/42/releases?x` is `42` and `/releases?x`.
fn split(uri: &str) -> (String, String) {
    if let Some(path) = APART.into_iter().find(|path| uri.strip_prefix("/api/v4") == Some(*path)) {
        return (String::new(), path.to_owned());
    }
    let below = uri.strip_prefix("/api/v4/projects/").unwrap_or_default();
    let (project, rest) = below.split_once('/').unwrap_or((below, ""));
    (decoded(project), format!("/{rest}"))
}

fn token_header(headers: &HeaderMap) -> &'static str {
    let found = ["JOB-TOKEN", "PRIVATE-TOKEN"].into_iter().find(|name| headers.contains_key(*name));
    found.unwrap_or_default()
}

/// The caller, if the token allows the request.
fn caller(
    tokens: &BTreeMap<String, TokenKind>,
    headers: &HeaderMap,
    method: &str,
    path: &str,
) -> Result<Caller, Box<Response>> {
    let name = token_header(headers);
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_read = method == "GET";
    match (name, tokens.get(text)) {
        ("JOB-TOKEN", Some(TokenKind::Job)) => {
            // GitLab knows no job token on the other routes: it is as if there were none.
            let is_note = path.starts_with("/merge_requests/");
            let is_one_tag = path.starts_with("/repository/tags/");
            if (is_note && !is_read) || is_one_tag || [USER, "/"].contains(&path) {
                Err(Box::new(unauthorized()))
            } else {
                Ok(Caller { user: 3 })
            }
        }
        ("PRIVATE-TOKEN", Some(TokenKind::Access { user })) => Ok(Caller { user: *user }),
        ("PRIVATE-TOKEN", Some(TokenKind::ReadOnly)) if is_read => Ok(Caller { user: 8 }),
        ("PRIVATE-TOKEN", Some(TokenKind::ReadOnly)) => {
            let text = "The request requires higher privileges than provided by the access token.";
            let body = json!({ "error": "insufficient_scope", "error_description": text, "scope": "api" });
            Err(Box::new(answer(403, &body)))
        }
        ("PRIVATE-TOKEN", Some(TokenKind::Expired)) => {
            let text = "Token is expired. You can either do re-authorization or token refresh.";
            Err(Box::new(answer(401, &json!({ "error": "invalid_token", "error_description": text }))))
        }
        _ => Err(Box::new(unauthorized())),
    }
}

fn unauthorized() -> Response {
    refusal(401, "401 Unauthorized")
}

fn throttled(pause: u64) -> Response {
    let headers = [(header::RETRY_AFTER, pause.to_string()), (header::CONTENT_TYPE, "text/plain".to_owned())];
    (StatusCode::TOO_MANY_REQUESTS, headers, "Retry later\n").into_response()
}

/// A page of the server before GitLab.
pub(super) fn page(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let reason = status.canonical_reason().unwrap_or_default();
    let text = format!("<html>\r\n<head><title>{} {reason}</title></head>\r\n</html>\r\n", status.as_u16());
    (status, [(header::CONTENT_TYPE, "text/html")], text).into_response()
}

pub(super) fn answer(status: u16, body: &Value) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::HeaderName::from_static("x-request-id"), "01K")];
    (StatusCode::from_u16(status).unwrap(), headers, body.to_string()).into_response()
}

pub(super) fn refusal(status: u16, message: &str) -> Response {
    answer(status, &json!({ "message": message }))
}

/// The parameters of a query, decoded.
pub(super) fn parameters(query: Option<&str>) -> BTreeMap<String, String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(&value.replace('+', " ")))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%');
        rest = if byte.is_some() { &after[2..] } else { after };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One page of a list at this path below the project, with GitLab's headers.
pub(super) fn paged(all: &[Value], origin: &str, path: &str, parameters: &BTreeMap<String, String>) -> Response {
    let number =
        |name: &str, default: usize| parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (page, size) = (number("page", 1).max(1), number("per_page", 20).clamp(1, 100));
    let pages = all.len().div_ceil(size).max(1);
    let shown: Vec<&Value> = all.iter().skip((page - 1) * size).take(size).collect();
    let next = if page < pages { (page + 1).to_string() } else { String::new() };
    let list = format!("{origin}/api/v4/projects/{PROJECT}{path}");
    let link = |page: usize, name: &str| format!("<{list}?page={page}&per_page={size}>; rel=\"{name}\"");
    let mut links = vec![link(1, "first"), link(pages, "last")];
    if page < pages {
        links.insert(0, link(page + 1, "next"));
    }
    let mut response = answer(200, &json!(shown));
    let headers = [
        ("x-page", page.to_string()),
        ("x-per-page", size.to_string()),
        ("x-next-page", next),
        ("x-prev-page", if page > 1 { (page - 1).to_string() } else { String::new() }),
        ("x-total", all.len().to_string()),
        ("x-total-pages", pages.to_string()),
        ("link", links.join(", ")),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
