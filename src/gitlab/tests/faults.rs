//! Failures of GitLab and of the network: what is repeated, and what an error says.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::gitlab::api::{GitLabAccess, GitLabApi as _, GitLabErrorKind, GitLabToken, ReleaseLink};

use super::calls::{place, upload};
use super::stub::{Stub, TOKEN, project, reply, with_header};
use crate::connection::MOST_ANSWER;

#[tokio::test]
async fn a_read_is_repeated_while_gitlab_is_away() {
    let stub = Stub::start().await;
    stub.push(reply(502, "<html>bad gateway</html>"));
    stub.push(with_header(503, "retry-after", "0", "busy"));
    stub.push(reply(200, "[]"));
    assert_eq!(stub.project.tag_commit("v1").await.unwrap(), None);
    assert_eq!(stub.seen().len(), 3);
    for _ in 0..3 {
        stub.push(reply(504, ""));
    }
    let error = stub.project.tag_commit("v1").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Transient);
    assert_eq!(error.to_string(), "failed to read tag v1: HTTP 504");
    assert_eq!(stub.seen().len(), 6, "the repetition has an end");
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_by_every_call() {
    let stub = Stub::start().await;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    stub.push(with_header(429, "retry-after", "0", "Retry later\n"));
    stub.push(reply(201, r#"{"message":"201 Created"}"#));
    stub.project.upload(&place(), upload(source.path())).await.unwrap();
    assert_eq!(stub.seen().iter().map(|seen| seen.body.as_slice()).collect::<Vec<_>>(), [b"test", b"test"]);
    stub.push(reply(429, r#"{"message":{"error":"Too many requests"}}"#));
    stub.push(reply(201, r#"{"id":1,"body":"b","author":{"id":7}}"#));
    stub.project.create_note(5, "b").await.unwrap();
    stub.push(with_header(429, "retry-after", "3600", ""));
    let error = stub.project.create_note(5, "b").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Throttled);
    assert!(error.message.contains("a pause of 3600 s"), "{error}");
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn a_write_that_may_have_taken_effect_is_not_repeated() {
    let stub = Stub::start().await;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    stub.push(reply(502, ""));
    stub.project.upload(&place(), upload(source.path())).await.unwrap_err();
    stub.push(reply(503, ""));
    stub.project.create_note(5, "b").await.unwrap_err();
    let link = ReleaseLink { name: "a".to_owned(), url: "https://a.example".to_owned() };
    stub.push(reply(504, ""));
    stub.project.add_link("v1", &link).await.unwrap_err();
    assert_eq!(stub.seen().len(), 3);
    stub.push(reply(502, ""));
    stub.push(reply(200, ""));
    stub.project.edit_note(5, 1, "b").await.unwrap();
    assert_eq!(stub.seen().len(), 5, "the same text twice is no other text");
}

/// A server that reads the head of each request, and closes the connection without an answer.
fn closing_server() -> (GitLabAccess, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api_url = format!("http://{}/api/v4", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            if stream.read(&mut head).unwrap() > 0 {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let token = GitLabToken::Job(TOKEN.to_owned());
    (GitLabAccess { api_url, project: "42".to_owned(), token, ca_file: None }, count)
}

#[tokio::test]
async fn a_lost_reply_is_repeated_for_reads_alone() {
    let (access, count) = closing_server();
    let project = project(&access);
    let error = project.tag_commit("v1").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Transient);
    assert_eq!(count.swap(0, Ordering::SeqCst), 3, "one attempt, and two more");
    let error = project.create_note(5, "b").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Transient);
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upload_that_is_cut_off_says_that_its_size_may_be_refused() {
    let (access, count) = closing_server();
    let source = tempfile::NamedTempFile::new().unwrap();
    source.as_file().set_len(64 << 20).unwrap();
    let file = executor::gitlab::api::Upload { bytes: 64 << 20, ..upload(source.path()) };
    let error = project(&access).upload(&place(), file).await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Transient);
    assert!(error.message.contains("`client_max_body_size`"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// Nothing was sent, so the call is repeated whatever it does.
#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let token = GitLabToken::Job(TOKEN.to_owned());
    let access =
        GitLabAccess { api_url: format!("http://{address}/api/v4"), project: "42".to_owned(), token, ca_file: None };
    let error = project(&access).create_note(5, "b").await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::Transient);
    assert!(error.message.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_refused_and_its_server_sees_nothing() {
    let (stub, other) = (Stub::start().await, Stub::start().await);
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    for status in [301, 302, 307, 308] {
        stub.push(with_header(status, "location", &format!("{}/moved", other.access.api_url), ""));
        let error = stub.project.tag_commit("v1").await.unwrap_err();
        assert_eq!(error.kind, GitLabErrorKind::Invalid);
        let origin = other.access.api_url.strip_suffix("/api/v4").unwrap();
        assert!(error.message.contains(origin) && error.message.contains("`CI_API_V4_URL`"), "{error}");
        stub.push(with_header(status, "location", &format!("{}/moved", other.access.api_url), ""));
        stub.project.upload(&place(), upload(source.path())).await.unwrap_err();
    }
    assert_eq!(stub.seen().len(), 8);
    assert_eq!(other.lines(), [""; 0]);
}

#[tokio::test]
async fn no_error_holds_the_token() {
    let stub = Stub::start().await;
    stub.push(reply(400, format!("you sent {TOKEN}")));
    let error = stub.project.tag_commit("v1").await.unwrap_err();
    assert_eq!(error.message, "HTTP 400: you sent [MASKED]");
    stub.push(reply(200, format!(r#"{{"token": "{TOKEN}"}}"#)));
    assert!(!stub.project.tag_commit(TOKEN).await.unwrap_err().to_string().contains(TOKEN));
}

#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let stub = Stub::start().await;
    let mut long = vec![b' '; MOST_ANSWER];
    long.extend_from_slice(b"[]");
    stub.push(reply(200, long));
    let error = stub.project.tag_commit("v1").await.unwrap_err();
    assert!(error.message.contains("larger than 64 MiB"), "{error}");
    for page in 2..200 {
        stub.push(with_header(200, "x-next-page", &page.to_string(), "[]"));
    }
    let error = stub.project.notes(5).await.unwrap_err();
    assert!(error.message.contains("more than 100 pages"), "{error}");
    assert_eq!(stub.seen().len(), 101);
}

#[tokio::test]
async fn pages_that_go_in_a_circle_are_refused() {
    let stub = Stub::start().await;
    stub.push(with_header(200, "x-next-page", "2", "[]"));
    stub.push(with_header(200, "x-next-page", "1", "[]"));
    let error = stub.project.notes(5).await.unwrap_err();
    assert!(error.message.contains("in a circle"), "{error}");
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn a_list_of_another_form_is_refused() {
    let stub = Stub::start().await;
    for body in ["", "{}", "[{}]", "[1]", r#"[{"id":-1}]"#, r#"[{"id":1,"body":null}]"#, "<html></html>"] {
        stub.push(reply(200, body));
        let error = stub.project.notes(5).await.unwrap_err();
        assert_eq!(error.kind, GitLabErrorKind::Invalid);
        assert!(error.message.contains("not one that GitLab sends"), "{error}");
    }
}

/// A server that is slow to close: its 413 comes while the file is still being sent.
#[tokio::test]
async fn a_file_that_is_too_large_is_told_early() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api_url = format!("http://{}/api/v4", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut part = vec![0; 64 << 10];
        stream.read_exact(&mut part).unwrap();
        let page = "<html><head><title>413 Request Entity Too Large</title></head></html>";
        let head = format!(
            "HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            page.len()
        );
        stream.write_all(format!("{head}{page}").as_bytes()).unwrap();
        // Reads on, as nginx does for some seconds, so that the answer is not lost with the connection.
        while stream.read(&mut part).is_ok_and(|read| read > 0) {}
    });
    let source = tempfile::NamedTempFile::new().unwrap();
    source.as_file().set_len(64 << 20).unwrap();
    let file = executor::gitlab::api::Upload { bytes: 64 << 20, ..upload(source.path()) };
    let token = GitLabToken::Job(TOKEN.to_owned());
    let access = GitLabAccess { api_url, project: "42".to_owned(), token, ca_file: None };
    let error = project(&access).upload(&place(), file).await.unwrap_err();
    assert_eq!(error.kind, GitLabErrorKind::TooLarge);
    assert_eq!(error.message, "HTTP 413 Request Entity Too Large");
}
