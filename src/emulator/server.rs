//! One port for all services: takes connections, finds out which service a request is for, and answers it.
//!
//! Counting, faults, test accounts and quotas are looked at here, before any service sees the request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::faults::{DropPoint, FaultPlan};
use super::protocol::{ApiError, Reply, json_reply, reply, xml_error};
use super::{Core, ROLE_PATH, clock, sagemaker, sts};

/// No request of the JSON services is larger.
const LARGEST_BODY: usize = 8 << 20;

/// Accepts connections until the shutdown.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, s3: S3Service) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                core.tasks.spawn(connection(Arc::clone(&core), socket, s3.clone()));
            }
            Err(error) => {
                tracing::warn!(error = error.to_string(), "failed to accept a connection");
                // Out of file descriptors, most likely: give the others time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(core: Arc<Core>, socket: TcpStream, s3: S3Service) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(error = error.to_string(), "failed to set an option of a connection");
    }
    let shutdown = core.shutdown.clone();
    let service = hyper::service::service_fn(move |request| {
        let (core, s3) = (Arc::clone(&core), s3.clone());
        async move { handle(&core, s3, request).await }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::pin!(served);
    tokio::select! {
        ended = &mut served => {
            if let Err(error) = ended {
                tracing::debug!(error = error.to_string(), "a connection ended early");
            }
        }
        () = shutdown.cancelled() => {}
    }
}

/// Which service a request is for.
#[derive(Debug, PartialEq, Eq)]
enum Service {
    SageMaker,
    Logs,
    Sts,
    S3,
    Unknown,
}

/// Answers a request; an error drops the connection without an answer.
async fn handle(core: &Arc<Core>, s3: S3Service, request: Request<Incoming>) -> anyhow::Result<Reply> {
    let path = request.uri().path();
    if path.starts_with("/_emulator/") || path.starts_with(ROLE_PATH) {
        return own(core, request).await;
    }
    let (service, operation) = route(&request);
    core.count(&operation);
    let request_id = core.request_id();
    let xml = !matches!(service, Service::SageMaker | Service::Logs | Service::Unknown);
    let refuse = |error: ApiError| {
        if xml { xml_error(&error, service == Service::Sts) } else { json_reply(Err(error)) }
    };
    let fault = core.faults.call(&operation);
    if let Some(fault) = &fault {
        if fault.accepted && service == Service::SageMaker {
            return Ok(identified(accepted(core, request, operation, fault.delay_ms).await?, &request_id));
        }
        if fault.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        }
        if fault.drop == Some(DropPoint::Before) {
            anyhow::bail!("dropped the connection before {operation}, as the fault plan says");
        }
        if let Some(code) = &fault.error {
            let message = fault.message.clone().unwrap_or_else(|| "Injected by the fault plan".to_owned());
            let error = ApiError { code: code.clone(), message, status: fault.status.unwrap_or(400) };
            return Ok(identified(refuse(error), &request_id));
        }
    }
    let caller = Caller::of(request.headers(), request.uri().query());
    let reply = if let Err(error) = caller.check() {
        refuse(error)
    } else if core.config.quirks.throttling && !core.quotas.admit(&operation, Instant::now()) {
        refuse(ApiError::throttled())
    } else {
        match service {
            Service::S3 => hyper::service::Service::call(&s3, request)
                .await
                .map_err(|error| anyhow::anyhow!("failed to answer {operation}: {error:?}"))?,
            Service::Sts => {
                let form = read(request).await?;
                sts::answer(&String::from_utf8_lossy(&form), &core.config.account, &caller.access_key, &request_id)
            }
            Service::SageMaker | Service::Logs => {
                let body = read(request).await?;
                json_reply(call(core, &service, &operation, &body, &caller.region))
            }
            Service::Unknown => json_reply(Err(ApiError::new("UnknownOperationException", ""))),
        }
    };
    if fault.is_some_and(|fault| fault.drop == Some(DropPoint::After)) {
        anyhow::bail!("dropped the connection after {operation}, as the fault plan says");
    }
    Ok(identified(reply, &request_id))
}

/// An operation that happens after its delay, whether or not the caller still waits for the answer.
async fn accepted(
    core: &Arc<Core>,
    request: Request<Incoming>,
    operation: String,
    delay_ms: u64,
) -> anyhow::Result<Reply> {
    let region = Caller::of(request.headers(), request.uri().query()).region;
    let body = read(request).await?;
    let own = Arc::clone(core);
    let answer = core.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
            () = own.shutdown.cancelled() => {}
        }
        call(&own, &Service::SageMaker, &operation, &body, &region)
    });
    Ok(json_reply(answer.await.context("failed to wait for the operation")?))
}

fn call(core: &Arc<Core>, service: &Service, operation: &str, body: &[u8], region: &str) -> super::protocol::Answer {
    let body = if body.is_empty() { b"{}".as_slice() } else { body };
    let request: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::serialization(format!("the body is not JSON: {error}")))?;
    if *service == Service::Logs {
        core.logs.call(operation, &request, region)
    } else {
        sagemaker::call(core, operation, request, region)
    }
}

fn identified(mut reply: Reply, request_id: &str) -> Reply {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        reply.headers_mut().insert("x-amzn-requestid", id.clone());
        reply.headers_mut().entry("x-amz-request-id").or_insert(id);
    }
    reply
}

async fn read(request: Request<Incoming>) -> anyhow::Result<Vec<u8>> {
    let body = Limited::new(request.into_body(), LARGEST_BODY).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("failed to read a request's body: {error}"))?;
    Ok(body.to_bytes().to_vec())
}

fn route(request: &Request<Incoming>) -> (Service, String) {
    if let Some(target) = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()) {
        let (prefix, operation) = target.split_once('.').unwrap_or((target, ""));
        let service = match prefix {
            "SageMaker" => Service::SageMaker,
            "Logs_20140328" => Service::Logs,
            _ => Service::Unknown,
        };
        return (service, operation.to_owned());
    }
    let form = request.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    if request.method() == Method::POST
        && request.uri().path() == "/"
        && form.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
    {
        return (Service::Sts, "GetCallerIdentity".to_owned());
    }
    let query = request.uri().query().unwrap_or_default();
    (Service::S3, s3_operation(request.method(), request.uri().path(), query, request.headers()).to_owned())
}

/// The name of an S3 operation, for counting and faults; the protocol's own routing decides what happens.
fn s3_operation(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> &'static str {
    let path = path.trim_start_matches('/');
    let in_bucket = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (method.as_str(), in_bucket) {
        ("GET", true) if has("uploadId") => "ListParts",
        ("GET", true) => "GetObject",
        ("GET", false) if path.is_empty() => "ListBuckets",
        ("GET", false) if has("uploads") => "ListMultipartUploads",
        ("GET", false) if has("location") => "GetBucketLocation",
        ("GET", false) if has("list-type") => "ListObjectsV2",
        ("GET", false) => "ListObjects",
        ("HEAD", true) => "HeadObject",
        ("HEAD", false) => "HeadBucket",
        ("PUT", true) if has("uploadId") => "UploadPart",
        ("PUT", true) if headers.contains_key("x-amz-copy-source") => "CopyObject",
        ("PUT", true) => "PutObject",
        ("PUT", false) => "CreateBucket",
        ("POST", true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true) if has("uploadId") => "CompleteMultipartUpload",
        ("POST", false) if has("delete") => "DeleteObjects",
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("DELETE", false) => "DeleteBucket",
        _ => "UnknownS3Operation",
    }
}

/// Who signed a request and for which region; the signature itself is verified for S3 only.
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    access_key: String,
    region: String,
}

impl Caller {
    fn of(headers: &HeaderMap, query: Option<&str>) -> Self {
        let scope = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once("Credential="))
            .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
            .or_else(|| {
                let mut pairs = query?.split('&');
                pairs.find_map(|pair| pair.strip_prefix("X-Amz-Credential=")).map(|one| one.replace("%2F", "/"))
            })
            .unwrap_or_default();
        let mut parts = scope.split('/');
        let access_key = parts.next().unwrap_or_default().to_owned();
        let region = parts.nth(1).filter(|region| !region.is_empty()).unwrap_or("us-east-1").to_owned();
        Self { access_key, region }
    }

    /// Refuses keys that look like those of a real account, so that nobody takes this for AWS.
    fn check(&self) -> Result<(), ApiError> {
        let looks_real = self.access_key.len() == 20
            && (self.access_key.starts_with("AKIA") || self.access_key.starts_with("ASIA"))
            && !self.access_key.ends_with("EXAMPLE")
            && self.access_key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !looks_real {
            return Ok(());
        }
        Err(ApiError {
            status: 403,
            ..ApiError::new(
                "InvalidClientTokenId",
                "This is an emulator, and the access key looks like one of a real account. Set AWS_ACCESS_KEY_ID=test \
                 and AWS_SECRET_ACCESS_KEY=test, or unset the endpoint URL to talk to AWS.",
            )
        })
    }
}

/// `DELETE <this><bucket>/<prefix>` takes objects away, as a lifecycle rule does.
const OBJECTS_PATH: &str = "/_emulator/objects/";

/// What only the emulator has: role credentials, the fault plan, counts, log events with their times of ingestion, expiry.
async fn own(core: &Arc<Core>, request: Request<Incoming>) -> anyhow::Result<Reply> {
    let json = "application/json";
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/_emulator/requests") => reply(StatusCode::OK, json, json!(core.counts()).to_string()),
        (&Method::GET, "/_emulator/logs") => {
            let query = request.uri().query().unwrap_or_default();
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
            reply(StatusCode::OK, "application/jsonl", core.logs.dump(prefix))
        }
        (&Method::DELETE, path) if path.starts_with(OBJECTS_PATH) => {
            let (bucket, prefix) =
                path.strip_prefix(OBJECTS_PATH).and_then(|rest| rest.split_once('/')).unwrap_or_default();
            match core.store.expire(bucket, prefix) {
                Ok(expired) => reply(StatusCode::OK, json, json!({"expired": expired}).to_string()),
                Err(error) => reply(StatusCode::NOT_FOUND, json, json!({"message": error.to_string()}).to_string()),
            }
        }
        (&Method::GET, "/_emulator/health") => reply(StatusCode::OK, json, "{}"),
        (&Method::PUT, "/_emulator/faults") => {
            let body = read(request).await?;
            match serde_json::from_slice::<FaultPlan>(&body) {
                Ok(plan) => {
                    core.set_faults(plan);
                    reply(StatusCode::OK, json, "{}")
                }
                Err(error) => {
                    let text = format!("failed to read the fault plan: {error}");
                    reply(StatusCode::BAD_REQUEST, json, json!({"message": text}).to_string())
                }
            }
        }
        (&Method::GET, path) => match path.strip_prefix(ROLE_PATH).filter(|role| core.has_role(role)) {
            Some(role) => reply(StatusCode::OK, json, credentials(core, role).to_string()),
            None => reply(StatusCode::NOT_FOUND, json, json!({"message": "no such resource"}).to_string()),
        },
        _ => reply(StatusCode::NOT_FOUND, json, json!({"message": "no such resource"}).to_string()),
    })
}

/// Credentials in the form of the container credential provider.
fn credentials(core: &Core, role: &str) -> Value {
    let expires = Duration::from_millis(clock::now_ms()) + Duration::from_hours(6);
    let expires = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + expires).to_string();
    json!({
        "RoleArn": format!("arn:aws:iam::{}:role/emulator", core.config.account),
        "AccessKeyId": format!("{}{role}", super::ROLE_KEY_PREFIX),
        "SecretAccessKey": super::s3::SECRET,
        "Token": "emulator-session-token",
        "Expiration": expires,
    })
}

/// Binds the port of the emulator.
pub(crate) async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: &str) -> Caller {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().unwrap());
        Caller::of(&headers, None)
    }

    #[test]
    fn keys_of_real_accounts_are_refused_and_test_keys_are_not() {
        let signed = |key: &str| {
            caller(&format!(
                "AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/sagemaker/aws4_request, SignedHeaders=host"
            ))
        };
        assert_eq!(signed("test").region, "eu-west-1");
        for key in ["test", "AKIAIOSFODNN7EXAMPLE", "AKIA", "EMULATORROLE123"] {
            assert_eq!(signed(key).check(), Ok(()), "{key}");
        }
        for prefix in ["AKIA", "ASIA"] {
            let error = signed(&format!("{prefix}Q3EGRIZ5MW2KD4TX")).check().unwrap_err();
            assert!(error.message.contains("AWS_ACCESS_KEY_ID=test"));
        }
    }

    #[test]
    fn s3_operations_have_their_names() {
        let name = |method: Method, path: &str, query: &str| s3_operation(&method, path, query, &HeaderMap::new());
        assert_eq!(name(Method::PUT, "/b/k", ""), "PutObject");
        assert_eq!(name(Method::PUT, "/b/k", "partNumber=1&uploadId=x"), "UploadPart");
        assert_eq!(name(Method::GET, "/b/", "list-type=2"), "ListObjectsV2");
        assert_eq!(name(Method::GET, "/", ""), "ListBuckets");
        assert_eq!(name(Method::POST, "/b", "delete"), "DeleteObjects");
    }
}
