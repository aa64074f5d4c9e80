//! Port of SageMaker's runtime, which sends requests to endpoints. `aws` and `testing` implement it.

use async_trait::async_trait;
use bytes::Bytes;

use super::error::CloudError;

/// Requests to endpoints. Not repeated by the SDK: callers measure each one.
#[async_trait]
pub trait Inference: Send + Sync {
    /// Sends one request, at most 6 MiB, and waits for its answer, at most 70 seconds.
    async fn invoke(&self, request: &InferenceRequest) -> Result<InferenceReply, CloudError>;
    /// Hands over a request that lies in S3 (`s3://` URI), and returns the places of its answer.
    async fn invoke_later(&self, request: &AsynchronousRequest) -> Result<AsynchronousPlaces, CloudError>;
}

/// A request to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceRequest {
    pub endpoint: String,
    pub content_type: String,
    pub accept: Option<String>,
    pub body: Bytes,
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InferenceReply {
    Answer {
        content_type: String,
        body: Bytes,
    },
    /// `ModelError`: the container answered with an error, or not in time.
    ModelError {
        status: Option<u16>,
        message: String,
    },
    /// `ModelNotReadyException`: a serverless container starts.
    NotReady,
}

/// A request to an asynchronous endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsynchronousRequest {
    pub endpoint: String,
    pub content_type: String,
    pub accept: Option<String>,
    /// `s3://` URI of the body.
    pub input: String,
}

/// `s3://` URIs of the answer, and of the failure, of which one appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsynchronousPlaces {
    pub output: String,
    pub failure: Option<String>,
}
