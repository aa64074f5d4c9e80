//! The connection itself: TLS with an own authority, proxies of the environment, and the memory of an upload. Proxies and memory are
//! those of a process, so a test starts this program again, with [`as_a_process`] alone.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use executor::config::env::Environment;
use executor::gitlab::api::{GitLabAccess, GitLabApi as _, GitLabErrorKind, GitLabToken, Upload};
use futures::TryStreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::process::Command;

use super::calls::place;
use super::stub::{Stub, TOKEN, project, project_behind, reply};
use crate::connection::Proxies;

fn openssl(folder: &Path, arguments: &str) {
    let output = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an authority, `ca.pem`, with a certificate for 127.0.0.1.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder.path(), &format!("req -x509 -keyout ca.key -out ca.pem -days 30 -subj /CN=authority {key}"));
    openssl(folder.path(), &format!("req -keyout server.key -out server.csr -subj /CN=127.0.0.1 {key}"));
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30";
    openssl(folder.path(), &format!("{sign} -extfile names -out server.pem"));
    folder
}

/// A server over TLS that answers this many connections with an empty list.
fn tls_server(folder: &Path, connections: usize) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api_url = format!("https://{}/api/v4", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            let mut head = [0; 4096];
            // A client that does not trust the certificate sends nothing.
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]").unwrap();
            }
        }
    });
    api_url
}

fn access(api_url: String) -> GitLabAccess {
    GitLabAccess { api_url, project: "42".to_owned(), token: GitLabToken::Job(TOKEN.to_owned()), ca_file: None }
}

#[tokio::test]
async fn an_own_authority_is_trusted_when_it_is_named() {
    let (folder, other) = (certificates(), certificates());
    let api_url = tls_server(folder.path(), 3);
    let mut access = access(api_url);
    access.ca_file = Some(folder.path().join("ca.pem"));
    assert_eq!(project(&access).tag_commit("v1").await.unwrap(), None);
    // Several certificates, and one that TLS cannot use.
    let unusable = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";
    let read = |folder: &TempDir| std::fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    let all = folder.path().join("all.pem");
    std::fs::write(&all, format!("{}{unusable}{}", read(&other), read(&folder))).unwrap();
    access.ca_file = Some(all);
    assert_eq!(project(&access).tag_commit("v1").await.unwrap(), None);
    access.ca_file = Some(other.path().join("ca.pem"));
    let error = project(&access).tag_commit("v1").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Invalid);
    assert!(error.message.contains("`CI_SERVER_TLS_CA_FILE`"), "{error}");
}

/// Called by other tests, in a process of its own: sends one request, or uploads a file of this many bytes.
#[tokio::test]
#[ignore = "started by other tests with variables of its own"]
async fn as_a_process() {
    let env = Environment::of_process();
    let variable = |name: &str| env.get(name).map(str::to_owned);
    let mut access = access(variable("TEST_API_URL").unwrap());
    if let Some(token) = variable("TEST_SECRET_TOKEN") {
        access.token = GitLabToken::Secret(token);
    }
    let project = project_behind(&access, Proxies::OfEnvironment);
    if let Some(tag) = variable("TEST_TAG") {
        assert_eq!(project.tag_commit(&tag).await.unwrap(), None);
        return;
    }
    let Some(path) = variable("TEST_FILE") else {
        project.release("v1").await.unwrap();
        return;
    };
    let bytes = Path::new(&path).metadata().unwrap().len();
    project.upload(&place(), Upload { path: Path::new(&path), bytes, sha256: "" }).await.unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(kib < 64 << 10, "{kib} KiB");
}

async fn process(variables: &[(&str, &str)]) -> bool {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "tests::wire::as_a_process", "--ignored"]).env_clear().envs(variables.iter().copied());
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    output.status.success()
}

#[tokio::test]
async fn proxies_of_the_environment_are_used_in_both_cases() {
    for name in ["HTTP_PROXY", "http_proxy"] {
        let proxy = Stub::start().await;
        proxy.push(reply(404, ""));
        let url = proxy.access.api_url.strip_suffix("/api/v4").unwrap();
        assert!(process(&[("TEST_API_URL", "http://gitlab.test/api/v4"), (name, url)]).await);
        assert_eq!(proxy.lines(), ["GET http://gitlab.test/api/v4/projects/42/releases/v1"]);
    }
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let proxy = Stub::start().await;
        proxy.push(reply(403, ""));
        let url = proxy.access.api_url.strip_suffix("/api/v4").unwrap();
        assert!(!process(&[("TEST_API_URL", "https://gitlab.test/api/v4"), (name, url)]).await);
        assert_eq!(proxy.lines().first().unwrap(), "CONNECT gitlab.test:443");
        assert!(proxy.seen().iter().all(|seen| seen.header("job-token").is_none()), "the proxy sees no token");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        let (proxy, server) = (Stub::start().await, Stub::start().await);
        server.push(reply(404, ""));
        let url = proxy.access.api_url.strip_suffix("/api/v4").unwrap();
        let variables = [("TEST_API_URL", server.access.api_url.as_str()), ("HTTP_PROXY", url), (name, "127.0.0.1")];
        assert!(process(&variables).await);
        assert_eq!((proxy.seen().len(), server.seen().len()), (0, 1));
    }
}

/// The token of a secret goes to no proxy that can read it, and to no server that a variable vouches for.
#[tokio::test]
async fn no_variable_leads_the_token_of_a_secret_astray() {
    let secret = ("TEST_SECRET_TOKEN", TOKEN);
    let (proxy, server) = (Stub::start().await, Stub::start().await);
    let url = proxy.access.api_url.strip_suffix("/api/v4").unwrap();
    for name in ["HTTP_PROXY", "ALL_PROXY", "http_proxy"] {
        server.push(reply(404, ""));
        assert!(process(&[("TEST_API_URL", server.access.api_url.as_str()), (name, url), secret]).await, "{name}");
    }
    assert_eq!((proxy.seen().len(), server.seen().len()), (0, 3));

    let folder = certificates();
    let (api_url, file) = (tls_server(folder.path(), 2), folder.path().join("ca.pem"));
    let by_variable =
        [("TEST_API_URL", api_url.as_str()), ("TEST_TAG", "v1"), ("SSL_CERT_FILE", file.to_str().unwrap())];
    assert!(process(&by_variable).await, "the variable has its effect on other tokens");
    assert!(!process(&[&by_variable[..], &[secret]].concat()).await);
}

async fn count(body: Body) -> (axum::http::StatusCode, String) {
    let parts = body.into_data_stream().map_ok(|part| part.len() as u64);
    let size = parts.try_fold(0, |sum, part| async move { Ok(sum + part) }).await.unwrap();
    (axum::http::StatusCode::CREATED, format!(r#"{{"id":1,"file_name":"a","size":{size},"file_sha256":null}}"#))
}

#[tokio::test]
async fn an_upload_takes_little_memory() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}/api/v4", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(count)).await.unwrap() });
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(300 << 20).unwrap();
    let path = file.path().to_str().unwrap();
    assert!(process(&[("TEST_API_URL", &api_url), ("TEST_FILE", path)]).await);
    server.abort();
}
