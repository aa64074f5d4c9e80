//! The connection to one GitLab: address, token, proxies and authorities; sends requests and reads bounded answers.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::base::clock::{Clock, HostClock};
use executor::base::failure::Failure;
use executor::base::plain;
use executor::base::trusted_roots;
use executor::gitlab::api::{GitLabAccess, GitLabError, GitLabErrorKind, GitLabToken, ServerAccess};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url, retry};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::errors::{GitLabCall, asked_pause};
use super::repetition::{Failed, Limits, Pauses, Repeatable};
use super::trust;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of an attempt, except of an upload.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);
/// Most bytes of an answer: GitLab's own limit of a note is 1 MB, and a page has at most 100.
pub(super) const MOST_ANSWER: usize = 64 << 20;
/// Most bytes of an error's body that are read.
const MOST_ERROR: usize = 64 << 10;

/// Stands for the token of a connection without one: a text that no answer shows.
const NO_SECRET: &str = "\u{0}no token\u{0}";

/// The proxies of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxies {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in both cases.
    OfEnvironment,
    None,
}

/// The authorities of a connection, besides those of the file that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roots {
    /// The system's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    OfEnvironment,
    /// The machine's own file.
    OfMachine,
}

/// Sends requests to one GitLab, with one token.
pub(super) struct Connection {
    client: Client,
    /// `https://gitlab.example.com/api/v4`, without a slash at the end.
    base: Url,
    /// The token with the header that carries it; `None` for documents that everybody may read.
    token: Option<(HeaderName, HeaderValue)>,
    /// The token's text, which no error may hold.
    secret: Arc<str>,
    limits: Limits,
    clock: Box<dyn Clock>,
}

/// A successful answer.
pub(super) struct GitLabAnswer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl GitLabAnswer {
    /// # Errors
    /// The body has another form.
    pub(super) fn read<T: DeserializeOwned>(&self, call: &GitLabCall) -> Result<T, GitLabError> {
        serde_json::from_slice(&self.body).map_err(|error| call.odd(&error.to_string()))
    }
}

impl Connection {
    /// # Errors
    /// Failures that name the variable: no URL, no token that a header can carry, unusable authorities.
    pub(super) fn new(access: &GitLabAccess, proxies: Proxies) -> anyhow::Result<Self> {
        let base = base(&access.api_url, OF_API)?;
        let (header, name, secret) = match &access.token {
            GitLabToken::Job(token) => ("job-token", "`CI_JOB_TOKEN`", token),
            GitLabToken::Access(token) => ("private-token", "the variable with the access token", token),
            GitLabToken::Secret(token) => ("private-token", "the secret with the access token", token),
        };
        let (proxies, roots) = match access.token {
            // A proxy carries TLS that it cannot read, and reads everything else.
            GitLabToken::Secret(_) if base.scheme() == "http" => (Proxies::None, Roots::OfMachine),
            GitLabToken::Secret(_) => (proxies, Roots::OfMachine),
            GitLabToken::Job(_) | GitLabToken::Access(_) => (proxies, Roots::OfEnvironment),
        };
        let is_token = |letter: u8| letter.is_ascii_graphic();
        let token = HeaderValue::from_str(secret).ok().filter(|_| !secret.is_empty() && secret.bytes().all(is_token));
        let Some(mut token) = token else {
            let failure = Failure::user("the token for GitLab has characters that no token has");
            return Err(failure.hint(format!("check {name}")).into());
        };
        token.set_sensitive(true);
        Ok(Self {
            client: client(access.ca_file.as_deref(), &base, proxies, roots)?,
            base,
            token: Some((HeaderName::from_static(header), token)),
            secret: secret.as_str().into(),
            limits: Limits::default(),
            clock: Box::new(HostClock),
        })
    }

    /// A connection without a token.
    ///
    /// # Errors
    /// As of [`Connection::new`].
    pub(super) fn to_server(access: &ServerAccess, proxies: Proxies) -> anyhow::Result<Self> {
        let base = base(&access.url, OF_SERVER)?;
        Ok(Self {
            client: client(access.ca_file.as_deref(), &base, proxies, Roots::OfEnvironment)?,
            base,
            token: None,
            secret: NO_SECRET.into(),
            limits: Limits::default(),
            clock: Box::new(HostClock),
        })
    }

    #[cfg(test)]
    pub(super) fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// `true` when the token crosses a network in plain text.
    pub(super) fn shows_token(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.base.scheme() == "http" && host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
    }

    /// The context of a call: verb, noun and name.
    pub(super) fn call(&self, operation: String) -> GitLabCall {
        GitLabCall::new(operation, Arc::clone(&self.secret))
    }

    pub(super) fn pauses(&self, repeatable: Repeatable) -> Pauses {
        Pauses::new(self.limits, repeatable)
    }

    /// The API's address with segments of a path, each encoded.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An address with a host always has segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The origin of the API's address: `https://gitlab.example.com`.
    pub(super) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Reads, and repeats what may pass.
    pub(super) async fn get(&self, call: &GitLabCall, url: &Url) -> Result<GitLabAnswer, GitLabError> {
        let mut pauses = self.pauses(Repeatable::Always);
        loop {
            let request = self.request(Method::GET, url).timeout(ATTEMPT_TIMEOUT);
            match self.attempt(call, url, request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => pauses.wait(failed).await?,
            }
        }
    }

    /// Sends a JSON object.
    pub(super) async fn send(
        &self,
        call: &GitLabCall,
        (method, url): (Method, &Url),
        body: &Value,
        repeatable: Repeatable,
    ) -> Result<GitLabAnswer, GitLabError> {
        let mut pauses = self.pauses(repeatable);
        loop {
            let request = self.request(method.clone(), url).timeout(ATTEMPT_TIMEOUT).json(body);
            match self.attempt(call, url, request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => pauses.wait(failed).await?,
            }
        }
    }

    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.client.request(method, url.clone());
        match &self.token {
            Some((header, token)) => request.header(header.clone(), token.clone()),
            None => request,
        }
    }

    /// Sends a request once.
    pub(super) async fn attempt(
        &self,
        call: &GitLabCall,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<GitLabAnswer, Failed> {
        let begun = Instant::now();
        let response = request.send().await;
        log(url, begun, &response, &self.secret);
        let response = response.map_err(|error| call.broken(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_redirection() {
            let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
            return Err(call.redirected(status, url, location));
        }
        if !status.is_success() {
            // A body that breaks off says less, but the status stands.
            let (mut body, is_whole) = read(response, MOST_ERROR).await.unwrap_or_default();
            if !is_whole {
                // The cut may have left a part of the token.
                body.truncate(body.len().saturating_sub(self.secret.len()));
            }
            return Err(call.refused(status, &body, asked_pause(&headers, self.clock.as_ref())));
        }
        let (body, is_whole) = read(response, MOST_ANSWER).await.map_err(|error| call.broken(error))?;
        if !is_whole {
            let text = format!("the answer is larger than {} MiB", MOST_ANSWER >> 20);
            return Err(call.final_failure(GitLabErrorKind::Invalid, &text));
        }
        Ok(GitLabAnswer { headers, body })
    }
}

/// The first bytes of a body, and `true` if these are all.
async fn read(mut response: Response, most: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        let room = most - body.len();
        body.extend_from_slice(part.get(..room).unwrap_or(&part));
        if part.len() > room {
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// A line of the program's log for a request: path, answer, duration, request ID. No header of the request, no query, no body.
fn log(url: &Url, begun: Instant, response: &Result<Response, reqwest::Error>, secret: &str) {
    let (path, milliseconds) = (url.path(), begun.elapsed().as_millis());
    let Ok(response) = response else {
        tracing::debug!("GitLab {path}: no answer after {milliseconds} ms");
        return;
    };
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("none");
    let (status, id) = (response.status().as_u16(), plain::line(&id.replace(secret, "[MASKED]"), 64));
    tracing::debug!("GitLab {path}: {status} after {milliseconds} ms, request {id}");
}

/// An address with its variable, and an example.
type Address = (&'static str, &'static str, &'static str);

const OF_API: Address = ("`CI_API_V4_URL`", "GitLab's API", "https://gitlab.example.com/api/v4");
const OF_SERVER: Address = ("`CI_SERVER_URL`", "GitLab", "https://gitlab.example.com");

fn base(address: &str, (variable, what, example): Address) -> Result<Url, Failure> {
    let unusable = |why: &str| {
        Failure::user(format!("{variable} is not an address of {what}: {why}"))
            .hint(format!("run the command in a job of GitLab CI, which sets it as in `{example}`"))
    };
    let url = Url::parse(address.trim()).map_err(|error| unusable(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(unusable("it does not begin with `https://` or `http://`, and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("it has a user or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(unusable("it has a query or a fragment"));
    }
    Ok(url)
}

fn client(ca_file: Option<&Path>, base: &Url, proxies: Proxies, roots: Roots) -> anyhow::Result<Client> {
    // A process has one provider; whoever was first has installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("sagemaker-executor/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .retry(retry::never())
        .connect_timeout(CONNECT_TIMEOUT);
    let builder = match proxies {
        Proxies::OfEnvironment => builder,
        Proxies::None => builder.no_proxy(),
    };
    let mut authorities = ca_file.map(trust::authorities).transpose()?.unwrap_or_default();
    let builder = match (base.scheme(), roots) {
        // Without TLS the system's roots are not read.
        ("http", _) => builder.tls_certs_only(authorities),
        (_, Roots::OfEnvironment) => builder.tls_certs_merge(authorities),
        (_, Roots::OfMachine) => {
            if let Some(file) = trusted_roots::file() {
                authorities.extend(trust::authorities(file)?);
            }
            builder.tls_certs_only(authorities)
        }
    };
    let built = builder.build();
    Ok(built.map_err(|error| {
        Failure::system("failed to set up the connection to GitLab")
            .hint("install the package `ca-certificates`, or set `CI_SERVER_TLS_CA_FILE` to a PEM file of certificates; for the token of a secret, `--gitlab-ca-file`")
            .caused_by(error)
    })?)
}

#[cfg(test)]
mod tests {
    use executor::base::failure::render;
    use test_case::test_case;

    use super::*;

    fn access(api_url: &str, token: &str) -> GitLabAccess {
        GitLabAccess {
            api_url: api_url.to_owned(),
            project: "42".to_owned(),
            token: GitLabToken::Job(token.to_owned()),
            ca_file: None,
        }
    }

    #[test_case("")]
    #[test_case("gitlab.example.com/api/v4")]
    #[test_case("ftp://gitlab.example.com/api/v4")]
    #[test_case("https://")]
    #[test_case("https://user:s3cret@gitlab.example.com/api/v4")]
    #[test_case("https://gitlab.example.com/api/v4?private_token=s3cret")]
    #[test_case("unix:///run/gitlab")]
    fn an_address_is_refused(api_url: &str) {
        let error = Connection::new(&access(api_url, "token"), Proxies::None).err().unwrap();
        let text = render(&error);
        assert!(text.contains("`CI_API_V4_URL`") && !text.contains("s3cret"), "{text}");
    }

    #[test_case("")]
    #[test_case("s3cret\r\nx-header: 1")]
    #[test_case("s3cret token")]
    #[test_case("s3crét")]
    fn a_token_is_refused(token: &str) {
        let error = Connection::new(&access("http://127.0.0.1/api/v4", token), Proxies::None).err().unwrap();
        let text = render(&error);
        assert!(text.contains("`CI_JOB_TOKEN`") && !text.contains("s3cr"), "{text}");
    }

    #[test_case("http://gitlab.example.com/api/v4" => true)]
    #[test_case("http://192.0.2.1:8080/api/v4" => true)]
    #[test_case("http://127.0.0.1:8080/api/v4" => false)]
    #[test_case("http://[::1]/api/v4" => false)]
    #[test_case("http://localhost/api/v4" => false)]
    #[test_case("http://localhost.example.com/api/v4" => true)]
    #[test_case("https://gitlab.example.com/api/v4" => false)]
    fn the_network_sees_the_token(api_url: &str) -> bool {
        Connection::new(&access(api_url, "token"), Proxies::None).unwrap().shows_token()
    }

    #[test_case("https://a.example/api/v4" => "https://a.example/api/v4/projects/group%2Fproject/releases/v1%3F%23%2F%25")]
    #[test_case("https://a.example/git/api/v4/" => "https://a.example/git/api/v4/projects/group%2Fproject/releases/v1%3F%23%2F%25")]
    fn each_segment_of_a_path_is_encoded(api_url: &str) -> String {
        let connection = Connection::new(&access(api_url, "token"), Proxies::None).unwrap();
        connection.url(&["projects", "group/project", "releases", "v1?#/%"]).to_string()
    }
}
