//! Requests to endpoints over the SDK.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::InvokeEndpointError;
use aws_sdk_sagemakerruntime::primitives::Blob;
use executor::base::plain;
use executor::cloud::{
    AsynchronousPlaces, AsynchronousRequest, CloudError, CloudErrorKind, Inference, InferenceReply, InferenceRequest,
};

use super::clients::Clients;

/// Longest part of a container's error that is kept, in bytes.
const LONGEST_TEXT: usize = 4096;

#[derive(Debug)]
pub(super) struct AwsInference {
    clients: Arc<Clients>,
}

impl AwsInference {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

#[async_trait]
impl Inference for AwsInference {
    async fn invoke(&self, request: &InferenceRequest) -> Result<InferenceReply, CloudError> {
        let call = self.clients.call("invoke", format!("endpoint {}", request.endpoint), "sagemaker:InvokeEndpoint");
        let reply = self
            .clients
            .runtime()
            .invoke_endpoint()
            .endpoint_name(&request.endpoint)
            .content_type(&request.content_type)
            .set_accept(request.accept.clone())
            .body(Blob::new(request.body.clone()))
            .send()
            .await;
        let error = match reply {
            Ok(reply) => {
                return Ok(InferenceReply::Answer {
                    content_type: reply.content_type.unwrap_or_default(),
                    body: reply.body.map(Blob::into_inner).unwrap_or_default().into(),
                });
            }
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(InvokeEndpointError::ModelError(error)) => {
                let text = error.original_message.as_deref().or(error.message.as_deref()).unwrap_or_default();
                let status = error.original_status_code.and_then(|status| u16::try_from(status).ok());
                Ok(InferenceReply::ModelError { status, message: plain::line(text, LONGEST_TEXT) })
            }
            Some(InvokeEndpointError::ModelNotReadyException(_)) => Ok(InferenceReply::NotReady),
            _ => Err(known(call.failed(&error))),
        }
    }

    async fn invoke_later(&self, request: &AsynchronousRequest) -> Result<AsynchronousPlaces, CloudError> {
        let endpoint = format!("asynchronous endpoint {}", request.endpoint);
        let call = self.clients.call("invoke", endpoint, "sagemaker:InvokeEndpointAsync");
        let reply = self
            .clients
            .runtime()
            .invoke_endpoint_async()
            .endpoint_name(&request.endpoint)
            .content_type(&request.content_type)
            .set_accept(request.accept.clone())
            .input_location(&request.input)
            .send()
            .await
            .map_err(|error| known(call.failed(&error)))?;
        let output = reply.output_location;
        let output = output.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply has no place of the answer"))?;
        Ok(AsynchronousPlaces { output, failure: reply.failure_location })
    }
}

/// `Endpoint NAME of account ACCOUNT not found.` comes as a `ValidationError`.
fn known(error: CloudError) -> CloudError {
    let is_absent = error.kind == CloudErrorKind::Invalid
        && error.message.contains("Endpoint ")
        && error.message.contains(" not found");
    if is_absent { CloudError { kind: CloudErrorKind::NotFound, ..error } } else { error }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::Response;

    use super::*;
    use crate::stub::Stub;

    fn request(stub: &Stub) -> (AwsInference, InferenceRequest) {
        let request = InferenceRequest {
            endpoint: "churn".to_owned(),
            content_type: "text/csv".to_owned(),
            accept: Some("application/json".to_owned()),
            body: "1,2".into(),
        };
        (AwsInference::new(Arc::clone(&stub.clients)), request)
    }

    fn answer(status: u16, code: &str, body: &str) -> Response {
        let body = Body::from(body.to_owned());
        Response::builder().status(status).header("x-amzn-errortype", code).body(body).unwrap()
    }

    #[tokio::test]
    async fn the_body_is_sent_and_the_answer_kept_as_they_are() {
        let stub = Stub::start().await;
        let (port, request) = request(&stub);
        stub.push(Response::builder().header("content-type", "application/json").body(Body::from("[1]")).unwrap());
        let reply = port.invoke(&request).await.unwrap();
        let expected = InferenceReply::Answer { content_type: "application/json".to_owned(), body: "[1]".into() };
        assert_eq!(reply, expected);
        let [seen] = stub.seen().try_into().unwrap();
        assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "/endpoints/churn/invocations"));
        assert_eq!(seen.body, b"1,2");
    }

    #[tokio::test]
    async fn an_error_of_the_container_is_a_reply_with_its_status() {
        let stub = Stub::start_with_retries().await;
        let (port, request) = request(&stub);
        let body =
            r#"{"Message": "Received server error (500)", "OriginalStatusCode": 500, "OriginalMessage": "no\nmodel"}"#;
        stub.push(answer(424, "ModelError", body));
        let expected = InferenceReply::ModelError { status: Some(500), message: "no; model".to_owned() };
        assert_eq!(port.invoke(&request).await.unwrap(), expected);
        stub.push(answer(429, "ModelNotReadyException", "{}"));
        assert_eq!(port.invoke(&request).await.unwrap(), InferenceReply::NotReady);
        stub.push(answer(400, "ValidationError", r#"{"Message": "Endpoint churn of account 1 not found."}"#));
        assert_eq!(port.invoke(&request).await.unwrap_err().kind, CloudErrorKind::NotFound);
        stub.push(answer(503, "ServiceUnavailable", "{}"));
        assert_eq!(port.invoke(&request).await.unwrap_err().kind, CloudErrorKind::Transient);
        assert_eq!(stub.seen().len(), 4, "no request is repeated");
    }

    #[tokio::test]
    async fn an_asynchronous_request_names_its_input_and_gets_places() {
        let stub = Stub::start().await;
        let (port, _) = request(&stub);
        let places = Response::builder()
            .status(202)
            .header("x-amzn-sagemaker-outputlocation", "s3://b/out/1.out")
            .header("x-amzn-sagemaker-failurelocation", "s3://b/failed/1.out");
        stub.push(places.body(Body::from(r#"{"InferenceId": "1"}"#)).unwrap());
        let request = AsynchronousRequest {
            endpoint: "churn".to_owned(),
            content_type: "text/csv".to_owned(),
            accept: None,
            input: "s3://b/in/1.csv".to_owned(),
        };
        let places = port.invoke_later(&request).await.unwrap();
        let (output, failure) = ("s3://b/out/1.out".to_owned(), Some("s3://b/failed/1.out".to_owned()));
        assert_eq!(places, AsynchronousPlaces { output, failure });
        assert_eq!(stub.seen()[0].uri, "/endpoints/churn/async-invocations");
    }
}
