//! Makes a [`GitLabError`] from a failed call: its kind, and GitLab's message in a form that is safe to print.
//!
//! GitLab's text keeps no token: a server that repeats the request's headers in its answer must not show it in a job log.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executor::base::clock::Clock;
use executor::base::plain;
use executor::gitlab::api::{GitLabError, GitLabErrorKind};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::repetition::{Failed, Fate};

/// Most bytes of GitLab's message that are shown.
const MOST_SHOWN: usize = 600;

/// The context of a call for its errors.
#[derive(Clone)]
pub(super) struct GitLabCall {
    /// Verb, noun and name: `upload model/1/model.zip`.
    operation: String,
    token: Arc<str>,
}

impl GitLabCall {
    pub(super) fn new(operation: String, token: Arc<str>) -> Self {
        Self { operation, token }
    }

    /// `false` for documents that everybody may read. The text in place of a token then holds control characters, and no token does.
    fn has_token(&self) -> bool {
        !self.token.contains(char::is_control)
    }

    /// A text without the token. It comes before every cut: a part of a token would not be found any more.
    fn masked(&self, text: &str) -> String {
        text.replace(&*self.token, "[MASKED]")
    }

    pub(super) fn error(&self, kind: GitLabErrorKind, message: &str) -> GitLabError {
        let shown = |text: &str, most| plain::line(&self.masked(text), most);
        GitLabError { kind, operation: shown(&self.operation, MOST_SHOWN), message: shown(message, MOST_SHOWN) }
    }

    /// An answer of a form that GitLab does not send.
    pub(super) fn odd(&self, what: &str) -> GitLabError {
        self.error(GitLabErrorKind::Invalid, &format!("the answer is not one that GitLab sends: {what}"))
    }

    /// An answer with an error status.
    pub(super) fn refused(&self, status: StatusCode, body: &[u8], pause: Option<Duration>) -> Failed {
        let code = status.as_u16();
        let said = self.masked(&message(body));
        let kind = kind(code, &said);
        let mut text = match said.as_str() {
            "" => format!("HTTP {code}"),
            said if said.starts_with(status.as_str()) => format!("HTTP {said}"),
            said => format!("HTTP {code}: {said}"),
        };
        if let Some(pause) = pause {
            text = format!("{}; the server asks for a pause of {} s", plain::line(&text, MOST_SHOWN), pause.as_secs());
        }
        let fate = match code {
            429 => Fate::Throttled(pause),
            502..=504 => Fate::Lost(pause),
            _ => Fate::Answered,
        };
        Failed { error: self.error(kind, &text), fate }
    }

    /// A redirect. It is not followed: the token would go to another address, and an upload would be sent twice.
    pub(super) fn redirected(&self, status: StatusCode, asked: &Url, location: Option<&str>) -> Failed {
        let target = location.and_then(|location| asked.join(location).ok());
        let place = match &target {
            Some(target) if target.origin() == asked.origin() => "another path of the same server".to_owned(),
            Some(target) => target.origin().ascii_serialization(),
            None => "an unknown address".to_owned(),
        };
        let advice = if self.has_token() {
            "and the token is not sent there; set `CI_API_V4_URL` to the address under which GitLab itself answers, and `CI_PROJECT_ID` to \
            the project's number"
        } else {
            "which is not followed; set `CI_SERVER_URL` to the address under which GitLab itself answers"
        };
        let text = format!("HTTP {}: the server redirects to {place}, {advice}", status.as_u16());
        Failed { error: self.error(GitLabErrorKind::Invalid, &text), fate: Fate::Answered }
    }

    /// A request without an answer.
    pub(super) fn broken(&self, error: reqwest::Error) -> Failed {
        let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
        let causes = causes(&error.without_url());
        if causes.contains("invalid peer certificate") {
            let text = format!("{causes}; {}", of_certificate(&causes));
            return Failed { error: self.error(GitLabErrorKind::Invalid, &text), fate: Fate::Answered };
        }
        let text = if is_timeout && !is_connect { "no answer within the time limit" } else { causes.as_str() };
        let fate = if is_connect { Fate::Unsent } else { Fate::Lost(None) };
        Failed { error: self.error(GitLabErrorKind::Transient, text), fate }
    }

    /// A failure that the same request meets again.
    pub(super) fn final_failure(&self, kind: GitLabErrorKind, message: &str) -> Failed {
        Failed { error: self.error(kind, message), fate: Fate::Answered }
    }
}

/// Says what to change after a certificate that is not trusted.
fn of_certificate(causes: &str) -> &'static str {
    // The name that rustls gives to it. `openssl req -x509` makes such certificates when nothing else is asked for.
    if causes.contains("CaUsedAsEndEntity") {
        return "GitLab's own certificate is marked as an authority (`CA:TRUE`), and TLS takes none for a server, also when \
            `CI_SERVER_TLS_CA_FILE` has it: give GitLab a certificate with `basicConstraints=CA:FALSE`, or one that an \
            authority signs, and set the variable to that authority's PEM file";
    }
    "set `CI_SERVER_TLS_CA_FILE` to a PEM file with the authority that signs for GitLab; for the token of a secret, which no variable may \
        lead astray, name the file with `--gitlab-ca-file`"
}

/// The error and its causes, each once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let said = found.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = found.source();
    }
    text
}

fn kind(status: u16, message: &str) -> GitLabErrorKind {
    let is_taken =
        ["already been taken", "already exists", "Duplicate package"].iter().any(|part| message.contains(part));
    match status {
        401 => GitLabErrorKind::Unauthenticated,
        403 => GitLabErrorKind::Denied,
        404 => GitLabErrorKind::NotFound,
        409 => GitLabErrorKind::Exists,
        400 | 422 if is_taken => GitLabErrorKind::Exists,
        // GitLab's own limit is a 400, that of the servers before it a 413.
        400 if message.contains("too large") => GitLabErrorKind::TooLarge,
        413 => GitLabErrorKind::TooLarge,
        429 => GitLabErrorKind::Throttled,
        400 | 422 => GitLabErrorKind::Refused,
        500.. => GitLabErrorKind::Transient,
        _ => GitLabErrorKind::Invalid,
    }
}

/// The message of an error's body: GitLab's JSON, the title of a page, or a plain text.
fn message(body: &[u8]) -> String {
    if let Ok(Value::Object(object)) = serde_json::from_slice(body) {
        let part = |name: &str| object.get(name).map(said).filter(|text| !text.is_empty());
        let error = match (part("error"), part("error_description")) {
            (Some(error), Some(description)) => Some(format!("{error}: {description}")),
            (error, description) => error.or(description),
        };
        return part("message").or(error).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(body);
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    match title {
        Some((title, _)) => title.trim().to_owned(),
        None if text.trim_start().starts_with('<') => String::new(),
        None => text.trim().to_owned(),
    }
}

/// Text, a list of texts, or texts by the name of an attribute.
fn said(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(said).collect::<Vec<_>>().join(", "),
        Value::Object(all) => {
            all.iter().map(|(name, value)| format!("{name}: {}", said(value))).collect::<Vec<_>>().join("; ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The pause that an answer asks for: `Retry-After` in seconds or as a date of HTTP, else until `RateLimit-Reset`, a time in seconds
/// since 1970.
pub(super) fn asked_pause(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let until = |time: SystemTime| time.duration_since(clock.now()).unwrap_or_default();
    let after = text(RETRY_AFTER.as_str())
        .and_then(|text| seconds(text).map(Duration::from_secs).or_else(|| http_date(text).map(until)));
    let reset = || {
        let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Duration::from_secs(seconds(text("ratelimit-reset")?)?).saturating_sub(now))
    };
    after.or_else(reset)
}

/// A number of digits alone; one above the range is the largest.
fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `Sun, 29 Nov 2026 04:52:33 GMT`
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, text) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn call() -> GitLabCall {
        GitLabCall::new("upload a/1/b.zip".to_owned(), "s3cret-token".into())
    }

    fn refused(status: u16, body: &str) -> GitLabError {
        call().refused(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None).error
    }

    #[test_case(401, r#"{"message":"401 Unauthorized"}"# => (GitLabErrorKind::Unauthenticated, "HTTP 401 Unauthorized".to_owned()))]
    #[test_case(401, r#"{"error":"invalid_token","error_description":"Token is expired."}"# => (GitLabErrorKind::Unauthenticated, "HTTP 401: invalid_token: Token is expired.".to_owned()))]
    #[test_case(403, r#"{"error":"insufficient_scope","scope":"api"}"# => (GitLabErrorKind::Denied, "HTTP 403: insufficient_scope".to_owned()))]
    #[test_case(404, "" => (GitLabErrorKind::NotFound, "HTTP 404".to_owned()))]
    #[test_case(409, r#"{"message":"Release already exists"}"# => (GitLabErrorKind::Exists, "HTTP 409: Release already exists".to_owned()))]
    #[test_case(400, r#"{"message":{"name":["has already been taken"],"url":["is bad","is odd"]}}"# => (GitLabErrorKind::Exists, "HTTP 400: name: has already been taken; url: is bad, is odd".to_owned()))]
    #[test_case(400, r#"{"message":"400 Bad request - Duplicate package is not allowed"}"# => (GitLabErrorKind::Exists, "HTTP 400 Bad request - Duplicate package is not allowed".to_owned()))]
    #[test_case(400, r#"{"message":["one","two"]}"# => (GitLabErrorKind::Refused, "HTTP 400: one, two".to_owned()))]
    #[test_case(400, r#"{"message":"400 Bad request - File is too large"}"# => (GitLabErrorKind::TooLarge, "HTTP 400 Bad request - File is too large".to_owned()))]
    #[test_case(413, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>x</body></html>" => (GitLabErrorKind::TooLarge, "HTTP 413 Request Entity Too Large".to_owned()))]
    #[test_case(422, r#"{"message":"Ref is not specified"}"# => (GitLabErrorKind::Refused, "HTTP 422: Ref is not specified".to_owned()))]
    #[test_case(429, "Retry later\n" => (GitLabErrorKind::Throttled, "HTTP 429: Retry later".to_owned()))]
    #[test_case(502, "<html><body>bad</body></html>" => (GitLabErrorKind::Transient, "HTTP 502".to_owned()))]
    fn an_answer_is(status: u16, body: &str) -> (GitLabErrorKind, String) {
        let error = refused(status, body);
        (error.kind, error.message)
    }

    #[test]
    fn a_message_is_one_bounded_line_without_the_token() {
        let body = format!("\x1b[2Jyou sent s3cret-token\r\nsection_start:1:x {}", "x".repeat(1 << 20));
        let error = refused(400, &body);
        assert!(error.message.starts_with("HTTP 400: \\x1b[2Jyou sent [MASKED]; section-start:1:x xx"), "{error}");
        assert!(error.message.len() < 700, "{error}");
        let nested = format!("{}1{}", r#"{"message":["#.repeat(200), "]}".repeat(200));
        assert!(refused(400, &nested).message.len() < 700);
    }

    #[test]
    fn no_cut_leaves_a_part_of_the_token() {
        let (status, pause) = (StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(500)));
        for length in 560..=MOST_SHOWN {
            let body = format!("{} s3cret-token", "x".repeat(length));
            for pause in [None, pause] {
                let error = call().refused(status, body.as_bytes(), pause).error;
                assert!(!error.message.contains("s3c"), "{length}: {error}");
            }
        }
    }

    #[test]
    fn a_certificate_that_is_an_authority_has_its_own_advice() {
        let causes = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))";
        assert!(of_certificate(causes).contains("`basicConstraints=CA:FALSE`"));
        let other = of_certificate("invalid peer certificate: UnknownIssuer");
        assert!(other.contains("`CI_SERVER_TLS_CA_FILE`") && !other.contains("CA:FALSE"));
    }

    #[test]
    fn the_fate_of_a_request_follows_its_status() {
        let pause = Some(Duration::from_secs(7));
        let failed = |status| call().refused(StatusCode::from_u16(status).unwrap(), b"", pause);
        assert_eq!(failed(429).fate, Fate::Throttled(pause));
        assert_eq!(failed(429).error.message, "HTTP 429; the server asks for a pause of 7 s");
        for status in [502, 503, 504] {
            assert_eq!(failed(status).fate, Fate::Lost(pause));
        }
        for status in [400, 401, 404, 500] {
            assert_eq!(failed(status).fate, Fate::Answered);
        }
    }

    #[test_case(Some("https://login.example.com/x?token=1") => true; "another host")]
    #[test_case(Some("//login.example.com/x") => true; "another host with the same scheme")]
    #[test_case(Some("/api/v4/projects/43") => false; "a path")]
    #[test_case(None => false; "no address")]
    fn a_redirect_names_the_other_server(location: Option<&str>) -> bool {
        let asked = Url::parse("https://gitlab.example.com/api/v4/projects/42").unwrap();
        let failed = call().redirected(StatusCode::FOUND, &asked, location);
        let text = failed.error.message;
        assert_eq!(failed.fate, Fate::Answered);
        assert!(text.contains("`CI_API_V4_URL`") && !text.contains("token=1"), "{text}");
        text.contains("https://login.example.com,")
    }

    #[test]
    fn a_redirect_of_a_public_document_names_its_own_variable() {
        let call = GitLabCall::new("read keys of GitLab".to_owned(), "\u{0}no token\u{0}".into());
        let asked = Url::parse("https://gitlab.example.com/keys").unwrap();
        let text = call.redirected(StatusCode::FOUND, &asked, Some("https://login.example.com/")).error.message;
        assert!(text.contains("`CI_SERVER_URL`") && !text.contains("the token") && !text.contains("API"), "{text}");
    }

    #[test]
    fn a_pause_is_read_from_both_headers() {
        #[derive(Debug)]
        struct Fixed;
        impl Clock for Fixed {
            fn now(&self) -> std::time::SystemTime {
                UNIX_EPOCH + Duration::from_secs(1_000)
            }
            fn since_boot(&self) -> (String, Duration) {
                Default::default()
            }
        }
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            asked_pause(&headers, &Fixed).map(|pause| pause.as_secs())
        };
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("retry-after", "30"), ("ratelimit-reset", "1010")]), Some(30));
        assert_eq!(asked(&[("ratelimit-reset", "1010")]), Some(10));
        assert_eq!(asked(&[("ratelimit-reset", "10")]), Some(0));
        assert_eq!(asked(&[("retry-after", "-1")]), None);
        assert_eq!(asked(&[("retry-after", "18446744073709551615")]), Some(u64::MAX));
        assert_eq!(asked(&[("retry-after", "18446744073709551616")]), Some(u64::MAX), "more is not nothing");
        assert_eq!(asked(&[("retry-after", "Thu, 01 Jan 1970 00:17:30 GMT")]), Some(50));
        assert_eq!(asked(&[("retry-after", "Thu, 01 Jan 1970 00:00:30 GMT")]), Some(0), "a date that is over");
        for none in ["", "soon", "Thu, 01 Foo 1970 00:17:30 GMT", "Thu, 01 Jan 1970 00:17:30", ", é"] {
            assert_eq!(http_date(none), None, "{none}");
            assert_eq!(seconds(none), None, "{none}");
        }
    }
}
