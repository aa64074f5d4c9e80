//! `InvokeEndpointAsync`: the answer goes from the container to an object in S3, after the reply.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::container_http::send;
use super::platform::ServingPlatform;
use super::request_metrics::record;
use super::routing::Chosen;
use crate::protocol::{ApiError, Reply, reply, text};
use crate::services::training::{PlatformStore, S3Location};

/// Time that a container has, unless the request says otherwise.
const LIMIT: Duration = Duration::from_mins(15);
/// Headers that the container gets, with the names that the request has for them.
const HANDED_ON: [(&str, &str); 3] = [
    ("x-amzn-sagemaker-content-type", "content-type"),
    ("x-amzn-sagemaker-accept", "accept"),
    ("x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-custom-attributes"),
];

/// The objects of one request.
pub(super) struct AsyncRequest {
    id: String,
    input: AsyncInput,
    output: S3Location,
    failure: Option<S3Location>,
    headers: HeaderMap,
    limit: Duration,
}

enum AsyncInput {
    Object(S3Location),
    Body(Bytes),
}

impl AsyncRequest {
    /// Reads a request to an endpoint with this `AsyncInferenceConfig`. `id` is its id, unless it brings one.
    pub(super) fn read(config: &Value, headers: &HeaderMap, body: Bytes, id: String) -> Result<Self, ApiError> {
        let refuse = |message: &str| ApiError::new("ValidationError", message);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = header("x-amzn-sagemaker-inference-id").map_or(id, str::to_owned);
        let place = |path: &str, name: String| {
            let folder = S3Location::parse(text(&config["OutputConfig"], path)?)?;
            let prefix = folder.key.trim_end_matches('/');
            let key = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            Some(S3Location { key, ..folder })
        };
        let input = match header("x-amzn-sagemaker-inputlocation") {
            Some(uri) => AsyncInput::Object(
                S3Location::parse(uri)
                    .ok_or_else(|| refuse("InputLocation must be the address of an object in S3."))?,
            ),
            None if !body.is_empty() => AsyncInput::Body(body),
            None => return Err(refuse("InputLocation or a body is required.")),
        };
        let output = place("S3OutputPath", format!("{id}.out"));
        let handed = HANDED_ON
            .into_iter()
            .filter_map(|(from, to)| Some((hyper::header::HeaderName::from_static(to), headers.get(from)?.clone())));
        let seconds = header("x-amzn-sagemaker-invocationtimeoutseconds").and_then(|seconds| seconds.parse().ok());
        Ok(Self {
            input,
            output: output.ok_or_else(|| refuse("The endpoint's AsyncInferenceConfig has no S3OutputPath."))?,
            failure: place("S3FailurePath", format!("{id}-error.out")),
            headers: handed.collect(),
            limit: seconds.map_or(LIMIT, Duration::from_secs),
            id,
        })
    }

    /// The reply, which comes before the answer.
    pub(super) fn accepted(&self) -> Reply {
        let body = json!({"InferenceId": self.id}).to_string();
        let mut reply = reply(StatusCode::ACCEPTED, "application/json", body);
        let places = [
            ("x-amzn-sagemaker-outputlocation", Some(&self.output)),
            ("x-amzn-sagemaker-failurelocation", self.failure.as_ref()),
        ];
        for (name, place) in places {
            let uri = place.map(|place| HeaderValue::try_from(format!("s3://{}/{}", place.bucket, place.key)));
            if let Some(Ok(uri)) = uri {
                reply.headers_mut().insert(name, uri);
            }
        }
        reply
    }

    /// Asks the container, and stores its answer or the error.
    pub(super) async fn answer(self, platform: Arc<ServingPlatform>, chosen: Chosen) {
        let store = PlatformStore::new(&platform.store, &platform.shared, &chosen.role, &chosen.region);
        let (output, failure) = (self.output.clone(), self.failure.clone());
        let answer = self.ask(&platform, &store, &chosen).await;
        let folder = platform.shared.config.jobs_folder();
        let (place, content) = match answer {
            Ok(body) => (Some(output), body),
            Err(error) => {
                tracing::info!(error = format!("{error:#}"), "an asynchronous request failed");
                (failure, Bytes::from(format!("{error:#}")))
            }
        };
        let Some(place) = place else { return };
        let stored = tokio::task::spawn_blocking(move || {
            let mut file = tempfile::NamedTempFile::new_in(folder).context("failed to create a temporary file")?;
            file.write_all(&content).context("failed to write a temporary file")?;
            store.put_file(&place.bucket, &place.key, file.path())
        });
        if let Ok(Err(error)) = stored.await {
            tracing::warn!(error = format!("{error:#}"), "failed to store the answer of an asynchronous request");
        }
    }

    async fn ask(self, platform: &ServingPlatform, store: &PlatformStore, chosen: &Chosen) -> anyhow::Result<Bytes> {
        let body = match self.input {
            AsyncInput::Body(body) => body,
            AsyncInput::Object(place) => {
                let stored = store.object(&place.bucket, &place.key).context("failed to read the input")?;
                let read = move || stored.files().into_iter().map(|(path, _)| std::fs::read(path)).collect();
                let parts: std::io::Result<Vec<Vec<u8>>> = tokio::task::spawn_blocking(read).await?;
                Bytes::from(parts.context("failed to read the input")?.concat())
            }
        };
        let asked = Instant::now();
        let answer = send(&chosen.socket, (Method::POST, "/invocations"), self.headers, body, self.limit).await;
        let status = answer.as_ref().ok().map(|answer| answer.status);
        record(&platform.cloudwatch, chosen, status, [asked.elapsed(), Duration::ZERO]);
        let answer = answer?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        anyhow::ensure!(
            answer.status.is_success(),
            "Received server error ({}) from primary with message \"{}\".",
            answer.status.as_u16(),
            text()
        );
        Ok(answer.body)
    }
}
