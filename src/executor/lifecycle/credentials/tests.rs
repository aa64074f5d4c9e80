//! The commands on fakes of AWS and GitLab.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64_simd::URL_SAFE_NO_PAD;
use clap::Parser;
use serde_json::{Value, json};
use test_case::test_case;

use super::CredentialsArgs;
use crate::base::clock::TestClock;
use crate::base::failure::{self, Kind};
use crate::base::signals::Cancellation;
use crate::cloud::ObjectStore as _;
use crate::cloud::testing::Memory;
use crate::config::env::Environment;
use crate::gitlab::api::testing::{MemoryGitLab, MemoryGitLabConnect};
use crate::lifecycle::CommandInputs;
use crate::ui::Printer;

const ISSUER: &str = "https://example-issuer.s3.eu-west-1.example.com";
const GITLAB: &str = "https://gitlab.internal";
const DAY: Duration = Duration::from_hours(24);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    credentials: CredentialsArgs,
}

struct Desk {
    folder: tempfile::TempDir,
    memory: Memory,
    gitlab: Arc<MemoryGitLab>,
    clock: Arc<TestClock>,
    env: BTreeMap<String, String>,
}

struct Ended {
    kind: Option<Kind>,
    error: String,
    out: String,
    lines: String,
}

/// A public key that is no real one: its modulus has the right size.
fn key(kid: &str, letter: u8) -> Value {
    json!({"kty": "RSA", "kid": kid, "e": "AQAB", "n": URL_SAFE_NO_PAD.encode_to_string([letter; 256]), "use": "sig", "alg": "RS256"})
}

fn with(mut key: Value, name: &str, value: &str) -> Value {
    key[name] = value.into();
    key
}

/// A real public key with the id `one`, and a token of [`ISSUER`] that its private half has signed.
fn signed() -> (Value, String) {
    let signed: Value = serde_json::from_str(include_str!("tests/signed.json")).unwrap();
    (signed["key"].clone(), signed["token"].as_str().unwrap().to_owned())
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            memory: Memory::new(),
            gitlab: Arc::default(),
            clock: Arc::new(TestClock::at(SystemTime::UNIX_EPOCH + DAY * 20_000)),
            env: BTreeMap::new(),
        };
        desk.memory.account.set_caller("arn:aws:sts::123456789012:assumed-role/ci/job");
        desk.gitlab.show_document(".well-known/openid-configuration", &json!({"issuer": GITLAB}).to_string());
        desk.show(&[key("one", 200)]);
        let project = desk.folder.path().join("project").display().to_string();
        desk.with("CI_SERVER_URL", &format!("{GITLAB}/"))
            .with("CI_PROJECT_PATH", "group/project")
            .with("CI_DEFAULT_BRANCH", "main")
            .with("CI_PROJECT_DIR", &project)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// GitLab shows these keys.
    fn show(&self, keys: &[Value]) {
        self.gitlab.show_document("oauth/discovery/keys", &json!({"keys": keys}).to_string());
    }

    /// A manifest with an environment of `GovCloud`.
    fn manifest(&self) -> String {
        let manifest = json!({"environments": {
            "production": {"region": "us-gov-west-1", "account": "123456789012", "job_role": "arn:aws-us-gov:iam::123456789012:role/deploy"},
        }});
        let file = self.folder.path().join("manifest.json");
        std::fs::write(&file, manifest.to_string()).unwrap();
        file.display().to_string()
    }

    async fn run(&self, words: &[&str]) -> Ended {
        let line = Line::try_parse_from(["credentials"].iter().chain(words)).unwrap();
        let (printer, captured) = Printer::captured();
        let inputs = CommandInputs {
            gitlab: Arc::new(MemoryGitLabConnect(self.gitlab.clone())),
            env: Environment::from_pairs(self.env.iter().map(|(name, value)| (name.into(), value.into()))),
            connect: Arc::new(self.memory.clone()),
            clock: self.clock.clone(),
            printer,
        };
        let result = super::run(&inputs, line.credentials, Cancellation::default()).await;
        let error = result.as_ref().map_or_else(failure::render, |()| String::new());
        let kind = result.err().map(|error| failure::kind_of(&error));
        Ended { kind, error, out: String::from_utf8(captured.data()).unwrap(), lines: captured.text() }
    }

    async fn publish(&self, words: &[&str]) -> Ended {
        let fixed = ["publish-issuer", "--bucket", "s3://memory", "--issuer-url", ISSUER, "--output", "json"];
        self.run(&[&fixed, words].concat()).await
    }

    async fn object(&self, key: &str) -> Value {
        serde_json::from_slice(&self.memory.objects.get(key).await.unwrap().unwrap()).unwrap()
    }

    /// Ids of the published keys.
    async fn kids(&self) -> Vec<String> {
        let keys = self.object("oauth/discovery/keys").await;
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

fn token(issuer: &str, kid: &str) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode_to_string(value.to_string());
    let claims = json!({
        "iss": issuer, "aud": "sts.amazonaws.com", "sub": "project_path:group/project:ref_type:branch:ref:main",
        "user_id": "42", "user_login": "jane", "project_path": "group/project", "pipeline_id": "7", "job_id": "8",
    });
    format!("{}.{}.c2ln", encode(json!({"alg": "RS256", "kid": kid})), encode(claims))
}

#[tokio::test]
async fn both_documents_are_published_once() {
    let desk = Desk::new();
    let ended = desk.publish(&[]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    let written = ["s3://memory/oauth/discovery/keys", "s3://memory/.well-known/openid-configuration"];
    assert_eq!(told["written"], json!(written), "the keys come first");
    let document = desk.object(".well-known/openid-configuration").await;
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], format!("{ISSUER}/oauth/discovery/keys"));
    assert!(!document.to_string().contains("gitlab.internal"), "{document}");
    assert_eq!(desk.object("oauth/discovery/keys").await, json!({"keys": [key("one", 200)]}));
    let again = desk.publish(&[]).await;
    assert_eq!(serde_json::from_str::<Value>(&again.out).unwrap()["written"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_key_stays_for_a_day() {
    let desk = Desk::new();
    assert_eq!(desk.publish(&[]).await.kind, None);
    desk.show(&[key("two", 201)]);
    let ended = desk.publish(&[]).await;
    assert_eq!(desk.kids().await, ["one", "two"], "{}", ended.error);
    desk.clock.jump(|now| now + DAY - Duration::from_secs(1));
    assert_eq!(desk.publish(&[]).await.kind, None);
    assert_eq!(desk.kids().await, ["one", "two"]);
    desk.clock.jump(|now| now + Duration::from_secs(1));
    assert_eq!(desk.publish(&[]).await.kind, None);
    assert_eq!(desk.kids().await, ["two"]);
    // One that was stolen goes at once.
    desk.show(&[key("three", 202)]);
    assert_eq!(desk.publish(&["--keep", "0s"]).await.kind, None);
    assert_eq!(desk.kids().await, ["three"]);
}

#[test_case(&json!({"keys": [{"kty": "RSA", "kid": "one", "e": "AQAB", "n": "AQAB"}]}).to_string(), "none of RSA with 2048"; "a small key")]
#[test_case(&json!({"keys": [{"kty": "RSA", "kid": "one", "e": "AQAB", "n": "AQAB", "d": "AQAB"}]}).to_string(), "a private one"; "a private key")]
#[test_case(&json!({"keys": [key("one", 1), key("one", 2)]}).to_string(), "two keys"; "an id twice")]
#[test_case(&json!({"keys": [with(key("one", 1), "e", "AQ")]}).to_string(), "no exponent of RSA"; "exponent 1")]
#[test_case(&json!({"keys": [with(key("one", 1), "e", "Aw")]}).to_string(), "no exponent of RSA"; "exponent 3")]
#[test_case(&json!({"keys": [with(key("one", 1), "e", "AQAA")]}).to_string(), "no exponent of RSA"; "an even exponent")]
#[test_case(&json!({"keys": [with(key("one", 1), "use", "enc")]}).to_string(), "no key of RSA"; "a key for encryption")]
#[test_case(&json!({"keys": [with(key("one", 1), "alg", "PS256")]}).to_string(), "no key of RSA"; "another algorithm")]
#[test_case(&json!({"keys": []}).to_string(), "no key of RSA"; "no key")]
#[test_case(&json!({"keys": [{"kty": "EC", "kid": "one"}]}).to_string(), "no key of RSA"; "another kind")]
#[test_case("<html>", "not JSON"; "a page")]
#[tokio::test]
async fn keys_are_refused_and_nothing_is_written(document: &str, expected: &str) {
    let desk = Desk::new();
    desk.gitlab.show_document("oauth/discovery/keys", document);
    let ended = desk.publish(&[]).await;
    assert_eq!(ended.kind, Some(Kind::System), "{}", ended.error);
    assert!(ended.error.contains(expected) && ended.error.contains("`CI_SERVER_URL`"), "{}", ended.error);
    assert!(desk.memory.objects.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn another_server_in_gitlabs_place_is_refused() {
    let desk = Desk::new();
    desk.gitlab.show_document(".well-known/openid-configuration", r#"{"issuer": "https://other.example"}"#);
    let ended = desk.publish(&[]).await;
    assert!(ended.error.contains("its issuer is https://other.example"), "{}", ended.error);
    assert!(desk.memory.objects.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_jobs_own_token_tells_if_the_publication_fits() {
    let desk = Desk::new().with("SAGEMAKER_ID_TOKEN", &token(GITLAB, "one"));
    let ended = desk.publish(&[]).await;
    assert!(ended.error.contains("ci_id_tokens_issuer_url"), "{}", ended.error);
    let desk = Desk::new().with("SAGEMAKER_ID_TOKEN", &token(ISSUER, "other"));
    let ended = desk.publish(&[]).await;
    assert!(ended.error.contains("does not show the key that signed"), "{}", ended.error);
    let (key, token) = signed();
    let desk = Desk::new().with("SAGEMAKER_ID_TOKEN", &token);
    desk.show(&[key]);
    let ended = desk.run(&["publish-issuer", "--bucket", "s3://memory"]).await;
    assert_eq!(ended.kind, None, "the issuer is that of the token: {}", ended.error);
}

/// A server that shows its own key under the id of GitLab's.
#[tokio::test]
async fn another_key_under_the_id_of_the_tokens_key_is_refused() {
    let (key_of_token, token) = signed();
    let cut = token.rsplit_once('.').unwrap().0.to_owned();
    for (shown, token) in [(key("one", 201), token.clone()), (key_of_token, format!("{cut}.c2ln"))] {
        let desk = Desk::new().with("SAGEMAKER_ID_TOKEN", &token);
        desk.show(&[shown]);
        let ended = desk.publish(&[]).await;
        assert_eq!(ended.kind, Some(Kind::System), "{}", ended.error);
        assert!(ended.error.contains("another key than the one that signed"), "{}", ended.error);
        assert!(desk.memory.objects.list("").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_published_key_becomes_no_other_key() {
    let desk = Desk::new();
    assert_eq!(desk.publish(&[]).await.kind, None);
    desk.show(&[key("one", 201), key("two", 202)]);
    for words in [&[][..], &["--keep", "0s"]] {
        let ended = desk.publish(words).await;
        assert_eq!(ended.kind, Some(Kind::System), "{}", ended.error);
        assert!(ended.error.contains("another key one") && ended.error.contains("delete s3://"), "{}", ended.error);
        assert_eq!(desk.object("oauth/discovery/keys").await, json!({"keys": [key("one", 200)]}));
    }
}

#[test_case("http://gitlab.internal" => false; "plain http")]
#[test_case("HTTP://gitlab.internal:8080" => false; "in capitals")]
#[test_case("http://127.0.0.1.gitlab.internal" => false; "a name that begins like loopback")]
#[test_case("http://127.0.0.1:80@gitlab.internal" => false; "a user that looks like loopback")]
#[test_case("http:gitlab.internal" => false; "without slashes")]
#[test_case("http://127.0.0.1:8080" => true; "loopback")]
#[test_case("HTTPS://gitlab.internal" => true; "tls")]
#[tokio::test]
async fn keys_come_by_tls(url: &str) -> bool {
    let desk = Desk::new().with("CI_SERVER_URL", url);
    desk.gitlab.show_document(".well-known/openid-configuration", &json!({"issuer": url}).to_string());
    let ended = desk.publish(&[]).await;
    assert_eq!(ended.kind.is_some(), ended.error.contains("`CI_SERVER_URL` does not begin"), "{}", ended.error);
    assert_eq!(ended.kind.is_some(), desk.memory.objects.list("").await.unwrap().is_empty());
    ended.kind.is_none()
}

#[test_case("http://plain.example"; "without TLS")]
#[test_case("https://host.example:8443"; "with a port")]
#[test_case("https://user@host.example"; "with a user")]
#[test_case("https://"; "without a host")]
#[test_case("https://host.example/a/../b"; "with a step back")]
#[test_case("https://host.example//b"; "with an empty part")]
#[tokio::test]
async fn an_issuer_is_refused(issuer: &str) {
    let words = ["publish-issuer", "--bucket", "s3://memory", "--issuer-url", issuer];
    let ended = Desk::new().run(&words).await;
    assert!(ended.error.contains("no address that AWS takes"), "{}", ended.error);
}

#[tokio::test]
async fn a_trust_policy_names_one_branch_of_the_partition() {
    let desk = Desk::new();
    let manifest = desk.manifest();
    let ended = desk.run(&["trust-policy", "--manifest", &manifest, "--environment", "production"]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    let policy: Value = serde_json::from_str(&ended.out).unwrap();
    let statement = &policy["Statement"][0];
    assert_eq!(statement["Principal"]["Federated"], "arn:aws-us-gov:iam::123456789012:oidc-provider/gitlab.internal");
    let expected = json!({"StringEquals": {
        "gitlab.internal:aud": "sts.amazonaws.com",
        "gitlab.internal:sub": ["project_path:group/project:ref_type:branch:ref:main"],
    }});
    assert_eq!(statement["Condition"], expected);
}

#[test_case(&["--any-branch"], "cannot trust all branches"; "all branches of production")]
#[test_case(&["--branch", "*"], "cannot be trusted exactly"; "a pattern")]
#[test_case(&["--project", "group/*"], "cannot be trusted exactly"; "all projects")]
#[test_case(&["--branch", "${aws:username}"], "cannot be trusted exactly"; "a variable of IAM")]
#[test_case(&["--project", "group/*", "--subject", "x", "--branch", "main"], "cannot be trusted exactly"; "all projects beside a subject")]
#[test_case(&["--project", "${aws:x}", "--subject", "x", "--tag", "v1"], "cannot be trusted exactly"; "a variable beside a subject")]
#[test_case(&["--account", "1"], "no account"; "no account")]
#[tokio::test]
async fn a_trust_policy_is_refused(words: &[&str], expected: &str) {
    let desk = Desk::new();
    let manifest = desk.manifest();
    let fixed = ["trust-policy", "--manifest", &manifest, "--environment", "production"];
    let ended = desk.run(&[&fixed, words].concat()).await;
    assert_eq!(ended.kind, Some(Kind::User), "{}", ended.out);
    assert!(ended.error.contains(expected) && ended.error.contains("hint: "), "{}", ended.error);
}

#[tokio::test]
async fn all_branches_need_a_named_environment() {
    let ended = Desk::new().run(&["trust-policy", "--account", "123456789012", "--any-branch"]).await;
    assert_eq!(ended.kind, Some(Kind::User), "{}", ended.out);
    assert!(
        ended.error.contains("an environment without a name") && ended.error.contains("`--environment`"),
        "{}",
        ended.error
    );
}

#[tokio::test]
async fn a_socket_or_link_is_no_file_for_the_token() {
    let desk = Desk::new().with("AWS_ID_TOKEN", &token(ISSUER, "one"));
    let manifest = desk.manifest();
    let [socket, link] = ["socket", "link"].map(|name| desk.folder.path().join(name));
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    for file in [&socket, &link].map(|file| file.to_str().unwrap()) {
        let words = ["export", "--manifest", &manifest, "--environment", "production", "--token-file", file];
        let ended = desk.run(&words).await;
        assert!(ended.kind == Some(Kind::User) && ended.error.contains("`--token-file`"), "{}", ended.error);
    }
    assert!(link.is_symlink() && !socket.is_file());
}

#[tokio::test]
async fn the_token_is_in_a_file_of_this_user_and_in_no_output() {
    let token = token(ISSUER, "one");
    let desk = Desk::new().with("AWS_ID_TOKEN", &token);
    let manifest = desk.manifest();
    let ended = desk.run(&["export", "--manifest", &manifest, "--environment", "production"]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    let file = desk.folder.path().join("project.tmp/sagemaker-executor-id-token-8");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        ended.out.contains("export AWS_ROLE_ARN='arn:aws-us-gov:iam::123456789012:role/deploy'\n"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("export AWS_ROLE_SESSION_NAME='gitlab-group.project-p7-j8-u42'\n"), "{}", ended.out);
    assert!(!format!("{}{}", ended.out, ended.lines).contains(&token));
}
