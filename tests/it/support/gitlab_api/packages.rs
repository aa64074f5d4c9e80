//! The double's package registry.

use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::http::{AppState, answer, page, paged, parameters, refusal};
use super::{ApiShared, PROJECT_PATH, ProjectState};

/// Most bytes of a file that are kept; of a larger one, the first.
const KEPT: usize = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct StoredPackage {
    id: u64,
    name: String,
    version: String,
    created: SystemTime,
    pub(super) files: Vec<StoredFile>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredFile {
    pub(crate) id: u64,
    /// `NAME/VERSION/FILE`.
    pub(crate) place: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) content: Vec<u8>,
}

fn file_json(file: &StoredFile, package: u64) -> Value {
    json!({ "id": file.id, "package_id": package, "file_name": file.name, "size": file.bytes, "file_sha256": file.sha256 })
}

/// GitLab's filter by name finds parts of names, that by version whole ones.
pub(super) async fn list(State(shared): AppState, uri: Uri) -> Response {
    let parameters = parameters(uri.query());
    let state = shared.lock();
    if !state.settings.has_packages {
        return refusal(403, "403 Forbidden");
    }
    let wanted = |name: &str| parameters.get(name).map(String::as_str).unwrap_or_default();
    let is_meant = |package: &&StoredPackage| {
        let version = wanted("package_version");
        package.name.contains(wanted("package_name")) && (version.is_empty() || package.version == version)
    };
    let shown: Vec<Value> = state.packages.iter().filter(is_meant).map(package_json).collect();
    paged(&shown, &shared.origin, uri.path(), &parameters)
}

fn package_json(package: &StoredPackage) -> Value {
    let path = format!("/{PROJECT_PATH}/-/packages/{}", package.id);
    json!({
        "id": package.id, "name": package.name, "version": package.version, "package_type": "generic",
        "created_at": humantime::format_rfc3339_millis(package.created).to_string(),
        "status": "default", "_links": { "web_path": path },
    })
}

pub(super) async fn delete(State(shared): AppState, Path((_, package)): Path<(String, u64)>) -> Response {
    let mut state = shared.lock();
    let Some(at) = state.packages.iter().position(|known| known.id == package) else {
        return refusal(404, "404 Not Found");
    };
    state.packages.remove(at);
    StatusCode::NO_CONTENT.into_response()
}

pub(super) async fn list_files(State(shared): AppState, Path((_, package)): Path<(String, u64)>, uri: Uri) -> Response {
    let state = shared.lock();
    let Some(package) = state.packages.iter().find(|known| known.id == package) else {
        return refusal(404, "404 Not Found");
    };
    let shown: Vec<Value> = package.files.iter().map(|file| file_json(file, package.id)).collect();
    paged(&shown, &shared.origin, uri.path(), &parameters(uri.query()))
}

type FilePath = Path<(String, String, String, String)>;

pub(super) async fn upload(
    State(shared): AppState,
    Path((_, name, version, file)): FilePath,
    request: Request,
) -> Response {
    let query = parameters(request.uri().query());
    let mut parts = request.into_body().into_data_stream();
    let (mut hash, mut bytes, mut content) = (Sha256::new(), 0, Vec::new());
    while let Some(part) = parts.next().await {
        // A client that ends in the middle leaves nothing.
        let Ok(part) = part else { return refusal(400, "400 Bad request") };
        hash.update(&part);
        bytes += part.len() as u64;
        content.extend(part.iter().take(KEPT - content.len()));
    }
    let sha256 = hexadecimal(hash);
    let stored = StoredFile { id: 0, place: format!("{name}/{version}/{file}"), name: file, bytes, sha256, content };
    match store(&mut shared.lock(), &name, &version, stored) {
        Ok(file) if query.get("select").is_some_and(|select| select == "package_file") => answer(200, &file),
        Ok(_) => refusal(201, "201 Created"),
        Err(refused) => *refused,
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Puts a file there by hand.
pub(super) fn put(state: &mut ProjectState, package: &str, version: &str, file: &str, content: &[u8]) {
    let stored = StoredFile {
        id: 0,
        place: format!("{package}/{version}/{file}"),
        name: file.to_owned(),
        bytes: content.len() as u64,
        sha256: hexadecimal(Sha256::new_with_prefix(content)),
        content: content.to_owned(),
    };
    assert!(store(state, package, version, stored).is_ok(), "GitLab takes no such file");
}

fn store(state: &mut ProjectState, name: &str, version: &str, mut file: StoredFile) -> Result<Value, Box<Response>> {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._-+".contains(letter);
    for (what, text, more) in
        [("package_name", name, ""), ("package_version", version, ""), ("file_name", &file.name, "~")]
    {
        let is_text = !text.is_empty() && text.chars().all(|letter| is_letter(letter) || more.contains(letter));
        if !is_text || text.contains("..") {
            return Err(Box::new(answer(400, &json!({ "error": format!("{what} is invalid") }))));
        }
    }
    if !state.settings.has_packages {
        return Err(Box::new(refusal(403, "403 Forbidden")));
    }
    if state.settings.protected_packages.iter().any(|protected| protected == name) {
        return Err(Box::new(refusal(403, "Package protected.")));
    }
    if file.bytes > state.settings.most_bytes_of_proxy {
        return Err(Box::new(page(413)));
    }
    if file.bytes > state.settings.most_bytes {
        return Err(Box::new(refusal(400, "400 Bad request - File is too large")));
    }
    let known = state.packages.iter().position(|known| known.name == name && known.version == version);
    let is_duplicate = known.is_some_and(|at| state.packages[at].files.iter().any(|known| known.name == file.name));
    if is_duplicate && !state.settings.allows_duplicates {
        return Err(Box::new(refusal(400, "400 Bad request - Duplicate package is not allowed")));
    }
    let at = known.unwrap_or_else(|| {
        let id = state.id();
        let (name, version) = (name.to_owned(), version.to_owned());
        state.packages.push(StoredPackage { id, name, version, created: SystemTime::now(), files: Vec::new() });
        state.packages.len() - 1
    });
    file.id = state.id();
    let shown = file_json(&file, state.packages[at].id);
    state.packages[at].files.push(file);
    Ok(shown)
}

/// The newest file of the name.
pub(super) async fn download(State(shared): AppState, Path((_, name, version, file)): FilePath) -> Response {
    let place = format!("{name}/{version}/{file}");
    let has_object_storage = shared.lock().settings.has_object_storage;
    match content(&shared, &place) {
        Some(_) if has_object_storage => (StatusCode::FOUND, [(LOCATION, format!("/storage/{place}"))]).into_response(),
        Some(content) => content.into_response(),
        None => refusal(404, "404 Not Found"),
    }
}

/// The store of objects behind GitLab.
pub(super) async fn stored(State(shared): AppState, Path(place): Path<String>, headers: HeaderMap) -> Response {
    let has_token = ["job-token", "private-token", "authorization"].iter().any(|name| headers.contains_key(*name));
    match content(&shared, &place).filter(|_| !has_token) {
        Some(content) => content.into_response(),
        None => refusal(400, "a request of another's, or for nothing"),
    }
}

fn content(shared: &ApiShared, place: &str) -> Option<Vec<u8>> {
    let state = shared.lock();
    let mut files = state.packages.iter().flat_map(|package| &package.files).rev();
    files.find(|known| known.place == place).map(|file| file.content.clone())
}
