//! A line of the program's log for each request to AWS: operation, object, answer, duration, request ID. No header, body or credential, and
//! no part of a key that is hard to guess: who knows it may read what is there. Counts the requests for the metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use executor::metrics;
use executor::ui::operator_log::API;
use serde_json::Value;

/// Members of requests that name an object.
const NAMES: [&str; 14] = [
    "SecretId",
    "repositoryName",
    "TrainingJobName",
    "ModelPackageGroupName",
    "ModelPackageName",
    "ModelPackageArn",
    "ModelName",
    "EndpointConfigName",
    "EndpointName",
    "ResourceId",
    "ResourceArn",
    "NameContains",
    "logGroupName",
    "logStreamNamePrefix",
];
/// Headers with the ID of a request.
const REQUEST_IDS: [&str; 2] = ["x-amzn-requestid", "x-amz-request-id"];
/// Words in the codes of throttled requests.
const THROTTLED: [&str; 4] = ["Throttl", "TooManyRequests", "SlowDown", "RequestLimitExceeded"];
/// As many hex digits in a row are not shown.
const SECRET_DIGITS: usize = 16;

/// The same request with the same answer has one line within this time.
const REPEATED: Duration = Duration::from_mins(1);
/// Most kinds of calls whose repeats are counted.
const MOST_KINDS: usize = 256;

/// Logs the requests of a client, at the level `debug`.
#[derive(Debug, Default)]
pub(super) struct CallLog(Mutex<Repeats>);

/// Calls of which the last minute had a line: when, and how many without one came since.
#[derive(Debug, Default)]
struct Repeats(BTreeMap<String, (Instant, u32)>);

impl Repeats {
    /// The number of equal calls since the last line, when this call is due to have one.
    fn due(&mut self, call: &str, now: Instant) -> Option<u32> {
        if let Some((told, untold)) = self.0.get_mut(call) {
            if now.duration_since(*told) < REPEATED {
                *untold += 1;
                return None;
            }
            *told = now;
            return Some(std::mem::take(untold));
        }
        if self.0.len() >= MOST_KINDS {
            self.0.retain(|_, (told, _)| now.duration_since(*told) < REPEATED);
        }
        if self.0.len() < MOST_KINDS {
            self.0.insert(call.to_owned(), (now, 0));
        }
        Some(0)
    }
}

/// The attempt under way.
#[derive(Debug)]
struct Attempt {
    number: u32,
    begun: Instant,
    object: String,
}

impl Storable for Attempt {
    type Storer = StoreReplace<Self>;
}

impl Intercept for CallLog {
    fn name(&self) -> &'static str {
        "CallLog"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_logged =
            tracing::enabled!(tracing::Level::DEBUG) || tracing::enabled!(target: API, tracing::Level::INFO);
        if is_logged || metrics::is_on() {
            let number = bag.load::<Attempt>().map_or(0, |attempt| attempt.number) + 1;
            let object = object(context.request());
            bag.interceptor_state().store_put(Attempt { number, begun: Instant::now(), object });
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // A request that could not be signed has no attempt.
        if let Some(attempt) = bag.load::<Attempt>() {
            let names = bag.load::<Metadata>().map(|call| (call.service(), call.name())).unwrap_or_default();
            count(names, attempt, context.response());
            let (operation, object) = (format!("{} {}", names.0, names.1), &attempt.object);
            let call = format!("{operation}{object}: {}", status(context.response()));
            // A panic elsewhere leaves the counts whole.
            let due = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).due(&call, Instant::now());
            if let Some(untold) = due {
                let equal = if untold > 0 { format!(", and {untold} more like it before") } else { String::new() };
                tracing::debug!("{call}{}{equal}", answer(context.response(), attempt));
            }
        }
        Ok(())
    }
}

/// Counts the request, and logs its fields: at the level `info` when it changes something outside the bucket, or was not answered as hoped.
fn count((service, operation): (&str, &str), attempt: &Attempt, response: Option<&HttpResponse>) {
    let (outcome, seconds) = (outcome(response), attempt.begun.elapsed().as_secs_f64());
    metrics::add(&metrics::API_CALLS, &[service, operation, outcome], 1.0);
    metrics::observe(&metrics::API_SECONDS, &[service], seconds);
    let status = response.map(|response| response.status().as_u16());
    let (object, request, number) = (attempt.object.trim(), request_id(response), attempt.number);
    let reads = ["Get", "Head", "List", "Describe", "Filter"].iter().any(|verb| operation.starts_with(verb));
    let is_usual = matches!(outcome, "ok" | "absent") && (reads || service == "S3");
    let duration_ms = u64::try_from(attempt.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if is_usual {
        tracing::debug!(target: API, service, operation, object, outcome, status, duration_ms, attempt = number, request, "request to AWS");
    } else {
        tracing::info!(target: API, service, operation, object, outcome, status, duration_ms, attempt = number, request, "request to AWS");
    }
}

/// The class of an answer: a label of the metric.
fn outcome(response: Option<&HttpResponse>) -> &'static str {
    let Some(response) = response else { return "no_answer" };
    let body = response.body().bytes().unwrap_or_default();
    let says = |word: &str| body.windows(word.len()).any(|part| part == word.as_bytes());
    match response.status().as_u16() {
        200..=399 => "ok",
        404 => "absent",
        429 | 503 => "throttled",
        400.. if THROTTLED.iter().any(|word| says(word)) => "throttled",
        401 | 403 => "denied",
        400 if says("AccessDenied") => "denied",
        500.. => "failed",
        _ => "refused",
    }
}

fn request_id(response: Option<&HttpResponse>) -> Option<&str> {
    response.and_then(|response| REQUEST_IDS.iter().find_map(|name| response.headers().get(*name)))
}

fn status(response: Option<&HttpResponse>) -> String {
    response.map_or_else(|| "no answer".to_owned(), |response| response.status().as_u16().to_string())
}

fn answer(response: Option<&HttpResponse>, attempt: &Attempt) -> String {
    let milliseconds = attempt.begun.elapsed().as_millis();
    let id = request_id(response).map(|id| format!(", request {id}")).unwrap_or_default();
    let retry = if attempt.number > 1 { format!(", attempt {}", attempt.number) } else { String::new() };
    format!(" after {milliseconds} ms{id}{retry}")
}

/// The object of a request: its path, or its members that name one.
fn object(request: &HttpRequest) -> String {
    let uri = request.uri().split('?').next().unwrap_or_default();
    let path = uri.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    // A request with a path has the user's own body.
    let body = request.body().bytes().filter(|_| path.is_empty());
    let body: Option<Value> = body.and_then(|body| serde_json::from_slice(body).ok());
    let names = NAMES.iter().filter_map(|name| body.as_ref()?.get(name)?.as_str());
    let words = std::iter::once(path).chain(names).filter(|text| !text.is_empty());
    let words: Vec<String> = words.map(|text| format!(" {}", guessable(text))).collect();
    words.concat()
}

/// The text with `...` for each long row of hex digits: the places of sessions and projects.
fn guessable(text: &str) -> String {
    let mut shown = String::new();
    for part in text.split_inclusive(|char: char| !char.is_ascii_hexdigit()) {
        let digits = part.trim_end_matches(|char: char| !char.is_ascii_hexdigit());
        let rest = part.get(digits.len()..).unwrap_or_default();
        shown.push_str(if digits.len() < SECRET_DIGITS { digits } else { "..." });
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_sessions_and_projects_are_not_shown() {
        let token = "0123456789abcdef0123456789abcdef";
        for (key, shown) in [
            (
                format!("ci/sme/sessions/gitlab-1-2-0123abcd/{token}/orders/000001.json"),
                "ci/sme/sessions/gitlab-1-2-0123abcd/.../orders/000001.json",
            ),
            (format!("ci/sme/projects/231-{token}/packs/{token}"), "ci/sme/projects/231-.../packs/..."),
            ("gitlab-231-4711-0123abcd".to_owned(), "gitlab-231-4711-0123abcd"),
            (token.to_uppercase(), "..."),
            (String::new(), ""),
        ] {
            assert_eq!(guessable(&key), shown);
        }
    }

    #[test]
    fn answers_have_a_class() {
        let of = |status: u16, body: &'static str| {
            let response = HttpResponse::new(status.try_into().unwrap(), body.into());
            outcome(Some(&response))
        };
        assert_eq!(outcome(None), "no_answer");
        assert_eq!([of(200, ""), of(304, ""), of(404, ""), of(503, "SlowDown")], ["ok", "ok", "absent", "throttled"]);
        assert_eq!(of(400, r#"{"__type":"ThrottlingException"}"#), "throttled");
        assert_eq!(of(400, r#"{"__type":"AccessDeniedException"}"#), "denied");
        assert_eq!([of(403, ""), of(400, ""), of(412, ""), of(500, "")], ["denied", "refused", "refused", "failed"]);
    }

    #[test]
    fn equal_calls_have_a_line_a_minute() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let mut due = |call: &str, second| repeats.due(call, start + Duration::from_secs(second));
        assert_eq!([0, 1, 30, 59].map(|second| due("S3 GetObject a: 404", second)), [Some(0), None, None, None]);
        assert_eq!(due("S3 GetObject a: 200", 59), Some(0), "another answer");
        assert_eq!([60, 61, 121].map(|second| due("S3 GetObject a: 404", second)), [Some(3), None, Some(1)]);
        for number in 0..2 * MOST_KINDS {
            assert_eq!(due(&number.to_string(), 122), Some(0));
        }
        assert!(repeats.0.len() <= MOST_KINDS);
    }

    #[test]
    fn the_object_of_a_request_is_its_path_or_its_name() {
        let mut request = HttpRequest::new(r#"{"TrainingJobName": "a", "Environment": {"S": "s3cret"}}"#.into());
        request.set_uri("https://api.sagemaker.eu-west-1.amazonaws.com/").unwrap();
        assert_eq!(object(&request), " a");
        let mut request = HttpRequest::new(r#"{"EndpointName": "s3cret"}"#.into());
        request.set_uri("http://127.0.0.1:1/bucket/key?X-Amz-Signature=s3cret").unwrap();
        assert_eq!(object(&request), " bucket/key");
        let attempt = Attempt { number: 2, begun: Instant::now(), object: String::new() };
        let answer = answer(None, &attempt);
        assert!(answer.starts_with(" after ") && answer.ends_with(" ms, attempt 2"), "{answer}");
    }
}
