//! HTTP requests to a serving container, through the socket of its network.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// The port of every serving container.
pub(super) const PORT: u16 = 8080;

/// Largest answer, in bytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// The answer of a container.
#[derive(Debug)]
pub(super) struct ContainerAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer whose body is still to come.
pub(super) struct OpenAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

impl OpenAnswer {
    /// Reads the body to its end.
    pub(super) async fn whole(self) -> anyhow::Result<ContainerAnswer> {
        let body = Limited::new(self.body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("failed to read the container's answer: {error}"))?.to_bytes();
        Ok(ContainerAnswer { status: self.status, headers: self.headers, body })
    }
}

/// Sends one request and waits for the head of the answer.
pub(super) async fn open(
    socket: &Path,
    (method, path): (Method, &str),
    headers: HeaderMap,
    body: Bytes,
) -> anyhow::Result<OpenAnswer> {
    let stream = UnixStream::connect(socket).await.context("failed to reach the container")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse()?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost:8080"));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(OpenAnswer { status: parts.status, headers: parts.headers, body, _connection: connection })
}

/// Sends one request and reads the whole answer.
pub(super) async fn send(
    socket: &Path,
    target: (Method, &str),
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> anyhow::Result<ContainerAnswer> {
    let exchange = async { open(socket, target, headers, body).await?.whole().await };
    tokio::time::timeout(limit, exchange).await.context("the container did not answer in time")?
}

/// The content type of an answer.
pub(super) fn content_type(answer: &ContainerAnswer) -> Option<&HeaderValue> {
    answer.headers.get(CONTENT_TYPE)
}
