//! Requests to an asynchronous endpoint: the body and the answer are objects, which are deleted afterwards.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sample::EndpointSample;
use crate::cloud::{
    Access, AsynchronousOutput, AsynchronousPlaces, AsynchronousRequest, CloudError, CloudErrorKind, Connect,
    Inference, InferenceReply, ObjectStore,
};

/// Pauses between two looks for the answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The places of bodies and answers.
pub(super) struct AsynchronousWay {
    /// The environment's bucket.
    inputs: Arc<dyn ObjectStore>,
    /// The buckets of answers and of failures.
    outputs: Vec<Arc<dyn ObjectStore>>,
    /// Prefix of the keys of this test's bodies.
    prefix: String,
}

impl AsynchronousWay {
    /// Connects to the buckets that the endpoint's configuration names.
    pub(super) async fn connect(
        connect: &dyn Connect,
        access: &Access,
        places: &AsynchronousOutput,
    ) -> anyhow::Result<Self> {
        let inputs = connect.objects(access).await?;
        let mut outputs = Vec::new();
        for place in [Some(&places.output), places.failures.as_ref()].into_iter().flatten() {
            let bucket = place.trim_start_matches("s3://").split('/').next().unwrap_or_default().to_owned();
            outputs.push(connect.objects(&Access { bucket, prefix: String::new(), ..access.clone() }).await?);
        }
        Ok(Self { inputs, outputs, prefix: format!("tests/{:016x}", fastrand::u64(..)) })
    }

    /// Sends one request, and waits for its answer; `None` without one in time.
    pub(super) async fn send(
        &self,
        inference: &dyn Inference,
        endpoint: &str,
        sample: &EndpointSample,
        number: usize,
        limit: Duration,
    ) -> Result<Option<InferenceReply>, CloudError> {
        let started = Instant::now();
        let key = format!("{}/{number}", self.prefix);
        self.inputs.put(&key, sample.body.to_vec()).await?;
        let request = AsynchronousRequest {
            endpoint: endpoint.to_owned(),
            content_type: sample.content_type.clone(),
            accept: sample.accept.clone(),
            input: self.inputs.uri(&key),
        };
        let reply = match inference.invoke_later(&request).await {
            Ok(places) => self.answer(&places, started + limit).await,
            Err(error) => Err(error),
        };
        self.inputs.delete(&[key]).await?;
        reply
    }

    /// Looks for the answer and the failure until one is there.
    async fn answer(
        &self,
        places: &AsynchronousPlaces,
        deadline: Instant,
    ) -> Result<Option<InferenceReply>, CloudError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(body) = self.take(&places.output).await? {
                // An object tells no type of its content.
                return Ok(Some(InferenceReply::Answer { content_type: String::new(), body: body.into() }));
            }
            if let Some(failure) = &places.failure
                && let Some(message) = self.take(failure).await?
            {
                let message = String::from_utf8_lossy(&message).into_owned();
                return Ok(Some(InferenceReply::ModelError { status: None, message }));
            }
            if Instant::now() + pause > deadline {
                return Ok(None);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads and deletes an object.
    async fn take(&self, uri: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let found = self.outputs.iter().find_map(|store| Some((store, uri.strip_prefix(&store.uri(""))?)));
        let (store, key) = found.ok_or_else(|| CloudError {
            kind: CloudErrorKind::Invalid,
            operation: format!("get object {uri}"),
            message: "the endpoint's configuration names another bucket".to_owned(),
            action: "",
        })?;
        let body = store.get(key).await?;
        if body.is_some() {
            store.delete(&[key.to_owned()]).await?;
        }
        Ok(body)
    }
}
