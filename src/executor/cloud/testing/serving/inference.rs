//! Answers and output of the fake's models.

use async_trait::async_trait;
use bytes::Bytes;

use super::state::ServingState;
use crate::cloud::testing::faults::Fake;
use crate::cloud::{
    AsynchronousPlaces, AsynchronousRequest, CloudError, CloudErrorKind, EndpointLogs, Inference, InferenceReply,
    InferenceRequest,
};

fn error(endpoint: &str, kind: CloudErrorKind, message: &str) -> CloudError {
    let operation = format!("invoke endpoint {endpoint}");
    CloudError { kind, operation, message: format!("ValidationError: {message}"), action: "" }
}

/// The key of an `s3://` URI.
fn key(uri: &str) -> &str {
    uri.trim_start_matches("s3://").split_once('/').map_or("", |(_, key)| key)
}

impl ServingState {
    fn answer(&mut self, request: &InferenceRequest) -> Result<InferenceReply, CloudError> {
        self.settle();
        let absent = || error(&request.endpoint, CloudErrorKind::NotFound, "Endpoint not found.");
        let model = self.answering_model(&request.endpoint).ok_or_else(absent)?;
        let reply = match &self.replies.0 {
            Some(replies) => replies(&model, request),
            None => InferenceReply::Answer { content_type: "text/plain".to_owned(), body: Bytes::from(model.clone()) },
        };
        self.requests.push((model, request.clone()));
        Ok(reply)
    }

    /// Writes the answer at once.
    fn answer_later(&mut self, request: &AsynchronousRequest) -> Result<AsynchronousPlaces, CloudError> {
        self.settle();
        let refuse = |kind, message: &str| error(&request.endpoint, kind, message);
        let config = self.endpoints.get(&request.endpoint).and_then(|endpoint| self.config(&endpoint.config));
        let places = config.and_then(|config| config.asynchronous.clone());
        let places = places.ok_or_else(|| refuse(CloudErrorKind::Invalid, "Endpoint is not asynchronous."))?;
        let objects = self.objects.clone();
        let body = objects.as_ref().and_then(|objects| objects.contents(key(&request.input)));
        let body = body.ok_or_else(|| refuse(CloudErrorKind::Invalid, "The input does not exist."))?;
        let reply = self.answer(&InferenceRequest {
            endpoint: request.endpoint.clone(),
            content_type: request.content_type.clone(),
            accept: request.accept.clone(),
            body: body.into(),
        })?;
        let number = self.requests.len();
        let place = |prefix: &str, ending: &str| format!("{}/{number}{ending}", prefix.trim_end_matches('/'));
        let failure = places.failures.as_ref().map(|prefix| place(prefix, "-error.out"));
        let output = place(&places.output, ".out");
        let written = match reply {
            InferenceReply::Answer { body, .. } => Some((output.clone(), body.to_vec())),
            InferenceReply::ModelError { message, .. } => failure.clone().map(|uri| (uri, message.into_bytes())),
            InferenceReply::NotReady => None,
        };
        if let (Some(objects), Some((uri, body))) = (objects, written) {
            objects.insert(key(&uri), body);
        }
        Ok(AsynchronousPlaces { output, failure })
    }
}

#[async_trait]
impl Inference for Fake<ServingState> {
    async fn invoke(&self, request: &InferenceRequest) -> Result<InferenceReply, CloudError> {
        self.call("invoke", &request.endpoint, |service| service.answer(request)).await
    }

    async fn invoke_later(&self, request: &AsynchronousRequest) -> Result<AsynchronousPlaces, CloudError> {
        self.call("invoke_later", &request.endpoint, |service| service.answer_later(request)).await
    }
}

#[async_trait]
impl EndpointLogs for Fake<ServingState> {
    async fn last_lines(&self, endpoint: &str, most: usize) -> Result<Vec<String>, CloudError> {
        let act = |service: &mut ServingState| {
            let lines = service.logs.get(endpoint).cloned().unwrap_or_default();
            Ok(lines[lines.len().saturating_sub(most)..].to_vec())
        };
        self.call("last_lines", endpoint, act).await
    }
}
