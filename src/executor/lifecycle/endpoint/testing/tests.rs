//! Loads in simulated time, against an endpoint that does as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::asynchronous::AsynchronousWay;
use super::load::{LoadShape, send_load};
use super::sample::EndpointSample;
use super::sending::Sender;
use super::verdict::{TestLimits, TestVerdict, TestedEndpoint};
use crate::cloud::testing::Memory;
use crate::cloud::{
    Access, AsynchronousOutput, AsynchronousPlaces, AsynchronousRequest, CloudError, CloudErrorKind, EndpointState,
    Inference, InferenceReply, InferenceRequest,
};
use crate::lifecycle::output::Data as _;

/// Time and answer of a request, by its number from 0 on and its body.
type Behavior = fn(usize, &str) -> (u64, Result<InferenceReply, CloudErrorKind>);

/// An endpoint that does as the test says.
struct ScriptedEndpoint {
    behavior: Behavior,
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    objects: Memory,
}

#[async_trait]
impl Inference for ScriptedEndpoint {
    async fn invoke(&self, request: &InferenceRequest) -> Result<InferenceReply, CloudError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        let (milliseconds, answer) = (self.behavior)(number, std::str::from_utf8(&request.body).unwrap());
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        answer.map_err(error)
    }

    async fn invoke_later(&self, request: &AsynchronousRequest) -> Result<AsynchronousPlaces, CloudError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let key = request.input.strip_prefix("s3://memory/").unwrap();
        let body = String::from_utf8(self.objects.objects.contents(key).unwrap()).unwrap();
        let (milliseconds, answer) = (self.behavior)(number, &body);
        let [output, failure] = ["answers", "failures"].map(|folder| format!("{folder}/{number}"));
        let objects = Arc::clone(&self.objects.objects);
        let places = [&output, &failure].map(|key| format!("s3://memory/{key}"));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            match answer {
                Ok(InferenceReply::Answer { body, .. }) => objects.insert(&output, body),
                Ok(InferenceReply::ModelError { message, .. }) => objects.insert(&failure, message),
                _ => {}
            }
        });
        let [output, failure] = places;
        Ok(AsynchronousPlaces { output, failure: Some(failure) })
    }
}

fn error(kind: CloudErrorKind) -> CloudError {
    CloudError { kind, operation: "invoke endpoint wine".to_owned(), message: "planned".to_owned(), action: "a:B" }
}

#[expect(clippy::unnecessary_wraps, reason = "other behaviors fail")]
fn answer(body: &str) -> Result<InferenceReply, CloudErrorKind> {
    Ok(InferenceReply::Answer { content_type: "text/plain".to_owned(), body: body.to_owned().into() })
}

#[expect(clippy::unnecessary_wraps, reason = "other behaviors fail")]
fn failing(status: u16) -> Result<InferenceReply, CloudErrorKind> {
    Ok(InferenceReply::ModelError { status: Some(status), message: "boom".to_owned() })
}

/// A sample for each body with its rules.
fn samples(rows: &[(&str, Value)]) -> Vec<EndpointSample> {
    let sample = |(body, expect): &(&str, Value)| EndpointSample {
        name: format!("sample {body}"),
        content_type: "text/csv".to_owned(),
        accept: None,
        body: (*body).to_owned().into(),
        expect: serde_json::from_value(expect.clone()).unwrap(),
    };
    rows.iter().map(sample).collect()
}

struct Test {
    endpoint: Arc<ScriptedEndpoint>,
    sender: Sender,
    tested: TestedEndpoint,
    shape: LoadShape,
    limits: TestLimits,
}

impl Test {
    fn new(behavior: Behavior) -> Self {
        let endpoint = Arc::new(ScriptedEndpoint {
            behavior,
            requests: AtomicUsize::default(),
            at_once: AtomicUsize::default(),
            most_at_once: AtomicUsize::default(),
            objects: Memory::new(),
        });
        let inference: Arc<dyn Inference> = endpoint.clone();
        let sender = Sender::new(inference, "wine".to_owned(), None, None);
        let shape = LoadShape { warm_up: 0, requests: 1, concurrency: 1 };
        let (name, config) = ("wine".to_owned(), "wine-1".to_owned());
        let tested = TestedEndpoint { name, state: EndpointState::InService, config, pending: None };
        Self { endpoint, sender, tested, shape, limits: TestLimits::default() }
    }

    fn load(mut self, warm_up: usize, requests: usize, concurrency: usize) -> Self {
        self.shape = LoadShape { warm_up, requests, concurrency };
        self
    }

    fn within(mut self, limit: Duration) -> Self {
        self.sender = Sender::new(self.endpoint.clone(), "wine".to_owned(), None, Some(limit));
        self
    }

    async fn asynchronous(mut self) -> Self {
        let places = AsynchronousOutput {
            output: "s3://memory/answers".to_owned(),
            failures: Some("s3://memory/failures".to_owned()),
            max_concurrent: None,
            kms_key_id: None,
        };
        let way = AsynchronousWay::connect(&self.endpoint.objects, &Access::default(), &places).await.unwrap();
        self.sender.asynchronous = Some(way);
        self
    }

    async fn run(&self, rows: &[(&str, Value)]) -> Result<TestVerdict, CloudError> {
        let samples = samples(rows);
        let load = send_load(&self.sender, &samples, self.shape, |_| {}).await?;
        Ok(TestVerdict::new(self.tested.clone(), &samples, load, self.shape.concurrency, self.limits))
    }
}

fn as_json(verdict: &TestVerdict) -> Value {
    serde_json::to_value(verdict).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_go_out_as_many_at_once_as_wanted() {
    let test = Test::new(|number, body| (if number == 0 { 500 } else { 10 }, answer(body))).load(1, 100, 4);
    let verdict = test.run(&[("a", json!({"equals": "a"})), ("b", json!({"equals": "b"}))]).await.unwrap();
    assert!(verdict.is_good());
    assert_eq!(test.endpoint.most_at_once.load(Ordering::Relaxed), 4);
    let json = as_json(&verdict);
    assert_eq!(
        json["requests"],
        json!({"sent": 100, "errors": 0, "error_rate": 0.0, "concurrency": 4,
        "per_second": 400.0, "not_ready": 0})
    );
    // Tokio's timers have a resolution of one millisecond.
    assert_eq!(json["latency_ms"], json!({"first": 500.0, "p50": 10.0, "p95": 10.0, "p99": 10.0, "max": 10.0}));
    assert_eq!(json["samples"][1]["requests"], 50);
    insta::assert_snapshot!(verdict.text(), @r"
     Sample    Requests  Result
     sample a  50        passed
     sample b  50        passed

     Limit            Value  Result
     error rate <= 0  0      passed

    Latency: first 500 ms, p50 10 ms, p95 10 ms, p99 10 ms, max 10 ms
    Requests: 100, 4 at once, 400.0 answers a second
    ");
    assert_eq!(verdict.conclude().unwrap(), "The endpoint wine passes the test: 2 of 2 samples hold");
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_serverless_container_is_told_apart() {
    let behavior: Behavior = |number, _| (20, if number < 3 { Ok(InferenceReply::NotReady) } else { answer("") });
    let mut test = Test::new(behavior).load(1, 10, 1);
    test.limits.max_p95_ms = Some(20.0);
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(verdict.is_good(), "{}", verdict.text());
    let json = as_json(&verdict);
    assert_eq!((&json["latency_ms"]["first"], &json["latency_ms"]["max"]), (&json!(1580.0), &json!(20.0)));
    assert_eq!(json["requests"]["not_ready"], 3);
    let test = Test::new(|_, _| (0, Ok(InferenceReply::NotReady)));
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert_eq!(
        verdict.reason().unwrap(),
        "the sample `sample a` does not hold (the model was not ready in time); 1 more do not hold"
    );
}

#[tokio::test(start_paused = true)]
async fn single_errors_are_judged_by_their_share_and_wrong_answers_are_not() {
    let behavior: Behavior = |number, _| (1, if number % 10 == 9 { failing(503) } else { answer("1") });
    let mut test = Test::new(behavior).load(0, 100, 3);
    test.limits.max_error_rate = 0.1;
    assert!(test.run(&[("a", json!({"equals": 1}))]).await.unwrap().is_good());
    test.limits.max_error_rate = 0.09;
    let verdict = test.run(&[("a", json!({"equals": 1}))]).await.unwrap();
    let reason = "the limit `error rate <= 0.09` does not hold (10 of 100 requests failed; the first: the model answered status 503: boom)";
    assert_eq!(verdict.reason().unwrap(), reason);
    let one_wrong: Behavior = |number, _| (1, answer(if number == 77 { "2" } else { "1" }));
    let mut test = Test::new(one_wrong).load(0, 100, 1);
    test.limits.max_error_rate = 1.0;
    let verdict = test.run(&[("a", json!({"equals": 1}))]).await.unwrap();
    assert_eq!(verdict.reason().unwrap(), "the sample `sample a` does not hold (the answer is 2, not 1)");
    assert_eq!(as_json(&verdict)["samples"][0]["wrong"], 1);
    let none_right: Behavior = |_, body| (1, if body == "a" { failing(500) } else { answer("1") });
    let mut test = Test::new(none_right).load(0, 2, 1);
    test.limits.max_error_rate = 1.0;
    let verdict = test.run(&[("a", json!({})), ("b", json!({}))]).await.unwrap();
    assert_eq!(verdict.reason().unwrap(), "the sample `sample a` does not hold (the model answered status 500: boom)");
}

#[tokio::test(start_paused = true)]
async fn slow_answers_break_limits() {
    let mut test = Test::new(|number, _| (if number >= 90 { 300 } else { 100 }, answer(""))).load(0, 100, 1);
    test.limits.max_p95_ms = Some(299.9);
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert_eq!(verdict.reason().unwrap(), "the limit `p95 <= 299.9 ms` does not hold (it is 300)");
    let verdict = test.run(&[("a", json!({"max_ms": 299}))]).await.unwrap();
    assert!(verdict.reason().unwrap().contains("(the answer took 300 ms, above 299 ms)"), "{}", verdict.text());
    let test = Test::new(|_, _| (61_000, answer("")));
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(verdict.reason().unwrap().contains("(no answer within 60 s)"), "{}", verdict.text());
    assert_eq!(as_json(&verdict)["latency_ms"]["p95"], 60_000.0);
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_answer_in_time_count_with_the_time_that_was_waited() {
    let behavior: Behavior = |number, _| (if number % 2 == 0 { 2_000 } else { 25 }, answer(""));
    let mut test = Test::new(behavior).load(0, 100, 1).within(Duration::from_secs(1));
    test.limits = TestLimits { max_p95_ms: Some(500.0), max_error_rate: 0.6 };
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert_eq!(verdict.reason().unwrap(), "the limit `p95 <= 500 ms` does not hold (it is 1000)");
    // Of the container too: SageMaker answers for it after 60 s, with the status 0.
    let behavior: Behavior = |number, _| if number % 2 == 0 { (59_990, failing(0)) } else { (25, answer("")) };
    let mut test = Test::new(behavior).load(0, 100, 1);
    test.limits = TestLimits { max_p95_ms: Some(500.0), max_error_rate: 0.6 };
    assert!(!test.run(&[("a", json!({}))]).await.unwrap().is_good());
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_ready_within_the_limit_of_the_request_or_not_at_all() {
    let mut test = Test::new(|_, _| (10, Ok(InferenceReply::NotReady))).within(Duration::from_secs(5));
    test.limits.max_p95_ms = Some(4_999.0);
    let begun = tokio::time::Instant::now();
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(verdict.reason().unwrap().contains("(the model was not ready in time)"), "{}", verdict.text());
    assert_eq!(as_json(&verdict)["latency_ms"]["p95"], 5_000.0);
    // The answer of a container that got ready has the rest of the time.
    let behavior: Behavior =
        |number, _| if number == 0 { (3_000, Ok(InferenceReply::NotReady)) } else { (3_000, answer("")) };
    let test = Test::new(behavior).within(Duration::from_secs(5));
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(verdict.reason().unwrap().contains("(no answer within 5 s)"), "{}", verdict.text());
}

#[tokio::test(start_paused = true)]
async fn an_update_makes_it_unknown_which_configuration_answered() {
    let mut test = Test::new(|_, _| (1, answer("")));
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert_eq!(as_json(&verdict)["ambiguity"], Value::Null);
    test.tested.state = EndpointState::Updating;
    test.tested.pending = Some("wine-2".to_owned());
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    let line = "The endpoint wine was Updating when the test began: wine-1 or wine-2 answered";
    assert_eq!(as_json(&verdict)["ambiguity"], line);
    assert!(verdict.text().ends_with(line), "{}", verdict.text());
    test.tested.pending = None;
    test.tested.state = EndpointState::RollingBack;
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(verdict.text().ends_with("wine-1 or another configuration answered"), "{}", verdict.text());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_of_the_endpoint_ends_the_test() {
    let test = Test::new(|_, _| (1, Err(CloudErrorKind::Denied)));
    assert_eq!(test.run(&[("a", json!({}))]).await.unwrap_err().kind, CloudErrorKind::Denied);
    let test = Test::new(|_, _| (1, Err(CloudErrorKind::Throttled)));
    assert!(!test.run(&[("a", json!({}))]).await.unwrap().is_good());
}

#[tokio::test(start_paused = true)]
async fn asynchronous_answers_are_read_and_nothing_is_left() {
    let behavior: Behavior = |_, body| (5_000, if body == "bad" { failing(500) } else { answer("7") });
    let test = Test::new(behavior).load(1, 4, 2).asynchronous().await;
    let verdict = test.run(&[("good", json!({"equals": 7})), ("bad", json!({}))]).await.unwrap();
    let reason = "the sample `sample bad` does not hold (the model answered an error: boom); 1 more do not hold";
    assert_eq!(verdict.reason().unwrap(), reason);
    assert_eq!(as_json(&verdict)["samples"][0]["result"], "passed");
    assert_eq!(test.endpoint.objects.objects.keys(), [""; 0]);
    let never: Behavior = |_, _| (5_000, Ok(InferenceReply::NotReady));
    let test = Test::new(never).asynchronous().await;
    let verdict = test.run(&[("a", json!({}))]).await.unwrap();
    assert!(verdict.reason().unwrap().contains("(no answer within 60 s)"), "{}", verdict.text());
    assert_eq!(test.endpoint.objects.objects.keys(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_left_as_junit_and_openmetrics() {
    let mut test = Test::new(|_, body| (10, if body == "a" { answer("\u{1b}[2K") } else { answer("1") })).load(0, 4, 1);
    test.limits.max_p95_ms = Some(10.0);
    let verdict = test.run(&[("a", json!({"equals": 1})), ("b", json!({"equals": 1}))]).await.unwrap();
    insta::assert_snapshot!(verdict.text(), @r"
     Sample    Requests  Result
     sample a  2         failed: the answer `\x1b[2K` is no JSON: expected value at line 1 column 1
     sample b  2         passed

     Limit            Value  Result
     error rate <= 0  0      passed
     p95 <= 10 ms     10     passed

    Latency: first 10 ms, p50 10 ms, p95 10 ms, p99 10 ms, max 10 ms
    Requests: 4, 1 at once, 100.0 answers a second
    ");
    insta::assert_snapshot!(verdict.junit().unwrap(), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="sagemaker-executor" tests="4" skipped="0" failures="1" errors="0">
        <testsuite name="endpoint test" tests="4" skipped="0" errors="0" failures="1">
            <testcase name="sample a" classname="sample">
                <failure message="the answer `\x1b[2K` is no JSON: expected value at line 1 column 1">sample a: the answer `\x1b[2K` is no JSON: expected value at line 1 column 1</failure>
            </testcase>
            <testcase name="sample b" classname="sample"/>
            <testcase name="error rate &lt;= 0" classname="limit"/>
            <testcase name="p95 &lt;= 10 ms" classname="limit"/>
        </testsuite>
    </testsuites>
    "#);
    insta::assert_snapshot!(verdict.openmetrics(), @r"
    # TYPE endpoint_test_passed gauge
    endpoint_test_passed 0
    # TYPE endpoint_test_requests gauge
    endpoint_test_requests 4
    # TYPE endpoint_test_error_rate gauge
    endpoint_test_error_rate 0
    # TYPE endpoint_test_requests_per_second gauge
    endpoint_test_requests_per_second 100
    # TYPE endpoint_test_first_latency_ms gauge
    endpoint_test_first_latency_ms 10
    # TYPE endpoint_test_latency_p50_ms gauge
    endpoint_test_latency_p50_ms 10
    # TYPE endpoint_test_latency_p95_ms gauge
    endpoint_test_latency_p95_ms 10
    # TYPE endpoint_test_latency_p99_ms gauge
    endpoint_test_latency_p99_ms 10
    # TYPE endpoint_test_latency_max_ms gauge
    endpoint_test_latency_max_ms 10
    # EOF
    ");
    let failure = verdict.conclude().unwrap_err();
    assert_eq!(failure.kind, crate::base::failure::Kind::Verdict { code: 10 });
}
