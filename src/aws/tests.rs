//! The adapter against a scripted server on loopback: shapes of requests, replies and errors.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_s3::config::Credentials;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use tokio::task::JoinSet;

use super::{Clients, jobs, loader, logs, objects};
use executor::cloud::testing::example_spec;
use executor::cloud::{
    Access, CloudErrorKind, FilterPage, JobLogs, JobStatus, LogEvent, MOST_BYTES, Network, ObjectStore, Parameter,
    SecondaryStatus, StreamPage, TrainingJobs,
};

/// One request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    uri: String,
    range: Option<String>,
    if_none_match: Option<String>,
    kms: Option<String>,
    target: Option<String>,
    body: Vec<u8>,
}

type Answer = Box<dyn Fn(&Seen) -> Option<Response> + Send>;

#[derive(Default)]
struct Script {
    /// Each answers once, in order, whatever is asked.
    queue: VecDeque<Response>,
    /// Asked when the queue is empty.
    answer: Option<Answer>,
    seen: Vec<Seen>,
}

/// The server and the ports that talk to it.
struct Stub {
    script: Arc<Mutex<Script>>,
    jobs: Arc<dyn TrainingJobs>,
    objects: Arc<dyn ObjectStore>,
    logs: Arc<dyn JobLogs>,
    _server: JoinSet<()>,
}

impl Stub {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Access)) -> Self {
        Self::build(change, RetryConfig::disabled()).await
    }

    /// With the SDK's own tries, as in the program.
    async fn start_with_retries() -> Self {
        Self::build(|_| {}, RetryConfig::standard().with_max_attempts(3)).await
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
            jobs: Arc::new(jobs::AwsJobs::new(Arc::clone(&clients))),
            objects: Arc::new(objects::AwsObjects::new(Arc::clone(&clients), &access)),
            logs: Arc::new(logs::AwsLogs::new(clients)),
            _server: server,
        }
    }

    fn push(&self, response: Response) {
        self.script.lock().unwrap().queue.push_back(response);
    }

    fn answer(&self, answer: impl Fn(&Seen) -> Option<Response> + Send + 'static) {
        self.script.lock().unwrap().answer = Some(Box::new(answer));
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }
}

/// As in the program, with fixed credentials.
async fn clients(access: &Access, retries: RetryConfig) -> Arc<Clients> {
    let config = loader(access)
        .unwrap()
        .credentials_provider(Credentials::new("AKIDTEST", "test-secret", None, None, "test"))
        .retry_config(retries)
        .load()
        .await;
    Clients::new(config)
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        range: header("range"),
        if_none_match: header("if-none-match"),
        kms: header("x-amz-server-side-encryption-aws-kms-key-id"),
        target: header("x-amz-target"),
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

fn reply(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header("content-type", "application/x-amz-json-1.1").body(body.into()).unwrap()
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    reply(status, serde_json::json!({ "__type": code, "message": message }).to_string())
}

fn s3_refusal(status: u16, code: &str) -> Response {
    reply(status, format!("<Error><Code>{code}</Code><Message>text of {code}</Message></Error>"))
}

#[tokio::test]
async fn create_sends_every_field() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"TrainingJobArn":"arn:aws:sagemaker:eu-west-1:1:training-job/a"}"#));
    let mut spec = example_spec("a");
    spec.network = Some(Network { subnets: vec!["subnet-1".to_owned()], security_group_ids: vec!["sg-1".to_owned()] });
    spec.volume_kms_key_id = Some("volume-key".to_owned());
    spec.output_kms_key_id = Some("output-key".to_owned());
    let arn = stub.jobs.create(&spec).await.unwrap();
    assert_eq!(arn, "arn:aws:sagemaker:eu-west-1:1:training-job/a");
    let seen = stub.seen();
    assert_eq!(seen[0].target.as_deref(), Some("SageMaker.CreateTrainingJob"));
    let sent: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    let expected = serde_json::json!({
        "TrainingJobName": "a",
        "RoleArn": "arn:aws:iam::123456789012:role/train",
        "AlgorithmSpecification": {
            "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.4",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "/opt/ml/input/data/agent/start"],
        },
        "Environment": { "AGENT_SESSION": "a" },
        "InputDataConfig": [{
            "ChannelName": "agent",
            "InputMode": "File",
            "CompressionType": "None",
            "DataSource": { "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": "s3://memory/agent/1/",
                "S3DataDistributionType": "FullyReplicated",
            } },
        }],
        "OutputDataConfig": {
            "S3OutputPath": "s3://memory/output", "KmsKeyId": "output-key", "CompressionType": "NONE",
        },
        "ResourceConfig": {
            "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30, "VolumeKmsKeyId": "volume-key",
        },
        "StoppingCondition": { "MaxRuntimeInSeconds": 3600 },
        "VpcConfig": { "Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"] },
        "EnableInterContainerTrafficEncryption": false,
        "Tags": [{ "Key": "sagemaker-executor:session", "Value": "a" }],
    });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn create_tells_a_taken_name_from_a_quota_and_a_throttle() {
    let stub = Stub::start().await;
    let cases = [
        ("ResourceInUse", "Training job names must be unique", CloudErrorKind::Exists),
        ("ResourceLimitExceeded", "The account-level service limit 'x' is 0 Instances", CloudErrorKind::Quota),
        ("ThrottlingException", "Rate exceeded", CloudErrorKind::Throttled),
        ("com.amazonaws#ValidationException", "1 validation error detected", CloudErrorKind::Invalid),
        (
            "ValidationException",
            "1 validation error detected: Value 'ml.q1.large' at 'resourceConfig.instanceType' failed",
            CloudErrorKind::Refused(Parameter::InstanceType),
        ),
        (
            "ValidationException",
            "Could not assume role arn:aws:iam::1:role/x.",
            CloudErrorKind::Refused(Parameter::Role),
        ),
    ];
    for (code, message, kind) in cases {
        stub.push(refusal(400, code, message));
        let error = stub.jobs.create(&example_spec("a")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().starts_with("failed to create training job a: "), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn describe_reads_the_newest_transition_and_unknown_values() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        serde_json::json!({
            "TrainingJobName": "a", "TrainingJobArn": "arn", "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Levitating", "CreationTime": 1_700_000_000.5, "BillableTimeInSeconds": 12,
            "SecondaryStatusTransitions": [
                { "Status": "Starting", "StartTime": 1_700_000_001, "StatusMessage": "Launching" },
                { "Status": "Training", "StartTime": 1_700_000_100, "StatusMessage": "Downloading the image" },
            ],
        })
        .to_string(),
    ));
    let job = stub.jobs.describe("a").await.unwrap().unwrap();
    assert_eq!((job.status, job.secondary), (JobStatus::InProgress, SecondaryStatus::Other("Levitating".to_owned())));
    assert_eq!(job.message.as_deref(), Some("Downloading the image"));
    assert_eq!((job.billable_seconds, job.training_seconds), (Some(12), None));
    let created = job.created.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(created, Duration::from_millis(1_700_000_000_500));
}

#[tokio::test]
async fn an_unknown_job_is_none_and_a_stop_of_what_ended_is_success() {
    let stub = Stub::start().await;
    stub.push(refusal(400, "ValidationException", "Requested resource not found."));
    assert_eq!(stub.jobs.describe("a").await.unwrap(), None);
    stub.push(refusal(400, "ValidationException", "Requested resource not found."));
    stub.jobs.stop("a").await.unwrap();
    stub.push(refusal(400, "ValidationException", "The training job is in status Stopped. Cannot stop it."));
    stub.jobs.stop("a").await.unwrap();
    stub.push(refusal(400, "AccessDeniedException", "User: x is not authorized to perform: sagemaker:StopTrainingJob"));
    let error = stub.jobs.stop("a").await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "sagemaker:StopTrainingJob"));
}

#[tokio::test]
async fn a_list_of_jobs_follows_its_pages() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"TrainingJobSummaries":[{"TrainingJobName":"b","TrainingJobArn":"arn-b","CreationTime":2,"TrainingJobStatus":"Failed"}],"NextToken":"n"}"#,
    ));
    stub.push(reply(
        200,
        r#"{"TrainingJobSummaries":[{"TrainingJobName":"a","TrainingJobArn":"arn-a","CreationTime":1,"TrainingJobStatus":"New"}]}"#,
    ));
    let jobs = stub.jobs.list("gitlab").await.unwrap();
    let jobs: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.status)).collect();
    assert_eq!(jobs, [("b", JobStatus::Failed), ("a", JobStatus::Unknown)]);
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_keeps_no_credentials() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let access = Access {
        region: Some("eu-west-1".to_owned()),
        endpoint_url: Some(endpoint),
        bucket: "bucket".to_owned(),
        ..Access::default()
    };
    let error = jobs::AwsJobs::new(clients(&access, RetryConfig::disabled()).await).describe("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Transient);
    let text = error.to_string();
    assert!(text.starts_with("failed to describe training job a: "), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("test-secret") && !text.contains("AKIDTEST"), "{text}");
}

#[tokio::test]
async fn a_page_of_a_proxy_is_not_taken_for_an_answer() {
    let stub = Stub::start().await;
    stub.push(reply(502, "<html>password=hunter2</html>"));
    let error = stub.jobs.describe("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Transient);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn streams_of_all_pages_are_found_and_a_missing_group_has_none() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"logStreams":[{"logStreamName":"a/algo-1-1"},{"logStreamName":"a/algo-1-1/ssm"}],"nextToken":"n"}"#,
    ));
    stub.push(reply(200, r#"{"logStreams":[{"logStreamName":"a/algo-2-1"}]}"#));
    stub.push(refusal(400, "ResourceNotFoundException", "The specified log group does not exist."));
    assert_eq!(stub.logs.streams("a").await.unwrap(), ["a/algo-1-1", "a/algo-2-1"]);
    assert_eq!(stub.logs.streams("a").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_absent_key_is_none_and_an_absent_bucket_is_an_error() {
    let stub = Stub::start().await;
    stub.push(s3_refusal(404, "NoSuchKey"));
    assert_eq!(stub.objects.get("a").await.unwrap(), None);
    stub.push(s3_refusal(404, "NoSuchBucket"));
    let error = stub.objects.get("a").await.unwrap_err();
    assert!(error.to_string().contains("`storage.bucket`"), "{error}");
    assert_eq!(stub.seen()[0].uri.split('?').next(), Some("/bucket/pre/fix/a"));
}

#[tokio::test]
async fn put_if_absent_tells_who_was_first_and_tries_conflicts_again() {
    let stub = Stub::with(|access| access.kms_key_id = Some("key-1".to_owned())).await;
    stub.push(s3_refusal(412, "PreconditionFailed"));
    assert!(!stub.objects.put_if_absent("a", b"1".as_slice().into()).await.unwrap());
    stub.push(s3_refusal(409, "ConditionalRequestConflict"));
    stub.push(reply(200, ""));
    assert!(stub.objects.put_if_absent("a", b"1".as_slice().into()).await.unwrap());
    let seen = stub.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.if_none_match.as_deref() == Some("*") && seen.kms.as_deref() == Some("key-1")));
}

/// A body that promises `length` bytes, sends `bytes` and breaks off.
fn broken_body(length: usize, bytes: &'static [u8]) -> Response {
    let pieces = futures::stream::unfold(0, move |piece| async move {
        if piece == 0 {
            return Some((Ok(Bytes::from_static(bytes)), 1));
        }
        // The server flushes what it has while the body is not ready.
        tokio::task::yield_now().await;
        Some((Err(std::io::Error::other("cut")), 2))
    });
    Response::builder()
        .header("content-length", length)
        .header("etag", "\"tag\"")
        .body(Body::from_stream(pieces))
        .unwrap()
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let stub = Stub::start().await;
    stub.push(broken_body(10, b"01234"));
    stub.push(reply(200, "0123456789"));
    assert_eq!(stub.objects.get("a").await.unwrap().as_deref(), Some(&b"0123456789"[..]));
    stub.push(broken_body(4, b"3"));
    stub.push(reply(206, "3456"));
    assert_eq!(stub.objects.get_range("a", 3, 4).await.unwrap().as_deref(), Some(&b"3456"[..]));
    let ranges: Vec<_> = stub.seen().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, None, Some("bytes=3-6".to_owned()), Some("bytes=3-6".to_owned())]);
}

/// A file of zeros that is cut into two parts.
fn large_file(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(objects::PART_BYTES + 1).unwrap();
}

fn multipart_answer(seen: &Seen, part_two: u16) -> Option<Response> {
    match seen.method.as_str() {
        "POST" if seen.uri.contains("uploads") => {
            Some(reply(200, "<InitiateMultipartUploadResult><UploadId>up-1</UploadId></InitiateMultipartUploadResult>"))
        }
        "PUT" if part_two != 200 && seen.uri.contains("partNumber=2") => Some(s3_refusal(part_two, "AccessDenied")),
        "PUT" => Some(Response::builder().header("etag", "\"part\"").body(Body::empty()).unwrap()),
        "POST" => Some(reply(200, "<CompleteMultipartUploadResult/>")),
        "DELETE" => Some(reply(204, "")),
        _ => None,
    }
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let stub = Stub::start().await;
    stub.answer(|seen| multipart_answer(seen, 200));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    stub.objects.put_file("a", &path).await.unwrap();
    let seen = stub.seen();
    let last = seen.last().unwrap();
    let body = String::from_utf8_lossy(&last.body);
    assert!(last.method == "POST" && last.uri.contains("uploadId=up-1"), "{}", last.uri);
    let order: Vec<_> = body.match_indices("<PartNumber>").map(|(at, tag)| &body[at + tag.len()..][..1]).collect();
    assert_eq!(order, ["1", "2"]);
    assert!(seen.iter().all(|seen| seen.method != "DELETE"));
}

#[tokio::test]
async fn an_upload_that_was_completed_before_its_reply_was_lost_is_a_success() {
    let stub = Stub::start().await;
    stub.answer(|seen| match seen.method.as_str() {
        "POST" if seen.uri.contains("uploadId") => Some(s3_refusal(404, "NoSuchUpload")),
        "HEAD" => {
            Some(Response::builder().header("content-length", objects::PART_BYTES + 1).body(Body::empty()).unwrap())
        }
        _ => multipart_answer(seen, 200),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    stub.objects.put_file("a", &path).await.unwrap();
    assert_eq!(stub.seen().last().unwrap().method, "HEAD");
}

#[tokio::test]
async fn an_upload_whose_success_cannot_be_read_is_looked_at() {
    for (there, succeeds) in [(objects::PART_BYTES + 1, true), (objects::PART_BYTES, false)] {
        let stub = Stub::start().await;
        stub.answer(move |seen| match seen.method.as_str() {
            "POST" if seen.uri.contains("uploadId") => {
                Some(reply(200, "<SomethingElse><ETag>x</ETag></SomethingElse>"))
            }
            "HEAD" => Some(Response::builder().header("content-length", there).body(Body::empty()).unwrap()),
            _ => multipart_answer(seen, 200),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        large_file(&path);
        assert_eq!(stub.objects.put_file("a", &path).await.is_ok(), succeeds);
    }
}

#[tokio::test]
async fn a_404_without_a_code_is_an_absent_object_and_an_absent_bucket_is_an_error() {
    let stub = Stub::start().await;
    stub.push(reply(404, ""));
    assert_eq!(stub.objects.get("a").await.unwrap(), None);
    stub.push(s3_refusal(404, "NoSuchBucket"));
    assert!(stub.objects.get("a").await.is_err());
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted() {
    let stub = Stub::start().await;
    stub.answer(|seen| multipart_answer(seen, 403));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    let error = stub.objects.put_file("a", &path).await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "s3:PutObject"));
    let last = stub.seen().pop().unwrap();
    assert!(last.method == "DELETE" && last.uri.contains("uploadId=up-1"), "{last:?}");
}

/// A container may store anything under a key that the host reads.
#[tokio::test]
async fn an_object_that_would_fill_the_memory_is_refused() {
    let stub = Stub::start().await;
    stub.push(reply(200, vec![b'x'; 100]));
    assert_eq!(stub.objects.get("a").await.unwrap().map(|body| body.len()), Some(100));
    stub.push(reply(200, vec![0; usize::try_from(MOST_BYTES).unwrap() + 1]));
    let error = stub.objects.get("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Other);
    assert!(error.to_string().contains("at most 67108864 are read"), "{error}");
}

#[tokio::test]
async fn a_list_is_relative_to_the_prefix_and_follows_its_pages() {
    let stub = Stub::start().await;
    let page = |key: &str, more: &str| {
        reply(200, format!("<ListBucketResult>{more}<Contents><Key>pre/fix/{key}</Key></Contents></ListBucketResult>"))
    };
    stub.push(page("s/1", "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"));
    stub.push(page("s/2", ""));
    assert_eq!(stub.objects.list("s/").await.unwrap(), ["s/1", "s/2"]);
    assert!(stub.seen()[0].uri.contains("prefix=pre%2Ffix%2Fs%2F"), "{:?}", stub.seen());
}

#[tokio::test]
async fn errors_inside_a_deletion_are_errors_and_passing_ones_are_tried_again() {
    let stub = Stub::start().await;
    let failed = |code: &str| {
        reply(200, format!("<DeleteResult><Error><Key>pre/fix/a</Key><Code>{code}</Code></Error></DeleteResult>"))
    };
    let keys = ["a".to_owned(), "b".to_owned()];
    stub.push(failed("SlowDown"));
    stub.push(reply(200, "<DeleteResult/>"));
    stub.objects.delete(&keys).await.unwrap();
    let again = String::from_utf8_lossy(&stub.seen()[1].body).into_owned();
    assert!(again.contains("pre/fix/a") && !again.contains("pre/fix/b"), "{again}");
    stub.push(failed("AccessDenied"));
    let error = stub.objects.delete(&keys).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Denied);
    assert!(error.to_string().contains("s3://bucket/pre/fix/a"), "{error}");
}

#[tokio::test]
async fn more_keys_than_a_batch_takes_go_in_several() {
    let stub = Stub::start().await;
    stub.answer(|_| Some(reply(200, "<DeleteResult/>")));
    let keys: Vec<String> = (0..1001).map(|number| format!("k{number}")).collect();
    stub.objects.delete(&keys).await.unwrap();
    assert_eq!(stub.seen().len(), 2);
    stub.objects.delete(&[]).await.unwrap();
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn events_of_several_streams_come_with_time_id_and_token() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"events":[{"logStreamName":"a/algo-1-1","timestamp":5,"ingestionTime":9,"eventId":"e1","message":"x\n y"},
            {"logStreamName":"b/algo-1-1","timestamp":6,"ingestionTime":8,"eventId":"e2","message":"z"}],"nextToken":"n"}"#,
    ));
    stub.push(reply(200, r#"{"events":[]}"#));
    let streams = ["a/algo-1-1".to_owned(), "b/algo-1-1".to_owned()];
    let first = stub.logs.filter(&streams, 4, None).await.unwrap();
    let event = |stream: &str, timestamp, id: &str, message: &str| LogEvent {
        stream: stream.to_owned(),
        timestamp,
        id: id.to_owned(),
        message: message.to_owned(),
    };
    assert_eq!(first.events, [event("a/algo-1-1", 5, "e1", "x\n y"), event("b/algo-1-1", 6, "e2", "z")]);
    assert_eq!((first.ingested, first.token.as_deref()), (Some(9), Some("n")));
    assert_eq!(stub.logs.filter(&streams, 4, Some("n")).await.unwrap(), FilterPage::default());
    let seen = stub.seen();
    let sent: serde_json::Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(sent["logStreamNames"], serde_json::json!(streams));
    assert_eq!((&sent["startTime"], &sent["nextToken"]), (&4.into(), &"n".into()));
}

#[tokio::test]
async fn a_throttled_read_of_logs_is_one_request() {
    let stub = Stub::start_with_retries().await;
    stub.answer(|_| Some(refusal(400, "ThrottlingException", "Rate exceeded")));
    let streams = ["a/algo-1-1".to_owned()];
    let kinds = [
        stub.logs.filter(&streams, 0, None).await.unwrap_err().kind,
        stub.logs.streams("a").await.unwrap_err().kind,
        stub.logs.newest_streams(None).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [CloudErrorKind::Throttled; 3]);
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn the_newest_streams_of_all_jobs_are_listed_without_debug_streams() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"logStreams":[{"logStreamName":"b/algo-1-1"},{"logStreamName":"a/algo-1-1/ssm"}],"nextToken":"n"}"#,
    ));
    stub.push(refusal(400, "ResourceNotFoundException", "The specified log group does not exist."));
    let page = stub.logs.newest_streams(None).await.unwrap();
    assert_eq!((page.streams, page.token.as_deref()), (vec!["b/algo-1-1".to_owned()], Some("n")));
    assert_eq!(stub.logs.newest_streams(Some("n")).await.unwrap(), StreamPage::default());
    assert!(String::from_utf8_lossy(&stub.seen()[0].body).contains("LastEventTime"));
}
