//! For tests: the port over a scripted server on loopback, which records the requests and gives replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use executor::gitlab::api::{GitLabAccess, GitLabToken};
use tokio::task::JoinSet;

use crate::connection::{Connection, Proxies};
use crate::project::HttpProject;
use crate::repetition::Limits;

/// The token that no text may hold.
pub(crate) const TOKEN: &str = "glcbt-s3cret";

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct SeenRequest {
    pub(crate) method: String,
    /// Path and query, below `/api/v4`.
    pub(crate) uri: String,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl SeenRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Script {
    /// Replies to the next requests, in order, each used once.
    queue: VecDeque<Response>,
    seen: Vec<SeenRequest>,
}

/// The server, and the port that talks to it.
pub(crate) struct Stub {
    script: Arc<Mutex<Script>>,
    pub(crate) project: HttpProject,
    pub(crate) access: GitLabAccess,
    _server: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        Self::with(GitLabToken::Job(TOKEN.to_owned())).await
    }

    pub(crate) async fn with(token: GitLabToken) -> Self {
        let script: Arc<Mutex<Script>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}/api/v4", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let access = GitLabAccess { api_url, project: "group/project".to_owned(), token, ca_file: None };
        let project = project(&access);
        Self { script, project, access, _server: server }
    }

    pub(crate) fn push(&self, response: Response) {
        self.script.lock().unwrap().queue.push_back(response);
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.script.lock().unwrap().seen.clone()
    }

    /// Method and address of each request, without the project's part.
    pub(crate) fn lines(&self) -> Vec<String> {
        let short = |uri: &str| uri.replace("/projects/group%2Fproject", "");
        self.seen().iter().map(|seen| format!("{} {}", seen.method, short(&seen.uri))).collect()
    }
}

/// The port as in the program, without proxies and with short pauses.
pub(crate) fn project(access: &GitLabAccess) -> HttpProject {
    project_behind(access, Proxies::None)
}

/// The port with short pauses.
pub(crate) fn project_behind(access: &GitLabAccess, proxies: Proxies) -> HttpProject {
    let limits = Limits {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
        total: Duration::from_mins(1),
        without_answer: 2,
        latest: Duration::from_mins(1),
    };
    let connection = Connection::new(access, proxies).unwrap().with_limits(limits);
    HttpProject::new(connection, access)
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.to_string();
    let seen = SeenRequest {
        method: parts.method.to_string(),
        uri: uri.strip_prefix("/api/v4").unwrap_or(&uri).to_owned(),
        headers: parts.headers,
        body: axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec(),
    };
    let mut script = script.lock().unwrap();
    script.seen.push(seen);
    script.queue.pop_front().unwrap_or_else(|| reply(500, "the test has no answer"))
}

pub(crate) fn reply(status: u16, body: impl Into<Body>) -> Response {
    with_header(status, "content-type", "application/json", body)
}

/// A reply with one header.
pub(crate) fn with_header(status: u16, name: &str, value: &str, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header(name, value).body(body.into()).unwrap()
}
