//! For tests: the ports over a scripted server on loopback, which sees the shapes of requests and gives replies and errors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_s3::config::Credentials;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use executor::cloud::{Access, InputData, JobLogs, ModelRegistry, ObjectStore, SourceObjects, TrainingJobs};
use tokio::task::JoinSet;

use crate::clients::{Clients, loader};
use crate::input_data::AwsInputData;
use crate::jobs::AwsJobs;
use crate::logs::AwsLogs;
use crate::objects::AwsObjects;
use crate::registry::AwsRegistry;
use crate::source_objects::AwsSourceObjects;

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct SeenRequest {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) range: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) kms: Option<String>,
    /// Source of a copy, and its condition.
    pub(crate) copy_source: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) checksum_mode: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) session_token: Option<String>,
    pub(crate) body: Vec<u8>,
}

type Answer = Box<dyn Fn(&SeenRequest) -> Option<Response> + Send>;

#[derive(Default)]
struct Script {
    /// Replies to the next requests, in order, each used once.
    queue: VecDeque<Response>,
    /// Makes the reply when the queue is empty.
    answer: Option<Answer>,
    seen: Vec<SeenRequest>,
}

/// The server and the ports that talk to it.
pub(crate) struct Stub {
    script: Arc<Mutex<Script>>,
    pub(crate) access: Access,
    pub(crate) jobs: Arc<dyn TrainingJobs>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) input_data: Arc<dyn InputData>,
    pub(crate) source_objects: Arc<dyn SourceObjects>,
    pub(crate) registry: Arc<dyn ModelRegistry>,
    pub(crate) logs: Arc<dyn JobLogs>,
    /// For the ports that a test makes itself.
    pub(crate) clients: Arc<Clients>,
    _server: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Access)) -> Self {
        Self::build(change, RetryConfig::disabled()).await
    }

    /// With the SDK's retries, as in the program.
    pub(crate) async fn start_with_retries() -> Self {
        Self::with_retries(|_| {}).await
    }

    pub(crate) async fn with_retries(change: impl FnOnce(&mut Access)) -> Self {
        let quickly = RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(1));
        Self::build(change, quickly).await
    }

    async fn build(change: impl FnOnce(&mut Access), retries: RetryConfig) -> Self {
        let script: Arc<Mutex<Script>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut access = Access {
            region: Some("eu-west-1".to_owned()),
            endpoint_url: Some(endpoint),
            bucket: "bucket".to_owned(),
            prefix: "pre/fix".to_owned(),
            ..Access::default()
        };
        change(&mut access);
        let clients = clients(&access, retries).await;
        Self {
            script,
            jobs: Arc::new(AwsJobs::new(Arc::clone(&clients))),
            objects: Arc::new(AwsObjects::new(Arc::clone(&clients), &access)),
            input_data: Arc::new(AwsInputData::new(Arc::clone(&clients))),
            logs: Arc::new(AwsLogs::new(Arc::clone(&clients))),
            source_objects: Arc::new(AwsSourceObjects::new(Arc::clone(&clients), &access)),
            registry: Arc::new(AwsRegistry::new(Arc::clone(&clients))),
            clients,
            access,
            _server: server,
        }
    }

    pub(crate) fn push(&self, response: Response) {
        self.script.lock().unwrap().queue.push_back(response);
    }

    pub(crate) fn answer(&self, answer: impl Fn(&SeenRequest) -> Option<Response> + Send + 'static) {
        self.script.lock().unwrap().answer = Some(Box::new(answer));
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.script.lock().unwrap().seen.clone()
    }
}

/// Clients as in the program, with fixed credentials.
pub(crate) async fn clients(access: &Access, retries: RetryConfig) -> Arc<Clients> {
    let config = loader(access)
        .unwrap()
        .credentials_provider(Credentials::new("AKIDTEST", "test-secret", None, None, "test"))
        .retry_config(retries)
        .load()
        .await;
    Clients::new(config, access, Arc::default())
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = SeenRequest {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        range: header("range"),
        if_none_match: header("if-none-match"),
        kms: header("x-amz-server-side-encryption-aws-kms-key-id"),
        copy_source: header("x-amz-copy-source")
            .map(|source| format!("{source} if {}", header("x-amz-copy-source-if-match").unwrap_or_default())),
        sha256: header("x-amz-checksum-sha256"),
        checksum_mode: header("x-amz-checksum-mode"),
        target: header("x-amz-target"),
        authorization: header("authorization"),
        session_token: header("x-amz-security-token"),
        body: axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec(),
    };
    let mut script = script.lock().unwrap();
    script.seen.push(seen.clone());
    script
        .queue
        .pop_front()
        .or_else(|| script.answer.as_ref().and_then(|answer| answer(&seen)))
        .unwrap_or_else(|| reply(500, "the test has no answer"))
}

pub(crate) fn reply(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header("content-type", "application/x-amz-json-1.1").body(body.into()).unwrap()
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Response {
    reply(status, serde_json::json!({ "__type": code, "message": message }).to_string())
}

pub(crate) fn s3_refusal(status: u16, code: &str) -> Response {
    reply(status, format!("<Error><Code>{code}</Code><Message>text of {code}</Message></Error>"))
}
